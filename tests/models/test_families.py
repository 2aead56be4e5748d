"""Families of base models, as families.yaml describes them."""

import pytest

from helpers.models.families import (
    FAMILIES,
    SHAPES,
    count_parameters,
    find_rate,
    linear_layers,
    model_shape,
)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "8B"),
        ("unsloth/llama-3.2-1b-instruct-bnb-4bit", "1B"),
        ("meta-llama/Llama-3.2-3B", "3B"),
        ("embedded", "embedded"),
    ],
)
def test_a_models_name_gives_its_shape(name, size):
    assert model_shape(name) == SHAPES[size]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("Qwen/Qwen3-1.7B", 1721),
        ("unsloth/Qwen3-4B-bnb-4bit", 4022),
        ("Qwen/Qwen3-4B-Instruct-2507", 4022),
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", 8191),
        ("sarvamai/sarvam-1", 2525),
        ("unsloth/gemma-3-4b-it-unsloth-bnb-4bit", 3880),
        ("google/gemma-3-1b-it", 1000),
    ],
)
def test_other_families_shapes_count_as_published(name, millions):
    assert count_parameters(model_shape(name), {"target_modules": []})["base"] / 1e6 == pytest.approx(
        millions, rel=1e-3
    )


OTHER_WEIGHTS = ["Qwen/Qwen3-4B-AWQ", "Qwen/Qwen3-8B-FP8", "Qwen/Qwen3-Embedding-4B", "a/sarvam-1-v2"]
OTHER_WEIGHTS += ["hishab/titulm-llama-3.2-1b-v2.0", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "a/open_llama_3b"]
OTHER_WEIGHTS += ["a/Meta-Llama-3.1-8B-Instruct-FP8"]


@pytest.mark.parametrize("name", OTHER_WEIGHTS)
def test_a_name_that_may_be_of_other_weights_is_not_known(name):
    assert find_rate(name) == (0, "")
    with pytest.raises(ValueError, match="is not known: HF_HUB_OFFLINE is set"):
        model_shape(name)


def test_a_name_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="the shape of 'llama-70b' is not known"):
        model_shape("llama-70b")


def test_every_shape_is_complete():
    shapes = [shape for family in FAMILIES.values() for shape in family.shapes.values()]
    assert all(len(linear_layers(shape)) == 7 and shape["vocab_size"] for shape in shapes)
