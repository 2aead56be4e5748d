"""The two logs people look for, in SQLite: LLAMAExperiments and GeneratedResponses.

python -m helpers.experiments outputs/experiments.db writes them as CSV files beside it, and the chat page's liked
replies as feedback.jsonl, rows to train on.
"""

import contextlib
import json
import sqlite3
import sys
from pathlib import Path

from helpers import env

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


def log(database: Path, model_name: str, lora_config: dict, train: dict, metrics: dict, replies: list[dict]) -> int:
    """Writes one experiment with its replies (`prompt`, `reply`, `at`) in one transaction and returns its id."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.executescript(SCHEMA)
        with connection:
            experiment = connection.execute(
                "INSERT INTO LLAMAExperiments (model_name, lora_config, train_loss, val_loss, metrics, timestamp) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    model_name,
                    json.dumps(lora_config, ensure_ascii=False, sort_keys=True),
                    train["train_loss"],
                    train["val_loss"],
                    json.dumps(metrics, ensure_ascii=False),
                    env.now(),
                ),
            ).lastrowid
            connection.executemany(
                "INSERT INTO GeneratedResponses (experiment_id, input_text, response_text, timestamp) "
                "VALUES (?, ?, ?, ?)",
                [(experiment, row["prompt"], row["reply"], row["at"]) for row in replies],
            )
    return experiment


def log_replies(database: Path, experiment: int, replies: list[dict]) -> None:
    """Adds replies (`prompt`, `reply`, `at`) to an experiment, in one transaction."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.executescript(SCHEMA)
        with connection:
            connection.executemany(
                "INSERT INTO GeneratedResponses (experiment_id, input_text, response_text, timestamp) "
                "VALUES (?, ?, ?, ?)",
                [(experiment, row["prompt"], row["reply"], row["at"]) for row in replies],
            )


def log_thumb(database: Path, run: str, side: str, conversation: list[dict], liked: bool, settings: dict) -> None:
    """Keeps what somebody thinks of the last reply of a conversation (messages); a later thumb replaces an earlier."""
    said = json.dumps(conversation, ensure_ascii=False)
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.executescript(SCHEMA)
        with connection:
            connection.execute(
                "DELETE FROM Feedback WHERE run = ? AND side = ? AND conversation = ?", (run, side, said)
            )
            connection.execute(
                "INSERT INTO Feedback (run, side, conversation, liked, settings, timestamp) VALUES (?, ?, ?, ?, ?, ?)",
                (run, side, said, int(liked), json.dumps(settings), env.now()),
            )


def liked_rows(database: Path) -> list[dict]:
    """Returns the conversations whose last reply was liked, as rows that 01_prepare_data reads ({"messages": […]})."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.executescript(SCHEMA)
        found = connection.execute("SELECT conversation FROM Feedback WHERE liked ORDER BY id").fetchall()
    return [{"messages": json.loads(conversation)} for (conversation,) in found]


def export(database: Path) -> list[Path]:
    """Writes each table as a CSV file beside the database, and liked replies as feedback.jsonl; returns the files.

    Raises FileNotFoundError without a database.
    """
    import pandas

    if not database.is_file():
        raise FileNotFoundError(f"{database} is not there: expected the experiments.db of an outputs folder.")
    files = []
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.executescript(SCHEMA)
        for name in ("LLAMAExperiments", "GeneratedResponses", "Feedback"):
            files.append(database.with_name(f"{name}.csv"))
            env.write_csv(files[-1], pandas.read_sql_query(f"SELECT * FROM {name} ORDER BY id", connection))
    files.append(database.with_name("feedback.jsonl"))
    env.write_jsonl(files[-1], liked_rows(database))
    return files


if __name__ == "__main__":
    print("\n".join(map(str, export(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/experiments.db")))))
