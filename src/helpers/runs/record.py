"""A run on disk: its folder, its lock, run.json, and the start and end of its stages."""

import contextlib
import json
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from helpers.platforms.environment import git_sha, package_versions
from helpers.platforms.errors import Refused, describe_error
from helpers.platforms.machine import gpu_names, platform
from helpers.runs.differences import input_hashes, keep_sources, settings_differences
from helpers.runs.files import read_json, utc_now, write_json, write_text
from helpers.runs.lock import Place, RunLock
from helpers.runs.repair import checkpoint_run_id, left_by_a_run, rebuild_record
from helpers.runs.run_json import FORCED, RunRecord, Session, StageRecord, parse_record
from helpers.runs.settings import read_parameters
from helpers.runs.stages import STAGE_INPUTS, STAGES, TRAINING_STAGES, run_folder

RECORDS = ("run.json", "run.copy.json")  # the record is kept twice


@dataclass(frozen=True)
class Run:
    """A run's folder, and the one place that reads and writes its run.json. `run / "data"` is a path below it."""

    folder: Path

    @classmethod
    def named(cls, outputs: str | Path, run_name: str) -> "Run":
        """Returns the run of this name below `outputs`. Raises ValueError for a name that cannot be a folder."""
        return cls(run_folder(str(outputs), run_name))

    def __truediv__(self, part: str | Path) -> Path:
        return self.folder / part

    def __fspath__(self) -> str:
        return str(self.folder)

    __str__ = __fspath__

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def outputs(self) -> Path:
        """The folder of all runs."""
        return self.folder.parent

    # run.json

    def exists(self) -> bool:
        """Returns whether there is a record, or what a stage has left."""
        return any((self / name).is_file() for name in RECORDS) or left_by_a_run(self.folder)

    def record(self) -> RunRecord:
        """Reads run.json; an empty record where there is none.

        In place of a damaged or missing one it reads the copy, else rebuilds the record from what the stages left; the
        next `edit` writes it.
        """
        if not self.exists():
            return RunRecord(run_name=self.name, stages={})
        record, copy = (read_record(self / name) for name in RECORDS)
        if record is None or (not record.stages and copy and copy.stages):
            source = f"its copy, {RECORDS[1]}" if copy else "what the stages left, without the list of sessions"
            warn_once(f"warning: {self / RECORDS[0]} is damaged or missing: its content comes from {source}")
            record = copy or self._rebuilt()
        if record.id is None and (run_id := checkpoint_run_id(self.folder)):
            record.id = run_id
        return record

    def _rebuilt(self) -> RunRecord:
        """Returns the record of what the stages left; what they read is taken for what they have read."""
        record = parse_record(json.dumps(rebuild_record(self.folder))) or RunRecord(run_name=self.name, stages={})
        for stage, facts in record.stages.items():
            with contextlib.suppress(LookupError, TypeError, AttributeError, OSError):  # parameters that are not known
                if facts.status == "finished":
                    facts.inputs = input_hashes(self.folder, stage, facts.parameters)
        return record

    @contextlib.contextmanager
    def edit(self) -> Iterator[RunRecord]:
        """Reads run.json, hands it out to be changed by assignment, and writes it and its copy."""
        record = self.record()
        yield record
        text = record.to_text()
        for name in reversed(RECORDS):
            write_text(self / name, text)

    def stage(self, stage: str) -> StageRecord:
        """Returns what run.json says of a stage; an empty record where it has not begun."""
        return self.record().stages.get(stage, StageRecord())

    def metrics(self, stage: str) -> dict:
        """Reads the metrics.json of a stage. Raises FileNotFoundError before the stage has finished."""
        return read_json(self / STAGES[stage][1] / "metrics.json")

    def has_metrics(self, stage: str) -> bool:
        """Returns whether a stage has left its metrics.json, the last of its files, and is not forced to run anew."""
        return (self / STAGES[stage][1] / "metrics.json").is_file() and self.stage(stage).status != FORCED

    def damage(self, stage: str) -> str:
        """Returns which of the files that others read of a finished stage is damaged and how, "" for none."""
        own = self / STAGES[stage][1]
        for file in filter(
            Path.is_file, [own / "metrics.json", *(own / name for name in READ_BY_OTHERS.get(stage, []))]
        ):
            try:
                if file.suffix == ".safetensors":
                    check_tensors(file)
                elif not isinstance(read_json(file), dict):
                    return f"{file.relative_to(self.folder)} holds no JSON object"
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                return f"{file.relative_to(self.folder)} is damaged ({describe_error(error)})"
        return ""

    def training_config(self) -> dict:
        """Reads train/config.json."""
        return read_json(self / "train" / "config.json")

    def note_stage(self, stage: str, **facts: Any) -> None:
        """Writes facts about a stage into run.json, keeping those not named."""
        with self.edit() as record:
            before = record.stages.get(stage, StageRecord()).model_dump(mode="json", exclude_unset=True)
            record.stages = {**record.stages, stage: StageRecord(**before | facts)}

    def force_stages(self, stages: list[str]) -> None:
        """Notes in run.json that these stages are to run from their start; what they have left stays until they do."""
        with self.edit() as record:
            waiting = {name: record.stages.get(name, StageRecord()) for name in stages}
            waiting = {name: facts.model_copy(update={"status": FORCED}) for name, facts in waiting.items()}
            record.stages, record.forced = {**record.stages, **waiting}, stages

    def is_forced_with(self, settings: dict[str, dict], stages: list[str]) -> bool:
        """Returns whether these stages were begun with --force and these settings, and have not all finished since."""
        record = self.record()
        finished = all(record.stages.get(stage, StageRecord()).status == "finished" for stage in stages)
        same = not any(settings_differences(name, record.settings.get(name, {}), settings[name]) for name in stages)
        return record.forced == stages and same and not finished

    def id(self) -> str:
        """Returns the run's id, made and kept in run.json when first asked for."""
        if known := self.record().id:
            return known
        with self.edit() as record:
            record.id = uuid.uuid4().hex
        return record.id

    # Sessions

    def sessions(self, stage: str) -> list[Session]:
        """Returns the sessions of a stage, the oldest first."""
        return [session for session in self.record().sessions if session.stage == stage]

    def training_sessions(self, stage: str) -> list[Session]:
        """Returns the sessions that a stage's training is of, the oldest first: from the last one on that began at step
        0. What an attempt before it did was lost, or is of a training that this one replaced."""
        sessions = self.sessions(stage)
        first = max((place for place, session in enumerate(sessions) if not session.from_step), default=0)
        return sessions[first:]

    def open_session(self, stage: str, step: int | None) -> None:
        """Notes in run.json that a stage starts or resumes at a step; an earlier session without an end was killed."""
        self.id()  # before anything of the run can be copied elsewhere
        opened = {"stage": stage, "started": utc_now(), "from": step, "ended": None, "to": None, "reason": "running"}
        with self.edit() as record:
            for session in record.sessions:
                if session.ended is None:
                    session.ended, session.reason = "unknown", "killed"
            record.sessions = [*record.sessions, Session.model_validate(opened)]

    def close_session(self, step: int | None, reason: str) -> None:
        """Notes in run.json at which step the session's stage ended, and why; does nothing where none is open."""
        sessions = self.record().sessions
        if sessions and sessions[-1].ended is None:
            with self.edit() as record:
                last = record.sessions[-1]
                last.ended, last.to_step, last.reason = utc_now(), step, reason

    # The lock

    def lock(self, places: Sequence[Place] = (), patience: float = 15.0, runner: bool = False) -> None:
        """Takes the run, and its mirrors' leases at `places`, for this process and what it starts; see `RunLock`.

        What a runner started shares its lock; a `runner` takes its own. Raises Refused when another works on the run,
        or its folder cannot be written.
        """
        if self.folder.resolve() in _LOCKS:
            return
        lock = RunLock(self.folder, places)
        try:
            if not runner and lock.is_of_family():
                lock.join(patience)
            else:
                lock.hold(patience)
                if self.folder.is_dir():
                    write_text(self / ".writable", "." * 4096)
                    (self / ".writable").unlink()
        except OSError as error:
            lock.release()
            raise Refused(
                f"run {self.name} cannot be written to {self.outputs} ({describe_error(error)}): choose another "
                f"--outputs, or make room there. Nothing was changed."
            ) from error
        _LOCKS[self.folder.resolve()] = lock

    def join(self) -> None:
        """Shares the lock of what started this process; does nothing where that has none. Raises Refused when another
        has taken the run since."""
        lock = _LOCKS[self.folder.resolve()] = RunLock(self.folder)
        lock.join(patience=15.0)

    def unlock(self) -> None:
        """Releases the run for other processes."""
        if lock := _LOCKS.pop(self.folder.resolve(), None):
            lock.release()

    def free_reserve(self) -> None:
        """Makes a little room on a full disk, to write how a stage ended there."""
        if lock := _LOCKS.get(self.folder.resolve()):
            lock.free_reserve()

    def finish_stage(self, stage: str, metrics: dict) -> None:
        """Ends a stage: metrics.json last of its files, then "finished" in run.json.

        Metrics whose `status` is "paused" leave no metrics.json: the stage resumes another time.
        """
        if metrics.get("status") == "paused":
            self.note_stage(stage, status="paused", ended=utc_now(), paused=metrics)
        else:
            own = self / STAGES[stage][1]
            write_json(own / "metrics.json", metrics)
            self.note_stage(stage, status="finished", ended=utc_now())
            if stage not in TRAINING_STAGES:
                self.close_session(None, "finished")
            shutil.rmtree(own / "work", ignore_errors=True)
        self.unlock()


_LOCKS: dict[Path, RunLock] = {}  # run folder: the lock that this process holds
READ_BY_OTHERS = {  # stage: files in its folder
    "train": ["config.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"],
    "prefer": ["config.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"],
    "tune": ["best.json"],
}


def check_tensors(file: Path) -> None:
    """Raises ValueError, or what a header of another shape leads to, when a .safetensors file is not whole.

    Its size must be what its header says: 8 bytes, the header in JSON, the tensors. The library is not asked: a runner
    reads this before the session has its own version of it.
    """
    size = file.stat().st_size
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > size - 8:
            raise ValueError(f"it has {size} bytes, fewer than its header")
        header = json.loads(opened.read(length))
    ends = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if size != 8 + length + ends:
        raise ValueError(f"it has {size} bytes, expected {8 + length + ends}")


@cache
def warn_once(line: str) -> None:
    """Prints a line to stderr, once in this process."""
    print(line, file=sys.stderr, flush=True)


def read_record(file: Path) -> RunRecord | None:
    """Returns the record in a file, None where it is missing or damaged."""
    try:
        return parse_record(file.read_bytes())
    except OSError:
        return None


def start_stage(stage: str, namespace: dict[str, Any]) -> Run:
    """Begins a stage from its notebook: checks the parameters' types and the inputs, and notes the start in run.json.

    `namespace` is the notebook's globals(); its annotated names are the parameters, whose ~ is expanded there.
    Returns the run.
    Raises TypeError for a wrong type and FileNotFoundError when an earlier stage has not finished.
    """
    parameters = read_parameters(stage, namespace)
    run = Run.named(parameters["outputs"], parameters["run_name"])
    run.lock()
    try:
        _begin(run, stage, parameters)
    except BaseException:
        run.unlock()
        raise
    return run


def _begin(run: Run, stage: str, parameters: dict[str, Any]) -> None:
    """Checks a stage's inputs, and notes its start in run.json."""
    for needed in STAGE_INPUTS[stage] if stage != "report" else []:
        maker = next(name for name, (_, folder) in STAGES.items() if folder == needed.split("/")[0])
        if not run.has_metrics(maker) or not (run / needed).is_file():
            raise FileNotFoundError(f"{run / needed} is not there: finish {STAGES[maker][0]} of run {run.name} first.")
        if problem := run.damage(maker):
            raise ValueError(f"{problem}: run {STAGES[maker][0]} again, which makes it anew from what it has kept.")
    own = run / STAGES[stage][1]
    own.mkdir(parents=True, exist_ok=True)
    inputs, before = input_hashes(run.folder, stage, parameters), run.stage(stage)
    begun = any((own / "checkpoints").glob("checkpoint-*")) and before.status not in ("finished", FORCED)
    if stage == "prefer" and begun and before.inputs:
        inputs = keep_sources(before.inputs, inputs, parameters)
    if before.inputs != inputs or settings_differences(stage, before.parameters, parameters):
        shutil.rmtree(own / "work", ignore_errors=True)  # half-done work of other inputs or settings
        # Of a finished stage, replaced by this run; a half-done one is refused by its checkpoints
        if before.status in ("finished", FORCED) and before.parameters:
            shutil.rmtree(own / "checkpoints", ignore_errors=True)
    if before.status == FORCED:
        shutil.rmtree(own / "answers", ignore_errors=True)  # that an evaluation keeps for the next one
    (own / "metrics.json").unlink(missing_ok=True)  # its existence means "finished"
    run.note_stage(
        stage,
        status="running",
        parameters=parameters,
        inputs=inputs,
        started=utc_now(),
        ended=None,
        error=None,
        platform=platform(),
        versions=package_versions(),
        gpu=gpu_names(),
        git_sha=git_sha(),
    )
    if stage not in TRAINING_STAGES:
        run.open_session(stage, None)
