"""What counts as answered, followed and forgotten."""

import math

import numpy
import pytest

from helpers.data.probes import LANGUAGES, instructions, read_probes, scored_probes
from helpers.evaluation.probes import compare_probes, describe_forgotten, follows, probe_sums

PROBES, ASKED = scored_probes([], 0), instructions([], 0)


def likelihoods(favour):
    """Returns likelihoods that make the right text the likeliest where `favour` of the probe says so."""
    lengths = [len(probe.row.get("text") or probe.row["messages"][-1]["content"]) for probe in PROBES]
    sides = [1.0 if probe.right == favour(probe) else 2.0 for probe in PROBES]
    return [{"nll": side * length, "characters": length} for side, length in zip(sides, lengths)]


def replies(text):
    return [{"reply": text} for _ in ASKED]


def answer(own):
    """Returns a reply that does what an instruction asks for."""
    check, language = own.check, own.language
    if check["kind"] == "number":
        return f"{check['value']}"
    if check["kind"] in ("words", "lines"):
        return {"words": " ", "lines": "\n"}[check["kind"]].join(["কথা"] * check["most"])
    wanted = check[language]
    return wanted[0] if isinstance(wanted, list) else wanted


def test_a_model_that_knows_all_scores_one_in_every_kind():
    sums = probe_sums(PROBES, likelihoods(lambda probe: True), ASKED, [{"reply": answer(own)} for own in ASKED])
    shares = {name: rows[:, 0].mean() for name, rows in sums.items() if not name.startswith("text")}
    assert shares == dict.fromkeys(shares, 1.0)
    assert len(shares) == 7
    assert sums["text_bn"][:, 0].sum() / sums["text_bn"][:, 1].sum() == pytest.approx(1 / math.log(2))


def test_an_answer_counts_per_character():
    """The likeliest text as a whole is the shortest one, which says nothing."""
    choice = [probe for probe in PROBES if probe.item == "k01" and probe.score == "knowledge_bn"]
    own = [{"nll": 30.0, "characters": 30}, *({"nll": 20.0, "characters": 10} for _ in range(3))]
    assert probe_sums(choice, own, [], [])["knowledge_bn"].tolist() == [[1.0, 1.0]]


def test_random_likelihoods_answer_at_chance():
    rng = numpy.random.default_rng(0)
    shares = []
    for _ in range(20):
        own = [{"nll": rng.normal(50, 5), "characters": 10} for _ in PROBES]
        sums = probe_sums(PROBES, own, [], [])
        shares.append([sums[name][:, 0].mean() for name in ("knowledge_bn", "reasoning_en", "grammar_bn")])
    assert numpy.mean(shares, axis=0) == pytest.approx([0.25, 0.25, 0.5], abs=0.04)


@pytest.mark.parametrize(
    ("reply", "check", "language", "expected"),
    [
        ("নদী।", {"kind": "equals", "bn": "নদী", "en": "river"}, "bn", True),
        ("River.", {"kind": "equals", "bn": "নদী", "en": "river"}, "en", True),
        ("একটি নদী", {"kind": "equals", "bn": "নদী", "en": "river"}, "bn", False),
        ("কু\u09afা\u09bcশা".replace("\u09afা\u09bc", "\u09af\u09bcা"), {"kind": "equals", "bn": "কুয়াশা"}, "bn", True),
        ("উত্তরঃ সাত", {"kind": "starts_with", "bn": "উত্তর:", "en": "Answer:"}, "bn", True),
        ("সাত। উত্তর: সাত", {"kind": "starts_with", "bn": "উত্তর:", "en": "Answer:"}, "bn", False),
        ("মোট ১,২০০ টাকা", {"kind": "number", "value": 1200}, "bn", True),
        ("3 and 4 make 7", {"kind": "number", "value": 7}, "en", False),
        ("এক দুই\n\nতিন", {"kind": "lines", "least": 2, "most": 2}, "bn", True),
        ("স্বাস্থ্য ভালো", {"kind": "words", "least": 2, "most": 2}, "bn", True),
        ("হ্যাঁ", {"kind": "one_of", "bn": ["হ্যাঁ", "না"], "en": ["yes", "no"]}, "bn", True),
        ("maybe", {"kind": "one_of", "bn": ["হ্যাঁ"], "en": ["yes", "no"]}, "en", False),
        ("The answer contains Dhaka city", {"kind": "contains", "bn": "ঢাকা", "en": "dhaka"}, "en", True),
        ("", {"kind": "words", "least": 1, "most": 1}, "bn", False),
    ],
)
def test_a_reply_follows_its_instruction(reply, check, language, expected):
    assert follows(reply, check, language) is expected


def test_every_check_is_met_by_some_reply_and_not_by_none():
    for own in ASKED:
        assert follows(answer(own), own.check, own.language), own.item
        assert not follows("", own.check, own.language), own.item


def test_a_model_that_forgot_english_is_named():
    base = probe_sums(PROBES, likelihoods(lambda probe: True), ASKED, [{"reply": answer(own)} for own in ASKED])
    forgot = likelihoods(lambda probe: not probe.score.endswith("_en"))
    tuned = probe_sums(PROBES, forgot, ASKED, [{"reply": answer(own)} for own in ASKED])
    scores = compare_probes({"base": base, "tuned": tuned}, 200, 0)
    assert "clearly worse at 3: knowledge in English, reasoning in English, text in English." in describe_forgotten(
        scores
    )
    assert scores["n"] == 4 * 60 + 2 * 12 + 2 * 24 + 100


def test_equal_models_have_forgotten_nothing():
    same = probe_sums(PROBES, likelihoods(lambda probe: hash(probe.item) % 2 == 0), ASKED, replies("কথা"))
    scores = compare_probes({"base": same, "tuned": same}, 50, 0)
    assert "clearly worse at 0." in describe_forgotten(scores)
    assert describe_forgotten({}) == "No probes were asked."


def test_the_checks_are_of_known_kinds():
    kinds = {item["check"]["kind"] for item in read_probes()["instructions"]}
    assert kinds == {"equals", "contains", "lines", "words", "starts_with", "number", "one_of"}
    assert set(LANGUAGES) == {"bn", "en"}
