"""Reads and checks the inputs of a training run before its model is loaded."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from helpers.data.sampling import shuffle_key
from helpers.models.embedded import locate_base_model
from helpers.planning.config import TrainingConfig
from helpers.platforms.processes import process_count, process_rank
from helpers.runs.checkpoints import make_fingerprint, newest_checkpoint, read_manifest, step_of
from helpers.runs.files import file_sha256, read_json, read_jsonl
from helpers.runs.record import Run
from helpers.runs.versions import version_changes

DATA = {"train": "data/train.jsonl", "val": "data/val.jsonl"}


class Progress(BaseModel):
    """What a checkpoint keeps beside the library's own state: progress.json."""

    counts: Counter[str] = Counter()  # of COUNTS; this rank's in training, the sum over the ranks in a checkpoint
    limit: int = 0  # tokens of a micro-batch after memory ran out, 0: as configured
    loss_sum: float = 0.0  # over the steps
    seconds: float = 0.0  # of training, in earlier sessions
    eval_seconds: float = 0.0
    save_seconds: float = 0.0
    load_seconds: float = 0.0  # up to a session's first step, downloads included; not in `seconds`
    validations: int = 0
    saves: int = 0
    log: list[dict[str, Any]] = []  # the lines of log.jsonl


@dataclass(frozen=True)
class TrainingInputs:
    """The inputs of a training run."""

    config: TrainingConfig  # its base model located on this machine
    rows: dict[str, list[dict]]  # data rows: "train", and "val", the slice that is validated on
    fingerprint: dict[str, Any]  # what a checkpoint must share with the run
    checkpoint: Path | None  # the newest valid one
    progress: Progress  # the checkpoint's, or that of a training's start
    notes: list[str]  # which checkpoints were skipped and why, which one is resumed, what has changed since

    @property
    def start_step(self) -> int:
        """The optimizer steps that are done."""
        return step_of(self.checkpoint) if self.checkpoint else 0


def pick_validation_rows(config: TrainingConfig, rows: list[dict]) -> list[dict]:
    """Returns the validation rows that a training is validated on: all, or config.eval_rows of them by its seed."""
    by_seed = sorted(rows, key=lambda row: shuffle_key(config.seed, row["id"])) if config.eval_rows else rows
    return by_seed[: config.eval_rows or None]


def read_inputs(run: Run) -> TrainingInputs:
    """Reads train/config.json, the data rows, and the newest valid checkpoint's manifest and progress.

    Raises ValueError for a checkpoint of other settings or data, and as `locate_base_model` does.
    """
    config = TrainingConfig.of_run(run)
    rows = {part: read_jsonl(run / file) for part, file in DATA.items()}
    if (promise := config.promise) and promise.train_rows < len(rows["train"]):
        by_seed = sorted(rows["train"], key=lambda row: shuffle_key(config.seed, row["id"]))
        rows["train"] = by_seed[: promise.train_rows]
    rows["val"] = pick_validation_rows(config, rows["val"])
    return find_progress(run, config, rows, [*DATA.values()])


def find_progress(run: Run, config: TrainingConfig, rows: dict[str, list[dict]], files: list[str]) -> TrainingInputs:
    """Returns the inputs of a training by these rows, which the run's `files` decide, with what its newest valid
    checkpoint keeps. Raises as `read_inputs`."""
    hashes = {file: file_sha256(run / file) for file in files}
    fingerprint = make_fingerprint(run.id(), config.to_json(), hashes, process_count())
    checkpoint, skipped = newest_checkpoint(run / config.stage / "checkpoints", fingerprint)
    progress, notes = Progress(limit=config.limit), [f"skipped {line}" for line in skipped]
    if checkpoint:
        progress = Progress.model_validate(read_json(checkpoint / "progress.json"))
        if process_rank():  # the counts are the sum over the ranks, which the first one continues
            progress.counts.clear()
        notes.append(f"resuming from {checkpoint.name}")
        before, now = read_manifest(checkpoint).fingerprint.versions, fingerprint["versions"]
        if changes := version_changes(before, now):
            notes.append(f"changed since: {', '.join(changes)}. The result is no longer bit for bit as uninterrupted.")
    config = config.model_copy(update={"base_model_path": locate_base_model(config.base_model, run)})
    return TrainingInputs(config, rows, fingerprint, checkpoint, progress, notes)
