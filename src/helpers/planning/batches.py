"""The rows of every optimizer step, on every rank."""

import math
import random
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter

from helpers.models.batching import cut_batches, padded_tokens
from helpers.planning.config import TrainingConfig

MicroBatch = list[int]  # row numbers
Step = list[list[MicroBatch]]  # [rank][micro-batch]
Schedule = list[list[Step]]  # [epoch][step]

MOST_ROWS = 3_000_000  # that a training may read: the schedule of so many takes seconds to make
POOL_ROWS = 2048  # rows that are sorted by length together; more pads less, fewer mixes rows better


def make_micro_batches(lengths: Sequence[int], config: TrainingConfig, epoch: int) -> list[MicroBatch]:
    """Returns one epoch's micro-batches, each row once, in an order that `config.seed` and the epoch decide.

    Rows of similar length stand together: pools of about POOL_ROWS random rows are sorted and cut; with
    sft.train_sampling_strategy "random" nothing is sorted.
    """
    rng = random.Random(f"{config.seed} {epoch}")
    order = rng.sample(range(len(lengths)), len(lengths))
    rows = 0 if config.max_tokens else config.sft["per_device_train_batch_size"]
    cut = partial(cut_batches, lengths=lengths, rows=rows, max_tokens=config.max_tokens)
    if config.sft["train_sampling_strategy"] == "random":
        return cut(order)
    pools = max(1, round(len(lengths) / POOL_ROWS))
    by_length = (sorted(order[pool::pools], key=lengths.__getitem__) for pool in range(pools))
    batches = [*chain.from_iterable(map(cut, by_length))]
    rng.shuffle(batches)
    return batches


def schedule_steps(lengths: Sequence[int], config: TrainingConfig, world: int) -> Schedule:
    """Returns the micro-batches of every step on each of `world` ranks, from the rows' lengths in tokens.

    Every epoch has the same number of steps, and every rank of a step the same number of micro-batches: in a last,
    short step the largest are halved to that end. `deal_step` shares a step out so that no rank waits long. The rows of
    a step depend on ranks × accumulation alone. Raises ValueError for a training of more than MOST_ROWS rows.
    """
    per_step = world * config.sft["gradient_accumulation_steps"]
    first = make_micro_batches(lengths, config, 0)
    number = math.ceil(config.num_train_epochs)
    if config.sft["max_steps"] > 0:
        number = math.ceil(config.sft["max_steps"] / math.ceil(len(first) / per_step))
    if number * len(lengths) > MOST_ROWS:
        raise ValueError(
            f"{number:,} epochs of {len(lengths):,} rows are more than {MOST_ROWS:,} rows: lower "
            f"train.num_train_epochs or sft.max_steps."
        )
    epochs = [first, *(make_micro_batches(lengths, config, epoch) for epoch in range(1, number))]
    for batches in epochs:
        split_largest(batches, max(map(len, epochs)), lengths)
    return [
        [deal_step(batches[start : start + per_step], lengths, world) for start in range(0, len(batches), per_step)]
        for batches in epochs
    ]


def count_steps(config: TrainingConfig, schedule: Schedule) -> int:
    """Returns the optimizer steps of a run: sft.max_steps, else its epochs × the steps of each, rounded up."""
    limit = config.sft["max_steps"]
    return limit if limit > 0 else math.ceil(config.num_train_epochs * len(schedule[0]))


def split_largest(batches: list[MicroBatch], number: int, lengths: Sequence[int]) -> None:
    """Halves the largest micro-batches in place until there are `number`, or none has two rows."""
    if len(batches) >= number:
        return
    sizes = [(len(batch) > 1, padded_tokens(batch, lengths)) for batch in batches]
    while len(batches) < number:
        largest = max(range(len(batches)), key=sizes.__getitem__)
        batch = batches[largest]
        if len(batch) == 1:
            return
        halves = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        batches[largest : largest + 1] = halves
        sizes[largest : largest + 1] = [(len(half) > 1, padded_tokens(half, lengths)) for half in halves]


def deal_step(batches: list[MicroBatch], lengths: Sequence[int], world: int) -> Step:
    """Deals a step's micro-batches to the ranks: as many to each, and tokens as equal as swapping pairs gets."""
    if world == 1:
        return [batches]
    split_largest(batches, -(-len(batches) // world) * world, lengths)
    sized = sorted(((padded_tokens(batch, lengths), batch) for batch in batches), key=itemgetter(0), reverse=True)
    shares = [sized[rank::world] for rank in range(world)]
    while True:
        loads = [sum(tokens for tokens, _ in share) for share in shares]
        heavy, light = shares[loads.index(max(loads))], shares[loads.index(min(loads))]
        gap = max(loads) - min(loads)
        swaps = [
            (abs(gap - 2 * (more - less)), i, j)
            for i, (more, _) in enumerate(heavy)
            for j, (less, _) in enumerate(light)
        ]
        new_gap, i, j = min(swaps, default=(gap, 0, 0))
        if new_gap >= gap:
            break
        heavy[i], light[j] = light[j], heavy[i]
    return [[batch for _, batch in sorted(share, key=itemgetter(0), reverse=True)] for share in shares]


def most_attended(schedule: Iterable[Step], lengths: Sequence[int], config: TrainingConfig) -> int:
    """Returns the most scores that attention keeps per head and layer for a micro-batch of these steps: its tokens,
    pads included, times its longest row's; 0 where all are checkpointed."""
    batches = [batch for step in schedule for share in step for batch in share]
    kept = [batch for batch in batches if not uses_checkpointing(padded_tokens(batch, lengths), config)]
    return max((padded_tokens(batch, lengths) ** 2 // len(batch) for batch in kept), default=0)


def uses_checkpointing(tokens: int, config: TrainingConfig, limit: int = 0) -> bool:
    """Returns whether a micro-batch of so many tokens, pads included, recomputes its activations to save memory.

    With a token budget only those above it do; without, all or none, as sft.gradient_checkpointing says. `limit` is
    the budget after memory ran out, 0 before.
    """
    budget = min(filter(None, (config.max_tokens, limit)), default=0)
    always = bool(config.sft["gradient_checkpointing"]) and not config.max_tokens
    return always or bool(budget and tokens > budget)


def effective_batch_rows(config: TrainingConfig, schedule: Schedule) -> float:
    """Returns the rows of an optimizer step over all GPUs; their mean where micro-batches are cut by tokens."""
    rows = [sum(len(batch) for share in step for batch in share) for step in schedule[0]]
    return max(rows) if not config.max_tokens else round(sum(rows) / len(rows), 1)


def effective_batch_line(config: TrainingConfig, schedule: Schedule) -> str:
    """Returns the effective batch as a product, from the schedule itself."""
    step = max(schedule[0], key=lambda step: len(step[0]))
    size = f"{config.max_tokens:,} tokens" if config.max_tokens else f"{max(map(len, step[0]))} rows"
    rows = f"{effective_batch_rows(config, schedule):g} rows{' on average' if config.max_tokens else ''}"
    parts = f"{len(step[0])} micro-batch{'es' * (len(step[0]) != 1)} × {len(step)} process{'es' * (len(step) != 1)}"
    return f"effective batch {size} × {parts} = {rows}"
