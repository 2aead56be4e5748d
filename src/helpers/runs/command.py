"""The command line that makes a run, and the one that continues it where it is now."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from helpers.platforms.environment import ROOT
from helpers.runs.record import Run


def build_command(preset: str, run_name: str, outputs: str, sets: list[str], tiny: bool, stages: list[str]) -> str:
    """Returns the command line of a run; --force is not in it: what continues a run replaces nothing."""
    command = ["python", "-m", "helpers", "run", "--preset", preset]
    command += ["--run-name", run_name] if run_name else []
    command += ["--outputs", outputs] if outputs != "outputs" else []
    command += ["--stages", ",".join(stages)] if stages else []
    command += ["--tiny"] if tiny else []
    command += ["--set", *sets] if sets else []
    return shlex.join(command)


def resume_command(run: Run) -> str:
    """Returns the command line that continues a run in the folder where it is now, "" where none is recorded.

    It is the last recorded one, with another --outputs and --run-name where the folder was moved or renamed since:
    below the current folder relative to that, elsewhere absolute.
    """
    record = run.record()
    command = record.commands[-1] if record.commands else ""
    try:
        words = shlex.split(command)
        start = words.index("--preset") + 2
    except ValueError:  # not one of `build_command`
        return command
    outputs = _option(words, "--outputs") or "outputs"
    moved = run.outputs.resolve() not in [(base / outputs).resolve() for base in (Path.cwd(), ROOT)]
    renamed = record.run_name not in ("", run.name)
    if not moved and not renamed:
        return command
    if moved:
        outputs = os.path.relpath(here) if (here := run.outputs.resolve()).is_relative_to(Path.cwd()) else str(here)
    name = run.name if renamed else _option(words, "--run-name")
    place = [*(["--run-name", name] if name else []), *(["--outputs", outputs] if outputs != "outputs" else [])]
    return shlex.join([*words[:start], *place, *_without(words[start:], ("--run-name", "--outputs"))])


def _option(words: list[str], name: str) -> str:
    """Returns the value of an option in a command line's words, "" where it is not there."""
    return words[words.index(name) + 1] if name in words[:-1] else ""


def _without(words: list[str], names: tuple[str, ...]) -> Iterator[str]:
    """Yields the words of a command line but for these options and their values."""
    for before, word in zip(["", *words], words):
        if word not in names and before not in names:
            yield word
