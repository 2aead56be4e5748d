"""Tables: rows of text from values and a spec of columns, for notebooks, pages and Markdown."""

import datetime
import itertools
import statistics
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.evaluation.comparison import Comparison, Score
from helpers.evaluation.metrics import PRIMARY
from helpers.evaluation.resampling import NORMAL_95, SIGNIFICANT
from helpers.runs.files import load_yaml

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

SPECS = load_yaml(Path(__file__).with_suffix(".yaml"))

LABELS: dict[str, tuple[str, int]] = {score: (label, digits) for score, (label, digits) in SPECS["labels"].items()}

AIMS = {"higher": "higher is better", "lower": "lower is better", "near 1": "near 1", "neither": "no direction"}


class _CellFormatter(string.Formatter):
    """`str.format`, except that a text passes whatever number's format is asked for, and None is no value."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None:
            raise LookupError
        return value if isinstance(value, str) else format(value, format_spec).replace("%", " %")


def build_table(spec: str | dict[str, str], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns rows of text with the columns of a spec: a name in tables.yaml, or {heading: template of `str.format`}.

    A cell whose value is None or not there reads "–".
    """
    columns = SPECS[spec] if isinstance(spec, str) else spec
    return [{heading: _fill_cell(cell, row, "–") for heading, cell in columns.items()} for row in rows]


def build_facts(spec: str, subjects: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns `build_table` turned round: a row per template of the spec, a column per subject.

    A cell whose value is None or not there reads "not measured".
    """
    return [
        {"what": what, **{name: _fill_cell(cell, values, "not measured") for name, values in subjects.items()}}
        for what, cell in SPECS[spec].items()
    ]


def _fill_cell(template: str, values: Mapping[str, Any], missing: str) -> str:
    try:
        return _CellFormatter().vformat(template, (), values)
    except LookupError:
        return missing


def list_values(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns names and values as rows of text: a float to five digits, a dict without its lists."""
    return [{"what": name, "value": _describe_value(value)} for name, value in values.items()]


def _describe_value(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, dict):
        parts = {name: part for name, part in value.items() if not isinstance(part, list)}
        return ", ".join(f"{name} {_describe_value(part)}" for name, part in parts.items()) or "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def is_unjudged(name: str, delta: Mapping[str, Score]) -> bool:
    """Returns whether a score's difference gets no verdict, because a primary score has none yet."""
    gates = [delta[primary].p for primary in PRIMARY if primary in delta]
    return name not in (*PRIMARY, "unsafe") and any(p is not None and p >= SIGNIFICANT for p in gates)


def score_verdict(scores: Comparison, name: str) -> str:
    """Returns `Score.change` of tuned − base for one score.

    "at the floor" instead of better: the tuned model scores no more than words alone would. "exploratory": no verdict,
    because a primary score has none yet.
    """
    base, tuned, delta = scores.base[name], scores.tuned[name], scores.delta[name]
    if is_unjudged(name, scores.delta):
        return "exploratory"
    verdict = delta.change
    if verdict == "–" and base.better == "near 1":
        return "better" if abs(tuned.value - 1) < abs(base.value - 1) else "worse"
    return "at the floor" if verdict == "better" and tuned.is_at_floor else verdict


def score_rows(scores: Comparison, spec: str = "scores", names: Iterable[str] = LABELS) -> list[dict[str, str]]:
    """Returns the table of base against tuned as rows of text, one per score of these names."""
    rows = []
    for name in [name for name in names if name in scores.base and name in scores.tuned]:
        base, tuned, delta = scores.base[name], scores.tuned[name], scores.delta[name]
        words = {"label": LABELS[name][0], "aim": base.better, "verdict": score_verdict(scores, name)}
        words |= {"aim in words": AIMS[base.better], "chosen": "primary" if name in PRIMARY else "exploratory"}
        rows.append({**words, "digits": LABELS[name][1], "base": base, "tuned": tuned, "delta": delta})
    return build_table(spec, rows)


def seed_rows(own: Comparison, others: Mapping[int, Comparison]) -> list[dict[str, str]]:
    """Returns the tuned model's scores over trainings with several seeds as rows of text: mean, lowest and highest, and
    the standard deviation between trainings beside that of one training's rows; [] without other seeds.

    The latter is a quarter of the 95 % interval, nearly.
    """
    rows = []
    for name in [name for name in SPECS["readme"] if others and name in own.tuned]:
        values = [scores.tuned[name].value for scores in (own, *others.values()) if name in scores.tuned]
        score, digits = own.tuned[name], LABELS[name][1]
        facts = {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}
        facts |= {"seeds": statistics.stdev(values), "rows": (score.high - score.low) / (2 * NORMAL_95)}
        rows.append({"label": LABELS[name][0], "n": len(values), "digits": digits, **facts})
    return build_table("seeds", rows)


def probe_rows(probe_scores: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the probes of evaluate/metrics.json as rows of text, one per score; [] where none were asked."""
    return score_rows(Comparison(**probe_scores), "probes") if probe_scores else []


def benchmark_rows(benchmarks: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the public benchmarks of evaluate/metrics.json as rows of text, one per task and metric."""
    return build_table("benchmarks", benchmarks.get("tasks", []))


def breakdown_rows(groups: list[dict]) -> list[dict[str, str]]:
    """Returns a breakdown of evaluate/metrics.json (its `topics` or `lengths`) as rows of text, one per group."""
    has_replies = all("chrf" in group["delta"] for group in groups)
    return build_table("breakdown" if has_replies else "breakdown of plain text", groups)


def category_rows(categories: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the fixed prompts by category as rows of text; unsafe replies are counts of so few prompts."""
    sides = ("base unsafe", "tuned unsafe")
    return build_table("categories", [{**row, **{s: round(row[s] * row["n"]) for s in sides}} for row in categories])


def rating_rows(summary: dict, spec: str = "ratings") -> list[dict[str, str]]:
    """Returns a summary of ratings, by people or by a language model, as rows of text, one per scale."""
    return build_table(spec, [{"scale": n, **marks} for n, marks in summary.get("scales", {}).items()])


def metric_rows(metrics: dict, **shown_as: str | None) -> list[dict[str, str]]:
    """Returns what a stage measured and what has no place of its own on the page, as rows of text.

    `shown_as` are values that are shown in another way, such as hours in minutes.
    """
    shown = {
        name: f"{100 * value:.1f} %" if "share" in name and isinstance(value, float) else _group_digits(value)
        for name, value in metrics.items()
        if name not in SPECS["metrics shown elsewhere"]
    }
    shown |= {name: text for name, text in shown_as.items() if name in shown}
    if shown.get("micro_batch_limit") is None:  # memory never ran out
        shown.pop("micro_batch_limit", None)
    return list_values({SPECS["metrics"].get(name, name.replace("_", " ")): value for name, value in shown.items()})


def _group_digits(value: Any) -> Any:
    """Returns a count, or a number to four digits, with commas between its thousands; another value as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show_time(text: str | None) -> str | None:
    """Returns a time of the run's files to the minute, "2026-01-31 12:05 UTC"; another text as it is."""
    try:
        return datetime.datetime.fromisoformat(text or "").astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text


def differing_settings(
    columns: Mapping[str, Mapping[str, Mapping[str, Any]]], skipped: tuple[str, ...]
) -> list[dict[str, str]]:
    """Returns the settings whose value is not the same in every column, as rows of text.

    `columns` are {heading: {stage: its parameters}}, `skipped` parameters that are left out; a parameter that is a
    dict is compared key by key.
    """
    flat: dict[str, dict[str, Any]] = {}  # "stage.parameter" or "stage.parameter.key": {heading: value}
    for heading, stages in columns.items():
        for stage, name, value in [(s, n, value) for s, names in stages.items() for n, value in names.items()]:
            parts = value if isinstance(value, dict) else {"": value}
            for key, part in parts.items() if name not in skipped else ():
                flat.setdefault(f"{stage}.{name}.{key}".rstrip("."), dict.fromkeys(columns, "–"))[heading] = part
    return [
        {"setting": name, **{heading: str(value)[:300] for heading, value in values.items()}}
        for name, values in flat.items()
        if any(value != other for value, other in itertools.pairwise(values.values()))
    ]


def text_table(rows: list[dict] | dict) -> "Styler":
    """Returns rows (or one dict, as name and value) as a table that shows every text in full, wrapped and escaped."""
    import pandas

    table = pandas.DataFrame(list_values(rows) if isinstance(rows, dict) else rows).astype(str)
    wrapped = "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere"
    styles = {"th, td": wrapped, "th": "overflow-wrap: normal", "td:first-child": "min-width: 8rem"}
    shown = table.style.hide(axis="index")
    shown.format(escape="html")
    return shown.set_table_styles([{"selector": name, "props": props} for name, props in styles.items()])


def markdown_table(rows: list[dict[str, str]]) -> str:
    """Returns rows of text as a Markdown table."""
    head, *body = [f"| {' | '.join(cells)} |" for cells in (rows[0], *(row.values() for row in rows))]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
