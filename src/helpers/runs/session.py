"""A session's time, and work that is kept and continued when it ends."""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from helpers.platforms.errors import Paused
from helpers.platforms.machine import platform
from helpers.runs.files import append_journal, read_journal
from helpers.runs.record import Run

SESSION_HOURS = {"kaggle": 12.0, "colab": 12.0}  # a platform's limit; elsewhere there is none

SESSION_START = "SAHANUBHUTI_SESSION_START"  # seconds of the boot clock, set by the runner
PROGRESS_FILE = "SAHANUBHUTI_PROGRESS"  # where a stage writes how far it is, set by the runner


def boot_clock() -> float:
    """Returns seconds since the machine started, the same in every process; setting the time does not move it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME if hasattr(time, "CLOCK_BOOTTIME") else time.CLOCK_MONOTONIC)


def process_start(pid: str) -> float:
    """Returns when a process started, by the boot clock; now, where the system does not tell."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return boot_clock()
    return min(ticks / os.sysconf("SC_CLK_TCK"), boot_clock())


def session_start() -> float:
    """Returns when this session began, by the boot clock: as the runner says, else the machine's start on Kaggle and
    Colab (its first process), else this process's."""
    if SESSION_START in os.environ:
        return float(os.environ[SESSION_START])
    return process_start("1" if platform() in SESSION_HOURS else "self")


def session_left(hours: float = 0.0) -> float:
    """Returns the seconds left of the session, of `hours` or (0) of the platform's limit; infinity without one."""
    hours = hours or SESSION_HOURS.get(platform(), math.inf)
    return session_start() + hours * 3600 - boot_clock()


def compute_batches(
    batches: list[list[int]],
    compute: Callable[[list[int]], list],
    keep: Path | None = None,
    hours: float = 0.0,
    what: str = "row",
    rank: int = 0,
    world: int = 1,
) -> list:
    """Computes every batch of items and returns the results in the items' order.

    `compute` takes a list of item numbers and returns as many results. With `keep`, a file below a run's stage folder,
    each batch's results are on the disk before the next begins, and a later call resumes after them; before the
    session's end, or when a file `stop` lies in the run's folder, it raises Paused. Of `world` processes each computes
    its share and keeps it in a file of its own; a result that is not there yet is None.
    """
    total, results, slowest = sum(map(len, batches)), {}, 0.0
    own = keep.with_name(f"{keep.stem}-{rank}.jsonl") if keep else None
    for journal in sorted(keep.parent.glob(f"{keep.stem}-*.jsonl")) if keep else []:
        for entry in read_journal(journal, repair=journal == own):
            results.update(zip(entry["items"], entry["results"]))
    if results:
        print(f"{what}: {len(results)} of {total} were done before")
    for batch in batches[rank::world]:
        if all(item in results for item in batch):
            continue
        if keep and (reason := pause_reason(Run(keep.parents[2]), session_left(hours), 30 + 2 * slowest)):
            if world == 1:
                Run(keep.parents[2]).close_session(None, f"{reason} ({what} {len(results)} of {total})")
            raise Paused(f"{what} {len(results)} of {total}: {reason}. Run the same command again to continue.")
        began = boot_clock()
        results.update(zip(batch, batch_results := compute(batch), strict=True))
        slowest = max(slowest, seconds := boot_clock() - began)
        if own:
            append_journal(own, {"items": batch, "results": batch_results, "seconds": seconds})
        report_progress(len(results), total, what)
    return [results.get(item) for item in range(total)]


def report_progress(done: int, total: int, what: str = "", seconds_left: float | None = None) -> None:
    """Tells the runner how far the stage is; does nothing where no runner listens.

    `seconds_left` is what the stage itself knows; without it the runner takes the rate at which `done` grows.
    """
    if target := os.environ.get(PROGRESS_FILE):
        temporary = Path(f"{target}.tmp")
        facts = {"done": done, "total": total, "what": what}
        facts |= {"seconds_left": round(seconds_left, 1)} if seconds_left is not None else {}
        with contextlib.suppress(OSError):  # a full disk, a runner that is gone: no reason to end the work
            temporary.write_text(json.dumps(facts), encoding="utf-8")
            os.replace(temporary, target)


def pause_reason(run: Run, seconds_left: float, margin: float) -> str:
    """Returns why a session should end now, "" while it has more than `margin` seconds and nobody asked for a stop."""
    if (run / "stop").exists():
        return "stop was asked for"
    return "the session's time is nearly up" if seconds_left < margin else ""


@contextlib.contextmanager
def handle_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Calls `handler` on SIGTERM and SIGINT while the block runs; does nothing outside the main thread."""
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def pause_on_signal(run: Run) -> Iterator[None]:
    """Asks the run to pause on the first SIGTERM or SIGINT, and ends its stage at once on the second.

    Processes that this one had started before the block, such as a browser, are left alone.
    """
    remove_stop_file(run)
    others = set(psutil.Process().children())

    def on_signal(number: int, frame: object) -> None:
        if (run / "stop").exists():
            for kernel in set(psutil.Process().children()) - others:
                with contextlib.suppress(psutil.Error):
                    for process in (*kernel.children(recursive=True), kernel):
                        process.kill()
            raise KeyboardInterrupt
        (run / "stop").touch()
        print(
            "pausing after this step or batch, or this stage where it has none; the same signal again ends it at once",
            file=sys.stderr,
            flush=True,
        )

    try:
        with handle_signals(on_signal):
            yield
    finally:
        remove_stop_file(run)


def remove_stop_file(run: Run) -> None:
    """Removes what asks a run to pause."""
    with contextlib.suppress(OSError):  # a disk that became read-only
        (run / "stop").unlink(missing_ok=True)


class SessionClock:
    """Decides when a training session ends: its time is nearly up, a signal came, or a file `stop` lies in the run.

    `left` returns the seconds that the session still has. The margin is two steps, two checkpoints and half a minute.
    """

    def __init__(self, run: Run, left: Callable[[], float]) -> None:
        self.run, self.left, self.signal = run, left, ""
        self.last_call: float | None = None
        self.step_seconds = 0.0

    def on_signal(self, number: int, frame: Any) -> None:
        """Pauses the run after its step: a signal handler."""
        self.signal = f"{signal.Signals(number).name} received"
        print(f"{self.signal}: the run pauses after this step", flush=True)

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Pauses the run on SIGTERM or SIGINT while the block runs."""
        return handle_signals(self.on_signal)

    def reason(self, save_seconds: float) -> str:
        """Returns why the session should end after this step, "" to continue. Call it once per step.

        `save_seconds` is how long a checkpoint takes, its way to the mirror included.
        """
        now = time.monotonic()
        if self.last_call is not None:
            self.step_seconds = max(now - self.last_call, 0.9 * self.step_seconds)
        self.last_call = now
        return self.signal or pause_reason(self.run, self.left(), 2 * self.step_seconds + 2 * save_seconds + 30)
