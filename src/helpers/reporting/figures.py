"""The plots of a run in one style: labelled units, colours that colour-blind readers tell apart, Bengali shaped."""

import functools
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.evaluation.comparison import Score
from helpers.reporting.tables import LABELS, SPECS
from helpers.reporting.words import Words
from helpers.runs.files import write_bytes
from helpers.runs.run_json import Session, session_times
from helpers.runs.stages import STAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Okabe and Ito's palette, and a grey: blue is the tuned model, grey the base one, orange what is worse or failed
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072b2", "#d55e00", "#009e73", "#666666", "#222222"
PALE = "#a0a0a0"  # bars of the base model, on which an interval is seen

SKY = "#56b4e9"  # what was changed

COLOURS = (BLUE, GREEN, "#cc79a7", "#e69f00", SKY, BLACK)  # of several runs

FONT = Path(__file__).with_name("fonts") / "NotoSansBengali-Regular.ttf"

ENGLISH = Words("en")

LOSS_AXIS = ENGLISH.say("plot.loss")


@functools.cache
def load_pyplot() -> Any:
    """Returns matplotlib.pyplot in the style of figures.mplstyle, with the font that it names."""
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    font_manager.fontManager.addfont(FONT)
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    return plt


def create_axes(*grid: int, **layout: Any) -> tuple["Figure", Any]:
    """Returns pyplot's `subplots`, the figure one in which Bengali is shaped."""
    from helpers.reporting.bengali_text import BengaliFigure

    return load_pyplot().subplots(*grid, FigureClass=BengaliFigure, **layout)


def save_figure(figure: "Figure", folder: Path, name: str, close: bool = True) -> bytes:
    """Writes a figure as name.png and name.svg into a folder and returns the SVG; a closed one no notebook shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    files, shown = {"png": io.BytesIO(), "svg": io.BytesIO()}, (figure.canvas, figure.dpi)
    if layout := figure.get_layout_engine():  # once: savefig would do it again for every file, and draw twice for it
        layout.execute(figure)
        figure.set_layout_engine("none")
    figure.dpi = load_pyplot().rcParams["savefig.dpi"]
    FigureCanvasAgg(figure).print_png(files["png"])
    FigureCanvasSVG(figure).print_svg(files["svg"], metadata={"Date": None})
    for kind, file in files.items():
        write_bytes(folder / f"{name}.{kind}", file.getvalue())
    figure.canvas, figure.dpi = shown
    if close:
        load_pyplot().close(figure)
    return files["svg"].getvalue()


def _plot_entries(axes: "Axes", log: list[dict], x: str, y: str, **style: Any) -> None:
    """Plots y over x of the log's entries that have both."""
    points = [(entry[x], entry[y]) for entry in log if x in entry and y in entry]
    if points:
        axes.plot(*zip(*points), **style)


def _spread(score: Score) -> list[list[float]]:
    """Returns how far a score's interval reaches below and above its value, (2, 1), as matplotlib takes it."""
    return [[max(0, score.value - score.low)], [max(0, score.high - score.value)]]


def _label_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Labels the rows of a horizontal chart, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_loss(log: list[dict], sessions: Sequence[Session] = (), words: Words = ENGLISH) -> "Figure":
    """Returns the curves of train/log.jsonl: training and validation loss above, the learning rate below.

    A dotted line marks the step at which a later one of the training's `sessions` resumed.
    """
    figure, (above, below) = create_axes(2, 1, figsize=(7, 4.5), sharex=True, height_ratios=[3, 1])
    _plot_entries(above, log, "step", "loss", label=words.say("plot.training"), color=BLUE)
    _plot_entries(above, log, "step", "eval_loss", label=words.say("plot.validation"), color=GREEN, marker="o")
    _plot_entries(below, log, "step", "learning_rate", color=BLUE)
    steps = [session.from_step for session in sessions[1:] if session.from_step]
    for place, step in enumerate(steps):
        above.axvline(step, color=BLACK, linestyle="dotted", label=None if place else words.say("plot.resumed"))
        below.axvline(step, color=BLACK, linestyle="dotted")
    above.set(ylabel=words.say("plot.loss"))
    above.legend()
    below.set(xlabel=words.say("plot.step"), ylabel=words.say("plot.rate"))
    return figure


def draw_losses(logs: dict[str, list[dict]], words: Words = ENGLISH) -> "Figure":
    """Returns the training and validation losses of several runs, {name: entries of train/log.jsonl}, over epochs."""
    figure, axes = create_axes(figsize=(7, 3.5))
    for (name, log), colour in zip(logs.items(), COLOURS):
        _plot_entries(axes, log, "epoch", "loss", color=colour, alpha=0.35)
        _plot_entries(axes, log, "epoch", "eval_loss", color=colour, label=name, marker="o")
    axes.set(xlabel=words.say("plot.epoch"), ylabel=words.say("plot.loss"))
    axes.legend()
    return figure


def draw_search(trials: list[dict], best: dict, words: Words = ENGLISH) -> "Figure":
    """Returns the validation losses of a search by rung, a line per candidate, and how much each setting decides.

    `trials` are the rows of tune/trials.csv, `best` the content of tune/best.json. A cross ends a candidate that was
    eliminated, a dot one that reached the last rung; the best is blue.
    """
    names = sorted({name for row in trials for name in row if " at rung " in name})
    figure, (curves, bars) = create_axes(1, 2, figsize=(9, 3.5), width_ratios=[3, 2])
    for row in trials:
        points = [(rung, float(row[name])) for rung, name in enumerate(names, 1) if row.get(name) not in (None, "")]
        if points:
            is_best = str(row["candidate"]) == str(best["candidate"])
            line, end, width = (BLUE, BLUE, 2.5) if is_best else ("0.6", "0.3", 1)
            curves.plot(*zip(*points), color=line, linewidth=width, zorder=2 + is_best)
            curves.plot(*points[-1], "o" if row["status"] == "finished" else "x", color=end, zorder=2 + is_best)
    curves.set_xticks(range(1, len(names) + 1))
    measure = "validation_bits" if "bits_per_char" in best else "validation_loss"
    curves.set(xlabel=words.say("plot.rung"), ylabel=words.say(f"plot.{measure}"))
    shares = best["importance"] or {}
    bars.barh([name.rpartition(".")[2] for name in shares], list(shares.values()), color=BLUE)
    bars.set(xlabel=words.say("plot.shares"), xlim=(0, 1))
    bars.invert_yaxis()
    return figure


def draw_scores(
    models: dict[str, dict[str, Score]], words: Words = ENGLISH, colours: Sequence[str] = COLOURS
) -> "Figure":
    """Returns bars with 95 % intervals for some of the scores, one per model; the dotted line is a score's floor.

    A score has a panel of its own, one below the other: so the plot fits a phone.
    """
    names = [name for name in SPECS["bars"] if all(name in scores for scores in models.values())]
    size = (5.6, 0.2 + (0.55 + 0.22 * len(models)) * len(names))
    figure, panels = create_axes(len(names), 1, figsize=size, squeeze=False)
    for axes, name in zip(panels[:, 0], names):
        scores = [model[name] for model in models.values()]
        for place, (score, color) in enumerate(zip(scores, itertools.cycle(colours))):
            axes.barh(place, score.value, xerr=_spread(score), color=color, capsize=3)
            if score.floor is not None:
                axes.vlines(score.floor, place - 0.4, place + 0.4, color=BLACK, linewidth=1.5, linestyles="dotted")
        axes.grid(axis="y", visible=False)
        _label_rows(axes, list(models))
        label, aim = words.name(LABELS[name][0]).split(",")[0], words.of("aim", scores[0].better)
        axes.set_title(f"{label} ({aim})", fontsize=9, loc="left")
    return figure


def difference_colour(delta: Score) -> str:
    """Returns blue for a difference that is better, orange for worse, grey where its interval holds 0."""
    if delta.low <= 0 <= delta.high:
        return GREY
    return BLUE if (delta.value > 0) == (delta.better == "higher") else ORANGE


def draw_topics(groups: list[dict], words: Words = ENGLISH, at_floor: bool = False) -> "Figure":
    """Returns the change of chrF++ (of perplexity, where there are no replies) for each topic, with its interval.

    `at_floor`: chrF++ as a whole is at its floor, so its points are grey; so are those whose interval holds 0.
    """
    name = "chrf" if "chrf" in groups[0]["delta"] else "perplexity"
    at_floor = at_floor and name == "chrf"
    figure, axes = create_axes(figsize=(7, 0.9 + 0.3 * len(groups)))
    for place, group in enumerate(groups):
        delta = Score(**group["delta"][name])
        colour = GREY if at_floor else difference_colour(delta)
        axes.errorbar(delta.value, place, xerr=_spread(delta), fmt="o", color=colour, capsize=3)
    axes.axvline(0, color=BLACK)
    _label_rows(axes, [f"{words.name(group['label'])[:40]} ({group['n']})" for group in groups])
    axes.set_xlabel(words.say("plot.topics_at_floor" if at_floor else "plot.topics", score=words.name(LABELS[name][0])))
    return figure


def draw_sessions(sessions: list[Session], words: Words = ENGLISH) -> "Figure":
    """Returns sessions over time: a bar each, by stage; a killed one, whose end nobody noted, is a cross."""
    times = [session_times(session) for session in sessions]
    moments = [moment for pair in times for moment in pair if moment]
    first, last = min(moments), max(moments)
    unit, seconds = ("hours", 3600) if (last - first).total_seconds() > 5400 else ("minutes", 60)
    stages = [stage for stage in STAGES if any(session.stage == stage for session in sessions)]
    figure, axes = create_axes(figsize=(7, 0.9 + 0.35 * len(stages)))
    for session, (start, end) in zip(sessions, times):
        place, left = stages.index(session.stage), (start - first).total_seconds() / seconds
        if end:
            colour, width = BLUE if session.reason == "finished" else ORANGE, (end - start).total_seconds() / seconds
            axes.barh(place, width, left=left, color=colour, edgecolor="white", height=0.6)
        else:
            axes.plot(left, place, "x", color=BLACK)
    _label_rows(axes, [words.name(stage) for stage in stages])
    axes.set_xlabel(words.say(f"plot.{unit}"))
    return figure
