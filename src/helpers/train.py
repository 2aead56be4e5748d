"""The training body behind both backends: in this process, or one process a GPU through accelerate."""

import contextlib
import functools
import gc
import importlib.util
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from helpers import chat, checkpoints, env, model, plan, text, tiny

RUNG = "a rung of the search"  # why a candidate of `tune` pauses: config["pause_at"] is reached
PATIENCE = 5  # steps in a row whose loss is not finite, before a run stops
SCALER_PATIENCE = 20  # steps in a row that the fp16 scaler skips: from 65,536 it is at 1 after 16


def resolve(run: Path) -> dict:
    """Returns the whole configuration of a training run, as config.json keeps it, from the stage's parameters.

    Raises ValueError as `plan.configure` does, and ModuleNotFoundError for a tracker that is not installed.
    """
    record = env.read_json(run / "run.json")["stages"]
    config = plan.configure(from_search(run, record["train"]["parameters"]))
    data = env.read_json(run / "data" / "metrics.json")
    config["max_length"] = record["prepare_data"]["parameters"]["max_length"]
    config["embedded_model"] = data["embedded_model"]  # its name has a hash of all it was made of
    package = plan.TRACKERS[config["sft"]["report_to"]]
    if package and importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"sft.report_to is {package!r}, which is not installed: pip install {package}")
    tiny.locate(config["base_model"], run)
    return config


def from_search(run: Path, parameters: dict) -> dict:
    """Returns the stage's parameters, with those of tune/best.json laid over where sft.settings_from says "tune".

    Raises ValueError for another word, FileNotFoundError where no search has finished.
    """
    parameters = {**parameters, "sft": dict(parameters["sft"])}
    source = parameters["sft"].pop("settings_from", "")
    if not source:
        return parameters
    if source != "tune":
        raise ValueError(f"sft.settings_from is {source!r}: expected 'tune', or nothing.")
    if not (run / "tune" / "best.json").is_file():
        raise FileNotFoundError(
            f"{run / 'tune' / 'best.json'} is not there: finish the stage tune of run {run.name} first."
        )
    best = env.read_json(run / "tune" / "best.json")
    for name, value in best["settings"].items():
        into, _, name = name.rpartition(".")
        if into:
            parameters[into] = {**parameters[into], name: value}
        else:
            parameters[name] = value
    said = ", ".join(f"{name} {value}" for name, value in best["settings"].items())
    print(f"from the search: {said} (candidate {best['candidate']}, validation loss {best['val_loss']:.4f})")
    return parameters


def warnings_of(config: dict) -> list[str]:
    """Returns what a user should know of a configuration that works, but badly."""
    found = []
    if config["backend"] == "unsloth" and config["lora"].get("lora_dropout"):
        found.append(
            "lora_dropout > 0 switches Unsloth's fast kernels off: others saw 0.31 rows/s instead of 0.83 on a T4. "
            "Set it to 0, or backend: peft."
        )
    return found


def launch(run: Path, config: dict, judge=None) -> dict:
    """Trains and returns the metrics: here, or with `num_gpus` over one as one process a GPU (0 = all).

    `judge`, of a search: see `log_callback`; several processes pause at config["pause_at"] instead.
    Raises RuntimeError when a process fails.
    """
    env.write_json(run / "train" / "config.json", config)
    (run / "train" / "result.json").unlink(missing_ok=True)
    import torch

    processes = config["num_gpus"] or max(1, torch.cuda.device_count())
    if processes > max(1, torch.cuda.device_count()):
        raise ValueError(f"train.num_gpus is {processes}: this machine has {torch.cuda.device_count()}.")
    if processes == 1:
        with checkpoints.mirrored(run, config["session"]):
            return run_training(run, judge)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes), "--multi_gpu"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "helpers.train", str(run / "train" / "config.json")]
    print(f"{processes} GPUs, one process each")
    with checkpoints.mirrored(run, config["session"]):
        code = env.stream(command, **{env.SESSION_START: str(env.session_start())})
    result = run / "train" / "result.json"
    if code:
        said = env.read_json(result)["reason"] if result.is_file() else "its log stands above"
        raise RuntimeError(f"training ended with exit code {code}: {said}.")
    return env.read_json(result)


def examples(run: Path, tokenizer, max_length: int, eval_rows: int, seed: int):
    """Returns the encoded train set (datasets.Dataset) and a fixed seeded slice of the val rows (list of data rows).

    Raises ValueError when a row is longer than `max_length` tokens or its labels are not its answer.
    """
    from datasets import Dataset

    parts = {part: env.read_jsonl(run / "data" / f"{part}.jsonl") for part in ("train", "val")}
    if eval_rows:
        parts["val"] = sorted(parts["val"], key=lambda row: text.shuffle_key(seed, row["id"]))[:eval_rows]
    for part, rows in parts.items():
        encoded = [chat.encode(tokenizer, row) for row in rows]
        chat.check_labels(tokenizer, rows, encoded)
        longest = max(len(example["input_ids"]) for example in encoded)
        if longest > max_length:
            raise ValueError(
                f"{part}.jsonl has a row of {longest} tokens, max_length is {max_length}: an answer would be cut. "
                f"Prepare the data again with shared.max_length, so that such rows are dropped."
            )
        if part == "train":
            train_set = Dataset.from_list(encoded)
    return train_set, parts["val"]


class Steps:
    """A data set whose items are a rank's share of an optimizer step: its micro-batches, and the tokens to learn.

    `items` counts the supervised tokens of the step over all ranks: the gradient is their mean.
    """

    def __init__(self, train_set, config: dict, rank: int, world: int):
        self.train_set, self.rank = train_set, rank
        self.lengths = [len(ids) for ids in train_set["input_ids"]]
        learnt = [sum(label != chat.IGNORED for label in labels) for labels in train_set["labels"]]
        self.epochs = plan.schedule(self.lengths, plan.batch_settings(config), world)
        self.items = [
            [sum(learnt[row] for share in step for batch in share for row in batch) for step in epoch]
            for epoch in self.epochs
        ]
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Turns to the rows of an epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.epochs[self.epoch])

    def __getitem__(self, step: int) -> dict:
        mine = self.epochs[self.epoch][step][self.rank]
        return {"micro_batches": mine, "items": self.items[self.epoch][step]}


def trainer_class():
    """Returns SFTTrainer with this project's steps: token-budget micro-batches, recovery from full memory, evaluation.

    A function, so that Unsloth can be imported first.
    """
    import torch
    from transformers import EarlyStoppingCallback, Trainer
    from trl import SFTTrainer

    class StepTrainer(SFTTrainer):
        """SFTTrainer whose data loader gives whole optimizer steps, which `training_step` takes apart.

        `config` is the run's configuration, `steps` its Steps, `val_rows` the rows of the validation slice.
        """

        def prepare(self, config: dict, steps: Steps, val_rows: list[dict], collate, fingerprint: dict, clock) -> None:
            """Takes what SFTTrainer's own constructor has no place for."""
            self.config, self.steps, self.val_rows, self.collate = config, steps, val_rows, collate
            self.limit = config.get("limit", 0)  # tokens of a micro-batch after memory ran out, 0: as configured
            self.counts = {"useful": 0, "computed": 0, "arithmetic": 0, "micro_batches": 0}
            self.eval_seconds, self.bad_steps, self.skipped = 0.0, 0, 0
            self.fingerprint, self.save_seconds, self.save_bytes = fingerprint, 0.0, 0
            self.stop, self.clock = "", clock
            self.loss_sum, self.began, self.seconds_before = 0.0, time.perf_counter(), 0.0
            self.logged = []  # the lines of log.jsonl
            self.switches = [module for module in self.model.modules() if hasattr(module, "gradient_checkpointing")]

        def get_train_dataloader(self):
            """Returns one item a step; every rank makes its own, so accelerate has nothing to share out."""

            class Order:  # a batch sampler, so that the library can skip what a resumed epoch has done
                drop_last, batch_size = False, 1

                def __init__(self, steps):
                    self.steps, self.set_epoch = steps, steps.set_epoch

                def __len__(self):
                    return len(self.steps)

                def __iter__(self):
                    return iter([place] for place in range(len(self)))

            class Loader(torch.utils.data.DataLoader):
                def set_epoch(self, epoch):
                    self.dataset.set_epoch(epoch)

            return Loader(self.steps, batch_sampler=Order(self.steps), collate_fn=lambda items: items[0])

        def get_batch_samples(self, epoch_iterator, num_batches, device):
            """Returns the next step; how many tokens it teaches stands in it."""
            return [item for item in [next(epoch_iterator, None)] if item], None

        def floating_point_ops(self, inputs):
            """Returns 0: the plan counts the arithmetic."""
            return 0

        def training_step(self, network, inputs, num_items_in_batch=None):
            """Computes a step's gradient in micro-batches and returns its loss, the mean over its tokens on all ranks.

            When memory runs out the budget halves and the step starts again: its rows, and so its gradient, stay.
            Raises FloatingPointError after PATIENCE steps in a row without a finite loss and gradient.
            """
            network.train()
            while True:
                try:
                    loss, counts = self.accumulate(network, inputs)
                    break
                except torch.OutOfMemoryError as error:
                    self.halve(inputs, error)
                network.zero_grad(set_to_none=True)
                gc.collect()
                torch.cuda.empty_cache()
            for name, count in counts.items():
                self.counts[name] += count
            return self.agree(network, loss)

        def accumulate(self, network, inputs):
            """Runs forward and backward over the step's micro-batches; returns this rank's share of the loss."""
            loss, counts, n = torch.zeros((), device=self.args.device), dict.fromkeys(self.counts, 0), inputs["items"]
            for batch in self.split(inputs["micro_batches"]):
                tokens = plan.padded(batch, self.steps.lengths)
                twice = plan.checkpointed(tokens, self.config, self.limit)
                self.checkpoint(twice)
                rows = self.collate([self.steps.train_set[row] for row in batch])
                rows.pop("attention_mask")  # pads stand right of the answer: no token that counts can see them
                rows = rows.to(self.args.device)
                with self.accelerator.no_sync(network):
                    part = Trainer.compute_loss(self, network, {**rows, "use_cache": False}, num_items_in_batch=n)
                    self.accelerator.backward(part)
                loss += part.detach().to(loss.device)
                counts["useful"] += sum(self.steps.lengths[row] for row in batch)
                counts["computed"] += tokens
                counts["arithmetic"] += tokens * (3 if twice else 2)  # forward, backward and, if checkpointed, again
                counts["micro_batches"] += 1
            return loss, counts

        def split(self, batches):
            """Returns the micro-batches, taken apart where they are over the limit."""
            for batch in batches:
                yield from plan.cut(batch, self.steps.lengths, max_tokens=self.limit) if self.limit else [batch]

        def checkpoint(self, on: bool) -> None:
            """Turns gradient checkpointing on or off for what is computed next."""
            for module in self.switches:
                module.gradient_checkpointing = on

        def halve(self, inputs, error) -> None:
            """Halves the budget; raises the error, with a way out, when no smaller micro-batch can be made."""
            batches = list(self.split(inputs["micro_batches"]))
            largest = max(plan.padded(batch, self.steps.lengths) for batch in batches)
            longest = max(self.steps.lengths[row] for batch in batches for row in batch)
            if largest <= longest and plan.checkpointed(largest, self.config, self.limit):
                raise torch.OutOfMemoryError(
                    f"a row of {longest} tokens does not fit alone, with gradient checkpointing. Lower "
                    f"shared.max_length or lora.r, or take a smaller base_model. ({env.brief(error)})"
                ) from error
            before, self.limit = largest, largest // 2
            print(
                f"rank {self.args.process_index}: out of memory at a micro-batch of {before} tokens. From here on at "
                f"most {self.limit}; the rows of a step stay the same, the step is computed again.",
                flush=True,
            )

        def agree(self, network, loss):
            """Sums gradients and loss over the ranks, and passes over a step that is not finite on any of them."""
            gradients = [parameter for parameter in network.parameters() if parameter.requires_grad]
            if self.args.world_size > 1:
                for parameter in gradients:
                    if parameter.grad is None:  # a rank without rows in this step
                        parameter.grad = torch.zeros_like(parameter)
                asked = torch.tensor(float(self.asked_to_stop()))
                pieces = [loss, asked.to(loss.device), *(parameter.grad for parameter in gradients)]
                shared = torch.cat([piece.float().reshape(-1) for piece in pieces])  # one message, not one a matrix
                torch.distributed.all_reduce(shared)
                loss, asked, *summed = shared.split([piece.numel() for piece in pieces])
                for parameter, gradient in zip(gradients, summed):
                    parameter.grad.copy_(gradient.view_as(parameter.grad))
                loss = loss[0].clone()
                if asked and not self.stop:
                    self.stop = "another process was asked to stop"
            else:
                self.asked_to_stop()
            whole = math.isfinite(loss)
            if self.accelerator.scaler is None:  # a scaler passes over infinite gradients by itself
                found = [parameter.grad for parameter in gradients if parameter.grad is not None]
                whole = whole and all(map(math.isfinite, torch.stack(torch._foreach_norm(found)).tolist()))
                if not whole:
                    network.zero_grad(set_to_none=True)  # the optimizer leaves parameters without a gradient alone
            self.bad_steps = 0 if whole else self.bad_steps + 1
            self.loss_sum += float(loss) if math.isfinite(loss) else self.loss_sum / max(1, self.state.global_step)
            self.skipped = self.skipped + 1 if self.accelerator.optimizer_step_was_skipped else 0
            if self.bad_steps >= PATIENCE or self.skipped >= SCALER_PATIENCE:
                problem = f"{self.bad_steps} steps" if whole is False else f"the gradients of {self.skipped} steps"
                raise FloatingPointError(
                    f"{problem} in a row were not finite, up to step {self.state.global_step}. Lower learning_rate. "
                    f"The last checkpoint stands."
                )
            return loss

        def ended(self) -> bool:
            """Returns whether nothing is left to train: all steps are done, or the validation loss rose long enough."""
            patience = [c for c in self.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
            enough = any(one.early_stopping_patience_counter >= one.early_stopping_patience for one in patience)
            return enough or self.state.global_step >= self.state.max_steps

        def _run_epoch(self, **kwargs):
            """Runs an epoch; none when a run that had ended is taken up again, to write what a kill kept it from."""
            if self.ended():
                self.control.should_training_stop = True
            else:
                super()._run_epoch(**kwargs)

        def asked_to_stop(self) -> bool:
            """Returns whether this process should end after the step, and keeps the reason in `stop`."""
            self.stop = self.stop or self.clock.reason(self.save_seconds + self.copy_seconds())
            if not self.stop and self.state.global_step + 1 == self.config.get("pause_at") != self.state.max_steps:
                self.stop = RUNG
            return bool(self.stop)

        def _save_checkpoint(self, network, trial):
            """Saves a checkpoint beside, seals it, puts it in its place; a full disk costs this one, not the last."""
            began, kept = time.perf_counter(), Path(self.args.output_dir)
            beside, step = kept / ".new", self.state.global_step
            counted = self.total_counts()
            if self.args.process_index == 0:
                shutil.rmtree(beside, ignore_errors=True)
                kept.mkdir(parents=True, exist_ok=True)
            self.accelerator.wait_for_everyone()
            problem = checkpoints.room(kept, int(1.2 * self.save_bytes))
            if not problem:
                try:
                    self.args.output_dir = str(beside)
                    super()._save_checkpoint(network, trial)
                except OSError as error:
                    problem = env.brief(error)
                finally:
                    self.args.output_dir = str(kept)
            self.accelerator.wait_for_everyone()
            if self.state.best_global_step:
                self.state.best_model_checkpoint = str(kept / f"checkpoint-{self.state.best_global_step}")
            if self.args.process_index == 0:
                filled = beside / f"checkpoint-{step}"
                try:
                    if problem:
                        raise OSError(problem)
                    (filled / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing needs
                    self.state.save_to_json(str(filled / "trainer_state.json"))
                    progress = {"counts": counted, "limit": self.limit, "loss_sum": self.loss_sum}
                    progress |= {"seconds": self.seconds(), "eval_seconds": self.eval_seconds, "log": self.logged}
                    env.write_json(filled / "progress.json", progress)
                    checkpoints.seal(filled, step, self.fingerprint)
                    checkpoints.place_checkpoint(filled, kept / filled.name)
                    checkpoints.prune(kept, self.config["sft"]["save_total_limit"] or 0, {self.state.best_global_step})
                    self.save_bytes = sum(path.stat().st_size for path in (kept / filled.name).iterdir())
                except OSError as error:
                    print(f"step {step}: no checkpoint: {error}. Those before are kept; training goes on.", flush=True)
                shutil.rmtree(beside, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            self.save_seconds = time.perf_counter() - began

        def copy_seconds(self) -> float:
            """Returns how long a checkpoint should take to its mirror, 0 without one."""
            return self.save_bytes / plan.DRIVE_BYTES if self.config["session"]["mirror"] else 0.0

        def seconds(self) -> float:
            """Returns the seconds of training so far, those of earlier sessions included."""
            return self.seconds_before + time.perf_counter() - self.began

        def go_on(self, checkpoint: Path) -> None:
            """Takes up the counts of a checkpoint; the library takes up the rest."""
            progress = env.read_json(checkpoint / "progress.json")
            if self.args.process_index == 0:
                self.counts = progress["counts"]
            self.limit, self.loss_sum = progress["limit"], progress["loss_sum"]
            self.seconds_before, self.eval_seconds = progress["seconds"], progress["eval_seconds"]
            self.logged = progress["log"]

        def total_counts(self) -> dict:
            """Returns `counts` summed over the ranks."""
            values = torch.tensor(list(self.counts.values()), device=self.args.device)
            return dict(zip(self.counts, self.accelerator.reduce(values, "sum").tolist()))

        def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
            """Returns and logs the loss over the validation slice: nats a token, every answer token once.

            Each rank takes its share of the rows; no logits are kept.
            """
            began = time.perf_counter()
            self.model.eval()
            mine = self.val_rows[self.args.process_index :: self.args.world_size]
            with self.accelerator.autocast():
                scored = model.likelihood(
                    self.model, self.processing_class, mine, max_tokens=plan.EVAL_TOKENS, what="validation row"
                )
            sums = [sum(row[name] for row in scored) for name in ("nll", "tokens")]
            sums = self.accelerator.reduce(torch.tensor(sums, dtype=torch.double, device=self.args.device), "sum")
            metrics = {f"{metric_key_prefix}_loss": float(sums[0] / sums[1])}
            self.model.train()
            self.eval_seconds += time.perf_counter() - began
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    return StepTrainer


class Clock:
    """Says when a session should end: its time is nearly up, someone asked, or a file `stop` lies in the run's folder.

    `left` returns the seconds that the session still has. The margin is two steps, two checkpoints and half a minute.
    """

    def __init__(self, run: Path, left):
        self.run, self.left, self.asked = run, left, ""
        self.last, self.step_seconds = None, 0.0

    def ask(self, number, frame) -> None:
        """A signal handler: the run ends after its step."""
        self.asked = f"{signal.Signals(number).name} received"
        print(f"{self.asked}: the run pauses after this step", flush=True)

    @contextlib.contextmanager
    def listening(self):
        """While it lasts, SIGTERM and Ctrl-C ask the run to pause; in a thread they cannot be had."""
        names = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        before = {name: signal.signal(name, self.ask) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def reason(self, save_seconds: float) -> str:
        """Returns why the session should end after this step, "" to go on; called once a step."""
        now = time.monotonic()
        if self.last is not None:
            self.step_seconds = max(now - self.last, 0.9 * self.step_seconds)
        self.last = now
        if self.asked:
            return self.asked
        if (self.run / "stop").exists():
            return "stop was asked for"
        if self.left() < 2 * self.step_seconds + 2 * save_seconds + 30:
            return "the session's time is nearly up"
        return ""


def log_callback(run: Path, judge=None):
    """Returns the callback that appends every log to log.jsonl, prints about twenty lines, tells the runner the step,
    and stops when `trainer.stop` says so. Its `trainer` is set once there is one.

    log.jsonl counts seconds of training, over all sessions. A checkpoint is written where an epoch is left, after the
    evaluation that is due there, so that nothing of it is lost to a kill. At a rung of a search judge(step, validation
    loss) returns the step of the next rung, 0 for none, or None to end here.
    """
    from transformers import TrainerCallback

    class Log(TrainerCallback):
        trainer = None

        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.is_world_process_zero:
                entry = {"step": state.global_step, "seconds": round(self.trainer.seconds(), 3)}
                numbers = {k: v for k, v in (logs or {}).items() if not isinstance(v, float) or math.isfinite(v)}
                self.trainer.logged.append({**entry, **numbers})
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
            control.should_training_stop = control.should_training_stop or bool(self.trainer.stop)
            if state.global_step == self.trainer.config.get("pause_at"):  # a checkpoint of a rung has its loss
                control.should_evaluate = control.should_save = True

        def on_save(self, args, state, control, **kwargs):
            if judge and self.trainer.stop == RUNG:
                loss = next(line["eval_loss"] for line in self.trainer.logged[::-1] if "eval_loss" in line)
                following = judge(state.global_step, loss)
                if following is not None:
                    self.trainer.stop, self.trainer.config["pause_at"] = "", following
                    control.should_training_stop = False

        def on_epoch_end(self, args, state, control, **kwargs):
            if self.trainer.stop and state.global_step % len(self.trainer.steps):  # left midway: not an epoch's end
                control.should_evaluate = self.trainer.ended() and control.should_evaluate
            at_the_end = state.global_step == state.max_steps and args.save_strategy != "no"
            control.should_save = control.should_save or at_the_end or bool(self.trainer.stop)

    return Log()


def start_log(run: Path, checkpoint: Path | None, passed: list[str], made: dict) -> None:
    """Says where training goes on from, and sets log.jsonl to what it was there."""
    for line in passed:
        print(f"passed over {line}")
    log = run / "train" / "log.jsonl"
    if checkpoint is None:
        log.unlink(missing_ok=True)
        return
    print(f"going on from {checkpoint.name}")
    before = env.read_json(checkpoint / checkpoints.MANIFEST)["fingerprint"]["versions"]
    changed = [f"{n} {v} to {made['versions'].get(n)}" for n, v in before.items() if made["versions"].get(n) != v]
    if changed:
        print(f"since then: {', '.join(changed)}. The run goes on, no longer bit for bit as uninterrupted.")
    env.write_jsonl(log, env.read_json(checkpoint / "progress.json")["log"])


def run_training(run: Path, judge=None) -> dict:
    """Trains by train/config.json, writes adapter/, log.jsonl and metrics.json, and returns the metrics.

    Runs in every process of a launch; the first writes.
    """
    config = env.read_json(run / "train" / "config.json")
    config["base_model_path"] = tiny.locate(config["base_model"], run)
    model.start_backend(config["backend"])
    import torch
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed
    from trl import SFTConfig

    began = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    sft = dict(config["sft"])
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"):
        del sft[name]  # `Steps` and `plan.checkpointed` see to them
    del sft["save_total_limit"]
    patience = sft.pop("early_stopping_patience", 0)
    forced = "float16" if sft.pop("fp16", False) else "bfloat16" if sft.pop("bf16", False) else ""
    dtype, dtype_reason = env.pick_dtype(forced)
    first = int(os.environ.get("RANK", 0)) == 0
    if first:
        print(f"dtype {dtype}: {dtype_reason}")
        for warning in warnings_of(config):
            print(warning)
    set_seed(config["seed"])
    tokenizer = model.load_tokenizer(config["base_model_path"])
    tokenizer.padding_side = "right"
    train_set, val_rows = examples(run, tokenizer, config["max_length"], config["eval_rows"], config["seed"])
    network = model.load_for_training(config, dtype)
    arguments = SFTConfig(
        output_dir=str(run / "train" / "checkpoints"),
        run_name=run.name,
        seed=config["seed"],
        learning_rate=config["learning_rate"],
        num_train_epochs=config["num_train_epochs"],
        per_device_train_batch_size=1,  # item of `Steps`: an optimizer step
        gradient_accumulation_steps=1,
        gradient_checkpointing=True,  # made ready; each micro-batch then switches it
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        average_tokens_across_devices=False,  # `agree` sums
        fp16=dtype == "float16",
        bf16=dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        prediction_loss_only=True,
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        save_total_limit=None,  # `_save_checkpoint` prunes
        ddp_find_unused_parameters=False,
        disable_tqdm=True,  # the log callback prints the steps
        **sft,
    )
    if arguments.device.type == "cpu":
        arguments._setup_devices = torch.device("cpu")  # accelerate says cpu:0, where torch.load restores nothing
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process a card: never DataParallel over all that are here
    steps = Steps(train_set, config, arguments.process_index, arguments.world_size)
    kept = run / "train" / "checkpoints"
    data = {f"data/{part}.jsonl": env.sha256(run / "data" / f"{part}.jsonl") for part in ("train", "val")}
    with arguments.main_process_first(local=False):  # else each would make the run's id, and the last one's would stay
        identity = env.run_id(run)
    made = checkpoints.fingerprint(identity, config, data, arguments.world_size)
    checkpoint, passed = checkpoints.newest(kept, made)
    if first:
        start_log(run, checkpoint, passed, made)
    trainer = trainer_class()(
        model=network,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=train_set.select([]),  # `evaluate` takes the validation rows
        data_collator=chat.collator(tokenizer),
        callbacks=[log := log_callback(run, judge)] + [EarlyStoppingCallback(patience)] * bool(patience),
    )
    clock = Clock(run / config.get("part_of", ""), functools.partial(env.session_left, config["session"]["hours"]))
    trainer.prepare(config, steps, val_rows, chat.collator(tokenizer), made, clock)
    log.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():  # TRL casts adapters of 4-bit models to bf16: no scaler unscales that
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainable, total = trainer.model.get_nb_trainable_parameters()
    effective_batch = plan.effective_batch(config, steps.epochs)
    if first:
        print(
            f"{plan.batch_line(config, steps.epochs)}\n"
            f"trainable parameters {trainable:,} of {total:,} ({trainable / total:.2%})\n"
            f"attention: {trainer.model.config._attn_implementation}"
        )
    if torch.cuda.is_available():
        for card in range(torch.cuda.device_count()) if config["device_map"] else [None]:
            torch.cuda.reset_peak_memory_stats(card)
    if checkpoint:
        trainer.go_on(checkpoint)
    if first:
        env.open_session(run, "train", checkpoints.step_of(checkpoint) if checkpoint else 0)
    trainer.began = time.perf_counter()
    with clock.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    done = trainer.state.global_step
    paused = bool(trainer.stop) and not trainer.ended()
    if first:
        env.close_session(run, done, trainer.stop if paused else "finished")
    if paused:
        if first:
            print(f"paused at step {done} of {trainer.state.max_steps}: {trainer.stop}. Run it again to go on.")
        trainer.accelerator.wait_for_everyone()
        found = {"status": "paused", "step": done, "steps": trainer.state.max_steps, "reason": trainer.stop}
        losses = [line["eval_loss"] for line in trainer.logged if "eval_loss" in line and line["step"] == done]
        return {**found, "val_loss": losses[-1]} if losses else found
    counts, seconds = trainer.total_counts(), trainer.seconds()
    share = trainer.eval_seconds / seconds
    eval_seconds = trainer.eval_seconds
    val_loss = trainer.evaluate()["eval_loss"]
    cards = range(torch.cuda.device_count()) if config["device_map"] else [None]
    peak = max(torch.cuda.max_memory_reserved(n) for n in cards) / 2**30 if torch.cuda.is_available() else None
    if first:
        print(f"validation during training took {share:.1%} of its time")
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
        "train_loss": trainer.loss_sum / done,
        "val_loss": val_loss,
        "val_rows": len(val_rows),
        "val_share_of_time": share,
        "tokens_seen": counts["useful"],
        "useful_token_fraction": counts["useful"] / counts["computed"],
        "arithmetic_per_useful_token": counts["arithmetic"] / 3 / counts["useful"],
        "micro_batches": counts["micro_batches"],
        "micro_batch_limit": trainer.limit or None,
        "tokens_per_second": counts["useful"] / (seconds - eval_seconds),
        "peak_memory_gib": peak,
        "hours": (seconds + trainer.began - began) / 3600,
        "sessions": len(env.sessions(run, "train")),
    }
    if first:
        save_adapter(trainer.model, tokenizer, run / "train" / "adapter")
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
    env.set_threads()
    folder = Path(sys.argv[1]).resolve().parents[1]
    try:
        ended = run_training(folder)
    except Exception as error:
        if int(os.environ.get("RANK", 0)) == 0:
            env.write_json(folder / "train" / "result.json", {"status": "failed", "reason": env.brief(error)})
        raise
    if int(os.environ.get("RANK", 0)) == 0:
        env.write_json(folder / "train" / "result.json", ended)
