"""Rows as optimizer steps."""

import pytest
from configs import make_config
from datasets import Dataset

from helpers.models.chat import IGNORED
from helpers.planning.config import TrainingConfig
from helpers.training.steps import StepDataset, encode_examples


def test_a_row_above_the_longest_length_stops_the_training(make, tokenizer):
    run = make("long")
    config = TrainingConfig.of_run(run).model_copy(update={"max_length": 64})
    message = r"train.jsonl has a row of \d+ tokens, max_length is 64: an answer would be cut"
    with pytest.raises(ValueError, match=message):
        encode_examples(run, tokenizer, config)


def test_the_validation_slice_is_chosen_by_the_seed(make, tokenizer):
    run = make("slice", eval_rows=3)
    config = TrainingConfig.of_run(run)
    slices = [
        [row["id"] for row in encode_examples(run, tokenizer, config.model_copy(update={"seed": seed}))[1]]
        for seed in (1, 1, 2)
    ]
    assert len(slices[0]) == 3
    assert slices[0] == slices[1]
    assert slices[0] != slices[2]


def test_ranks_share_a_step_with_the_targets_of_all_its_rows():
    rows = {
        "input_ids": [[1] * n for n in (4, 6, 8, 10)],
        "labels": [[IGNORED] * 3 + [1] * (n - 3) for n in (4, 6, 8, 10)],
    }
    config = make_config(sft={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2})
    items = [StepDataset(Dataset.from_dict(rows), config, rank, world=2)[0] for rank in (0, 1)]
    assert sorted(row for item in items for batch in item["micro_batches"] for row in batch) == [0, 1, 2, 3]
    assert [item["targets"] for item in items] == [1 + 3 + 5 + 7] * 2
