"""Calibrations for tests, and a stand-in for the processes that measure a GPU."""

import copy

from helpers.models.families import model_shape
from helpers.planning.calibration import Calibration, MeasuredModel, Point, model_settings
from helpers.planning.config import configure_training
from helpers.planning.speed import T4_BYTES, T4_FLOPS, estimate_speed, seconds_of
from helpers.runs.settings import resolve_settings

T4 = "Tesla T4"
LAYERS = 32


def training_config(*sets):
    return configure_training(resolve_settings("kaggle-t4x2", "x", "/nowhere", list(sets), tiny=False)["train"])


def calibration(times=1.0, **changes):
    """Returns what a T4 of `times` its speed would have measured at the flagship's settings, by the T4's constants."""
    shape = model_shape(training_config().base_model)
    speed = estimate_speed(shape, True, times * T4_FLOPS, times * T4_BYTES)

    def measured(line, number):
        return Point(number=number, layer=seconds_of(line, number) / LAYERS, rest=0.0)

    model = MeasuredModel(
        settings=model_settings(training_config()),
        recomputed=False,
        training=measured(speed.training, 2048),
        forward=[measured(speed.forward, 1024), measured(speed.forward, 8192)],
        decode_step=[measured(speed.decode_step, rows) for rows in (1, 8, 32, 64, 128)],
        cached_token=speed.cached_token / LAYERS,
    )
    rates = {"products": times * T4_FLOPS, "copies": times * T4_BYTES, "disk": 50e6}
    return Calibration(
        **{"date": "2026-11-30T00:00:00+00:00", "gpus": 1, "versions": {}, **rates, "models": [model], **changes}
    )


def fake_measuring(monkeypatch, gpus=1, times=1.0, fails="", says="", usable=True):
    """Stands in for the processes that measure a T4 of `times` its speed and print what they say; `fails` names one
    that fails; `usable` is whether torch sees the GPUs.

    Returns the list of (part, processes) that were asked for.
    """
    model, parts = calibration(times).models[0], []
    results = {
        "rates": {
            **{"gpus": gpus * usable, "product": "4096³ in float16"},
            **{"products": times * T4_FLOPS, "copies": times * T4_BYTES},
            **{"downloads": None, "no_downloads": "HF_HUB_OFFLINE is set"},
        },
        "all_reduce": 10e6,
        "base": None,
        "training": model.training.model_dump(),
        "replies": model.model_dump(include={"forward", "decode_step", "cached_token"}),
    }

    def measure(part, folder, processes=1):
        assert (folder / "config.json").is_file()
        parts.append((part, processes))
        print(says)
        if part == fails:
            print("CUDA error: no kernel image")
            raise RuntimeError(f"measuring {part} ended with exit code 1: see the log above.")
        return copy.copy(results[part])

    monkeypatch.setattr("helpers.calibrate.measure_apart", measure)
    monkeypatch.setattr("helpers.calibrate.write_rate", lambda folder: 50e6)
    for room in ("calibrate", "planning.calibration", "planning.plan"):
        monkeypatch.setattr(f"helpers.{room}.gpu_names", lambda: [T4] * gpus)
    return parts
