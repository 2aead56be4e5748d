"""What the tests of the search share: a small run to search, and two spaces."""

import shutil

import pytest

from helpers.models.chat import encode_row
from helpers.runs.files import write_json


@pytest.fixture
def make_search(make, embedded_rows, base, tokenizer):
    """Returns a function that makes a run whose settings can be searched; changes are to the stage's parameters."""

    def call(name, seed=1, **changes):
        run = make(name, rows=24)
        shutil.rmtree(run / "train")
        lengths = sorted(len(encode_row(tokenizer, row)["input_ids"]) for row in embedded_rows[:24])
        quantiles = [[place / 10, lengths[min(23, place * 24 // 10)]] for place in range(11)]
        data = {"tokens": {"quantiles": quantiles}, "train": 24, "embedded_model": ""}
        write_json(run / "data/metrics.json", data)
        sft = {"optim": "sgd", "lr_scheduler_type": "constant", "warmup_steps": 0, "per_device_train_batch_size": 4}
        sft |= {"gradient_accumulation_steps": 1, "max_grad_norm": 1.0}
        train = {"base_model": str(base), "backend": "peft", "eval_rows": 0, "sft": sft, "seed": seed}
        space = {"learning_rate": [0.01, 0.05, 0.2, 0.8], "sft.weight_decay": [0.0, 0.3]}
        search = {"space": space, "trials": 0, "budget_steps": 9, "eta": 3, "rungs": 3, "storage": "", "seed": seed}
        search |= {"session": {"hours": 0.0, "mirror": "", "keep": 2}, **changes}
        prepared = {"parameters": {"max_length": 1024, "base_model": str(base)}}
        stages = {"prepare_data": prepared, "tune": {"parameters": search}}
        write_json(run / "run.json", {"run_name": name, "settings": {"train": train}, "stages": stages})
        return run

    return call


@pytest.fixture
def wide_space():
    """Returns 16 combinations."""
    return {"learning_rate": [0.005, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8], "sft.weight_decay": [0.0, 0.3]}


@pytest.fixture
def two_candidates():
    """Returns the parameters of a search of two candidates, judged at steps 1 and 4."""
    return {"space": {"learning_rate": [0.05, 0.2]}, "budget_steps": 4, "rungs": 2}
