"""The stage's conversations: what is asked, the models' answers side by side, how long a person waits."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.data.prompts import PROMPTS, five_prompts
from helpers.inference.generate import generate_conversations, stream_reply, system_messages
from helpers.inference.loaded_model import LoadedModel
from helpers.models.chat import Messages
from helpers.runs.experiments import log_replies
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run

PLAIN_TEXTS, PLAIN_WORDS = 5, 12  # test texts that a model of plain text continues, and how much it is given of each


def choose_conversations(run: Run, prompts: list) -> tuple[list[list[str]], Messages | None]:
    """Returns what is asked, a list of a person's turns per conversation, and the system message before it.

    `prompts` are a person's own messages, a list for several turns; none: the fixed ones. For a model of plain text
    the beginnings of test texts, and None.
    """
    conversational = "messages" in read_jsonl(run / "data" / "train.jsonl")[0]
    if not prompts and conversational:
        prompts = [*five_prompts(), PROMPTS["turns"]]
    elif not prompts:
        texts = [row["text"].split() for row in read_jsonl(run / "data" / "test.jsonl")[:PLAIN_TEXTS]]
        prompts = [" ".join(words[:PLAIN_WORDS]) for words in texts]
    conversations = [prompt if isinstance(prompt, list) else [prompt] for prompt in prompts]
    return conversations, system_messages(run) if conversational else None


def answer_both(
    run: Run, model: LoadedModel, conversations: list[list[str]], system: Messages | None, **settings: Any
) -> dict[str, list[dict]]:
    """Returns the answers of all of the run's models, as `generate_conversations` does, which takes `settings`."""
    answers = {}
    for side in model.sides:
        with model.side(side):
            keep: Path = run / "infer" / "work" / side
            answers[side] = generate_conversations(
                model.network, model.tokenizer, conversations, system, keep, **settings
            )
    return answers


def pair_replies(answers: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """Returns the rows of infer/replies.jsonl: each message with all replies; tokens and cap are the tuned one's."""
    rows, sides = [], [side for side in ("base", "tuned", "preferred") if side in answers]
    for place, tuned in enumerate(answers["tuned"]):
        row = {name: tuned[name] for name in ("conversation", "turn", "prompt")}
        row |= {side: answers[side][place]["reply"] for side in sides}
        rows.append(row | {name: tuned[name] for name in ("new_tokens", "hit_cap")})
    return rows


def measure_stream(
    model: LoadedModel, message: str, system: Messages | None, show: Callable[[str], object], **decoding: Any
) -> tuple[float, float]:
    """Lets the tuned model answer one message, and returns seconds to the first word and tokens per second.

    `show` is given the reply so far, again and again; `decoding` is what `stream_reply` takes.
    """
    asked = message if system is None else [*system, {"role": "user", "content": message}]
    began, first, reply = time.perf_counter(), 0.0, ""
    for reply in stream_reply(model.network, model.tokenizer, asked, **decoding):
        first = first or (time.perf_counter() - began if reply else 0.0)
        show(reply)
    tokens = len(model.tokenizer(reply, add_special_tokens=False)["input_ids"])
    return first, tokens / (time.perf_counter() - began)


def log_answers(run: Run, answers: list[dict]) -> None:
    """Adds the tuned model's answers to the run's experiment; without an evaluation there is none to add to."""
    if experiment := getattr(run.stage("evaluate"), "experiment", None):
        log_replies(run.outputs / "experiments.db", experiment, answers)
