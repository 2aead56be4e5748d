"""One runner at a time works on a run, with the kernels and processes it starts.

The system's lock on a file beside the run's folder ends with its processes, however they end. A runner and all that it
starts share it, and a runner takes it when nobody has it. What it cannot tell stands in leases: who the holder is, and,
for another machine at the same mirror or network folder, that it still works.
"""

import contextlib
import errno
import importlib
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import psutil
from pydantic import BaseModel, Field

from helpers.platforms.errors import Refused, describe_error
from helpers.runs.files import utc_now, write_text

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # elsewhere leases alone
HOLDER = "SAHANUBHUTI_LOCK_HOLDER"  # in the environment of what a holder starts: the owner in its leases
RESERVE = 2**20  # bytes of the disk, given back to write how a stage failed on a full one
FOLDER_SECONDS, MIRROR_SECONDS, HUB_SECONDS = 120.0, 240.0, 900.0  # a lease's life; it is renewed four times in it


class TakenOver(OSError):
    """Another holder has the lease that this one had."""


class Lease(BaseModel):
    """Who holds a run, and until when unless it renews."""

    owner: str  # the same for a runner and all that it starts
    kind: str  # "runner" or "notebook"
    host: str
    machine: str
    pid: int = Field(gt=0, lt=2**31)
    born: float  # when the process started, seconds since the epoch
    started: str  # ISO 8601 in UTC
    expires: float  # seconds since the epoch

    def is_alive_here(self) -> bool:
        """Returns whether the holder is a process of this machine that still runs."""
        if self.machine != machine_id():
            return False
        with contextlib.suppress(psutil.Error):
            return abs(psutil.Process(self.pid).create_time() - self.born) < 60  # the clock may have been set
        return False


class Place(Protocol):
    """Where a lease is kept."""

    seconds: float  # a lease's life there

    def read(self) -> bytes | None: ...
    def write(self, text: str) -> None: ...
    def remove(self) -> None: ...


class FilePlace:
    """A lease in a file."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds, self.new_folder = path, seconds, False

    def __str__(self) -> str:
        return str(self.path.parent)

    def read(self) -> bytes | None:
        """Returns the file's content, None where there is none."""
        return self.path.read_bytes() if self.path.is_file() else None

    def write(self, text: str) -> None:
        """Replaces the file's content."""
        self.new_folder = self.new_folder or not self.path.parent.exists()
        write_text(self.path, text)

    def remove(self) -> None:
        """Removes the file, and the folder that was made for it and has stayed empty."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            if self.new_folder:
                self.path.parent.rmdir()


@cache
def machine_id() -> str:
    """Returns what tells this machine, since its start, from every other; containers count as machines."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)


@cache
def _owner(process: int) -> str:
    """Returns the name under which a process, and all that it starts, holds runs."""
    os.environ[HOLDER] = uuid.uuid4().hex
    return os.environ[HOLDER]


def read_lease(place: Place) -> Lease | None:
    """Returns the lease at a place, None where there is none that can be read."""
    content = place.read()
    with contextlib.suppress(ValueError):
        return Lease.model_validate_json(content) if content else None
    return None


def check_lease(place: Place) -> None:
    """Raises TakenOver when another runner than this process's holds the lease of a place."""
    lease = read_lease(place)
    if lease and lease.owner != os.environ.get(HOLDER):
        raise TakenOver(f"the {lease.kind} with process {lease.pid} on {lease.host} has taken it over")


class RunLock:
    """The lock of a run's folder, with a lease beside it and at each of `places`; `what` is its name in messages."""

    def __init__(self, folder: Path, places: Sequence[Place] = (), what: str = "") -> None:
        self.folder, self.what = folder.resolve(), what or f"run {folder.name}"
        self.new_folders = [path for path in self.folder.parents if not path.exists()]
        self.file = self.folder.with_name(f".{self.folder.name}.lock")
        beside = FilePlace(self.folder.with_name(f".{self.folder.name}.lease"), FOLDER_SECONDS)
        self.places: list[Place] = [beside, *places]
        self.descriptor: int | None = None
        self.has_locks = fcntl is not None
        self.lease: Lease | None = None
        self.over, self.renewal = threading.Event(), threading.Thread(target=self._renew, daemon=True)

    # Taking it

    def hold(self, patience: float) -> None:
        """Takes the run for this process and all that it starts.

        Raises Refused when another has it: at once, or after `patience` seconds when only processes that a killed
        holder left still run. Waits while a lease of another machine may be of a killed one. Raises OSError where
        nothing can be written.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._wait_for(exclusive=True, patience=patience)
            for place in self.places:
                with self._named(place):
                    self._wait_until_free(place)
            self._reserve()
            self._write_leases()
            self._wait_for(exclusive=False, patience=patience)  # shared with what this process starts
        except BaseException:
            self.release()
            raise
        self.renewal.start()

    def is_of_family(self) -> bool:
        """Returns whether the runner that started this process holds the run."""
        lease = read_lease(self.places[0])
        return lease is not None and lease.owner == os.environ.get(HOLDER)

    def join(self, patience: float) -> None:
        """Shares the lock of the runner that started this process. Raises Refused when another has taken it since."""
        try:
            self._wait_for(exclusive=False, patience=patience)
            lease = read_lease(self.places[0])
            if lease and lease.owner != os.environ.get(HOLDER):
                raise self._held_by(lease)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives the run back."""
        self.over.set()
        if self.renewal.is_alive():
            self.renewal.join(60)
        if self.lease:
            for place in self.places:
                with contextlib.suppress(Exception):  # the Hub's, the network's: then it expires
                    lease = read_lease(place)
                    if lease is None or lease.owner == self.lease.owner:
                        place.remove()
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                if self._try_lock(exclusive=True):  # nobody shares it
                    self.file.unlink(missing_ok=True)
            os.close(self.descriptor)
        self.descriptor = self.lease = None
        with contextlib.suppress(OSError):
            for folder in self.new_folders:  # and nothing was started in it
                folder.rmdir()

    def _reserve(self) -> None:
        """Takes RESERVE bytes of the disk. Raises OSError when it is full."""
        if self.descriptor is not None and os.pwrite(self.descriptor, bytes(RESERVE), 0) < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def free_reserve(self) -> None:
        """Gives the reserved bytes of the disk back."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, 0)

    # The system's lock

    def _try_lock(self, exclusive: bool) -> bool:
        """Takes the system's lock, or changes it between shared and exclusive; False when others have it."""
        if not self.has_locks:
            return True
        while True:
            if self.descriptor is None:
                self.descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self.descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:  # a file system without locks, such as a mounted Drive
                self.has_locks = False
                return True
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self.descriptor), self.file.stat()):
                    return True
            os.close(self.descriptor)  # its last holder has removed the file
            self.descriptor = None

    def _wait_for(self, exclusive: bool, patience: float) -> None:
        """Waits for the system's lock. Raises Refused at once when its holder lives, else after `patience` seconds."""
        ends = time.monotonic() + patience
        while not self._try_lock(exclusive):
            lease = read_lease(self.places[0])
            if exclusive and lease and lease.is_alive_here():
                raise self._held_by(lease)
            if time.monotonic() >= ends:
                raise Refused(
                    f"{self.what} is still worked on by processes of a holder that was killed: wait until they have "
                    f"ended, or restart the notebook's kernel, and try again."
                )
            time.sleep(0.1)

    # Leases

    @contextlib.contextmanager
    def _named(self, place: Place) -> Iterator[None]:
        """Turns an error of a mirror into Refused, with its name."""
        try:
            yield
        except Refused:
            raise
        except Exception as error:  # the Hub's, the network's, the system's
            if place is self.places[0]:
                raise
            raise Refused(
                f"{self.what}: its mirror {place} does not tell who works on it, or cannot be written "
                f"({describe_error(error)}). Mend that, or choose another session.mirror. Nothing was changed."
            ) from error

    def _held_by(self, lease: Lease) -> Refused:
        return Refused(
            f"{self.what} is held by the {lease.kind} with process {lease.pid} on {lease.host} since {lease.started}: "
            f"wait until it ends, or end it there; what it has done is kept."
        )

    def _wait_until_free(self, place: Place) -> None:
        """Returns when no living holder has a lease at a place; raises Refused when one has.

        A holder of another machine lives when it renews its lease; one that was killed is waited for.
        """
        lease, began = read_lease(place), time.monotonic()
        if lease is None or lease.machine == machine_id():
            if lease and lease.is_alive_here() and lease.pid != os.getpid():
                raise self._held_by(lease)
            return
        if time.time() < lease.expires:
            print(f"{self.what}: waiting up to {place.seconds:.0f} s whether {lease.host} still works on it")
        while time.time() < lease.expires and time.monotonic() - began < place.seconds:
            time.sleep(min(1.0, place.seconds / 20))
            now = read_lease(place)
            if now is None:
                return
            if now.expires != lease.expires:
                raise self._held_by(now)

    def _write_leases(self) -> None:
        """Writes this process's lease to every place. Raises Refused when another did so at the same moment."""
        kernel: Any = sys.modules.get("ipykernel.kernelapp")
        kind = "notebook" if kernel and kernel.IPKernelApp.initialized() else "runner"
        who = {"host": socket.gethostname(), "machine": machine_id(), "pid": os.getpid()}
        born = psutil.Process().create_time()
        owner = _owner(os.getpid())
        self.lease = Lease(owner=owner, kind=kind, **who, born=born, started=utc_now(), expires=0)
        for place in self.places:
            with self._named(place):
                self._write(place)
        shared = self.places[1:] if self.has_locks else self.places
        if shared:
            time.sleep(1)  # longer than from the look at a lease to its writing
        for place in shared:
            lease = read_lease(place)
            if lease and lease.owner != owner:
                raise self._held_by(lease)

    def _write(self, place: Place) -> None:
        if self.lease:
            self.lease = self.lease.model_copy(update={"expires": time.time() + place.seconds})
            place.write(self.lease.model_dump_json())

    def _renew(self) -> None:
        """Renews the leases until the lock is released; pauses the run when another holder has taken one."""
        due = {number: place.seconds / 4 for number, place in enumerate(self.places)}  # seconds from the start
        began, problems = time.monotonic(), set()
        while not self.over.wait(max(0.0, began + min(due.values()) - time.monotonic())):
            number = min(due, key=lambda each: due[each])
            due[number] = time.monotonic() - began + self.places[number].seconds / 4
            try:
                check_lease(self.places[number])
                self._write(self.places[number])
            except Exception as error:  # the Hub's, the network's, a full disk's: it is tried again
                problem = f"the lease at {self.places[number]} was not renewed ({describe_error(error)})"
                if problem not in problems:
                    print(f"{self.what}: {problem}", file=sys.stderr, flush=True)
                problems.add(problem)
                if isinstance(error, TakenOver) and self.folder.is_dir():
                    (self.folder / "stop").touch()  # this session pauses
