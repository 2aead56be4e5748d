"""The lengths of rows, from quantiles."""

import bisect
import math

import pytest

from helpers.models.families import FAMILIES
from helpers.planning.lengths import CORPORA, find_corpus, row_lengths, spread_lengths
from helpers.runs.record import Run

QUANTILES = [(0.0, 70), (0.5, 219), (0.95, 555), (0.99, 1145), (1.0, 2048)]


def interpolate(points, number):
    """Returns the lengths as the earlier version computed them, one at a time."""
    shares, values = zip(*points, strict=True)
    lengths = []
    for place in range(number):
        share = (place + 0.5) / number
        at = min(max(bisect.bisect_right(shares, share), 1), len(shares) - 1)
        part = (share - shares[at - 1]) / (shares[at] - shares[at - 1])
        low, high = math.log(values[at - 1]), math.log(values[at])
        lengths.append(round(math.exp(low + part * (high - low))))
    return lengths


def test_quantiles_come_back_as_lengths():
    lengths = spread_lengths(QUANTILES, 10_000)
    assert lengths == sorted(lengths)
    assert lengths[0] >= 70
    assert lengths[-1] <= 2048
    assert lengths[5000] == pytest.approx(219, abs=1)
    assert lengths[9500] == pytest.approx(555, abs=2)


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus["name"])
def test_lengths_are_those_that_earlier_plans_had(corpus):
    for rows in (corpus["rows"], 1, 1000):
        assert spread_lengths(corpus["quantiles"], rows) == interpolate(corpus["quantiles"], rows)


FULL = {"dataset": "kaggle:raseluddin/bengali-empathetic-conversations-corpus", "max_length": 10_000, "max_rows": 0}


@pytest.mark.parametrize(
    ("base_model", "rate"), [("Qwen/Qwen3-4B", "chatml"), ("sarvamai/sarvam-1", "text"), ("a/Llama-3.1-8B", "llama-3")]
)
def test_known_lengths_are_told_in_a_models_own_tokens(base_model, rate, tmp_path):
    known = find_corpus(FULL["dataset"])
    lengths, _ = row_lengths({**FULL, "base_model": base_model}, Run(tmp_path))
    share, template = FAMILIES[rate].tokens_per_character / known["tokens_per_character"], known["template"]
    for tokens, place in ((218, 0.5), (503, 0.95)):  # by Llama 3's tokenizer
        assert lengths[round(len(lengths) * place)] == pytest.approx(template + (tokens - template) * share, abs=2)


def test_a_rate_that_was_not_measured_is_said_to_be_so(tmp_path):
    sources = {
        n: row_lengths({**FULL, "base_model": n}, Run(tmp_path))[1] for n in ("sarvamai/sarvam-1", "Qwen/Qwen3-4B")
    }
    assert sources["sarvamai/sarvam-1"].endswith(", 0.374: " + FAMILIES["text"].rate_source)
    assert "not measured" in sources["sarvamai/sarvam-1"]
    assert "not measured" not in sources["Qwen/Qwen3-4B"]


def test_lengths_stay_those_of_llama_for_an_unknown_model(tmp_path):
    unknown, known = (row_lengths({**FULL, "base_model": n}, Run(tmp_path)) for n in ("a/b", "a/Llama-3.2-1B"))
    assert unknown == known
