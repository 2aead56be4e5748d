"""The chat page's thumbs: which count, and what they say."""

import contextlib
import shutil
import sqlite3

import pytest
from preferences import COLD, SYSTEM, WARM, give_thumb, write_run

from helpers.preference import thumbs
from helpers.preference.sources import read_sources
from helpers.preference.thumbs import read_thumbs
from helpers.runs.experiments import preference_rows
from helpers.runs.files import write_jsonl

PROMPT = "কাল চাকরিটা চলে গেল, বাড়িতে বলতে পারিনি।"  # I lost my job yesterday and could not tell them at home.


def read(run):
    """Returns the thumbs' replies, and the reasons of those that do not count."""
    items, dropped = read_thumbs(run, [SYSTEM])
    return [(item.chosen, item.rejected) for item in items], [own.reason for own in dropped]


@pytest.mark.parametrize("later", [True, False], ids=["as it is now", "of an earlier version"])
def test_thumbs_are_read(run, later):
    give_thumb(run, PROMPT, WARM, True, later=later)
    give_thumb(run, PROMPT, COLD, False, later=later)
    assert read(run) == ([(WARM, ""), ("", COLD)], [])


def test_an_earlier_database_stays_as_it_was(run):
    give_thumb(run, PROMPT, WARM, True, later=False)
    before = (run.outputs / "experiments.db").read_bytes()
    read(run)
    assert (run.outputs / "experiments.db").read_bytes() == before


@pytest.mark.parametrize("liked", [True, False])
def test_a_rewritten_reply_makes_a_pair(run, liked):
    give_thumb(run, PROMPT, COLD, liked, rewritten=f" {WARM} ")
    assert read(run)[0] == [(WARM, COLD)]


def test_a_reply_that_was_not_rewritten_is_a_thumb(run):
    give_thumb(run, PROMPT, WARM, True, rewritten=f"{WARM.replace('।', '')}\u200c ")
    assert read(run)[0] == [(WARM, "")]


def test_the_prompt_is_what_the_model_read(run):
    give_thumb(run, PROMPT, WARM, True)
    assert read_thumbs(run, [])[0][0].prompt == [SYSTEM, {"role": "user", "content": PROMPT}]


@pytest.mark.parametrize(("side", "off_policy"), [("base", True), ("tuned", False), ("preferred", False)])
def test_a_reply_of_any_side_counts(run, side, off_policy):
    give_thumb(run, PROMPT, WARM, True, side=side)
    assert [item.off_policy for item in read_thumbs(run, [])[0]] == [off_policy]


def test_a_reply_of_another_run_counts(run, embedded_rows):
    other = write_run(run.outputs / "other", embedded_rows)
    give_thumb(other, PROMPT, WARM, True)
    assert [item.off_policy for item in read_thumbs(run, [])[0]] == [True]


def test_a_reply_of_another_base_model_does_not_count(run, embedded_rows):
    give_thumb(write_run(run.outputs / "other", embedded_rows, "another/model"), PROMPT, WARM, True)
    assert read(run) == ([], ["reply of another base model"])


def test_a_reply_of_a_run_that_is_gone_does_not_count(run, embedded_rows):
    other = write_run(run.outputs / "other", embedded_rows)
    give_thumb(other, PROMPT, WARM, True)
    shutil.rmtree(other)
    assert read(run) == ([], ["reply of another base model"])


@pytest.mark.parametrize("text", ["", "[]", "[1, 2]", "{", '[{"role": "user", "content": "মন খারাপ"}]', "null"])
def test_a_damaged_conversation_is_dropped(run, text):
    give_thumb(run, PROMPT, WARM, True)
    give_thumb(run, PROMPT, WARM, True, conversation=text)
    assert read(run) == ([(WARM, "")], ["no conversation"])


def test_a_person_has_one_vote_on_a_reply(gather, pairs, run, prompts):
    for person in "abbb":
        give_thumb(run, prompts[0], WARM, True, person=person)
    assert gather(pairs, ["thumbs"]).facts["votes"] == len(pairs) + 2


def test_a_person_is_written_nowhere(gather, pairs, run, prompts):
    give_thumb(run, prompts[0], WARM, True, person="kq7f-2m9x")
    give_thumb(run, "short", WARM, True, person="kq7f-2m9x")
    gathered = gather(pairs, ["thumbs"])
    assert "kq7f" not in repr([gathered.rows, gathered.dropped, gathered.facts])


def test_no_database_is_refused(run):
    with pytest.raises(FileNotFoundError, match="experiments.db is not there: give thumbs on the chat page"):
        read(run)


def test_a_database_without_thumbs_is_refused(run):
    with contextlib.closing(sqlite3.connect(run.outputs / "experiments.db")) as connection, connection:
        connection.execute("CREATE TABLE LLAMAExperiments (id INTEGER)")
    with pytest.raises(ValueError, match="experiments.db holds none: give thumbs on the chat page"):
        read(run)


def test_a_file_that_is_no_database_is_refused(run):
    (run.outputs / "experiments.db").write_text("মন খারাপ" * 100, encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read .*: take it from a copy"):
        read(run)


def test_a_database_in_use_is_to_be_waited_for(run, monkeypatch):
    give_thumb(run, PROMPT, WARM, True)
    connect = sqlite3.connect
    monkeypatch.setattr(thumbs.sqlite3, "connect", lambda place, **how: connect(place, **how | {"timeout": 0.1}))
    with contextlib.closing(connect(run.outputs / "experiments.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match="is locked.*: close the other program that writes to it, or wait"):
            read(run)


def test_exported_thumbs_are_the_same_preferences(gather, run, prompts):
    for number, prompt in enumerate(prompts):
        give_thumb(
            run, prompt, f"{COLD} ({number})", number % 2 == 0, rewritten=f"{WARM} ({number})" * (number % 3 == 0)
        )
    rows = gather(preference_rows(run.outputs / "experiments.db")).rows
    assert [row | {"source": "thumbs"} for row in rows] == gather(sources=["thumbs"]).rows


def test_an_attached_data_set_is_a_source(run, pairs, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "input/preferences.jsonl", pairs)
    monkeypatch.setattr("helpers.data.load.attached_folders", lambda name: [tmp_path / "input"] * (name == "me/mine"))
    assert len(read_sources(run, ["kaggle:me/mine"]).items) == len(pairs)
