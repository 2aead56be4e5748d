"""The two logs people look for, in SQLite: LLAMAExperiments and GeneratedResponses; and the chat page's thumbs."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from helpers.platforms.errors import describe_error
from helpers.runs.files import utc_now, write_csv, write_jsonl

SCHEMA = """
CREATE TABLE IF NOT EXISTS LLAMAExperiments (
  id INTEGER PRIMARY KEY, model_name TEXT NOT NULL, lora_config TEXT NOT NULL, train_loss REAL, val_loss REAL,
  metrics TEXT NOT NULL, timestamp TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS Feedback (
  id INTEGER PRIMARY KEY, run TEXT NOT NULL, side TEXT NOT NULL, conversation TEXT NOT NULL, liked INTEGER NOT NULL,
  settings TEXT NOT NULL, timestamp TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS GeneratedResponses (
  id INTEGER PRIMARY KEY, experiment_id INTEGER NOT NULL REFERENCES LLAMAExperiments(id), input_text TEXT NOT NULL,
  response_text TEXT NOT NULL, timestamp TEXT NOT NULL);
"""


INSERT_EXPERIMENT = (
    "INSERT INTO LLAMAExperiments (model_name, lora_config, train_loss, val_loss, metrics, timestamp) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
INSERT_REPLY = (
    "INSERT INTO GeneratedResponses (experiment_id, input_text, response_text, timestamp) "
    "VALUES (:experiment, :prompt, :reply, :at)"
)
INSERT_THUMB = "INSERT INTO Feedback (run, side, conversation, liked, settings, timestamp) VALUES (?, ?, ?, ?, ?, ?)"


@contextlib.contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens the database, made where it is missing, for one transaction."""
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.executescript(SCHEMA)
        with connection:
            yield connection


def log_experiment(
    database: Path, model_name: str, lora_config: dict, train: dict, metrics: dict, replies: list[dict]
) -> int:
    """Writes one experiment with its replies (`prompt`, `reply`, `at`) in one transaction and returns its id."""
    losses = (train["train_loss"], train["val_loss"])
    texts = (json.dumps(lora_config, ensure_ascii=False, sort_keys=True), json.dumps(metrics, ensure_ascii=False))
    with open_database(database) as connection:
        cursor = connection.execute(INSERT_EXPERIMENT, (model_name, texts[0], *losses, texts[1], utc_now()))
        connection.executemany(INSERT_REPLY, [reply | {"experiment": cursor.lastrowid} for reply in replies])
    return cursor.lastrowid or 0


def log_replies(database: Path, experiment: int, replies: list[dict]) -> None:
    """Adds replies (`prompt`, `reply`, `at`) to an experiment, in one transaction."""
    with open_database(database) as connection:
        connection.executemany(INSERT_REPLY, [reply | {"experiment": experiment} for reply in replies])


def log_thumb(database: Path, run: str, side: str, conversation: list[dict], liked: bool, settings: dict) -> None:
    """Keeps a thumb on the last reply of a conversation (messages); a later thumb replaces an earlier one."""
    key = (run, side, json.dumps(conversation, ensure_ascii=False))
    with open_database(database) as connection:
        connection.execute("DELETE FROM Feedback WHERE run = ? AND side = ? AND conversation = ?", key)
        connection.execute(INSERT_THUMB, (*key, int(liked), json.dumps(settings), utc_now()))


def liked_rows(database: Path) -> list[dict]:
    """Returns the conversations whose last reply was liked, as rows that 01_prepare_data reads ({"messages": […]})."""
    with open_database(database) as connection:
        rows = connection.execute("SELECT conversation FROM Feedback WHERE liked ORDER BY id").fetchall()
    return [{"messages": json.loads(conversation)} for (conversation,) in rows]


def export_logs(database: Path) -> list[Path]:
    """Writes each table as a CSV file beside the database, and liked replies as feedback.jsonl; returns the files.

    Raises FileNotFoundError without a database, ValueError for a file that is none or that cannot be read.
    """
    import pandas

    if database.is_dir():
        raise ValueError(f"{database} is a folder: name the database in it, {database / 'experiments.db'}.")
    if not database.is_file():
        raise FileNotFoundError(f"{database} is not there: expected the experiments.db of an outputs folder.")
    try:
        check_tables(database)
        return _write_tables(database)
    except (sqlite3.Error, pandas.errors.DatabaseError, ValueError) as error:
        locked = "is locked" in str(error)  # by a transaction that another program has not ended
        hint = "close the other program that writes to it, or wait for it" if locked else "take it from a copy"
        raise ValueError(f"{database} cannot be read ({describe_error(error)}): {hint}.") from error


def check_tables(database: Path) -> None:
    """Raises ValueError where a database, which is only read, is not that of an outputs folder."""
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "LLAMAExperiments" not in names:
        raise ValueError("it has no table LLAMAExperiments: expected the experiments.db of an outputs folder")


def _write_tables(database: Path) -> list[Path]:
    import pandas

    files = []
    with open_database(database) as connection:
        for name in ("LLAMAExperiments", "GeneratedResponses", "Feedback"):
            files.append(database.with_name(f"{name}.csv"))
            write_csv(files[-1], pandas.read_sql_query(f"SELECT * FROM {name} ORDER BY id", connection))
    files.append(database.with_name("feedback.jsonl"))
    write_jsonl(files[-1], liked_rows(database))
    return files
