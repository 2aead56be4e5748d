"""The Optuna study that several processes and machines share.

Successive halving (Jamieson and Talwalkar 2016) in Optuna's asynchronous form (Li et al. 2020): its pruner decides.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pydantic import BaseModel

from helpers.models.embedded import locate_base_model
from helpers.models.loading import load_tokenizer, tokenizer_digest
from helpers.planning.config import TrainingConfig
from helpers.planning.lengths import spread_lengths
from helpers.platforms.errors import describe_error
from helpers.runs.damage import reading
from helpers.runs.record import Run
from helpers.runs.settings import check_settings
from helpers.search.base_models import ModelRows, count_rows, seconds_per_step
from helpers.search.candidates import Candidate, Point, draw_points, make_candidates, tokens_per_step

SILENT_SECONDS = 600.0  # without a heartbeat, after which a process on another machine counts as gone


@dataclass(frozen=True)
class Search:
    """A run's search: its candidates, how they are judged, and the study that its processes share."""

    run: Run
    candidates: list[Candidate]
    lengths: list[int]  # tokens of the training rows, ascending
    eta: int  # a rung has 1 / eta of the next one's steps
    rungs: int
    session: dict[str, Any]
    study: optuna.Study
    owner: str  # this machine and the run's folder on it; "" for a study in the run's folder, which no other one has
    models: dict[str, ModelRows] = field(default_factory=dict)  # of a search over base models, by name

    @property
    def measure(self) -> str:
        """What candidates are judged by: a loss per token compares between models of one tokenizer alone."""
        return "bits per character" if self.models else "loss"

    def lengths_for(self, config: TrainingConfig) -> list[int]:
        """Returns the tokens of the training rows by a configuration's base model, ascending."""
        return self.models[config.base_model].lengths if self.models else self.lengths

    def judged(self, config: TrainingConfig, loss: float) -> float:
        """Returns a validation loss, in nats per token, as `measure` has it."""
        return loss * self.models[config.base_model].bits_per_nat if self.models else loss

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Returns the study's trials in these states, all without any, as the storage has them now."""
        return self.study.get_trials(deepcopy=False, states=states or None)


class TrialNotes(BaseModel):
    """What a trial's user attributes hold."""

    candidate: int | None = None  # its number; None: not one of the search's
    owner: str = ""  # machine and folder where it is trained
    worker: int | str = ""  # the process there
    seen: float = 0.0  # when its process was last alive, in seconds since 1970
    reason: str = ""  # why it failed

    @classmethod
    def of(cls, trial: FrozenTrial) -> "TrialNotes":
        """Reads a trial's notes. (In a study of the first version the candidate is the trial's one parameter.)"""
        return cls.model_validate({**trial.system_attrs.get("fixed_params", {}), **trial.user_attrs})


def open_search(run: Run) -> Search:
    """Opens a run's search, as the stage's parameters in run.json describe it; two that open it do so in turn.

    Raises ValueError for a run without a search, an impossible space or budget, and a storage of another search or of
    another tokenizer or one that cannot be opened, Refused for a damaged file, and as `load_tokenizer` does.
    """
    record = run.record()
    if "tune" not in record.stages:
        raise ValueError(f"run {run.name} has no search: run its stage tune first (--stages prepare_data,tune).")
    with reading(run / "run.json", "Take it from a copy of the run."):
        settings, prepared = (record.stages[stage].parameters for stage in ("tune", "prepare_data"))
        base = record.settings.get("train") or {"base_model": prepared["base_model"]}
        base = {**base, "max_length": prepared["max_length"]}
        check_settings("tune", "tune", settings)
        eta, rungs, seed, storage = (settings[name] for name in ("eta", "rungs", "seed", "storage"))
    with reading(run / "data" / "metrics.json"):
        data = run.metrics("prepare_data")
        base["embedded_model"] = data["embedded_model"]
        lengths = spread_lengths(data["tokens"]["quantiles"], data["train"])
    points = draw_points(settings["space"], settings["trials"], seed)
    models: dict[str, ModelRows] = {}

    def step_hours(config: TrainingConfig) -> float:
        if config.base_model not in models:
            models[config.base_model] = count_rows(run, config)
        return seconds_per_step(run, config, models[config.base_model].lengths) / 3600

    cost = step_hours if "base_model" in settings["space"] else partial(tokens_per_step, lengths=lengths)
    make = partial(make_candidates, base, points, cost, settings["budget_steps"], eta, rungs)
    candidates = make()
    search = {"candidates": points, "eta": eta, "rungs": rungs, "seed": seed}
    (run / "tune").mkdir(parents=True, exist_ok=True)
    with FileLock(run / "tune" / ".turn.lock"):
        try:
            study = open_study(run, storage, eta)
        except Exception as error:  # SQLAlchemy's, the database driver's, JSON's
            place = storage or run / "tune" / "study.db"
            raise ValueError(f"the search's storage {place} cannot be opened ({describe_error(error)}).") from error
        if "search" not in study.user_attrs:
            add_trials(study, points)
            study.set_user_attr("search", search)
        elif study.user_attrs["search"] != search:
            raise ValueError(f"the storage of study {run.name} holds another search: take another run_name or storage.")
        if models:  # by the speed of the machine that began: another one's, or a calibration, changes no budget
            if "steps" not in study.user_attrs:
                study.set_user_attr("steps", [own.config.sft["max_steps"] if own.config else 0 for own in candidates])
            candidates = make(kept=study.user_attrs["steps"])
        else:
            check_tokenizer(study, run, base["base_model"])
    owner = f"{socket.gethostname()}:{run}" if storage else ""
    return Search(run, candidates, lengths, eta, rungs, settings["session"], study, owner, models)


def check_tokenizer(study: optuna.Study, run: Run, base_model: str) -> None:
    """Raises ValueError for a study whose losses per token are by another tokenizer than this base model's."""
    digest = tokenizer_digest(load_tokenizer(locate_base_model(base_model, run)))
    if "tokenizer" not in study.user_attrs:
        study.set_user_attr("tokenizer", digest)
    elif study.user_attrs["tokenizer"] != digest:
        raise ValueError(
            f"the study {run.name} has losses per token of a base model whose tokenizer is not that of {base_model!r}: "
            f"they do not compare. Take another run_name or storage, or search base_model too, which is judged by bits "
            f"per character."
        )


def open_study(run: Run, storage: str, eta: int) -> optuna.Study:
    """Returns a run's Optuna study, a new one where there is none.

    `storage`: "" is SQLite in the run's folder; a path that ends in .journal a journal file (for a mounted Drive); any
    other a database URL.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place: Any = storage or f"sqlite:///{run / 'tune' / 'study.db'}?timeout=60"  # seconds to wait for its lock
    if storage.endswith(".journal"):
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        place = optuna.storages.JournalStorage(JournalFileBackend(storage))
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=eta)
    sampler = optuna.samplers.RandomSampler()  # asked for nothing: every trial comes with its parameters
    return optuna.create_study(study_name=run.name, storage=place, sampler=sampler, pruner=pruner, load_if_exists=True)


def add_trials(study: optuna.Study, points: list[Point]) -> None:
    """Adds a waiting trial per candidate. Its parameters are choices: a list among the settings is JSON text there."""
    texts = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in point.items()} for point in points]
    choices: dict[str, Any] = {name: list(dict.fromkeys(text[name] for text in texts)) for name in points[0]}
    choices = {name: CategoricalDistribution(values) for name, values in choices.items()}
    for number, text in enumerate(texts):
        notes = {"candidate": number}
        study.add_trial(create_trial(state=TrialState.WAITING, params=text, distributions=choices, user_attrs=notes))


def candidate_run(run: Run, number: int) -> Run:
    """Returns a candidate's folder, made if it is missing: a run's, with the data of the run that searches."""
    candidate = Run(run / "tune" / "trials" / f"{number:03d}")
    if not (candidate / "data").exists():
        candidate.folder.mkdir(parents=True, exist_ok=True)
        try:
            (candidate / "data").symlink_to("../../../data", target_is_directory=True)
        except OSError:  # a file system without links
            shutil.copytree(run / "data", candidate / "data")
    return candidate


def next_trial(search: Search) -> tuple[Trial, Candidate, FileLock] | None:
    """Returns a trial to train, its candidate and its lock: first one whose process is gone, then one that waits.

    None when there is none now. A trial is trained under a lock of its candidate's folder, which the system frees when
    its process ends.
    """
    with FileLock(search.run / "tune" / ".turn.lock"):
        for trial in _offer_trials(search):
            numbers = [TrialNotes.of(other).candidate for other in search.trials()[: trial.number + 1]]
            if numbers[-1] is None or numbers[-1] in numbers[:-1]:  # two machines, or a kill, added all of them twice
                search.study.tell(trial, state=TrialState.FAIL)
                continue
            candidate = search.candidates[numbers[-1]]
            lock = FileLock(candidate_run(search.run, candidate.number) / ".lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                notes = TrialNotes(owner=search.owner, worker=os.getpid(), seen=time.time())
                for name, value in notes.model_dump(exclude_unset=True).items():
                    trial.set_user_attr(name, value)
                return trial, candidate, lock
    return None


def _offer_trials(search: Search) -> Iterator[Trial]:
    """Yields the trials whose process may be gone, for one that gets their lock, then those that wait.

    On another machine a trial may still be trained, unless its process paused, or was silent for SILENT_SECONDS.
    """
    for running in search.trials(TrialState.RUNNING):
        notes = TrialNotes.of(running)
        if notes.owner == search.owner or time.time() - notes.seen > SILENT_SECONDS:
            yield Trial(search.study, running._trial_id)
    while search.trials(TrialState.WAITING):
        yield search.study.ask()


@contextlib.contextmanager
def heartbeat(trial: Trial) -> Iterator[None]:
    """Tells other machines that this one trains the trial.

    By hand because Optuna's own heartbeat works in `Study.optimize` alone, and in no journal file.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(SILENT_SECONDS / 10):
            trial.set_user_attr("seen", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
