"""Loading a base model."""

import pytest

from helpers.models.loading import load_tokenizer


def test_a_model_that_is_nowhere_says_what_to_do():
    with pytest.raises(OSError, match="somebody/some-llama.*switch the internet on"):
        load_tokenizer("somebody/some-llama")
