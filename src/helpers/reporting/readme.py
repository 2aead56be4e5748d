"""A run's scores and an exchange between the README's marks."""

import re
from pathlib import Path

from helpers.platforms.machine import count_gpus
from helpers.reporting.render import visible_text
from helpers.reporting.results import Results, read_results
from helpers.reporting.tables import SPECS, markdown_table, score_rows
from helpers.runs.damage import reading
from helpers.runs.files import write_text
from helpers.runs.record import Run

FLOOR = (
    "Floor: what the same replies score against the answers to other questions; at the floor, the tuned score's own "
    "95 % interval reaches down to it."
)


def readme_blocks(results: Results) -> dict[str, str]:
    """Returns what the README shows of a run: {"results": a table, "exchange": a question and the tuned reply}.

    Raises ValueError before the run has been evaluated.
    """
    if results.scores is None:
        raise ValueError(f"{results.run.name}: not evaluated yet. Finish stage evaluate first.")
    stage, sample = results.record.stages["evaluate"], results.samples(1, 0)[0]
    rows, gpu = results.metrics["evaluate"]["n"], count_gpus(stage.gpu) or "on a CPU"
    intro = f"{rows} held-out rows, {gpu}, commit {stage.git_sha[:7] or 'unknown'}; the other scores are in its report."
    table = markdown_table(score_rows(results.scores, "scores in Markdown", SPECS["readme"]))
    prompt, tuned = (f"> *{one_line(gloss)}*" if (gloss := sample.gloss.get(n)) else None for n in ("prompt", "tuned"))
    exchange = [f"> **{one_line(sample.prompt)}**", prompt, ">", f"> {one_line(sample.tuned)}", tuned]
    return {"results": f"{intro}\n{FLOOR}\n\n{table}", "exchange": "\n".join(filter(None, exchange))}


def one_line(text: str) -> str:
    """Returns a text as one line of Markdown, its marks and tags escaped."""
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", " ".join(visible_text(text).split()))


def fill_readme(run: Run, readme: Path) -> list[str]:
    """Puts a run's results and exchange between the README's marks for its preset; returns the marks that were filled.

    Raises ValueError when there are none: `<!-- results PRESET -->` to `<!-- /results PRESET -->`.
    """
    with reading(readme, "Expected a text in UTF-8."):
        content = readme.read_text(encoding="utf-8")
    results, filled = read_results(run), []
    preset = results.record.preset or run.name
    for mark, block in readme_blocks(results).items():
        marks = rf"(?s)(<!-- {mark} {re.escape(preset)} -->).*?(<!-- /{mark} {re.escape(preset)} -->)"
        content, count = re.subn(marks, lambda match, block=block: f"{match[1]}\n{block}\n{match[2]}", content)
        filled += [mark] * count
    if not filled:
        raise ValueError(
            f"{readme} has no mark for {preset}: expected <!-- results {preset} --> and <!-- /results {preset} -->."
        )
    write_text(readme, content)
    return filled
