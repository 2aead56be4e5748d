"""Trains the candidates from rung to rung, in as many processes as help."""

import gc
import math
import shutil
import sys
import time
from functools import partial

from optuna.trial import Trial, TrialState

from helpers.platforms.errors import PAUSED, Paused, describe_error
from helpers.platforms.machine import set_threads
from helpers.platforms.processes import run_child
from helpers.runs.checkpoints import verify_checkpoint
from helpers.runs.files import read_json
from helpers.runs.record import Run
from helpers.runs.session import SESSION_START, pause_reason, report_progress, session_left, session_start
from helpers.search.candidates import Candidate
from helpers.search.study import Search, candidate_run, heartbeat, next_trial, open_search
from helpers.training.config import RUNG_REACHED
from helpers.training.launch import launch_training

CONTINUE = "Run the same command again to continue."


def run_search(search: Search) -> None:
    """Trains the candidates: on a CPU here, on a GPU in one process for all, which gives the memory back at its end.

    Raises Paused as `run_trials` does, RuntimeError when that process fails.
    """
    import torch

    if not torch.cuda.is_available():
        return run_trials(search)
    command = [sys.executable, "-m", "helpers", "tune", str(search.run)]
    code = run_child(command, **{SESSION_START: str(session_start())})
    if code == PAUSED:
        done = sum(trial.state.is_finished() for trial in search.trials())
        raise Paused(f"{done} of {len(search.candidates)} candidates are done. {CONTINUE}")
    if code:
        raise RuntimeError(f"the search ended with exit code {code}: its log stands above. {CONTINUE}")


def run_trials(search: Search) -> None:
    """Trains candidates until none is left, here or in another process. Raises Paused at the session's end."""
    while True:
        if offer := next_trial(search):
            trial, candidate, lock = offer
            try:
                run_trial(search, trial, candidate)
            finally:
                lock.release()
        elif not search.trials(TrialState.RUNNING):
            return
        elif reason := pause_reason(search.run, session_left(search.session["hours"]), 60):
            raise Paused(f"{reason}; other processes still train candidates. {CONTINUE}")
        else:
            time.sleep(1)


def run_trial(search: Search, trial: Trial, candidate: Candidate) -> None:
    """Trains a candidate and tells the study the outcome.

    A candidate that is refused, runs out of memory or diverges fails with its reason, and the search continues.
    """
    import torch

    run = candidate_run(search.run, candidate.number)
    try:
        with heartbeat(trial):
            loss = train_candidate(search, trial, candidate, run)
    except Paused:
        trial.set_user_attr("seen", 0.0)  # free for other machines at once
        raise
    except (ValueError, RuntimeError, FloatingPointError, MemoryError) as error:  # torch's are RuntimeErrors
        trial.set_user_attr("reason", describe_error(error))
        search.study.tell(trial, state=TrialState.FAIL)
        print(f"candidate {candidate.number}: failed, {describe_error(error)}", flush=True)
    else:
        search.study.tell(trial, loss, state=TrialState.PRUNED if loss is None else None)
    gc.collect()  # so that the next training has all of the GPU
    torch.cuda.empty_cache()
    report_progress(sum(other.state.is_finished() for other in search.trials()), len(search.candidates), "candidate")
    for name in ("checkpoints", "adapter"):
        shutil.rmtree(run / "train" / name, ignore_errors=True)


def train_candidate(search: Search, trial: Trial, candidate: Candidate, run: Run) -> float | None:
    """Trains a candidate from rung to rung and returns its validation loss at the last, None when it was eliminated.

    One process trains on in memory; several, or a resumed trial, continue from the rung's checkpoint. Raises Paused
    when the session ends before, ValueError for a refused candidate, FloatingPointError for a loss that is not finite.
    """
    if candidate.config is None:
        raise ValueError(candidate.refused)
    session = {"session": {**search.session, "mirror": ""}, "part_of": "../../.."}
    losses = dict(search.trials()[trial.number].intermediate_values)  # {η to the power of the rung: search.measure}
    on_rung = partial(judge_candidate, search, trial, candidate, losses)
    step = candidate.rungs[0]
    while step:
        loss = losses.get(search.eta ** candidate.rungs.index(step), checkpoint_loss(run, step))
        if loss is None:
            result = launch_training(run, candidate.config.model_copy(update={**session, "pause_at": step}), on_rung)
            if result["status"] == "paused" and result["reason"] != RUNG_REACHED:
                raise Paused(f"candidate {run.name} at step {result['step']}: {result['reason']}. {CONTINUE}")
            step, loss = result.get("step", candidate.rungs[-1]), result["val_loss"]
        step = on_rung(step, loss)
    return None if step is None else losses[search.eta ** (search.rungs - 1)]


def judge_candidate(
    search: Search, trial: Trial, candidate: Candidate, losses: dict[int, float], step: int, loss: float
) -> int | None:
    """Reports the loss at a rung; returns the next rung's step, 0 at the last, None for an eliminated candidate.

    The pruner, and so `losses`, counts a rung as η to its power, whatever the candidate's steps. Raises
    FloatingPointError for a loss that is not finite.
    """
    rungs = candidate.rungs
    rung = rungs.index(step)
    if search.eta**rung not in losses:
        if not math.isfinite(loss):
            raise FloatingPointError(f"the validation loss at step {step} is not finite.")
        assert candidate.config, "a refused candidate is not trained"
        losses[search.eta**rung] = search.judged(candidate.config, loss)
        trial.report(losses[search.eta**rung], step=search.eta**rung)
    if step == rungs[-1]:
        return 0
    decision = f"goes_on_{rung}"  # kept, since the pruner answers once
    if decision not in trial.user_attrs:
        trial.set_user_attr(decision, not trial.should_prune())
    return rungs[rung + 1] if trial.user_attrs[decision] else None


def checkpoint_loss(run: Run, step: int) -> float | None:
    """Returns the loss in a candidate's checkpoint of a rung, written before a kill; None without a valid one."""
    checkpoint = run / "train" / "checkpoints" / f"checkpoint-{step}"
    if not checkpoint.is_dir() or verify_checkpoint(checkpoint):
        return None
    lines = read_json(checkpoint / "progress.json")["log"]
    return next((line["eval_loss"] for line in reversed(lines) if "eval_loss" in line and line["step"] == step), None)


def join_search(run: Run) -> None:
    """`python -m helpers tune RUN`: one more process for a search that a notebook began. Raises as `run_trials`."""
    set_threads()
    run_trials(open_search(run))
