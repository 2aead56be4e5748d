"""A model of a given shape with random weights: as large and as slow as a trained one, and nothing to download."""

from pathlib import Path

from helpers.models.chat import Tokenizer
from helpers.models.families import Shape


def save_random_model(folder: Path, shape: Shape, tokenizer: Tokenizer, speaks: bool = False) -> None:
    """Saves a model with random weights, the same for the same shape, and the tokenizer; in float16, on the GPU if any.

    One that `speaks` writes tokens of that tokenizer only, and no special one, so that replies go to the cap. It is a
    Llama where the shape names no model_type.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {"model_type": "llama", **shape}
    if kinds := shape.get("layer_types"):
        shape["layer_types"] = kinds[: shape["num_hidden_layers"]]
    config = AutoConfig.for_model(**{**shape, "dtype": "float16", **tokens})
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            network = AutoModelForCausalLM.from_config(config)
    finally:
        torch.set_default_dtype(before)
    if speaks:
        with torch.no_grad():
            network.lm_head.weight[len(tokenizer) :] = 0
            network.lm_head.weight[list(tokenizer.get_added_vocab().values())] = 0
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
