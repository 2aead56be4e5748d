"""Public benchmarks by lm-evaluation-harness (lm-eval), on the model that is loaded already.

Prompts, few-shot examples, metrics and seeds are lm-eval's own, and so is the tokenizer's set-up: a number here is the
one that lm-eval computes by itself for the same model. As it does unless told otherwise, no chat template is applied.
"""

import contextlib
import difflib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from helpers.platforms.errors import describe_error
from helpers.runs.session import compute_batches

MISSING = "the package lm_eval is not installed: pip install lm_eval==0.4.13, and run the evaluation again"
SPREAD = "_stderr"  # in the name of a metric: its standard error


def check_benchmarks(names: Sequence[Any]) -> None:
    """Raises FileNotFoundError for a folder of tasks that is not here, and TypeError for what is no text; names of
    lm-eval's own tasks are not looked up."""
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"evaluate.benchmarks holds {name!r} ({type(name).__name__}): expected names of tasks.")
        if "/" in name and not Path(name).is_dir():
            raise FileNotFoundError(
                f"evaluate.benchmarks holds {name!r}: no such folder in {Path.cwd()}. Expected names of lm-eval's "
                f"tasks such as belebele_ben_Beng, or folders with tasks in YAML."
            )


@cache
def task_manager(folder: str) -> Any:
    """Returns lm-eval's index of the tasks in a folder, or ("") of its own. Reading that takes it up to a minute."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=False) if folder else TaskManager()


def list_tasks(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (task, folder it is defined in) of each benchmark, "" for lm-eval's own; a folder has all its tasks, and
    stays ("", folder) where it has none or lm-eval is not installed."""
    tasks = []
    for name in names:
        folder = name if "/" in name else ""
        own: list[str] = []
        with contextlib.suppress(ImportError):
            own = task_manager(folder).all_subtasks if folder else []
        tasks += [(task, folder) for task in own] or [("" if folder else name, folder)]
    return list(dict.fromkeys(tasks))


def run_benchmarks(
    network: Any, tokenizer: Any, names: Sequence[str], batch_size: int, limit: int, **keeping: Any
) -> list[dict[str, Any]]:
    """Returns an entry per task: `task`, `rows` as `run_task` returns them, and `skipped`, why there are none.

    `limit` is the number of a task's first items, 0: all. The tokenizer is not used: lm-eval loads the model's own.
    `keeping` is what `compute_batches` takes; each task is a batch, so that it is kept when it is done, and a session's
    end is looked for before each.
    """
    tasks = list_tasks(names)

    def run(batch: list[int]) -> list[dict[str, Any]]:
        return [run_task(network, *tasks[number], batch_size, limit) for number in batch]

    return compute_batches([[number] for number in range(len(tasks))], run, **keeping)


def run_task(network: Any, task: str, folder: str, batch_size: int, limit: int) -> dict[str, Any]:
    """Evaluates a model on one task. A task that cannot be had or run ends nothing: the entry says why."""
    entry: dict[str, Any] = {"task": task or folder, "rows": [], "skipped": ""}
    try:
        import lm_eval
    except ImportError:
        return entry | {"skipped": MISSING}
    if not task:
        return entry | {"skipped": "the folder defines no task"}
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        if task not in (known := task_manager(folder).all_tasks):
            near = "".join(f", the nearest is {name}" for name in difflib.get_close_matches(task, known, 1))
            return entry | {"skipped": f"lm-eval {lm_eval.__version__} has no task of this name{near}"}
        evaluate: Any = lm_eval.simple_evaluate
        with only_process():
            results = evaluate(
                model=wrap_model(network, batch_size),
                tasks=[task],
                task_manager=task_manager(folder),
                limit=limit or None,
                log_samples=False,
            )
    except Exception as error:  # of a data set, a network, a task's own code: the evaluation does not depend on it
        return entry | {"skipped": describe_error(error)}
    return entry | {"rows": read_rows(task, results or {}, lm_eval.__version__)}


def wrap_model(network: Any, batch_size: int) -> Any:
    """Returns a loaded model as lm-eval takes one. On a GPU it looks for the batch size that fits, up to the one given:
    unlike ours, its logits of a whole batch exist at one time."""
    from lm_eval.models.huggingface import HFLM

    harness: Any = HFLM
    on_gpu = network.device.type == "cuda"
    return harness(pretrained=network, batch_size="auto" if on_gpu else batch_size, max_batch_size=batch_size)


@contextlib.contextmanager
def only_process() -> Iterator[None]:
    """Makes this process the first one while the block runs: lm-eval returns results in no other, and of our processes
    each has tasks of its own."""
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "0"
    try:
        yield
    finally:
        os.environ.pop("LOCAL_RANK")
        if before is not None:
            os.environ["LOCAL_RANK"] = before


def read_rows(task: str, results: dict[str, Any], version: str) -> list[dict[str, Any]]:
    """Returns lm-eval's results as rows, one per task and metric: of a group its own mean where it has one, else each
    of its tasks'. `stderr` is None where lm-eval has none."""
    rows, own = [], results.get("results", {})
    names = [task] if _metrics(own.get(task, {})) else [*own]
    for name in names:
        for key, value in _metrics(own[name]).items():
            metric, _, chosen = key.partition(",")
            spread = own[name].get(f"{metric}{SPREAD},{chosen}")
            better = results["higher_is_better"].get(name, {}).get(metric)
            counts = results["n-samples"].get(name, {})
            rows.append(
                {
                    "task": name,
                    "metric": metric if chosen == "none" else f"{metric}, {chosen}",
                    "value": float(value),
                    "stderr": float(spread) if _is_number(spread) else None,
                    "better": {True: "higher", False: "lower"}.get(better, "neither"),
                    "n": counts.get("effective") or own[name].get("sample_len"),
                    "shots": results["n-shot"].get(name),
                    "version": results["versions"].get(name),
                    "lm_eval": version,
                }
            )
    return rows


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """Returns a task's metrics by lm-eval's keys, "metric,filter", without their standard errors."""
    numbers = {key: value for key, value in values.items() if "," in key and f"{SPREAD}," not in key}
    return {key: value for key, value in numbers.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def compare_benchmarks(entries: dict[str, list[dict[str, Any]]], limit: int) -> dict[str, Any]:
    """Returns what metrics.json keeps of both models' benchmarks: `limit`, `tasks` and `skipped`; {} without any.

    A row of `tasks` has `base`, `tuned`, `delta` and lm-eval's standard errors of the first two; that of the
    difference is theirs as of independent measurements, though both models answer the same items: it is the larger for
    that.
    """
    rows = {side: {(r["task"], r["metric"]): r for own in each for r in own["rows"]} for side, each in entries.items()}
    tasks = [_compare_rows(base, rows["tuned"][key]) for key, base in rows["base"].items() if key in rows["tuned"]]
    reasons: dict[str, str] = {}
    for own in [own for each in entries.values() for own in each if own["skipped"]]:
        reasons.setdefault(own["task"], own["skipped"])
    skipped = [{"task": task, "why": why} for task, why in reasons.items()]
    return {"limit": limit, "tasks": tasks, "skipped": skipped} if tasks or skipped else {}


def _compare_rows(base: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    spreads = base["stderr"], tuned["stderr"]
    both = None if None in spreads else math.hypot(*spreads)
    values = {"base": base["value"], "tuned": tuned["value"], "delta": tuned["value"] - base["value"]}
    spread = {"base_stderr": spreads[0], "tuned_stderr": spreads[1], "delta_stderr": both}
    shared = ("task", "metric", "better", "n", "shots", "version", "lm_eval")
    return {**{name: base[name] for name in shared}, **values, **spread}


def describe_benchmarks(benchmarks: dict[str, Any]) -> str:
    """Returns in sentences which public benchmarks were run, and why others were not."""
    if not benchmarks:
        return "No public benchmark is asked for: evaluate.benchmarks is empty."
    rows, lines = benchmarks["tasks"], []
    if rows:
        items = f"at most {benchmarks['limit']:,} items of each" if benchmarks["limit"] else "all items of each"
        tasks = len({row["task"] for row in rows})
        lines.append(f"lm-eval {rows[0]['lm_eval']}: {tasks} task{'s' * (tasks > 1)}, {items}.")
    lines += [f"{own['task']} is skipped: {own['why']}." for own in benchmarks["skipped"]]
    return " ".join(lines)
