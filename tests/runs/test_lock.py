"""Who works on a run: one runner and what it started, here and on every machine that shares its mirror."""

import errno
import os
import subprocess
import sys
import time
import uuid

import pytest

from helpers.__main__ import main
from helpers.platforms.errors import Refused
from helpers.runs import lock
from helpers.runs.archives import FolderStore
from helpers.runs.files import read_json, write_json, write_text
from helpers.runs.lock import FilePlace, Lease, RunLock, check_lease, read_lease
from helpers.runs.mirror import Mirror, hold_run
from helpers.runs.record import Run

KERNEL = (
    "import sys, time; from pathlib import Path; from helpers.runs.record import Run; Run(Path(sys.argv[1])).lock(); "
)
KERNEL += "print('joined', flush=True); time.sleep(float(sys.argv[2]))"
RUNNER = (
    "import subprocess, sys; from pathlib import Path; from helpers.runs.record import Run; "
    "Run(Path(sys.argv[1])).lock(runner=True); "
    f"kernel = subprocess.Popen([sys.executable, '-c', {KERNEL!r}, *sys.argv[1:]], stdout=subprocess.PIPE, text=True); "
    "print(kernel.stdout.readline(), end='', flush=True); kernel.wait()"
)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "outputs/mine")


@pytest.fixture
def start(run):
    """Returns a function that starts a runner with a kernel, both at the run, and waits until both have it."""
    started = []

    def call(seconds=60.0):
        command = [sys.executable, "-c", RUNNER, str(run), str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "joined\n"
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def foreign(run):
    """Returns a lease of a runner on another machine that has 60 seconds left."""
    who = {
        "owner": uuid.uuid4().hex,
        "kind": "runner",
        "host": "elsewhere",
        "machine": "another",
        "pid": 7,
        "born": 0.0,
    }
    return Lease(**who, started="2026-01-01T00:00:00+00:00", expires=time.time() + 60)


def put(place, lease, **changes):
    place.write(lease.model_copy(update=changes).model_dump_json())


def test_the_holder_is_named_to_the_second_runner(run, start):
    holder = start(5.0)
    with pytest.raises(Refused, match=rf"run mine is held by the runner with process {holder.pid} on .* since 20"):
        run.lock(runner=True)


def test_the_second_runner_is_refused_at_once(run, start):
    start(5.0)
    began = time.monotonic()
    with pytest.raises(Refused):
        run.lock(runner=True)
    assert time.monotonic() - began < 3


def test_the_second_runner_changes_nothing(run, start, capsys):
    start(20.0)
    write_json(run / "run.json", {"stages": {"train": {"status": "running"}}})
    for name in ("stop", "report/index.html", "html/02_train.html"):
        write_text(run / name, "of the first")
    before = {path: path.stat().st_mtime_ns for path in run.outputs.rglob("*")}
    assert main(["run", "--preset", "demo", "--outputs", str(run.outputs), "--run-name", "mine", "--force"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert {path: path.stat().st_mtime_ns for path in run.outputs.rglob("*")} == before


def test_a_killed_holders_run_is_free(run, start):
    holder = start(0.0)
    holder.kill()
    holder.wait()
    run.lock(runner=True)
    run.unlock()


def test_a_kernel_that_outlives_its_runner_is_waited_for(run, start):
    holder = start(3.0)
    began = time.monotonic()
    holder.kill()
    holder.wait()
    with pytest.raises(Refused, match="still worked on by processes of a holder that was killed"):
        run.lock(runner=True, patience=0.5)
    run.lock(runner=True, patience=20)
    assert time.monotonic() - began > 2, "the kernel was still at work"
    run.unlock()


def test_a_kernel_of_an_earlier_holder_is_refused(run, monkeypatch):
    run.lock(runner=True)
    monkeypatch.setenv(lock.HOLDER, "of a runner that was killed")
    with pytest.raises(Refused, match="run mine is held by"):
        Run(run.folder).join()
    monkeypatch.undo()
    run.unlock()


def test_nothing_is_left_of_a_lock_that_was_given_back(run, tmp_path):
    run.lock(runner=True)
    assert {path.name for path in run.outputs.iterdir()} == {".mine.lock", ".mine.lease"}
    run.unlock()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"owner": 1}', "\ud800"])
def test_a_damaged_lease_stops_nobody(run, content):
    run.outputs.mkdir(parents=True)
    (run.outputs / ".mine.lease").write_bytes(content.encode("utf-8", "surrogatepass"))
    run.lock(runner=True)
    run.unlock()


def test_a_living_holder_of_another_machine_is_respected(run, foreign, tmp_path):
    place = FilePlace(tmp_path / "mirror/lease.json", 4.0)
    put(place, foreign)
    times = iter(range(1, 100))
    place.read = lambda read=place.read: (put(place, foreign, expires=foreign.expires + next(times)), read())[1]
    with pytest.raises(Refused, match="with process 7 on elsewhere since 2026-01-01"):
        RunLock(run.folder, [place]).hold(0)
    assert not run.outputs.exists()


def test_a_silent_holder_of_another_machine_is_replaced(run, foreign, tmp_path):
    place = FilePlace(tmp_path / "mirror/lease.json", 0.5)
    put(place, foreign)
    began, own = time.monotonic(), RunLock(run.folder, [place])
    own.hold(0)
    assert time.monotonic() - began > 0.5
    assert read_lease(place).pid == os.getpid()
    own.release()
    assert place.read() is None


def test_an_expired_lease_is_replaced_without_waiting(run, foreign, tmp_path):
    place = FilePlace(tmp_path / "mirror/lease.json", 60.0)
    put(place, foreign, expires=time.time() - 1)
    began, own = time.monotonic(), RunLock(run.folder, [place])
    own.hold(0)
    assert time.monotonic() - began < 5
    own.release()


def test_two_runners_at_one_mirror_are_two_at_one_run(run, start, tmp_path):
    (tmp_path / "drive").mkdir()
    hold_run(run, [str(tmp_path / "drive/runs"), ""], runner=True)
    other = Run(tmp_path / "another folder/mine")
    code = "import sys; from pathlib import Path; from helpers.runs.mirror import hold_run; "
    code += "from helpers.runs.record import Run; hold_run(Run(Path(sys.argv[1])), [sys.argv[2]], runner=True)"
    command = [sys.executable, "-c", code, str(other), str(tmp_path / "drive/runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    run.unlock()
    assert f"run mine is held by the runner with process {os.getpid()}" in done.stderr
    assert not other.outputs.exists()
    assert not list((tmp_path / "drive").rglob("*.json")), "a lease was left"


def test_a_mirror_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "drive").mkdir()
    write_text(tmp_path / "drive/runs", "a file where the folder should be")
    with pytest.raises(Refused, match=r"its mirror .*drive/runs/mine .*choose another session.mirror"):
        hold_run(run, [str(tmp_path / "drive/runs")], runner=True)
    assert not run.outputs.exists()


def test_a_mirror_that_was_taken_over_is_not_written(run, foreign, tmp_path, capsys):
    write_json(run / "run.json", {"stages": {}})
    (tmp_path / "drive").mkdir()
    put(FolderStore(tmp_path / "drive").lease(), foreign)
    Mirror(run, FolderStore(tmp_path / "drive"), 2).try_copy()
    assert "the runner with process 7 on elsewhere has taken it over" in capsys.readouterr().out
    assert not list((tmp_path / "drive").glob("*.tar"))


def test_a_lease_is_renewed_while_it_is_held(run, tmp_path):
    place = FilePlace(tmp_path / "mirror/lease.json", 0.8)
    own = RunLock(run.folder, [place])
    own.hold(0)
    first = read_lease(place).expires
    time.sleep(1)
    assert read_lease(place).expires > first
    check_lease(place)
    own.release()


def test_a_run_that_was_taken_over_pauses(run, foreign, tmp_path, capsys):
    place = FilePlace(tmp_path / "mirror/lease.json", 0.8)
    run.folder.mkdir(parents=True)
    own = RunLock(run.folder, [place])
    own.hold(0)
    put(place, foreign)
    time.sleep(1)
    own.release()
    assert (run / "stop").exists()
    assert "has taken it over" in capsys.readouterr().err
    assert read_lease(place).owner == foreign.owner, "what another holds is not removed"


@pytest.fixture
def without_locks(monkeypatch):
    """Stands for a file system that has no locks."""

    def flock(*arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)


def test_a_lease_holds_where_the_system_has_no_lock(run, start, without_locks):
    holder = start(20.0)
    with pytest.raises(Refused, match=f"process {holder.pid}"):
        run.lock(runner=True)
    holder.kill()
    holder.wait()
    run.lock(runner=True)
    run.unlock()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_named(run, monkeypatch, number, tmp_path):
    def full(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(Refused, match=f"cannot be written to .*{os.strerror(number)}.*choose another --outputs"):
        run.lock(runner=True)
    assert not list(tmp_path.iterdir())


def test_outputs_below_a_file_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert main(["run", "--preset", "demo", "--outputs", str(tmp_path / "file/outputs")]) == 2
    error = capsys.readouterr().err
    assert "choose another --outputs" in error
    assert error.count("\n") == 1


def test_a_given_back_reserve_makes_room(run):
    run.lock(runner=True)
    assert (run.outputs / ".mine.lock").stat().st_size == lock.RESERVE
    run.free_reserve()
    assert (run.outputs / ".mine.lock").stat().st_size == 0
    run.unlock()


def test_a_run_has_its_lease_beside_its_folder(run):
    run.lock(runner=True)
    assert read_json(run.outputs / ".mine.lease")["pid"] == os.getpid()
    run.unlock()
