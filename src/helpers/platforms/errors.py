"""How a command ends: its exit codes, and the errors that mean more than a failure."""

from helpers.platforms.scrub import scrub

FINISHED, FAILED, REFUSED, PAUSED, INTERRUPTED = 0, 1, 2, 75, 130  # exit codes


class Refused(Exception):
    """Bad settings, or a machine that lacks something: the message is for the user, the exit code is 2, and nothing was
    started."""


class Paused(Exception):
    """The session ends before the work does: what is done is kept, and the same command continues it."""


def describe_error(error: Exception) -> str:
    """Returns an error as one line: its type and the first 200 characters of its message, without secrets."""
    return f"{type(error).__name__}: {' '.join(scrub(str(error)).split())[:200]}"
