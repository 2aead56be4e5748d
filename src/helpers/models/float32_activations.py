"""Activations in float32 where they exceed float16's 65,504 and the GPU has no bfloat16 (families.yaml, `overflows`).

Weights and the products with them stay in float16; embeddings, norms, residuals, activation functions, attention and
the adapter compute in float32. This is for transformers and PEFT, which would leave them in float16; Unsloth does it by
itself for Gemma 3.
"""

from typing import Any

from helpers.models.families import OVERFLOWS, describe_overflow

WAY_OUT = (
    "Expected a GPU with bfloat16 (compute capability 8.0 or more), or train.backend=peft, which keeps them in float32."
)
INPUT_EXPONENT = 6  # inputs below 2**6: a row of weights whose absolute values sum to at most 1,023 cannot overflow


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


def overflows_float16(model: Any) -> bool:
    """Returns whether a model, not yet with an adapter, was loaded in float16 and its activations exceed that."""
    import torch

    return model.dtype == torch.float16 and model.config.get_text_config().model_type in OVERFLOWS


def keep_activations_in_float32(model: Any) -> None:
    """Makes a model of `overflows_float16` compute its activations in float32; leaves others alone.

    Call it before an adapter is put on. The decoder then ignores autocast: training and inference compute the same.
    """
    import torch

    if not overflows_float16(model):
        return
    model.get_input_embeddings().register_forward_hook(_embed_in_float32)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    for layer in layers:
        layer.forward = _ScaledProduct(layer.forward)
    decoder = model.get_decoder()
    decoder.forward = torch.autocast(model.device.type, enabled=False)(decoder.forward)


class _ScaledProduct:
    """A linear layer's forward in float16, between activations in float32.

    A token's input of 2**INPUT_EXPONENT or more is divided by a power of 2 and its output multiplied by it, which is
    exact in float32.
    """

    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, given: Any) -> Any:
        import torch

        with torch.no_grad():
            _, exponent = torch.frexp(given.float().abs().amax(-1, keepdim=True))
            scale = torch.exp2((exponent - INPUT_EXPONENT).clamp(min=0).float())
        output = self.forward((given / scale).to(torch.float16)).float()
        return output * scale.to(output.device)


def _embed_in_float32(table: Any, given: tuple, output: Any) -> Any:
    """Returns the embeddings scaled in float32: scaled in float16 they may be infinite already."""
    import torch

    rows = torch.nn.functional.embedding(given[0].to(output.device), table.weight)
    return rows.float() * getattr(table, "scalar_embed_scale", 1.0)
