"""What decides a stage's results, settings and inputs, and how that differs from what it was before."""

import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

from helpers.runs.files import file_sha256
from helpers.runs.settings import expand_paths
from helpers.runs.stages import (
    EMBEDDED_CORPUS,
    OPTIONAL_INPUTS,
    WRITTEN_BY_PEOPLE,
    has_preferred,
    other_seeds,
    stage_inputs,
)

# Settings that runs of earlier versions do not have: what they did, and those that count as they are now
EARLIER_SETTINGS = {"page_language": "en", "encoder": "", "benchmarks": [], "session": {}, "model": ""}
NEW_SETTINGS = ("max_probes", "gates", "human_choice")


def result_settings(parameters: dict) -> dict:
    """Returns the parameters that decide a stage's results: not where it is kept, nor how long a session may last, but
    the hours that the whole run was promised in."""
    decisive = {name: value for name, value in parameters.items() if name not in ("outputs", "run_name", "session")}
    hours = parameters.get("session", {}).get("total_hours", 0.0)  # earlier versions promised nothing
    return decisive | ({"session.total_hours": hours} if "session" in parameters else {})


def settings_differences(stage: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns one line for each setting that decides a stage's results and differs from what it was before."""
    before = {**EARLIER_SETTINGS, **{name: now.get(name) for name in NEW_SETTINGS}, **expand_paths(before)}
    earlier, decisive = result_settings(before), result_settings(now).items()
    return [f"{stage}.{n} was {earlier.get(n)!r}, now {value!r}" for n, value in decisive if earlier.get(n) != value]


def input_hashes(folder: Path, stage: str, parameters: dict) -> dict[str, str]:
    """Returns the SHA-256 of all that a stage reads: files of the run in `folder`, a data set that is a file here."""
    optional = OPTIONAL_INPUTS.get(stage, []) if has_preferred(folder) else []
    hashes = {name: file_sha256(folder / name) for name in [*stage_inputs(stage, parameters), *optional]}
    if stage == "prepare_data":
        dataset = parameters["dataset"]
        hashes["dataset"] = file_sha256(EMBEDDED_CORPUS if dataset == "embedded" else Path(dataset))
    if stage == "prefer":
        hashes |= preference_hashes(folder, parameters["dataset"])
    if stage == "report":  # what people add after an evaluation, and trainings with other seeds
        written = [file for pattern in WRITTEN_BY_PEOPLE for file in folder.glob(pattern)]
        hashes |= {str(file.relative_to(folder)): file_sha256(file) for file in sorted(written)}
        hashes |= {f"seed {seed}": file_sha256(file) for seed, file in other_seeds(folder).items()}
    return hashes


def keep_sources(before: dict[str, str], now: dict[str, str], parameters: dict) -> dict[str, str]:
    """Returns the inputs of a training by preferences that continues: its sources as they were when it began, so that
    what people gave since makes it run again once it has finished."""
    files = stage_inputs("prefer", parameters)
    return {name: hashed for name, hashed in now.items() if name in files} | {
        name: hashed for name, hashed in before.items() if name not in files
    }


def preference_hashes(folder: Path, dataset: list[str]) -> dict[str, str]:
    """Returns the SHA-256 of what people prefer, by source: thumbs, the ratings that came back, files."""
    hashes = {}
    for source in dataset:
        if source == "thumbs":
            hashes[source] = feedback_sha256(folder.parent / "experiments.db")
        elif source == "ratings":
            files = sorted((folder / "evaluate").glob("ratings/*"))
            hashes |= {str(file.relative_to(folder)): file_sha256(file) for file in files if file.is_file()}
        else:
            hashes[source] = file_sha256(Path(source))
    return hashes


def feedback_sha256(database: Path) -> str:
    """Returns the SHA-256 of the thumbs that a database holds, "" where it is missing, damaged or has no such table."""
    if not database.is_file():
        return ""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        rows = connection.execute("SELECT * FROM Feedback ORDER BY id").fetchall()
        return hashlib.sha256(repr(rows).encode()).hexdigest()
    return ""


UNKNOWN = ("dataset", "")  # an input of which no hash was recorded


def changed_inputs(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Returns the names of the inputs whose SHA-256 is another one than before, "the data set" for that.

    A data set that was recorded without one (the embedded corpus, by earlier versions) counts as unchanged.
    """
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return ["the data set" if name == "dataset" else name for name in names if (name, before.get(name)) != UNKNOWN]
