"""The suite as a data set on Kaggle: private, complete, and where the first cell of a notebook finds it."""

import io
import subprocess
import sys
import zipfile

import build_notebooks
import pytest
from kaggle_machine import DatabundleVersionStatus, Kaggle

from helpers.__main__ import main
from helpers.kaggle.notebook import suite_files
from helpers.platforms.environment import ROOT

DATASET = "someone/sahanubhuti"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("helpers.kaggle.upload.LOOK_SECONDS", 0.01)


@pytest.fixture
def server(tmp_path):
    with Kaggle(tmp_path / "kaggle") as server:
        yield server


def upload(*more):
    return main(["kaggle", "upload", *more])


def test_the_data_set_is_private(server, capsys):
    assert upload() == 0
    assert server.datasets[DATASET]["private"] is True
    printed = capsys.readouterr().out
    assert f"{DATASET}: uploaded as a new, private data set" in printed
    assert "Add Input" in printed


def test_the_data_set_holds_the_suite(server):
    assert upload() == 0
    (content,) = server.datasets[DATASET]["versions"][0].values()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert packed == {name: path.read_bytes() for name, path in suite_files().items()}


def test_no_file_of_the_suite_is_empty():
    assert [name for name, path in suite_files().items() if not path.stat().st_size] == [], "uploads may leave it out"


def test_a_second_upload_is_the_next_version(server, capsys):
    assert upload() == 0
    assert upload() == 0
    assert len(server.datasets[DATASET]["versions"]) == 2
    assert f"{DATASET}: uploaded as a new version" in capsys.readouterr().out


def test_an_upload_may_be_for_another_account(server):
    assert upload("--owner", "team") == 0
    assert list(server.datasets) == ["team/sahanubhuti"]


@pytest.mark.parametrize("call", ["GetDatasetStatus", "StartBlobUpload", "CreateDataset"])
def test_an_upload_is_repeated_where_kaggle_throttles(call, server):
    server.faults = {call: [503, "garbled"]}
    assert upload() == 0
    assert server.faults[call] == []
    assert len(server.datasets[DATASET]["versions"]) == 1


def test_a_data_set_that_is_being_processed_is_explained(server, capsys):
    assert upload() == 0
    server.datasets[DATASET]["looks"] = -10
    assert upload() == 2
    error = capsys.readouterr().err
    assert f"Kaggle did not take {DATASET}: The requested title 'Sahanubhuti' is already in use" in error
    assert "wait a minute, and upload again" in error


def test_a_refused_upload_is_one_line(server, capsys):
    server.faults = {"CreateDataset": [400]}
    assert upload() == 2
    assert capsys.readouterr().err.startswith(f"error: Kaggle did not take {DATASET}: 400")


def test_a_failed_version_is_an_error(server, capsys):
    assert upload() == 0
    server.datasets[DATASET]["status"] = DatabundleVersionStatus.FAILED
    assert upload() == 1
    assert f"error: {DATASET} is failed" in capsys.readouterr().err


def test_an_upload_is_not_awaited_for_ever(server, capsys, monkeypatch):
    monkeypatch.setattr("helpers.kaggle.upload.MOST_SECONDS", 0.05)
    server.processing = 10**6
    assert upload() == 1
    assert f"error: {DATASET} is not there yet" in capsys.readouterr().err


@pytest.mark.parametrize("by_name", [True, False])
def test_the_first_cell_finds_the_data_set(by_name, server, tmp_path):
    """Kaggle unpacks an archive into a folder of its name; for some data sets beside it."""
    assert upload() == 0
    place = server.mount(DATASET, tmp_path, by_name)
    (tmp_path / "working").mkdir()
    cell = build_notebooks.setup_cell().replace('"/kaggle/input"', repr(str(tmp_path / "input")))
    code = f"{cell}\nimport helpers.runs.settings as settings; print(settings.NOTEBOOKS)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "working", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(place / ("suite/notebooks" if by_name else "notebooks"))
    assert str(ROOT) not in done.stdout
