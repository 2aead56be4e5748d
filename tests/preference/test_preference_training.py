"""Training by preferences: the library's losses by this project's steps."""

import shutil
from pathlib import Path

import numpy
import pytest
import torch
from adapters import adapter_difference, log_entries
from configs import SMALL_STEPS
from safetensors.torch import load_file
from two_machines import train_on_two_machines

from helpers.planning.config import TrainingConfig
from helpers.preference.config import configure_preference
from helpers.preference.examples import REFERENCES, encode_examples, encode_reply, sequences_of, split_pairs
from helpers.preference.loop import load_preference, read_inputs
from helpers.runs.files import file_sha256, read_json, write_json, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import default_settings
from helpers.training.loop import run_training

PREFERRED = Path("prefer/adapter/adapter_model.safetensors")
METHODS = ("dpo", "kto")
LOGGED = ("step", "loss", "eval_loss", "learning_rate", "rewards/margins", "kl")


def as_pair(row, first, second, part):
    """Returns a preference for the first reply."""
    shared = {"id": row["id"], "source": "a test", "group": row["group"], "part": part, "prompt": row["messages"][:-1]}
    return {**shared, "chosen": first, "rejected": second}


def as_single(pair, label):
    """Returns one reply of a pair, liked or not."""
    kept = {name: value for name, value in pair.items() if name not in ("chosen", "rejected")}
    return {**kept, "completion": pair["chosen" if label else "rejected"], "label": label}


def shorter_first(row):
    """Returns a row's reply without its end, and the whole."""
    whole = row["messages"][-1]["content"]
    return whole.split()[0] + "।", whole


@pytest.fixture(scope="session")
def tuned(make_in, tmp_path_factory):
    """Returns a run whose adapter was tuned for three steps."""
    run = make_in(tmp_path_factory.mktemp("tuned"), "tuned", rows=12, sft={**SMALL_STEPS, "max_steps": 3})
    run_training(run)
    return run


@pytest.fixture(scope="session")
def preferences(embedded_rows):
    """Returns a function that gives pairs, or the single replies of them, of which every third is held out."""

    def call(method, number=18, choose=shorter_first):
        rows = [row for row in embedded_rows if len(row["messages"]) == 3][:number]
        pairs = [as_pair(row, *choose(row), "val" if place % 3 == 0 else "train") for place, row in enumerate(rows)]
        return pairs if method == "dpo" else [as_single(pair, place % 4 > 1) for place, pair in enumerate(pairs)]

    return call


@pytest.fixture
def prefer(tuned, tmp_path):
    """Returns a function that prepares a training of the tuned run by preferences and returns the run."""

    def call(name, rows, trl=None, **changes):
        run = Run(tmp_path / name)
        shutil.copytree(tuned, run, dirs_exist_ok=True)
        write_jsonl(run / "prefer/pairs.jsonl", rows)
        chosen = {"optim": "sgd", "warmup_steps": 0, "lr_scheduler_type": "constant", "max_grad_norm": 0}
        chosen |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "gradient_checkpointing": False}
        chosen |= {"eval_strategy": "no", "save_strategy": "no", **(trl or {})}
        parameters = {**default_settings("prefer"), "learning_rate": 0.05, **changes, "trl": chosen}
        write_json(run / "prefer/config.json", configure_preference(run, parameters, rows).to_json())
        return run

    return call


def train(run):
    """Trains a run by its preferences and returns the metrics."""
    return run_training(run, load=load_preference)


def preferred_difference(first, second):
    """Returns the largest difference between two runs' preferred adapters, relative to the largest weight."""
    return adapter_difference(first, second, PREFERRED)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_that_of_the_formula(method, prefer, preferences):
    """Rafailov et al. 2023, equation 7; Ethayarajh et al. 2024, equation 8."""
    run = prefer(
        "run", preferences(method), {"beta": 0.3, "desirable_weight": 0.8} if method == "kto" else {"beta": 0.3}
    )
    trainer, batch = load_preference(run).trainer, [0, 2, 5, 7]
    examples = [trainer.steps.train_set[row] for row in batch]
    ratios = numpy.array([[3.0, -1.0], [-2.0, 0.5], [0.25, 4.0], [1.0, 1.0]])  # nats, of the two sequences of each row
    for example, own, planted in zip(examples, trainer.score(examples), ratios):
        example.update(zip(REFERENCES[method == "dpo"], own - planted))
    if method == "dpo":
        expected = numpy.log1p(numpy.exp(-0.3 * (ratios[:, 0] - ratios[:, 1]))).sum()
    else:
        trainer.step_kl = trainer.distance(examples)
        assert trainer.step_kl == pytest.approx(ratios[:, 1].mean(), rel=1e-5)
        liked = numpy.array([example["label"] for example in examples])
        assert 0 < liked.sum() < 4
        above = numpy.where(liked, 1, -1) * (ratios[:, 0] - trainer.step_kl)
        expected = (numpy.where(liked, 0.8, 1) * (1 - 1 / (1 + numpy.exp(-0.3 * above)))).sum()
    share = trainer.loss_share(trainer.model, batch, 10)  # four of ten rows of a step
    assert float(share.detach()) == pytest.approx(expected / 10, rel=1e-5)
    assert trainer.validate(examples)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_does_not_depend_on_how_its_rows_are_cut(method, prefer, preferences):
    rows, runs = preferences(method), []
    for size in (1, 4):
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 12 // size}
        runs.append(prefer(f"by {size}", rows, {**cut, "max_steps": 3}))
        train(runs[-1])
    assert preferred_difference(*runs) < 1e-4
    margins = [[entry["loss"] for entry in log_entries(run, "loss", folder="prefer")] for run in runs]
    assert margins[0] == pytest.approx(margins[1], rel=1e-4)


@pytest.mark.parametrize(("method", "stops"), [("dpo", (1, 4)), ("kto", (2,))])
def test_a_resumed_training_is_bit_for_bit_the_same(method, stops, prefer, preferences, stop_at, trained_steps):
    epochs = {"num_train_epochs": 2.0}
    whole = prefer("whole", preferences(method), {"eval_strategy": "epoch"}, **epochs)
    expected, steps = train(whole), trained_steps.copy()
    trained_steps.clear()
    run = prefer("parts", preferences(method), {"eval_strategy": "epoch"}, **epochs)
    stop_at(*stops)
    for step in stops:
        assert (train(run)["status"], run.sessions("prefer")[-1].to_step) == ("paused", step)
        assert not (run / "prefer/adapter").exists()
    metrics = train(run)
    assert trained_steps == steps == list(range(1, 7)), "a step was trained twice, or left out"
    assert file_sha256(run / PREFERRED) == file_sha256(whole / PREFERRED)
    assert log_entries(run, *LOGGED, folder="prefer") == log_entries(whole, *LOGGED, folder="prefer")
    for name in ("train_loss", "val_loss", "tokens_seen", "held_out"):
        assert metrics[name] == expected[name], name


@pytest.mark.parametrize("method", METHODS)
def test_the_tuned_adapter_is_where_the_training_begins(method, prefer, preferences, tuned):
    run = prefer("run", preferences(method), {"max_steps": 1}, learning_rate=1e-12)
    train(run)
    tuned_adapter = Path("train/adapter/adapter_model.safetensors")
    assert file_sha256(run / tuned_adapter) == file_sha256(tuned / tuned_adapter), "the tuned adapter was changed"
    before, after = load_file(run / tuned_adapter), load_file(run / PREFERRED)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-9) for name in before)


def test_planted_preferences_are_learnt_and_random_ones_are_not(prefer, preferences):
    generator = numpy.random.default_rng(4)
    steps = {"max_steps": 12, "optim": "adamw_torch"}
    held_out = train(prefer("planted", preferences("dpo", 60), steps, learning_rate=0.02))["held_out"]
    assert held_out["accuracy"]["low"] > 0.5
    assert held_out["margin"]["low"] > 0

    def either(row):
        return shorter_first(row)[:: generator.choice((1, -1))]

    by_chance = train(prefer("random", preferences("dpo", 60, either), {"max_steps": 12}, learning_rate=0.3))[
        "held_out"
    ]
    assert by_chance["accuracy"]["low"] < 0.5 < by_chance["accuracy"]["high"]


def test_the_reference_is_computed_once(prefer, preferences, monkeypatch):
    run = prefer("run", preferences("dpo"), {"max_steps": 1})
    train(run)
    kept = read_json(run / "prefer/reference.json")
    assert len(kept["logps"]) == 18
    assert all(value < 0 for pair in kept["logps"] for value in pair)
    write_json(run / "prefer/reference.json", {**kept, "logps": [[-1.0, -2.0]] * 18})
    trainer = load_preference(run).trainer
    assert trainer.steps.train_set[0]["ref_chosen_logps"] == -1.0, "it was computed again"
    write_jsonl(run / "prefer/pairs.jsonl", preferences("dpo", 24))
    assert load_preference(run).trainer.steps.train_set[0]["ref_chosen_logps"] < -1.0, "that of other rows was taken"


def test_a_reply_follows_its_prompt_up_to_the_end_token(tokenizer):
    prompt = [{"role": "user", "content": "মন খারাপ, ক্ষমা চাই।"}, {"role": "assistant", "content": "কী হয়েছে?"}]
    prompt += [{"role": "user", "content": "ব্যর্থ হয়েছি র‍্যাগিংয়ে।"}]
    before, reply = encode_reply(tokenizer, prompt, "আমি পাশে আছি।")
    assert tokenizer.decode(before).endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert tokenizer.decode(reply) == "আমি পাশে আছি।<|eot_id|>"


def test_a_reply_to_another_prompt_is_of_another_group(tokenizer, preferences, prefer):
    rows = preferences("kto", 8)
    config = TrainingConfig.of_run(prefer("run", rows), "prefer")
    rows = [
        {**row, "completion": f"উত্তর {place}", "group": "one" if place < 5 else "two"} for place, row in enumerate(rows)
    ]
    examples = encode_examples(tokenizer, rows, config)
    for example in examples:
        (own, reply), (prompt, other) = sequences_of(example)
        assert own == prompt
        assert reply != other
        [partner] = [each for each in examples if each["completion_ids"] == other]
        assert partner["group"] != example["group"]


def test_a_reply_that_is_better_and_worse_is_no_single_one(preferences):
    best, middle = preferences("dpo", 2)
    middle = {**middle, "prompt": best["prompt"], "chosen": best["rejected"], "rejected": "না।"}
    singles = split_pairs([best, middle, as_single(best, True)])
    assert [(row["completion"], row["label"]) for row in singles] == [(best["chosen"], True), ("না।", False)]


def test_the_base_model_and_adapter_are_those_of_the_tuned_run(prefer, preferences, tuned):
    run = prefer("run", preferences("dpo"))
    config, before = TrainingConfig.of_run(run, "prefer"), TrainingConfig.of_run(tuned)
    assert (config.base_model, config.backend, config.lora["r"]) == (
        before.base_model,
        before.backend,
        before.lora["r"],
    )
    assert read_inputs(run).fingerprint["data"].keys() == {
        "prefer/pairs.jsonl",
        "train/adapter/adapter_model.safetensors",
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_the_adapter_of_one(method, prefer, preferences):
    def prepare(processes):
        cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4 // processes, "max_steps": 4}
        return prefer(f"{processes} processes", preferences(method, 23), cut)

    alone, pair = prepare(1), prepare(2)
    single = train(alone)
    double, _ = train_on_two_machines(pair, "helpers.preference.loop", "prefer")
    assert double["world_size"] == 2
    assert preferred_difference(alone, pair) < 1e-4
    assert double["val_loss"] == pytest.approx(single["val_loss"], rel=1e-4)
    assert double["held_out"]["margin"] == pytest.approx(single["held_out"]["margin"], rel=1e-2)
