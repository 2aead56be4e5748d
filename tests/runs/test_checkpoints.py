"""A checkpoint's folder without a training: its manifest, its fingerprint, which one is resumed, which ones go."""

import os
import re

import pytest

from helpers.runs import checkpoints
from helpers.runs.checkpoints import (
    archive_name,
    archived_steps,
    begun_processes,
    check_disk_space,
    checkpoint_folders,
    compare_files,
    fingerprint_differences,
    list_files,
    make_fingerprint,
    newest_checkpoint,
    place_checkpoint,
    prune_checkpoints,
    read_manifest,
    seal_checkpoint,
    step_of,
    verify_checkpoint,
)
from helpers.runs.files import read_json, write_json, write_text

OURS = {"run": "ours", "settings": {"train.seed": 1, "processes": 2}, "data": {"train.jsonl": "ab"}, "versions": {}}


@pytest.fixture
def seal(tmp_path):
    """Returns a function that makes a valid checkpoint of a step, of our run unless told otherwise."""

    def call(step, fingerprint=OURS):
        folder = tmp_path / f"checkpoint-{step}"
        write_text(folder / "adapter.txt", f"weights {step}")
        write_text(folder / "deeper/optimizer.txt", "state")
        seal_checkpoint(folder, step, fingerprint)
        return folder

    return call


def change_manifest(folder, **changes):
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), **changes})


CONFIG = {
    "seed": 1,
    "num_gpus": "all",
    "session": {"hours": 9},
    "lora": {"r": 8},
    "sft": {"learning_rate": 1e-4, "logging_steps": 5, "report_to": "none", "save_steps": 7, "save_strategy": "steps"},
}


def test_a_fingerprint_has_what_changes_the_training():
    fingerprint = make_fingerprint("ours", CONFIG, {"train.jsonl": "ab"}, 2)
    assert fingerprint["settings"] == {"train.seed": 1, "lora.r": 8, "sft.learning_rate": 1e-4, "processes": 2}
    assert (fingerprint["run"], fingerprint["data"]) == ("ours", {"train.jsonl": "ab"})
    assert fingerprint["versions"]["torch"]


def test_equal_fingerprints_have_no_difference():
    now = {**OURS, "settings": {**OURS["settings"], "train.range": (1, 2)}, "versions": {"torch": "9"}}
    before = {**OURS, "settings": {**OURS["settings"], "train.range": [1, 2]}}
    assert fingerprint_differences(before, now) == [], "JSON has lists for tuples; versions may differ"


def test_differences_of_fingerprints_are_named_in_order():
    now = {**OURS, "settings": {"train.seed": 2, "lora.r": "x" * 200}, "data": {"train.jsonl": "cd"}}
    assert fingerprint_differences(OURS, now) == [
        f"lora.r was not there, now {'x' * 80}",
        "processes was 2, now not there",
        "train.seed was 1, now 2",
        "train.jsonl was ab, now cd",
    ]
    assert fingerprint_differences(now, OURS)[0] == f"lora.r was {'x' * 80}, now not there"


def test_hidden_files_are_not_listed(tmp_path):
    for name in ("b.txt", "a/c.txt", ".hidden", ".git/config"):
        write_text(tmp_path / name, "four")
    files = list_files(tmp_path)
    assert list(files) == ["a/c.txt", "b.txt"]
    assert files["b.txt"]["size"] == 4


@pytest.mark.parametrize("name", ["../outside.txt", "deeper/../../outside.txt", "{outside}"])
def test_a_listed_file_outside_the_folder_is_refused(tmp_path, name):
    write_text(tmp_path / "outside.txt", "secret")
    (tmp_path / "folder").mkdir()
    name = name.format(outside=tmp_path / "outside.txt")
    facts = list_files(tmp_path)["outside.txt"]
    assert compare_files(tmp_path / "folder", {name: facts}) == f"{name} is not below the folder"


def test_a_file_longer_than_listed_differs(seal):
    folder = seal(3)
    with open(folder / "adapter.txt", "a") as file:
        file.write("!")
    assert verify_checkpoint(folder) == "adapter.txt has 10 bytes, expected 9"


def test_a_file_shorter_than_listed_differs(seal):
    folder = seal(3)
    (folder / "adapter.txt").write_text("weights")
    assert verify_checkpoint(folder) == "adapter.txt has 7 bytes, expected 9"


@pytest.mark.parametrize("content", [f"weights {number}" for number in (0, 1, 9)])  # of higher and lower hashes
def test_a_file_with_other_content_differs(seal, content):
    folder = seal(3)
    (folder / "adapter.txt").write_text(content)
    assert verify_checkpoint(folder) == "adapter.txt has other content than was written"


def test_a_sealed_folders_files_reach_the_disk_first(tmp_path, monkeypatch):
    folder, synced, real = tmp_path / "checkpoint-3", [], os.fsync
    for name in ("adapter.txt", "deeper/optimizer.txt"):
        write_text(folder / name, "four")
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")) or real(file))
    seal_checkpoint(folder, 3, OURS)
    places = [path.removeprefix(f"{folder}/") for path in synced[:2]]
    assert sorted(places) == ["adapter.txt", "deeper/optimizer.txt"], "the manifest may be there before its files"


def test_a_manifest_tells_step_time_and_files(seal):
    written = read_json(seal(3) / "manifest.json")
    assert (written["format"], written["step"], written["fingerprint"]) == (1, 3, OURS)
    assert list(written["files"]) == ["adapter.txt", "deeper/optimizer.txt"]
    assert re.match(r"\d{4}-\d\d-\d\dT", written["written"])


def test_a_whole_checkpoint_is_valid(seal):
    folder = seal(12)
    assert verify_checkpoint(folder) == ""
    assert read_manifest(folder).step == 12
    write_text(folder / ".lock", "")
    assert verify_checkpoint(folder) == "", "hidden files do not count"


def test_a_checkpoint_under_any_other_name_is_valid(seal, tmp_path):
    assert verify_checkpoint(seal(12).rename(tmp_path / ".part-checkpoint-12")) == ""


@pytest.mark.parametrize("step", [11, 13])
def test_a_checkpoint_of_another_step_is_not_valid(seal, tmp_path, step):
    assert verify_checkpoint(seal(12).rename(tmp_path / f"checkpoint-{step}")) == "manifest.json is of step 12"


def test_a_file_that_the_manifest_does_not_name_is_reported(seal):
    folder = seal(3)
    write_text(folder / "b.txt", "")
    write_text(folder / "a.txt", "")
    assert verify_checkpoint(folder) == "manifest.json does not name a.txt"


def test_a_folder_that_is_gone_is_no_checkpoint(tmp_path):
    assert verify_checkpoint(tmp_path / "checkpoint-3") == "no such folder"


@pytest.mark.parametrize(("format", "problem"), [(0, ""), (1, ""), (2, "has format 2, this suite reads up to 1")])
def test_a_later_format_is_not_read(seal, format, problem):
    folder = seal(3)
    change_manifest(folder, format=format)
    assert verify_checkpoint(folder) == f"manifest.json {problem}" * bool(problem)


def test_a_manifest_without_files_is_not_valid(seal):
    folder = seal(3)
    change_manifest(folder, files={})
    assert verify_checkpoint(folder) == "manifest.json names no files"


def test_a_disk_that_cannot_be_read_is_a_reason(seal, monkeypatch):
    folder = seal(3)

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoints, "file_sha256", fail)
    assert verify_checkpoint(folder).startswith("it cannot be read (")
    monkeypatch.setattr(type(folder), "read_bytes", fail)
    assert verify_checkpoint(folder).startswith("manifest.json cannot be read (")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-0", 0),
        ("run/checkpoint-12", 12),
        ("checkpoint-7.tar", -1),
        ("checkpoint-", -1),
        ("checkpoint-3.tmp", -1),
        ("a-checkpoint-3", -1),
        ("checkpoint-3/adapter", -1),
    ],
)
def test_the_step_stands_in_the_name(name, step):
    assert step_of(name) == step


def test_archives_are_told_apart_by_stage():
    names = ["run.tar", "checkpoint-9.tar", "checkpoint-10.tar", "prefer-checkpoint-4.tar", "checkpoint-x.tar"]
    assert archived_steps(names, "train") == [9, 10]
    assert archived_steps(names, "prefer") == [4]
    assert {archive_name("train", 9), archive_name("prefer", 4)} <= {*names}


def test_checkpoints_come_in_the_order_of_their_steps(seal, tmp_path):
    folders = [seal(step) for step in (0, 2, 10)]
    write_text(tmp_path / "checkpoint-5", "a file")
    (tmp_path / "checkpoint-old").mkdir()
    assert checkpoint_folders(tmp_path) == folders


def test_the_newest_valid_checkpoint_of_the_run_is_resumed(seal, tmp_path):
    seal(2)
    folder = seal(4)
    seal(6, {**OURS, "run": "another"})
    (seal(8) / "adapter.txt").unlink()
    skipped = ["checkpoint-8: adapter.txt is missing", "checkpoint-6: it is another run's"]
    assert newest_checkpoint(tmp_path, OURS) == (folder, skipped)


def test_without_a_valid_checkpoint_none_is_resumed(seal, tmp_path):
    seal(6, {**OURS, "run": "another"})
    assert newest_checkpoint(tmp_path, OURS) == (None, ["checkpoint-6: it is another run's"])


def test_a_run_of_the_first_version_resumes_its_own(seal, tmp_path):
    nameless = {name: value for name, value in OURS.items() if name != "run"}
    folder = seal(4, nameless)
    assert newest_checkpoint(tmp_path, nameless) == (folder, [])
    assert newest_checkpoint(tmp_path, OURS)[0] is None


def test_a_checkpoint_of_other_settings_stops_the_run(seal, tmp_path):
    seal(4)
    with pytest.raises(ValueError, match=r"checkpoint-4 was made with other .*: train.seed was 1, now 2\. Set them"):
        newest_checkpoint(tmp_path, {**OURS, "settings": {**OURS["settings"], "train.seed": 2}})


def test_processes_are_those_of_the_runs_newest_checkpoint(seal, tmp_path):
    seal(2)
    seal(4, {**OURS, "settings": {"processes": 4}})
    seal(6, {**OURS, "run": "another"})
    (seal(8, {**OURS, "settings": {"processes": 8}}) / "manifest.json").unlink()
    assert begun_processes(tmp_path, "ours") == 4
    assert begun_processes(tmp_path, "nobody's") == 0


@pytest.mark.parametrize("settings", [{}, {"processes": "2"}])
def test_processes_that_are_no_number_count_as_none(seal, tmp_path, settings):
    seal(2)
    seal(4, {**OURS, "settings": settings})
    assert begun_processes(tmp_path, "ours") == 0


def test_a_sealed_folder_takes_the_place_of_the_one_before(seal, tmp_path):
    place, filled = seal(3), tmp_path / ".part"
    write_text(filled / "adapter.txt", "new weights")
    seal_checkpoint(filled, 3, OURS)
    place_checkpoint(filled, place)
    assert (place / "adapter.txt").read_text() == "new weights"
    assert sorted(path.name for path in place.iterdir()) == ["adapter.txt", "manifest.json"]
    assert not filled.exists()


def test_a_folder_that_is_not_valid_takes_no_place(seal, tmp_path):
    place, filled = seal(3), tmp_path / ".part"
    write_text(filled / "adapter.txt", "new weights")
    with pytest.raises(OSError, match=r"\.part is not valid: manifest.json is missing.*The one before is kept"):
        place_checkpoint(filled, place)
    assert (place / "adapter.txt").read_text() == "weights 3"


@pytest.mark.parametrize(
    ("keep", "also", "left"),
    [(1, (), [8]), (2, (), [6, 8]), (1, (2, 9), [2, 8]), (9, (), [2, 4, 6, 8]), (0, (), [2, 4, 6, 8])],
)
def test_all_but_the_newest_checkpoints_are_removed(seal, tmp_path, keep, also, left):
    for step in (2, 4, 6, 8):
        seal(step)
    prune_checkpoints(tmp_path, keep, also)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"checkpoint-{step}" for step in left]


def test_a_checkpoint_is_none_before_its_first_file_goes(seal, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda folder, **_: seen.append(folder.name))
    seal(2)
    seal(4)
    prune_checkpoints(tmp_path, 1)
    assert seen == [".gone-checkpoint-2"]


def test_a_checkpoint_that_cannot_be_removed_stops_nothing(seal, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    seal(2)
    seal(4)
    monkeypatch.setattr(os, "unlink", fail)
    prune_checkpoints(tmp_path, 1)
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["checkpoint-4"]


@pytest.mark.parametrize(
    ("free", "problem"), [(2**20 - 1, "1 MiB are free, a checkpoint takes 1 MiB"), (2**20, ""), (2**20 + 1, "")]
)
def test_a_checkpoint_needs_as_much_as_it_takes(tmp_path, monkeypatch, free, problem):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: checkpoints.shutil._ntuple_diskusage(0, 0, free))
    assert check_disk_space(tmp_path, 2**20) == problem


def test_the_free_space_is_said_in_mib(tmp_path, monkeypatch):
    monkeypatch.setattr(
        checkpoints.shutil, "disk_usage", lambda _: checkpoints.shutil._ntuple_diskusage(0, 0, 3 * 2**20)
    )
    assert check_disk_space(tmp_path, 40 * 2**20) == "3 MiB are free, a checkpoint takes 40 MiB"
