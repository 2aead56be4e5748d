"""Loading a base model."""

import pytest

from helpers.models import loading
from helpers.models.loading import load_base_model, load_tokenizer


def test_a_model_that_is_nowhere_says_what_to_do():
    with pytest.raises(OSError, match="somebody/some-llama.*switch the internet on"):
        load_tokenizer("somebody/some-llama")


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (load_tokenizer, {"weights": False}),
        (lambda name: load_base_model(name, False, "float32", {"": "cpu"}), {}),
    ],
)
def test_a_model_is_fetched_before_it_is_loaded(load, expected, monkeypatch):
    fetched = []
    monkeypatch.setattr(loading, "fetch_model", lambda name, **options: fetched.append((name, options)))
    with pytest.raises(OSError, match="somebody/some-llama"):
        load("somebody/some-llama")
    assert fetched == [("somebody/some-llama", expected)]
