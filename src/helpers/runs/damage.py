"""Files of a run that are damaged: the error names the file and the field, and what mends it."""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from helpers.platforms.errors import Refused, describe_error

MEND = "Take the file from a copy of the run, or run its stage again with --force; a training would begin anew."


@contextlib.contextmanager
def reading(path: Path, mend: str = MEND) -> Iterator[None]:
    """Raises Refused that names the file, and the field where one is wrong, when its content cannot be used."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "its content"
        wrong = "" if problem["type"] == "missing" else f" is {repr(problem['input'])[:60]}"
        raise Refused(f"{path}: {field}{wrong}: {problem['msg']}. {mend}") from error
    except KeyError as error:
        raise Refused(f"{path} has no field {error.args[0]!r}. {mend}") from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, ArithmeticError, csv.Error) as error:
        named = str(path) in str(error)
        raise Refused(str(error) if named else f"{path} is damaged ({describe_error(error)}). {mend}") from error
