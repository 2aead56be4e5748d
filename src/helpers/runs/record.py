"""A run on disk: its folder, its lock, run.json, and the start and end of its stages."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, model_validator

from helpers.platforms.environment import git_sha, package_versions
from helpers.platforms.machine import gpu_names, platform
from helpers.runs.files import file_sha256, read_json, utc_now, write_json
from helpers.runs.settings import check_settings
from helpers.runs.stages import EMBEDDED_CORPUS, STAGE_INPUTS, STAGES, run_folder, stage_inputs


class Session(BaseModel):
    """One entry of run.json's `sessions`: which stage ran, from which step to which, and why it ended."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    stage: str
    started: str  # ISO 8601 in UTC
    from_step: int | None = Field(default=None, alias="from")  # optimizer step; None for a stage without steps
    ended: str | None = None  # "unknown" for a session that was killed
    to_step: int | None = Field(default=None, alias="to")
    reason: str = ""


class StageRecord(BaseModel):
    """One entry of run.json's `stages`."""

    model_config = ConfigDict(extra="allow")
    status: str = ""  # running, finished, paused or failed
    parameters: dict[str, Any] = {}
    inputs: dict[str, str] = {}  # file: SHA-256
    started: str | None = None
    ended: str | None = None
    error: str | None = None
    versions: dict[str, str] = {}
    gpu: list[str] = []
    git_sha: str = ""
    paused: dict[str, Any] | None = None  # step, steps, reason


RENAMED_PARAMETERS = {"judge": "llm_judge"}  # {name in a run of the earlier version: present name}


class RunRecord(BaseModel):
    """The content of run.json. Fields of later versions are kept."""

    model_config = ConfigDict(extra="allow")
    run_name: str = ""
    id: str | None = None  # tells the run from every other, whatever its folder is called
    preset: str = ""
    settings: dict[str, dict[str, Any]] = {}  # stage: {parameter: value}
    commands: list[str] = []  # the command lines that started the run
    stages: dict[str, StageRecord] = {}
    sessions: list[Session] = []
    images: list[str] = []  # Kaggle's docker images in the order of the sessions, each again only after another

    @model_validator(mode="after")
    def rename_parameters(self) -> Self:
        """Gives parameters that were renamed since the run was made their present names."""
        for parameters in [*self.settings.values(), *(stage.parameters for stage in self.stages.values())]:
            for old, new in RENAMED_PARAMETERS.items():
                if old in parameters:
                    parameters[new] = parameters.pop(old)
        return self


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
        """Returns whether there is a run.json."""
        return (self / "run.json").is_file()

    def record(self) -> RunRecord:
        """Reads run.json; an empty record where there is none. Raises ValueError for a damaged one."""
        if not self.exists():
            return RunRecord(run_name=self.name, stages={})
        return RunRecord.model_validate(read_json(self / "run.json"))

    @contextlib.contextmanager
    def edit(self) -> Iterator[RunRecord]:
        """Reads run.json, hands it out to be changed by assignment, and writes it."""
        record = self.record()
        yield record
        write_json(self / "run.json", record.model_dump(mode="json", by_alias=True, exclude_unset=True))

    def stage(self, stage: str) -> StageRecord:
        """Returns what run.json says of a stage; an empty record where it has not begun."""
        return self.record().stages.get(stage, StageRecord())

    def metrics(self, stage: str) -> dict:
        """Reads the metrics.json of a stage. Raises FileNotFoundError before the stage has finished."""
        return read_json(self / STAGES[stage][1] / "metrics.json")

    def has_metrics(self, stage: str) -> bool:
        """Returns whether a stage has left its metrics.json, the last of its files."""
        return (self / STAGES[stage][1] / "metrics.json").is_file()

    def training_config(self) -> dict:
        """Reads train/config.json."""
        return read_json(self / "train" / "config.json")

    def note_stage(self, stage: str, **facts: Any) -> None:
        """Writes facts about a stage into run.json, keeping those not named."""
        with self.edit() as record:
            before = record.stages.get(stage, StageRecord()).model_dump(mode="json", exclude_unset=True)
            record.stages = {**record.stages, stage: StageRecord(**before | facts)}

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

    def lock(self, patience: float = 15.0) -> None:
        """Takes the run for this process, so that no two write to it; the system releases it when the process ends.

        Raises RuntimeError when another process still has it after `patience` seconds (a killed runner's kernel ends
        within a few).
        """
        if self.folder.resolve() in _LOCKS:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self / ".lock", thread_local=False)
        try:
            lock.acquire(timeout=patience, poll_interval=0.2)
        except Timeout:
            raise RuntimeError(
                f"another process works on run {self.name}: wait for it, or restart the other notebook's kernel."
            ) from None
        except (NotImplementedError, OSError):  # a file system without locks, such as a mounted Drive
            return
        _LOCKS[self.folder.resolve()] = lock

    def unlock(self) -> None:
        """Releases the run for other processes."""
        if lock := _LOCKS.pop(self.folder.resolve(), None):
            lock.release(force=True)

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
            if stage != "train":
                self.close_session(None, "finished")
            shutil.rmtree(own / "work", ignore_errors=True)
        self.unlock()


_LOCKS: dict[Path, FileLock] = {}  # run folder: the lock that this process holds


def result_settings(parameters: dict) -> dict:
    """Returns the parameters that decide a stage's results: not where it is kept, nor how long a session may last."""
    return {name: value for name, value in parameters.items() if name not in ("outputs", "run_name", "session")}


def settings_differences(stage: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns one line for each setting that decides a stage's results and differs from what it was before."""
    decisive = result_settings(now).items()
    return [f"{stage}.{n} was {before.get(n)!r}, now {value!r}" for n, value in decisive if before.get(n) != value]


def input_hashes(run: Run, stage: str, parameters: dict) -> dict[str, str]:
    """Returns the SHA-256 of everything a stage reads: files of the run, and a data set that is a file here."""
    hashes = {name: file_sha256(run / name) for name in stage_inputs(stage, parameters)}
    if stage == "prepare_data":
        dataset = parameters["dataset"]
        hashes["dataset"] = file_sha256(EMBEDDED_CORPUS if dataset == "embedded" else Path(dataset))
    if stage == "report":  # what people add after an evaluation
        written = [*(run / "evaluate").glob("ratings/*.csv"), *(run / "evaluate").glob("gloss.csv")]
        hashes |= {str(file.relative_to(run)): file_sha256(file) for file in sorted(written)}
    return hashes


UNKNOWN = ("dataset", "")  # an input of which no hash was recorded


def changed_inputs(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Returns the names of the inputs whose SHA-256 is another one than before, "the data set" for that.

    A data set that was recorded without one (the embedded corpus, by earlier versions) counts as unchanged.
    """
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return ["the data set" if name == "dataset" else name for name in names if (name, before.get(name)) != UNKNOWN]


def start_stage(stage: str, namespace: dict[str, Any]) -> Run:
    """Begins a stage from its notebook: checks the parameters' types and the inputs, and notes the start in run.json.

    `namespace` is the notebook's globals(); its annotated names are the parameters. Returns the run.
    Raises TypeError for a wrong type and FileNotFoundError when an earlier stage has not finished.
    """
    parameters = {name: namespace[name] for name in namespace["__annotations__"]}
    check_settings(stage, stage, parameters)
    run = Run.named(parameters["outputs"], parameters["run_name"])
    for needed in STAGE_INPUTS[stage] if stage != "report" else []:
        maker = next(name for name, (_, folder) in STAGES.items() if folder == needed.split("/")[0])
        if not run.has_metrics(maker) or not (run / needed).is_file():
            raise FileNotFoundError(f"{run / needed} is not there: finish {STAGES[maker][0]} of run {run.name} first.")
    run.lock()
    own = run / STAGES[stage][1]
    own.mkdir(parents=True, exist_ok=True)
    inputs, before = input_hashes(run, stage, parameters), run.stage(stage)
    if before.inputs != inputs or result_settings(before.parameters) != result_settings(parameters):
        shutil.rmtree(own / "work", ignore_errors=True)  # half-done work of other inputs or settings
        if before.status == "finished":  # replaced by this run; a half-done one is refused by its checkpoints
            shutil.rmtree(own / "checkpoints", ignore_errors=True)
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
    if stage != "train":  # which notes its steps itself
        run.open_session(stage, None)
    return run
