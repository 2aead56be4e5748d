"""A damaged or missing run.json costs nothing: its copy, or what the stages left, takes its place."""

import json

import pytest
import safetensors.numpy
from numpy import zeros

from helpers.platforms.errors import Refused
from helpers.runner import reason_to_run
from helpers.runs.checkpoints import newest_checkpoint, seal_checkpoint
from helpers.runs.files import file_sha256, read_journal, read_json, read_jsonl, write_json, write_text
from helpers.runs.record import Run, start_stage
from helpers.runs.repair import left_by_a_run
from helpers.runs.settings import default_settings
from helpers.runs.stages import EMBEDDED_CORPUS

DAMAGES = {
    "empty": b"",
    "cut": b'{"stages": {"train": ',
    "zeros": bytes(500),
    "a list": b"[]",
    "another shape": b'{"stages": [1]}',
    "a session without a stage": b'{"sessions": [{}]}',
    "infinity": b'{"stages": {"train": {"parameters": {"r": 1e999}}}}',
    "half a character": b'{"run_name": "\\ud800"}',
    "UTF-16": '{"stages": {}}'.encode("utf-16"),
    "nested without end": b"[" * 100_000,
    "no stages": b"{}",
}
SETTINGS = {stage: {**default_settings(stage), "run_name": "mine"} for stage in ("prepare_data", "train")}


@pytest.fixture
def run(tmp_path):
    """Returns a run that has prepared its data and paused in training, after step 6."""
    run = Run(tmp_path / "mine")
    for name in ("train", "val", "test"):
        write_text(run / f"data/{name}.jsonl", "{}\n")
    write_json(run / "data/metrics.json", {"train": 1})
    for stage, notebook in (("prepare_data", "01_prepare_data"), ("train", "02_train")):
        write_json(run / f"notebooks/{notebook}.ipynb", {"metadata": {"papermill": {"parameters": SETTINGS[stage]}}})
    hashes = {"dataset": file_sha256(EMBEDDED_CORPUS)}
    run.note_stage("prepare_data", status="finished", parameters=SETTINGS["prepare_data"], inputs=hashes)
    run.note_stage("train", status="paused", parameters=SETTINGS["train"])
    run.open_session("train", 0)
    run.close_session(6, "stop was asked for")
    write_text(run / "train/checkpoints/checkpoint-6/adapter_model.safetensors", "weights")
    seal_checkpoint(run / "train/checkpoints/checkpoint-6", 6, fingerprint(run.id()))
    return run


def fingerprint(run_id):
    return {"run": run_id, "settings": {"processes": 1}, "data": {}, "versions": {}}


def resumed_step(run):
    """Returns the step at which the next session would start."""
    checkpoint, _ = newest_checkpoint(run / "train/checkpoints", fingerprint(run.id()))
    return int(checkpoint.name.partition("-")[2]) if checkpoint else 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_read_from_its_copy(run, damage, capsys):
    before = read_json(run / "run.json")
    (run / "run.json").write_bytes(DAMAGES[damage])
    assert resumed_step(run) == 6
    printed = capsys.readouterr().err
    assert (printed.count("\n"), "its copy, run.copy.json" in printed) == (1, True)
    run.note_stage("train", status="paused")
    assert read_json(run / "run.json") == read_json(run / "run.copy.json") == before


def test_a_removed_record_is_read_from_its_copy(run):
    before = run.record()
    (run / "run.json").unlink()
    assert run.exists()
    assert run.record() == before


def test_a_damaged_copy_is_written_again(run):
    (run / "run.copy.json").write_text("[")
    run.note_stage("train", status="paused")
    assert read_json(run / "run.json") == read_json(run / "run.copy.json")


def remove_both(run):
    for name in ("run.json", "run.copy.json"):
        (run / name).unlink()


@pytest.mark.parametrize("damage", [*DAMAGES, "both are removed"])
def test_training_never_starts_anew_for_want_of_a_record(run, damage, capsys):
    for name in ("run.json", "run.copy.json"):
        (run / name).write_bytes(DAMAGES.get(damage, b""))
    if damage == "both are removed":
        remove_both(run)
    assert resumed_step(run) == 6


def test_a_record_is_rebuilt_from_what_the_stages_left(run):
    before = run.record()
    remove_both(run)
    rebuilt = run.record()
    assert rebuilt.id == before.id
    assert {stage: facts.status for stage, facts in rebuilt.stages.items()} == {
        "prepare_data": "finished",
        "train": "paused",
    }
    assert rebuilt.stages["train"].parameters == SETTINGS["train"]
    assert rebuilt.settings == {stage: SETTINGS[stage] for stage in ("prepare_data", "train")}


def test_a_finished_stage_of_a_rebuilt_record_is_skipped(run):
    remove_both(run)
    assert reason_to_run(run, "prepare_data", SETTINGS["prepare_data"], run.stage("prepare_data")) == ""


def test_a_rebuilt_record_keeps_its_settings(run):
    remove_both(run)
    with pytest.raises(Refused, match="train.learning_rate was 0.0002, now 1.0"):
        reason_to_run(run, "train", {**SETTINGS["train"], "learning_rate": 1.0}, run.stage("train"))


@pytest.mark.parametrize("notebook", ["", "[]", '{"metadata": []}', '{"metadata": {"papermill": {"parameters": 1}}}'])
def test_a_damaged_notebook_costs_no_finished_stage(run, notebook):
    write_text(run / "notebooks/01_prepare_data.ipynb", notebook)
    remove_both(run)
    assert reason_to_run(run, "prepare_data", SETTINGS["prepare_data"], run.stage("prepare_data")) == ""


def test_a_folder_that_no_run_left_is_none(tmp_path):
    write_text(tmp_path / "data/train.jsonl", "{}\n")
    assert not left_by_a_run(tmp_path)
    assert not Run(tmp_path).exists()


@pytest.fixture
def trained(run):
    """Returns a run whose training has finished, with an adapter."""
    (run / "train/adapter").mkdir()
    safetensors.numpy.save_file({"lora_A": zeros(9)}, run / "train/adapter/adapter_model.safetensors")
    for name in ("config.json", "adapter/adapter_config.json", "metrics.json"):
        write_json(run / "train" / name, {"r": 4})
    inputs = {name: file_sha256(run / name) for name in ("data/train.jsonl", "data/val.jsonl")}
    run.note_stage("train", status="finished", parameters=SETTINGS["train"], inputs=inputs)
    assert reason_to_run(run, "train", SETTINGS["train"], run.stage("train")) == ""
    return run


FINISHED_FILES = ["metrics.json", "config.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]


@pytest.mark.parametrize("name", FINISHED_FILES)
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", bytes(64), b"\xff" * 64], ids=range(5))
def test_a_damaged_result_makes_its_stage_run_again(trained, name, content):
    (trained / "train" / name).write_bytes(content)
    reason = reason_to_run(trained, "train", SETTINGS["train"], trained.stage("train"))
    assert reason.startswith(f"train/{name} ")


def test_half_an_adapter_is_noticed(trained):
    adapter = trained / "train/adapter/adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-9])
    assert "adapter_model.safetensors is damaged" in trained.damage("train")


def test_a_stage_refuses_a_damaged_adapter(trained):
    (trained / "train/adapter/adapter_model.safetensors").write_bytes(b"half")
    parameters = {**default_settings("infer"), "outputs": str(trained.outputs), "run_name": "mine"}
    with pytest.raises(ValueError, match=r"adapter_model.safetensors is damaged .*: run 02_train again"):
        start_stage("infer", {"__annotations__": dict.fromkeys(parameters), **parameters})
    assert "infer" not in trained.record().stages


def test_a_stage_that_runs_again_keeps_its_checkpoints(trained):
    (trained / "train/metrics.json").write_bytes(b"")
    parameters = {**SETTINGS["train"], "outputs": str(trained.outputs)}
    start_stage("train", {"__annotations__": dict.fromkeys(parameters), **parameters})
    trained.unlock()
    assert resumed_step(trained) == 6


def test_a_damaged_line_of_a_journal_is_computed_again(tmp_path):
    lines = [b'{"items": [0]}', b'{"items": \xff', b"[]", b'{"items": [1]}', b'{"items": [2']
    (tmp_path / "work.jsonl").write_bytes(b"\n".join(lines))
    assert read_journal(tmp_path / "work.jsonl") == [{"items": [0]}, {"items": [1]}]


def test_a_damaged_line_of_a_table_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"id": 1}\n{"id"\n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2, is not a JSON object"):
        read_jsonl(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("content", [b'{"a": ', "[]".encode("utf-16"), b"[" * 100_000])
def test_a_damaged_file_s_message_costs_no_work(tmp_path, content):
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"metrics.json is not valid JSON") as error:
        read_json(tmp_path / "metrics.json")
    assert not {"remove", "delete"} & {*str(error.value).lower().replace(".", "").split()}
    assert json.dumps(str(error.value))
