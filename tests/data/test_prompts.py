"""The fixed prompts: the same messages for every model of every run."""

import pytest

from helpers.data.prompts import FIVE, PROMPTS, five_prompts, fixed_prompts
from helpers.language.bengali import bengali_share, normalise


def test_every_category_has_six_prompts():
    categories = [prompt["category"] for prompt in fixed_prompts()]
    assert {category: categories.count(category) for category in categories} == dict.fromkeys(categories, 6)
    assert len(set(categories)) == 10


def test_no_prompt_stands_twice():
    prompts = [prompt["prompt"] for prompt in fixed_prompts()]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("prompt", [*(prompt["prompt"] for prompt in fixed_prompts()), *PROMPTS["turns"]])
def test_a_prompt_is_normalised_bengali(prompt):
    assert bengali_share(prompt) == 1
    assert normalise(prompt) == prompt


def test_the_five_are_the_first_of_their_categories():
    first = {}
    for prompt in fixed_prompts():
        first.setdefault(prompt["category"], prompt["prompt"])
    assert five_prompts() == [first[category] for category in FIVE]
