"""Checkpoints that can be trusted: complete, of this run, and never half-written.

A checkpoint is a folder checkpoint-STEP. It is filled beside its place, sealed with a manifest (every file's size and
SHA-256, and the fingerprint of run, settings, data and versions), and then renamed. It counts only with a valid
manifest.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from helpers.platforms.environment import package_versions
from helpers.platforms.errors import describe_error
from helpers.runs.files import file_sha256, utc_now, write_json

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1  # a checkpoint with a later one is skipped
LOGGING = {"logging_steps", "logging_strategy", "logging_first_step", "report_to"}
SAVING = {"save_strategy", "save_steps", "save_total_limit"}  # of sft: neither changes what is trained
# Of train: those that stand under names of their own, and those that do not change what is trained
LEFT_OUT = {"sft", "lora", "session", "num_gpus", "eval_rows", "pause_at", "part_of", "base_model_path"}


class FileFacts(BaseModel):
    """A file's entry in a manifest."""

    size: int  # bytes
    sha256: str


class Fingerprint(BaseModel):
    """What a checkpoint must share with a run to be resumed; a run of the first version has no `run`."""

    run: str | None = None
    settings: dict[str, Any]
    data: dict[str, str]  # file: SHA-256
    versions: dict[str, str]


class Manifest(BaseModel):
    """The content of manifest.json."""

    format: int
    step: int
    fingerprint: Fingerprint
    files: dict[str, FileFacts]


def make_fingerprint(run_id: str, config: dict, data: dict[str, str], world_size: int) -> dict:
    """Returns what a checkpoint must share to be resumed: {"run", "settings", "data": {file: SHA-256}, "versions"}."""
    settings = {f"train.{name}": value for name, value in config.items() if name not in LEFT_OUT}
    settings |= {f"lora.{name}": value for name, value in config["lora"].items()}
    settings |= {f"sft.{name}": value for name, value in config["sft"].items() if name not in LOGGING | SAVING}
    settings["processes"] = world_size
    return {"run": run_id, "settings": settings, "data": data, "versions": package_versions()}


def fingerprint_differences(before: dict, now: dict) -> list[str]:
    """Returns what changed between two fingerprints, a line each; versions are left out."""
    lines = []
    for part in ("settings", "data"):
        for name in sorted({*before[part], *now[part]}):
            old, new = before[part].get(name, "not there"), now[part].get(name, "not there")
            if json.loads(json.dumps(old)) != json.loads(json.dumps(new)):
                lines.append(f"{name} was {str(old)[:80]}, now {str(new)[:80]}")
    return lines


def list_files(folder: Path) -> dict[str, dict]:
    """Returns {file: {"size", "sha256"}} of everything below a folder but hidden files."""
    files = {name: folder / name for name in list_names(folder)}
    return {name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for name, path in files.items()}


def list_names(folder: Path) -> list[str]:
    """Returns the names of all files below a folder but hidden ones, sorted."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [str(name) for name in names if not any(part.startswith(".") for part in name.parts)]


def compare_files(folder: Path, files: dict[str, dict]) -> str:
    """Returns "" when a folder holds these files as listed, else the first difference."""
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{name} is not below the folder"
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} bytes, expected {expected['size']}"
        if file_sha256(file) != expected["sha256"]:
            return f"{name} has other content than was written"
    return ""


def seal_checkpoint(folder: Path, step: int, fingerprint: dict) -> None:
    """Writes the manifest of a filled folder, last, after its files have reached the disk."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    manifest = {"format": MANIFEST_FORMAT, "step": step, "written": utc_now(), "fingerprint": fingerprint}
    write_json(folder / MANIFEST, {**manifest, "files": list_files(folder)})


def read_manifest(folder: Path) -> Manifest:
    """Returns a checkpoint's manifest. Raises ValueError where it is missing, damaged or of a later format."""
    if not folder.is_dir():
        raise ValueError("no such folder")
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{MANIFEST} is missing: it was not finished")
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{MANIFEST} cannot be read ({describe_error(error)})") from error
    if manifest.format > MANIFEST_FORMAT:
        raise ValueError(f"{MANIFEST} has format {manifest.format}, this suite reads up to {MANIFEST_FORMAT}")
    if not manifest.files:
        raise ValueError(f"{MANIFEST} names no files")
    return manifest


def verify_checkpoint(folder: Path) -> str:
    """Returns "" for a valid checkpoint, else what is wrong with it. Every file in it counts, hidden ones do not."""
    try:
        manifest = read_manifest(folder)
        listed = {name: file.model_dump() for name, file in manifest.files.items()}
        if step_of(folder) not in (-1, manifest.step):
            return f"{MANIFEST} is of step {manifest.step}"
        if unlisted := {*list_names(folder)} - {*listed} - {MANIFEST}:
            return f"{MANIFEST} does not name {min(unlisted)}"
        return compare_files(folder, listed)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({describe_error(error)})"


def step_of(folder: str | Path) -> int:
    """Returns the step in the name of a checkpoint's folder, -1 where there is none."""
    match = re.fullmatch(r"checkpoint-(\d+)", Path(folder).name)
    return int(match.group(1)) if match else -1


def archive_name(stage: str, step: int) -> str:
    """Returns the name of a checkpoint's archive at a mirror; train's has no stage in it."""
    return f"{'' if stage == 'train' else f'{stage}-'}checkpoint-{step}.tar"


def archived_steps(names: Iterable[str], stage: str) -> list[int]:
    """Returns the steps of a stage's checkpoints whose archives are among these names, ascending."""
    before, _, after = archive_name(stage, 0).rpartition("0")
    steps = [name.removeprefix(before).removesuffix(after) for name in names if name.startswith(before)]
    return sorted(int(step) for step in steps if step.isdecimal())


def checkpoint_folders(root: Path) -> list[Path]:
    """Returns the checkpoints' folders below `root`, valid or not, the oldest first."""
    return sorted((path for path in root.glob("checkpoint-*") if step_of(path) >= 0 and path.is_dir()), key=step_of)


def newest_checkpoint(root: Path, fingerprint: dict) -> tuple[Path | None, list[str]]:
    """Returns the newest valid checkpoint of this run below `root`, or None, and why newer ones were skipped.

    Raises ValueError when the newest valid one is of other settings or data: what changed, and what to do.
    """
    skipped = []
    for folder in reversed(checkpoint_folders(root)):
        if problem := verify_checkpoint(folder):
            skipped.append(f"{folder.name}: {problem}")
            continue
        before = read_manifest(folder).fingerprint.model_dump()
        if before["run"] != fingerprint.get("run"):
            skipped.append(f"{folder.name}: it is another run's")
            continue
        if changes := fingerprint_differences(before, fingerprint):
            raise ValueError(
                f"{folder} was made with other settings or data: {'; '.join(changes)}. Set them back to resume, use "
                f"another run_name to start again beside it, or --force to replace it."
            )
        return folder, skipped
    return None, skipped


def begun_processes(root: Path, run_id: str | None) -> int:
    """Returns in how many processes a run's newest checkpoint below `root` was written, 0 without one."""
    for folder in reversed(checkpoint_folders(root)):
        with contextlib.suppress(ValueError):  # one that was not finished
            fingerprint = read_manifest(folder).fingerprint
            if fingerprint.run == run_id:
                processes = fingerprint.settings.get("processes")
                return processes if isinstance(processes, int) else 0
    return 0


def place_checkpoint(filled: Path, folder: Path) -> None:
    """Puts a sealed folder in its place. Raises OSError, and leaves what stands there, when it is not valid."""
    if problem := verify_checkpoint(filled):
        raise OSError(f"the checkpoint written to {filled} is not valid: {problem}. The one before is kept.")
    shutil.rmtree(folder, ignore_errors=True)
    filled.rename(folder)


def prune_checkpoints(root: Path, keep: int, also: Iterable[int] = ()) -> None:
    """Removes all but the newest `keep` checkpoints (0: none is removed) and those of the steps `also`."""
    for folder in checkpoint_folders(root)[:-keep] if keep else []:
        if step_of(folder) not in also:
            hidden = folder.with_name(f".gone-{folder.name}")  # no longer a checkpoint before its first file goes
            folder.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)


def check_disk_space(folder: Path, needed: int) -> str:
    """Returns "" when the disk below `folder` has `needed` bytes free, else a line with what it has."""
    free = shutil.disk_usage(folder).free
    return "" if free >= needed else f"{free / 2**20:.0f} MiB are free, a checkpoint takes {needed / 2**20:.0f} MiB"
