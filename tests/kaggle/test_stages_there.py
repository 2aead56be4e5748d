"""Some stages of a run on Kaggle: a training by preferences after the main ones, and what it reads there."""

import shutil

import pytest
from kaggle_calls import PAUSED, call, leaving
from kaggle_machine import Kaggle, Status
from preferences import COLD, WARM, ask

from helpers.__main__ import main
from helpers.kaggle.client import is_finished
from helpers.kaggle.job import make_job
from helpers.kaggle.quota import remaining_hours
from helpers.runs.files import write_json, write_jsonl
from helpers.runs.record import RunRecord
from helpers.runs.stages import EMBEDDED_CORPUS, MAIN_STAGES

MINE = "prefer.dataset=[kaggle:someone/mine]"
ASKED = ("--stages", "prefer,evaluate,report", "--set", MINE)


def finished(started, ended, *stages):
    return {stage: {"status": "finished", "started": started, "ended": ended} for stage in stages}


def train_by_preferences(request, folder, sources):
    """Leaves the main stages in the first session, the stage prefer in the second, and the later ones in the third."""
    number = int(request.slug.rpartition("-")[2])
    stages = finished("2026-11-20T00:00:00+00:00", "2026-11-20T05:00:00+00:00", *MAIN_STAGES)
    if number > 1:
        stages |= finished("2026-11-21T00:00:00+00:00", "2026-11-21T01:00:00+00:00", "prefer")
    if number > 2:
        stages |= finished("2026-11-22T00:00:00+00:00", "2026-11-22T02:00:00+00:00", "evaluate", "report")
    write_json(folder / "outputs/demo/run.json", {"stages": stages})
    return Status.COMPLETE, ""


@pytest.fixture
def chained(tmp_path, capsys):
    """Returns Kaggle after a chain of the main stages, and one of those that preferences need."""
    with Kaggle(tmp_path / "kaggle", train_by_preferences) as server:
        assert call("chain", tmp_path / "outputs") == 0
        assert call("chain", tmp_path / "outputs", *ASKED) == 0
    return server


def test_a_chain_of_some_stages_ends_when_all_are_new(chained):
    assert len(chained.requests) == 3, "an evaluation without the preferred model counts as one with it"


def test_a_session_is_told_its_stages_with_their_data_set(chained):
    first, second, _ = chained.requests
    assert "--stages" not in first.text
    assert '"--stages", "prefer,evaluate,report"' in second.text.replace("\\", "").replace("'", '"')
    assert (first.dataset_data_sources, second.dataset_data_sources) == ([], ["someone/mine"])


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ("thumbs", "`python -m helpers experiments` writes the thumbs to preferences.jsonl"),
        ("ratings", "pull the run, and run prefer where the ratings and a GPU are"),
        ("own.csv", "kaggle upload --file FILE"),
    ],
)
def test_a_source_of_this_machine_is_refused_first(source, instead, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.kaggle.client.connect", lambda: pytest.fail("Kaggle was asked"))
    assert call("push", tmp_path, "--stages", "prefer", "--set", f"prefer.dataset=[{source}]") == 2
    error = capsys.readouterr().err
    assert f"prefer.dataset names '{source}', which is on this machine" in error
    assert instead in error


def test_a_run_that_is_not_trained_there_is_refused(tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 3))) as server:
        assert call("push", tmp_path / "outputs", *ASKED) == 2
        assert call("push", tmp_path / "outputs") == 0
        server.threads[0].join()
        assert call("push", tmp_path / "outputs", *ASKED) == 2
    assert len(server.requests) == 1
    assert "has no finished training on Kaggle, which --stages prefer,evaluate,report needs" in capsys.readouterr().err


def test_an_unknown_stage_is_refused(tmp_path, capsys):
    assert call("push", tmp_path, "--stages", "preferred") == 2
    assert "--stages: no stage 'preferred'. Did you mean 'prefer'?" in capsys.readouterr().err


def test_hours_of_preferences_are_part_of_what_remains(tmp_path):
    call = ("kaggle-t4x2", "", str(tmp_path), [MINE], False, ["prefer", "evaluate", "report"])
    job, stages = make_job(*call), finished("2026-11-20", "2026-11-20", *MAIN_STAGES)
    record = RunRecord.model_validate({"stages": stages})
    assert remaining_hours(job, record)[0] == pytest.approx(job.prefer_hours)
    assert job.prefer_hours > 0.5 * job.plan.hours["evaluate"]
    record = RunRecord.model_validate({"stages": stages | finished("2026-11-21", "2026-11-21", "prefer")})
    assert remaining_hours(job, record)[0] == 0


def test_the_main_stages_are_finished_without_the_others():
    record = RunRecord.model_validate({"stages": finished("2026-11-20", "2026-11-20", *MAIN_STAGES)})
    assert is_finished(record)
    assert not is_finished(record, ["prefer", "evaluate"])


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.kaggle.upload.LOOK_SECONDS", 0.01)
    with Kaggle(tmp_path / "kaggle") as server:
        yield server


def test_a_file_becomes_a_private_data_set(server, tmp_path, capsys):
    write_jsonl(tmp_path / "preferences.jsonl", [ask("মন খারাপ।", WARM, COLD)])
    assert main(["kaggle", "upload", "--file", str(tmp_path / "preferences.jsonl")]) == 0
    data_set = server.datasets["someone/sahanubhuti-preferences"]
    assert data_set["private"] is True
    assert data_set["versions"] == [{"preferences.jsonl": (tmp_path / "preferences.jsonl").read_bytes()}]
    assert "--set prefer.dataset=[kaggle:someone/sahanubhuti-preferences]" in capsys.readouterr().out


def test_a_corpus_becomes_a_data_set_too(server, tmp_path, capsys):
    shutil.copy(EMBEDDED_CORPUS, tmp_path / "own.csv")
    assert main(["kaggle", "upload", "--file", str(tmp_path / "own.csv")]) == 0
    assert "--set prepare_data.dataset=kaggle:someone/sahanubhuti-own\n" in capsys.readouterr().out


TEXTS = {
    "notes.txt": "x",
    "none.jsonl": "",
    "পছন্দ.csv": "prompt,chosen,rejected\n",
    "other.csv": "question,chosen,rejected\na,b,c\n",
    "labels.csv": "prompt,completion,label\na,b,maybe\n",
    "broken.jsonl": "{",
}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.csv", "no such file in"),
        ("notes.txt", "no stage reads such a file. Expected one of .csv, .jsonl, .parquet"),
        ("none.jsonl", "is empty (0 bytes)"),
        ("other.csv", "As preferences: 'other.csv' has the columns ['question', 'chosen', 'rejected']. Expected"),
        ("other.csv", "Add or rename prompt. As a corpus: 'other.csv' has the columns"),
        ("labels.csv", "no label is known, the first is 'maybe'"),
        ("broken.jsonl", "no training can use it. 'broken.jsonl' cannot be read as .jsonl: line 1 is no JSON object"),
        ("পছন্দ.csv", "rename the file"),  # preferences.csv: nothing of it is left, and the suite's own name would be
    ],
)
def test_a_file_that_no_stage_reads_is_not_uploaded(name, problem, server, tmp_path, capsys):
    for own, text in TEXTS.items():
        (tmp_path / own).write_text(text)
    assert main(["kaggle", "upload", "--file", str(tmp_path / name)]) == 2
    assert problem in capsys.readouterr().err
    assert server.datasets == {}
