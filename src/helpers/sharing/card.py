"""The model card, made from the run's own files."""

from pathlib import Path
from typing import Any

import yaml

from helpers.reporting.preference import preference_content
from helpers.reporting.render import load_template
from helpers.reporting.results import read_results
from helpers.reporting.summary import summarise_run
from helpers.reporting.tables import markdown_table, score_rows
from helpers.reporting.words import Words
from helpers.runs.record import Run


def model_card(run: Run, head: dict[str, Any] | None = None, side: str = "tuned") -> str:
    """Returns the model card, made from the run's own files; what was not measured reads so.

    `head` is its front matter: that of a model with this adapter, unless given. `side` is the model: "tuned", or
    "preferred", whose scores then stand beside the tuned one's.
    """
    results, config = read_results(run), run.training_config()
    base, stage, words = config["base_model"], results.record.stages.get("train"), Words()
    head = head or {
        "library_name": "peft",
        "language": ["bn"],
        "tags": ["lora", "empathy", "bengali"],
        **({"base_model": base} if "/" in base and not Path(base).exists() else {}),
    }
    card = load_template(Path(__file__).with_name("card.md.j2")).render(
        head=yaml.safe_dump(head, sort_keys=False),
        name=run.name,
        config=config,
        data=results.metrics.get("prepare_data"),
        training=results.metrics.get("train", {}),
        commit=stage.git_sha[:10] if stage else "",
        scores=results.scores,
        prefer=results.prefer if side == "preferred" else {},
        preference=preference_content(results, words) if side == "preferred" else {},
        summary=summarise_run(results, words),
        markdown_table=markdown_table,
        score_table=markdown_table(score_rows(results.scores, "scores in Markdown")) if results.scores else "",
    )
    return card + "\n"
