"""The logs of all experiments: what keeps them from being written is told."""

import contextlib
import sqlite3

import pytest

from helpers.runs import experiments
from helpers.runs.experiments import export_logs, open_database


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
