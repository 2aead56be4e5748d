"""What people gave on the chat page: kept by person, replaced, taken back, deleted after a time."""

import datetime
import re

import pytest

from helpers.__main__ import main
from helpers.runs import feedback
from helpers.runs.experiments import export_logs, log_experiment
from helpers.runs.feedback import FeedbackStore, Thumb, new_person, read_person

REPLY = [{"role": "user", "content": "মন খারাপ।"}, {"role": "assistant", "content": "শুনছি।"}]
LIKED, DISLIKED = Thumb("demo", "tuned", REPLY, True, {"seed": 1}), Thumb("demo", "tuned", REPLY, False, {"seed": 1})


@pytest.fixture
def store(tmp_path):
    return FeedbackStore(tmp_path / "experiments.db")


@pytest.fixture
def later(monkeypatch):
    """Returns a function that moves the clock of what is kept by some days."""

    def move(days):
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        monkeypatch.setattr(feedback, "utc_now", lambda: now.isoformat(timespec="seconds"))

    return move


def likes(store):
    return [(row["person"], row["liked"]) for row in store.rows()]


def test_a_later_thumb_replaces_ones_own_alone(store):
    store.keep(LIKED, "a")
    store.keep(LIKED, "b")
    store.keep(DISLIKED, "a")
    assert likes(store) == [("b", True), ("a", False)]


def test_a_better_reply_stands_with_its_thumb(store):
    store.keep(DISLIKED, "a")
    store.keep(Thumb("demo", "tuned", REPLY, False, {}, "আপনার পাশে আছি।"), "a")
    (row,) = store.rows("a")
    assert row["rewritten"] == "আপনার পাশে আছি।"
    assert row["conversation"] == REPLY


def test_a_thumb_can_be_taken_back(store):
    store.keep(LIKED, "a")
    store.keep(LIKED, "b")
    store.withdraw(LIKED, "a")
    assert likes(store) == [("b", True)]


def test_a_person_deletes_their_own_alone(store):
    store.keep(LIKED, "a")
    store.keep(DISLIKED, "b")
    assert [row["person"] for row in store.rows("a")] == ["a"]
    assert store.delete_person("a") == 1
    assert likes(store) == [("b", False)]


def test_thumbs_of_before_are_nobodys_to_delete(store):
    store.keep(LIKED, "")
    with pytest.raises(ValueError, match="the code is empty"):
        store.delete_person("")
    assert len(store.rows()) == 1


def test_what_is_deleted_is_not_left_in_the_file(store):
    store.keep(LIKED, "a")
    assert "শুনছি".encode() in store.database.read_bytes()
    store.delete_person("a")
    assert "শুনছি".encode() not in store.database.read_bytes()


def test_what_is_deleted_leaves_the_exported_files(store):
    log_experiment(store.database, "m", {}, {"train_loss": 1.0, "val_loss": 1.0}, {}, [])
    store.keep(LIKED, "a")
    files = export_logs(store.database)
    assert sum("শুনছি" in file.read_text("utf-8") for file in files) == 3
    store.delete_person("a")
    assert not any("শুনছি" in file.read_text("utf-8") for file in files)


def test_what_is_older_than_the_limit_is_deleted(store, later):
    later(181)
    store.keep(LIKED, "a")
    later(179)
    store.keep(LIKED, "b")
    assert store.delete_expired() == 1
    assert likes(store) == [("b", True)]


def test_the_limit_is_kept_every_day(store, later, monkeypatch):
    timers = []
    monkeypatch.setattr(feedback.threading.Timer, "start", lambda timer: timers.append(timer))
    store.delete_daily()
    later(200)
    store.keep(LIKED, "a")
    (timer,) = timers
    assert (timer.interval, timer.daemon) == (24 * 3600, True)
    timer.function()
    assert store.rows() == []
    assert len(timers) == 2, "the next day is not waited for"


def test_a_store_without_a_database_makes_none(store):
    assert (store.rows(), store.delete_expired(), store.delete_person("a")) == ([], 0, 0)
    assert not store.database.exists()


def test_rows_can_be_restored(store, tmp_path):
    store.keep(LIKED, "a")
    other = FeedbackStore(tmp_path / "other.db")
    other.restore(store.rows())
    assert other.rows() == store.rows()


def test_a_code_is_random_and_read_as_it_is_copied():
    codes = {new_person() for _ in range(50)}
    assert len(codes) == 50
    assert all(re.fullmatch("([a-z2-9]{4}-){3}[a-z2-9]{4}", code) for code in codes)
    code = codes.pop()
    assert read_person(f" {code.upper()}\n") == code


def test_the_owner_deletes_by_code_before_exporting(store, capsys):
    log_experiment(store.database, "m", {}, {"train_loss": 1.0, "val_loss": 1.0}, {}, [])
    store.keep(LIKED, "abcd")
    assert main(["experiments", str(store.database), "--delete-person", "ABCD"]) == 0
    assert capsys.readouterr().out.startswith("thumbs deleted: 1\n")
    assert store.rows() == []
    assert store.database.with_name("feedback.jsonl").read_text("utf-8") == ""
    assert main(["experiments", str(store.database), "--delete-person", "abcd"]) == 2
    assert "no thumb of abcd is in" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["0", "3651", "soon"])
def test_a_limit_out_of_range_is_refused(days, capsys):
    with pytest.raises(SystemExit):
        main(["chat", "--keep-days", days])
    assert "expected a number from 1 to 3,650" in capsys.readouterr().err
