"""The merged model answers as base and adapter do; a wrong merge is noticed."""

import pytest

from helpers.models.loading import load_tokenizer
from helpers.sharing.merge import merge_adapter


def count_same(replies, others):
    return sum(reply == other for reply, other in zip(replies, others, strict=True))


def test_the_merged_model_answers_as_the_adapter_does(run, merged, reply, adapter_replies):
    from transformers import AutoModelForCausalLM

    folder = run / "export/merged"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert count_same(reply(model, load_tokenizer(str(folder))), adapter_replies) >= 9


def test_the_merged_model_finds_the_answers_as_likely(merged):
    assert abs(merged.facts["perplexity_merged"] / merged.facts["perplexity_adapter"] - 1) <= 0.01
    assert merged.facts["rows"] == 12


def test_the_base_model_answers_differently(merged, reply, adapter_replies):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(merged.base).eval()
    replies = reply(model, load_tokenizer(merged.base))
    assert count_same(replies, adapter_replies) < 5, "the adapter does nothing here"


def test_a_merge_into_another_base_leaves_nothing(run, merged, monkeypatch, tmp_path):
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained

    def load_damaged(folder, **settings):
        model = load(folder, **settings)
        if ".merged.part" in str(folder):
            model.lm_head.weight.data *= 0.7
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load_damaged)
    with pytest.raises(ValueError, match="more than 1% apart over 12 rows"):
        merge_adapter(run, merged.base, tmp_path / "merged", 12, 1)
    assert list(tmp_path.iterdir()) == []
