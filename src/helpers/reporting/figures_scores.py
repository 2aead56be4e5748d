"""The pictures of 03_evaluate and 05_report: paired differences, breakdowns, where the tuned model loses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from helpers.evaluation.comparison import Comparison, Score
from helpers.reporting.figures import BLACK, BLUE, GREY, ORANGE, create_axes, difference_colour
from helpers.reporting.figures_data import WIDTH, label_bars, note_empty
from helpers.reporting.tables import LABELS, score_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICT_COLOURS = {"better": BLUE, "worse": ORANGE}  # grey for the others
VERDICTS = {  # of `score_verdict`, in the order in which they are shown: what a sentence says
    "better": "better",
    "worse": "worse",
    "at the floor": "at the floor, which words alone reach too",
    "no clear difference": "not clearly different",
    "exploratory": "not judged, as a primary score is not clear",
}
BREAKDOWN_SCORES = ("chrf", "perplexity")


def short_label(name: str) -> str:
    """Returns a score's name without what follows its comma."""
    return LABELS[name][0].split(",")[0]


def directed_scores(scores: Comparison) -> list[str]:
    """Returns the names of the scores that both models have and that have a better direction."""
    both = [name for name in LABELS if name in scores.delta and name in scores.base and name in scores.tuned]
    return [name for name in both if scores.delta[name].better not in ("near 1", "neither")]


def draw_forest(scores: Comparison) -> "Figure":
    """Returns a forest plot: for each score tuned − base with its 95 % interval, on a scale of its own, better right.

    A black tick is where a tuned model would stand that scores what words alone do: its floor.
    """
    names = directed_scores(scores)
    figure, axes = create_axes(figsize=(WIDTH, 1.1 + 0.3 * max(2, len(names))))
    alt = []
    for place, name in enumerate(names):
        delta, digits, verdict = scores.delta[name], LABELS[name][1], score_verdict(scores, name)
        low, value, high, floor = forest_points(scores, name)
        colour = VERDICT_COLOURS.get(verdict, GREY)
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(value, place, "o" if verdict in VERDICT_COLOURS else "D", color=colour, markersize=5)
        if floor is not None:
            axes.plot([floor, floor], [place - 0.32, place + 0.32], color=BLACK, linewidth=2)
        text = f"{delta.value:+.{digits}f}  ({delta.low:+.{digits}f} to {delta.high:+.{digits}f})"
        axes.text(1.02, place, text, va="center", fontsize=8, transform=axes.get_yaxis_transform())
        alt.append(f"{short_label(name)} {delta.value:+.{digits}f}, {verdict}")
    axes.axvline(0, color=BLACK, linewidth=0.8)
    label_bars(axes, [short_label(name) for name in names], "worse ← tuned − base, each on its own scale → better")
    axes.set(xlim=(-1.08, 1.08), xticks=[0] if names else [])
    axes.spines["bottom"].set_visible(False)
    if any(scores.tuned[name].floor is not None for name in names):
        axes.plot([], [], "|", color=BLACK, markersize=10, label="floor: what words alone would score")
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.set_label(f"Forest plot of tuned − base: {'; '.join(alt) or 'no scores'}.")
    return figure


def forest_points(scores: Comparison, name: str) -> tuple[float, float, float, float | None]:
    """Returns low, value, high and floor of a score's difference: of −1 to 1, better to the right; no floor: None."""
    delta, base, floor = scores.delta[name], scores.base[name], scores.tuned[name].floor
    sign = 1 if delta.better == "higher" else -1
    points = [delta.low, delta.value, delta.high, *([floor - base.value] if floor is not None else [])]
    scale = max(map(abs, points)) or 1.0
    low, value, high, *at_floor = (sign * point / scale for point in points)
    return min(low, high), value, max(low, high), at_floor[0] if at_floor else None


def group_verdicts(scores: Comparison) -> dict[str, list[str]]:
    """Returns the names of the scores by their verdict, each verdict that has some."""
    verdicts: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for name in directed_scores(scores):
        verdicts.setdefault(score_verdict(scores, name), []).append(short_label(name))
    return {verdict: names for verdict, names in verdicts.items() if names}


def describe_verdict(scores: Comparison) -> str:
    """Returns in a sentence how many scores are better, worse, at their floor, or not clearly different."""
    verdicts, rows = group_verdicts(scores), next((delta.n for delta in scores.delta.values()), 0)
    counts = [f"{len(names)} {VERDICTS.get(verdict, verdict)}" for verdict, names in verdicts.items()]
    total = sum(map(len, verdicts.values()))
    return f"Of {total} scores on {rows:,} rows, tuned against base: {', '.join(counts) or 'none was measured'}."


def draw_breakdown(groups: Sequence[Mapping[str, Any]], at_floor: bool = False) -> "Figure":
    """Returns tuned − base of chrF++ and of perplexity for each group of rows, with its interval.

    `groups` are a breakdown of evaluate/metrics.json: `topics` or `lengths`. `at_floor`: over all rows, chrF++ is at
    its floor, so that its points are grey.
    """
    names = [name for name in BREAKDOWN_SCORES if groups and name in groups[0]["delta"]]
    figure, panels = create_axes(
        1, max(1, len(names)), figsize=(WIDTH, 1.1 + 0.27 * max(2, len(groups))), sharey=True, squeeze=False
    )
    labels = [f"{group['label'][:30]} ({group['n']:,})" for group in groups]
    alt = []
    for axes, name in zip(panels[0], names):
        for place, group in enumerate(groups):
            delta = Score(**group["delta"][name])
            plot_difference(axes, place, delta, GREY if at_floor and name == "chrf" else difference_colour(delta))
            alt.append(f"{group['label']} {short_label(name)} {delta.value:+.2f}")
        axes.axvline(0, color=BLACK, linewidth=0.8)
        aim = Score(**groups[0]["delta"][name]).better
        note = "grey: at its floor as a whole" if at_floor and name == "chrf" else f"{aim} is better"
        label_bars(axes, labels, f"{short_label(name)}\ntuned − base ({note})")
    if not names:
        note_empty(panels[0][0])
    figure.set_label(f"Points with intervals: tuned − base by group: {'; '.join(alt) or 'no groups'}.")
    return figure


def plot_difference(axes: "Axes", place: int, delta: Score, colour: str) -> None:
    """Plots a difference with its interval; a grey one, which shows nothing, is a diamond."""
    axes.plot([delta.low, delta.high], [place, place], color=colour, linewidth=2)
    axes.plot(delta.value, place, "D" if colour == GREY else "o", color=colour)


def describe_breakdown(groups: Sequence[Mapping[str, Any]], at_floor: bool = False) -> str:
    """Returns in a sentence in how many groups the tuned model is clearly better, clearly worse, or neither.

    `at_floor`: over all rows, chrF++ is at its floor, so that no group shows anything.
    """
    name = next((name for name in BREAKDOWN_SCORES if groups and name in groups[0]["delta"]), "")
    if not name:
        return "There are no groups to compare."
    deltas = [Score(**group["delta"][name]) for group in groups]
    clear = [delta for delta in deltas if not delta.low <= 0 <= delta.high]
    better = sum((delta.value > 0) == (delta.better == "higher") for delta in clear)
    if at_floor and name == "chrf":
        rose = f"{short_label(name)} rose in {sum(delta.value > 0 for delta in deltas)} of {len(deltas)} groups"
        return f"{rose}, but as a whole its interval reaches down to its floor: this shows nothing."
    worst = min(groups, key=lambda group: _gain(Score(**group["delta"][name])))
    counts = f"clearly better in {better} of {len(deltas)} groups, clearly worse in {len(clear) - better}"
    least = f"least gain: {worst['label']}, {Score(**worst['delta'][name]).value:+.2f}"
    return f"By {short_label(name)} the tuned model is {counts}; {least}."


def _gain(delta: Score) -> float:
    return delta.value if delta.better == "higher" else -delta.value


def chrf_changes(row_scores: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Returns tuned − base of chrF++ of each row of evaluate/scores.csv that has both."""
    rows = [row for row in row_scores.values() if row.get("tuned_chrf") and row.get("base_chrf")]
    return [float(row["tuned_chrf"]) - float(row["base_chrf"]) for row in rows]


def draw_row_changes(changes: Sequence[float]) -> "Figure":
    """Returns a bar per held-out row, sorted: how much chrF++ the tuned reply gained on the base one, or lost."""
    ordered = sorted(changes)
    figure, axes = create_axes(figsize=(WIDTH, 2.6))
    colours = [ORANGE if change < 0 else BLUE for change in ordered]
    axes.bar(range(1, len(ordered) + 1), ordered, color=colours, width=1.0)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set(xlabel="held-out rows, sorted (orange: the tuned reply lost)", ylabel="chrF++, tuned − base")
    if not ordered:
        note_empty(axes)
    figure.set_label(f"Bars, one per held-out row, sorted. {describe_row_changes(changes)}")
    return figure


def describe_row_changes(changes: Sequence[float]) -> str:
    """Returns in a sentence on how many rows the tuned reply lost chrF++, and how much at most."""
    if not changes:
        return "No replies were scored row by row."
    lost = [change for change in changes if change < 0]
    ending = f"by {-min(lost):.1f} at most" if lost else f"the least gain is {min(changes):+.1f}"
    return f"The tuned reply scores below the base model's on {len(lost):,} of {len(changes):,} rows; {ending}."
