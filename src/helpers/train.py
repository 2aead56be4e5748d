"""The training body behind both backends: in this process, or one process a GPU through accelerate."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from helpers import chat, env, model, text, tiny

DEFAULTS = {  # of trl.SFTConfig, below the settings of the notebook
    "logging_steps": 1,
    "train_sampling_strategy": "group_by_length",
    "report_to": "none",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "per_device_eval_batch_size": 2,
    "gradient_checkpointing": True,
    "optim": "adamw_torch",
}
OWNED = {  # names in `sft` that something else decides
    "output_dir": "outputs and run_name",
    "seed": "train.seed",
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.num_train_epochs",
    "per_device_train_batch_size": "train.per_device_train_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "max_length": "train.max_length (a longer row is dropped by prepare_data, never cut)",
    "packing": "nothing: without xformers it is slower than padding",
    "dataset_kwargs": "helpers.chat",
}


def resolve(run: Path) -> dict:
    """Returns the whole configuration of a training run, as config.json keeps it, from the stage's parameters.

    Raises ValueError for an unknown backend, a name in `sft` that belongs elsewhere, or numbers out of range.
    """
    parameters = env.read_json(run / "run.json")["stages"]["train"]["parameters"]
    config = {name: value for name, value in parameters.items() if name not in ("outputs", "run_name")}
    if config["backend"] not in model.BACKENDS:
        raise ValueError(f"train.backend is {config['backend']!r}: expected one of {', '.join(model.BACKENDS)}.")
    for name in config["sft"]:
        if name in OWNED:
            raise ValueError(f"sft.{name} is decided by {OWNED[name]}: set it there.")
    for name in ("max_length", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"):
        if config[name] <= 0:
            raise ValueError(f"train.{name} is {config[name]}: expected more than 0.")
    data = env.read_json(run / "data" / "metrics.json")
    config["sft"] = {**DEFAULTS, **config["sft"]}
    config["gradient_checkpointing"] = bool(config["sft"]["gradient_checkpointing"])
    config["embedded_model"] = data["embedded_model"]
    tiny.locate(config["base_model"], config["embedded_model"])
    return config


def launch(run: Path, config: dict) -> dict:
    """Trains and returns the metrics: here, or with `num_gpus` over one as one process a GPU (0 = all)."""
    env.write_json(run / "train" / "config.json", config)
    import torch

    processes = config["num_gpus"] or max(1, torch.cuda.device_count())
    if processes > max(1, torch.cuda.device_count()):
        raise ValueError(f"train.num_gpus is {processes}: this machine has {torch.cuda.device_count()}.")
    if processes == 1:
        return run_training(run)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes), "--multi_gpu"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "helpers.train", str(run / "train" / "config.json")]
    source = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    print(f"{processes} GPUs, one process each")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    for line in process.stdout:
        print(line, end="", flush=True)
    if process.wait():
        raise RuntimeError(f"training ended with exit code {process.returncode}: its log stands above.")
    return env.read_json(run / "train" / "metrics.json")


def examples(run: Path, tokenizer, max_length: int, eval_rows: int, seed: int):
    """Returns the encoded train set, a fixed seeded slice of the val set, and the first train row for a look.

    Raises ValueError when a row is longer than `max_length` tokens or its labels are not its answer.
    """
    from datasets import Dataset

    encoded = {}
    for part in ("train", "val"):
        rows = env.read_jsonl(run / "data" / f"{part}.jsonl")
        if part == "val" and eval_rows:
            rows = sorted(rows, key=lambda row: text.shuffle_key(seed, row["id"]))[:eval_rows]
        encoded[part] = [chat.encode(tokenizer, row) for row in rows]
        chat.check_labels(tokenizer, rows, encoded[part])
        longest = max(len(example["input_ids"]) for example in encoded[part])
        if longest > max_length:
            raise ValueError(
                f"{part}.jsonl has a row of {longest} tokens, train.max_length is {max_length}: an answer would be "
                f"cut. Set shared.max_length, so that prepare_data drops such rows."
            )
    return Dataset.from_list(encoded["train"]), Dataset.from_list(encoded["val"])


def run_training(run: Path) -> dict:
    """Trains by train/config.json, writes adapter/, log.jsonl and metrics.json, and returns the metrics.

    Runs in every process of a launch; the first writes.
    """
    config = env.read_json(run / "train" / "config.json")
    config["base_model_path"] = tiny.locate(config["base_model"], config["embedded_model"])
    model.start_backend(config["backend"])
    import torch
    from transformers import PrinterCallback, TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    began = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    sft = dict(config["sft"])
    forced = "float16" if sft.pop("fp16", False) else "bfloat16" if sft.pop("bf16", False) else ""
    dtype, dtype_reason = env.pick_dtype(forced)
    first = int(os.environ.get("RANK", 0)) == 0
    if first:
        print(f"dtype {dtype}: {dtype_reason}")
        if config["backend"] == "unsloth" and config["lora"].get("lora_dropout"):
            print("lora_dropout > 0 switches Unsloth's fast kernels off: training is much slower. Set it to 0.")
    set_seed(config["seed"])
    tokenizer = model.load_tokenizer(config["base_model_path"])
    tokenizer.padding_side = "right"
    train_set, val_set = examples(run, tokenizer, config["max_length"], config["eval_rows"], config["seed"])
    network = model.load_for_training(config, dtype)

    class Trainer(SFTTrainer):
        """SFTTrainer that counts the tokens it computes, (useful, all), on the device."""

        tokens = torch.zeros(2, dtype=torch.long)

        def training_step(self, network, inputs, *args, **kwargs):
            mask = inputs["attention_mask"]
            self.tokens = self.tokens.to(mask.device) + torch.stack([mask.sum(), torch.tensor(mask.numel()).to(mask)])
            return super().training_step(network, inputs, *args, **kwargs)

    class Log(TrainerCallback):
        """Appends every log to log.jsonl, prints about twenty lines of them, and tells the runner the step."""

        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.is_world_process_zero:
                entry = {"step": state.global_step, "seconds": round(time.perf_counter() - began, 3)}
                numbers = {k: v for k, v in (logs or {}).items() if not isinstance(v, float) or math.isfinite(v)}
                with open(run / "train" / "log.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps({**entry, **numbers}, ensure_ascii=False) + "\n")
                due = state.global_step % max(1, state.max_steps // 20) < args.logging_steps
                shown = {"eval_loss": "validation loss"} | (
                    {"loss": "loss", "learning_rate": "learning rate"} if due else {}
                )
                said = [f"{label} {numbers[name]:.4g}" for name, label in shown.items() if name in numbers]
                if said:
                    print(f"step {state.global_step}/{state.max_steps}  {', '.join(said)}", flush=True)

        def on_step_end(self, args, state, control, **kwargs):
            if state.is_world_process_zero:
                env.progress(state.global_step, state.max_steps, "step")

    arguments = SFTConfig(
        output_dir=str(run / "train" / "checkpoints"),
        seed=config["seed"],
        learning_rate=config["learning_rate"],
        num_train_epochs=config["num_train_epochs"],
        per_device_train_batch_size=config["per_device_train_batch_size"],
        gradient_accumulation_steps=config["gradient_accumulation_steps"],
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        fp16=dtype == "float16",
        bf16=dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        prediction_loss_only=True,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,  # `Log` prints the steps
        **sft,
    )
    if first:
        (run / "train" / "log.jsonl").unlink(missing_ok=True)
    trainer = Trainer(
        model=network,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=val_set,
        data_collator=chat.collator(tokenizer),
        callbacks=[Log()],
    )
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():  # TRL casts adapters of 4-bit models to bf16: no scaler unscales that
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainable, total = trainer.model.get_nb_trainable_parameters()
    effective_batch = (
        config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] * arguments.world_size
    )
    if first:
        print(
            f"effective batch {config['per_device_train_batch_size']} × {config['gradient_accumulation_steps']} × "
            f"{arguments.world_size} processes = {effective_batch}\n"
            f"trainable parameters {trainable:,} of {total:,} ({trainable / total:.2%})"
        )
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    train_began = time.perf_counter()
    result = trainer.train()
    train_seconds = time.perf_counter() - train_began
    if not math.isfinite(result.training_loss):
        raise FloatingPointError(f"the training loss is {result.training_loss}. Lower learning_rate.")
    tokens = trainer.accelerator.reduce(trainer.tokens.to(trainer.accelerator.device), "sum").tolist()
    val_loss = trainer.evaluate()["eval_loss"]
    metrics = {
        "status": "finished",
        "backend": config["backend"],
        "base_model": config["base_model"],
        "dtype": dtype,
        "dtype_reason": dtype_reason,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "world_size": arguments.world_size,
        "effective_batch": effective_batch,
        "optimizer_steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_loss": result.training_loss,
        "val_loss": val_loss,
        "val_rows": len(val_set),
        "tokens_seen": tokens[0],
        "useful_token_fraction": tokens[0] / tokens[1],
        "tokens_per_second": tokens[0] / train_seconds,
        "peak_memory_gib": torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None,
        "hours": (time.perf_counter() - began) / 3600,
        "sessions": 1,
    }
    if first:
        save_adapter(trainer.model, tokenizer, run / "train" / "adapter")
        env.write_json(run / "train" / "metrics.json", metrics)
    trainer.accelerator.wait_for_everyone()
    return metrics


def save_adapter(network, tokenizer, folder: Path) -> None:
    """Saves the LoRA weights (safetensors), their config and the tokenizer: beside first, then in place of the old."""
    beside, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    network.save_pretrained(str(beside))
    tokenizer.save_pretrained(str(beside))
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    run_training(Path(sys.argv[1]).resolve().parents[1])
