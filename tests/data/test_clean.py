"""The cleaning rules: what each takes from a file with planted defects, and what none may take."""

import itertools

import planted
import pytest
from tables import ROW, cleaned

from helpers.data.clean import DROPS, REPAIRS, RULES, FunnelStep, clean_table, example_fates
from helpers.language.bengali import normalise, split_words


@pytest.fixture(scope="module")
def few():
    """Seven rows, of which five break a rule."""
    return cleaned(
        {},
        {"Answers": ""},
        {"Questions": " \u200b\n "},
        {"Questions": "কী?"},
        {"Topics": "অন্য", "Questions": "আমি ভালো নেই।", "Answers": "আমি  ভালো নেই"},
        {},
        {"Answers": "অন্য একটা উত্তর।"},
    )


def test_each_rule_drops_its_own_row_alone(few):
    rules = ["missing side", "missing side", "too short", "question is the answer", "exact duplicate"]
    assert list(few.dropped.rule) == rules
    assert list(few.kept.answer) == [normalise(ROW["Answers"]), "অন্য একটা উত্তর।"]


def test_the_funnel_has_every_rule_in_order(few):
    assert [step.rule for step in few.funnel] == RULES


def test_a_funnel_step_gets_what_the_one_before_left(few):
    steps = [step.as_json() for step in few.funnel if step.rule in DROPS]
    for before, after in itertools.pairwise(steps):
        assert before["rows_out"] == after["rows_in"], f"rows are lost between {before['rule']} and {after['rule']}"
    assert steps[-1]["rows_out"] == 2


def test_a_funnel_step_has_one_json_form():
    step = FunnelStep("url", 8, dropped=2, examples=("ক → খ",))
    facts = {"rule": "url", "rows_in": 8, "changed": 0, "dropped": 2, "rows_out": 6, "share": 0.25}
    assert step.as_json() == facts


def test_a_step_without_rows_has_the_share_zero():
    assert FunnelStep("url", 0).as_json()["share"] == 0


def test_rows_dropped_later_are_the_funnels_next_step(few):
    corpus = few.drop("too long", [few.kept.id[0]])
    assert list(corpus.kept.answer) == ["অন্য একটা উত্তর।"]
    assert list(corpus.dropped.rule)[-1] == "too long"
    assert corpus.funnel[-1] == FunnelStep("too long", 2, dropped=1)
    assert len(few.kept) == 2, "drop changed the corpus it was called on: return a new one"


@pytest.mark.parametrize("rule", DROPS)
def test_every_planted_defect_is_caught_by_its_rule(planted_file, rule):
    dropped = planted_file.corpus.dropped
    wanted, caught = set(planted_file.defects[rule]), set(dropped.number[dropped.rule == rule])
    assert len(wanted) >= 10, f"only {len(wanted)} rows planted for {rule}"
    precision, recall = len(wanted & caught) / len(caught), len(wanted & caught) / len(wanted)
    print(f"{rule}: {len(wanted)} planted, precision {precision:.3f}, recall {recall:.3f}")
    assert recall == 1, f"{rule} missed {sorted(wanted - caught)[:3]}"
    assert precision == 1, f"{rule} took {sorted(caught - wanted)[:3]}"


def test_no_sound_row_is_dropped(planted_file):
    sound = set(planted_file.defects["sound"])
    assert len(sound) >= 20
    assert not sound & set(planted_file.corpus.dropped.number)


@pytest.mark.parametrize("rule", REPAIRS)
def test_every_planted_blemish_is_repaired(planted_file, rule):
    answer_of = dict(zip(planted_file.corpus.kept.number, planted_file.corpus.kept.answer))
    for number in set(planted_file.defects[rule]) & set(answer_of):
        answer = answer_of[number]
        assert not any(mark in answer for mark in ("&nbsp", "&amp", "Â", "<")), answer
        assert split_words(answer)[:3] == split_words(planted.undone(rule, planted_file.raw.Answers[number]))[:3]
    changed = next(step.changed for step in planted_file.corpus.funnel if step.rule == rule)
    assert changed >= len(planted_file.defects[rule]) >= 10


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_can_be_switched_off(planted_file, rule):
    corpus = clean_table(planted_file.table.iloc[:1500], skip_rules=[rule])
    assert rule not in set(corpus.dropped.rule)
    assert rule not in [step.rule for step in corpus.funnel]


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="skip_rules names 'urls': expected one of .*url"):
        cleaned({}, skip_rules=["urls"])


def test_nothing_left_is_an_error_that_counts_the_rules():
    with pytest.raises(ValueError, match="all 2 rows were dropped.*'missing side': 2"):
        cleaned({"Answers": ""}, {"Questions": ""})


def test_roles_stay_swapped_until_the_dialogue_ends():
    mirrored = {"Topics": "ক", "Questions": "আমি ভালো নেই আজ", "Answers": "আমি ভালো নেই আজ।"}
    corpus = cleaned(
        {"Topics": "ক", "Questions": "আগের কথা বলি"},
        mirrored,
        {"Topics": "ক", "Questions": "পরের কথা বলি"},
        {"Topics": "ক", "Question-Title": "শিরোনাম", "Questions": "নতুন কথা বলি"},
        {"Topics": "ক", "Questions": "আরও নতুন কথা"},
    )
    rules = dict(zip(corpus.dropped.number, corpus.dropped.rule))
    assert rules == {2: "question is the answer", 3: "roles swapped"}


def test_misspelt_topics_are_put_to_the_one_they_vary(planted_file):
    assert planted_file.raw.Topics.nunique() > 32
    assert planted_file.corpus.kept.topic.nunique() == 32


def test_the_examples_show_one_row_of_every_fate(planted_file):
    fates = example_fates(planted_file.table, planted_file.corpus, seed=1)
    assert fates[0]["became"].startswith("dropped: ")
    assert fates[1]["became"] != fates[1]["raw answer"]
    assert fates[2]["became"] == "kept as it is"
