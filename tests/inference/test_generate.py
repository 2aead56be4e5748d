"""Replies: greedy whatever a model's file asks for, the same in every batch, one at a time or streamed."""

import shutil
import time

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from helpers.inference.generate import complete_characters, generate_conversations, generate_replies, stream_reply
from helpers.inference.loaded_model import LoadedModel
from helpers.models.loading import load_for_inference
from helpers.runs.files import read_jsonl, write_json
from helpers.training.loop import run_training


@pytest.fixture(scope="module")
def model(demo):
    return LoadedModel(demo.run)


@pytest.fixture(scope="module")
def conversations(demo):
    """Returns 24 conversations of the demo's test part, without their answers."""
    return [row["messages"][:-1] for row in read_jsonl(demo.run / "data/test.jsonl")[:24]]


@pytest.fixture
def generate(model):
    """Returns a function that gives the demo model's replies."""

    def call(conversations, max_new_tokens, batch_size):
        return texts(generate_replies(model.network, model.tokenizer, conversations, max_new_tokens, batch_size))

    return call


def texts(replies):
    return [reply["reply"] for reply in replies]


def test_a_trained_models_replies_differ(generate, conversations):
    assert len(set(generate(conversations, 48, 24))) > 12


def test_order_changes_no_reply(generate, conversations):
    assert generate(conversations[::-1], 48, 5)[::-1] == generate(conversations, 48, 24)


def test_batch_size_changes_no_reply(generate, conversations):
    assert generate(conversations[:6], 48, 1) == generate(conversations, 48, 24)[:6]


def test_greedy_stays_greedy_whatever_a_models_file_says(base, tokenizer, tmp_path, make, capsys):
    """Llama 3.1's generation_config.json asks for sampling; the library fills what is not given from it."""
    run = make("plain", sft={"max_steps": 1})
    run_training(run)
    wild = tmp_path / "wild"
    shutil.copytree(base, wild)
    own = {"do_sample": True, "temperature": 1.9, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    write_json(wild / "generation_config.json", {**own, "eos_token_id": tokenizer.eos_token_id})
    assert AutoModelForCausalLM.from_pretrained(wild).generation_config.do_sample is True
    asked = [[{"role": "user", "content": text}] for text in ("মন খারাপ।", "চাকরিটা চলে গেছে।")]
    capsys.readouterr()
    replies = []
    for folder in (base, wild, wild):
        network = load_for_inference(str(folder), run / "train/adapter", False, "float32")
        replies.append(texts(generate_replies(network, tokenizer, asked, 24, 2)))
    assert replies[0] == replies[1] == replies[2]
    assert "repetition_penalty 1.3, no_repeat_ngram_size 2" in capsys.readouterr().out


ASKED = ("মন খারাপ।", "পরীক্ষায় ফেল করেছি।", "ঘুম আসে না।")


def test_streamed_and_batched_replies_are_the_same(model, generate):
    asked = [[*model.system, {"role": "user", "content": text}] for text in ASKED]
    batched = generate(asked, 32, 3)
    alone = [generate([messages], 32, 1)[0] for messages in asked]
    streamed = [list(stream_reply(model.network, model.tokenizer, messages, 32)) for messages in asked]
    assert batched == alone == [parts[-1] for parts in streamed]


def test_each_side_streams_its_own_reply(model, generate):
    turns = [{"role": "user", "content": ASKED[0]}]
    streamed = {side: [*model.stream(turns, side, max_new_tokens=16)][-1] for side in ("base", "tuned")}
    for side, reply in streamed.items():
        with model.side(side):
            assert reply == generate([[*model.system, *turns]], 16, 1)[0]
    assert streamed["base"] != streamed["tuned"], "the adapter is on for both"


def test_a_streamed_reply_only_grows(model):
    for text in ASKED:
        asked = [*model.system, {"role": "user", "content": text}]
        parts = list(stream_reply(model.network, model.tokenizer, asked, 32))
        assert len(parts) > 3
        for before, after in zip(parts, parts[1:]):
            assert after.startswith(before)


HALVES = "ক্ষমা করো 😊 শ্রীমতী স্ত্রীর জন্য দুঃখ 👩‍🌾"


class Scripted:
    """A model that writes these tokens, one at a time."""

    device = torch.device("cpu")

    def __init__(self, tokens):
        self.tokens = tokens

    def generate(self, input_ids, streamer, **_):
        streamer.put(input_ids)
        for token in self.tokens:
            streamer.put(torch.tensor([token]))
        streamer.end()


def byte_tokens(tokenizer, text):
    """Returns a token per byte of a text: a character of Bengali has three, an emoji four."""
    alphabet = bytes_to_unicode()
    return tokenizer.convert_tokens_to_ids([alphabet[byte] for byte in text.encode()])


def test_a_character_cut_in_its_bytes_is_not_shown(tokenizer):
    tokens = byte_tokens(tokenizer, HALVES)
    assert "\ufffd" in tokenizer.decode(tokens[:1]), "the cut does not show: the test tests nothing"
    for count in range(1, len(tokens) + 1):
        whole = HALVES.encode()[:count].decode(errors="ignore")
        parts = [*stream_reply(Scripted(tokens[:count]), tokenizer, "মন", 999)]
        assert parts[-1] == whole.strip(), count
        assert not any("\ufffd" in part for part in parts), count


def test_bytes_between_characters_stay_in_the_reply(tokenizer):
    broken = [*byte_tokens(tokenizer, "ক"), byte_tokens(tokenizer, "ক")[0], *byte_tokens(tokenizer, "খ")]
    assert [*stream_reply(Scripted(broken), tokenizer, "মন", 99)][-1] == "ক\ufffdখ"


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_emoji_cut_at_the_cap_leaves_no_sign(cut):
    text = ("শুনছি 😊".encode()[:-cut]).decode(errors="replace")
    assert text.endswith("\ufffd")
    assert complete_characters(text) == "শুনছি "


def test_a_stream_ends_when_it_is_closed(model):
    stream = stream_reply(model.network, model.tokenizer, "মন", 400)
    next(stream)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 5


def test_a_model_reads_its_own_earlier_replies(model, generate, tmp_path):
    system, turns = model.system, ["মন খারাপ।", "এখন কী করব?"]
    keep = tmp_path / "run/infer/work/tuned"
    answers = generate_conversations(
        model.network, model.tokenizer, [turns, turns[:1]], system, keep, max_new_tokens=16, batch_size=2
    )
    assert [(answer["conversation"], answer["turn"]) for answer in answers] == [(1, 1), (1, 2), (2, 1)]
    assert [answer["prompt"] for answer in answers] == [*turns, turns[0]]
    messages = [*system, {"role": "user", "content": turns[0]}, {"role": "assistant", "content": answers[0]["reply"]}]
    assert answers[1]["reply"] == generate([[*messages, {"role": "user", "content": turns[1]}]], 16, 1)[0]
    assert [file.name for file in sorted(keep.parent.iterdir())] == ["tuned_turn0-0.jsonl", "tuned_turn1-0.jsonl"]
