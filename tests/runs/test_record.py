"""A run's record: what run.json holds, who writes it, and what of an earlier version is read."""

import pytest

from helpers.runs.differences import changed_inputs, input_hashes
from helpers.runs.files import file_sha256, read_json, write_folder, write_json, write_text
from helpers.runs.record import Run, RunRecord, _begin
from helpers.runs.stages import EMBEDDED_CORPUS


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "outputs" / "mine")


def test_a_run_without_a_record_reads_as_empty(run):
    assert not run.exists()
    assert run.record() == RunRecord(run_name="mine")
    assert run.stage("train").status == ""


def test_facts_of_a_stage_are_added_to_those_before(run):
    run.note_stage("train", status="running", parameters={"seed": 1})
    run.note_stage("train", status="finished", experiment=3)
    train = read_json(run / "run.json")["stages"]["train"]
    assert train == {"status": "finished", "parameters": {"seed": 1}, "experiment": 3}


def test_keys_of_a_later_version_are_kept(run):
    write_json(run / "run.json", {"stages": {"train": {"status": "paused", "later": [1]}}, "verdict": {"ship": True}})
    run.note_stage("train", status="running")
    record = read_json(run / "run.json")
    assert record["verdict"] == {"ship": True}
    assert record["stages"]["train"] == {"status": "running", "later": [1]}


def test_parameters_renamed_since_are_read_by_their_names(run):
    parameters = {"judge": {"model": ""}, "seed": 1}
    write_json(
        run / "run.json", {"stages": {"evaluate": {"parameters": parameters}}, "settings": {"evaluate": parameters}}
    )
    assert run.stage("evaluate").parameters == {"llm_judge": {"model": ""}, "seed": 1}
    assert run.record().settings["evaluate"] == {"llm_judge": {"model": ""}, "seed": 1}


def test_what_an_earlier_version_had_half_done_is_kept(run):
    """A setting that it did not have is at its default; another one that differs makes the work useless."""
    kept, before = run / "data/work/base_replies-0.jsonl", {"dataset": "embedded", "seed": 1}
    inputs = input_hashes(run.folder, "prepare_data", before)
    for seed, is_kept in ((1, True), (2, False)):
        write_text(kept, "{}")
        run.note_stage("prepare_data", status="paused", parameters=before, inputs=inputs)
        _begin(run, "prepare_data", {**before, "seed": seed, "encoder": "", "benchmarks": [], "max_probes": 5})
        assert kept.exists() is is_kept


def test_changed_inputs_are_named():
    before = {"data/train.jsonl": "1", "data/val.jsonl": "2", "dataset": "3"}
    assert changed_inputs(before, before) == []
    assert changed_inputs(before, {**before, "dataset": "4", "data/val.jsonl": "5"}) == [
        "data/val.jsonl",
        "the data set",
    ]
    assert changed_inputs({}, {"dataset": ""}) == ["the data set"]


def test_a_data_set_without_a_recorded_hash_has_not_changed():
    assert changed_inputs({"dataset": ""}, {"dataset": "1"}) == []


def test_the_embedded_corpus_is_an_input_by_its_hash(run):
    hashes = input_hashes(run.folder, "prepare_data", {"dataset": "embedded"})
    assert hashes == {"dataset": file_sha256(EMBEDDED_CORPUS)}
    assert len(hashes["dataset"]) == 64


def test_an_open_session_counts_as_killed_by_the_next(run):
    run.open_session("train", 0)
    run.open_session("train", 5)
    run.close_session(9, "finished")
    first, second = run.sessions("train")
    assert (first.ended, first.reason) == ("unknown", "killed")
    assert (second.from_step, second.to_step, second.reason) == (5, 9, "finished")
    assert read_json(run / "run.json")["sessions"][1]["from"] == 5


def test_attempts_that_left_nothing_are_not_counted(run):
    for step in (0, 0, 5, 0):  # of an earlier training, and one that failed
        run.open_session("prefer", step)
    assert [session.from_step for session in run.training_sessions("prefer")] == [0]
    run.open_session("prefer", 7)
    run.close_session(9, "finished")
    assert [session.from_step for session in run.training_sessions("prefer")] == [0, 7]
    assert run.training_sessions("train") == []


def test_closing_without_an_open_session_writes_nothing(run):
    run.close_session(1, "finished")
    assert not run.exists()


def test_a_run_keeps_its_id(run):
    assert run.id() == run.id() == read_json(run / "run.json")["id"]


def test_a_folder_is_replaced_when_complete(tmp_path):
    write_text(tmp_path / "adapter/old", "1")
    with write_folder(tmp_path / "adapter") as part:
        write_text(part / "new", "2")
        assert (tmp_path / "adapter/old").is_file(), "the old content stays until the new one is complete"
    assert [path.name for path in tmp_path.rglob("*")] == ["adapter", "new"]


def fail_to_write(folder):
    """Fails, as on a full disk, while a folder is written."""
    with write_folder(folder) as part:
        write_text(part / "new", "2")
        raise OSError("full")


def test_a_folder_stays_when_its_writer_fails(tmp_path):
    write_text(tmp_path / "adapter/old", "1")
    with pytest.raises(OSError, match="full"):
        fail_to_write(tmp_path / "adapter")
    assert [path.name for path in tmp_path.rglob("*")] == ["adapter", "old"]


def test_a_folder_moved_aside_by_a_kill_comes_back(tmp_path):
    write_text(tmp_path / ".adapter.old/old", "1")  # killed between the two renames
    with pytest.raises(OSError, match="full"):
        fail_to_write(tmp_path / "adapter")
    assert (tmp_path / "adapter/old").read_text() == "1"
