"""Families of base models, as families.yaml describes them."""

import pytest

from helpers.models.families import FAMILIES, SHAPES, linear_layers, model_shape


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


def test_a_name_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="the shape of 'llama-70b' is not known"):
        model_shape("llama-70b")


def test_every_shape_is_complete():
    shapes = [shape for family in FAMILIES.values() for shape in family.shapes.values()]
    assert all(len(linear_layers(shape)) == 7 and shape["vocab_size"] for shape in shapes)
