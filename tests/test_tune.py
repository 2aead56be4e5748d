"""Successive halving: it finds what all of the grid would, goes on where it stopped, and shares its work."""

import csv
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from helpers import chat, env, plan, presets, train, tune

SPACE = {"learning_rate": [0.01, 0.05, 0.2, 0.8], "sft.weight_decay": [0.0, 0.3]}
WIDE = {"learning_rate": [0.005, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8], "sft.weight_decay": [0.0, 0.3]}


@pytest.fixture
def searched(make, embedded_rows, base, tokenizer):
    """Returns a function that makes a run whose settings can be searched, and gives it with the stage's settings."""

    def call(name, seed=1, **changes):
        run = make(name, rows=24)
        shutil.rmtree(run / "train")
        lengths = sorted(len(chat.encode(tokenizer, row)["input_ids"]) for row in embedded_rows[:24])
        quantiles = [[place / 10, lengths[min(23, place * 24 // 10)]] for place in range(11)]
        data = {"tokens": {"quantiles": quantiles}, "train": 24, "embedded_model": ""}
        env.write_json(run / "data/metrics.json", data)
        sft = {"optim": "sgd", "lr_scheduler_type": "constant", "warmup_steps": 0, "per_device_train_batch_size": 4}
        sft |= {"gradient_accumulation_steps": 1, "max_grad_norm": 1.0}
        settings = {"base_model": str(base), "backend": "peft", "eval_rows": 0, "sft": sft, "seed": seed}
        search = {"space": SPACE, "trials": 0, "budget_steps": 9, "eta": 3, "rungs": 3, "storage": "", "seed": seed}
        search |= {"session": {"hours": 0.0, "mirror": "", "keep": 2}, **changes}
        prepared = {"parameters": {"max_length": 1024, "base_model": str(base)}}
        stages = {"prepare_data": prepared, "tune": {"parameters": search}}
        env.write_json(run / "run.json", {"run_name": name, "settings": {"train": settings}, "stages": stages})
        return run, search

    return call


def finish(run, search):
    study, configs = tune.search(run, search)
    tune.work(run, study, configs, search["session"])
    table = tune.rows(run, study, configs)
    return table, tune.best(table, study)


def whole(run, search, folder):
    """Trains every candidate to the end, uninterrupted, and returns {candidate: validation loss}."""
    base = env.read_json(run / "run.json")["settings"]["train"]
    found = tune.candidates(search["space"], search["trials"], search["seed"])
    losses = {}
    for number, config in enumerate(tune.configurations(run, base, found, search["budget_steps"])):
        own = folder / f"{number:03d}"
        own.mkdir(parents=True)
        (own / "data").symlink_to(run / "data")
        losses[number] = train.launch(own, {**config, "session": search["session"]})["val_loss"]
    return losses


def compared(searched, tmp_path, seed, **changes):
    run, search = searched(f"search{seed}", seed=seed, **changes)
    table, best = finish(run, search)
    steps = sum(row["steps"] for row in table) / sum(row["budget_steps"] for row in table)
    return table, best, whole(run, search, tmp_path / f"whole{seed}"), steps


def test_halving_finds_the_best_and_its_losses_are_those_uninterrupted(searched, tmp_path, monkeypatch):
    started, real = [], train.launch
    monkeypatch.setattr(train, "launch", lambda own, *rest: started.append(own) or real(own, *rest))
    space = {"learning_rate": [0.01, 0.05, 0.2, 0.8]}
    table, best, all_of_it, steps = compared(searched, tmp_path, 1, space=space, budget_steps=4, rungs=2)
    assert best["val_loss"] <= 1.02 * min(all_of_it.values()) and steps < 0.8, (best, all_of_it, steps)
    finished = [row for row in table if row["status"] == "finished"]
    assert finished and all(row["val_loss"] == all_of_it[row["candidate"]] for row in finished), "not bit for bit"
    assert {row["status"] for row in table} == {"finished", "eliminated"} and len(table) == 4
    assert len(started) == 2 * 4, "a candidate that goes on was loaded again"  # the search, and all of it
    for row in table:
        assert row["steps"] in tune.rungs(row["budget_steps"], 3, 2)


@pytest.mark.slow
def test_over_five_seeds_it_is_within_two_percent(searched, tmp_path, capsys):
    for seed in range(5):
        _, best, all_of_it, steps = compared(searched, tmp_path, seed, space=WIDE)
        gap = best["val_loss"] / min(all_of_it.values()) - 1
        with capsys.disabled():
            print(f"\nseed {seed}: {gap:.2%} from the best of all, {steps:.1%} of the steps", end="")
        assert gap <= 0.02 and steps <= 0.45


def worker(run):
    command = [sys.executable, "-m", "helpers.tune", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def losses(run):
    """Returns {candidate: [(step, loss), …]} of what was trained, from the candidates' logs."""
    return {
        log.parents[1].name: [(line["step"], line["loss"]) for line in env.read_jsonl(log) if "loss" in line]
        for log in (run / "tune/trials").glob("*/train/log.jsonl")
    }


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_finds_the_same_and_logs_no_step_twice(searched):
    run, search = searched("whole", space=WIDE)
    table, best = finish(run, search)
    killed, _ = searched("killed", space=WIDE)
    rng, kills, begun = random.Random(3), 0, time.monotonic()
    subprocess.run([sys.executable, "-c", "from helpers import model\nmodel.start_backend('peft')\nimport trl, optuna"])
    begun = time.monotonic() - begun  # seconds that a process needs before it can train
    while True:
        process = worker(killed)
        try:
            process.wait(timeout=begun + 3 * rng.random() if kills < 10 else 300)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    print(f"killed {kills} times")
    assert process.returncode == 0 and kills >= 5, process.stdout.read()[-2000:]
    assert finish(killed, search) == (table, best) and losses(killed) == losses(run)


@pytest.fixture
def storage(request):
    """Returns where a search is kept: SQLite in the run's folder, a journal file, or a PostgreSQL of Debian's."""
    if request.param != "postgresql":
        yield {"sqlite": "", "journal": str(Path(tempfile.mkdtemp()) / "drive/study.journal")}[request.param]
        return
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
    folder, port = Path(tempfile.mkdtemp()), 54329
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it does not run as root
    if as_user:
        shutil.chown(folder, "postgres")
    subprocess.run([*as_user, found[-1], "-D", folder / "data", "-A", "trust", "-U", "searcher"], check=True, cwd="/")
    control = [*as_user, found[-1].with_name("pg_ctl"), "-D", folder / "data", "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], check=True, cwd="/")
    yield f"postgresql+psycopg://searcher@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd="/")


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal", "postgresql"], indirect=True)
def test_two_processes_share_a_search_without_losing_or_repeating_a_candidate(searched, storage):
    run, search = searched("shared", storage=storage)
    processes = [worker(run) for _ in range(2)]
    said = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    study, configs = tune.search(run, search)
    table = tune.rows(run, study, configs)
    assert [row["candidate"] for row in table] == list(range(8))
    assert {row["status"] for row in table} <= {"finished", "eliminated"}
    workers = {trial.user_attrs["worker"] for trial in study.get_trials()}
    assert len(workers) == 2, "one process did everything"


@pytest.mark.parametrize("storage", ["", "elsewhere.journal"])
def test_a_paused_search_goes_on_on_another_machine(searched, tmp_path, monkeypatch, storage):
    storage = storage and str(tmp_path / storage)
    few = {"space": {"learning_rate": [0.05, 0.2]}, "budget_steps": 4, "rungs": 2, "storage": storage}
    run, search = searched("moved", **few)
    study, configs = tune.search(run, search)
    (run / "stop").touch()
    with pytest.raises(env.Paused, match="stop was asked for"):
        tune.work(run, study, configs, search["session"])
    assert losses(run) and not (run / "tune/best.json").exists()
    (run / "stop").unlink()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    table, _ = finish(run, search)
    whole, _ = finish(*searched("unmoved", **{**few, "storage": ""}))
    assert table == whole


def test_a_trial_of_another_machine_is_left_alone_until_it_falls_silent(searched, tmp_path, monkeypatch):
    few = {"space": {"learning_rate": [0.05, 0.2]}, "budget_steps": 4, "rungs": 2}
    run, search = searched("shared", storage=str(tmp_path / "drive.journal"), **few)
    study, _ = tune.search(run, search)
    first, lock = tune.next_trial(study, run)
    lock.release()  # the other machine has a lock of its own, which is not seen here
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    second, other = tune.next_trial(study, run)
    assert second.number != first.number and tune.next_trial(study, run) == (None, None)
    monkeypatch.setattr(tune, "SILENT", -1.0)
    again, _ = tune.next_trial(study, run)
    assert again.number == first.number, "the second is locked here"
    other.release()


def test_candidates_that_were_enqueued_twice_are_trained_once(searched):
    run, search = searched("twice", space={"learning_rate": [0.05, 0.2]}, budget_steps=4, rungs=2)
    study, _ = tune.search(run, search)
    for candidate in (0, 1):
        study.enqueue_trial({"candidate": candidate})
    taken = []
    while (found := tune.next_trial(study, run))[0]:
        taken.append(found)
    assert [trial.params["candidate"] for trial, _ in taken] == [0, 1]
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["RUNNING", "RUNNING", "FAIL", "FAIL"]


def test_a_candidate_that_diverges_or_runs_out_of_memory_fails_and_the_search_goes_on(searched, monkeypatch):
    import torch

    space = {"learning_rate": [0.05, 1e30], "sft.per_device_train_batch_size": [4, 2], "lora.r": [4]}
    run, search = searched("broken", space=space)
    real = train.launch

    def small(own, config, *judge):
        if config["sft"]["per_device_train_batch_size"] == 2 and config["learning_rate"] < 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(own, config, *judge)

    monkeypatch.setattr(train, "launch", small)
    table, best = finish(run, search)
    by_settings = {(row["learning_rate"], row["sft.per_device_train_batch_size"]): row for row in table}
    assert by_settings[0.05, 4]["status"] == "finished" and best["settings"]["learning_rate"] == 0.05
    assert "out of memory" in by_settings[0.05, 2]["reason"] and by_settings[0.05, 2]["status"] == "fail"
    for batch in (4, 2):
        assert by_settings[1e30, batch]["status"] == "fail" and "finite" in by_settings[1e30, batch]["reason"]
    with pytest.raises(ValueError, match="no candidate reached the last rung: .*finite"):
        tune.best([by_settings[1e30, 4]], None)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "space is empty"),
        ({"learning_rate": []}, "expected a list of values"),
        ({"learning_rat": [1e-4]}, "learning_rat.*no setting.*learning_rate"),
        ({"sft.optimizer": ["sgd"]}, "optimizer is no setting of SFTConfig"),
        ({"learning_rate": ["fast"]}, "learning_rate is 'fast'"),
        ({"sft.max_steps": [30, 60]}, "max_steps cannot be searched: the budget decides it"),
        ({"eval_rows": [5]}, "eval_rows cannot be searched: losses would not compare"),
    ],
)
def test_an_impossible_space_is_refused_by_name(space, said):
    with pytest.raises(ValueError, match=said):
        tune.candidates(space, 0, 1)


def test_a_budget_too_small_and_another_search_in_the_storage_are_refused(searched):
    run, search = searched("few", budget_steps=4)
    with pytest.raises(ValueError, match="raise tune.budget_steps to at least 9"):
        tune.search(run, search)
    assert not (run / "tune").exists()
    run, search = searched("kept")
    tune.search(run, search)
    with pytest.raises(ValueError, match="holds another search"):
        tune.search(run, {**search, "space": {"learning_rate": [0.1]}})


def test_every_candidate_has_the_same_tokens_and_a_rung_is_a_share_of_the_next(searched):
    run, search = searched("tokens", space={"sft.per_device_train_batch_size": [1, 2, 4, 8]}, budget_steps=36)
    base = env.read_json(run / "run.json")["settings"]["train"]
    configs = tune.configurations(run, base, tune.candidates(search["space"], 0, 1), 36)
    rows = [config["sft"]["max_steps"] * config["sft"]["per_device_train_batch_size"] for config in configs]
    assert max(rows) <= 1.05 * min(rows), rows
    base["sft"] = {**base["sft"], "warmup_steps": 9}
    warmed = tune.configurations(run, base, tune.candidates(search["space"], 0, 1), 36)
    assert {config["sft"]["warmup_steps"] for config in warmed} == {0.25}, "the warm-up's tokens differ"
    assert tune.rungs(27, 3, 3) == [3, 9, 27] and tune.rungs(10, 2, 3) == [2, 5, 10]
    price = tune.price(run, configs, 3, 3)
    assert 0 < price["hours_of_search"] < 0.45 * price["hours_of_all"]


def test_train_takes_what_was_found_and_says_so(tmp_path, capsys):
    parameters = {name: value for name, (value, _) in presets.parameters_cell("train").items()}
    parameters["sft"] = {**parameters["sft"], "settings_from": "tune"}
    with pytest.raises(FileNotFoundError, match="finish the stage tune"):
        train.from_search(tmp_path, parameters)
    best = {"candidate": 3, "settings": {"learning_rate": 0.5, "sft.weight_decay": 0.3, "lora.r": 4}, "val_loss": 1.25}
    env.write_json(tmp_path / "tune/best.json", best)
    found = train.from_search(tmp_path, parameters)
    assert found["learning_rate"] == 0.5 and found["sft"]["weight_decay"] == 0.3 and found["lora"]["r"] == 4
    assert "settings_from" not in found["sft"] and found["lora"]["lora_alpha"] == parameters["lora"]["lora_alpha"]
    assert "from the search: learning_rate 0.5" in capsys.readouterr().out
    with pytest.raises(ValueError, match="expected 'tune', or nothing"):
        train.from_search(tmp_path, {**parameters, "sft": {"settings_from": "elsewhere"}})
    assert "settings_from" not in plan.configure(parameters)["sft"]


@pytest.mark.slow
def test_the_reference_s_preset_runs_tiny_through_every_stage(suite, tmp_path):
    stages = "prepare_data,tune,train,evaluate,infer,report,export"
    done = suite("--preset", "ref-d-finetome-1b", "--tiny", "--outputs", tmp_path, "--stages", stages, timeout=1200)
    assert done.returncode == 0, done.said
    run = tmp_path / "ref-d-finetome-1b-tiny"
    best = json.loads((run / "tune/best.json").read_text("utf-8"))
    config = env.read_json(run / "train/config.json")
    assert config["learning_rate"] == best["settings"]["learning_rate"]
    assert (run / "export/merged/config.json").is_file() and (run / "tune/search.svg").is_file()
    rows = list(csv.DictReader(open(run / "tune/trials.csv", encoding="utf-8")))
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert "The search for settings" in page and all(f">{float(row['val_loss']):.4f}<" in page for row in rows)
