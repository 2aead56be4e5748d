"""Several runs whose base models cut text into other tokens: nothing that is per token is compared, and why is said."""

import csv
import re
import shutil

import pytest
from model_families import FAMILIES, build_tokenizer
from page_text import PageText

from helpers.__main__ import main
from helpers.models.loading import tokenizer_digest
from helpers.reporting.comparison import comparison_content, paired_differences, shared_scores
from helpers.reporting.results import read_results
from helpers.reporting.tokens import share_tokens
from helpers.reporting.words import Words
from helpers.runs.files import read_jsonl, write_json, write_jsonl
from helpers.runs.record import Run

CHOSEN = {"demo": "Llama 3 with another vocabulary", "other": "Llama without tokens for turns"}


@pytest.fixture(scope="module")
def tokenizers(embedded_rows):
    """Returns two tiny tokenizers by the run that they are for."""
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    return {name: build_tokenizer(FAMILIES[family], texts) for name, family in CHOSEN.items()}


def name_tokenizer(run, base_model, digest):
    """Writes the base model and the tokenizer's digest into a run's files; "" for none, as in an earlier version."""
    metrics = {name: value for name, value in run.metrics("evaluate").items() if name != "tokenizer"}
    write_json(run / "evaluate/metrics.json", metrics | ({"tokenizer": digest} if digest else {}))
    write_json(run / "train/metrics.json", run.metrics("train") | {"base_model": base_model})


@pytest.fixture
def pair(run):
    """Returns two runs with the same rows and replies."""
    shutil.copytree(run, run.outputs / "other")
    return [run, Run(run.outputs / "other")]


@pytest.fixture
def strangers(pair, tokenizers):
    """Returns two runs whose files have the tokens of their own tokenizer each."""
    for run in pair:
        own = tokenizers[run.name]
        name_tokenizer(run, f"people/{run.name}-1b", tokenizer_digest(own))
        rows = read_jsonl(run / "evaluate/tuned.jsonl")
        counted = [{**row, "new_tokens": len(own.tokenize(row["reply"])) + 1} for row in rows]
        write_jsonl(run / "evaluate/tuned.jsonl", counted)
        with open(run / "evaluate/scores.csv", encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        tokens = {row["id"]: len(own.tokenize(row["reference"])) + 1 for row in rows}
        with open(run / "evaluate/scores.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, lines[0])
            writer.writeheader()
            writer.writerows({**line, "tokens": tokens[line["id"]]} for line in lines)
    return pair


def content_of(runs):
    return comparison_content([read_results(run) for run in runs], runs[0].outputs, Words())


def test_no_score_per_token_is_compared(strangers):
    results = [read_results(run) for run in strangers]
    _, pairs = paired_differences(results)
    for scores in (*shared_scores(results), *pairs.values()):
        assert {"bits_per_char", "chrf", "graded"} <= scores.keys()
        assert not scores.keys() & {"perplexity", "token_accuracy", "hit_cap"}


def test_no_loss_per_token_is_shown_beside_another(strangers):
    shown = {row["what"] for row in content_of(strangers)["tables"]["training"]}
    assert "time of training" in shown
    assert not shown & {"training loss", "validation loss", "tokens seen", "tokens per second"}


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("en", "cut the same text into different tokens"), ("bn", "একই লেখাকে আলাদা টোকেনে ভাগ করে")],
)
def test_the_page_says_why_tokens_are_not_compared(strangers, language, sentence):
    assert main(["report", *map(str, strangers), "--language", language]) == 0
    page = PageText(strangers[0].outputs / "comparison.html")
    assert sentence in page.text
    assert "people/other-1b" in page.text
    assert not (strangers[0].outputs / "comparison_figures/several_losses.png").exists()


def test_a_run_is_named_as_it_is_in_bengali_too(strangers):
    assert main(["report", *map(str, strangers), "--language", "bn"]) == 0
    page = PageText(strangers[0].outputs / "comparison.html")
    assert "অন্যান্য" not in page.text, "the run called other was translated: give Words the runs' names"


def test_the_page_says_how_long_the_limits_are(strangers):
    about = " ".join(content_of(strangers)["tokens"])
    lengths = dict(re.findall(r"(demo|other): 96 tokens, about ([\d,]+) characters", about))
    for run in strangers:
        rows = read_jsonl(run / "evaluate/tuned.jsonl")
        per_token = sum(len(row["reply"]) for row in rows) / sum(row["new_tokens"] for row in rows)
        assert int(lengths[run.name].replace(",", "")) == round(96 * per_token)


def test_two_models_of_one_tokenizer_are_compared(pair, tokenizers):
    for run in pair:
        name_tokenizer(run, f"people/{run.name}-1b", tokenizer_digest(tokenizers["demo"]))
    content = content_of(pair)
    assert content["tokens"] == []
    assert "perplexity of the answers" in {row["score"] for row in content["tables"]["scores"]}
    assert "validation loss" in {row["what"] for row in content["tables"]["training"]}


def test_one_name_with_two_tokenizers_is_two_models(pair, tokenizers):
    for run in pair:
        name_tokenizer(run, "people/a-1b", tokenizer_digest(tokenizers[run.name]))
    assert not share_tokens([read_results(run) for run in pair])


@pytest.mark.parametrize(
    ("models", "same"),
    [
        (("people/a-1b", "people/a-1b"), True),
        (("people/a-1b", "people/a-1b-bnb-4bit"), True),
        (("people/a-1b", "people/b-1b"), False),
        (("", ""), False),
    ],
)
def test_earlier_runs_are_known_by_their_base_model(pair, models, same):
    for run, digest, model in zip(pair, ("", "0123456789abcdef"), models):
        name_tokenizer(run, model, digest)
    assert share_tokens([read_results(run) for run in pair]) is same


def test_embedded_models_of_other_rows_are_not_one_model(pair):
    for run in pair:
        name_tokenizer(run, "embedded", "")
    write_json(pair[1] / "data/metrics.json", pair[1].metrics("prepare_data") | {"embedded_model": "embedded-other"})
    assert not share_tokens([read_results(run) for run in pair])


def test_other_counts_of_tokens_are_other_tokens(strangers):
    for run in strangers:
        name_tokenizer(run, "people/a-1b", "")
    assert not share_tokens([read_results(run) for run in strangers])
