"""Shapes of base models as in their own config.json, for random weights, and the cases that train them."""

from helpers.models.families import SHAPES as LLAMA

QWEN_3 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1.0e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
SHAPES = LLAMA | {
    "qwen3-4B": {**QWEN_3, "hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True},
    "qwen3-8B": {**QWEN_3, "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
    "gemma3-4B": {  # its text part
        "model_type": "gemma3_text",
        "vocab_size": 262208,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 1024,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "sarvam-1": {
        "model_type": "llama",
        "vocab_size": 68096,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
}
# The longest row has 2,048 tokens; a step takes two micro-batches of the budget
FAMILY = {"preset": "kaggle-t4x2", "steps": 8, "rows": 300, "family": True}
STEP = ["train.max_tokens={}", "train.sft.gradient_accumulation_steps=2"]


def family_case(size: str, tokens: int, backend: str = "unsloth") -> dict:
    """Returns the case of a shape with this token budget."""
    return {**FAMILY, "size": size, "backend": backend, "sets": [text.format(tokens) for text in STEP]}


FAMILY_CASES = {
    "family-llama-3b": family_case("3B", 2048),
    "family-qwen3-4b": family_case("qwen3-4B", 2048),
    "family-qwen3-8b": family_case("qwen3-8B", 1536),
    "family-gemma3-4b": family_case("gemma3-4B", 1024),  # activations in float32, by Unsloth
    "family-gemma3-4b-peft": family_case("gemma3-4B", 512, "peft"),  # and by this project
    "family-sarvam-1": family_case("sarvam-1", 2048),
}
