"""Attention with repeated or grouped keys gives what the library's own gives."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from helpers.models.attention import NAME, grouped_attention, use_grouped_attention

ROWS, LENGTH = 5, 17
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 300, "pad_token_id": 0}
SLIDING = {"sliding_window": 6, "head_dim": 24}
FAMILIES = {
    "qwen3": {"head_dim": 24},
    "smollm3": {},
    "mistral": SLIDING,
    "gemma3_text": {**SLIDING, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}


@pytest.fixture(scope="module", params=[8, 2, 1], ids=["no groups", "four in a group", "one group"])
def models(request):
    """Returns a random Llama of eight heads, and its copy with grouped attention."""
    torch.manual_seed(0)
    config = LlamaConfig(num_attention_heads=8, num_key_value_heads=request.param, **SMALL)
    model = LlamaForCausalLM(config).eval()
    grouped = copy.deepcopy(model)
    use_grouped_attention(grouped)
    return model, grouped


@pytest.fixture
def inputs():
    """Returns rows padded on the left."""
    ids = torch.randint(1, 300, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :6], mask[3, :11] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def test_a_prompt_is_read_as_by_the_library(models, inputs):
    model, grouped = models
    assert grouped.config._attn_implementation == NAME
    seen = inputs["attention_mask"].bool()
    torch.testing.assert_close(grouped(**inputs).logits[seen], model(**inputs).logits[seen])
    alone = inputs["input_ids"][:1]
    torch.testing.assert_close(grouped(alone).logits, model(alone).logits)


def test_training_has_the_losses_and_gradients_of_the_library(models, inputs):
    ids, results = inputs["input_ids"], []
    for model in models:
        model.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        results.append((loss.detach(), model.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    torch.testing.assert_close(results[1], results[0])
    assert results[0][1].abs().max() > 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_train_as_by_the_library(family, inputs):
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SMALL, **heads, **FAMILIES[family])
    model, results = AutoModelForCausalLM.from_config(config).train(), []
    model.gradient_checkpointing_enable()
    for use in (lambda _: None, use_grouped_attention):
        use(model)
        model.zero_grad()
        loss = model(inputs["input_ids"], labels=inputs["input_ids"]).loss
        loss.backward()
        results.append((loss.detach(), model.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    assert model.config._attn_implementation == NAME
    torch.testing.assert_close(results[1], results[0])
    assert results[0][1].abs().max() > 1e-5


def test_each_new_token_is_as_likely_as_by_the_library(models, inputs):
    kept, more = [], torch.randint(1, 300, (ROWS, 1), generator=torch.Generator().manual_seed(2))
    for model in models:
        cache = model(**inputs, use_cache=True).past_key_values
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
        kept.append(model(more, attention_mask=mask, past_key_values=cache).logits)
    torch.testing.assert_close(kept[1], kept[0])


def test_the_replies_are_those_of_the_library(models, inputs):
    settings = GenerationConfig(max_new_tokens=24, do_sample=False, pad_token_id=0)
    first, second = (model.generate(**inputs, generation_config=settings) for model in models)
    assert torch.equal(first, second)


def test_several_tokens_after_kept_ones_need_a_mask():
    query, key = torch.zeros(1, 8, 3, 4), torch.zeros(1, 2, 9, 4)
    with pytest.raises(ValueError, match="need a mask"):
        grouped_attention(None, query, key, key, None)
