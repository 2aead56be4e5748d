"""Plans with the speed of a calibrated GPU."""

import json
import re

import pytest
from calibrations import LAYERS, T4, calibration, fake_measuring, training_config

from helpers.__main__ import main
from helpers.calibrate import calibrate, measure_apart
from helpers.models.families import model_shape
from helpers.planning.calibration import (
    FILE,
    find_speed,
    keep_calibration,
    measured_speed,
    model_settings,
    read_calibrations,
)
from helpers.planning.config import configure_training
from helpers.planning.plan import plan_preset
from helpers.planning.speed import seconds_of
from helpers.platforms.errors import Refused
from helpers.runs.files import write_json
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings


def plan_of(outputs, *sets):
    settings = resolve_settings("kaggle-t4x2", "x", str(outputs), list(sets), tiny=False)
    return plan_preset(settings, Run(outputs / "x"))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Plans for T4s, whatever this machine has."""
    monkeypatch.setattr("helpers.planning.calibration.gpu_names", lambda: [])


def test_without_a_calibration_a_t4s_constants_hold(tmp_path):
    assert plan_of(tmp_path).speed_from == "a T4's constants"


@pytest.mark.parametrize("times", [1.0, 3.0])
def test_a_gpu_of_so_many_times_the_speed_takes_as_much_less(tmp_path, times):
    by_constants = plan_of(tmp_path)
    keep_calibration(tmp_path, T4, calibration(times))
    plan = plan_of(tmp_path)
    assert plan.speed_from == f"{FILE}, {T4}, 2026-11-30"
    for part in ("train", "validate", "evaluate"):
        assert plan.hours[part] == pytest.approx(by_constants.hours[part] / times, rel=0.01, abs=0.001)
    assert plan.tokens_per_second == pytest.approx(by_constants.tokens_per_second * times, rel=0.01)


def test_a_slower_layer_takes_longer_by_its_share(tmp_path):
    keep_calibration(tmp_path, T4, calibration())
    before = plan_of(tmp_path).hours
    own = calibration().models[0]
    slower = own.training.model_copy(update={"layer": own.training.layer * 1.5})
    keep_calibration(tmp_path, T4, calibration(models=[own.model_copy(update={"training": slower})]))
    after = plan_of(tmp_path).hours
    assert 1.4 < after["train"] / before["train"] < 1.51
    assert after["evaluate"] == before["evaluate"]


def test_an_all_reduce_and_a_slow_mirror_are_in_the_hours(tmp_path):
    keep_calibration(tmp_path, T4, calibration())
    before = plan_of(tmp_path, "train.num_gpus=2")
    keep_calibration(tmp_path, T4, calibration(all_reduce=10e6, mirror=10e6))
    after = plan_of(tmp_path, "train.num_gpus=2")
    more = after.optimizer_steps * after.trainable_parameters * 4 / 10e6 / 3600
    assert after.hours["train"] - before.hours["train"] == pytest.approx(more, rel=0.01)
    assert after.hours["checkpoints"] == pytest.approx(5 * before.hours["checkpoints"], rel=0.05)


def test_another_gpus_calibration_is_not_used_and_named(tmp_path):
    keep_calibration(tmp_path, "NVIDIA H200", calibration(9.0))
    plan = plan_of(tmp_path)
    assert plan.speed_from == f"a T4's constants; {FILE} has only NVIDIA H200"
    assert plan.hours == plan_of(tmp_path / "none").hours


@pytest.mark.parametrize("change", ["train.lora.r=8", "train.max_tokens=1024"])
def test_other_settings_take_the_rates_alone(tmp_path, change):
    keep_calibration(tmp_path, T4, calibration(2.0))
    plan = plan_of(tmp_path, change)
    assert "was not measured" in plan.speed_from
    assert plan.hours["train"] == pytest.approx(plan_of(tmp_path / "none", change).hours["train"] / 2, rel=0.01)


def test_a_model_measured_earlier_is_kept(tmp_path):
    keep_calibration(tmp_path, T4, calibration())
    keep_calibration(tmp_path, "NVIDIA L4", calibration(2.0))
    keep_calibration(tmp_path, T4, calibration(models=[], disk=1e6))
    calibrations = read_calibrations(tmp_path)
    assert set(calibrations) == {T4, "NVIDIA L4"}
    assert calibrations[T4].disk == 1e6
    assert calibrations[T4].models == calibration().models


def test_a_training_that_recomputes_is_three_passes():
    own = calibration().models[0].model_copy(update={"recomputed": True})
    shape, config = model_shape(training_config().base_model), training_config()
    speed = measured_speed(calibration(), own, shape, config, "")
    measured = own.training.rest + LAYERS * own.training.layer
    assert seconds_of(speed.checkpointed, 2048) == pytest.approx(measured)
    assert seconds_of(speed.training, 2048) == pytest.approx(measured * 2 / 3)


def test_a_damaged_calibration_is_refused_by_its_field(tmp_path):
    keep_calibration(tmp_path, T4, calibration())
    file = tmp_path / FILE
    damaged = json.loads(file.read_text())
    damaged[T4]["products"] = "fast"
    file.write_text(json.dumps(damaged))
    with pytest.raises(Refused, match=r"calibration.json: products is 'fast'.*Remove it"):
        find_speed(training_config(), Run(tmp_path / "x"))
    file.write_text("{")
    with pytest.raises(Refused, match=r"calibration.json is not valid JSON.*Remove it"):
        find_speed(training_config(), Run(tmp_path / "x"))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["products", "disk", "mirror"])
def test_a_rate_that_no_gpu_has_is_refused(tmp_path, field, value):
    damaged = calibration().model_dump() | {field: value}
    (tmp_path / FILE).write_text(json.dumps({T4: damaged}))
    with pytest.raises(Refused, match=rf"calibration.json: {field} is .*Remove it"):
        find_speed(training_config(), Run(tmp_path / "x"))


def test_a_damaged_calibration_is_refused_before_measuring(tmp_path, monkeypatch):
    parts = fake_measuring(monkeypatch)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(Refused, match="Remove it"):
        calibrate(training_config(), tmp_path, print)
    assert parts == []


def test_a_line_is_straight_between_its_points_and_beyond():
    line = [(1, 10.0), (3, 20.0), (5, 50.0)]
    assert [seconds_of(line, number) for number in (0, 1, 2, 3, 4, 5, 7)] == [5.0, 10.0, 15.0, 20.0, 35.0, 50.0, 80.0]
    assert seconds_of([(1, 1.0), (2, 3.0)], 0) == 0.0


def test_calibrate_on_a_cpu_says_what_it_cannot_measure(tmp_path, capsys):
    assert main(["calibrate", "--preset", "demo", "--outputs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "a product of 1024³ in float32: " in printed
    assert "MB/s" in printed
    assert "downloads: not measured, base_model 'embedded' is not downloaded" in printed
    assert "training, replies, all-reduce: not measured, there is no GPU" in printed
    assert re.search(r"^measured in \d+ seconds$", printed, re.M)
    assert not (tmp_path / FILE).exists()


def test_calibrate_takes_one_preset(tmp_path, capsys):
    assert main(["calibrate", "--preset", "demo", "kaggle-t4x2", "--outputs", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: calibrate measures the model of one preset at a time, --preset NAME, but 2 are asked for (demo, "
        "kaggle-t4x2).\n"
    )


def test_a_gpu_is_measured_in_other_processes_alone(tmp_path, monkeypatch):
    parts = fake_measuring(monkeypatch, gpus=2)
    lines = []
    calibrate(training_config(), tmp_path, lines.append)
    assert parts == [("rates", 1), ("all_reduce", 2), ("base", 1), ("training", 1), ("replies", 1)]
    kept = read_calibrations(tmp_path)[T4]
    assert kept.models == calibration().models
    assert kept.seconds is not None
    assert "all-reduce on 2 GPUs: 0.01 GB/s" in lines
    assert "downloads: not measured, HF_HUB_OFFLINE is set" in lines


def test_a_measurement_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.calibrate.PART_SECONDS", 0.2)
    write_json(tmp_path / "config.json", training_config().to_json())
    with pytest.raises(RuntimeError, match="measuring base ended with exit code -9: it was ended after 0 seconds"):
        measure_apart("base", tmp_path)


def test_a_calibration_of_an_earlier_version_is_read(tmp_path):
    older = calibration().model_dump(exclude={"seconds", "downloads"})
    write_json(tmp_path / FILE, {T4: older})
    assert read_calibrations(tmp_path) == {T4: calibration()}


def test_a_run_keeps_its_calibration_for_another_machine(tmp_path):
    keep_calibration(tmp_path / "x" / "train", T4, calibration(2.0))
    assert plan_of(tmp_path).speed_from == f"{FILE}, {T4}, 2026-11-30"
    keep_calibration(tmp_path, T4, calibration(3.0))
    assert plan_of(tmp_path).hours["train"] == pytest.approx(plan_of(tmp_path / "none").hours["train"] / 3, rel=0.01)


@pytest.mark.slow
def test_a_small_model_is_measured_by_the_real_code(tmp_path):
    from helpers.calibrate import DECODE_ROWS, measure_model

    config = configure_training(resolve_settings("demo", "x", str(tmp_path), [], tiny=False)["train"])
    model = measure_model(config)
    assert model.settings == model_settings(config)
    assert model.training.layer > 0
    assert [step.number for step in model.decode_step] == list(DECODE_ROWS)
    assert all(step.layer + step.rest > 0 for step in model.decode_step)
    assert model.forward[1].number > model.forward[0].number
