"""Rows cut into micro-batches, and how many tokens one may have."""

from collections.abc import Iterable, Sequence

LOGITS_CHUNK_TOKENS = 512  # answer tokens scored at one time: their logits are 512 × 128,256 × 4 B = 0.24 GiB
GENERATION_TOKEN_BUDGET = 40_960  # of a batch, by `reply_sizes`: an 8B has 5 GiB of keys and values for so many tokens
SCORING_TOKEN_BUDGET = 8192  # of a batch that is only scored


def cut_batches(order: Iterable[int], lengths: Sequence[int], rows: int = 0, max_tokens: int = 0) -> list[list[int]]:
    """Cuts row numbers, in this order, into micro-batches of at most `rows` rows or `max_tokens` tokens, pads included.

    `lengths` are the rows' tokens. A row longer than `max_tokens` is a micro-batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0  # tokens of the last batch's longest row
    for row in order:
        longest = max(longest, lengths[row])
        size = len(batches[-1]) if batches else 0
        if not size or (rows and size >= rows) or (max_tokens and longest * (size + 1) > max_tokens):
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return batches


def reply_sizes(prompts: Sequence[int], new_tokens: int) -> list[int]:
    """Returns what each row counts in a batch that is answered: its tokens with the coming reply's, or twice its
    prompt's, which take more memory while they are read."""
    return [max(prompt + new_tokens, 2 * prompt) for prompt in prompts]


def padded_tokens(batch: Sequence[int], lengths: Sequence[int]) -> int:
    """Returns the tokens that a micro-batch computes, pads included: rows × the longest."""
    return len(batch) * max(map(lengths.__getitem__, batch))
