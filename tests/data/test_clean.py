"""The cleaning rules: what each takes from a file with planted defects, and what none may take."""

import itertools
import re
from pathlib import Path

import corpus_twin
import pandas
import planted
import pytest
import regex
from tables import ROW, cleaned, unified_table

from helpers.data import turns
from helpers.data.clean import DROPS, REPAIRS, RULES, FunnelStep, canonicalise_topics, clean_table, example_fates
from helpers.data.excerpts import URL, excerpt, excerpt_change
from helpers.language.bengali import normalise
from helpers.language.hotlines import foreign_crisis_number


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
def test_every_planted_defect_is_caught_by_its_rule(twin, rule):
    counts = corpus_twin.count_fates(twin.file, twin.corpus).loc[rule]
    assert counts.planted >= 10, f"only {counts.planted} rows planted for {rule}"
    assert counts.missed == counts.hard, "the rule knows the form of a defect that it missed"
    assert counts["in error"] == 0 or rule == "roles swapped"


def test_hardly_a_sound_row_is_dropped(twin):
    counts = corpus_twin.count_fates(twin.file, twin.corpus)
    sound = (twin.truth.fate == corpus_twin.KEPT).sum()
    assert counts["in error"].sum() < 0.002 * sound, "a neighbour of a swapped dialogue is the only row to be lost"


def test_no_near_miss_is_dropped():
    corpus = cleaned(*({"Topics": f"বিষয় {n}", "Answers": answer} for n, answer in enumerate(planted.SOUND)))
    assert corpus.dropped.empty, list(corpus.dropped.rule)


@pytest.mark.parametrize("rule", REPAIRS)
def test_every_planted_blemish_is_repaired(twin, rule):
    counts = corpus_twin.count_repairs(twin.file, twin.corpus).loc[rule]
    assert counts.planted >= 10
    assert counts.missed == 0
    assert counts["in error"] == 0


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_can_be_switched_off(twin, rule):
    corpus = clean_table(twin.table.iloc[:1500], skip_rules=[rule])
    assert rule not in set(corpus.dropped.rule)
    assert rule not in [step.rule for step in corpus.funnel]


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="skip_rules names 'urls': expected one of .*url"):
        cleaned({}, skip_rules=["urls"])


def test_nothing_left_is_an_error_that_counts_the_rules():
    with pytest.raises(ValueError, match="all 2 rows were dropped.*'missing side': 2"):
        cleaned({"Answers": ""}, {"Questions": ""})


MIRRORED = {"Topics": "ক", "Questions": "আমি ভালো নেই আজ", "Answers": "আমি ভালো নেই আজ।"}


def rules_by_number(*rows):
    """Returns the rule of each dropped row by its number."""
    dropped = cleaned(*rows).dropped
    return dict(zip(dropped.number, dropped.rule))


def test_roles_stay_swapped_until_the_topic_changes():
    rules = rules_by_number(
        {"Topics": "ক", "Questions": "আগের কথা বলি"},
        MIRRORED,
        {"Topics": "ক", "Questions": "পরের কথা বলি"},
        {"Topics": "ক", "Questions": "আরও পরের কথা"},
        {"Topics": "খ", "Questions": "নতুন কথা বলি"},
    )
    assert rules == {2: "question is the answer", 3: "roles swapped", 4: "roles swapped"}


def test_a_title_does_not_end_swapped_roles():
    rules = rules_by_number(
        {**MIRRORED, "Question-Title": "ভালো"},
        {"Topics": "ক", "Question-Title": "পরের", "Questions": "পরের কথা বলি"},
        {"Topics": "ক", "Question-Title": "শিরোনাম", "Questions": "আরও পরের কথা"},
        {"Topics": "খ", "Questions": "নতুন কথা বলি"},
    )
    assert rules == {1: "question is the answer", 2: "roles swapped", 3: "roles swapped"}


@pytest.mark.parametrize("titled", [True, False])
def test_one_mirrored_row_of_a_sorted_file_costs_itself(titled):
    rows = [{"Topics": f"বিষয় {n // 100}", "Questions": f"কথা নম্বর {n} বলি"} for n in range(400)]
    rows = [{**row, "Question-Title": "কথা"} for row in rows] if titled else rows
    rows[150] |= {"Questions": MIRRORED["Questions"], "Answers": MIRRORED["Answers"]}
    assert rules_by_number(*rows) == {151: "question is the answer"}


def test_misspelt_topics_are_merged_into_the_common_one(twin):
    assert twin.raw.Topics.nunique() > 50
    kept = twin.corpus.kept
    assert list(kept.topic) == list(twin.truth.topic[kept.number])


def test_every_merged_topic_is_told_with_its_rows(twin):
    spelt, topics = twin.raw.Topics.map(normalise), twin.truth.topic.map(normalise)
    rows = spelt[spelt != topics].value_counts().to_dict()
    assert {merged.spelling: merged.rows for merged in twin.corpus.merged_topics} == rows
    assert {merged.topic for merged in twin.corpus.merged_topics} <= set(topics)
    sentence = twin.corpus.describe_merged_topics()
    assert sentence == f"{len(rows)} rare spellings merged ({sum(rows.values())} rows)."


def test_an_example_shows_what_its_rule_found(twin):
    steps = {step.rule: step.examples for step in twin.corpus.funnel}
    assert all(URL.search(example) for example in steps["url"]), steps["url"]
    assert all(map(foreign_crisis_number, steps["foreign crisis number"])), steps["foreign crisis number"]
    assert steps["signature"] == tuple(example for example in steps["signature"] if not example.endswith("…"))


def test_no_example_of_a_repair_is_the_same_before_and_after(twin):
    for step in twin.corpus.funnel:
        for example in step.examples if step.rule in REPAIRS else ():
            before, after = example.split(" → ")
            assert before.strip() != after.strip(), f"{step.rule}: {example}"


def test_a_repair_of_the_question_alone_is_seen():
    funnel = cleaned({"Questions": "আমার <b>মন</b> ভালো নেই"}).funnel
    assert next(step for step in funnel if step.rule == "markup").examples[0].startswith("আমার <b>মন")


@pytest.mark.parametrize("place", range(0, 120, 7))
def test_an_excerpt_is_cut_between_letters(place):
    text = "স্ত্রীর সঙ্গে কথা ক্ষ\u200dর " * 12
    shown = excerpt(text, place).strip("…")
    assert set(regex.findall(r"\X", shown)) <= set(regex.findall(r"\X", text)), shown


def test_what_is_invisible_is_written_out_in_an_excerpt():
    assert excerpt("ক\u00a0খ\u202e") == "ক[U+00A0]খ[U+202E]"
    assert excerpt_change("ক্\u200dষ", "ক্ষ").count("[U+200D]") == 1


def test_no_merged_topic_is_told_too():
    assert cleaned({}).describe_merged_topics() == "No topic is a rare spelling of another one."


@pytest.mark.parametrize("text", ["৫>৩", "২ < ৩", "২  <  ৩", "খাবার & জল; ভালো"])
def test_what_only_looks_like_markup_is_kept(text):
    assert repair(text) == normalise(text)


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("<h1>ভয়</h1> <ul><li>এক</li></ul>", "ভয় এক"),
        ("<table><tr><td>ভয়</td></tr></table>", "ভয়"),
        ("&amp;nbsp;ভয় &amp; রাগ", "ভয় & রাগ"),
        ("&lt;p&gt;ভয়&lt;/p&gt;", "ভয়"),
        ("ভয় < রাগ >", "ভয় রাগ"),
    ],
)
def test_what_markup_leaves_is_removed(text, repaired):
    assert repair(text) == repaired.replace("য়", "য়")


def repair(text):
    """Returns an answer as cleaning leaves it."""
    return cleaned({"Answers": text}, skip_rules=list(DROPS)).kept.answer[0]


QUOTED = "“ভালো”"
SENTENCE = "আমি ভালো নেই, চাঁদ হঠাৎ উঠল “হ্যাঁ” — র‍্যাব ঠিক আছে…"


@pytest.mark.parametrize("encoding", ["latin-1", "sloppy-windows-1252"])
@pytest.mark.parametrize("form", ["{}", "{} আর এটুকু ঠিক ছিল।", "তিনি বললেন, {}।"])
def test_bengali_read_as_latin_comes_back_whole(encoding, form):
    broken = SENTENCE.encode().decode(encoding)
    assert broken != SENTENCE
    assert repair(form.format(broken)) == normalise(form.format(SENTENCE))


@pytest.mark.parametrize(
    "form", ["{}", "{} বললেন তিনি।", "তিনি বললেন, {}।", "{}টা শুনে মন ভরে গেল।", "({})", "{}\nতারপর?"]
)
@pytest.mark.parametrize("broken", ["â€œভালোâ€", "â€œভালোâ€\x9d", "“ভালোâ€"])
def test_a_closing_quote_that_lost_its_last_byte_is_one(broken, form):
    assert repair(form.format(broken)) == normalise(form.format(QUOTED))


def test_a_joiner_that_lost_its_last_byte_is_one():
    assert repair("রâ€্যাব এসেছিল।") == normalise("র‍্যাব এসেছিল।")


@pytest.mark.parametrize(("broken", "sound"), [("মা â€” বাবা", "মা — বাবা"), ("ভালোâ€¦", "ভালো…"), ("â€˜নাâ€™", "‘না’")])
def test_other_marks_read_as_latin_stay_what_they_were(broken, sound):
    assert repair(broken) == normalise(sound)


def test_an_example_of_a_changed_row_shows_a_change():
    rows = [{"Questions": f"ভয়ের কথা {n}", "Answers": f"ভ\u09dfের কথা শুনছি {n}"} for n in range(9)]
    table = unified_table(*rows, {"Questions": "আরেকটা প্রশ্ন", "Answers": "<b>ভালো</b> থাকবেন"})
    assert [fate["row"] for fate in example_fates(table, clean_table(table), 1) if "<b>" in fate["raw answer"]] == [10]


@pytest.mark.parametrize(("topic", "opposite"), [("বিশ্বাস", "অবিশ্বাস"), ("সম্পর্ক", "অসম্পর্ক"), ("অবিচারবোধ", "বিচারবোধ")])
def test_an_opposite_is_no_spelling_of_a_topic(topic, opposite):
    topics = pandas.Series([topic] * 40 + [opposite] * 3)
    unchanged, merged = canonicalise_topics(topics)
    assert unchanged.equals(topics)
    assert merged == ()


def test_the_examples_show_one_row_of_every_fate(twin):
    fates = example_fates(twin.table, twin.corpus, seed=1)
    assert fates[0]["became"].startswith("dropped: ")
    assert fates[1]["became"] != fates[1]["raw answer"]
    assert fates[2]["became"] == "kept as it is"


def test_the_page_on_data_has_a_row_for_each_rule_in_their_order():
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    conversations = [*turns.CHANGED, *turns.DROPPED, turns.EMPTY_TURN]
    page = page.partition("## Dialogues")[0]  # the counts further down name the rules again
    rows = [rule for rule in re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE) if rule in {*RULES, *conversations}]
    assert rows == [*RULES, *conversations]
