"""Models with random weights have the architecture of the model whose shape they have."""

import pytest
from transformers import AutoModelForCausalLM

from helpers.models.random_weights import save_random_model

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16}
SMALL |= {"num_key_value_heads": 2, "vocab_size": 4000, "tie_word_embeddings": True}


@pytest.mark.parametrize(
    ("shape", "architecture"),
    [
        ({}, "LlamaForCausalLM"),
        ({"model_type": "qwen3"}, "Qwen3ForCausalLM"),
        (
            {"model_type": "gemma3_text", "layer_types": ["sliding_attention"] * 5 + ["full_attention"]},
            "Gemma3ForCausalLM",
        ),
    ],
)
def test_random_weights_have_the_architecture_of_the_shape(shape, architecture, tokenizer, tmp_path):
    save_random_model(tmp_path, {**shape, **SMALL}, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(model).__name__ == architecture
    assert str(model.dtype) == "torch.float16"
    assert len(model.model.layers) == 2
    assert model.get_input_embeddings().weight.shape == (4000, 64)
