"""A run's name is not the run: what another run of the same name has at a mirror or in an input stays as it is."""

import pytest

from helpers.platforms.errors import Refused
from helpers.runs.archives import open_store
from helpers.runs.checkpoints import seal_checkpoint
from helpers.runs.files import file_sha256, write_json, write_text
from helpers.runs.mirror import Mirror, hold_run, restore_run
from helpers.runs.record import Run


@pytest.fixture
def drive(tmp_path):
    folder = tmp_path / "drive"
    folder.mkdir()
    return folder


def begin(folder, run_id, step=0):
    """Returns a run called demo with an id (None: of before ids), and with a checkpoint at `step`."""
    run = Run(folder / "demo")
    record = {"run_name": "demo", "stages": {"prepare_data": {"status": "finished"}}}
    write_json(run / "run.json", record | ({"id": run_id} if run_id else {}))
    if step:
        checkpoint = run / f"train/checkpoints/checkpoint-{step}"
        write_text(checkpoint / "adapter_model.safetensors", f"weights of {run_id}")
        seal_checkpoint(checkpoint, step, {"run": run_id, "settings": {}, "data": {}, "versions": {}})
    return run


def mirror_to(run, drive):
    Mirror(run, open_store(str(drive), run.name), keep=2).copy()


def contents(folder):
    return {path.name: file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_another_runs_copy_at_a_mirror_stays(tmp_path, drive):
    mirror_to(begin(tmp_path / "a", "a" * 32, step=9), drive)
    before, other = contents(drive), begin(tmp_path / "b", "b" * 32)
    with pytest.raises(Refused, match="holds another run called demo .id aaaaaaaa, .* bbbbbbbb.*: choose another run"):
        hold_run(other, [str(drive)], runner=True)
    assert contents(drive) == before


@pytest.mark.parametrize(("own", "there"), [("a" * 32, "a" * 32), ("a" * 32, None), (None, "a" * 32)])
def test_a_run_goes_on_at_its_own_mirror(tmp_path, drive, own, there):
    mirror_to(begin(tmp_path / "a", there), drive)
    run = begin(tmp_path / "b", own)
    hold_run(run, [str(drive)], runner=True)
    run.unlock()


def test_a_new_machine_takes_what_the_mirror_has(tmp_path, drive):
    mirror_to(begin(tmp_path / "a", "a" * 32), drive)
    run = Run(tmp_path / "b/demo")
    hold_run(run, [str(drive)], runner=True)
    restore_run(run, str(drive))
    run.unlock()
    assert run.id() == "a" * 32


def test_a_mirror_that_cannot_be_read_is_named(tmp_path, drive, monkeypatch):
    def fail(self):
        raise ConnectionError("no route")

    run = begin(tmp_path / "a", "a" * 32)
    monkeypatch.setattr("helpers.runs.archives.FolderStore.names", fail)
    with pytest.raises(Refused, match="its mirror .*drive/demo cannot be read .ConnectionError: no route"):
        hold_run(run, [str(drive)], runner=True)


def test_force_replaces_a_copy_that_cannot_be_read(tmp_path, drive):
    run = Run(tmp_path / "b/demo")
    write_text(drive / "demo/run.tar", "no archive")
    with pytest.raises(ValueError, match="cannot be read"):
        restore_run(run, str(drive))
    assert "--force replaces it" in restore_run(run, str(drive), force=True)[0]


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Returns the folder of Kaggle's inputs."""
    monkeypatch.setattr("helpers.runs.mirror.KAGGLE_INPUT", tmp_path / "input")
    return tmp_path / "input"


def test_an_inputs_checkpoints_of_another_run_are_left(tmp_path, kaggle):
    begin(kaggle / "other/outputs", "b" * 32, step=9)
    run = begin(tmp_path / "a", "a" * 32, step=3)
    assert restore_run(run, "") == []


def test_an_input_does_not_replace_another_run_at_the_mirror(tmp_path, kaggle, drive):
    mirror_to(begin(tmp_path / "a", "a" * 32), drive)
    begin(kaggle / "other/outputs", "b" * 32, step=9)
    with pytest.raises(Refused, match="holds another run called demo"):
        restore_run(Run(tmp_path / "working/demo"), str(drive))
    assert not (tmp_path / "working/demo").exists()


@pytest.mark.parametrize("mirror", ["outputs", "outputs/demo", "outputs/demo/copies", "link"])
def test_a_run_is_not_mirrored_into_itself(tmp_path, mirror):
    run = begin(tmp_path / "outputs", "a" * 32)
    (run / "copies").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outputs")
    before = contents(tmp_path)
    with pytest.raises(Refused, match="in the run itself, .*: choose a folder outside"):
        hold_run(run, [str(tmp_path / mirror)], runner=True)
    assert contents(tmp_path) == before


def test_a_new_run_is_not_mirrored_into_itself(tmp_path):
    with pytest.raises(Refused, match="in the run itself"):
        hold_run(Run(tmp_path / "outputs/demo"), [str(tmp_path / "outputs")], runner=True)
    assert not (tmp_path / "outputs").exists()
