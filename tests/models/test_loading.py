"""Loading a base model."""

import pytest
from model_families import FAMILIES, build_tokenizer

from helpers.models import loading
from helpers.models.loading import load_base_model, load_tokenizer, tokenizer_digest


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


def test_a_tokenizer_is_the_same_after_it_is_saved(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    tokenizer.padding_side = "left"
    tokenizer(["a", "longer"], padding=True, truncation=True, max_length=4)  # the backend keeps both
    assert tokenizer_digest(load_tokenizer(str(tmp_path))) == tokenizer_digest(tokenizer)


def test_other_vocabularies_or_special_tokens_are_told_apart(tokenizer, embedded_rows):
    texts = [message["content"] for row in embedded_rows[:40] for message in row["messages"]]
    families = ("Llama 3 with another vocabulary", "Qwen 2.5", "Qwen 3")
    digests = [tokenizer_digest(own) for own in (tokenizer, *(build_tokenizer(FAMILIES[n], texts) for n in families))]
    assert len(set(digests)) == 4


def test_a_tokenizer_without_fast_backend_has_a_digest():
    class Slow:
        def get_vocab(self):
            return {"ক": 0}

    assert len(tokenizer_digest(Slow())) == 16
