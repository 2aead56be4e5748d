"""Starts several runners at one run at random moments, kills some, and compares the finished run to an undisturbed one.

PYTHONPATH=src python tests/benchmarks/rivals.py [--rounds 30] [--runners 2 5] [--seed 0] [--work DIR]

In a round each runner is started again after it was refused or killed, as an impatient user does, until one has
finished. A kill takes the runner alone, so that its kernel outlives it for a moment, or all that it started.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kill import kill, outcome, start  # noqa: E402

SETTINGS = ["train.sft.max_steps=12", "train.sft.save_strategy=steps", "train.sft.save_steps=2", "train.eval_rows=4"]
SETTINGS += ["train.backend=peft", "evaluate.max_rows=4", "evaluate.max_prompts=4", "evaluate.max_new_tokens=8"]
SETTINGS += ["evaluate.batch_size=1", "evaluate.bootstrap_draws=20"]
REFUSALS = (" is held by the runner with process ", " is still worked on by processes of a holder that was killed")
LONGEST = 20  # undisturbed runs that a round may take


class Round:
    """One run, and the runners that want it: `start` starts one, an undisturbed one takes about `seconds`."""

    def __init__(
        self, start: Callable[[], subprocess.Popen], runners: int, kills: int, rng: random.Random, seconds: float
    ) -> None:
        self.start, self.rng, self.kills, self.seconds = start, rng, kills, seconds
        self.counts: Counter[str] = Counter()
        self.due = {number: self.moment(0, 0.3) for number in range(runners)}  # when each is started
        self.running: dict[int, subprocess.Popen] = {}
        self.next_kill = self.moment(0.1, 0.8)

    def moment(self, earliest: float, latest: float) -> float:
        """Returns a random moment from now, given in runs' lengths."""
        return time.monotonic() + self.seconds * self.rng.uniform(earliest, latest)

    def play(self) -> Counter[str]:
        """Runs the round to its end and returns what happened. Raises AssertionError for a wrong end of a runner."""
        ends = time.monotonic() + LONGEST * self.seconds
        while not self.counts["finished"]:
            assert time.monotonic() < ends, f"a round has not finished: {dict(self.counts)}"
            self.start_due()
            self.kill_one()
            self.collect()
            time.sleep(0.05)
        self.due.clear()
        while self.running:
            self.collect()
            time.sleep(0.05)
        return self.counts

    def start_due(self) -> None:
        """Starts the runners whose time has come."""
        for number in [number for number, moment in self.due.items() if moment <= time.monotonic()]:
            del self.due[number]
            self.running[number] = self.start()
            self.counts["started"] += 1

    def kill_one(self) -> None:
        """Kills one runner, most often the oldest, which most often is the holder; it is started again."""
        if self.kills and self.running and time.monotonic() > self.next_kill:
            numbers = [*self.running]
            number = numbers[0] if self.rng.random() < 0.7 else self.rng.choice(numbers)
            process = self.running[number]
            if process.poll() is not None:  # it has just ended by itself
                return
            del self.running[number]  # its exit code may be lost: psutil waits for it too
            self.due[number] = self.moment(0.005, 0.15)
            alone = self.rng.random() < 0.5
            if alone:
                process.kill()
                process.wait()
            else:
                kill(process)
            self.counts["killed alone" if alone else "killed with its kernel"] += 1
            self.kills -= 1
            self.next_kill = self.moment(0.1, 0.8)

    def collect(self) -> None:
        """Looks at the runners that have ended, and has those that did not finish start again."""
        for number in [number for number, process in self.running.items() if process.poll() is not None]:
            process = self.running.pop(number)
            output = process.communicate()[0]
            if process.returncode == 2:
                assert any(line in output for line in REFUSALS), output
                assert output.count("\n") == 1, output
                self.counts["refused"] += 1
            elif process.returncode == 0:
                self.counts["finished"] += 1
            else:
                raise AssertionError(f"exit code {process.returncode}: {output[-3000:]}")
            if process.returncode and not self.counts["finished"]:
                self.due[number] = self.moment(0.005, 0.15)


def play_rounds(outputs: Path, rounds: int, runners: list[int], rng: random.Random) -> dict[str, int]:
    """Plays rounds with so many runners in turn; returns what happened in all of them.

    Raises AssertionError when a run ends with anything else than the undisturbed one.
    """
    began = time.monotonic()
    undisturbed = start(outputs, "whole", SETTINGS)
    output = undisturbed.communicate(timeout=600)[0]
    assert undisturbed.returncode == 0, output[-3000:]
    seconds = time.monotonic() - began
    expected, counts = outcome(outputs / "whole"), Counter(rounds=0)
    for number in range(rounds):
        name = f"round-{number}"
        begin = partial(start, outputs, name, SETTINGS)
        counts += Round(begin, runners[number % len(runners)], rng.randint(0, 2), rng, seconds).play()
        result = outcome(outputs / name)
        for key, value in expected.items():
            assert result[key] == value, f"{key} differs in {name} after {dict(counts)}"
        left = {path.name for path in outputs.glob(f".{name}*")}
        assert left <= {f".{name}.lock"}, left
        counts["rounds"] += 1
        print(dict(counts), flush=True)
    return dict(counts)


def main() -> None:
    """Plays the rounds, prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--runners", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    work = options.work or Path(tempfile.mkdtemp())
    counts = play_rounds(work, options.rounds, options.runners, random.Random(options.seed))
    print({**counts, "seconds": round(time.monotonic() - began)})


if __name__ == "__main__":
    main()
