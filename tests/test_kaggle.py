"""Driving a run on Kaggle: what is pushed, and what becomes of sessions that end, fail or are throttled."""

import ast
import base64
import io
import json
import tarfile

import pytest
from kaggle_machine import Kaggle, Status

from helpers import checkpoints, env, kaggle, presets

STAGES = dict.fromkeys(env.MAIN, "finished")


@pytest.fixture(autouse=True)
def account(monkeypatch, tmp_path):
    """An account in the environment, none in a file; short waits."""
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "not a key")
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(kaggle, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(kaggle, "LONGEST_WAIT", 0.05)


def leaving(*scripts):
    """Returns a script for the machine: session N leaves what the N-th of `scripts` says, (stages, step) or None."""

    def session(request, folder, sources):
        left = scripts[int(request.slug.rpartition("-")[2]) - 1]
        if left is None:
            return Status.ERROR, "stopped: over the time of a session"
        stages, step = left
        run = folder / "outputs" / request.slug.removeprefix("someone/sahanubhuti-").rpartition("-")[0]
        if sources:
            begun = env.read_json(sources[0] / "outputs" / run.name / "run.json")["sessions"][-1]["to"]
            assert begun <= step
        facts = {name: {"status": status, "error": "it broke"} for name, status in {**STAGES, **stages}.items()}
        env.write_json(run / "run.json", {"stages": facts, "sessions": [{"from": 0, "to": step}]})
        env.write_text(run / "report/index.html", f"উত্তর {step}")
        env.write_text(run / f"train/checkpoints/checkpoint-{step}/adapter", "weights")
        env.write_json(run / kaggle.LISTING, checkpoints.listing(run))
        return Status.COMPLETE, ""

    return session


def call(command, outputs, *more, preset="demo"):
    return kaggle.main([command, "--preset", preset, "--outputs", str(outputs), "--every", "0.05", *more])


PAUSED, BROKEN = {"train": "paused", "report": ""}, {"evaluate": "failed"}


def test_a_chain_survives_throttling_lost_answers_a_killed_and_a_failed_session(tmp_path, capsys):
    script = leaving((PAUSED, 3), None, (PAUSED, 7), (BROKEN, 9), ({}, 9))
    with Kaggle(tmp_path / "kaggle", script) as server:
        server.faults = {
            "SaveKernel": [429, "accepted", 503, "garbled"],
            "GetKernelSessionStatus": [503, "garbled"],
            "ListKernelSessionOutput": ["garbled"],
            "GET": [503],
        }
        assert call("chain", tmp_path / "outputs") == 0
        assert call("status", tmp_path / "outputs") == 0
    said = capsys.readouterr().out
    assert server.violations == [] and all(waiting == [] for waiting in server.faults.values())
    names = [f"someone/sahanubhuti-demo-{number}" for number in range(1, 6)]
    assert [request.slug for request in server.requests] == names, "no session is pushed twice"
    sources = [request.kernel_data_sources for request in server.requests]
    assert sources == [[], [names[0]], [names[0]], [names[2]], [names[3]]], "the last output, not the last session"
    assert "session 2 failed: stopped: over the time" in said and "session 4 failed: evaluate: it broke" in said
    assert "session 5  someone/sahanubhuti-demo-5  COMPLETE" in said
    run = tmp_path / "outputs/demo"
    assert (run / "report/index.html").read_text(encoding="utf-8") == "উত্তর 9"
    assert not (run / "train/checkpoints").exists()


def test_a_chain_that_is_stopped_goes_on_with_the_session_at_work(tmp_path, monkeypatch, capsys):
    import threading
    import time

    go, plain, sleep = threading.Event(), leaving((PAUSED, 1), ({}, 2)), time.sleep

    def slow(request, *places):
        assert go.wait(60)
        return plain(request, *places)

    def stop(seconds):
        raise KeyboardInterrupt

    with Kaggle(tmp_path / "kaggle", slow) as server:
        monkeypatch.setattr(kaggle.time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            call("chain", tmp_path / "outputs")
        monkeypatch.setattr(kaggle.time, "sleep", sleep)
        assert call("push", tmp_path / "outputs") == 2
        assert "someone/sahanubhuti-demo-1 is RUNNING: a run has one session at a time" in capsys.readouterr().err
        threading.Timer(0.3, go.set).start()
        assert call("chain", tmp_path / "outputs") == 0
    assert len(server.requests) == 2 and server.violations == []


@pytest.mark.parametrize("last", [(BROKEN, 4), (PAUSED, 4), None])
def test_a_run_that_gets_no_further_stops_the_chain_after_three_sessions(last, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 4), *[last] * 9)) as server:
        assert call("chain", tmp_path / "outputs") == 1
    assert len(server.requests) == 4 and "error: 3 sessions in a row failed" in capsys.readouterr().err


def test_other_settings_than_the_run_s_are_refused_before_anything_is_pushed(tmp_path, capsys):
    def session(request, folder, sources):
        settings = presets.resolve("demo", "demo", "outputs", [], False)
        stages = {name: {"status": "paused"} for name in env.MAIN}
        env.write_json(folder / "outputs/demo/run.json", {"stages": stages, "settings": settings})
        return Status.COMPLETE, ""

    with Kaggle(tmp_path / "kaggle", session) as server:
        assert call("push", tmp_path / "outputs") == 0
        server.threads[0].join()
        assert call("push", tmp_path / "outputs", "--set", "train.lora.r=4") == 2
        assert "began with other settings: train.lora was" in capsys.readouterr().err
        assert call("push", tmp_path / "outputs", "--set", "shared.session.hours=5") == 0
    assert len(server.requests) == 2


def test_the_flagship_s_session_asks_for_t4s_internet_and_its_data_and_keeps_to_the_quota(tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving(({}, 1))) as server:
        server.used_hours = 29.8
        assert call("push", tmp_path, preset="kaggle-t4x2") == 75
        assert "0.2 GPU hours are left this week, until 2026-11-28 00:00" in capsys.readouterr().out
        server.bad_datasets = ["raseluddin/bengali-empathetic-conversations-corpus"]
        server.used_hours = 23.0
        assert call("push", tmp_path, preset="kaggle-t4x2") == 2
        assert "no dataset raseluddin/bengali-empathetic" in capsys.readouterr().err
    request = server.requests[0]
    assert (request.machine_shape, request.enable_gpu, request.enable_internet) == ("NvidiaTeslaT4", True, True)
    assert request.is_private and request.dataset_data_sources == server.bad_datasets
    assert request.new_title == "sahanubhuti kaggle t4x2 1" and request.slug == "someone/sahanubhuti-kaggle-t4x2-1"
    assert "shared.session.hours=7.00" in request.text, "it pauses before the quota ends it"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--set", "train.lora.rank=4"], "rank"),
        (["--set", "prepare_data.dataset=mine.csv"], "make it a Kaggle data set"),
        (["--run-name", "x" * 60], "50 characters"),
        (["--run-name", "সহানুভূতি"], "expected letters, digits"),
        (["--set", "train.max_tokens=9000", "shared.base_model=unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"], "GiB"),
    ],
)
def test_what_cannot_work_is_refused_before_kaggle_is_asked(more, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kaggle, "connect", lambda: pytest.fail("Kaggle was asked"))
    assert call("push", tmp_path, *more) == 2
    assert expected in capsys.readouterr().err


def test_without_credentials_it_says_where_they_come_from(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    with Kaggle(tmp_path / "kaggle"):
        assert call("status", tmp_path) == 2
    assert "no Kaggle credentials: make an API token" in capsys.readouterr().err


def test_a_file_that_arrives_damaged_is_not_taken_and_what_was_pulled_stays(tmp_path, capsys):
    outputs = tmp_path / "outputs"
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 1), ({}, 2))) as server:
        assert call("push", outputs) == 0
        server.threads[0].join()
        assert call("pull", outputs) == 0 and call("push", outputs) == 0
        server.threads[1].join()
        page = server.kernels["someone/sahanubhuti-demo-2"]["folder"] / "outputs/demo/report/index.html"
        whole = page.read_bytes()
        page.write_bytes(whole[:-1])
        assert call("pull", outputs) == 1
        assert "report/index.html has" in capsys.readouterr().err
        assert (outputs / "demo/report/index.html").read_text(encoding="utf-8") == "উত্তর 1"
        page.write_bytes(whole)
        assert call("pull", outputs, "--checkpoints") == 0
        assert (outputs / "demo/train/checkpoints/checkpoint-2/adapter").is_file()
        (outputs / "demo" / kaggle.LISTING).unlink()
        assert call("pull", outputs) == 2
    assert "was made here, not pulled" in capsys.readouterr().err


def test_the_notebook_holds_the_whole_suite_and_nothing_of_this_machine(tmp_path):
    job = kaggle.make_job("demo", "", "outputs", [], False)
    text = kaggle.notebook(job, 1, 0.0)
    assert text == kaggle.notebook(job, 1, 0.0) and len(text) < 900_000, "Kaggle takes 1 MB"
    cells = json.loads(text)["cells"]
    tree = ast.parse("".join(cells[1]["source"]))
    packed = base64.b64decode(ast.literal_eval(tree.body[0].value))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = tar.getnames()
        for name in names:
            assert tar.extractfile(name).read() == (env.ROOT / name).read_bytes()
    assert {"src/helpers/run.py", "notebooks/02_train.ipynb", "notebooks/tiny.yaml", "requirements.txt"} <= set(names)
    assert str(env.ROOT) not in text and "--preset" in text


@pytest.mark.slow
@pytest.mark.parametrize(  # killed after 90 s; paused before
    ("hours", "old_mounts", "epochs"), [(0.0, False, 60), (0.022, True, 20)]
)
def test_the_demo_finishes_over_four_sessions_of_a_kaggle_shaped_machine(hours, old_mounts, epochs, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", limit=90.0, old_mounts=old_mounts) as server:
        sets = [f"train.num_train_epochs={epochs}", "train.sft.save_strategy=steps", "train.sft.save_steps=20"]
        assert call("chain", tmp_path / "outputs", "--set", *sets, f"shared.session.hours={hours}") == 0
    run = tmp_path / "outputs/demo"
    assert server.violations == [] and len(server.requests) >= 4 and kaggle.finished(env.read_json(run / "run.json"))
    trained = env.sessions(run, "train")
    assert len(trained) >= 2 and trained[-1]["reason"] == "finished"
    assert {session["reason"] for session in trained[:-1]} == (
        {"the session's time is nearly up"} if hours else {"killed"}
    )
    print(capsys.readouterr().out)
