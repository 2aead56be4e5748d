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

from helpers import checkpoints, env

MADE = {"settings": {"train.seed": 1}, "data": {}, "versions": {}}


def add(run, step, content="weights"):
    folder = run / f"train/checkpoints/checkpoint-{step}"
    env.write_text(folder / "adapter_model.safetensors", f"{content} {step}")
    checkpoints.seal(folder, step, MADE)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "here/mine"
    env.write_json(folder / "run.json", {"run_name": "mine", "stages": {"prepare_data": {"status": "finished"}}})
    env.write_jsonl(folder / "data/train.jsonl", [{"id": "ক্ষ"}])
    for step in (3, 6, 9):
        add(folder, step)
    return folder


def look(run, target, keep=2):
    mirror = checkpoints.Mirror(run, checkpoints.Folder(target / run.name), keep)
    mirror.look()
    return mirror


def test_the_newest_checkpoints_and_the_run_are_copied_and_come_back(run, tmp_path):
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
    said = checkpoints.restore(elsewhere, str(drive))
    assert said[0] == f"run mine goes on from {drive / 'mine'}" and "checkpoint-12 comes from" in said[1]
    assert (elsewhere / "data/train.jsonl").read_bytes() == (run / "data/train.jsonl").read_bytes()
    assert checkpoints.newest(elsewhere / "train/checkpoints", MADE)[0].name == "checkpoint-12"
    assert checkpoints.restore(elsewhere, str(drive)) == [], "nothing newer is there"


def test_a_broken_copy_is_passed_over_for_the_one_before(run, tmp_path):
    drive = tmp_path / "drive"
    look(run, drive)
    newest = drive / "mine/checkpoint-9.tar"
    newest.write_bytes(newest.read_bytes()[:700])
    elsewhere = tmp_path / "another/mine"
    said = checkpoints.restore(elsewhere, str(drive))
    assert "passed over" in said[1] and "checkpoint-6 comes from" in said[2]
    assert [path.name for path in (elsewhere / "train/checkpoints").iterdir()] == ["checkpoint-6"]


def test_a_mirror_whose_run_is_broken_stops_rather_than_begin_anew_over_it(run, tmp_path):
    drive = tmp_path / "drive"
    look(run, drive)
    archive, elsewhere = drive / "mine/run.tar", tmp_path / "another/mine"
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(ValueError, match="run.tar cannot be read .* repair or move it"):
        checkpoints.restore(elsewhere, str(drive))
    assert not list((tmp_path / "another").glob("*")) and (drive / "mine/checkpoint-9.tar").is_file()


def test_a_mirror_that_goes_away_is_said_once_and_written_when_it_is_back(run, tmp_path, capsys):
    drive = tmp_path / "drive"
    drive.write_text("a file where the folder should be")
    mirror = look(run, drive)
    mirror.look()
    assert capsys.readouterr().out.count("was not written") == 1
    drive.unlink()
    mirror.look()
    assert (drive / "mine/run.tar").is_file() and capsys.readouterr().out == ""


def test_what_differs_after_copying_does_not_count(run, tmp_path, monkeypatch):
    drive = tmp_path / "drive"
    real = os.fsync

    def flip(number):
        with open(drive / "mine/.checkpoint-6.tar.part", "r+b") as file:
            file.seek(512)
            file.write(b"X")
        real(number)

    monkeypatch.setattr(checkpoints.os, "fsync", flip)
    with pytest.raises(OSError, match="adapter_model.safetensors differs after copying"):
        checkpoints.Mirror(run, checkpoints.Folder(drive / "mine"), 2).copy()
    assert list((drive / "mine").iterdir()) == []


def test_an_archive_that_writes_outside_is_refused(tmp_path):
    import io
    import tarfile

    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo("../../outside")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(tarfile.TarError):
        checkpoints.unpack(tmp_path / "evil.tar", tmp_path / "a/b/run")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "a/b/run").exists()


@pytest.mark.parametrize("place", ["notebooks/me/earlier-session/outputs", "earlier-session/outputs"])
def test_an_earlier_kaggle_session_is_found_wherever_it_is_mounted(place, run, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "INPUTS", tmp_path / "input")
    shutil.copytree(run, tmp_path / "input" / place / "mine")
    for path in (tmp_path / "input").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    working = tmp_path / "working/mine"
    said = checkpoints.restore(working, "")
    assert (
        "goes on from" in said[0] and checkpoints.newest(working / "train/checkpoints", MADE)[0].name == "checkpoint-9"
    )
    assert all(os.stat(path).st_mode & 0o200 for path in (working, *working.rglob("*"))), "it can be written"


def test_what_is_here_is_not_replaced_by_something_older(run, tmp_path):
    look(run, tmp_path / "drive")
    add(run, 20)
    env.write_json(run / "run.json", {"run_name": "mine", "stages": {}, "newer": True})
    assert checkpoints.restore(run, str(tmp_path / "drive")) == []
    assert env.read_json(run / "run.json")["newer"]


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
        return [SimpleNamespace(lfs=SimpleNamespace(sha256=env.sha256(store / repo_id / path))) for path in paths]

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


def test_a_hub_repository_takes_a_run_and_gives_it_back(run, hub, tmp_path):
    place = checkpoints.place_of("hf:someone/runs", "mine")
    checkpoints.Mirror(run, place, 2).look()
    assert place.names() == ["checkpoint-6.tar", "checkpoint-9.tar", "run.tar"]
    assert hub.api.create_repo.call_args.kwargs == {"private": True, "exist_ok": True}
    add(run, 12)
    checkpoints.Mirror(run, place, 2).look()
    newest = hub.folder / "someone/runs/mine/checkpoint-12.tar"
    newest.write_bytes(newest.read_bytes()[:700])
    elsewhere = tmp_path / "another session/mine"
    said = checkpoints.restore(elsewhere, "hf:someone/runs")
    assert said[0] == "run mine goes on from hf:someone/runs/mine"
    assert "passed over" in said[1] and "checkpoint-9 comes from hf:someone/runs/mine/checkpoint-9.tar" in said[2]
    assert (elsewhere / "data/train.jsonl").read_bytes() == (run / "data/train.jsonl").read_bytes()


def test_an_upload_that_arrives_different_or_a_hub_that_does_not_answer_is_said(run, hub, capsys):
    mirror = checkpoints.Mirror(run, checkpoints.place_of("hf:someone/runs", "mine"), 2)
    hub.api.upload_file.side_effect = ConnectionError("no route")
    mirror.look()
    assert (
        "hf:someone/runs/mine was not written (ConnectionError: no route); it is tried again" in capsys.readouterr().out
    )
    hub.api.upload_file.side_effect = None
    hub.api.get_paths_info.side_effect = lambda *a: [SimpleNamespace(lfs=SimpleNamespace(sha256="other"))]
    mirror.look()
    assert "checkpoint-6.tar differs after uploading" in capsys.readouterr().out


def test_a_mirror_that_is_not_there_stops_the_run_before_it_starts(run, suite, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="MyDrive is not there. Mount"):
        checkpoints.restore(run, str(tmp_path / "drive/MyDrive/runs"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="HF_TOKEN is not set"):
        checkpoints.restore(run, "hf:someone/runs")
    setting = f"shared.session.mirror={tmp_path / 'drive/MyDrive/runs'}"
    done = suite("--preset", "demo", "--tiny", "--outputs", tmp_path / "out", "--set", setting)
    assert done.returncode == 2 and "Mount" in done.stderr and not (tmp_path / "out").exists()
    assert (
        suite("--preset", "demo", "--tiny", "--outputs", tmp_path / "out", "--force", "--set", setting).returncode == 2
    )


def test_a_run_that_starts_again_forgets_what_the_one_before_left_in_the_mirror(run, tmp_path):
    (tmp_path / "drive").mkdir()
    look(run, tmp_path / "drive")
    checkpoints.forget(run, {"mirror": str(tmp_path / "drive")})
    assert sorted(path.name for path in (tmp_path / "drive/mine").iterdir()) == ["run.tar"]
    checkpoints.forget(run, {"mirror": ""})


COPYING = """
import os, sys
from pathlib import Path
from helpers import checkpoints, env
run, drive = Path(sys.argv[1]), Path(sys.argv[2])
for step in range(checkpoints.step_of(max(run.glob("train/checkpoints/*"), key=checkpoints.step_of)) + 1, 10**6):
    folder = run / f"train/checkpoints/checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(3_000_000))
    checkpoints.seal(folder, step, {"settings": {}, "data": {}, "versions": {}})
    env.write_json(run / "run.json", {"run_name": "mine", "stages": {}, "step": step})
    checkpoints.Mirror(run, checkpoints.Folder(drive / "mine"), 2).copy()
    checkpoints.prune(run / "train/checkpoints", 2)
"""


def test_a_mirror_killed_at_random_moments_holds_whole_archives_only(run, tmp_path):
    """Twelve times SIGKILL while checkpoints are sealed, copied and pruned one after the other."""
    rng, drive, seen = random.Random(1), tmp_path / "drive", []
    drive.mkdir()
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", COPYING, run, drive])
        time.sleep(rng.uniform(0.3, 0.8))
        child.kill()
        child.wait()
        for archive in (drive / "mine").glob("*.tar"):
            checkpoints.unpack(archive, tmp_path / "unpacked")
            assert archive.name == "run.tar" or checkpoints.verify(tmp_path / "unpacked") == ""
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        checkpoints.restore(tmp_path / "elsewhere/mine", str(drive))
        seen.append(max(map(checkpoints.step_of, (tmp_path / "elsewhere/mine/train/checkpoints").glob("*"))))
    assert seen == sorted(seen) and seen[-1] > seen[0] > 9, "it never goes back"
