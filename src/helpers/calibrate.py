"""Measures the GPU that is here with a few layers of a preset's model, by the code that trains and evaluates."""

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from helpers.data.load import load_table
from helpers.models.batching import SCORING_TOKEN_BUDGET, padded_tokens
from helpers.models.families import count_parameters, model_shape
from helpers.planning.batches import uses_checkpointing
from helpers.planning.calibration import (
    Calibration,
    MeasuredModel,
    Point,
    find_model,
    keep_calibration,
    model_settings,
    read_calibrations,
    run_calibrations,
)
from helpers.planning.config import TrainingConfig
from helpers.planning.plan import Plan, describe_hours, plan_run
from helpers.platforms.environment import package_versions
from helpers.platforms.errors import Refused, describe_error
from helpers.platforms.machine import gpu_names, pick_dtype, set_threads
from helpers.platforms.processes import launch_processes, process_rank, run_child
from helpers.platforms.rates import download_rate, measure_rates, synchronize, timed, write_rate
from helpers.platforms.secrets import export_secrets
from helpers.runs.checkpoints import checkpoint_folders
from helpers.runs.files import read_json, utc_now, write_json
from helpers.runs.record import Run
from helpers.runs.session import report_progress, session_left

FEW, SOME = 2, 4  # decoder layers that are measured: what one more takes, all others take too
WARM_UP, STEPS = 5, 6  # optimizer steps with SOME layers: those that compile, and those that are timed
DECODE_ROWS = 1, 8, 32, 64, 128
SHORT, LONG, LONG_ROWS = 64, 256, 32  # tokens of the prompts before a step, and rows of which both are timed
NEW_TOKENS = 16  # by which two replies differ whose times give the seconds of a step
LEAST_SECONDS = 1800.0  # of a planned training, and left of the session, for minutes of measuring to be worth it
LOG_LINES = 15  # of a measurement that failed
PART_SECONDS = 600.0  # after which a process that measures is ended: on a T4 one takes a minute or two


def plan_session(run: Run, config: TrainingConfig) -> tuple[TrainingConfig, Plan]:
    """Returns what `plan_run` does for a training that starts or resumes, and keeps in the run what its plan was
    calibrated by.

    Before the first session this GPU is measured, if it is not yet with these settings and session.calibrate is set; a
    measurement that fails is told, and the plan stays as it was. Raises as `plan_run`, before anything is measured.
    """
    planned = plan_run(run, config)
    try:
        if is_calibration_due(run, config, planned[1]):
            planned = plan_measured(run, config) or planned
        gpu = next(iter(gpu_names()), "")
        if known := run_calibrations(run).get(gpu):
            keep_calibration(run / "train", gpu, known)
    except Refused:  # not even the least fits into the hours promised, at the speed of this GPU
        raise
    except Exception as error:  # the libraries', CUDA's, the system's: none of them may keep the run from training
        print(f"This GPU could not be measured, and the plan stays as it is: {describe_error(error)}", flush=True)
    return planned


def is_calibration_due(run: Run, config: TrainingConfig, plan: Plan) -> bool:
    """Returns whether to measure this GPU before a run trains: it has no checkpoint yet, its settings ask for it, they
    were not measured here before, and half an hour of training follows in this session."""
    if not config.session.get("calibrate") or (run / "stop").exists():
        return False
    gpu = next(iter(gpu_names()), "")
    known = run_calibrations(run).get(gpu)
    if not gpu or (known and find_model(known, config)) or checkpoint_folders(run / "train" / "checkpoints"):
        return False
    return min(plan.hours["train"] * 3600, session_left(config.session["hours"])) >= LEAST_SECONDS


def plan_measured(run: Run, config: TrainingConfig) -> tuple[TrainingConfig, Plan] | None:
    """Measures this GPU, and returns what `plan_run` does by that, None where torch cannot use it. Prints what was
    measured, what failed, and how the hours changed; what the libraries print besides only when one of them fails."""
    _, plan = plan_run(run, config)
    print("This GPU is measured first, once, in a few minutes (session.calibrate = False leaves that out).", flush=True)
    local = config.model_copy(update={"session": {**config.session, "mirror": ""}})  # no test file in a Drive's bin
    report, printed = partial(print, file=sys.stdout, flush=True), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            calibration = calibrate(local, run.outputs, report)
    except Exception:
        print(*printed.getvalue().splitlines()[-LOG_LINES:], sep="\n")
        raise
    if not calibration.models:  # it is nvidia-smi that shows a GPU
        return None
    config, measured = plan_run(run, config)
    hours = [describe_hours(each.hours["total"]) for each in (measured, plan)]
    took = f"measured in {calibration.seconds or 0:.0f} seconds"
    print(f"Estimated for the run: {hours[0]} by {measured.speed_from} ({took}); {hours[1]} by {plan.speed_from}.")
    return config, measured


def calibrate(config: TrainingConfig, outputs: Path, report: Callable[[str], None] = print) -> Calibration:
    """Measures this machine with `config`'s model, keeps it in the folder of runs, and returns it.

    Without a GPU only what a CPU has is measured, and nothing is kept: plans are for GPUs. `report` takes lines. All
    that uses the GPU runs in processes of its own, and leaves nothing on it. Raises RuntimeError when one fails,
    Refused for a damaged calibration there.
    """
    began = time.monotonic()
    read_calibrations(outputs)  # a damaged file is refused before minutes of measuring, not after
    export_secrets()
    with tempfile.TemporaryDirectory(prefix="calibrate-") as name:
        folder = Path(name)
        write_json(folder / "config.json", config.to_json())
        rates = {"date": utc_now(), "versions": package_versions(), **measure_apart("rates", folder)}
        report(f"a product of {rates.pop('product')}: {rates['products'] / 1e12:.2f} TFLOP/s")
        report(f"a copy of 1 GiB: {rates['copies'] / 1e9:.0f} GB/s, read and written")
        rates |= {"disk": write_rate(outputs), "mirror": mirror_rate(config)}
        report(f"disk: {rates['disk'] / 1e6:.0f} MB/s")
        report(describe_rate("mirror", rates["mirror"], "none is set that is a folder of this machine"))
        report(describe_rate("downloads", rates["downloads"], rates.pop("no_downloads")))
        if not rates["gpus"]:
            report("training, replies, all-reduce: not measured, there is no GPU. Nothing is kept: plans are for GPUs.")
            return Calibration(**rates, seconds=time.monotonic() - began)
        if rates["gpus"] > 1:
            rates["all_reduce"] = measure_apart("all_reduce", folder, rates["gpus"])
            report(f"all-reduce on {rates['gpus']} GPUs: {rates['all_reduce'] / 1e9:.2f} GB/s")
        else:
            report("all-reduce: not measured, there is one GPU")
    models = [measure_model(config)]
    calibration = Calibration(**rates, models=models, seconds=time.monotonic() - began)
    keep_calibration(outputs, gpu_names()[0], calibration)
    return calibration


def describe_rate(what: str, rate: float | None, reason: str) -> str:
    """Returns a line about a rate in bytes per second, or the reason why there is none."""
    return f"{what}: {rate / 1e6:.0f} MB/s" if rate else f"{what}: not measured, {reason}"


def mirror_rate(config: TrainingConfig) -> float | None:
    """Returns the bytes per second to the run's mirror, None where it is not a folder of this machine."""
    mirror = config.session["mirror"]
    return write_rate(Path(mirror)) if mirror and Path(mirror).is_dir() else None


def measure_apart(part: str, folder: Path, processes: int = 1) -> Any:
    """Runs a part of the measurements, in a process or more of its own, and returns its result.

    Training and replies are patched by other libraries, and each must find an empty GPU. Raises RuntimeError when the
    process fails, or takes longer than PART_SECONDS.
    """
    began = time.monotonic()
    report_progress([*PARTS].index(part), len(PARTS), "measurement")
    if processes > 1:
        code = launch_processes("helpers.calibrate", [part, str(folder)], processes, PART_SECONDS)
    else:
        code = run_child([sys.executable, "-m", "helpers.calibrate", part, str(folder)], PART_SECONDS)
    if code:
        late = f"it was ended after {PART_SECONDS:.0f} seconds" if time.monotonic() - began > PART_SECONDS else ""
        raise RuntimeError(f"measuring {part} ended with exit code {code}: {late or 'see the log above'}.")
    return read_json(folder / f"{part}.json")


def measure_part(part: str, folder: Path) -> None:
    """Measures a part, as one process of `measure_apart`, and writes its result."""
    config = TrainingConfig.model_validate(read_json(folder / "config.json"))
    result = PARTS[part](folder, config.model_copy(update={"base_model_path": str(folder / "base")}))
    if not process_rank():
        write_json(folder / f"{part}.json", result)


def measure_all_reduce(folder: Path, config: TrainingConfig) -> float:
    """Returns the bytes per second at which an adapter's gradients are summed over all processes."""
    import torch

    numbers = count_parameters(model_shape(config.base_model), config.lora)["trainable"]
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl")
    message = torch.ones(numbers, device="cuda")
    seconds = timed(lambda: torch.distributed.all_reduce(message))
    torch.distributed.destroy_process_group()
    return numbers * 4 / seconds


def make_base(folder: Path, config: TrainingConfig) -> None:
    """Saves SOME layers of the model's shape, with random weights."""
    from helpers.models.embedded import build_tokenizer
    from helpers.models.random_weights import save_random_model

    shape = {**model_shape(config.base_model), "num_hidden_layers": SOME}
    save_random_model(folder / "base", shape, build_tokenizer(list(load_table("embedded")[0].answer)), speaks=True)


def measure_model(config: TrainingConfig) -> MeasuredModel:
    """Returns what one layer of the model takes, and all besides the layers, in training, scoring and replies."""
    with tempfile.TemporaryDirectory(prefix="calibrate-") as name:
        folder = Path(name)
        write_json(folder / "config.json", config.to_json())
        _, training, replies = (measure_apart(part, folder) for part in ("base", "training", "replies"))
    recomputed = uses_checkpointing(config.max_tokens, config)
    return MeasuredModel(settings=model_settings(config), recomputed=recomputed, training=training, **replies)


def corpus_rows() -> list[dict[str, Any]]:
    """Returns the embedded corpus as data rows, each twice as long as written: more like a real one's."""
    table = load_table("embedded")[0]
    rows = []
    for number, (question, answer) in enumerate(zip(table.question, table.answer, strict=True)):
        turns = [{"role": "user", "content": f"{question} {answer}"}, {"role": "assistant", "content": answer}]
        rows.append({"id": str(number), "messages": turns})
    return [row for row in rows if len(str(row)) < 4000]


def truncate_layers(model: Any, layers: int) -> None:
    """Leaves only the first decoder layers of a model."""
    causal = model.get_base_model()
    causal.model.layers = causal.model.layers[:layers]
    causal.config.num_hidden_layers = layers


def point(number: float, few: float, some: float) -> Point:
    """Returns the seconds of a layer, and of all else, from those with FEW and with SOME layers."""
    layer = max(0.0, (some - few) / (SOME - FEW))
    return Point(number=number, layer=layer, rest=max(0.0, some - SOME * layer))


def measure_training(folder: Path, config: TrainingConfig) -> dict[str, float]:
    """Trains with SOME layers, then with FEW, and returns the seconds of a micro-batch; saves the adapter."""
    from helpers.models.loading import start_backend

    start_backend(config.backend)  # before transformers
    from transformers import TrainerCallback

    from helpers.training.inputs import Progress, TrainingInputs
    from helpers.training.loop import build_trainer

    run, rows = Run(folder / "run"), corpus_rows()
    dtype, _ = pick_dtype("float16" if config.sft.get("fp16") else "bfloat16" if config.sft.get("bf16") else "")
    first, steps = WARM_UP + STEPS, WARM_UP + 2 * STEPS + 2
    sft = {**config.sft, "max_steps": steps, "eval_strategy": "no", "save_strategy": "no", "report_to": "none"}
    sft.pop("load_best_model_at_end", None)
    sft.pop("early_stopping_patience", None)
    session = {**config.session, "hours": 0.0, "mirror": ""}
    config = config.model_copy(update={"sft": sft, "session": session, "num_gpus": 1, "max_length": 4096})
    inputs = TrainingInputs(config, {"train": rows, "val": rows[:1]}, {}, None, Progress(), [])
    trainer = build_trainer(run, inputs, dtype)

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            synchronize()
            self.at.append(time.perf_counter())
            if len(self.at) == first:
                trainer.model.save_pretrained(str(run / "adapter"))
                truncate_layers(trainer.model, FEW)

    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    schedule = [step for epoch in trainer.steps.schedule for step in epoch][:steps]
    batches = [[padded_tokens(batch, trainer.steps.lengths) for share in step for batch in share] for step in schedule]
    spent = [ended - began for began, ended in zip(clock.at, clock.at[1:], strict=False)]
    per_token = [seconds / sum(sizes) for seconds, sizes in zip(spent, batches[1:], strict=True)]
    size = statistics.median(tokens for sizes in batches for tokens in sizes)
    some, few = per_token[WARM_UP - 1 :][:STEPS], per_token[-STEPS:]
    return point(size, size * statistics.median(few), size * statistics.median(some)).model_dump()


def rows_of_length(tokenizer: Any, tokens: int, most: int) -> tuple[list[dict[str, Any]], int]:
    """Returns up to `most` corpus rows nearest to so many tokens, and the tokens of the longest."""
    from helpers.models.chat import encode_rows

    rows = corpus_rows()
    lengths = [len(example["input_ids"]) for example in encode_rows(tokenizer, rows)]
    nearest = sorted(range(len(rows)), key=lambda row: abs(lengths[row] - tokens))[:most]
    return [rows[row] for row in nearest], max(lengths[row] for row in nearest)


def measure_replies(folder: Path, config: TrainingConfig) -> dict[str, Any]:
    """Returns the seconds of a pass forward by tokens, of a step of replies by rows, and what a kept token adds."""
    from helpers.inference.generate import generate_replies
    from helpers.models.chat import encode_prompt
    from helpers.models.likelihood import score_likelihood
    from helpers.models.loading import load_for_inference, load_tokenizer

    base, adapter = config.base_model_path, folder / "run" / "adapter"
    tokenizer = load_tokenizer(base)
    network = load_for_inference(base, adapter, config.load_in_4bit, pick_dtype()[0])
    rows, longest = rows_of_length(tokenizer, LONG, max(DECODE_ROWS))
    short, _ = rows_of_length(tokenizer, SHORT, max(DECODE_ROWS))
    passes = 4, SCORING_TOKEN_BUDGET // longest

    def time_step(chosen: list[dict[str, Any]]) -> float:
        """Returns the seconds of one token more for each of these rows."""
        prompts = [row["messages"][:-1] for row in chosen]
        reply = partial(generate_replies, network, tokenizer, prompts, batch_size=len(prompts))
        first, more = (timed(partial(reply, max_new_tokens=tokens), 3) for tokens in (4, 4 + NEW_TOKENS))
        return (more - first) / NEW_TOKENS

    def kept_tokens(chosen: list[dict[str, Any]]) -> float:
        """Returns the tokens, pads included, that such a step finds before it, on average."""
        longest_prompt = max(len(encode_prompt(tokenizer, row["messages"][:-1])) for row in chosen)
        return len(chosen) * (longest_prompt + 4 + NEW_TOKENS / 2)

    measured: dict[int, list[float]] = {}  # by layers: the passes, the steps, and one step after long prompts
    for layers in (SOME, FEW):
        truncate_layers(network, layers)
        measured[layers] = [
            *(timed(partial(score_likelihood, network, tokenizer, rows[:count], count), 3) for count in passes),
            *(time_step(short[:count]) for count in DECODE_ROWS),
            time_step(rows[:LONG_ROWS]),
        ]
    numbers = [*(count * longest for count in passes), *DECODE_ROWS, LONG_ROWS]
    points = list(map(point, numbers, measured[FEW], measured[SOME]))
    forward, steps, after_long = points[: len(passes)], points[len(passes) : -1], points[-1]
    after_short = steps[DECODE_ROWS.index(LONG_ROWS)]
    more_tokens = kept_tokens(rows[:LONG_ROWS]) - kept_tokens(short[:LONG_ROWS])
    cached = max(0.0, (after_long.layer - after_short.layer) / more_tokens)
    alone = [
        step.model_copy(update={"layer": max(0.0, step.layer - cached * kept_tokens(short[:count]))})
        for step, count in zip(steps, DECODE_ROWS, strict=True)
    ]
    lines = {"forward": forward, "decode_step": alone}
    return {"cached_token": cached} | {name: [each.model_dump() for each in line] for name, line in lines.items()}


PARTS: dict[str, Callable[[Path, TrainingConfig], Any]] = {
    "rates": lambda folder, config: (
        measure_rates() | dict(zip(("downloads", "no_downloads"), download_rate(config.base_model), strict=True))
    ),
    "base": make_base,
    "all_reduce": measure_all_reduce,
    "training": measure_training,
    "replies": measure_replies,
}

if __name__ == "__main__":
    set_threads()
    measure_part(sys.argv[1], Path(sys.argv[2]))
