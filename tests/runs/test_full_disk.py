"""A disk that fills up, or becomes read-only, while a stage runs: the stage has failed, with what to do."""

import errno
import os
import subprocess

import pytest

from helpers.__main__ import main
from helpers.platforms.errors import explain_disk_error
from helpers.runs.files import read_json
from helpers.runs.record import _LOCKS, Run

pytestmark = pytest.mark.root


@pytest.fixture
def run(small_disk):
    """Returns a run's folder on a disk of 64 MiB."""
    return Run(small_disk / "outputs/demo")


def call(run):
    """Runs the data stage as a user does and returns the exit code."""
    return main(["run", "--preset", "demo", "--outputs", str(run.outputs), "--stages", "prepare_data"])


def fill(folder):
    """Writes until the disk is full."""
    with open(folder / "ballast", "wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def begin_and_fail(run, damage):
    """Returns what stands for papermill: a stage that begins, and then meets a damaged disk."""

    def execute(*arguments, **options):
        run.note_stage("prepare_data", status="running")
        run.open_session("prepare_data", None)
        damage()
        (run / "data").mkdir()
        (run / "data/train.jsonl").write_bytes(bytes(2**16))

    return execute


def test_a_stage_on_a_full_disk_has_failed(run, small_disk, monkeypatch, capsys):
    monkeypatch.setattr("papermill.execute_notebook", begin_and_fail(run, lambda: fill(small_disk)))
    assert call(run) == 1
    facts = read_json(run / "run.json")["stages"]["prepare_data"]
    assert facts["status"] == "failed"
    assert facts["error"].startswith(f"the disk of {run} is full (OSError: [Errno 28]")
    assert facts["error"].endswith("Mend that and run the same command again: it continues.")
    assert facts["error"] in capsys.readouterr().err
    assert run.sessions("prepare_data")[-1].ended


def test_a_run_on_a_full_disk_is_refused(run, small_disk, capsys):
    run.outputs.mkdir()
    fill(small_disk)
    assert call(run) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert not list(run.outputs.iterdir())


def remount(folder, mode):
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


def break_down(run, folder):
    """Makes a disk read-only, as the system does after an error: also while files are open for writing."""
    lock = _LOCKS[run.folder]
    with open(lock.file, "rb") as reading:  # one for writing would keep mount from it
        os.dup2(reading.fileno(), lock.descriptor)
    remount(folder, "ro")


def test_a_disk_that_becomes_read_only_ends_the_run(run, small_disk, monkeypatch, capsys):
    monkeypatch.setattr("papermill.execute_notebook", begin_and_fail(run, lambda: break_down(run, small_disk)))
    code = call(run)
    again = call(run)
    remount(small_disk, "rw")
    assert (code, again) == (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"the disk of {run} is read-only (OSError: [Errno 30]" in errors[0]
    assert "choose another --outputs" in errors[1]


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "is full"), (errno.EDQUOT, "is full"), (errno.EROFS, "is read-only"), (errno.EACCES, "may not be")],
)
def test_an_error_of_the_disk_says_what_to_do(number, sentence):
    error = f"OSError: {OSError(number, os.strerror(number))}"
    assert f"the disk of outputs/x {sentence}" in explain_disk_error(error, "outputs/x")
    assert explain_disk_error("ValueError: r is 0", "outputs/x") == "ValueError: r is 0"
