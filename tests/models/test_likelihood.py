"""The likelihood of given answers: what counts, and that batches and chunks do not change it."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.models.batching import LOGITS_CHUNK_TOKENS, SCORING_TOKEN_BUDGET
from helpers.models.chat import IGNORED, encode_row, make_collator
from helpers.models.families import SHAPES
from helpers.models.likelihood import score_likelihood, score_tokens


@pytest.fixture(scope="module")
def network(base):
    return LlamaForCausalLM.from_pretrained(base).eval()


def blank_model(network, value):
    """Returns a model whose output layer holds one value everywhere."""
    blank = LlamaForCausalLM(network.config).eval()
    torch.nn.init.constant_(blank.lm_head.weight, value)
    return blank


def test_a_blank_model_has_the_vocabulary_as_perplexity(network, tokenizer, embedded_rows):
    blank = blank_model(network, 0.0)
    for score, row in zip(score_likelihood(blank, tokenizer, embedded_rows[:9], 4), embedded_rows):
        assert math.exp(score["nll"] / score["tokens"]) == pytest.approx(len(tokenizer), rel=1e-5)
        answer = tokenizer(row["messages"][-1]["content"], add_special_tokens=False)["input_ids"]
        assert score["tokens"] == len(answer) + 1, "the end token counts, the prompt and the pads do not"
        assert score["characters"] == len(row["messages"][-1]["content"])


def test_likelihood_equals_the_loss_of_transformers(network, tokenizer, embedded_rows):
    rows = embedded_rows[:9]
    for row, score in zip(rows, score_likelihood(network, tokenizer, rows, 1)):
        with torch.no_grad():
            loss = network(**{name: torch.tensor([value]) for name, value in encode_row(tokenizer, row).items()}).loss
        assert score["nll"] / score["tokens"] == pytest.approx(float(loss), rel=1e-5)


class Oracle:
    """A model whose first choice is the next token, the one before it in the vocabulary, or the one after, in turn."""

    device, lm_head, config = torch.device("cpu"), staticmethod(lambda hidden: hidden), LlamaConfig()

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def model(self, input_ids, attention_mask):
        choices = input_ids.roll(-1, dims=1) + (torch.arange(input_ids.shape[1]) % 3 - 1)
        return (torch.nn.functional.one_hot(choices % self.vocabulary, self.vocabulary),)


def test_correct_marks_the_models_first_choices(tokenizer, embedded_rows):
    examples = [encode_row(tokenizer, row) for row in embedded_rows[:3]]
    _, correct, owner = score_tokens(Oracle(len(tokenizer)), make_collator(tokenizer)(examples))
    for number, example in enumerate(examples):
        counted = [place for place, label in enumerate(example["labels"][1:]) if label != IGNORED]
        assert correct[owner == number].tolist() == [place % 3 == 1 for place in counted]


@pytest.mark.parametrize(("limits", "sizes"), [({}, [5]), ({"batch_size": 2}, [2, 2, 1]), ({"max_tokens": 1}, [1] * 5)])
def test_rows_are_scored_as_many_at_a_time_as_asked(network, tokenizer, embedded_rows, monkeypatch, limits, sizes):
    batches = []
    monkeypatch.setattr(
        "helpers.models.likelihood.score_tokens",
        lambda model, batch: batches.append(len(batch["labels"])) or score_tokens(model, batch),
    )
    score_likelihood(network, tokenizer, embedded_rows[:5], **limits)
    assert batches == sizes


def test_likelihood_does_not_depend_on_the_batch(network, tokenizer, embedded_rows):
    alone, together = (score_likelihood(network, tokenizer, embedded_rows[:9], size) for size in (1, 9))
    for a, b in zip(alone, together):
        assert b["nll"] == pytest.approx(a["nll"], rel=1e-5)
        assert b["correct"] == a["correct"]


def test_chunks_of_the_logits_give_the_same_sum(network, tokenizer, embedded_rows, monkeypatch):
    whole = score_likelihood(network, tokenizer, embedded_rows[:4], 4)
    monkeypatch.setattr("helpers.models.likelihood.LOGITS_CHUNK_TOKENS", 7)
    for a, b in zip(score_likelihood(network, tokenizer, embedded_rows[:4], 4), whole):
        assert a["nll"] == pytest.approx(b["nll"], rel=1e-6)


def test_no_more_logits_exist_than_a_chunk_has(network, tokenizer, embedded_rows, monkeypatch):
    chunks = []
    monkeypatch.setattr("helpers.models.likelihood.LOGITS_CHUNK_TOKENS", 7)
    hook = network.lm_head.register_forward_pre_hook(lambda _, inputs: chunks.append(inputs[0].numel()))
    scores = score_likelihood(network, tokenizer, embedded_rows[:4], 4)
    hook.remove()
    width = network.config.hidden_size
    assert max(chunks) == 7 * width, "more tokens go through the output layer at once than LOGITS_CHUNK_TOKENS"
    assert sum(chunks) == sum(score["tokens"] for score in scores) * width, "tokens that do not count are scored"


def test_a_chunk_of_logits_has_a_quarter_of_a_gib():
    assert LOGITS_CHUNK_TOKENS * SHAPES["8B"]["vocab_size"] * 4 < 2**30 / 4, "a T4 has no room for more beside an 8B"


def long_row(embedded_rows, answers):
    """Returns a row whose answer is that of many rows."""
    text = " ".join(row["messages"][-1]["content"] for row in embedded_rows[:answers])
    return {
        **embedded_rows[0],
        "messages": [*embedded_rows[0]["messages"][:-1], {"role": "assistant", "content": text}],
    }


def test_no_answer_is_cut_on_its_way_to_evaluation(network, tokenizer, embedded_rows):
    row = long_row(embedded_rows, 100)
    answer = tokenizer(row["messages"][-1]["content"], add_special_tokens=False)["input_ids"]
    (score,) = score_likelihood(network, tokenizer, [row], max_tokens=SCORING_TOKEN_BUDGET)
    assert len(answer) > 2048, "the row is not longer than any max_length in use: make it longer"
    assert score["tokens"] == len(answer) + 1


def test_a_loss_that_is_not_finite_is_an_error(network, tokenizer, embedded_rows):
    with pytest.raises(FloatingPointError, match="not finite"):
        score_likelihood(blank_model(network, float("nan")), tokenizer, embedded_rows[:2], 2)
