"""The versions that a run's sessions work with, and the packages of a platform's image."""

import importlib.metadata
import sys

import pytest

from helpers.platforms.environment import package_versions
from helpers.platforms.overlay import FOLDER
from helpers.runner import PresetRun, run_preset
from helpers.runs.files import read_json, write_text
from helpers.runs.record import Run, RunRecord
from helpers.runs.versions import IMAGE_FILE, changes_since_last_session, compare_image, freeze_image, record_image

FREEZE = "# Kaggle's image, https://example.org, 2026-11-23\nTorch==2.10.0\nhugging_face==1.0  # a note\n"


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "outputs" / "mine")


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Kaggle's folders and variables; the image is called first."""
    (tmp_path / "kaggle/working").mkdir(parents=True)
    monkeypatch.setattr("helpers.platforms.machine.KAGGLE_FOLDER", tmp_path / "kaggle")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_DOCKER_IMAGE", "first")


def test_the_image_is_what_its_own_folders_hold(tmp_path, monkeypatch):
    write_text(tmp_path / "added-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert importlib.metadata.version("added") == "1.0"
    lines = freeze_image().splitlines()
    assert f"pandas=={importlib.metadata.version('pandas')}" in lines
    assert f"python=={sys.version.split()[0]}" in lines
    assert "added==1.0" not in lines, "a session's own packages are no part of the image"


def test_only_recorded_packages_are_compared():
    assert compare_image(FREEZE, "torch==2.10.0\nhugging-face==1.0\nmore==3\n") == "is as recorded on 2026-11-23"


def test_a_package_that_is_gone_is_named():
    assert compare_image(FREEZE, "torch==2.10.0\n") == "has changed since 2026-11-23: hugging-face 1.0 → none"


@pytest.mark.parametrize(("now", "sentence"), [("2.10.0+cu128", "is as"), ("2.11.0+cu128", "torch 2.10.0 → 2.11.0")])
def test_a_freeze_without_builds_compares_versions_alone(now, sentence):
    assert sentence in compare_image(FREEZE, f"torch=={now}\nhugging_face==1.0\n")


def test_a_freeze_with_builds_compares_them():
    sentence = compare_image("# 2026-11-23\ntorch==2.10.0+cu126\n", "torch==2.10.0+cu128\n")
    assert sentence.endswith("torch 2.10.0+cu126 → 2.10.0+cu128")


def stages(**versions):
    """Returns a record of stages, {stage: (started, version of torch)}."""
    began = {name: {"started": start, "versions": {"torch": torch}} for name, (start, torch) in versions.items()}
    return RunRecord.model_validate({"stages": began})


def test_the_last_sessions_versions_count():
    torch = package_versions()["torch"]
    record = stages(evaluate=("2026-11-24", torch), train=("2026-11-23", "1.0"), prepare_data=("2026-11-22", "1.0"))
    assert changes_since_last_session(record) == ""


@pytest.mark.parametrize("record", [RunRecord(), stages(train=("2026-11-23", package_versions()["torch"]))])
def test_nothing_is_said_of_the_same_versions(record):
    assert changes_since_last_session(record) == ""


def test_a_run_says_what_changed_before_it_starts(run, capsys, monkeypatch):
    run.note_stage("train", status="paused", started="2026-11-23", versions={"torch": "1.0", "python": "3.9"})
    monkeypatch.setattr("helpers.runner.run_stage", lambda *arguments, **options: print("the work") or 0)
    run_preset(
        PresetRun("demo", {"report": {"samples": 1, "page_language": "en"}}, run, {"train": "was paused"}, "command")
    )
    before, _, _ = capsys.readouterr().out.partition("the work")
    versions = package_versions()
    assert f"torch 1.0 → {versions['torch']}, python 3.9 → {versions['python']}. What resumes is no longer" in before


def test_a_session_lists_its_image(run, kaggle):
    record_image(run)
    header, *lines = (run / IMAGE_FILE).read_text(encoding="utf-8").splitlines()
    assert header.startswith("# kaggle first, 20")
    assert lines == freeze_image().splitlines()


def test_the_images_of_a_run_are_kept_in_order(run, kaggle, monkeypatch):
    for image in ("first", "first", "second", "first", ""):
        monkeypatch.setenv("KAGGLE_DOCKER_IMAGE", image)
        record_image(run)
    assert read_json(run / "run.json")["images"] == ["first", "second", "first"]


def test_a_laptop_has_no_image(run):
    record_image(run)
    assert not run.folder.exists()
