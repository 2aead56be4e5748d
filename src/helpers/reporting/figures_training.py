"""The pictures of 02_train: the adapter's share, the course of the training, what was planned and what came."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from helpers.models.families import count_parameters, target_modules
from helpers.planning.calibration import is_plan_for
from helpers.platforms.machine import count_gpus
from helpers.reporting.figures import BLACK, BLUE, GREEN, LOSS_AXIS, create_axes
from helpers.reporting.figures_data import WIDTH, label_bars, note_empty, write_behind_bars
from helpers.runs.record import Session

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OF_T4S = ("tokens_per_second", "peak_memory_gib", "hours")  # of a plan: true of the GPU that it is made for
TOLERANCE = 0.25  # of the hours: an estimate within it is called right
FIRST_STEPS = 5  # logged steps whose mean is where the training loss began
STEADY = 0.01  # of the validation loss: a change that is called none

PLANNED = {  # what a plan and train/metrics.json both have: how it is called, and shown
    "tokens_per_second": ("tokens per second", "{:,.0f}"),
    "peak_memory_gib": ("peak memory per GPU, GiB", "{:.2f}"),
    "hours": ("hours of training", "{:.3g}"),
    "useful_token_fraction": ("useful share of the computed tokens", "{:.3f}"),
    "optimizer_steps": ("optimizer steps", "{:,}"),
}


def adapter_parameters(shape: dict[str, Any], lora: dict[str, Any]) -> dict[str, int]:
    """Returns the adapter's parameters by the kind of matrix that it changes, over all layers."""
    names = target_modules(shape, lora)
    return {name: count_parameters(shape, {**lora, "target_modules": [name]})["trainable"] for name in names}


def draw_adapter_share(shape: dict[str, Any], lora: dict[str, Any]) -> "Figure":
    """Returns what is trained: the adapter's share of all parameters, and its parameters by kind of matrix."""
    from matplotlib.ticker import MaxNLocator

    parts, count = adapter_parameters(shape, lora), count_parameters(shape, lora)
    share = count["trainable"] / (count["base"] + count["trainable"])
    heights = [1, 0.5 + 0.35 * len(parts)]
    figure, (whole, kinds) = create_axes(2, 1, figsize=(WIDTH, 0.9 + 0.62 * sum(heights)), height_ratios=heights)
    whole.barh(0, 100 * (1 - share), color="0.75", label=f"base model, frozen: {count['base']:,}")
    trained = f"adapter, trained: {count['trainable']:,} ({share:.2%})"
    whole.barh(0, 100 * share, left=100 * (1 - share), color=BLUE, label=trained)
    whole.set(xlim=(0, 100), xlabel="% of all parameters", yticks=[], ylim=(-0.5, 0.5))
    whole.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    kinds.barh(range(len(parts)), parts.values(), color=BLUE)
    write_behind_bars(kinds, list(parts.values()), [f"{number:,}" for number in parts.values()])
    label_bars(kinds, list(parts), f"trained parameters by kind of matrix, all {shape['num_hidden_layers']} layers")
    kinds.xaxis.set_major_formatter("{x:,.0f}")
    kinds.xaxis.set_major_locator(MaxNLocator(4))
    alt = ", ".join(f"{name} {number:,}" for name, number in parts.items())
    figure.set_label(f"Bars: {share:.2%} of all parameters are the adapter's and trained; by kind of matrix: {alt}.")
    return figure


def describe_adapter(shape: dict[str, Any], lora: dict[str, Any]) -> str:
    """Returns in a sentence how much of the model is trained."""
    count = count_parameters(shape, lora)
    share = count["trainable"] / (count["base"] + count["trainable"])
    return f"{count['trainable']:,} parameters are trained, {share:.2%} of all; {count['base']:,} stay as they are."


def draw_training(log: Sequence[dict], sessions: Sequence[Session] = ()) -> "Figure":
    """Returns the course of a training from its log.jsonl: losses, learning rate, norm of the gradient; of one by
    preferences also the margin of the rewards.

    A dotted line marks the step at which a later one of the training's `sessions` resumed.
    """
    from matplotlib.ticker import MaxNLocator

    by_preferences = any("rewards/margins" in entry for entry in log)
    labels = {"loss": "loss" if by_preferences else LOSS_AXIS, "rewards/margins": "margin of\nrewards"}
    labels |= {"learning_rate": "learning\nrate", "grad_norm": "gradient\nnorm"}
    shown = [(name, label) for name, label in labels.items() if name == "loss" or any(name in entry for entry in log)]
    heights = [3, *[1] * (len(shown) - 1)]
    figure, panels = create_axes(
        len(shown), 1, figsize=(WIDTH, 0.7 + 0.7 * sum(heights)), sharex=True, height_ratios=heights, squeeze=False
    )
    for axes, (name, label) in zip(panels[:, 0], shown):
        plot_log(axes, log, name, BLUE, "training")
        for session in [session for session in sessions[1:] if session.from_step]:
            axes.axvline(session.from_step, color=BLACK, linestyle="dotted")
        axes.set_ylabel(label)
    panels[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    losses = panels[0, 0]
    log = merge_validations(log)
    if by_preferences:
        plot_log(panels[1, 0], log, "eval_margin", GREEN, "validation", marker="o", linestyle="dashed")
    validated = plot_log(losses, log, "eval_loss", GREEN, "validation", marker="o", linestyle="dashed")
    if losses.lines:
        losses.legend()
    else:
        note_empty(losses)
    panels[-1, 0].set_xlabel("optimizer step" + " (dotted: a session resumed)" * (len(sessions) > 1))
    trained = [entry["loss"] for entry in log if "loss" in entry]
    alt = f"Curves over {len(trained)} logged steps: training loss "
    alt += f"from {trained[0]:.3f} to {trained[-1]:.3f}" if trained else "not logged yet"
    alt += f"; validation loss {', '.join(f'{loss:.3f}' for loss in validated[-12:])}" if validated else ""
    others = " and ".join(label.replace("\n", " ") for _, label in shown[1:])
    figure.set_label(f"{alt}; below it {others or 'nothing more'}.")
    return figure


def plot_log(axes: "Axes", log: Sequence[dict], name: str, colour: str, label: str, **style: Any) -> list[float]:
    """Plots what the log has of a name over the steps, and returns its values."""
    points = [(entry["step"], entry[name]) for entry in log if "step" in entry and name in entry]
    if points:
        axes.plot(*zip(*points), color=colour, label=label, **style)
    return [value for _, value in points]


def merge_validations(log: Sequence[dict]) -> list[dict]:
    """Returns the log without a second validation of the same step: the one at the end is made twice."""
    last = {entry["step"]: place for place, entry in enumerate(log) if "eval_loss" in entry}
    return [entry for place, entry in enumerate(log) if "eval_loss" not in entry or last[entry["step"]] == place]


def describe_training(log: Sequence[dict]) -> str:
    """Returns in sentences how the losses changed, and whether the validation's was still falling at the end.

    The training loss is a mean of the first steps and of the last epoch: one step's is of a few rows. A change of the
    validation loss below STEADY of it is called none.
    """
    trained = [entry for entry in log if "loss" in entry]
    if not trained:
        return "No step is logged yet."
    end_epoch = trained[-1].get("epoch", 0.0) - 1
    late = [entry["loss"] for entry in trained if entry.get("epoch", 0.0) > end_epoch] or [trained[-1]["loss"]]
    first = trained[: min(FIRST_STEPS, max(1, len(trained) // 2))]
    sentence = f"The training loss went from {fmean(entry['loss'] for entry in first):.3f} (mean of the first "
    sentence += f"{len(first):,} logged steps) to {fmean(late):.3f} nats per token (mean of the last epoch)"
    validated = [(entry["step"], entry["eval_loss"]) for entry in merge_validations(log) if "eval_loss" in entry]
    if len(validated) < 2:
        rest = f"validated once, at {validated[0][1]:.3f}" if validated else "not validated"
        return f"{sentence}; it was {rest}: whether it would have improved further cannot be told."
    (first_step, begin), (step, end) = validated[0], validated[-1]
    best_step, best = min(validated, key=lambda entry: entry[1])
    course = f"The validation loss was {begin:.3f} at first (step {first_step:,}), {best:.3f} at best (step "
    course += f"{best_step:,}) and {end:.3f} at the end (step {step:,})"
    return f"{sentence}. {course}: {_describe_course(begin, best, end, validated[-2][1])}."


def _describe_course(begin: float, best: float, end: float, before: float) -> str:
    """Returns what the first, the lowest, the last and the last but one validation loss say of a training."""
    small = STEADY * best
    if end - best > small:
        return "it had risen again when the training stopped"
    if begin - end <= small:
        return "nearly flat, so that training beyond the first validation hardly helped on held-out rows"
    return "still improving when it stopped" if before - end > small else "no longer improving when it stopped"


def compare_plan(plan: Mapping[str, Any], metrics: Mapping[str, Any], gpus: Sequence[str]) -> list[dict[str, Any]]:
    """Returns what was planned beside what was measured: `what`, `planned`, `measured` as texts, and their `ratio`.

    What one of the two does not know has no ratio. Where it is for other `gpus`, what depends on them is left out.
    """
    planned = {**plan, "hours": plan["hours"]["train"]} if plan else {}
    if "seconds" in metrics:  # of the steps alone, as planned; an earlier version measured the whole training
        metrics = {**metrics, "hours": metrics["seconds"]["train"] / 3600}
    rows = []
    for name, (label, template) in PLANNED.items():
        if name in OF_T4S and not is_plan_for(plan, gpus):
            continue
        values: list[Any] = [source.get(name) for source in (planned, metrics)]
        known = all(values) and all(map(math.isfinite, values))
        texts = [template.format(value) if value is not None else "not known" for value in values]
        ratio = values[1] / values[0] if known else None
        rows.append({"what": label, "planned": texts[0], "measured": texts[1], "ratio": ratio})
    return rows


def describe_plan(rows: Sequence[Mapping[str, Any]], gpus: Sequence[str]) -> str:
    """Returns in a sentence whether the estimate was right, or that this machine cannot tell.

    `rows` are `compare_plan`'s.
    """
    if all(row["what"] != PLANNED["hours"][0] for row in rows):
        where = count_gpus(gpus) or "a CPU"
        return (
            f"It cannot be told here: the estimate is for T4s, and this ran on {where}. Steps and tokens are compared."
        )
    ratio = next((row["ratio"] for row in rows if row["what"] == PLANNED["hours"][0]), None)
    if ratio is None:
        return "It cannot be told: the hours were not measured."
    verdict = "right" if abs(math.log(ratio)) <= math.log(1 + TOLERANCE) else "too low" if ratio > 1 else "too high"
    return f"The estimate was {verdict}: the training took {ratio:.2f} times the planned hours."


def draw_plan(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Returns each measurement over its plan on a logarithmic axis; 1 is as planned. `rows` are `compare_plan`'s."""
    from matplotlib.ticker import LogLocator

    known = [row for row in rows if row["ratio"]]
    figure, axes = create_axes(figsize=(WIDTH, 0.9 + 0.34 * max(2, len(known))))
    for place, row in enumerate(known):
        axes.plot([1, row["ratio"]], [place, place], color="0.6")
        axes.plot(row["ratio"], place, "o", color=BLUE)
        text = f"{row['measured']} (planned {row['planned']})"
        axes.text(1.02, place, text, va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.axvline(1, color=BLACK)
    ratios = [1.0, *(row["ratio"] for row in known)]
    label_bars(axes, [row["what"] for row in known], "measured over planned (1: as planned)")
    if known:
        axes.set(xscale="log", xlim=(min(ratios) / 1.5, max(ratios) * 1.5))
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    alt = "; ".join(f"{row['what']} {row['measured']}, planned {row['planned']}" for row in rows)
    figure.set_label(f"Points: measured over planned: {alt or 'nothing'}.")
    return figure
