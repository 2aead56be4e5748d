"""Searches that tests carry out: to the end, by another process, or without any halving."""

import subprocess
import sys

from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.search.results import best_candidate, tabulate_trials
from helpers.search.study import open_search
from helpers.search.trials import run_trials
from helpers.training.launch import launch_training


def finish_search(run):
    """Trains the candidates of a run's search until none is left, and returns its table and its best candidate."""
    search = open_search(run)
    run_trials(search)
    table = tabulate_trials(search)
    return table, best_candidate(table, list(search.candidates[0].settings))


def train_all(run, folder):
    """Trains every candidate to the end, uninterrupted, and returns {candidate: validation loss}."""
    search, losses = open_search(run), {}
    for candidate in search.candidates:
        own = Run(folder / f"{candidate.number:03d}")
        own.folder.mkdir(parents=True)
        (own / "data").symlink_to(run / "data")
        config = candidate.config.model_copy(update={"session": search.session})
        losses[candidate.number] = launch_training(own, config)["val_loss"]
    return losses


def start_worker(run):
    """Starts `python -m helpers tune RUN`; its output is kept."""
    command = [sys.executable, "-m", "helpers", "tune", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def logged_losses(run):
    """Returns {candidate: [(step, training loss), …]} from the candidates' logs."""
    return {
        log.parents[1].name: [(line["step"], line["loss"]) for line in read_jsonl(log) if "loss" in line]
        for log in (run / "tune/trials").glob("*/train/log.jsonl")
    }
