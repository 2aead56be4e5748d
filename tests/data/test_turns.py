"""Conversations that are not as they should be: one fate each, by a rule that the funnel counts."""

import json
import math

import pandas
import pytest

from helpers.data.clean import clean_table
from helpers.data.load import load_table, unify_columns
from helpers.data.rows import data_rows
from helpers.data.turns import CHANGED, DROPPED, EMPTY_TURN
from helpers.language.bengali import normalise

SYSTEM = ("system", "মন দিয়ে শোনো।")
USER, ANSWER = ("user", "আমার মন ভালো নেই আজ।"), ("assistant", "আপনার কষ্টটা বুঝতে পারছি।")
MORE, REPLY = ("user", "রাতে ঘুমও আসে না।"), ("assistant", "শোবার আগে একটু হাঁটতে পারেন।")
THANKS = ("user", "ধন্যবাদ, মনটা হালকা হলো।")
SOUND = [[USER, ANSWER], [SYSTEM, USER, ANSWER], [USER, ANSWER, MORE, REPLY], [USER, MORE, REPLY]]
BAD = {  # rule: conversations that it drops
    "no conversation": [None, math.nan, [], "কথা", 7, {}, ["কথা"], "[{'role': 'user'", [None]],
    "unknown role": [[USER, ("oracle", "শান্ত হোন।")], [(None, "কথা"), ANSWER], [USER, ("সহায়ক", "শুনছি।")]],
    "tool turn": [
        [USER, ("tool", "{}"), ANSWER],
        [USER, ("function", "২৫ ডিগ্রি"), ANSWER],
        [USER, ("observation", "২৫ ডিগ্রি"), ANSWER],
        [{"role": "user", "content": USER[1]}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
    ],
    "misplaced system turn": [[SYSTEM, SYSTEM, USER, ANSWER], [USER, SYSTEM, ANSWER], [SYSTEM, USER, SYSTEM, ANSWER]],
    "answer without a question": [
        [ANSWER, USER, REPLY],
        [USER, ANSWER, REPLY],
        [SYSTEM, ANSWER, USER, REPLY],
        [ANSWER],
        [USER, ANSWER, ("assistant", None)],
        [USER, ANSWER, ("assistant", "")],
    ],
    "empty turn": [
        [USER, ("assistant", "")],
        [USER, ("assistant", None)],
        [USER, ("assistant", math.nan)],
        [USER, ("assistant", " \u200b\n"), MORE, REPLY],
        [USER, ANSWER, ("user", ""), REPLY],
        [USER, ("assistant", "<br><br>"), MORE, REPLY],
        [USER, ANSWER, MORE, ("assistant", "")],
    ],
    "list cell": [
        [USER, ("assistant", ["শান্ত হোন।", "ধীরে শ্বাস নিন।"])],
        [USER, ("assistant", "['শান্ত হোন।']")],
        [USER, ("assistant", [{"type": "text", "text": "শান্ত হোন, ধীরে শ্বাস নিন।"}]), MORE, REPLY],
        [("user", '["মন ভালো নেই", "ঘুম আসে না"]'), ANSWER],
    ],
    "missing side": [[USER], [SYSTEM, USER], [SYSTEM]],
    "too short": [
        [USER, ("assistant", "হুম"), MORE, REPLY],
        [USER, ANSWER, MORE, ("assistant", "হুম")],
        [SYSTEM, USER, ("assistant", "হুম"), MORE, REPLY],
    ],
    "signature": [
        [USER, ("assistant", "শান্ত হোন। রবিন শিল্পী, LMFT"), MORE, REPLY],
        [USER, ("assistant", "শান্ত হোন। শুভেচ্ছান্তে, রবিন শিল্পী।"), MORE, REPLY],
    ],
    "foreign crisis number": [
        [USER, ("assistant", "৯১১/৯৮৮"), MORE, REPLY],
        [USER, ("assistant", "নম্বরটা:\n৯৮৮"), MORE, REPLY],
    ],
    "not Bengali": [
        [USER, ("assistant", "I hear how hard this is."), MORE, ("assistant", f"{ANSWER[1]} {REPLY[1]} " * 3)],
        [USER, ("assistant", f"{ANSWER[1]} {REPLY[1]} " * 3), MORE, ("assistant", "I hear how hard this is.")],
        [USER, ANSWER, MORE, ("assistant", "আপোনাৰ কষ্ট মই বুজি পাইছোঁ, আপুনি অকলশৰীয়া নহয়।")],
    ],
}
EVERY = [(rule, value) for rule, values in BAD.items() for value in values]


def as_turns(conversation):
    """Returns a conversation as its cell: (role, content) pairs become objects, anything else stays."""
    if not isinstance(conversation, list):
        return conversation
    return [{"role": t[0], "content": t[1]} if isinstance(t, tuple) else t for t in conversation]


def cleaned(*conversations, **options):
    """Returns the corpus of these conversations after a sound one."""
    cells = [
        as_turns([("user", "প্রথম কথাটা আমি বলি।"), ("assistant", "প্রথম উত্তরটা আমি দিই।")]),
        *map(as_turns, conversations),
    ]
    raw = pandas.DataFrame({"messages": pandas.Series(cells, dtype=object)})
    return clean_table(unify_columns(raw, "auto", "a test")[0], **options)


def counts(corpus):
    """Returns how many rows each rule changed or dropped, without the rules that touched none."""
    return {step.rule: step.changed + step.dropped for step in corpus.funnel if step.changed + step.dropped}


@pytest.mark.parametrize("conversation", SOUND)
def test_a_sound_conversation_is_kept_as_it_is(conversation):
    corpus = cleaned(conversation)
    expected = [{"role": role, "content": normalise(content)} for role, content in conversation]
    assert corpus.kept.messages.iloc[-1] == expected
    assert counts(corpus) == {}


@pytest.mark.parametrize(("rule", "conversation"), EVERY)
def test_a_bad_conversation_is_dropped_by_its_rule_alone(rule, conversation):
    corpus = cleaned(conversation)
    assert list(corpus.dropped.rule) == [rule]
    assert list(corpus.dropped.number) == [2]
    assert counts(corpus)[rule] == 1


def test_many_bad_conversations_are_each_counted_once():
    corpus = cleaned([USER, ANSWER, MORE, REPLY], *(conversation for _, conversation in EVERY))
    assert len(corpus.kept) == 2
    assert corpus.dropped.rule.value_counts().to_dict() == {rule: len(values) for rule, values in BAD.items()}


@pytest.mark.parametrize(
    "ending", [[THANKS], [THANKS, THANKS], [("user", "")], [("system", "শেষ।")]], ids=["one", "two", "empty", "system"]
)
def test_turns_after_the_last_answer_are_cut(ending):
    corpus = cleaned([USER, ANSWER, MORE, REPLY, *ending])
    assert corpus.kept.messages.iloc[-1][-1] == {"role": "assistant", "content": normalise(REPLY[1])}
    assert counts(corpus) == {"turns after the last answer": 1}


@pytest.mark.parametrize("turn", ["কেন?", "ok", "Why?"])
def test_a_short_or_foreign_turn_of_the_user_costs_nothing(turn):
    assert cleaned([USER, ANSWER, MORE, REPLY, ("user", turn), ("assistant", "শুনছি, বলুন।")]).dropped.empty


def test_what_was_cut_is_no_part_of_the_question():
    assert normalise(THANKS[1]) not in cleaned([USER, ANSWER, THANKS]).kept.question.iloc[-1]


def test_the_reference_of_a_data_row_is_its_last_turn():
    conversations = [*SOUND, *([*conversation, THANKS] for conversation in SOUND)]
    rows = data_rows(cleaned(*conversations, skip_rules=["exact duplicate"]).kept.assign(group="g"), "নিজের", "x")
    assert len(rows) == 9
    assert {row["messages"][-1]["role"] for row in rows} == {"assistant"}


def test_an_empty_system_turn_leaves_its_place_to_the_runs_own():
    corpus = cleaned([("system", " \u200b"), USER, ANSWER])
    rows = data_rows(corpus.kept.assign(group="g"), "নিজের", "x")
    assert {row["messages"][0]["content"] for row in rows} == {"নিজের"}
    assert counts(corpus) == {"empty system turn": 1}


@pytest.mark.parametrize("role", ["User", "HUMAN"])
def test_the_case_of_a_role_does_not_matter(role):
    assert cleaned([(role, USER[1]), ("Assistant", ANSWER[1])]).dropped.empty


def test_the_rules_of_conversations_come_before_the_others():
    rules = [step.rule for step in cleaned([USER, ANSWER]).funnel]
    places = [rules.index(rule) for rule in [*CHANGED, *DROPPED, EMPTY_TURN, "missing side"]]
    assert places == sorted(places)


@pytest.mark.parametrize("rule", [*CHANGED, *DROPPED, EMPTY_TURN])
def test_a_rule_of_conversations_cannot_be_skipped(rule):
    with pytest.raises(ValueError, match=f"skip_rules names '{rule}'"):
        cleaned([USER, ANSWER], skip_rules=[rule])


def test_a_dropped_conversation_shows_its_turns_in_the_table():
    dropped = cleaned([USER, ("oracle", "শান্ত হোন।")]).dropped
    assert dropped.question[0] == f"user: {normalise(USER[1])}\noracle: শান্ত হোন।"


def test_a_table_of_bad_conversations_shows_what_was_expected():
    raw = pandas.DataFrame({"messages": [as_turns([USER, ("oracle", "শান্ত হোন।")])] * 2})
    message = r"no conversation to train on. Row 1, unknown role: expected a list of .* roles human, .*got .*oracle"
    with pytest.raises(ValueError, match=message):
        unify_columns(raw, "auto", "a test")


@pytest.mark.parametrize("write", [json.dumps, str], ids=["JSON", "Python"])
def test_a_conversation_in_a_csv_cell_is_read(tmp_path, write):
    path = tmp_path / "a.csv"
    pandas.DataFrame({"messages": [write(as_turns([USER, ANSWER])), "[{]"]}).to_csv(path, index=False)
    corpus = clean_table(load_table(str(path))[0])
    assert list(corpus.kept.answer) == [normalise(ANSWER[1])]
    assert list(corpus.dropped.rule) == ["no conversation"]


def test_nulls_of_a_parquet_file_have_the_same_fates(tmp_path):
    cells = [
        as_turns([USER, ANSWER]),
        None,
        [],
        as_turns([USER, ("assistant", None)]),
        as_turns([USER, ANSWER, THANKS]),
    ]
    pandas.DataFrame({"messages": cells}).to_parquet(tmp_path / "a.parquet")
    corpus = clean_table(load_table(str(tmp_path / "a.parquet"))[0])
    assert list(corpus.dropped.rule) == ["no conversation", "no conversation", "empty turn", "exact duplicate"]
