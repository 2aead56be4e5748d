"""Secrets: what looks like one is taken out of texts, and nothing else."""

import bad_inputs
import pytest

from helpers.platforms.errors import describe_error
from helpers.platforms.scrub import HIDDEN, holds_secret, remember_secret, scrub


@pytest.mark.parametrize("token", bad_inputs.TOKENS)
def test_a_token_is_taken_out_of_a_text(token):
    assert scrub(f"GET /?x=1 with {token}, again") == f"GET /?x=1 with {HIDDEN}, again"
    assert token not in describe_error(ValueError(f"401 for {token}"))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://me:" + "word" + "@db/x", "postgresql://me:…@db/x"),
        ("https://x.example/?api_key=" + "abc&y=1", f"https://x.example/?api_key={HIDDEN}&y=1"),
        ("Authorization: Bearer " + "abcdef" * 4, f"Authorization: {HIDDEN}"),
    ],
)
def test_a_secret_in_a_url_or_header_is_taken_out(text, left):
    assert holds_secret(text)
    assert scrub(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "a1" * 32,  # a SHA-256
        "/data/" + "0123456789abcdef" * 2 + ".csv",
        "postgresql://me@db/x",
        "python -m helpers run --preset demo --set train.max_tokens=512",
        "task-based, risk-free; hf_token; the key: value",
        "আজ মন ভালো নেই।",  # I feel low today.
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text):
    assert not holds_secret(text)
    assert scrub(text) == text


def test_the_secrets_of_this_process_are_taken_out(monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "blue-horse-9")
    remembered = remember_secret("green-horse-8")
    assert scrub(f"blue-horse-9 and {remembered}") == f"{HIDDEN} and {HIDDEN}"
