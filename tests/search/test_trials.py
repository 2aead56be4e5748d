"""Successive halving: it finds what all of the grid would, and resumes where it stopped."""

import random
import signal
import subprocess
import sys
import time

import pytest
from search_runs import finish_search, logged_losses, start_worker, train_all

from helpers.search.candidates import rung_steps
from helpers.search.results import best_candidate
from helpers.training.launch import launch_training


@pytest.fixture
def launches(monkeypatch):
    """Returns the folders of the candidates for which a training was launched."""
    folders = []
    monkeypatch.setattr(
        "helpers.search.trials.launch_training", lambda own, *rest: folders.append(own) or launch_training(own, *rest)
    )
    return folders


@pytest.mark.slow
def test_halving_loses_at_most_two_percent(make_search, tmp_path, launches):
    space = {"learning_rate": [0.01, 0.05, 0.2, 0.8]}
    run = make_search("halved", space=space, budget_steps=4, rungs=2)
    table, best = finish_search(run)
    all_losses = train_all(run, tmp_path / "all")
    assert best["val_loss"] <= 1.02 * min(all_losses.values()), (best, all_losses)
    assert sum(row["steps"] for row in table) < 0.8 * sum(row["budget_steps"] for row in table)
    finished = [row for row in table if row["status"] == "finished"]
    assert finished
    assert all(row["val_loss"] == all_losses[row["candidate"]] for row in finished), "not bit for bit"
    assert {row["status"] for row in table} == {"finished", "eliminated"}
    assert len(table) == 4
    assert len(launches) == 4, "a candidate that continues was loaded again"
    for row in table:
        assert row["steps"] in rung_steps(row["budget_steps"], 3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_halving_holds_on_every_seed(make_search, wide_space, tmp_path, capsys, seed):
    run = make_search(f"search{seed}", seed=seed, space=wide_space)
    table, best = finish_search(run)
    steps = sum(row["steps"] for row in table) / sum(row["budget_steps"] for row in table)
    gap = best["val_loss"] / min(train_all(run, tmp_path / "all").values()) - 1
    with capsys.disabled():
        print(f"\nseed {seed}: {gap:.2%} from the best of all, {steps:.1%} of the steps", end="")
    assert gap <= 0.02
    assert steps <= 0.45


@pytest.mark.slow
def test_killed_ten_times_a_search_finds_the_same(make_search, wide_space):
    run = make_search("whole", space=wide_space)
    table, best = finish_search(run)
    killed = make_search("killed", space=wide_space)
    rng, kills, began = random.Random(3), 0, time.monotonic()
    start = "from helpers.models.loading import start_backend\nstart_backend('peft')\nimport trl, optuna"
    subprocess.run([sys.executable, "-c", start], check=True)
    start_seconds = time.monotonic() - began  # that a process needs before it can train
    while True:
        process = start_worker(killed)
        try:
            process.wait(timeout=start_seconds + 3 * rng.random() if kills < 10 else 300)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    print(f"killed {kills} times")
    assert process.returncode == 0, process.stdout.read()[-2000:]
    assert kills >= 5
    assert finish_search(killed) == (table, best)
    assert logged_losses(killed) == logged_losses(run), "a step is missing, or was logged twice"


HIGHEST_RATE = 10.0  # that the settings take; here it stands for one at which every loss is infinite


@pytest.fixture
def broken_search(make_search, monkeypatch):
    """Returns a search's outcome in which a learning rate diverges and a batch size runs out of memory."""
    import torch

    def launch(own, config, *rest):
        if config.sft["per_device_train_batch_size"] == 2 and config.learning_rate < 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rate = 1e30 if config.learning_rate == HIGHEST_RATE else config.learning_rate
        return launch_training(own, config.model_copy(update={"learning_rate": rate}), *rest)

    monkeypatch.setattr("helpers.search.trials.launch_training", launch)
    space = {"learning_rate": [0.05, HIGHEST_RATE], "sft.per_device_train_batch_size": [4, 2], "lora.r": [4]}
    table, best = finish_search(make_search("broken", space=space))
    return {(row["learning_rate"], row["sft.per_device_train_batch_size"]): row for row in table}, best


def test_a_candidate_that_fails_does_not_end_the_search(broken_search):
    rows, best = broken_search
    assert rows[0.05, 4]["status"] == "finished"
    assert best["settings"]["learning_rate"] == 0.05
    assert rows[0.05, 2]["status"] == "fail"
    assert "out of memory" in rows[0.05, 2]["reason"]
    for batch in (4, 2):
        assert rows[HIGHEST_RATE, batch]["status"] == "fail"
        assert "finite" in rows[HIGHEST_RATE, batch]["reason"]
    with pytest.raises(ValueError, match="no candidate reached the last rung: .*finite"):
        best_candidate([rows[HIGHEST_RATE, 4]], ["learning_rate"])
