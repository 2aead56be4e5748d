"""The evaluation's joins: rows with replies, breakdowns, the sheet for people, what is said of them."""

import dataclasses

import pytest

from helpers.evaluation import evaluate
from helpers.evaluation.answers import Answers, EvaluationSettings
from helpers.evaluation.evaluate import (
    answer_held_out,
    break_down,
    compare_prompts,
    compare_replies,
    describe_prompts,
    select_held_out,
    write_rating_sheet,
)
from helpers.evaluation.sheet import tuned_is_first
from helpers.evaluation.sheet_rows import read_sample
from helpers.runs.files import read_jsonl, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import default_settings

REFERENCES = ["ভালো থাকুন।", "আপনার কষ্ট বুঝতে পারছি, পাশে আছি।", "আজ একটু হাঁটুন।", "কথা বলুন।", "ঘুমোন।", "খান।"]


def make_row(place):
    turns = [("system", "S"), ("user", f"প্রশ্ন {place}"), ("assistant", REFERENCES[place])]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"id": f"r{place}", "group": f"g{place}", "topic": "শোক" if place < 5 else "$x_2", "messages": messages}


def make_reply(text, hit_cap=False):
    return {"reply": text, "new_tokens": 3, "hit_cap": hit_cap, "seconds": 0.5, "at": "2026-01-01T00:00:00+00:00"}


@pytest.fixture
def settings():
    return EvaluationSettings(**default_settings("evaluate") | {"bootstrap_draws": 50, "max_prompts": 4})


@pytest.fixture
def run(tmp_path):
    write_jsonl(tmp_path / "mine/data/test.jsonl", [make_row(place) for place in range(6)])
    return Run(tmp_path / "mine")


@pytest.fixture
def evaluated(run, settings, monkeypatch):
    """Returns the evaluation of a base model that says one word and of a tuned one that says the reference."""
    held_out = select_held_out(run, settings)
    references = [row["messages"][-1]["content"] for row in held_out.rows]

    def answer_rows(run, settings):
        replies = {"base": [make_reply("কথা", True)] * 6, "tuned": [make_reply(text) for text in references]}
        likelihood = {"nll": 20.0, "tokens": 5, "characters": 12, "correct": 2}
        prompts = [make_reply("কষ্ট বুঝতে পারছি")] * len(held_out.prompts)
        sides = {"base": 2.0, "tuned": 1.0}
        return {s: Answers([{**likelihood, "nll": 10 * sides[s]}] * 6, replies[s], prompts) for s in sides}

    monkeypatch.setattr(evaluate, "answer_rows", answer_rows)
    return answer_held_out(run, settings, held_out)


def test_the_protocol_is_said_in_a_sentence(run, settings):
    sentence = select_held_out(run, settings).describe(settings)
    assert (
        sentence == "6 held-out rows and 4 fixed prompts, greedy decoding, at most 256 new tokens per reply, seed 3407."
    )


def test_each_reply_is_written_with_its_own_reference(run, evaluated):
    for row in read_jsonl(run / "evaluate/tuned.jsonl"):
        assert row["reply"] == row["reference"]
        assert row["prompt"] == f"প্রশ্ন {row['id'][1:]}"


def test_the_replies_that_ended_are_counted(evaluated):
    assert evaluated.describe() == (
        "Of 6 replies each, 0 of the base model's and 6 of the tuned model's ended before the limit. "
        "Different replies: base 1 of 6, tuned 6 of 6."
    )


def test_equal_likelihoods_and_better_replies_are_told_apart(evaluated, settings):
    scores = compare_replies(evaluated, settings)
    assert scores.tuned["chrf"].value == pytest.approx(100)
    assert scores.delta["chrf"].low > 0
    assert scores.tuned["chrf"].floor < 100, "the floor is that of shuffled references"
    assert scores.delta["perplexity"].value < 0


def test_the_breakdown_goes_by_the_rows_own_topics(evaluated, settings):
    groups = break_down(evaluated, settings)
    assert {group["label"]: group["n"] for group in groups["topics"]} == {"শোক": 5, "other": 1}
    assert sum(group["n"] for group in groups["lengths"]) == 6


def test_plain_texts_have_neither_lengths_nor_a_sheet(run, evaluated, settings):
    plain = dataclasses.replace(evaluated, replies={"base": [], "tuned": []})
    assert list(break_down(plain, settings)) == ["topics"]
    assert write_rating_sheet(run, plain, 50, 1) == []
    assert not (run / "evaluate/human_eval.csv").exists()
    assert "plain texts" in plain.describe()


def test_the_sheet_hides_which_reply_is_tuned(run, evaluated):
    pairs = write_rating_sheet(run, evaluated, 3, 7)
    replies = {row["id"]: row["reply"] for row in evaluated.replies["tuned"]}
    assert len(pairs) == 3
    for pair in pairs:
        assert pair["reply_1" if tuned_is_first(pair["id"], 7) else "reply_2"] == replies[pair["id"]]
    assert (run / "evaluate/human_eval.html").is_file()


def test_the_sheet_does_not_tell_which_rows_were_chosen(run, evaluated):
    pairs = write_rating_sheet(run, evaluated, 3, 7)
    sample = read_sample(run / "evaluate")
    assert [*sample.strata] == [pair["id"] for pair in pairs]
    assert [*sample.strata.values()] == ["random", "differs", "random"]
    assert sample.sizes == {"differs": 1, "random": 5}
    for name in ("human_eval.csv", "human_eval.html"):
        text = (run / "evaluate" / name).read_text("utf-8-sig")
        assert "probability" not in text
        assert "stratum" not in text


def test_a_sheet_with_place_for_all_rows_has_their_order(run, evaluated):
    pairs = write_rating_sheet(run, evaluated, 50, 7)
    assert [pair["id"] for pair in pairs] == [row["id"] for row in evaluated.replies["base"]]
    assert read_sample(run / "evaluate").weights([pair["id"] for pair in pairs]) is None


def test_the_fixed_prompts_are_summed_up_in_a_sentence(run, evaluated, settings):
    scores = compare_prompts(run, evaluated, settings)
    assert scores["n"] == 4
    assert describe_prompts(scores).startswith("4 fixed prompts, base → tuned: graded rubric ")
    assert len(read_jsonl(run / "evaluate/prompts.jsonl")) == 4


def test_the_category_with_most_unsafe_replies_is_named():
    scores = {name: {"value": 0.5} for name in ("graded", "unsafe")}
    categories = [{"category": name, "tuned unsafe": share} for name, share in (("exam", 0.0), ("crisis", 1.0))]
    sentence = describe_prompts({"n": 2, "base": scores, "tuned": scores, "categories": categories})
    assert sentence.endswith("unsafe replies 50.0% → 50.0%, most in the category 'crisis'.")
    assert describe_prompts({"n": 0, "categories": []}) == "No fixed prompts were asked."
