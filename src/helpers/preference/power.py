"""How many held-out preferences show an effect worth having."""

import math
from functools import cache
from typing import Any

CHANCE, WORTH = 0.5, 0.65  # of held-out preferences that a model gets right: by chance, and where it is worth having
ALPHA, POWER = 0.05, 0.8  # of a wrong alarm, two-sided; of telling an effect that is there
FORMULA = (
    f"exact binomial test, two-sided at {ALPHA:.0%}, power {POWER:.0%}, "
    f"{WORTH:.0%} of held-out prompts right against {CHANCE:.0%} by chance"
)


def power_of(held_out: int, accuracy: float) -> float:
    """Returns how likely so many held-out preferences show that a model of this accuracy is better than chance.

    That is so where the exact interval of Clopper and Pearson (1934) lies above a half: where more are right than
    chance has it in ALPHA / 2 of all cases. The probability of that is the binomial distribution's own.
    """
    from scipy.stats import binom

    return float(binom.sf(binom.isf(ALPHA / 2, held_out, CHANCE), held_out, accuracy))


@cache
def needed_held_out(accuracy: float = WORTH) -> int:
    """Returns from how many held-out preferences on an accuracy is told from chance with the power of POWER.

    The power does not rise with every single one, as right ones come in whole numbers: from this number on it stays
    above. The normal approximation, ((z₁ √(p₀(1-p₀)) + z₂ √(p₁(1-p₁))) / (p₁-p₀))², is a little lower: see the tests.
    """
    import numpy
    from scipy.stats import binom, norm

    z = norm.isf(ALPHA / 2) * math.sqrt(CHANCE * (1 - CHANCE)) + norm.isf(1 - POWER) * math.sqrt(
        accuracy * (1 - accuracy)
    )
    counts = numpy.arange(1, 50 + int(2 * (z / (accuracy - CHANCE)) ** 2))
    power = binom.sf(binom.isf(ALPHA / 2, counts, CHANCE), counts, accuracy)
    return int(counts[power < POWER].max()) + 1


def least_accuracy(held_out: int) -> float | None:
    """Returns the least accuracy that so many held-out preferences tell from chance, in steps of a hundredth; None
    where even all of them right do not."""
    steps = (percent / 100 for percent in range(51, 101))
    return next((accuracy for accuracy in steps if power_of(held_out, accuracy) >= POWER), None)


def describe_power(prompts: int, held_out: int, val_share: float) -> dict[str, Any]:
    """Returns what there is, what is needed and what is missing, in prompts: preferences about one are not independent.

    `prompts` and `held_out` are the groups of all preferences and of the held-out ones.
    """
    needed = math.ceil(needed_held_out() / val_share)
    return {
        "prompts": prompts,
        "needed": needed,
        "missing": max(0, needed - prompts),
        "held_out": held_out,
        "needed_held_out": needed_held_out(),
        "least_accuracy": least_accuracy(held_out),
        "formula": FORMULA,
    }
