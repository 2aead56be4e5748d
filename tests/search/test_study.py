"""The study: who trains which candidate, over several processes and machines, and what a storage may hold."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import optuna
import pytest
from search_runs import finish_search, logged_losses, start_worker

from helpers.platforms.errors import Paused
from helpers.runs.files import read_json, write_json
from helpers.search.results import tabulate_trials
from helpers.search.study import add_trials, next_trial, open_search
from helpers.search.trials import run_trials


@pytest.fixture
def storage(request):
    """Returns where a search is kept: SQLite in the run's folder, a journal file, or a PostgreSQL of Debian's."""
    if request.param != "postgresql":
        yield {"sqlite": "", "journal": str(Path(tempfile.mkdtemp()) / "drive/study.journal")}[request.param]
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
    folder, port = Path(tempfile.mkdtemp()), 54329
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it does not run as root
    if as_user:
        shutil.chown(folder, "postgres")
    subprocess.run(
        [*as_user, programs[-1], "-D", folder / "data", "-A", "trust", "-U", "searcher"], check=True, cwd="/"
    )
    control = [*as_user, programs[-1].with_name("pg_ctl"), "-D", folder / "data", "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], check=True, cwd="/")
    yield f"postgresql+psycopg://searcher@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd="/")


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal", "postgresql"], indirect=True)
def test_two_processes_share_a_search(make_search, storage):
    run = make_search("shared", storage=storage)
    processes = [start_worker(run) for _ in range(2)]
    output = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], output
    search = open_search(run)
    table = tabulate_trials(search)
    assert [row["candidate"] for row in table] == list(range(8)), "a candidate was lost or repeated"
    assert {row["status"] for row in table} <= {"finished", "eliminated"}
    workers = {trial.user_attrs["worker"] for trial in search.study.get_trials()}
    assert len(workers) == 2, "one process did everything"


@pytest.mark.parametrize("storage", ["", "elsewhere.journal"])
def test_a_paused_search_resumes_on_another_machine(make_search, two_candidates, tmp_path, monkeypatch, storage):
    run = make_search("moved", **two_candidates, storage=storage and str(tmp_path / storage))
    (run / "stop").touch()
    with pytest.raises(Paused, match="stop was asked for"):
        run_trials(open_search(run))
    assert logged_losses(run)
    assert not (run / "tune/best.json").exists()
    (run / "stop").unlink()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert finish_search(run) == finish_search(make_search("unmoved", **two_candidates))


def test_another_machines_trial_is_left_alone_until_silent(make_search, two_candidates, tmp_path, monkeypatch):
    run = make_search("shared", **two_candidates, storage=str(tmp_path / "drive.journal"))
    first, _, lock = next_trial(open_search(run))
    lock.release()  # the other machine has a lock of its own, which is not seen here
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    search = open_search(run)
    second, _, lock = next_trial(search)
    assert second.number != first.number
    assert next_trial(search) is None
    monkeypatch.setattr("helpers.search.study.SILENT_SECONDS", -1.0)
    assert next_trial(search)[0].number == first.number, "the second is locked here"
    lock.release()


def test_candidates_enqueued_twice_are_trained_once(make_search, two_candidates):
    search = open_search(make_search("twice", **two_candidates))
    add_trials(search.study, [candidate.settings for candidate in search.candidates])
    taken = []
    while offer := next_trial(search):
        taken.append(offer)
    assert [candidate.number for _, candidate, _ in taken] == [0, 1]
    assert [trial.params for trial, _, _ in taken] == [candidate.settings for candidate in search.candidates]
    assert [trial.state.name for trial in search.study.get_trials()] == ["RUNNING", "RUNNING", "FAIL", "FAIL"]


def test_a_storage_that_holds_another_search_is_refused(make_search):
    run = make_search("kept")
    open_search(run)
    record = read_json(run / "run.json")
    record["stages"]["tune"]["parameters"]["space"] = {"learning_rate": [0.1]}
    write_json(run / "run.json", record)
    with pytest.raises(ValueError, match="holds another search"):
        open_search(run)


def test_a_list_is_a_choice_that_optuna_can_keep(make_search):
    modules = [["q_proj"], ["q_proj", "v_proj"]]
    run = make_search("lists", space={"lora.target_modules": modules}, budget_steps=4, rungs=2)
    table, best = finish_search(run)
    assert sorted(row["lora.target_modules"] for row in table) == modules
    assert best["settings"]["lora.target_modules"] in modules
    choices = open_search(run).study.trials_dataframe()["params_lora.target_modules"]
    assert sorted(choices) == ['["q_proj", "v_proj"]', '["q_proj"]']


def test_a_study_of_the_first_version_resumes(make_search, two_candidates):
    """Its trials had one parameter, the candidate's number."""
    run = make_search("first", **two_candidates)
    (run / "tune").mkdir()
    study = optuna.create_study(study_name="first", storage=f"sqlite:///{run}/tune/study.db")
    points = [candidate.settings for candidate in open_search(make_search("later", **two_candidates)).candidates]
    for number in range(len(points)):
        study.enqueue_trial({"candidate": number})
    study.set_user_attr("own", True)
    study.set_user_attr("search", {"candidates": points, "eta": 3, "rungs": 2, "seed": 1})
    study.ask().suggest_int("candidate", 0, 1)  # killed before its first step
    assert finish_search(run) == finish_search(make_search("whole", **two_candidates))
