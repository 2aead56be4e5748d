"""What `generate_replies` returns: no prompt, no end token, nothing that depends on the batch."""

from collections import Counter

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from helpers.inference.generate import (
    generate_conversations,
    generate_replies,
    measure_replies,
    stream_reply,
    system_messages,
    write_tokens,
)
from helpers.models.batching import reply_sizes
from helpers.models.chat import IGNORED, encode_prompt, encode_row
from helpers.runs.files import write_json, write_jsonl
from helpers.runs.record import Run


@pytest.fixture(scope="module")
def conversations(embedded_rows):
    return [row["messages"][:-1] for row in embedded_rows[:7]]


class Scripted(torch.nn.Module):
    """A model that generates what `script` makes of the prompts' token ids; `given` is what it was asked with."""

    device = torch.device("cpu")

    def __init__(self, script):
        super().__init__()
        self.script, self.given = script, []

    def generate(self, input_ids, attention_mask, past_key_values, generation_config):
        self.given.append((input_ids, attention_mask, generation_config))
        return torch.cat([input_ids, self.script(input_ids)], dim=1)


def say(tokenizer, *texts):
    """Returns a model that answers one text in every row, or by turns, up to an end token where the text has one."""
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    calls = iter(range(99))
    return Scripted(lambda prompts: torch.tensor([tokens[next(calls) % len(tokens)]] * len(prompts)))


@pytest.fixture(scope="module")
def network(base):
    return LlamaForCausalLM.from_pretrained(base).eval()


@pytest.fixture(scope="module")
def replies(network, tokenizer, conversations):
    """Returns a random model's replies, one conversation at a time, and all in one batch."""
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


@pytest.mark.parametrize(("place", "count", "capped"), [(0, 1, False), (1, 2, False), (3, 4, False), (None, 4, True)])
def test_new_tokens_are_counted_with_the_end_token(tokenizer, conversations, place, count, capped):
    (word,) = tokenizer("ক", add_special_tokens=False)["input_ids"][:1]
    tokens = [tokenizer.eos_token_id if number == place else word for number in range(4)]
    (reply,) = generate_replies(
        Scripted(lambda prompts: torch.tensor([tokens])), tokenizer, conversations[:1], max_new_tokens=4, batch_size=1
    )
    assert (reply["new_tokens"], reply["hit_cap"]) == (count, capped)
    assert reply["reply"] == tokenizer.decode([word] * (place if place is not None else 4)).strip()


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_rows_that_have_ended_leave_without_a_trace(network, tokenizer, conversations, monkeypatch, chunk):
    """Some of a random model's tokens are taken for ends: every row ends at another place, one never does."""
    monkeypatch.setattr("helpers.inference.generate.CHUNK", chunk)
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    inputs = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    settings = GenerationConfig(
        max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=-1
    )
    whole = network.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :].tolist()
    rows_with = Counter(token for row in whole for token in set(row))
    ends = [next(token for token in row[4 * place :] if rows_with[token] == 1) for place, row in enumerate(whole[:4])]
    expected = [row[: next((at for at, token in enumerate(row) if token in ends), 23) + 1] for row in whole]
    assert len({len(row) for row in expected}) > 2, "the rows end at several places"
    settings.eos_token_id = ends
    batches, generate = [], network.generate
    monkeypatch.setattr(
        network, "generate", lambda **given: batches.append(len(given["input_ids"])) or generate(**given)
    )
    written = write_tokens(network, inputs, settings)
    assert [row[: len(own)] for row, own in zip(written, expected)] == expected
    assert batches == sorted(batches, reverse=True)
    assert (len(batches) == 1) == (chunk == 100)
    assert chunk == 100 or batches[-1] < len(prompts)


def test_a_batch_that_draws_stays_together(network, tokenizer, conversations, monkeypatch):
    monkeypatch.setattr("helpers.inference.generate.CHUNK", 2)
    calls, generate = [], network.generate
    monkeypatch.setattr(network, "generate", lambda **given: calls.append(len(given["input_ids"])) or generate(**given))
    generate_replies(network, tokenizer, conversations, 12, 7, temperature=0.8, seed=3)
    assert calls == [7]


@pytest.mark.parametrize("end", ["<|eot_id|>", "<|end_of_text|>"])
def test_every_end_token_of_llama_3_ends_a_reply(tokenizer, conversations, end):
    assert generate_replies(say(tokenizer, f"মন{end}ভালো"), tokenizer, conversations[:1], 9, 1)[0]["reply"] == "মন"


def test_greedy_is_the_default(tokenizer, conversations):
    model = say(tokenizer, "মন")
    generate_replies(model, tokenizer, conversations[:1], 9, 1)
    _, _, settings = model.given[0]
    assert not settings.do_sample
    assert (settings.max_new_tokens, settings.pad_token_id) == (9, tokenizer.pad_token_id)


def test_sampling_is_by_temperature_and_top_p_alone(tokenizer, conversations):
    model = say(tokenizer, "মন")
    generate_replies(model, tokenizer, conversations[:1], 9, 1, temperature=0.5, top_p=0.9)
    _, _, settings = model.given[0]
    assert (settings.do_sample, settings.temperature, settings.top_p, settings.top_k) == (True, 0.5, 0.9, 0)


def test_sampling_takes_every_token_unless_told_otherwise(tokenizer, conversations):
    model, streaming = say(tokenizer, "মন"), Streaming(tokenizer, 2)
    generate_replies(model, tokenizer, conversations[:1], 9, 1, temperature=0.5)
    list(stream_reply(streaming, tokenizer, conversations[0], 9, temperature=0.5))
    assert model.given[0][2].top_p == streaming.given[2].top_p == 1.0


def test_a_model_that_leaves_out_a_row_is_an_error(tokenizer, conversations, monkeypatch):
    model, real = say(tokenizer, "মন"), Scripted.generate
    monkeypatch.setattr(Scripted, "generate", lambda self, **given: real(self, **given)[:1])
    with pytest.raises(ValueError, match="shorter"):
        generate_replies(model, tokenizer, conversations[:2], 9, 2)


def test_a_reply_may_begin_with_its_prompts_first_token(tokenizer, conversations):
    begin = tokenizer.bos_token_id
    model = Scripted(lambda prompts: torch.tensor([[begin, begin]] * len(prompts)))
    assert generate_replies(model, tokenizer, conversations[:1], 9, 1)[0]["new_tokens"] == 2


def test_samples_are_drawn_by_the_seed(network, tokenizer, conversations):
    def draw(**seed):
        return [r["reply"] for r in generate_replies(network, tokenizer, conversations, 6, 2, temperature=1.0, **seed)]

    assert draw(seed=1) == draw(seed=1) != draw(seed=2)
    assert draw() == draw(seed=0)


def test_a_batch_is_padded_on_the_left(tokenizer, conversations):
    model = say(tokenizer, "মন")
    generate_replies(model, tokenizer, conversations, 9, 7)
    ids, mask, _ = model.given[0]
    assert mask[:, -1].all()
    assert not mask[:, 0].all(), "the prompts are equally long"
    assert (ids[mask == 0] == tokenizer.pad_token_id).all()


def test_replies_come_in_the_order_asked(tokenizer, conversations):
    """A model that repeats each prompt's last word but one: the question's own end."""
    lengths = {len(encode_prompt(tokenizer, messages)) for messages in conversations}
    assert len(lengths) > 1, "the batches are not by length"
    numbers = [[{"role": "user", "content": f"{'মন ' * (7 - n)}{n}"}] for n in range(7)]
    model = Scripted(lambda prompts: prompts[:, [find_end(tokenizer, row) for row in prompts[:1]]])
    replies = generate_replies(model, tokenizer, numbers, 9, 2)
    assert [reply["reply"] for reply in replies] == [str(n) for n in range(7)]


def find_end(tokenizer, ids):
    """Returns the place of the last token before the last end token."""
    return max(place for place, token in enumerate(ids.tolist()) if token == tokenizer.eos_token_id) - 1


def test_a_batch_that_does_not_fit_the_memory_is_halved(tokenizer, conversations, capsys):
    sizes, tokens = [], tokenizer("মন", add_special_tokens=False)["input_ids"]

    def script(prompts):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor([tokens] * len(prompts))

    replies = generate_replies(Scripted(script), tokenizer, conversations, 24, 7)
    assert [reply["reply"] for reply in replies] == ["মন"] * 7
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert "7 rows do not fit the memory: 3 at a time" in capsys.readouterr().out


def test_one_row_that_does_not_fit_the_memory_is_an_error(tokenizer, conversations):
    def script(_):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        generate_replies(Scripted(script), tokenizer, conversations[:1], 24, 1)


def test_a_batch_holds_no_more_tokens_than_its_budget(tokenizer, conversations, monkeypatch):
    lengths = sorted(len(encode_prompt(tokenizer, messages)) for messages in conversations)
    budget = 3 * reply_sizes(lengths, 24)[2]
    monkeypatch.setattr("helpers.inference.generate.GENERATION_TOKEN_BUDGET", budget)
    model = say(tokenizer, "মন")
    generate_replies(model, tokenizer, conversations, 24, 7)
    shapes = [ids.shape for ids, _, _ in model.given]
    assert shapes[0][0] == 3, "the three shortest fit exactly, coming reply included"
    assert all(rows == 1 or rows * max(length + 24, 2 * length) <= budget for rows, length in shapes)


def test_a_replys_seconds_are_its_share_of_the_batch(tokenizer, conversations, monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr("helpers.inference.generate.time.perf_counter", lambda: next(clock))
    replies = generate_replies(say(tokenizer, "মন"), tokenizer, conversations[:3], 9, 3)
    assert [reply["seconds"] for reply in replies] == [2.0] * 3


def test_a_model_reads_its_own_earlier_replies(tokenizer, tmp_path):
    model, system = say(tokenizer, "প্রথম", "দ্বিতীয়", "তৃতীয়"), [{"role": "system", "content": "সংক্ষেপে"}]
    conversations, keep = [["ক", "খ", "গ"], ["ঘ"]], tmp_path / "run/infer/work/tuned"
    answers = generate_conversations(model, tokenizer, conversations, system, keep, max_new_tokens=9, batch_size=2)
    expected = [(1, 1, "ক", "প্রথম"), (1, 2, "খ", "দ্বিতীয়"), (1, 3, "গ", "তৃতীয়"), (2, 1, "ঘ", "প্রথম")]
    assert [(a["conversation"], a["turn"], a["prompt"], a["reply"]) for a in answers] == expected
    turns = [("user", "ক"), ("assistant", "প্রথম"), ("user", "খ"), ("assistant", "দ্বিতীয়"), ("user", "গ")]
    read = [*system, *({"role": role, "content": content} for role, content in turns)]
    assert model.given[-1][0].tolist() == [encode_prompt(tokenizer, read)]
    names = [f"tuned_turn{turn}-0.jsonl" for turn in range(3)]
    assert sorted(file.name for file in keep.parent.iterdir()) == names


def test_conversations_without_a_system_message_are_continued(tokenizer, tmp_path):
    model, keep = say(tokenizer, "মন"), tmp_path / "run/infer/work/tuned"
    generate_conversations(model, tokenizer, [["একটা অনুচ্ছেদ"]], None, keep, max_new_tokens=9, batch_size=2)
    assert model.given[0][0].tolist() == [encode_prompt(tokenizer, "একটা অনুচ্ছেদ")]


def test_no_conversation_has_no_reply(tokenizer, tmp_path):
    keep = tmp_path / "run/infer/work/tuned"
    assert generate_conversations(say(tokenizer, "মন"), tokenizer, [], [], keep, max_new_tokens=9, batch_size=2) == []


def test_a_stream_grows_to_the_batched_reply(network, tokenizer, conversations):
    parts = list(stream_reply(network, tokenizer, conversations[0], 12))
    assert parts[-1] == generate_replies(network, tokenizer, conversations[:1], 12, 1)[0]["reply"]
    assert len(parts) > 3
    for before, after in zip(parts, parts[1:]):
        assert after.startswith(before.rstrip("\ufffd"))


def test_a_streamed_sample_is_drawn_by_the_seed(network, tokenizer, conversations):
    def draw(**seed):
        return [*stream_reply(network, tokenizer, conversations[0], 12, temperature=1.0, **seed)][-1]

    assert draw(seed=1) == draw(seed=1) != draw(seed=2)
    assert draw() == draw(seed=0)


class Streaming:
    """A model that streams words until its stopping criteria say stop; `given` is what it was asked with."""

    device = torch.device("cpu")

    def __init__(self, tokenizer, words=10_000):
        self.token, self.words = tokenizer("মন ", add_special_tokens=False)["input_ids"], words

    def generate(self, input_ids, attention_mask, streamer, generation_config, stopping_criteria):
        self.given, self.steps = (input_ids, attention_mask, generation_config), 0
        streamer.put(input_ids)
        while self.steps < self.words and not stopping_criteria[0](input_ids, None).all():
            streamer.put(torch.tensor(self.token))
            self.steps += 1
        streamer.end()


def test_a_stream_is_asked_as_a_batch_is(tokenizer, conversations):
    model = Streaming(tokenizer, 2)
    parts = list(stream_reply(model, tokenizer, conversations[0], 9, seconds=3.5))
    ids, mask, settings = model.given
    assert ids.tolist() == [encode_prompt(tokenizer, conversations[0])]
    assert mask.tolist() == [[1] * ids.shape[1]]
    assert (settings.max_new_tokens, settings.max_time) == (9, 3.5)
    assert not settings.do_sample
    assert parts[-1] == "মন মন", "the prompt is streamed too, or a word is missing"


def test_a_stream_ends_when_it_is_closed(tokenizer, conversations):
    model = Streaming(tokenizer)
    stream = stream_reply(model, tokenizer, conversations[0], 9)
    next(stream)
    stream.close()
    assert model.steps < 10_000, "the model wrote on after the reader had left"


def test_a_stream_raises_what_the_model_raises(network, tokenizer, monkeypatch):
    def broken(**_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(network, "generate", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        list(stream_reply(network, tokenizer, "মন", 8))


def test_replies_per_second_are_of_the_generation_alone():
    replies = [{"seconds": 2.0, "new_tokens": 10}, {"seconds": 3.0, "new_tokens": 5}]
    metrics = measure_replies(replies, [(0.5, 20.0), (1.5, 40.0)])
    assert metrics == {
        "n": 2,
        "tokens_per_second": 3.0,
        "seconds_per_reply": 2.5,
        "seconds_to_first_word": 1.0,
        "streamed_tokens_per_second": 30.0,
    }
    assert measure_replies(replies, [])["seconds_to_first_word"] is None


def test_the_system_message_is_that_of_the_rows(tmp_path):
    run, system = Run(tmp_path / "mine"), {"role": "system", "content": "সংক্ষেপে"}
    write_jsonl(run / "data/train.jsonl", [{"messages": [system, {"role": "user", "content": "ক"}]}, {"messages": []}])
    assert system_messages(run) == [system]
    write_json(run / "system.json", [])
    assert system_messages(run) == [], "an exported run's own file comes first"


def test_plain_texts_have_no_system_message(tmp_path):
    run = Run(tmp_path / "mine")
    write_jsonl(run / "data/train.jsonl", [{"text": "একটা অনুচ্ছেদ"}])
    assert system_messages(run) == []


def test_a_reply_that_begins_with_its_prompt_is_refused(tokenizer, conversations):
    with pytest.raises(ValueError, match="begins with its prompt"):
        generate_replies(Scripted(lambda prompts: prompts), tokenizer, conversations[:1], 9, 1)
