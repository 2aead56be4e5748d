"""What `generate_replies` returns: no prompt, no end token, nothing that depends on the batch."""

import pytest
import torch
from transformers import LlamaForCausalLM

from helpers.inference.generate import generate_replies
from helpers.models.chat import IGNORED, encode_row


@pytest.fixture(scope="module")
def conversations(embedded_rows):
    return [row["messages"][:-1] for row in embedded_rows[:7]]


class Scripted(torch.nn.Module):
    """A model that generates what `script` makes of the prompts' token ids."""

    device = torch.device("cpu")

    def __init__(self, script):
        super().__init__()
        self.script = script

    def generate(self, input_ids, attention_mask, generation_config):
        return torch.cat([input_ids, self.script(input_ids)], dim=1)


@pytest.fixture(scope="module")
def replies(base, tokenizer, conversations):
    """Returns a random model's replies, one conversation at a time, and all in one batch."""
    network = LlamaForCausalLM.from_pretrained(base).eval()
    return [generate_replies(network, tokenizer, conversations, 12, size) for size in (1, 7)]


def test_replies_do_not_depend_on_the_batch(replies):
    for alone, together in zip(*replies):
        assert alone["reply"] == together["reply"]
        assert alone["new_tokens"] == together["new_tokens"]


def test_a_reply_has_at_most_the_asked_tokens(replies):
    for reply in replies[0]:
        assert reply["new_tokens"] <= 12
        assert reply["hit_cap"] == (reply["new_tokens"] == 12)


def test_a_reply_leaves_the_prompt_out(replies, conversations):
    for conversation, reply in zip(conversations, replies[0]):
        assert conversation[-1]["content"] not in reply["reply"]


def test_the_model_reads_the_whole_prompt_with_its_opening(tokenizer, embedded_rows):
    """The prompt is that of training up to its answer, however long it is."""
    long = " ".join(row["messages"][-1]["content"] for row in embedded_rows[:100])
    row = {"id": "x", "messages": [{"role": "user", "content": long}, {"role": "assistant", "content": "শুনছি"}]}
    example, prompts = encode_row(tokenizer, row), []
    words = tokenizer("মন", add_special_tokens=False)["input_ids"]
    model = Scripted(lambda read: prompts.extend(read.tolist()) or torch.tensor([words] * len(read)))
    generate_replies(model, tokenizer, [row["messages"][:-1]], 9, 1)
    start = next(place for place, label in enumerate(example["labels"]) if label != IGNORED)
    assert start > 2048, "the prompt is not longer than any max_length in use: make it longer"
    assert prompts == [example["input_ids"][:start]]


def test_the_end_token_ends_a_reply(tokenizer, conversations):
    words = tokenizer("মন ভালো", add_special_tokens=False)["input_ids"]
    tail = [*words, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.pad_token_id]
    ending = Scripted(lambda prompts: torch.tensor([tail] * len(prompts)))
    for reply in generate_replies(ending, tokenizer, conversations[:3], 9, 2):
        assert reply["reply"] == "মন ভালো"
        assert not reply["hit_cap"]


def test_a_reply_that_begins_with_its_prompt_is_refused(tokenizer, conversations):
    with pytest.raises(ValueError, match="begins with its prompt"):
        generate_replies(Scripted(lambda prompts: prompts), tokenizer, conversations[:1], 9, 1)
