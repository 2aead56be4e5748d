"""The rows of every optimizer step."""

import random
from functools import partial

import configs
import pytest

from helpers.models.batching import cut_batches, padded_tokens
from helpers.planning.batches import (
    count_steps,
    effective_batch_line,
    effective_batch_rows,
    most_attended,
    schedule_steps,
    split_largest,
    uses_checkpointing,
)

RNG = random.Random(5)
LENGTHS = [RNG.randint(20, 900) for _ in range(5000)] + [2048, 2047]

make_config = partial(configs.make_config, num_train_epochs=2.0, seed=3)


def rows_of(steps):
    """Returns the rows of some steps, in order."""
    return [row for step in steps for share in step for batch in share for row in batch]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("changes", [{"max_tokens": 1792}, {}, {"sft": {"train_sampling_strategy": "random"}}])
def test_an_epoch_has_every_row_once(world, changes):
    epochs = schedule_steps(LENGTHS, make_config(**changes), world)
    assert len(epochs) == 2
    assert epochs[0] != epochs[1], "both epochs have the same order: is the epoch part of the seed?"
    for epoch in epochs:
        assert sorted(rows_of(epoch)) == list(range(len(LENGTHS)))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("changes", [{"max_tokens": 1792}, {}, {"sft": {"train_sampling_strategy": "random"}}])
def test_every_rank_gets_as_many_micro_batches(world, changes):
    epochs = schedule_steps(LENGTHS, make_config(**changes), world)
    assert len({len(epoch) for epoch in epochs}) == 1, "the library counts steps by the first epoch"
    for epoch in epochs:
        assert all(len(step) == world for step in epoch)
        assert all(len({len(share) for share in step}) == 1 for step in epoch), "a rank would wait for the others"
        assert all(len(step[0]) == 8 for step in epoch[:-1])


def test_the_larger_of_two_uneven_halves_is_halved_next():
    batches = [[0, 1, 2, 3, 4], [5]]
    split_largest(batches, 4, lengths=[10, 10, 10, 10, 10, 50])
    assert batches == [[0, 1], [2], [3, 4], [5]]


def test_rows_of_a_step_depend_on_ranks_times_accumulation():
    rows = []
    for world, accumulation in ((1, 6), (2, 3), (3, 2)):
        config = make_config(max_tokens=1792, sft={"gradient_accumulation_steps": accumulation})
        rows.append([[sorted(rows_of([step])) for step in epoch] for epoch in schedule_steps(LENGTHS, config, world)])
    assert rows[0] == rows[1] == rows[2]


def test_only_rows_above_the_budget_exceed_it():
    epochs = schedule_steps(LENGTHS, make_config(max_tokens=1792), 2)
    batches = [batch for step in epochs[0] for share in step for batch in share]
    over = [batch for batch in batches if padded_tokens(batch, LENGTHS) > 1792]
    assert sorted(LENGTHS[row] for batch in over for row in batch) == [2047, 2048]


def test_sorting_by_length_wastes_little_on_padding():
    epochs = schedule_steps(LENGTHS, make_config(max_tokens=1792), 2)
    batches = [batch for step in epochs[0] for share in step for batch in share]
    unsorted = cut_batches(range(len(LENGTHS)), LENGTHS, max_tokens=1792)
    assert sum(LENGTHS) / sum(padded_tokens(batch, LENGTHS) for batch in batches) > 0.97
    assert sum(LENGTHS) / sum(padded_tokens(batch, LENGTHS) for batch in unsorted) < 0.8


def test_the_seed_decides_the_order():
    first, again, other = (schedule_steps(LENGTHS, make_config(max_tokens=1792, seed=seed), 1) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_ranks_of_a_step_have_about_the_same_work():
    epochs = schedule_steps(LENGTHS, make_config(max_tokens=1792), 2)
    loads = [[sum(padded_tokens(batch, LENGTHS) for batch in share) for share in step] for step in epochs[0]]
    assert sum(max(pair) for pair in loads) / sum(sum(pair) / 2 for pair in loads) < 1.01


def test_a_rank_may_have_no_rows_in_a_step():
    epochs = schedule_steps([9, 8, 7], make_config(max_tokens=64), 4)
    assert all(len(step) == 4 for step in epochs[0])
    assert sorted(rows_of(epochs[0])) == [0, 1, 2]


def test_steps_beyond_the_epochs_come_from_further_epochs():
    config = make_config(sft={"max_steps": 9})
    epochs = schedule_steps(LENGTHS[:20], config, 1)
    assert len(epochs) * len(epochs[0]) >= 9 == count_steps(config, epochs)
    assert len({tuple(rows_of(epoch)) for epoch in epochs}) == len(epochs)


def test_a_part_of_an_epoch_counts_whole_steps():
    config = make_config(num_train_epochs=1.5)
    assert count_steps(config, schedule_steps(LENGTHS[:40], config, 1)) == 5, "40 rows are 3 steps of 2 × 8 rows"


def test_only_micro_batches_over_the_budget_recompute():
    budget = make_config(max_tokens=1792)
    assert [uses_checkpointing(tokens, budget) for tokens in (1792, 1793)] == [False, True]
    assert [uses_checkpointing(tokens, budget, limit=896) for tokens in (896, 897)] == [False, True]


def test_without_a_budget_the_setting_decides_on_recomputing():
    off = make_config(sft={"gradient_checkpointing": False})
    assert uses_checkpointing(1, make_config())
    assert not uses_checkpointing(1, off)
    assert uses_checkpointing(500, off, limit=400)


def test_the_effective_batch_is_shown_as_a_product():
    config = make_config()
    line = effective_batch_line(config, schedule_steps(LENGTHS[:64], config, 2))
    assert line == "effective batch 2 rows × 8 micro-batches × 2 processes = 32 rows"


def test_one_process_is_not_called_processes():
    config = make_config()
    assert effective_batch_line(config, schedule_steps(LENGTHS[:64], config, 1)).endswith("× 1 process = 16 rows")


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(("changes", "rows"), [({}, 2 * 8), ({"max_tokens": 1792}, None)])
def test_the_effective_batch_counts_the_rows_of_every_process(world, changes, rows):
    config = make_config(**changes)
    schedule = schedule_steps(LENGTHS, config, world)
    mean = len(LENGTHS) / len(schedule[0])  # a step's rows where micro-batches are cut by tokens
    expected = rows * world if rows else pytest.approx(mean, abs=0.05)
    assert effective_batch_rows(config, schedule) == expected


def test_the_most_scores_are_those_of_the_largest_kept_rows():
    lengths = [100, 90, 300, 2048, 20]
    steps = [[[[0, 1], [2]]], [[[3], [4]]]]
    assert most_attended(steps, lengths, make_config(max_tokens=512)) == 300 * 300  # 2,048 tokens are computed twice
    assert most_attended(steps[:1], [100, 90, 100], make_config(max_tokens=512)) == 200 * 100
    assert most_attended(steps, lengths, make_config(max_tokens=2048)) == 2048 * 2048
    always = make_config(max_tokens=0, sft={"gradient_checkpointing": True})
    assert most_attended(steps, lengths, always) == 0
