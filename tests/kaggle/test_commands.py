"""Driving a run on Kaggle: what is pushed, and what becomes of sessions that end, fail or are throttled."""

import ast
import base64
import contextlib
import io
import json
import re
import socket
import tarfile
import threading
import time

import pytest
import requests
from kaggle_calls import BROKEN, PAUSED, call, leaving
from kaggle_machine import Kaggle, Status

from helpers.__main__ import main
from helpers.kaggle import client
from helpers.kaggle.client import call_with_retries, is_finished, limit_waiting
from helpers.kaggle.job import make_job
from helpers.kaggle.notebook import LISTING, session_notebook
from helpers.platforms.environment import ROOT
from helpers.runs.files import write_json, write_text
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings
from helpers.runs.stages import MAIN_STAGES


@pytest.fixture(scope="module")
def troubled_chain(tmp_path_factory):
    """A chain of five sessions, one killed and one failed, while Kaggle throttles and loses answers.

    Returns the server, what was printed, and the folder that the run was pulled to.
    """
    script = leaving((PAUSED, 3), None, (PAUSED, 7), (BROKEN, 9), ({}, 9))
    folder, printed = tmp_path_factory.mktemp("chain"), io.StringIO()
    with Kaggle(folder / "kaggle", script) as server, contextlib.redirect_stdout(printed):
        server.faults = {
            "SaveKernel": [429, "accepted", 503, "garbled"],
            "GetKernelSessionStatus": [503, "garbled"],
            "ListKernelSessionOutput": ["garbled"],
            "GetKernel": ["garbled", 503],
            "GET": [503],
        }
        assert call("chain", folder / "outputs") == 0
        assert call("status", folder / "outputs") == 0
    return server, printed.getvalue(), folder / "outputs/demo"


def test_a_chain_pushes_no_session_twice(troubled_chain):
    server, _, _ = troubled_chain
    assert server.violations == []
    assert all(waiting == [] for waiting in server.faults.values()), "not every fault happened"
    names = [f"someone/sahanubhuti-demo-{number}" for number in range(1, 6)]
    assert [request.slug for request in server.requests] == names
    sources = [request.kernel_data_sources for request in server.requests]
    assert sources == [[], [names[0]], [names[0]], [names[2]], [names[3]]], "the last output, not the last session"


def test_a_chain_says_why_a_session_failed(troubled_chain):
    _, printed, _ = troubled_chain
    assert "session 2 failed: stopped: over the time" in printed
    assert "session 4 failed: evaluate: it broke" in printed
    assert "session 5  someone/sahanubhuti-demo-5  COMPLETE" in printed


def test_a_chain_ends_with_the_run_here(troubled_chain):
    _, _, run = troubled_chain
    assert (run / "report/index.html").read_text(encoding="utf-8") == "উত্তর 9"
    assert not (run / "train/checkpoints").exists(), "checkpoints are pulled only with --checkpoints"


def test_promised_hours_are_those_of_every_session(tmp_path):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 1), ({}, 2))) as server:
        assert call("chain", tmp_path / "outputs", "--hours", "1.5") == 0
    assert ["shared.session.total_hours=1.5" in request.text for request in server.requests] == [True, True]


def test_a_repeated_call_says_why_it_waits(capsys):
    outcomes = iter([requests.exceptions.ConnectionError("lost"), "answer"])

    def ask():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert call_with_retries(ask) == "answer"
    assert capsys.readouterr().err == "Kaggle is asked again in 0.01 seconds: ConnectionError: lost\n"


def test_a_call_that_can_never_succeed_is_not_repeated():
    calls = []

    def ask():
        calls.append(1)
        raise ValueError("Cannot access kernel")

    with pytest.raises(ValueError, match="Cannot access"):
        call_with_retries(ask)
    assert len(calls) == 1


def test_a_stopped_chain_resumes_with_the_running_session(tmp_path, monkeypatch, capsys):
    release, plain, sleep = threading.Event(), leaving((PAUSED, 1), ({}, 2)), time.sleep

    def slow(request, *places):
        assert release.wait(60)
        return plain(request, *places)

    def stop(seconds):
        raise KeyboardInterrupt

    with Kaggle(tmp_path / "kaggle", slow) as server:
        monkeypatch.setattr(time, "sleep", stop)
        assert call("chain", tmp_path / "outputs") == 130
        monkeypatch.setattr(time, "sleep", sleep)
        assert call("push", tmp_path / "outputs") == 2
        assert "someone/sahanubhuti-demo-1 is RUNNING: a run has one session at a time" in capsys.readouterr().err
        threading.Timer(0.3, release.set).start()
        assert call("chain", tmp_path / "outputs") == 0
    assert len(server.requests) == 2
    assert server.violations == []


@pytest.mark.parametrize("last", [(BROKEN, 4), pytest.param((PAUSED, 4), marks=pytest.mark.slow), None])
def test_three_failed_sessions_in_a_row_end_the_chain(last, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 4), *[last] * 9)) as server:
        assert call("chain", tmp_path / "outputs") == 1
    assert len(server.requests) == 4
    assert "error: 3 sessions in a row failed" in capsys.readouterr().err


def test_other_settings_than_the_runs_are_not_pushed(tmp_path, capsys):
    def session(request, folder, sources):
        settings = resolve_settings("demo", "demo", "outputs", [], False)
        stages = {name: {"status": "paused"} for name in MAIN_STAGES}
        write_json(folder / "outputs/demo/run.json", {"stages": stages, "settings": settings})
        return Status.COMPLETE, ""

    with Kaggle(tmp_path / "kaggle", session) as server:
        assert call("push", tmp_path / "outputs") == 0
        server.threads[0].join()
        assert call("push", tmp_path / "outputs", "--set", "train.lora.r=4") == 2
        assert "began with other settings: train.lora was" in capsys.readouterr().err
        assert call("push", tmp_path / "outputs", "--set", "shared.session.hours=5") == 0
    assert len(server.requests) == 2


def test_a_session_pauses_before_the_quota_ends_it(tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving(({}, 1))) as server:
        server.used_hours = 29.8
        assert call("push", tmp_path, preset="kaggle-t4x2") == 75
        printed = capsys.readouterr().out
        assert "0.2 GPU hours are left this week, until 2026-11-28 00:00" in printed
        assert re.search(r"[89]\.\d of them need the quota of a later week, from 2026-11-28 00:00", printed)
        server.used_hours = 23.0
        assert call("push", tmp_path, preset="kaggle-t4x2") == 0
    assert len(server.requests) == 1
    assert "shared.session.hours=7.00" in server.requests[0].text


def test_the_flagships_session_asks_for_what_it_needs(tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving(({}, 1))) as server:
        server.bad_datasets = ["raseluddin/bengali-empathetic-conversations-corpus"]
        assert call("push", tmp_path, preset="kaggle-t4x2") == 2
        assert "no dataset raseluddin/bengali-empathetic" in capsys.readouterr().err
    request = server.requests[0]
    assert (request.machine_shape, request.enable_gpu, request.enable_internet) == ("NvidiaTeslaT4", True, True)
    assert request.is_private
    assert request.dataset_data_sources == server.bad_datasets
    assert request.new_title == "sahanubhuti kaggle t4x2 1"
    assert request.slug == "someone/sahanubhuti-kaggle-t4x2-1"


FLAGSHIP = "shared.base_model=unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--set", "train.lora.rank=4"], "rank"),
        (["--set", "prepare_data.dataset=mine.csv"], "make it a Kaggle data set"),
        (["--run-name", "x" * 60], "50 characters"),
        (["--run-name", "সহানুভূতি"], "expected Latin letters (a to z), digits"),
        (["--set", "train.max_tokens=9000", "train.load_in_4bit=true", FLAGSHIP], "GiB"),
    ],
)
def test_bad_settings_are_refused_without_asking_kaggle(more, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.kaggle.client.connect", lambda: pytest.fail("Kaggle was asked"))
    assert call("push", tmp_path, *more) == 2
    assert expected in capsys.readouterr().err


def test_missing_credentials_are_explained(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    with Kaggle(tmp_path / "kaggle"):
        assert call("status", tmp_path) == 2
    assert "no Kaggle credentials: make a new API token" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["status", "push", "pull", "chain"])
@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (401, 2, "error: Kaggle does not accept the credentials (401): make a new API token"),
        (400, 2, "error: Kaggle refuses what was asked (HTTPError: 400"),
        (429, 75, "error: Kaggle throttles this account (429). Run the same command again later"),
        (503, 75, "error: Kaggle does not answer properly. Run the same command again later"),
        ("garbled", 75, "error: Kaggle does not answer properly. Run the same command again later"),
    ],
)
def test_what_kaggle_answers_is_one_sentence(action, answer, code, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.kaggle.client.MOST_WAITED", 0.1)
    monkeypatch.setattr("helpers.kaggle.commands.MOST_SILENT", 0.0)
    with Kaggle(tmp_path / "kaggle") as server:
        server.faults = {"GetKernelSessionStatus": [answer] * 100}
        assert call(action, tmp_path / "outputs") == code
    printed = capsys.readouterr()
    assert says in printed.out + printed.err
    assert not server.requests, "something was pushed"


def test_a_machine_offline_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.kaggle.client.MOST_WAITED", 0.1)
    with Kaggle(tmp_path / "kaggle") as server:
        server.http.server_close()
        assert call("status", tmp_path / "outputs") == 75
        server.http.socket = server.http.socket.__class__()  # what closes it again
    assert "error: Kaggle cannot be reached: check the connection" in capsys.readouterr().out


@pytest.mark.parametrize(("owner", "code"), [("someone", 0), ("another", 2)])
def test_a_denied_notebook_of_ones_own_is_none_yet(owner, code, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle") as server:
        server.faults = {"GetKernelSessionStatus": [403]}
        assert call("status", tmp_path / "outputs", "--owner", owner) == code
    printed = capsys.readouterr()
    says = "has no session yet" if not code else "Kaggle denies this account what was asked (403): check --owner"
    assert says in printed.out + printed.err


def test_a_session_that_kaggle_does_not_know_is_none_yet(tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle"):
        assert call("status", tmp_path / "outputs", "--owner", "another") == 0
    assert "run demo has no session yet" in capsys.readouterr().out


def test_a_call_without_an_answer_is_not_awaited_for_ever(monkeypatch):
    monkeypatch.setattr("helpers.kaggle.client.ANSWER_SECONDS", 0.2)
    limit_waiting()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(requests.exceptions.Timeout):
            requests.get(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 2, "the limit of a call was another one"


def test_calls_are_repeated_for_less_than_a_minute():
    assert client.MOST_WAITED + client.ANSWER_SECONDS < 60


@pytest.fixture
def pulled(tmp_path):
    """A run of two sessions, the first one pulled; returns the server and the outputs folder here."""
    outputs = tmp_path / "outputs"
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 1), ({}, 2))) as server:
        assert call("push", outputs) == 0
        server.threads[0].join()
        assert call("pull", outputs) == 0
        assert call("push", outputs) == 0
        server.threads[1].join()
        yield server, outputs


def test_a_damaged_download_leaves_the_earlier_pull(pulled, capsys):
    server, outputs = pulled
    page = server.kernels["someone/sahanubhuti-demo-2"]["folder"] / "outputs/demo/report/index.html"
    page.write_bytes(page.read_bytes()[:-1])
    assert call("pull", outputs) == 1
    assert "report/index.html has" in capsys.readouterr().err
    assert (outputs / "demo/report/index.html").read_text(encoding="utf-8") == "উত্তর 1"


def test_a_pull_brings_checkpoints_when_asked(pulled):
    _, outputs = pulled
    assert call("pull", outputs, "--checkpoints") == 0
    assert (outputs / "demo/train/checkpoints/checkpoint-2/adapter").is_file()


def test_a_pull_leaves_no_other_files_behind(pulled):
    _, outputs = pulled
    assert call("pull", outputs) == 0
    assert {path.name for path in outputs.iterdir()} == {"demo"}


def test_ratings_that_came_back_outlive_a_pull(pulled):
    _, outputs = pulled
    write_text(outputs / "demo/evaluate/ratings/rater.csv", "id,choice\n")
    assert call("pull", outputs) == 0
    assert (outputs / "demo/report/index.html").read_text(encoding="utf-8") == "উত্তর 2"
    assert (outputs / "demo/evaluate/ratings/rater.csv").is_file()


def test_a_run_made_here_is_not_replaced_by_a_pull(pulled, capsys):
    _, outputs = pulled
    (outputs / "demo" / LISTING).unlink()
    assert call("pull", outputs) == 2
    assert "was made here, not pulled" in capsys.readouterr().err


def test_several_presets_are_refused(tmp_path, capsys):
    assert main(["kaggle", "push", "--preset", "demo", "colab-t4", "--outputs", str(tmp_path)]) == 2
    assert "one preset at a time" in capsys.readouterr().err


@pytest.fixture
def notebook():
    return session_notebook(make_job("demo", "", "outputs", [], False), 1, 0.0)


def test_a_sessions_notebook_holds_the_whole_suite(notebook):
    tree = ast.parse("".join(json.loads(notebook)["cells"][1]["source"]))
    packed = base64.b85decode(ast.literal_eval(tree.body[0].value).replace("\n", ""))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = tar.getnames()
        for name in names:
            assert tar.extractfile(name).read() == (ROOT / name).read_bytes(), name
    expected = {"src/helpers/__main__.py", "notebooks/02_train.ipynb", "notebooks/tiny.yaml", "requirements.txt"}
    assert expected <= set(names)
    assert not [name for name in names if name.startswith("notebooks/") and name.endswith(".py")], "the .ipynb is run"


def test_a_sessions_notebook_is_the_same_every_time(notebook):
    assert notebook == session_notebook(make_job("demo", "", "outputs", [], False), 1, 0.0)


def test_a_sessions_notebook_fits_kaggles_limit(notebook):
    assert len(notebook) < 950_000, "Kaggle takes 1 MB"


def test_a_sessions_notebook_names_nothing_of_this_machine(notebook):
    assert str(ROOT) not in notebook
    assert "--preset" in notebook


@pytest.mark.slow
@pytest.mark.parametrize(  # killed after 90 s; paused before
    ("hours", "old_mounts", "epochs"), [(0.0, False, 60), (0.022, True, 20)]
)
def test_the_demo_finishes_over_four_kaggle_sessions(hours, old_mounts, epochs, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", limit=90.0, old_mounts=old_mounts) as server:
        sets = [f"train.num_train_epochs={epochs}", "train.sft.save_strategy=steps", "train.sft.save_steps=20"]
        assert call("chain", tmp_path / "outputs", "--set", *sets, f"shared.session.hours={hours}") == 0
    run = Run(tmp_path / "outputs/demo")
    assert server.violations == []
    assert len(server.requests) >= 4
    assert is_finished(run.record())
    trained = run.sessions("train")
    assert len(trained) >= 2
    assert trained[-1].reason == "finished"
    assert {session.reason for session in trained[:-1]} == (
        {"the session's time is nearly up"} if hours else {"killed"}
    )
    print(capsys.readouterr().out)
