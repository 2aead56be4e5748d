"""What may not be trained on: unsafe replies, what cleaning drops, and anything of held-out rows."""

import pytest
from preferences import COLD, WARM, ask, prefer

from helpers.data.probes import read_probes
from helpers.data.prompts import PROMPTS, fixed_prompts
from helpers.preference.checks import clean_items, drop_held_out, drop_unsafe

PROMPT = "বৃষ্টির দিনে পুরোনো বন্ধুদের কথা খুব মনে পড়ে যায় আমার।"  # On rainy days I think of old friends.
CRISIS = "আমি আর বাঁচতে চাই না, আত্মহত্যা করব।"  # I do not want to live any more.
BLAME = "সব আপনার নিজের দোষ, আপনি নিজেই দায়ী।"  # It is all your own fault.
HOTLINE = "খুব কষ্ট হলে ৯৮৮ নম্বরে কল করুন, ওঁরা শুনবেন।"  # If it hurts, call 988.
ENGLISH = "I am sorry to hear that. Please tell me more about it."
HELD_OUT = "সকাল থেকে মায়ের জ্বর, হাসপাতালে নেওয়ার মতো কেউ নেই পাশে।"  # Mother has a fever and nobody is here to help.
ANSWER = "মায়ের জ্বরের সময় একা থাকা ভীষণ ভয়ের, পাড়ার কাউকে কি একবার ডাকা যায়?"


def clean(item, skip_rules=()):
    """Returns the reason why a preference is dropped, "" where it is kept."""
    dropped = clean_items([item], skip_rules, 0.6)[1]
    return dropped[0].reason if dropped else ""


@pytest.mark.parametrize(
    ("reply", "reason"),
    {
        HOTLINE: "foreign crisis number",
        ENGLISH: "not Bengali",
        "আচ্ছা": "too short",
        "আরও জানতে www.example.com দেখুন, ভালো লাগবে।": "url",
        PROMPT: "question is the answer",
        "<p> </p>": "empty turn",
    }.items(),
)
def test_a_preferred_reply_is_cleaned_as_the_corpus_is(reply, reason):
    assert clean(prefer(PROMPT, reply, COLD)) == reason


@pytest.mark.parametrize("reply", [HOTLINE, ENGLISH, "আচ্ছা", "www.example.com দেখুন", PROMPT, BLAME])
def test_a_rejected_reply_may_be_bad(reply):
    items, _ = clean_items([prefer(PROMPT, WARM, reply), prefer(PROMPT, "", reply)], (), 0.6)
    assert len(drop_unsafe(items)[0]) == 2


def test_a_rejected_reply_may_not_be_empty():
    assert clean(prefer(PROMPT, WARM, "<p> </p>")) == "empty turn"


def test_a_prompt_is_cleaned_as_the_corpus_is():
    assert clean(prefer("My boss is not kind to me at all.", WARM, COLD)) == "not Bengali"


@pytest.mark.parametrize("other", [WARM.replace("।", ""), f"  {WARM}\u200c", WARM.replace("ন্ন", "ন্\u200dন")])
def test_equal_replies_are_no_pair(other):
    assert clean(prefer(PROMPT, WARM, other)) == "both replies are the same"


def test_texts_are_repaired_as_the_corpus_is():
    (item,), _ = clean_items([prefer(f"{PROMPT}&nbsp;", f"<p>{WARM}</p>", f"{COLD}\u200e  ।")], (), 0.6)
    assert (item.question, item.chosen, item.rejected) == (PROMPT, WARM, f"{COLD} ।")


def test_a_rule_that_the_run_skips_is_skipped():
    assert clean(prefer(PROMPT, ENGLISH, COLD), ["not Bengali"]) == ""


def test_an_earlier_reply_may_be_bad():
    item = prefer(PROMPT, WARM, COLD)
    item.prompt[1:1] = [{"role": "user", "content": "মন ভালো নেই।"}, {"role": "assistant", "content": ENGLISH}]
    assert clean(item) == ""


def unsafe(item):
    dropped = drop_unsafe([item])[1]
    return dropped[0].reason if dropped else ""


@pytest.mark.parametrize(
    ("prompt", "reply", "reason"),
    [
        (PROMPT, BLAME, "unsafe: blame"),
        (PROMPT, "আজ থেকেই ওষুধ বন্ধ করে দিন।", "unsafe: medical instruction"),
        (CRISIS, WARM, "unsafe: no referral"),
        (PROMPT, WARM, ""),
        (CRISIS, f"{WARM} এখনই একজন ডাক্তারের কাছে যান।", ""),
    ],
)
def test_an_unsafe_reply_is_never_preferred(prompt, reply, reason):
    assert [unsafe(prefer(prompt, reply)), unsafe(prefer(prompt, reply, COLD))] == [reason] * 2


def test_a_foreign_hotline_is_refused_whatever_rules_are_skipped():
    (item,), _ = clean_items([prefer(PROMPT, HOTLINE, COLD)], ["foreign crisis number"], 0.6)
    assert unsafe(item) == "unsafe: foreign hotline"


def held_out(*items, part="test", near_duplicate=0.8):
    """Returns why preferences are dropped where a held-out row asks HELD_OUT."""
    turns = [{"role": "user", "content": HELD_OUT}, {"role": "assistant", "content": ANSWER}]
    parts = {"test": [], "validation": [], part: [{"group": "g", "messages": turns}]}
    kept, dropped = drop_held_out(list(items), parts, near_duplicate)
    return [own.reason for own in dropped] + [""] * len(kept)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_prompt_of_a_held_out_row_is_dropped(part):
    assert held_out(prefer(HELD_OUT, WARM, COLD), part=part) == [f"question of a {part} row"]


FORMS = {
    "as it is": HELD_OUT,
    "nukta letters as one code point": HELD_OUT.replace("য\u09bc", "\u09df"),
    "with a joiner": HELD_OUT.replace("জ্ব", "জ্\u200dব"),
    "with a non-joiner": HELD_OUT.replace("জ্ব", "জ্\u200cব"),
    "without a danda": HELD_OUT.replace("।", ""),
    "misspelt": HELD_OUT.replace("মতো", "মত").replace("হাসপাতালে", "হাশপাতালে"),
    "with a word more": HELD_OUT.replace("কেউ", "আর কেউ"),
    "with a word fewer": HELD_OUT.replace("পাশে", ""),
}


@pytest.mark.parametrize("prompt", FORMS.values(), ids=FORMS)
def test_a_held_out_prompt_is_known_in_every_form(prompt):
    assert held_out(prefer(prompt, WARM)) == ["question of a test row"]


def test_a_held_out_prompt_is_known_among_other_turns():
    item = prefer("কী করব এখন?", WARM, COLD)
    item.prompt[1:1] = [{"role": "user", "content": HELD_OUT}, {"role": "assistant", "content": COLD}]
    assert held_out(item) == ["question of a test row"]


@pytest.mark.parametrize("sides", [(ANSWER, COLD), (COLD, ANSWER), ("", ANSWER), (f"{ANSWER} বলুন", "")])
def test_an_answer_of_a_held_out_row_is_dropped(sides):
    assert held_out(prefer(PROMPT, *sides)) == ["answer of a test row"]


def test_a_prompt_of_no_row_is_kept():
    assert held_out(prefer(PROMPT, WARM, COLD)) == [""]


def test_a_near_duplicate_is_kept_where_the_run_looks_for_none():
    assert held_out(prefer(FORMS["with a word more"], WARM), near_duplicate=0) == [""]


def test_a_rated_reply_may_be_of_its_own_row():
    assert held_out(prefer(HELD_OUT, WARM, COLD, test_group="g")) == [""]


def test_a_rated_reply_may_not_be_of_another_row():
    assert held_out(prefer(HELD_OUT, WARM, COLD, test_group="h")) == ["question of a test row"]


ASKED = [fixed_prompts()[0]["prompt"], PROMPTS["turns"][1]]
ASKED += [read_probes()["knowledge"][0]["bn"]["question"], read_probes()["instructions"][0]["bn"]]


@pytest.mark.parametrize("prompt", ASKED)
def test_a_prompt_of_the_evaluation_is_dropped(prompt):
    assert held_out(prefer(prompt, WARM)) == ["prompt of the evaluation"]


def test_test_rows_are_dropped_from_a_file(gather, pairs, run, embedded_rows):
    rows = [ask(row["messages"][1]["content"], WARM, COLD) for row in embedded_rows[:40]]
    dropped = gather([*pairs, *rows]).facts["dropped"]
    assert sum(dropped.values()) == 40
    assert dropped["question of a test row"] + dropped["question of a validation row"] >= 38
