"""What data/metrics.json and the data card say of the prepared data."""

from pathlib import Path
from typing import Any

import pandas

from helpers.data.clean import Corpus
from helpers.data.load import Source
from helpers.data.rows import Parts
from helpers.runs.files import file_sha256


def data_metrics(
    folder: Path, source: Source, corpus: Corpus, parts: Parts, lengths: pandas.Series, models: dict, checks: dict
) -> dict[str, Any]:
    """Returns the content of data/metrics.json; `folder` holds the files of the parts, `lengths` are tokens by row id.

    `models` are `base_model` and `embedded_model`, `checks` are `overlap`, `dialogues` and what `find_leaks` saw.
    """
    quantile = {share: float(lengths.quantile(share / 100)) for share in range(101)}
    return {
        **source.as_json(),
        **models,
        "rows_in": source.rows,
        "rows_out": len(lengths),
        "dropped": corpus.dropped.rule.value_counts().to_dict(),
        "groups": len({row["group"] for rows in parts.values() for row in rows}),
        **{part: len(rows) for part, rows in parts.items()},
        **checks,
        "tokens": {
            "mean": float(lengths.mean()),
            **{f"p{share}": quantile[share] for share in (50, 95, 99)},
            "max": int(lengths.max()),
            "total": int(lengths.sum()),
            "quantiles": [[share / 100, tokens] for share, tokens in quantile.items()],
        },
        "funnel": [step.as_json() for step in corpus.funnel],
        "sha256": {part: file_sha256(folder / f"{part}.jsonl") for part in parts},
    }


def data_card(source: Source, metrics: dict[str, Any]) -> str:
    """Returns a data card in Markdown: source, licence as far as known, counts, defects found, intended use."""
    import jinja2

    template = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render({**metrics, "source": source})
