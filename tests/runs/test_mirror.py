"""A run's copies elsewhere: a mirrored folder, and an earlier Kaggle session's output."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from helpers.runs.archives import FolderStore, open_store, unpack_archive
from helpers.runs.checkpoints import newest_checkpoint, seal_checkpoint, step_of, verify_checkpoint
from helpers.runs.files import file_sha256, read_json, write_json, write_jsonl, write_text
from helpers.runs.mirror import Mirror, mirror_report, remove_mirrored_checkpoints, restore_run
from helpers.runs.record import Run

MADE = {"settings": {"train.seed": 1}, "data": {}, "versions": {}}


def add(run, step, content="weights", stage="train"):
    folder = run / f"{stage}/checkpoints/checkpoint-{step}"
    write_text(folder / "adapter_model.safetensors", f"{content} {step}")
    seal_checkpoint(folder, step, MADE)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "here/mine"
    write_json(folder / "run.json", {"run_name": "mine", "stages": {"prepare_data": {"status": "finished"}}})
    write_jsonl(folder / "data/train.jsonl", [{"id": "ক্ষ"}])
    for step in (3, 6, 9):
        add(folder, step)
    return folder


def look(run, target, keep=2):
    mirror = Mirror(Run(run), FolderStore(target / run.name), keep)
    mirror.try_copy()
    return mirror


def test_a_mirrored_run_comes_back_with_its_newest_checkpoints(run, tmp_path):
    drive = tmp_path / "drive"
    look(run, drive)
    assert sorted(path.name for path in (drive / "mine").iterdir()) == [
        "checkpoint-6.tar",
        "checkpoint-9.tar",
        "run.tar",
    ]
    add(run, 12)
    look(run, drive)
    assert sorted(path.name for path in (drive / "mine").glob("c*")) == ["checkpoint-12.tar", "checkpoint-9.tar"]
    elsewhere = tmp_path / "another session/mine"
    lines = restore_run(Run(elsewhere), str(drive))
    assert lines[0] == f"run mine resumes from {drive / 'mine'}"
    assert "checkpoint-12 comes from" in lines[1]
    assert (elsewhere / "data/train.jsonl").read_bytes() == (run / "data/train.jsonl").read_bytes()
    assert newest_checkpoint(elsewhere / "train/checkpoints", MADE)[0].name == "checkpoint-12"
    assert restore_run(Run(elsewhere), str(drive)) == [], "nothing newer is there"


def test_the_page_of_a_run_lies_open_beside_its_archives(run, tmp_path):
    page, copy = run / "report/index.html", tmp_path / "drive/mine/report.html"
    mirror = look(run, tmp_path / "drive")
    assert not copy.exists()
    for text in ("<p>সহানুভূতি", "<p>later"):
        write_text(page, text)
        mirror.try_copy()
        assert copy.read_text("utf-8") == text
    copy.unlink()
    write_text(run / "data/metrics.json", "{}")
    mirror.try_copy()
    assert not copy.exists(), "a page that has not changed is copied again"
    assert restore_run(Run(tmp_path / "elsewhere/mine"), str(tmp_path / "drive"))


def test_the_page_of_a_paused_run_goes_to_its_mirror_too(run, hub, tmp_path):
    write_text(run / "report/index.html", "<p>so far")
    mirror_report(Run(run), {"mirror": ""})
    (tmp_path / "drive").mkdir()
    places = {str(tmp_path / "drive"): tmp_path / "drive", "hf:someone/runs": hub.folder / "someone/runs"}
    for mirror, copy in places.items():
        mirror_report(Run(run), {"mirror": mirror})
        assert (copy / "mine/report.html").read_text("utf-8") == "<p>so far"


def test_a_broken_copy_is_passed_over_for_the_one_before(run, tmp_path):
    drive = tmp_path / "drive"
    look(run, drive)
    newest = drive / "mine/checkpoint-9.tar"
    newest.write_bytes(newest.read_bytes()[:700])
    elsewhere = tmp_path / "another/mine"
    lines = restore_run(Run(elsewhere), str(drive))
    assert "skipped" in lines[1]
    assert "checkpoint-6 comes from" in lines[2]
    assert [path.name for path in (elsewhere / "train/checkpoints").iterdir()] == ["checkpoint-6"]


def test_a_mirror_with_a_broken_archive_is_never_replaced(run, tmp_path):
    drive = tmp_path / "drive"
    look(run, drive)
    archive, elsewhere = drive / "mine/run.tar", tmp_path / "another/mine"
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(ValueError, match="run.tar cannot be read .* repair or move it"):
        restore_run(Run(elsewhere), str(drive))
    assert not list((tmp_path / "another").glob("*"))
    assert (drive / "mine/checkpoint-9.tar").is_file()


def test_a_mirror_that_went_away_is_written_when_it_is_back(run, tmp_path, capsys):
    drive = tmp_path / "drive"
    drive.write_text("a file where the folder should be")
    mirror = look(run, drive)
    mirror.try_copy()
    assert capsys.readouterr().out.count("was not written") == 1
    drive.unlink()
    mirror.try_copy()
    assert (drive / "mine/run.tar").is_file()
    assert capsys.readouterr().out == ""


def test_what_differs_after_copying_does_not_count(run, tmp_path, monkeypatch):
    drive = tmp_path / "drive"
    real = os.fsync

    def flip(number):
        with open(drive / "mine/.checkpoint-6.tar.part", "r+b") as file:
            file.seek(512)
            file.write(b"X")
        real(number)

    monkeypatch.setattr(os, "fsync", flip)
    with pytest.raises(OSError, match="adapter_model.safetensors differs after copying"):
        Mirror(Run(run), FolderStore(drive / "mine"), 2).copy()
    assert list((drive / "mine").iterdir()) == []


def test_an_archive_that_writes_outside_is_refused(tmp_path):
    import io
    import tarfile

    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo("../../outside")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(tarfile.TarError):
        unpack_archive(tmp_path / "evil.tar", tmp_path / "a/b/run")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "a/b/run").exists()


@pytest.mark.parametrize("place", ["notebooks/me/earlier-session/outputs", "earlier-session/outputs"])
def test_an_earlier_kaggle_session_is_read_from_any_mount(place, run, tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.runs.mirror.KAGGLE_INPUT", tmp_path / "input")
    shutil.copytree(run, tmp_path / "input" / place / "mine")
    for path in (tmp_path / "input").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    working = tmp_path / "working/mine"
    lines = restore_run(Run(working), "")
    assert "resumes from" in lines[0]
    assert newest_checkpoint(working / "train/checkpoints", MADE)[0].name == "checkpoint-9"
    assert all(os.stat(path).st_mode & 0o200 for path in (working, *working.rglob("*"))), "it can be written"


def test_what_is_here_is_not_replaced_by_something_older(run, tmp_path):
    look(run, tmp_path / "drive")
    add(run, 20)
    write_json(run / "run.json", {"run_name": "mine", "stages": {}, "newer": True})
    assert restore_run(Run(run), str(tmp_path / "drive")) == []
    assert read_json(run / "run.json")["newer"]


def test_a_run_without_its_record_is_not_replaced(run, tmp_path):
    look(run, tmp_path / "drive")
    add(run, 20)
    (run / "run.json").unlink()
    assert restore_run(Run(run), str(tmp_path / "drive")) == []
    assert (run / "train/checkpoints/checkpoint-20").is_dir()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Returns a folder that stands for the Hub: calls are checked against the library's own signatures."""
    store = tmp_path / "hub"
    api = mock.create_autospec(huggingface_hub.HfApi, instance=True)

    def files(repo_id):
        if not (store / repo_id).is_dir():
            raise RepositoryNotFoundError("404", response=mock.Mock())
        return [path.relative_to(store / repo_id).as_posix() for path in (store / repo_id).rglob("*") if path.is_file()]

    def upload(*, path_or_fileobj, path_in_repo, repo_id):
        target = store / repo_id / path_in_repo
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path_or_fileobj, target)

    def info(repo_id, paths):
        return [SimpleNamespace(lfs=SimpleNamespace(sha256=file_sha256(store / repo_id / path))) for path in paths]

    def download(repo_id, filename, *, local_dir):
        target = Path(local_dir) / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copyfile(store / repo_id / filename, target)

    api.create_repo.side_effect = lambda repo_id, private, exist_ok: (store / repo_id).mkdir(
        parents=True, exist_ok=True
    )
    api.list_repo_files.side_effect, api.upload_file.side_effect = files, upload
    api.get_paths_info.side_effect, api.hf_hub_download.side_effect = info, download
    api.delete_file.side_effect = lambda path_in_repo, repo_id: (store / repo_id / path_in_repo).unlink()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: api if token == "from the secrets" else None)
    monkeypatch.setenv("HF_TOKEN", "from the secrets")
    return SimpleNamespace(folder=store, api=api)


def test_a_run_comes_back_from_a_hub_repository(run, hub, tmp_path):
    place = open_store("hf:someone/runs", "mine")
    Mirror(Run(run), place, 2).try_copy()
    assert place.names() == ["checkpoint-6.tar", "checkpoint-9.tar", "run.tar"]
    assert hub.api.create_repo.call_args.kwargs == {"private": True, "exist_ok": True}
    add(run, 12)
    Mirror(Run(run), place, 2).try_copy()
    newest = hub.folder / "someone/runs/mine/checkpoint-12.tar"
    newest.write_bytes(newest.read_bytes()[:700])
    elsewhere = tmp_path / "another session/mine"
    lines = restore_run(Run(elsewhere), "hf:someone/runs")
    assert lines[0] == "run mine resumes from hf:someone/runs/mine"
    assert "skipped" in lines[1]
    assert "checkpoint-9 comes from hf:someone/runs/mine/checkpoint-9.tar" in lines[2]
    assert (elsewhere / "data/train.jsonl").read_bytes() == (run / "data/train.jsonl").read_bytes()


def test_a_failed_upload_is_reported(run, hub, capsys):
    mirror = Mirror(Run(run), open_store("hf:someone/runs", "mine"), 2)
    hub.api.upload_file.side_effect = ConnectionError("no route")
    mirror.try_copy()
    assert (
        "hf:someone/runs/mine was not written (ConnectionError: no route); it is tried again" in capsys.readouterr().out
    )
    hub.api.upload_file.side_effect = None
    hub.api.get_paths_info.side_effect = lambda *a: [SimpleNamespace(lfs=SimpleNamespace(sha256="other"))]
    mirror.try_copy()
    assert "checkpoint-6.tar differs after uploading" in capsys.readouterr().out


def test_a_missing_mirror_stops_the_run_before_it_starts(run, suite, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="MyDrive is not there. Mount"):
        restore_run(Run(run), str(tmp_path / "drive/MyDrive/runs"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="HF_TOKEN is not set"):
        restore_run(Run(run), "hf:someone/runs")
    setting = f"shared.session.mirror={tmp_path / 'drive/MyDrive/runs'}"
    done = suite("--preset", "demo", "--tiny", "--outputs", tmp_path / "out", "--set", setting)
    assert done.returncode == 2
    assert "Mount" in done.stderr
    assert not (tmp_path / "out").exists()
    assert (
        suite("--preset", "demo", "--tiny", "--outputs", tmp_path / "out", "--force", "--set", setting).returncode == 2
    )


def test_a_forced_run_removes_its_mirrored_checkpoints(run, tmp_path):
    (tmp_path / "drive").mkdir()
    look(run, tmp_path / "drive")
    remove_mirrored_checkpoints(Run(run), "train", {"mirror": str(tmp_path / "drive")})
    assert sorted(path.name for path in (tmp_path / "drive/mine").iterdir()) == ["run.tar"]
    remove_mirrored_checkpoints(Run(run), "train", {"mirror": ""})


def test_a_training_by_preferences_has_its_own_checkpoints(run, tmp_path):
    (drive := tmp_path / "drive").mkdir()
    for step in (2, 4, 5):
        add(run, step, "preferred", "prefer")
    look(run, drive)
    names = {"checkpoint-6.tar", "checkpoint-9.tar", "prefer-checkpoint-4.tar", "prefer-checkpoint-5.tar", "run.tar"}
    assert {path.name for path in (drive / "mine").iterdir()} == names
    elsewhere = tmp_path / "another session/mine"
    restore_run(Run(elsewhere), str(drive))
    newest = {stage: newest_checkpoint(elsewhere / stage / "checkpoints", MADE)[0] for stage in ("train", "prefer")}
    assert [folder.name for folder in newest.values()] == ["checkpoint-9", "checkpoint-5"]
    assert (newest["prefer"] / "adapter_model.safetensors").read_text() == "preferred 5"
    remove_mirrored_checkpoints(Run(run), "prefer", {"mirror": str(drive)})
    assert {path.name for path in (drive / "mine").iterdir()} == {name for name in names if "prefer" not in name}


COPYING = """
import os, sys
from pathlib import Path
from helpers.runs.archives import FolderStore
from helpers.runs.checkpoints import prune_checkpoints, seal_checkpoint, step_of
from helpers.runs.files import write_json
from helpers.runs.mirror import Mirror
from helpers.runs.record import Run
run, drive = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
for step in range(step_of(max(run.glob("train/checkpoints/*"), key=step_of)) + 1, 10**6):
    folder = run / f"train/checkpoints/checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(3_000_000))
    seal_checkpoint(folder, step, {"settings": {}, "data": {}, "versions": {}})
    write_json(run / "run.json", {"run_name": "mine", "stages": {}, "step": step})
    Mirror(Run(run), FolderStore(drive / "mine"), 2).copy()
    prune_checkpoints(run / "train/checkpoints", 2)
"""


def test_a_killed_mirror_holds_complete_archives_only(run, tmp_path):
    """Twelve times SIGKILL while checkpoints are sealed, copied and pruned one after the other."""
    rng, drive, seen = random.Random(1), tmp_path / "drive", []
    drive.mkdir()
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", COPYING, run, drive], stdout=subprocess.PIPE, text=True)
        child.stdout.readline()  # "ready"
        time.sleep(rng.uniform(0.1, 0.6))
        child.kill()
        child.wait()
        for archive in (drive / "mine").glob("*.tar"):
            unpack_archive(archive, tmp_path / "unpacked")
            assert archive.name == "run.tar" or verify_checkpoint(tmp_path / "unpacked") == ""
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        restore_run(Run(tmp_path / "elsewhere/mine"), str(drive))
        seen.append(max(map(step_of, (tmp_path / "elsewhere/mine/train/checkpoints").glob("*"))))
    assert seen == sorted(seen), "a restored run is never older than the one before"
    assert seen[-1] > seen[0] > 9
