"""Checkpoints that can be trusted: whole, of this run, and never half-written.

A checkpoint is a folder checkpoint-STEP. It is filled beside, sealed with a manifest (every file's size and SHA-256,
and the fingerprint of data, settings and versions), and then renamed: without a whole manifest it does not count.

python -m helpers.checkpoints verify PATH says whether one is whole; exit code 1 and the reason if not.
"""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

from helpers import env

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest; a later one is not understood and passed over
HARMLESS = frozenset(  # of sft: they change what is said and kept, not what is learnt
    "logging_steps logging_strategy logging_first_step report_to save_strategy save_steps save_total_limit".split()
)


def fingerprint(config: dict, data: dict[str, str], world_size: int) -> dict:
    """Returns what makes a run this run: {"settings": {name: value}, "data": {file: SHA-256}, "versions": {…}}."""
    settings = {f"train.{name}": value for name, value in config.items() if name not in ("sft", "lora", "session")}
    settings |= {f"lora.{name}": value for name, value in config["lora"].items()}
    settings |= {f"sft.{name}": value for name, value in config["sft"].items() if name not in HARMLESS}
    del settings["train.num_gpus"], settings["train.eval_rows"]
    return {"settings": {**settings, "processes": world_size}, "data": data, "versions": env.versions()}


def differences(before: dict, now: dict) -> list[str]:
    """Returns what changed between two fingerprints, one line each; versions are not counted."""
    found = []
    for part in ("settings", "data"):
        for name in sorted({*before[part], *now[part]}):
            old, new = before[part].get(name, "not there"), now[part].get(name, "not there")
            if json.loads(json.dumps(old)) != json.loads(json.dumps(new)):
                found.append(f"{name} was {str(old)[:80]}, now {str(new)[:80]}")
    return found


def seal(folder: Path, step: int, run_fingerprint: dict) -> None:
    """Writes the manifest of a filled folder, last, after its files have reached the disk."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": env.sha256(path)}
    manifest = {"format": FORMAT, "step": step, "written": env.now(), "fingerprint": run_fingerprint, "files": files}
    env.write_json(folder / MANIFEST, manifest)


def verify(folder: Path) -> str:
    """Returns "" for a whole checkpoint, else what is wrong with it."""
    path = folder / MANIFEST
    if not folder.is_dir():
        return "no such folder"
    if not path.is_file():
        return f"{MANIFEST} is missing: it was not finished"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] > FORMAT:
            return f"{MANIFEST} has format {manifest['format']}, this suite reads up to {FORMAT}"
        files = manifest["files"]
        if not files or not isinstance(manifest["step"], int) or "settings" not in manifest["fingerprint"]:
            return f"{MANIFEST} names no files or no step"
    except (ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({env.brief(error)})"
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} bytes, expected {expected['size']}"
        if env.sha256(file) != expected["sha256"]:
            return f"{name} has other content than was written"
    return ""


def step_of(folder: Path) -> int:
    """Returns the step in a checkpoint folder's name, -1 where there is none."""
    found = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    return int(found.group(1)) if found else -1


def newest(root: Path, run_fingerprint: dict) -> tuple[Path | None, list[str]]:
    """Returns the newest whole checkpoint of this run below `root`, or None, and why newer ones were passed over.

    Raises ValueError when the newest whole one is of other settings or data: what changed, and what to do.
    """
    passed = []
    folders = [path for path in root.glob("checkpoint-*") if step_of(path) >= 0] if root.is_dir() else []
    for folder in sorted(folders, key=step_of, reverse=True):
        problem = verify(folder)
        if problem:
            passed.append(f"{folder.name}: {problem}")
            continue
        changed = differences(env.read_json(folder / MANIFEST)["fingerprint"], run_fingerprint)
        if changed:
            raise ValueError(
                f"{folder} was made with other settings or data: {'; '.join(changed)}. Set them back to go on, use "
                f"another run_name, or --force to start again (in a notebook: remove {root})."
            )
        return folder, passed
    return None, passed


def place(filled: Path, folder: Path) -> None:
    """Puts a sealed folder in its place; raises OSError, and leaves what stands there, when it is not whole."""
    problem = verify(filled)
    if problem:
        raise OSError(f"the checkpoint written to {filled} is not whole: {problem}. The one before is kept.")
    shutil.rmtree(folder, ignore_errors=True)
    filled.rename(folder)


def prune(root: Path, keep: int, also: set[int] = frozenset()) -> None:
    """Removes all but the newest `keep` checkpoints (0: none is removed) and those of the steps `also`."""
    folders = sorted((path for path in root.glob("checkpoint-*") if step_of(path) >= 0), key=step_of)
    for folder in folders[:-keep] if keep else []:
        if step_of(folder) not in also:
            gone = folder.with_name(f".gone-{folder.name}")  # no longer a checkpoint before its first file goes
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def room(folder: Path, needed: int) -> str:
    """Returns "" when the disk below `folder` has `needed` bytes free, else a line that says what it has."""
    free = shutil.disk_usage(folder).free
    return "" if free >= needed else f"{free / 2**20:.0f} MiB are free, a checkpoint takes {needed / 2**20:.0f} MiB"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.checkpoints", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["verify"])
    parser.add_argument("path", type=Path)
    options = parser.parse_args(arguments)
    problem = verify(options.path)
    print(f"{options.path}: {problem or 'whole'}", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


if __name__ == "__main__":
    raise SystemExit(main())
