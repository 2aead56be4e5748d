"""Runs that are trained, paused and taken apart."""

import itertools
import shutil

import pytest
from configs import SMALL_STEPS

from helpers.runs.checkpoints import verify_checkpoint
from helpers.runs.record import Run
from helpers.runs.session import SessionClock
from helpers.training.loop import run_training


@pytest.fixture(scope="session")
def paused_before(make_in, tmp_path_factory):
    """Returns a run with valid checkpoints of steps 2, 4 and 5, paused at step 5: `paused` is a copy of it."""
    sft = {**SMALL_STEPS, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}
    run = make_in(tmp_path_factory.mktemp("before"), "paused", sft=sft)
    steps = itertools.count(1)  # the clock is asked once per step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SessionClock, "reason", lambda clock, seconds: "the test asked for it" * (next(steps) == 5))
        assert run_training(run)["step"] == 5
    assert verify_checkpoint(run / "train/checkpoints/checkpoint-5") == ""
    return run


@pytest.fixture
def paused(paused_before, trained_steps, tmp_path):
    """Returns a run with valid checkpoints of steps 2, 4 and 5, paused at step 5."""
    shutil.copytree(paused_before, tmp_path / "paused")
    return Run(tmp_path / "paused")
