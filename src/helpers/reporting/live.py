"""How far a stage is, in the notebook that runs it: a line with the time left, and a loss plot that grows.

For Run All in Jupyter, Kaggle or Colab. Under the runner, which prints the line itself and keeps what a notebook shows
for its page, nothing is shown.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path

from helpers.reporting.figures_training import draw_training
from helpers.reporting.notebook_parts import Part, Show, display_part, picture
from helpers.runs.files import read_journal
from helpers.runs.progress import ProgressLine
from helpers.runs.record import Run
from helpers.runs.session import PROGRESS_FILE
from helpers.runs.stages import TRAINING_STAGES

LINE_SECONDS = 2.0  # between two looks at how far the stage is
PLOT_SECONDS = 30.0  # at least, between two drawings of the plot
NOTHING = Part("", "")


class LiveView(ProgressLine):
    """Shows in a notebook what a stage reports while the block runs: one line, and one plot, each replaced in place.

    The plot is drawn from `log`, the log.jsonl of a training, whichever process writes it; without one there is none.
    `show` is `display_part`, unless a test looks on.
    """

    def __init__(self, run_name: str, stage: str, log: Path | None, show: Show) -> None:
        super().__init__(run_name, stage)
        self.log, self.show = log, show
        self.drawn_at, self.drawn_bytes = -PLOT_SECONDS, 0
        self.last_line, self.began = "", time.monotonic()

    def __enter__(self) -> "LiveView":
        self.replace_line = self.show(NOTHING)
        self.replace_plot = self.show(NOTHING) if self.log else None
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        seconds = datetime.timedelta(seconds=int(time.monotonic() - self.began))
        self.replace_line(Part("", f"{self.bar.desc}  {'ended' if any(error) else 'done'} after {seconds}"))
        if self.replace_plot and not any(error):
            self.replace_plot(NOTHING)  # the notebook draws it again, complete

    def run(self) -> None:
        """Updates until the block ends."""
        while not self.stopped.wait(LINE_SECONDS):
            self.update(time.monotonic())

    def update(self, now: float) -> None:
        """Updates the line, and at most every PLOT_SECONDS the plot, if the log has grown; `now` is in seconds."""
        self.update_line()
        if self.replace_plot and self.log and self.log.is_file() and now - self.drawn_at >= PLOT_SECONDS:
            size = self.log.stat().st_size
            if size != self.drawn_bytes:
                self.drawn_at, self.drawn_bytes = now, size
                self.replace_plot(picture(draw_training(read_journal(self.log, repair=False))))

    def update_line(self) -> None:
        """Shows the line, if it has changed."""
        line = self.line()
        if line != self.last_line:
            self.last_line = line
            self.replace_line(Part("", line))


@contextlib.contextmanager
def show_progress(run: Run, stage: str) -> Iterator[None]:
    """Shows how far a stage is while the block runs, for a training its losses too; nothing where a runner does."""
    if PROGRESS_FILE in os.environ:
        yield
        return
    log = run / stage / "log.jsonl" if stage in TRAINING_STAGES else None
    with LiveView(run.name, stage, log, display_part):
        yield
