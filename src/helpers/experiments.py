"""The two logs people look for, in SQLite: LLAMAExperiments and GeneratedResponses.

python -m helpers.experiments outputs/experiments.db writes both as CSV files beside it.
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


def export(database: Path) -> list[Path]:
    """Writes each table as a CSV file beside the database and returns the files. FileNotFoundError without it."""
    import pandas

    if not database.is_file():
        raise FileNotFoundError(f"{database} is not there: expected the experiments.db of an outputs folder.")
    files = []
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        for name in ("LLAMAExperiments", "GeneratedResponses"):
            files.append(database.with_name(f"{name}.csv"))
            env.write_csv(files[-1], pandas.read_sql_query(f"SELECT * FROM {name} ORDER BY id", connection))
    return files


if __name__ == "__main__":
    print("\n".join(map(str, export(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/experiments.db")))))
