"""What data/metrics.json and the data card say of the prepared data."""

from pathlib import Path
from typing import Any

import pandas
import yaml

from helpers.data.clean import Corpus
from helpers.data.load import Source
from helpers.data.rows import Parts
from helpers.language.bengali import bengali_share
from helpers.runs.files import file_sha256, write_csv, write_jsonl, write_text

SPLITS = {"train": "train", "val": "validation", "test": "test"}  # part: its name on the Hub
SIZES = {  # the Hub's categories: rows from which each holds
    "1M<n<10M": 1_000_000,
    "100K<n<1M": 100_000,
    "10K<n<100K": 10_000,
    "1K<n<10K": 1000,
    "n<1K": 0,
}


def write_data(
    folder: Path, source: Source, corpus: Corpus, parts: Parts, lengths: pandas.Series, models: dict, checks: dict
) -> dict[str, Any]:
    """Writes the parts, dropped.csv and the data card README.md, and returns `data_metrics`, which takes the same."""
    for part, rows in parts.items():
        write_jsonl(folder / f"{part}.jsonl", rows)
    write_csv(folder / "dropped.csv", corpus.dropped[["number", "rule", "topic", "title", "question", "answer"]])
    metrics = data_metrics(folder, source, corpus, parts, lengths, models, checks)
    write_text(folder / "README.md", data_card(source, metrics, corpus.kept.answer))
    return metrics


def data_metrics(
    folder: Path, source: Source, corpus: Corpus, parts: Parts, lengths: pandas.Series, models: dict, checks: dict
) -> dict[str, Any]:
    """Returns the content of data/metrics.json; `folder` holds the files of the parts, `lengths` are tokens by row id.

    `models` are `base_model` and `embedded_model`, `checks` are `overlap`, `dialogues` and what `check_split` keeps.
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
        "merged_topics": [merged.as_json() for merged in corpus.merged_topics],
        "funnel": [step.as_json() for step in corpus.funnel],
        "sha256": {part: file_sha256(folder / f"{part}.jsonl") for part in parts},
    }


def card_metadata(source: Source, metrics: dict[str, Any], answers: pandas.Series) -> dict[str, Any]:
    """Returns the data card's front matter, by the Hub's names; a language only where it is Bengali."""
    bengali = bengali_share(" ".join(answers.head(1000))) > 0.5
    files = [{"split": split, "path": f"{part}.jsonl"} for part, split in SPLITS.items()]
    return {
        **({"language": ["bn"]} if bengali else {}),
        "license": "cc0-1.0" if source.dataset == "embedded" else "unknown",
        "task_categories": ["text-generation"],
        "size_categories": [next(name for name, least in SIZES.items() if metrics["rows_out"] >= least)],
        "pretty_name": f"{Path(source.dataset).name}, cleaned and split by group",
        "configs": [{"config_name": "default", "data_files": files}],
    }


def data_card(source: Source, metrics: dict[str, Any], answers: pandas.Series) -> str:
    """Returns a data card in Markdown: source, licence as far as known, counts, defects found, intended use.

    `metrics` are those of `data_metrics`, `answers` the kept rows'. With its front matter the folder is a data set
    that `datasets.load_dataset` reads.
    """
    import jinja2

    head = yaml.safe_dump(card_metadata(source, metrics, answers), sort_keys=False, allow_unicode=True)
    template = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    merged = [
        {**topic, **{key: " ".join(topic[key].replace("`", "'").split())[:60] for key in ("from", "to")}}
        for topic in metrics["merged_topics"]
    ]
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        {**metrics, "source": source, "head": head, "merged_topics": merged}
    )
