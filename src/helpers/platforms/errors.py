"""How a command ends: its exit codes, and the errors that mean more than a failure."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

from helpers.platforms.scrub import scrub

FINISHED, FAILED, REFUSED, PAUSED, INTERRUPTED = 0, 1, 2, 75, 130  # exit codes


class Refused(Exception):
    """Bad settings, or a machine that lacks something: the message is for the user, the exit code is 2, and nothing was
    started."""


class Paused(Exception):
    """The session ends before the work does: what is done is kept, and the same command continues it."""


DISK_ERRORS = {
    "is full": ("[Errno 28]", "[Errno 122]", "disk is full", "No space left"),
    "is read-only": ("[Errno 30]", "readonly database"),
    "may not be written": ("[Errno 13]",),
}

MOST_CHARACTERS = 200  # of a message in a line


def explain_disk_error(error: str, folder: str) -> str:
    """Returns an error of the system as a sentence with what to do where the disk is its cause; any other as it is."""
    for problem, marks in DISK_ERRORS.items():
        if any(mark in error for mark in marks):
            line = error.partition("\n")[0][:200]
            return f"the disk of {folder} {problem} ({line}). Mend that and run the same command again: it continues."
    return error


@contextlib.contextmanager
def about_preset(preset: str, several: bool) -> Iterator[None]:
    """Names the preset in what is refused of it, where `several` were asked for."""
    try:
        yield
    except (Refused, ValueError) as error:
        if not several or f"preset {preset}" in str(error):
            raise
        raise Refused(f"preset {preset}: {error}") from error


def describe_error(error: Exception) -> str:
    """Returns an error as one line: its type and its message, without secrets, cut after a word at 200 characters."""
    text = " ".join(scrub(str(error)).split())
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS].rpartition(' ')[0] or text[:MOST_CHARACTERS]} …"
    return f"{type(error).__name__}: {text}"


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the closest known name, else the list of all."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(sorted(known))}."
