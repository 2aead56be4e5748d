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
  settings TEXT NOT NULL, timestamp TEXT NOT NULL, rewritten TEXT NOT NULL DEFAULT '',
  person TEXT NOT NULL DEFAULT '');
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
LATER_COLUMNS = ("rewritten", "person")  # of Feedback, which databases of earlier versions do not have
FEEDBACK_FILES = ("Feedback.csv", "feedback.jsonl", "preferences.jsonl")  # what export_logs writes of it


@contextlib.contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens the database, made where it is missing, for one transaction."""
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten in the file
        connection.executescript(SCHEMA)
        _add_later_columns(connection)
        with connection:
            yield connection


def _add_later_columns(connection: sqlite3.Connection) -> None:
    """Gives the table Feedback of an earlier version the columns that it lacks; once, whoever else opens it."""
    if _missing_columns(connection):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for name in _missing_columns(connection):
                connection.execute(f"ALTER TABLE Feedback ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")


def _missing_columns(connection: sqlite3.Connection) -> list[str]:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(Feedback)")}
    return [name for name in LATER_COLUMNS if name not in columns]


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


def liked_rows(database: Path) -> list[dict]:
    """Returns the conversations whose last reply was liked, as rows that 01_prepare_data reads ({"messages": […]})."""
    with open_database(database) as connection:
        rows = connection.execute("SELECT conversation FROM Feedback WHERE liked ORDER BY id").fetchall()
    return [{"messages": json.loads(conversation)} for (conversation,) in rows]


def preference_rows(database: Path) -> list[dict]:
    """Returns all thumbs as rows of a file that the stage prefer reads, without who gave them: a pair where somebody
    wrote what they would rather have read, else a reply with its label."""
    with open_database(database) as connection:
        thumbs = connection.execute("SELECT conversation, liked, rewritten FROM Feedback ORDER BY id").fetchall()
    rows = []
    for conversation, liked, rewritten in thumbs:
        *prompt, reply = json.loads(conversation)
        if rewritten.split() and rewritten.split() != reply["content"].split():
            rows.append({"prompt": prompt, "chosen": rewritten.strip(), "rejected": reply["content"]})
        else:
            rows.append({"prompt": prompt, "completion": reply["content"], "label": bool(liked)})
    return rows


def export_logs(database: Path) -> list[Path]:
    """Writes each table as a CSV file beside the database, liked replies as feedback.jsonl and all thumbs as
    preferences.jsonl; returns the files.

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
        for name in ("LLAMAExperiments", "GeneratedResponses"):
            files.append(database.with_name(f"{name}.csv"))
            write_csv(files[-1], pandas.read_sql_query(f"SELECT * FROM {name} ORDER BY id", connection))
    return [*files, *write_feedback_files(database)]


def write_feedback_files(database: Path) -> list[Path]:
    """Writes the table Feedback, the liked replies and all thumbs as preferences beside the database; returns the
    files."""
    import pandas

    table, liked, preferences = map(database.with_name, FEEDBACK_FILES)
    with open_database(database) as connection:
        write_csv(table, pandas.read_sql_query("SELECT * FROM Feedback ORDER BY id", connection))
    write_jsonl(liked, liked_rows(database))
    write_jsonl(preferences, preference_rows(database))
    return [table, liked, preferences]
