"""Each model's likelihoods and replies for the held-out rows, on every GPU there is."""

import contextlib
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, model_validator

from helpers.data.probes import Instruction, Probe, instructions, scored_probes
from helpers.data.prompts import fixed_prompts
from helpers.data.sampling import shuffle_key
from helpers.evaluation.benchmarks import check_benchmarks, run_benchmarks
from helpers.evaluation.encoder import check_encoder
from helpers.evaluation.kept_answers import keep_answers, make_fingerprint, reuse_answers
from helpers.evaluation.probes import INSTRUCTION_TOKENS
from helpers.evaluation.verdict import DriftThresholds
from helpers.inference.generate import Reply, generate_replies
from helpers.inference.loaded_model import LoadedModel
from helpers.models.batching import SCORING_TOKEN_BUDGET
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import tokenizer_digest
from helpers.planning.config import TrainingConfig
from helpers.platforms.errors import Paused
from helpers.platforms.processes import launch_processes
from helpers.runs.files import append_journal, read_journal, read_json, read_jsonl, write_json, write_text
from helpers.runs.record import Run
from helpers.runs.session import PROGRESS_FILE, SESSION_START, session_start
from helpers.runs.stages import has_preferred

NO_TIME = 1e-9  # hours of a session that has none left
KINDS = ["likelihood", "replies", "prompts", "probes", "instructions", "benchmarks"]  # of answers, in their order


class EvaluationSettings(BaseModel, frozen=True):
    """The parameters of 03_evaluate that decide answers and scores; the others are ignored."""

    max_rows: int  # of the test part, 0: all
    max_prompts: int  # 0: all
    max_probes: int  # items of each kind, 0: all
    batch_size: int  # rows
    max_new_tokens: int  # per reply
    temperature: float  # 0: greedy
    top_p: float
    bootstrap_draws: int
    gates: DriftThresholds
    num_gpus: int  # processes, 0: one per GPU
    session: dict[str, Any]
    seed: int
    encoder: str = ""  # of similarity of meaning, "" for none; runs of earlier versions have neither this nor the next
    benchmarks: list[str] = []  # tasks of lm-eval, or folders of such

    @model_validator(mode="after")
    def _check_folders(self) -> "EvaluationSettings":
        check_encoder(self.encoder)
        check_benchmarks(self.benchmarks)
        return self

    @classmethod
    def of_run(cls, run: Run) -> "EvaluationSettings":
        """Returns the parameters of a run's stage, with no more rows than its promise of hours leaves."""
        parameters = dict(run.stage("evaluate").parameters)
        if promise := TrainingConfig.of_run(run).promise:
            parameters["max_rows"] = promise.test_rows
        return cls(**parameters)

    @property
    def resampling(self) -> dict[str, Any]:
        """The bootstrap's `draws` and `seed`."""
        return {"draws": self.bootstrap_draws, "seed": self.seed}

    def describe_decoding(self) -> str:
        """Returns how tokens are chosen, in words."""
        return f"sampled at temperature {self.temperature}, top_p {self.top_p}" if self.temperature else "greedy"


@dataclass(frozen=True)
class Answers:
    """What one model answers: an entry per held-out row, per conversation among them, and per fixed prompt."""

    likelihood: list[dict]  # as `score_likelihood` returns it
    replies: list[Reply]
    prompts: list[Reply]
    probes: list[dict] = field(default_factory=list)  # the likelihoods of `scored_probes`
    instructions: list[Reply] = field(default_factory=list)
    benchmarks: list[dict] = field(default_factory=list)  # an entry per task, as `run_benchmarks` returns them
    drift: list[dict] = field(default_factory=list)  # the likelihoods of the preferred model's replies, where it is one
    tokenizer: str = ""  # its `tokenizer_digest`


def select_test_rows(run: Run, max_rows: int, seed: int) -> list[dict]:
    """Returns the data rows to evaluate on: all of the test part, or `max_rows` of them, in an order by seed."""
    rows = read_jsonl(run / "data" / "test.jsonl")
    return sorted(rows, key=lambda row: shuffle_key(seed, row["id"]))[: max_rows or None]


def select_fixed_prompts(rows: list[dict], max_prompts: int) -> list[dict]:
    """Returns the fixed prompts, or `max_prompts` of them spread over their categories, each with the `messages` that
    ask it: the system prompt of the rows before it. None for plain texts, which answer nothing."""
    conversations = [row["messages"] for row in rows if "messages" in row]
    prompts = fixed_prompts() if conversations else []
    prompts = prompts[:: max(1, len(prompts) // max_prompts) if max_prompts else 1][: max_prompts or None]
    return [{**row, "messages": [*system_turns(rows), {"role": "user", "content": row["prompt"]}]} for row in prompts]


def system_turns(rows: list[dict]) -> list[dict]:
    """Returns the system prompt of the rows, as the beginning of a conversation; [] where they have none."""
    conversations = [row["messages"] for row in rows if "messages" in row]
    return [message for message in conversations[0] if message["role"] == "system"] if conversations else []


def select_probes(rows: list[dict], most: int) -> tuple[list[Probe], list[Instruction]]:
    """Returns the probes to be scored and the instructions to be followed, `most` items of each kind, 0: all; for a
    model of plain texts only what is no conversation."""
    if any("messages" in row for row in rows):
        return scored_probes(system_turns(rows), most), instructions(system_turns(rows), most)
    return [probe for probe in scored_probes([], most) if "text" in probe.row], []


def answer_rows(run: Run, settings: EvaluationSettings) -> dict[str, Answers]:
    """Returns the answers of the base model ("base"), the tuned one ("tuned") and, where the stage prefer has finished,
    the preferred one ("preferred").

    With `num_gpus` over one (0: all GPUs here) as many processes compute a share of the batches each. Which process
    computes a batch changes nothing in it. Batches that are done are kept in evaluate/work, and with a preferred model
    those of an earlier evaluation count where nothing has changed. Raises Paused at the session's end, RuntimeError
    when a share fails.
    """
    import torch

    gpus = torch.cuda.device_count()
    processes = settings.num_gpus or max(1, gpus)
    if gpus and processes > gpus:
        print(f"evaluate.num_gpus is {processes}, this machine has {gpus}: its answers are the same, and take longer")
        processes = gpus
    if run.training_config()["device_map"]:
        processes = 1  # the one model is spread over all GPUs
    three = has_preferred(run.folder)
    if three and (reused := reuse_answers(run, fingerprints(run, settings), KINDS)):
        print(f"as the evaluation before has them: the answers of {' and '.join(reused)}, which nothing has changed")
    if processes > 1:
        write_json(run / "evaluate" / "work" / "settings.json", settings.model_dump())
        threads = {} if gpus else {"OMP_NUM_THREADS": str((os.cpu_count() or 1) // processes or 1)}
        _launch_shares(run, processes, threads)
        if three:  # whose replies all processes need before any can score them
            answer_share(run, settings, 0, 1, load=False, drift=False)  # is anything missing?
            _launch_shares(run, processes, threads)
    return answer_share(run, settings, 0, 1, load=processes == 1)


def _launch_shares(run: Run, processes: int, environment: dict[str, str]) -> None:
    """Computes the answers in so many processes; one that fails leaves its traceback in evaluate/work."""
    print(f"{processes} processes, a share of the batches each")
    work = run / "evaluate" / "work"
    for file in work.glob("failed-*.txt"):
        file.unlink()
    environment = {SESSION_START: str(session_start()), **environment}
    if code := launch_processes(__name__, [str(run), str(os.getpid())], processes, **environment):
        failures = [file.read_text(encoding="utf-8") for file in sorted(work.glob("failed-*.txt"))]
        reason = failures[0] if failures else "its output is above"
        raise RuntimeError(f"one of {processes} processes ended with exit code {code}:\n{reason}")


def answer_share(
    run: Run, settings: EvaluationSettings, rank: int, world: int, load: bool = True, drift: bool = True
) -> dict[str, Answers]:
    """Computes what is not done yet of a rank's share, and returns all that is done.

    Without `load` nothing is computed: Paused is raised for what the other processes had no time for. With a preferred
    model and `drift`, its replies are scored by it and by the tuned one, when all of them are there.
    """
    began, work = time.perf_counter(), run / "evaluate" / "work"
    rows, model = select_test_rows(run, settings.max_rows, settings.seed), LoadedModel(run, load)
    if load:
        append_journal(work / f"load-{rank}.jsonl", {"seconds": time.perf_counter() - began})
    conversations = [row["messages"][:-1] for row in rows if "messages" in row]
    prompts = [row["messages"] for row in select_fixed_prompts(rows, settings.max_prompts)]
    decoding = settings.model_dump(include={"max_new_tokens", "batch_size", "temperature", "top_p", "seed"})
    limits = {"batch_size": settings.batch_size, "max_tokens": SCORING_TOKEN_BUDGET}
    probes, asked = select_probes(rows, settings.max_probes)
    short = decoding | {"max_new_tokens": INSTRUCTION_TOKENS}
    tasks = {
        "likelihood": partial(score_likelihood, rows=rows, **limits),
        "replies": partial(generate_replies, conversations=conversations, **decoding),
        "prompts": partial(generate_replies, conversations=prompts, **decoding),
        "probes": partial(score_likelihood, rows=[probe.row for probe in probes], **limits),
        "instructions": partial(generate_replies, conversations=[own.messages for own in asked], **short),
        "benchmarks": partial(
            run_benchmarks, names=settings.benchmarks, batch_size=settings.batch_size, limit=settings.max_probes
        ),
    }
    share = {"rank": rank, "world": world, "hours": settings.session["hours"] if load else NO_TIME}
    results: dict[str, dict] = {side: {} for side in ("base", "tuned", "preferred") if side in model.sides}

    def compute(side: str, kind: str, task: Any) -> None:
        keep, what = work / f"{side}_{kind}.jsonl", f"{side} {kind}"
        with model.side(side):
            results[side][kind] = task(model.network, model.tokenizer, keep=keep, what=what, **share)

    for side in sorted(results, key=["tuned", "base", "preferred"].index):
        for kind in KINDS:
            compute(side, kind, tasks[kind])
    replies = results.get("preferred", {}).get("replies", [])
    if drift and replies and None not in replies:
        answered = answer_with(rows, replies)
        scoring = partial(score_likelihood, rows=answered, cut=[reply["hit_cap"] for reply in replies], **limits)
        for side in ("tuned", "preferred"):
            compute(side, "drift", scoring)
    digest = tokenizer_digest(model.tokenizer)
    return {side: Answers(**kinds, tokenizer=digest) for side, kinds in results.items()}


def answer_with(rows: list[dict], replies: list[Reply]) -> list[dict]:
    """Returns the conversations among data rows with a model's replies in place of their references."""
    asked = [row for row in rows if "messages" in row]
    turns = [{"role": "assistant", "content": reply["reply"]} for reply in replies]
    return [{**row, "messages": [*row["messages"][:-1], turn]} for row, turn in zip(asked, turns, strict=True)]


def fingerprints(run: Run, settings: EvaluationSettings) -> dict[str, str]:
    """Returns by model what its answers depend on, as `make_fingerprint` does."""
    names = {"max_probes", "batch_size", "max_new_tokens", "temperature", "top_p", "seed", "benchmarks"}
    rows = select_test_rows(run, settings.max_rows, settings.seed)
    probes, asked = select_probes(rows, settings.max_probes)
    questions = [rows, select_fixed_prompts(rows, settings.max_prompts), [probe.row for probe in probes]]
    everything = [settings.model_dump(include=names), questions, [own.messages for own in asked]]
    sides = ("base", "tuned", *["preferred"] * has_preferred(run.folder))
    return {side: make_fingerprint(run, side, everything) for side in sides}


def keep_for_later(run: Run, settings: EvaluationSettings) -> None:
    """Keeps the answers of a finished evaluation for one with a further model."""
    if (run / "evaluate" / "work").is_dir():
        keep_answers(run, fingerprints(run, settings), KINDS)


def sum_seconds(run: Run) -> dict[str, float]:
    """Returns the seconds of the answers over all sessions and processes: of each kind, both models together, and of
    loading (`load`). Those of work that was kept by an earlier version are not there."""
    seconds: dict[str, float] = {}
    for journal in (run / "evaluate" / "work").glob("*-*.jsonl"):
        kind = journal.stem.rpartition("-")[0].partition("_")[2] or "load"
        own = sum(entry.get("seconds", 0.0) for entry in read_journal(journal, repair=False))
        seconds[kind] = seconds.get(kind, 0.0) + own
    return seconds


def end_with(parent: int) -> None:
    """Ends this process when `parent` no longer runs its launcher: a killed notebook leaves no process on a GPU."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(os.getppid())
        while launcher.ppid() == parent:
            time.sleep(1)
    os._exit(1)


def answer_process(run: Run, parent: int) -> None:
    """One process of a launch: computes its share, or as much of it as the session allows."""
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    run.join()
    rank, work = int(os.environ["RANK"]), run / "evaluate" / "work"
    if rank:
        os.environ.pop(PROGRESS_FILE, None)  # the first process tells the runner
    try:
        settings = EvaluationSettings(**read_json(work / "settings.json"))
        answer_share(run, settings, rank, int(os.environ["WORLD_SIZE"]))
    except Paused as error:
        print(error)
    except Exception:
        write_text(work / f"failed-{rank}.txt", traceback.format_exc()[-2000:])
        raise


if __name__ == "__main__":
    answer_process(Run(Path(sys.argv[1])), int(sys.argv[2]))
