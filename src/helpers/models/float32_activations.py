"""Activations in float32 where they exceed float16's 65,504 and the GPU has no bfloat16 (families.yaml, `overflows`).

Weights and the products with them stay in float16; embeddings, norms, residuals, activation functions, attention and
the adapter compute in float32. For plain transformers and PEFT, which do nothing of it; Unsloth does it by itself.
"""

from typing import Any

from helpers.models.families import OVERFLOWS, describe_overflow

WAY_OUT = (
    "Expected a GPU with bfloat16 (compute capability 8.0 or more), or train.backend=peft, which keeps them in float32."
)
LARGEST_INPUT = 6  # exponent of 2; by 64 at most, a row of weights whose sizes sum to 1,023 gives what float16 holds


def explain_activations(model: Any, dtype: str) -> str:
    """Returns why a model that was loaded in this dtype keeps its activations in float32, "" where it does not."""
    problem = describe_overflow(model.config.get_text_config().model_type) if dtype == "float16" else ""
    return f"{problem}: they are kept in float32" if problem else ""


def check_unsloth(model: Any, dtype: str) -> None:
    """Raises ValueError where Unsloth has loaded a model in float16 whose activations exceed that."""
    kind = model.config.get_text_config().model_type
    if dtype == "float16" and kind in OVERFLOWS and not computes_in_float32(model):
        raise ValueError(f"{describe_overflow(kind)}, and this Unsloth does not keep them in float32. {WAY_OUT}")


def computes_in_float32(model: Any) -> bool:
    """Returns whether Unsloth keeps a model's activations in float32; it then trains without autocast and scaler."""
    return bool(getattr(model, "_unsloth_forced_float32", False))


def keeps_activations_in_float32(model: Any) -> bool:
    """Returns whether a model without an adapter was loaded in float16, and its activations exceed that."""
    import torch

    return model.dtype == torch.float16 and model.config.get_text_config().model_type in OVERFLOWS


def keep_activations_in_float32(model: Any) -> None:
    """Makes such a model keep its activations in float32; leaves others alone. Call it before an adapter is put on.

    What is computed is then the same under the autocast of a training and without it.
    """
    import torch

    if not keeps_activations_in_float32(model):
        return
    model.get_input_embeddings().register_forward_hook(_embed_in_float32)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    for layer in layers:
        layer.forward = _ScaledProduct(layer.forward)
    decoder = model.get_decoder()
    decoder.forward = torch.autocast(model.device.type, enabled=False)(decoder.forward)


class _ScaledProduct:
    """A linear layer's forward in float16, between activations in float32.

    A token's input above LARGEST_INPUT is divided by a power of 2, and its output multiplied: that rounds nothing.
    """

    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, given: Any) -> Any:
        import torch

        with torch.no_grad():
            _, exponent = torch.frexp(given.float().abs().amax(-1, keepdim=True))
            scale = torch.exp2((exponent - LARGEST_INPUT).clamp(min=0).float())
        output = self.forward((given / scale).to(torch.float16)).float()
        return output * scale.to(output.device)


def _embed_in_float32(table: Any, given: tuple, output: Any) -> Any:
    """Returns what a table of embeddings gives, scaled in float32: scaled in float16 it may be infinite already."""
    import torch

    rows = torch.nn.functional.embedding(given[0].to(output.device), table.weight)
    return rows.float() * getattr(table, "scalar_embed_scale", 1.0)
