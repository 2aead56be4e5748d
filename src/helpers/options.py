"""The options of the command line: one parser for all commands, as commands.yaml describes them."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.platforms.errors import Refused
from helpers.runs.files import expand_home, load_yaml

if TYPE_CHECKING:
    from helpers.runs.record import Run

WORDS = Path(__file__).with_name("commands.yaml")


def existing_run(folder: str) -> "Run":
    """Returns the run in a folder. Raises Refused where there is none."""
    from helpers.runs.record import Run

    run = Run(Path(expand_home(folder)).resolve())
    if not run.exists():
        raise Refused(f"{run / 'run.json'} is missing: {folder} is not the folder of a run.")
    run.record()  # repairs a damaged run.json, and says so
    return run


def number_between(low: float, high: float, kind: type) -> Callable[[str], float]:
    """Returns what reads an option as a number from `low` to `high`; argparse explains its error."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number from {low:,} to {high:,}")
        return value

    return read


def account_name(text: str) -> str:
    """Reads the name of a Kaggle account, "" for that of the credentials; argparse explains its error."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        expected = "expected the name of a Kaggle account as in its address, kaggle.com/NAME: a to z, digits, '-'"
        raise argparse.ArgumentTypeError(f"{text!r}: {expected}")
    return text


TYPES = {  # of options, as commands.yaml names them
    "path": lambda text: Path(expand_home(text)),
    "run": existing_run,
    "account": account_name,
    "count": number_between(0, 1_000_000, int),
    "trainings": number_between(1, 100, int),
    "port": number_between(0, 65535, int),
    "days": number_between(1, 3650, int),
    "gib": number_between(0.1, 100_000, float),
    "hours": number_between(0.1, 10_000, float),
    "seconds": number_between(0.01, 86_400, float),
}


def add_options(parser: argparse.ArgumentParser, options: dict[str, dict]) -> None:
    """Adds options as commands.yaml has them: {name: what add_argument takes, the type by its name}."""
    for name, details in options.items():
        parser.add_argument(name, **{**details, "type": TYPES[details["type"]]} if "type" in details else details)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    words = load_yaml(WORDS)
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    listing = "\n".join(f"  {name:13}{command['help']}" for name, command in words["commands"].items())
    parser = argparse.ArgumentParser(
        "python -m helpers",
        description=words["description"],
        epilog=f"commands:\n{listing}\n\n{words['epilog']}",
        **style,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", help="one of the commands below")
    for name, command in words["commands"].items():
        examples = "\n".join(f"  python -m helpers {line}" for line in command["examples"])
        about: dict[str, Any] = {"description": command["description"], "epilog": f"examples:\n{examples}"}
        options = {**words["options"], **(words["preset_options"] if command.get("from_preset") else {})}
        for option, details in command["options"].items():
            options[option] = {**options.get(option, {}), **details}
        add_options(commands.add_parser(name, **about, **style), options)
    return parser
