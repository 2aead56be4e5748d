"""How many held-out preferences are needed: against simulation, the exact test and the normal approximation."""

import math

import numpy
import pytest
from scipy.stats import binomtest, norm

from helpers.preference.power import describe_power, least_accuracy, needed_held_out, power_of
from helpers.preference.results import describe_result


def approximate(accuracy):
    """Returns the number of held-out preferences by the normal approximation."""
    spread = norm.isf(0.025) * 0.5 + norm.isf(0.2) * math.sqrt(accuracy * (1 - accuracy))
    return (spread / (accuracy - 0.5)) ** 2


@pytest.mark.parametrize("accuracy", [0.55, 0.6, 0.65, 0.7, 0.8])
def test_the_number_is_a_little_above_the_approximation(accuracy):
    assert 0 <= needed_held_out(accuracy) - approximate(accuracy) <= 8 + 0.05 * approximate(accuracy)


def test_so_many_show_the_effect_in_four_of_five_cases():
    needed = needed_held_out()
    assert all(power_of(number, 0.65) >= 0.8 for number in range(needed, needed + 200))


def test_one_fewer_does_not():
    assert power_of(needed_held_out() - 1, 0.65) < 0.8


@pytest.mark.parametrize("held_out", [6, 20, 97])
def test_the_power_is_that_of_the_exact_test(held_out):
    right = numpy.random.default_rng(0).binomial(held_out, 0.7, 4000)
    counts = [binomtest(count, held_out).pvalue <= 0.05 and count > held_out / 2 for count in range(held_out + 1)]
    assert numpy.mean([counts[count] for count in right]) == pytest.approx(power_of(held_out, 0.7), abs=0.03)


def test_five_held_out_ones_show_nothing():
    assert least_accuracy(5) is None


def test_six_held_out_ones_show_a_perfect_model():
    assert least_accuracy(6) is not None


def test_more_held_out_ones_show_smaller_effects():
    shown = [least_accuracy(number) for number in (10, 50, 100, 1000)]
    assert shown == sorted(shown, reverse=True)


def test_missing_prompts_are_counted_with_those_to_train_on():
    facts = describe_power(100, 20, 0.2)
    assert (facts["needed"], facts["missing"]) == (485, 385)


@pytest.mark.parametrize(("method", "kind"), [("dpo", "pairs"), ("kto", "replies")])
def test_the_result_says_what_was_held_out(method, kind):
    accuracy = {"value": 0.75, "low": 0.4, "high": 0.9}
    metrics = {"status": "finished", "optimizer_steps": 3, "held_out": {"n": 8, "accuracy": accuracy}}
    assert f"Of 8 held-out {kind} the model is right about 75%" in describe_result(metrics, method)
