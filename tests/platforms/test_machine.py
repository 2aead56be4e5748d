"""The machine a run is on."""

import pytest
import torch

from helpers.platforms.machine import count_gpus, pick_dtype


@pytest.fixture
def gpu(monkeypatch):
    """Returns a function that makes torch see a GPU of a compute capability."""

    def call(*capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return call


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float16"), ((8, 0), "bfloat16")])
def test_below_compute_capability_8_it_is_float16(gpu, capability, expected):
    gpu(*capability)
    name, reason = pick_dtype()
    assert name == expected
    assert f"{capability[0]}.{capability[1]}" in reason


def test_bfloat16_below_compute_capability_8_is_refused(gpu):
    gpu(7, 5)
    with pytest.raises(ValueError, match="bfloat16 needs 8.0"):
        pick_dtype("bfloat16")


def test_gpus_of_a_kind_are_counted():
    assert count_gpus(["Tesla T4", "Tesla T4"]) == "2 × Tesla T4"
    assert count_gpus(["Tesla T4", "NVIDIA A100"]) == "Tesla T4, NVIDIA A100"
    assert count_gpus([]) == ""
