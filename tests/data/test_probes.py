"""The probes: enough of each kind, right answers that look like the wrong ones, nothing twice."""

from collections import Counter

import pytest

from helpers.data.probes import CHOICES, LANGUAGES, instructions, read_probes, scored_probes
from helpers.language.bengali import bengali_share, normalise


def test_there_are_as_many_as_are_promised():
    assert {kind: len(items) for kind, items in read_probes().items()} == {
        "knowledge": 60,
        "reasoning": 60,
        "text": 12,
        "instructions": 24,
        "grammar": 100,
    }


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", CHOICES)
def test_the_right_answer_is_not_told_by_its_length(kind, language):
    """A model that takes the longest answer, or the shortest, is no better than chance."""
    options = [item[language]["options"] for item in read_probes()[kind]]
    for extreme in (max, min):
        chosen = [extreme(map(len, own)) for own in options]
        hits = sum((len(own[0]) == length) / sum(len(o) == length for o in own) for own, length in zip(options, chosen))
        assert hits / len(options) <= 0.35


def test_every_question_has_four_different_answers():
    for kind in CHOICES:
        for item in read_probes()[kind]:
            for language in LANGUAGES:
                assert len(set(map(normalise, item[language]["options"]))) == 4, item["id"]


def test_no_text_stands_twice():
    texts = Counter(str(probe.row.get("text") or probe.row["messages"]) for probe in scored_probes([]))
    assert max(texts.values()) == 1


def test_every_probe_has_an_id_of_its_own():
    ids = [probe.row["id"] for probe in scored_probes([])]
    assert len(set(ids)) == len(ids) == 2 * 2 * 60 * 4 + 2 * 12 + 2 * 100


def test_each_text_is_in_its_language():
    for probe in scored_probes([]):
        text = str(probe.row.get("text") or probe.row["messages"][0]["content"])
        assert (bengali_share(text) > 0.5) == probe.score.endswith("_bn"), text


def test_fewer_items_are_spread_over_the_file():
    few = scored_probes([], 3)
    assert sorted({probe.item for probe in few if probe.score == "knowledge_bn"}) == ["k01", "k21", "k41"]
    assert len(instructions([], 3)) == 6


def test_the_system_prompt_begins_each_conversation():
    system = [{"role": "system", "content": "S"}]
    assert all(p.row["messages"][0] == system[0] for p in scored_probes(system, 2) if "messages" in p.row)
    assert all(own.messages[0] == system[0] for own in instructions(system, 2))
