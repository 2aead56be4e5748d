"""Rows as optimizer steps."""

import pytest
from configs import make_config, make_promise
from datasets import Dataset

from helpers.models.chat import IGNORED
from helpers.runs.files import read_jsonl, write_json
from helpers.training.inputs import read_inputs
from helpers.training.steps import StepDataset


@pytest.mark.parametrize(
    ("part", "changes"), [("val", {"eval_rows": 3}), ("train", {"promise": make_promise(train_rows=3)})]
)
def test_a_sample_of_rows_is_chosen_by_the_seed(part, changes, make):
    run = make("slice", **changes)
    slices = []
    for seed in (1, 1, 2):
        write_json(run / "train/config.json", {**run.training_config(), "seed": seed})
        slices.append([row["id"] for row in read_inputs(run).rows[part]])
    assert len(slices[0]) == 3
    assert slices[0] == slices[1]
    assert slices[0] != slices[2]
    head = [row["id"] for row in read_jsonl(run / f"data/{part}.jsonl")[:3]]
    assert set(slices[0]) != set(head) != set(slices[2]), "the head of the file: its order says something of its rows"


def test_ranks_share_a_step_with_the_targets_of_all_its_rows():
    rows = {
        "input_ids": [[1] * n for n in (4, 6, 8, 10)],
        "labels": [[IGNORED] * 3 + [1] * (n - 3) for n in (4, 6, 8, 10)],
    }
    config = make_config(sft={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2})
    sizes = (4, 6, 8, 10), (1, 3, 5, 7)
    items = [StepDataset(Dataset.from_dict(rows), *sizes, config, rank, world=2)[0] for rank in (0, 1)]
    assert sorted(row for item in items for batch in item["micro_batches"] for row in batch) == [0, 1, 2, 3]
    assert [item["targets"] for item in items] == [1 + 3 + 5 + 7] * 2


def test_a_new_data_set_has_the_rows_of_the_first_epoch():
    rows = {"input_ids": [[1] * n for n in range(2, 10)], "labels": [[1] * n for n in range(2, 10)]}
    config = make_config(num_train_epochs=3.0, sft={"per_device_train_batch_size": 1})
    sizes = (range(2, 10), range(2, 10))
    steps = StepDataset(Dataset.from_dict(rows), *sizes, config, rank=0, world=1)
    begun = [steps[step] for step in range(len(steps))]
    epochs = []
    for epoch in range(3):
        steps.set_epoch(epoch)
        epochs.append([steps[step] for step in range(len(steps))])
    assert begun == epochs[0]
    assert epochs[0] not in epochs[1:], "the epochs have the rows in one order"
