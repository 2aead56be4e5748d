"""The plots of a run in one style: labelled units, colours that colour-blind readers tell apart, Bengali shaped."""

import base64
import datetime
import io
from pathlib import Path

from helpers import env

BLUE, ORANGE, BLACK = "#0072b2", "#d55e00", "#222222"  # of Okabe and Ito's palette
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", BLACK)  # the same palette, for several runs
FONT = Path(__file__).with_name("fonts") / "NotoSansBengali-Regular.ttf"
STYLE = {
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.dpi": 110,
    "font.family": ["DejaVu Sans", "Noto Sans Bengali"],
    "grid.alpha": 0.3,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": 130,
    "svg.hashsalt": "sahanubhuti",  # the same figure gives the same file
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def _pyplot():
    """Returns matplotlib.pyplot in this style, with a font that has Bengali behind its own."""
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    if not any(font.fname == str(FONT) for font in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(FONT)
    plt.rcParams.update(STYLE)
    return plt


def save(figure, folder: Path, name: str, close: bool = True) -> bytes:
    """Writes a figure as name.png and name.svg into a folder and returns the SVG; a closed one no notebook shows."""
    plt = _pyplot()
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        env.write_bytes(folder / f"{name}.{kind}", buffer.getvalue())
    if close:
        plt.close(figure)
    return buffer.getvalue()


def as_base64(content: bytes) -> str:
    """Returns bytes as text for a data URL."""
    return base64.b64encode(content).decode()


def loss(run: Path):
    """Returns the curves of train/log.jsonl: training and validation loss above, the learning rate below.

    Where a session went on from a checkpoint stands a dotted line.
    """
    plt = _pyplot()

    log = env.read_jsonl(run / "train" / "log.jsonl")
    shape = {"figsize": (7, 4.5), "sharex": True, "height_ratios": [3, 1], "layout": "constrained"}
    figure, (above, below) = plt.subplots(2, 1, **shape)
    for axes, key, label, style in (
        (above, "loss", "training", {"color": BLUE, "linewidth": 1}),
        (above, "eval_loss", "validation", {"color": ORANGE, "marker": "o", "markersize": 4, "linewidth": 1}),
        (below, "learning_rate", "", {"color": BLUE, "linewidth": 1}),
    ):
        points = [(entry["step"], entry[key]) for entry in log if key in entry]
        if points:
            axes.plot(*zip(*points), label=label, **style)
    starts = [session["from"] for session in env.sessions(run, "train")[1:] if session["from"]]
    for place, step in enumerate(starts):
        for axes in (above, below):
            label = "a session goes on" if axes is above and not place else None
            axes.axvline(step, color=BLACK, linewidth=0.8, linestyle="dotted", label=label)
    above.set(ylabel="loss, nats a token")
    above.legend()
    below.set(xlabel="optimizer step", ylabel="learning rate")
    return figure


def overlaid(runs: list[Path]):
    """Returns the validation loss (where there is none, the training loss) of several runs over tokens' share."""
    plt = _pyplot()

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for run, colour in zip(runs, COLOURS):
        log = env.read_jsonl(run / "train" / "log.jsonl")
        for key, style in (("loss", {"alpha": 0.35, "linewidth": 1}), ("eval_loss", {"marker": "o", "markersize": 4})):
            points = [(entry["epoch"], entry[key]) for entry in log if key in entry and "epoch" in entry]
            if points:
                axes.plot(*zip(*points), color=colour, label=run.name if key == "eval_loss" else None, **style)
    axes.set(xlabel="epoch (pale: training loss, dots: validation loss)", ylabel="loss, nats a token")
    axes.legend()
    return figure


def search(run: Path):
    """Returns the validation losses of tune/trials.csv by rung, a line a candidate, and how much each setting decides.

    A cross ends a candidate that was eliminated, a dot one that reached the last rung; the best is blue.
    """
    import pandas

    plt = _pyplot()
    table = pandas.read_csv(run / "tune" / "trials.csv")
    found = env.read_json(run / "tune" / "best.json")
    names = sorted(name for name in table if name.startswith("loss at rung "))
    figure, (curves, bars) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained", width_ratios=[3, 2])
    for row in table.to_dict("records"):
        points = [(place + 1, row[name]) for place, name in enumerate(names) if row[name] == row[name]]
        if points:
            won = row["candidate"] == found["candidate"]
            curves.plot(*zip(*points), color=BLUE if won else "0.6", linewidth=2.5 if won else 1, zorder=2 + won)
            end = "o" if row["status"] == "finished" else "x"
            curves.plot(*points[-1], end, color=BLUE if won else "0.3", zorder=2 + won)
    curves.set_xticks(range(1, len(names) + 1))
    curves.set(xlabel="rung (blue: the best; a cross: eliminated)", ylabel="validation loss, nats a token")
    shares = found["importance"] or {}
    bars.barh([name.rpartition(".")[2] for name in shares], list(shares.values()), color=BLUE)
    bars.set(xlabel="share of the first rung's variance (η²)", xlim=(0, 1))
    bars.invert_yaxis()
    return figure


def lengths(values, max_length: int):
    """Returns the histogram of token counts (a sequence of integers), with the share of rows within max_length."""
    import numpy

    plt = _pyplot()

    values = numpy.asarray(values)
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    edges = numpy.geomspace(max(1, values.min()), max(values.max(), max_length) + 1, 50)
    axes.hist(values, bins=edges, color=BLUE)
    within = (values <= max_length).mean()
    axes.axvline(max_length, color=ORANGE, label=f"max_length {max_length:,}: {within:.2%} of rows are within")
    axes.set(xscale="log", xlabel="tokens a row", ylabel="rows")
    axes.legend()
    return figure


def scores(results: dict[str, dict], labels: dict[str, tuple[str, int]]):
    """Returns bars with 95 % intervals for the overlap scores and the rubric; the dotted line is a score's floor.

    `results` are the scores of each bar, {who: {score: {"value", "low", …}}}; `labels` names a score.
    """
    plt = _pyplot()

    first = next(iter(results.values()))
    shown = ("perplexity", "chrf", "bleu", "rougeL", "empathy")
    names = [name for name in shown if all(name in scores for scores in results.values())]
    size = (0.5 + (1.3 + 0.2 * len(results)) * len(names), 3)
    figure, panels = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False)
    for axes, name in zip(panels[0], names):
        for place, (scores, color) in enumerate(zip(results.values(), COLOURS)):
            score = scores[name]
            spread = [[max(0, score["value"] - score["low"])], [max(0, score["high"] - score["value"])]]
            axes.bar(place, score["value"], yerr=spread, color=color, capsize=4)
            if score["floor"] is not None:
                axes.hlines(score["floor"], place - 0.4, place + 0.4, color=BLACK, linestyles="dotted")
        axes.grid(axis="x", visible=False)
        axes.set_xticks(range(len(results)), results, rotation=0 if len(results) < 3 else 45)
        axes.set_title(f"{labels[name][0].split(',')[0]}\n({first[name]['better']} is better)", fontsize=8)
    return figure


def topics(groups: list[dict], label: str):
    """Returns the change of chrF++ (of perplexity, where there are no replies) for each topic, with its interval."""
    plt = _pyplot()

    name = "chrf" if "chrf" in groups[0]["delta"] else "perplexity"
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.3 * len(groups)), layout="constrained")
    for place, group in enumerate(groups):
        delta = group["delta"][name]
        better = (delta["value"] > 0) == (delta["better"] == "higher")
        spread = [[max(0, delta["value"] - delta["low"])], [max(0, delta["high"] - delta["value"])]]
        axes.errorbar(delta["value"], place, xerr=spread, fmt="o", color=BLUE if better else ORANGE, capsize=3)
    axes.axvline(0, color=BLACK, linewidth=0.8)
    axes.set_yticks(range(len(groups)), [f"{group['label'][:40]} ({group['n']})" for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(f"{label}, tuned − base (blue: better, orange: worse)")
    return figure


def sessions(held: list[dict]):
    """Returns sessions over time: a bar each, by stage; a killed one, whose end nobody noted, is a cross."""
    plt = _pyplot()

    moments = [datetime.datetime.fromisoformat(s[k]) for s in held for k in ("started", "ended") if is_time(s[k])]
    unit, seconds = ("hours", 3600) if (max(moments) - min(moments)).total_seconds() > 5400 else ("minutes", 60)

    def since(moment: str) -> float:
        return (datetime.datetime.fromisoformat(moment) - min(moments)).total_seconds() / seconds

    stages = [stage for stage in env.STAGES if any(session["stage"] == stage for session in held)]
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.35 * len(stages)), layout="constrained")
    for session in held:
        place, start = stages.index(session["stage"]), since(session["started"])
        if is_time(session["ended"]):
            color = BLUE if session["reason"] == "finished" else ORANGE
            axes.barh(place, since(session["ended"]) - start, left=start, color=color, edgecolor="white", height=0.6)
        else:
            axes.plot(start, place, "x", color=BLACK)
    axes.set_yticks(range(len(stages)), stages)
    axes.set_ylim(len(stages) - 0.5, -0.5)
    axes.set_xlabel(f"{unit} since the run began (blue: finished, orange: paused or failed, cross: killed)")
    return figure


def is_time(moment: str | None) -> bool:
    """Returns whether a session's start or end is known."""
    return moment not in (None, "unknown")
