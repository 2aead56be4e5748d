"""Attention for writing replies on a GPU: keys and values are not repeated for each head that shares them."""

from typing import Any

NAME = "grouped_sdpa"


def use_grouped_attention(model: Any) -> None:
    """Makes a model without an adapter attend by `grouped_attention`. For a GPU: a CPU's replies stay the same bits."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


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
    the copies and the attention on them were 46 % (tests/benchmarks/RESULTS.md). For more tokens keys are repeated,
    since a T4 has no fast kernel that would share them.
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
