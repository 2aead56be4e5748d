"""What a model prefers after a training by preferences, in words."""

from typing import Any

METHODS = {"dpo": "DPO", "kto": "KTO"}
MEASURED = {"dpo": "pairs", "kto": "replies"}  # of which each is right or not: by KTO a held-out pair is two


def describe_result(metrics: dict[str, Any], method: str) -> str:
    """Returns in sentences what held-out preferences say of a finished training; how far a paused one got."""
    if metrics["status"] == "paused":
        return f"Paused at step {metrics['step']} of {metrics['steps']}: {metrics['reason']}."
    val, steps = metrics["held_out"], metrics["optimizer_steps"]
    accuracy = val["accuracy"]
    interval = f"{accuracy['low']:.0%} to {accuracy['high']:.0%}"
    clear = "more often than by chance" if accuracy["low"] > 0.5 else "not clearly more often than by chance"
    return (
        f"{METHODS[method]}, {steps:,} steps. Of {val['n']:,} held-out {MEASURED[method]} the model is right about "
        f"{accuracy['value']:.0%} (95 % interval {interval}): {clear}."
    )


def describe_course(log: list[dict[str, Any]]) -> str:
    """Returns in a sentence how the margin of the rewards of what is trained on changed."""
    margins = [entry["rewards/margins"] for entry in log if "rewards/margins" in entry]
    if not margins:
        return "No margin is logged yet."
    return (
        f"The margin of the rewards went from {margins[0]:.3f} to {margins[-1]:.3f} over {len(margins):,} logged steps."
    )
