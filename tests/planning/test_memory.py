"""Estimated memory and counted parameters, against what was measured."""

import re
from pathlib import Path

import pytest

from helpers.models.families import SHAPES, count_parameters
from helpers.planning.config import configure_training
from helpers.planning.memory import estimate_memory
from helpers.runs.settings import resolve_settings

RESULTS = (Path(__file__).parents[1] / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]


def preset_config(preset):
    """Returns the training configuration of a preset."""
    return configure_training(resolve_settings(preset, "r", "outputs", [], False)["train"])


@pytest.mark.parametrize(
    ("size", "r", "targets", "trainable"),
    [
        ("8B", 8, ["q_proj", "v_proj"], 3_407_872),
        ("8B", 8, QKVO, 6_815_744),
        ("8B", 16, QKVO, 13_631_488),
        ("8B", 16, "all-linear", 41_943_040),
        ("8B", 64, "all-linear", 167_772_160),
        ("1B", 8, QKVO, 1_703_936),
        ("1B", 16, "all-linear", 11_272_192),
    ],
)
def test_parameters_are_those_the_libraries_count(size, r, targets, trainable):
    count = count_parameters(SHAPES[size], {"r": r, "target_modules": targets})
    assert count["trainable"] == trainable
    assert count["base"] == {"8B": 8_030_261_248, "1B": 1_235_814_400}[size]


def measured_rows():
    """Returns (measured, estimated) GiB of the cases in RESULTS.md."""
    rows = re.findall(r"^\| `[^|]*\| ([\d.]+) \| ([\d.]+) \| [+−][\d.]+ % \|$", RESULTS, re.MULTILINE)
    assert len(rows) >= 10, "the table of measured memory is no longer found in RESULTS.md"
    return [tuple(map(float, row)) for row in rows]


def test_estimated_memory_is_near_what_was_measured():
    assert all(abs(estimated / measured - 1) < 0.08 for measured, estimated in measured_rows())


def test_the_estimates_in_results_md_are_those_made_today():
    flagship = preset_config("kaggle-t4x2")
    assert estimate_memory(flagship, SHAPES["8B"], {2048}).peak == pytest.approx(measured_rows()[0][1], abs=0.01)
    by_rows = flagship.model_copy(update={"max_tokens": 0, "backend": "peft"})
    assert estimate_memory(by_rows, SHAPES["8B"], {2178}).peak == pytest.approx(7.12, abs=0.01)


def test_the_reference_presets_peak_as_measured():
    presets = re.findall(r"^\| `(ref-[\w-]+)`.*\| ([\d.]+) \| ([\d.]+) \|$", RESULTS, re.MULTILINE)
    assert len(presets) == 4, "the table of the reference presets is no longer found in RESULTS.md"
    for name, measured, estimated in presets:  # by the plan their peak is the validation's
        shape = SHAPES["1B" if name.endswith("1b") else "8B"]
        peak = estimate_memory(preset_config(name), shape, {972}).peak
        assert peak == pytest.approx(float(estimated), abs=0.01), name
        assert abs(peak / float(measured) - 1) < 0.05, name
