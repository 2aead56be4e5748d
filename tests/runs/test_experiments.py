"""The logs of all experiments: what keeps them from being written is told."""

import contextlib
import sqlite3

import pytest

from helpers.runs import experiments
from helpers.runs.experiments import export_logs, liked_rows, open_database
from helpers.runs.feedback import FeedbackStore, Thumb

EARLIER_SCHEMA = """
CREATE TABLE LLAMAExperiments (
  id INTEGER PRIMARY KEY, model_name TEXT NOT NULL, lora_config TEXT NOT NULL, train_loss REAL, val_loss REAL,
  metrics TEXT NOT NULL, timestamp TEXT NOT NULL);
CREATE TABLE Feedback (
  id INTEGER PRIMARY KEY, run TEXT NOT NULL, side TEXT NOT NULL, conversation TEXT NOT NULL, liked INTEGER NOT NULL,
  settings TEXT NOT NULL, timestamp TEXT NOT NULL);
INSERT INTO Feedback VALUES
  (7, 'demo', 'tuned', '[{"role": "user", "content": "মন"}]', 1, '{}', '2026-11-01T00:00:00+00:00');
"""


@pytest.fixture
def database(tmp_path):
    """Returns the path of a database without a row."""
    with open_database(tmp_path / "experiments.db"):
        return tmp_path / "experiments.db"


def test_a_database_in_use_is_to_be_waited_for(database, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(experiments.sqlite3, "connect", lambda place, **how: connect(place, **how | {"timeout": 0.1}))
    with contextlib.closing(connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match="is locked.*: close the other program that writes to it, or wait"):
            export_logs(database)


def test_a_folder_in_place_of_a_database_is_told(database):
    with pytest.raises(ValueError, match="is a folder: name the database in it, .*experiments.db"):
        export_logs(database.parent)


@pytest.fixture
def earlier(tmp_path):
    """Returns the path of a database of the version before people and better replies, with one thumb."""
    with contextlib.closing(sqlite3.connect(tmp_path / "earlier.db")) as connection:
        connection.executescript(EARLIER_SCHEMA)
    return tmp_path / "earlier.db"


def test_an_earlier_database_gets_the_later_columns(earlier):
    (row,) = FeedbackStore(earlier).rows()
    assert (row["run"], row["liked"], row["rewritten"], row["person"]) == ("demo", True, "", "")
    assert liked_rows(earlier) == [{"messages": [{"role": "user", "content": "মন"}]}]


def test_an_earlier_database_takes_new_thumbs(earlier):
    store = FeedbackStore(earlier)
    store.keep(Thumb("demo", "tuned", [{"role": "user", "content": "মন"}], False, {}, "ভালো"), "a")
    assert [(row["person"], row["rewritten"]) for row in store.rows()] == [("", ""), ("a", "ভালো")]
    assert "rewritten,person" in export_logs(earlier)[2].read_text("utf-8").splitlines()[0]


def test_two_who_open_an_earlier_database_add_columns_once(earlier, monkeypatch):
    """The second sees them missing, waits for the first, and looks again."""
    with open_database(earlier):
        pass
    seen, look = iter([["rewritten", "person"]]), experiments._missing_columns
    monkeypatch.setattr(experiments, "_missing_columns", lambda connection: next(seen, None) or look(connection))
    assert len(FeedbackStore(earlier).rows()) == 1
    assert next(seen, None) is None, "the second has not looked"
