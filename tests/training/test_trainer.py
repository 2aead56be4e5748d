"""The optimizer steps: micro-batches, recovery, validation. A small random Llama, plain PEFT, on the CPU."""

import pytest
import torch
from adapters import ADAPTER, adapter_difference, losses
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, Trainer

from helpers.models import likelihood
from helpers.models.chat import IGNORED, encode_row
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_for_inference
from helpers.planning.config import TrainingConfig
from helpers.runs.files import read_jsonl
from helpers.training import loop, trainer
from helpers.training.inputs import read_inputs
from helpers.training.loop import run_training
from helpers.training.trainer import StepTrainer

ROWS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


@pytest.fixture
def one_batch(make):
    """Returns a run trained in one step on one padded batch of 24 rows."""
    run = make("whole", sft={"per_device_train_batch_size": 24, "gradient_accumulation_steps": 1})
    assert run_training(run)["optimizer_steps"] == 1
    return run


def test_token_budget_pieces_give_the_gradient_of_one_batch(make, one_batch):
    pieces = make("pieces", max_tokens=400, sft={"gradient_accumulation_steps": 99})
    metrics = run_training(pieces)
    assert metrics["optimizer_steps"] == 1
    assert metrics["micro_batches"] > 4
    assert metrics["effective_batch"] == 24
    assert adapter_difference(one_batch, pieces) < 1e-5
    assert losses(one_batch)[0] == pytest.approx(losses(pieces)[0], rel=1e-6)


def test_the_first_loss_is_the_base_model_s_per_target_token(one_batch, tokenizer, embedded_rows):
    examples = [encode_row(tokenizer, row) for row in embedded_rows[:24]]
    targets = sum(label != IGNORED for example in examples for label in example["labels"])
    base = LlamaForCausalLM.from_pretrained(TrainingConfig.of_run(one_batch).base_model)
    nll = sum(row["nll"] for row in score_likelihood(base, tokenizer, embedded_rows[:24], 5))
    assert losses(one_batch)[0] == pytest.approx(nll / targets, rel=1e-5)


def test_out_of_memory_halves_batches_without_changing_a_loss(make, monkeypatch, capsys):
    started_small = make("small", max_tokens=1200, limit=300, sft={"gradient_accumulation_steps": 2})
    run_training(started_small)
    real = Trainer.compute_loss

    def compute_loss(self, model, inputs, **kwargs):
        if inputs["input_ids"].numel() > 400:
            torch.ones(1, requires_grad=True).sum().backward()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, model, inputs, **kwargs)

    monkeypatch.setattr(Trainer, "compute_loss", compute_loss)
    run = make("full", max_tokens=1200, sft={"gradient_accumulation_steps": 2})
    metrics = run_training(run)
    assert "out of memory at a micro-batch of" in capsys.readouterr().out
    assert metrics["micro_batch_limit"] <= 600
    assert len(losses(run)) > 1
    assert losses(run) == pytest.approx(losses(started_small), rel=1e-5)
    assert adapter_difference(run, started_small) < 1e-5


def test_a_row_that_does_not_fit_alone_names_the_way_out(make, monkeypatch):
    def compute_loss(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Trainer, "compute_loss", compute_loss)
    with pytest.raises(torch.OutOfMemoryError, match=r"a row of \d+ tokens does not fit alone.*shared.max_length"):
        run_training(make("none", rows=3))


@pytest.fixture
def break_steps(monkeypatch):
    """Returns a function that makes the losses of steps, counted from 0, not finite."""
    real = Trainer.compute_loss

    def call(steps):
        def compute_loss(self, model, inputs, **kwargs):
            loss = real(self, model, inputs, **kwargs)
            return loss * float("nan") if self.state.global_step in steps else loss

        monkeypatch.setattr(Trainer, "compute_loss", compute_loss)

    return call


def test_one_step_that_is_not_finite_is_skipped(make, break_steps):
    break_steps({3})
    run = make("once", sft=ROWS)
    assert run_training(run)["optimizer_steps"] == 12
    adapter = load_file(run / ADAPTER)
    assert all(value.isfinite().all() for value in adapter.values())


def test_many_steps_that_are_not_finite_stop_the_run(make, break_steps):
    break_steps(range(4, 99))
    with pytest.raises(FloatingPointError, match=r"5 steps in a row were not finite, up to step 8"):
        run_training(make("often", sft=ROWS))


def test_a_gradient_that_is_not_finite_is_skipped_too(make, monkeypatch):
    real = StepTrainer.accumulate_gradients

    def accumulate_gradients(self, model, inputs):
        result = real(self, model, inputs)
        if self.state.global_step == 3:
            next(p for p in model.parameters() if p.grad is not None).grad[0] = float("inf")
        return result

    monkeypatch.setattr(StepTrainer, "accumulate_gradients", accumulate_gradients)
    run = make("gradient", sft=ROWS)
    run_training(run)
    adapter = load_file(run / ADAPTER)
    assert all(value.isfinite().all() for value in adapter.values())


@pytest.fixture
def scored(monkeypatch):
    """Returns the lists of the ids of the rows, and of the shapes of the batches, that are validated from here on."""
    ids, shapes, rows, tokens = [], [], trainer.score_likelihood, likelihood.score_tokens
    monkeypatch.setattr(
        trainer,
        "score_likelihood",
        lambda *args, **limits: ids.extend(r["id"] for r in args[2]) or rows(*args, **limits),
    )
    monkeypatch.setattr(
        likelihood, "score_tokens", lambda *args: shapes.append(args[1]["input_ids"].shape) or tokens(*args)
    )
    return ids, shapes


def test_a_validation_batch_keeps_within_its_budget(make, scored, monkeypatch):
    monkeypatch.setattr(trainer, "VALIDATION_TOKEN_BUDGET", 500)
    run_training(make("small", rows=2, eval_rows=0))
    assert len(scored[1]) > 1
    assert all(rows == 1 or rows * tokens <= 500 for rows, tokens in scored[1]), scored[1]


def test_validation_takes_the_slice_alone(make, scored):
    run = make("slice", rows=2, eval_rows=3)
    expected = [row["id"] for row in read_inputs(run).rows["val"]]
    assert run_training(run)["val_rows"] == len(expected) == 3
    assert scored[0] == expected, "validation takes hours when all of val.jsonl is scored each time"


def test_adapters_are_trained_in_float32_whatever_they_were(make, monkeypatch):
    """TRL casts a 4-bit model's adapters to bf16; no CPU loads such a model, so they are cast here."""
    real = loop.load_for_training

    def load_for_training(*args):
        model = real(*args)
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16() if parameter.requires_grad else parameter.data
        return model

    monkeypatch.setattr(loop, "load_for_training", load_for_training)
    run = make("cast", rows=2)
    built = loop.build_trainer(run, read_inputs(run), "float32")
    dtypes = {parameter.dtype for parameter in built.model.parameters() if parameter.requires_grad}
    assert dtypes == {torch.float32}, "small updates are lost, and the fp16 scaler cannot unscale such gradients"


@pytest.fixture
def overflow(monkeypatch):
    """Returns a function that trains with the CPU's gradient scaler, and gradients that are infinite at these steps."""
    real_build, real_accumulate = loop.build_trainer, StepTrainer.accumulate_gradients

    def call(steps):
        def build_trainer(*args):
            built = real_build(*args)
            built.accelerator.scaler = torch.amp.GradScaler("cpu")
            return built

        def accumulate_gradients(self, model, inputs):
            result = real_accumulate(self, model, inputs)
            if self.state.global_step in steps:
                next(p for p in model.parameters() if p.grad is not None).grad[0] = float("inf")
            return result

        monkeypatch.setattr(loop, "build_trainer", build_trainer)
        monkeypatch.setattr(StepTrainer, "accumulate_gradients", accumulate_gradients)

    return call


ONE_ROW = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}


def test_a_scale_that_never_fits_stops_the_run(make, overflow):
    overflow(range(1, 99))
    with pytest.raises(FloatingPointError, match=r"the gradients of 20 steps in a row were not finite"):
        run_training(make("scaled", sft=ONE_ROW))


def test_a_scale_that_is_too_large_at_first_stops_nothing(make, overflow):
    overflow({*range(16), *range(17, 22)})
    assert run_training(make("scaled", sft=ONE_ROW))["optimizer_steps"] == 24


@pytest.fixture
def stopped_early(make):
    """Returns a run whose learning rate is so high that the first validation is the best, and its metrics."""
    sft = {**ROWS, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    sft |= {"load_best_model_at_end": True, "early_stopping_patience": 2}
    run = make("early", learning_rate=3000.0, sft=sft)
    return run, run_training(run)


def test_early_stopping_keeps_the_best_adapter(stopped_early):
    run, metrics = stopped_early
    validated = [entry["eval_loss"] for entry in read_jsonl(run / "train/log.jsonl") if "eval_loss" in entry]
    assert metrics["optimizer_steps"] < 12, "a learning rate this high makes it worse at once"
    assert metrics["val_loss"] == pytest.approx(min(validated), rel=1e-6)
    assert 0 < metrics["val_share_of_time"] < 1


def test_the_validation_loss_is_per_answer_token(stopped_early, tokenizer, embedded_rows):
    run, metrics = stopped_early
    tuned = load_for_inference(TrainingConfig.of_run(run).base_model, run / "train/adapter", False, "float32")
    scores = score_likelihood(tuned, tokenizer, embedded_rows[40:47], 3)
    nll, tokens = (sum(row[name] for row in scores) for name in ("nll", "tokens"))
    assert metrics["val_loss"] == pytest.approx(nll / tokens, rel=1e-5)
