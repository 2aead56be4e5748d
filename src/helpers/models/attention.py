"""Attention where the library's own is slow, on a GPU without Unsloth, or leaves something out, for Gemma 2."""

from typing import Any

NAME = "grouped_sdpa"


def use_grouped_attention(model: Any) -> None:
    """Makes a model without an adapter attend by `grouped_attention`, but for one that attends by other than "sdpa".

    For a GPU: what a CPU computes stays the same bits.
    """
    if model.config._attn_implementation != "sdpa":
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def use_capped_attention(model: Any) -> None:
    """Makes a model that was trained with capped attention scores (Gemma 2) attend so: "sdpa" leaves the cap out."""
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")


def grouped_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attends as the library's "sdpa" does, and returns (rows, tokens, heads, head size) and None.

    `query` is (rows, heads, tokens, head size); `key` and `value` have as many heads as are kept. For one new token per
    row, the query heads that share keys stand in the place of tokens, so that nothing is repeated: of a step of 64 rows
    the copies and the attention on them were 46 % (tests/benchmarks/RESULTS.md). For more tokens, in training too, keys
    are repeated: shared, they leave a T4 only the kernel that keeps every score (transformers' issue 48633).
    """
    import torch

    rows, heads, tokens, size = query.shape
    groups = heads // key.shape[1]
    options = {"dropout_p": dropout, "scale": scaling}
    attend = torch.nn.functional.scaled_dot_product_attention
    if tokens == 1:
        grouped = query.view(rows, key.shape[1], groups, size)
        output = attend(grouped, key, value, attn_mask=attention_mask, **options).reshape(rows, 1, heads, size)
        return output, None
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    causal = attention_mask is None
    if causal and key.shape[2] > tokens:
        raise ValueError("several new tokens after kept ones need a mask")
    output = attend(query, key, value, attn_mask=attention_mask, is_causal=causal, **options)
    return output.transpose(1, 2).contiguous(), None
