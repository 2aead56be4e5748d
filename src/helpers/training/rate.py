"""How fast a session trains, against its plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tqdm import tqdm

from helpers.planning.calibration import find_speed
from helpers.planning.hours import step_seconds
from helpers.runs.record import Run

if TYPE_CHECKING:
    from helpers.training.step_training import StepTraining

COMPARED_AFTER = 20  # steps of a session, before it is said how fast they were


class MeasuredRate:
    """The rate of this session's own steps, and the seconds that are left by it.

    Steps differ by their tokens: each counts with the seconds that the plan has for it, `planned`, and what is measured
    is how many times those it takes. The first step of a session, in which kernels are compiled, does not count.
    `clock` returns seconds.
    """

    def __init__(self, planned: list[float], source: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.planned, self.source, self.clock = planned, source, clock
        self.steps = -1  # that were measured, -1: before the first of the session
        self.computed = self.expected = 0.0  # seconds of these steps, measured and planned
        self.began = self.first_ended = self.ended = 0.0

    def begin_step(self) -> None:
        """Notes that a step begins."""
        self.began = self.clock()

    def end_step(self, step: int) -> None:
        """Notes that a step has ended, counted from 1 over all sessions."""
        self.ended = self.clock()
        self.steps += 1
        if not self.steps:
            self.first_ended = self.ended
            return
        self.computed += self.ended - self.began
        self.expected += self.planned[step - 1]

    def seconds_left(self, step: int) -> float | None:
        """Returns the seconds that are left after a step, validations and checkpoints at their rate so far; None while
        no step was measured."""
        if self.steps < 1:
            return None
        return (self.ended - self.first_ended) / self.expected * sum(self.planned[step:])

    def compare(self, step: int) -> str:
        """Returns in a sentence how the measured steps were against their plan."""
        measured, planned = self.computed / self.steps, self.expected / self.steps
        seconds = f"{measured:.3g} s per step, planned {planned:.3g} by {self.source}"
        left = f"about {tqdm.format_interval(int(self.seconds_left(step) or 0))} left"
        return f"{self.steps} steps took {measured / planned:.2f} times as long as planned ({seconds}); {left}."


def watch_rate(trainer: StepTraining, run: Run) -> MeasuredRate:
    """Returns the rate of a trainer's session, with the plan of its own steps by this GPU's speed."""
    steps, config = trainer.steps, trainer.config
    speed = find_speed(config, run)
    return MeasuredRate(step_seconds(config, speed, steps.lengths, steps.schedule), speed.source)
