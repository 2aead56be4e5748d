"""Runs of earlier versions resume and compare: the embedded model reads and is taught the very tokens it was before."""

import hashlib
import json

from helpers.models.chat import encode_prompt, encode_rows


def digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def test_ids_and_labels_of_every_row_are_those_of_version_1(tokenizer, embedded_rows):
    examples = encode_rows(tokenizer, embedded_rows)
    assert len(examples) == 344
    assert digest(examples) == "eca25d991549aec6", "a run of an earlier version would train on other tokens"


def test_prompts_of_every_row_are_those_of_version_1(tokenizer, embedded_rows):
    prompts = [encode_prompt(tokenizer, row["messages"][:-1]) for row in embedded_rows]
    assert digest(prompts) == "0c7479e499e7b7de", "a run of an earlier version would be asked other tokens"


def test_plain_texts_are_those_of_version_1(tokenizer, embedded_rows):
    rows = [{"id": row["id"], "text": row["messages"][-1]["content"]} for row in embedded_rows]
    assert digest(encode_rows(tokenizer, rows)) == "fc0f0a3608b237c8"
