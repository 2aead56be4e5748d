"""Likelihood, generation and the embedded model."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import chat, env, generate, model, plan, presets, tiny


@pytest.fixture(scope="module")
def small(tokenizer):
    torch.manual_seed(0)
    shape = {**tiny.SHAPE, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).eval()


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity(small, tokenizer, embedded_rows):
    blank = LlamaForCausalLM(small.config).eval()
    torch.nn.init.zeros_(blank.lm_head.weight)
    for result, row in zip(model.likelihood(blank, tokenizer, embedded_rows[:9], 4), embedded_rows):
        assert math.exp(result["nll"] / result["tokens"]) == pytest.approx(len(tokenizer), rel=1e-5)
        answer = tokenizer(row["messages"][-1]["content"], add_special_tokens=False)["input_ids"]
        assert result["tokens"] == len(answer) + 1, "the end token counts, the prompt and the pads do not"
        assert result["characters"] == len(row["messages"][-1]["content"])


def test_likelihood_equals_transformers_own_loss_and_does_not_depend_on_the_batch(small, tokenizer, embedded_rows):
    rows = embedded_rows[:9]
    alone, together = (model.likelihood(small, tokenizer, rows, size) for size in (1, 9))
    for row, a, b in zip(rows, alone, together):
        example = chat.encode(tokenizer, row)
        with torch.no_grad():
            own = small(**{name: torch.tensor([value]) for name, value in example.items()}).loss
        assert a["nll"] / a["tokens"] == pytest.approx(float(own), rel=1e-5)
        assert b["nll"] == pytest.approx(a["nll"], rel=1e-5) and b["correct"] == a["correct"]


def test_pieces_of_the_answer_positions_give_the_same_sum(small, tokenizer, embedded_rows, monkeypatch):
    whole = model.likelihood(small, tokenizer, embedded_rows[:4], 4)
    monkeypatch.setattr(plan, "POSITIONS", 7)
    for a, b in zip(model.likelihood(small, tokenizer, embedded_rows[:4], 4), whole):
        assert a["nll"] == pytest.approx(b["nll"], rel=1e-6)


def test_a_loss_that_is_not_finite_is_an_error(small, tokenizer, embedded_rows):
    broken = LlamaForCausalLM(small.config).eval()
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        model.likelihood(broken, tokenizer, embedded_rows[:2], 2)


def test_replies_do_not_depend_on_the_batch_and_leave_the_prompt_out(small, tokenizer, embedded_rows):
    conversations = [row["messages"][:-1] for row in embedded_rows[:7]]
    alone, together = (generate.replies(small, tokenizer, conversations, 12, size) for size in (1, 7))
    for conversation, a, b in zip(conversations, alone, together):
        assert a["reply"] == b["reply"] and a["new_tokens"] == b["new_tokens"] <= 12
        assert conversation[-1]["content"] not in a["reply"]
        assert a["hit_cap"] == (a["new_tokens"] == 12)


def test_the_end_token_ends_a_reply_and_is_not_in_it(small, tokenizer, embedded_rows):
    class Ending(torch.nn.Module):
        """A model that says two words and ends."""

        device = torch.device("cpu")

        def generate(self, input_ids, attention_mask, generation_config):
            said = tokenizer("মন ভালো", add_special_tokens=False)["input_ids"]
            tail = [*said, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.pad_token_id]
            return torch.cat([input_ids, torch.tensor([tail] * len(input_ids))], dim=1)

    for reply in generate.replies(Ending(), tokenizer, [row["messages"][:-1] for row in embedded_rows[:3]], 9, 2):
        assert reply["reply"] == "মন ভালো" and not reply["hit_cap"]


def test_a_reply_that_begins_with_its_prompt_is_refused(tokenizer, embedded_rows):
    class Echo(torch.nn.Module):
        """A model that gives back the prompt twice."""

        device = torch.device("cpu")

        def generate(self, input_ids, attention_mask, generation_config):
            return torch.cat([input_ids, input_ids], dim=1)

    with pytest.raises(ValueError, match="begins with its prompt"):
        generate.replies(Echo(), tokenizer, [embedded_rows[0]["messages"][:-1]], 9, 1)


def test_the_embedded_model_is_the_same_for_the_same_texts_and_another_for_others(tmp_path, monkeypatch, embedded_rows):
    texts = [row["messages"][-1]["content"] for row in embedded_rows[:40]]
    hashes = []
    for name in ("one", "two"):
        monkeypatch.setenv("SAHANUBHUTI_CACHE", str(tmp_path / name))
        folder = tiny.folder(texts, steps=3)
        hashes.append([env.sha256(folder / file) for file in ("model.safetensors", "tokenizer.json")])
    assert hashes[0] == hashes[1]
    assert tiny.folder(texts, steps=3) == folder, "the second call takes it from the cache"
    assert tiny.folder(texts[1:], steps=3) != folder


def test_the_embedded_model_never_sees_a_row_outside_the_training_part(monkeypatch, embedded_rows):
    seen = []
    monkeypatch.setattr(tiny, "folder", lambda texts: seen.append(texts))
    tiny.folder_for("embedded", embedded_rows[:5])
    assert seen[0] == [m["content"] for row in embedded_rows[:5] for m in row["messages"] if m["role"] != "system"]
    tiny.folder_for("/another/file.csv", embedded_rows[:5])
    assert len(seen[1]) > 400
    cell = presets.parameters_cell("prepare_data")
    assert tiny.DEFAULT_SPLIT == tuple(cell[name][0] for name in ("near_duplicate", "train_share", "val_share", "seed"))


def test_a_model_that_is_nowhere_says_what_to_do():
    with pytest.raises(OSError, match="somebody/some-llama.*switch the internet on"):
        model.load_tokenizer("somebody/some-llama")


def test_below_compute_capability_eight_it_is_float16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for capability, expected in (((7, 5), "float16"), ((8, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        name, reason = env.pick_dtype()
        assert name == expected and f"{capability[0]}.{capability[1]}" in reason
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(ValueError, match="bfloat16 needs 8.0"):
        env.pick_dtype("bfloat16")
