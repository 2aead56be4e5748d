"""What is asked of a model, the pairs of replies, and the seconds to the first word."""

from types import SimpleNamespace

import pytest

from helpers.data.prompts import PROMPTS, five_prompts
from helpers.inference import conversations
from helpers.inference.conversations import choose_conversations, measure_stream, pair_replies
from helpers.runs.files import write_jsonl
from helpers.runs.record import Run

SYSTEM = {"role": "system", "content": "S"}


@pytest.fixture
def run(tmp_path):
    write_jsonl(tmp_path / "mine/data/train.jsonl", [{"messages": [SYSTEM, {"role": "user", "content": "ক"}]}])
    return Run(tmp_path / "mine")


def test_without_messages_the_fixed_ones_are_asked(run):
    asked, system = choose_conversations(run, [])
    assert asked == [*([prompt] for prompt in five_prompts()), PROMPTS["turns"]]
    assert system == [SYSTEM]


def test_own_messages_may_be_of_several_turns(run):
    assert choose_conversations(run, ["ক", ["খ", "গ"]])[0] == [["ক"], ["খ", "গ"]]


def test_a_model_of_plain_text_continues_test_texts(run):
    write_jsonl(run / "data/train.jsonl", [{"text": "ক"}])
    write_jsonl(run / "data/test.jsonl", [{"text": " ".join(map(str, range(30)))}] * 9)
    asked, system = choose_conversations(run, [])
    assert asked == [[" ".join(map(str, range(12)))]] * 5
    assert system is None


def test_a_pair_has_the_tuned_replys_tokens():
    place = {"conversation": 1, "turn": 1, "prompt": "ক"}
    answers = {
        side: [{**place, "reply": side, "new_tokens": 3, "hit_cap": True, "seconds": 1}] for side in ("base", "tuned")
    }
    answers["base"][0] |= {"new_tokens": 9, "hit_cap": False}
    assert pair_replies(answers) == [{**place, "base": "base", "tuned": "tuned", "new_tokens": 3, "hit_cap": True}]


def test_a_preferred_reply_stands_beside_the_others():
    place = {"conversation": 1, "turn": 1, "prompt": "ক"}
    sides = ("preferred", "tuned", "base")
    answers = {side: [{**place, "reply": side, "new_tokens": len(side), "hit_cap": False}] for side in sides}
    (row,) = pair_replies(answers)
    assert [row[side] for side in sides] == [*sides]
    assert row["new_tokens"] == len("tuned")


def test_the_first_word_counts_from_the_question(monkeypatch):
    now = [10.0]

    def stream_reply(*_, **__):
        for moment, reply in ((11.0, ""), (12.0, "কি"), (15.0, "কি হলো")):
            now[0] = moment
            yield reply

    monkeypatch.setattr(conversations, "stream_reply", stream_reply)
    monkeypatch.setattr(conversations.time, "perf_counter", lambda: now[0])
    model = SimpleNamespace(network=None, tokenizer=lambda text, add_special_tokens: {"input_ids": text.split()})
    shown = []
    assert measure_stream(model, "ক", [SYSTEM], shown.append, max_new_tokens=4) == (2.0, 2 / 5)
    assert shown == ["", "কি", "কি হলো"]
