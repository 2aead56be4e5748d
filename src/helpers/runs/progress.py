"""The line that tells how far a stage is."""

import contextlib
import io
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

from tqdm import tqdm

from helpers.runs.session import PROGRESS_FILE


class ProgressLine(threading.Thread):
    """Prints to stderr what a stage reports while the block runs: in place on a terminal, else every ten seconds."""

    def __init__(self, run_name: str, stage: str) -> None:
        super().__init__(daemon=True)
        self.stopped, self.scratch = threading.Event(), tempfile.TemporaryDirectory()
        self.file = Path(self.scratch.name) / "progress.json"  # written by helpers.runs.session.report_progress
        self.bar = tqdm(desc=f"[{run_name}] {stage}", bar_format="{desc}  {elapsed}", file=io.StringIO())

    def __enter__(self) -> "ProgressLine":
        os.environ[PROGRESS_FILE] = str(self.file)
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.join()
        del os.environ[PROGRESS_FILE]
        self.scratch.cleanup()

    def run(self) -> None:
        """Prints until the block ends, then clears the line on a terminal."""
        in_place = sys.stderr.isatty()
        while not self.stopped.wait(0.5 if in_place else 10.0):
            print(f"\r\033[K{self.line()}" if in_place else f"{self.line()}\n", end="", file=sys.stderr, flush=True)
        print("\r\033[K" if in_place else "", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Returns stage, step of steps, time so far and, once two steps are known, the time left: the stage's own
        estimate where it gives one."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            progress = json.loads(self.file.read_text(encoding="utf-8"))
            if progress["what"] != self.bar.unit:  # another kind of work: its rate starts here
                self.bar.reset(progress["total"])
                self.bar.unit, self.bar.initial = progress["what"], progress["done"]
            self.bar.n = progress["done"]
            left = ", about {remaining} left" if self.bar.initial < self.bar.n < progress["total"] else ""
            if left and "seconds_left" in progress:
                left = f", about {tqdm.format_interval(int(progress['seconds_left']))} left"
            self.bar.bar_format = "{desc}  {unit} {n_fmt}/{total_fmt}  {elapsed}" + left
        return str(self.bar)
