"""The rows of every step, and what a run will cost."""

import random

import pytest

from helpers import plan

RNG = random.Random(5)
LENGTHS = [RNG.randint(20, 900) for _ in range(5000)] + [2048, 2047]


def config(**changes):
    """Returns a configuration's part that decides batches."""
    sft = {"gradient_checkpointing": True, **plan.DEFAULTS, **changes.pop("sft", {})}
    return {"max_tokens": 0, "num_train_epochs": 2.0, "seed": 3, **changes, "sft": sft}


def flat(epoch):
    return [row for step in epoch for share in step for batch in share for row in batch]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("changes", [{"max_tokens": 1792}, {}, {"sft": {"train_sampling_strategy": "random"}}])
def test_every_row_comes_once_an_epoch_and_every_rank_gets_as_many_micro_batches(world, changes):
    epochs = plan.schedule(LENGTHS, plan.batch_settings(config(**changes)), world)
    assert len(epochs) == 2 and epochs[0] != epochs[1]
    assert len({len(epoch) for epoch in epochs}) == 1, "the library counts steps by the first epoch"
    for epoch in epochs:
        assert sorted(flat(epoch)) == list(range(len(LENGTHS)))
        assert all(len(step) == world and len({len(share) for share in step}) == 1 for step in epoch)
        assert all(len(step[0]) == 8 for step in epoch[:-1])


def test_the_rows_of_a_step_depend_on_ranks_times_accumulation_alone():
    rows = []
    for world, accumulation in ((1, 6), (2, 3), (3, 2)):
        settings = plan.batch_settings(config(max_tokens=1792, sft={"gradient_accumulation_steps": accumulation}))
        rows.append([[sorted(flat([step])) for step in epoch] for epoch in plan.schedule(LENGTHS, settings, world)])
    assert rows[0] == rows[1] == rows[2]


def test_a_budget_holds_but_for_rows_above_it_and_wastes_little():
    epochs = plan.schedule(LENGTHS, plan.batch_settings(config(max_tokens=1792)), 2)
    batches = [batch for step in epochs[0] for share in step for batch in share]
    over = [batch for batch in batches if plan.padded(batch, LENGTHS) > 1792]
    assert sorted(LENGTHS[row] for batch in over for row in batch) == [2047, 2048]
    assert sum(LENGTHS) / sum(plan.padded(batch, LENGTHS) for batch in batches) > 0.97
    unsorted = plan.cut(range(len(LENGTHS)), LENGTHS, max_tokens=1792)
    assert sum(LENGTHS) / sum(plan.padded(batch, LENGTHS) for batch in unsorted) < 0.8


def test_the_order_is_the_seed_s():
    first, again, other = (
        plan.schedule(LENGTHS, plan.batch_settings(config(max_tokens=1792, seed=seed)), 1) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_ranks_of_a_step_have_about_the_same_to_do():
    epochs = plan.schedule(LENGTHS, plan.batch_settings(config(max_tokens=1792)), 2)
    loads = [[sum(plan.padded(batch, LENGTHS) for batch in share) for share in step] for step in epochs[0]]
    assert sum(max(pair) for pair in loads) / sum(sum(pair) / 2 for pair in loads) < 1.01


def test_fewer_rows_than_ranks_leave_a_rank_without_rows_but_in_step():
    epochs = plan.schedule([9, 8, 7], plan.batch_settings(config(max_tokens=64)), 4)
    assert all(len(step) == 4 for step in epochs[0]) and sorted(flat(epochs[0])) == [0, 1, 2]


def test_steps_beyond_the_epochs_come_from_further_epochs():
    found = plan.schedule(LENGTHS[:20], plan.batch_settings(config(sft={"max_steps": 9})), 1)
    assert len(found) * len(found[0]) >= 9 and len({tuple(flat(epoch)) for epoch in found}) == len(found)


def test_only_micro_batches_over_the_budget_compute_their_activations_twice():
    budget, rows = config(max_tokens=1792), config()
    assert [plan.checkpointed(tokens, budget) for tokens in (1792, 1793)] == [False, True]
    assert [plan.checkpointed(tokens, budget, limit=896) for tokens in (896, 897)] == [False, True]
    assert plan.checkpointed(1, rows) and not plan.checkpointed(1, config(sft={"gradient_checkpointing": False}))
    assert plan.checkpointed(500, config(sft={"gradient_checkpointing": False}), limit=400)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "usloth"}, "train.backend is 'usloth': expected one of 'unsloth', 'peft'"),
        ({"sft": {"max_length": 9}}, "sft.max_length is decided by shared.max_length"),
        ({"sft": {"report_to": "mlflow"}}, "sft.report_to is 'mlflow'"),
        ({"sft": {"gradient_accumulation_steps": 0}}, "sft.gradient_accumulation_steps is 0: expected more than 0"),
        ({"learning_rate": 0.0}, "train.learning_rate is 0.0"),
        ({"max_tokens": -1}, "train.max_tokens is -1"),
        ({"device_map": "balanced", "num_gpus": 2}, "num_gpus is 2, set 1"),
        ({"device_map": "auto"}, "train.device_map is 'auto'"),
        ({"sft": {"early_stopping_patience": 3}}, "needs sft.load_best_model_at_end"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(changes, message):
    from helpers import presets

    parameters = {name: value for name, (value, _) in presets.parameters_cell("train").items()}
    plan.configure(parameters)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        plan.configure({**parameters, **changes})


def test_yaml_s_bare_no_is_the_library_s_no():
    from helpers import presets

    settings = presets.resolve("demo", "r", "outputs", ["train.sft.save_strategy=no"], False)
    assert plan.configure(settings["train"])["sft"]["save_strategy"] == "no"
