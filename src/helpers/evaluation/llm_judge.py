"""A language model as one more rater, at any endpoint of OpenAI's chat protocol. Off by default.

It reads the same blind pairs as people do, each in both orders, so that a preference for the first reply cancels out.
"""

import json
import re
from itertools import chain, product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, model_validator

from helpers.evaluation.raters import summarise_choices, summarise_ratings
from helpers.evaluation.sheet import QUESTIONS, SCALES, tuned_is_first
from helpers.evaluation.sheet_rows import SheetSample, read_sample
from helpers.platforms.secrets import read_secret
from helpers.runs.files import write_jsonl
from helpers.runs.record import Run
from helpers.runs.session import compute_batches


class LlmJudge(BaseModel, frozen=True, extra="forbid"):
    """The language model that rates, as 03_evaluate's parameter `llm_judge` names it; none without a `model`."""

    base_url: str = ""
    model: str = ""
    secret: str = ""  # a token's name
    options: dict[str, Any] = {}  # of chat.completions.create

    @model_validator(mode="after")
    def _check_endpoint(self) -> "LlmJudge":
        if bool(self.base_url) != bool(self.model):
            raise ValueError("evaluate.llm_judge needs both base_url and model, or neither.")
        return self


def rate_pairs(rater: LlmJudge, pairs: list[dict], seed: int, keep: Path | None, hours: float = 0.0) -> list[dict]:
    """Returns a language model's ratings of blind pairs, as the marks of `read_ratings`, for each `order` of each
    pair; `wrong` instead of marks where its answer could not be read.

    Raises openai's own errors when the endpoint does not answer, after the library's retries.
    """
    try:
        import openai
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("evaluate.llm_judge needs the package openai: pip install openai==3.54.0") from error
    key = read_secret(rater.secret) if rater.secret else "none"
    client = openai.OpenAI(base_url=rater.base_url, api_key=key, timeout=120, max_retries=4)

    def rate(pair: dict, order: int) -> list[dict]:
        shown = pair if order == 1 else {**pair, "reply_1": pair["reply_2"], "reply_2": pair["reply_1"]}
        scales = "\n".join(f"- {scale}: {question}" for scale, (question, _) in SCALES.items())
        prompt = QUESTIONS["llm_prompt"].format(**shown, scales=scales)
        answer = client.chat.completions.create(
            model=rater.model, messages=[{"role": "user", "content": prompt}], **(rater.options or {"temperature": 0})
        )
        text = answer.choices[0].message.content or ""
        sides = ("tuned", "base") if tuned_is_first(pair["id"], seed) == (order == 1) else ("base", "tuned")
        marks = _parse_answer(text) or [{"wrong": text[:500]}] * 2
        shared = {"rater": rater.model, "id": pair["id"], "order": order}
        return [{**shared, "side": side, **given} for side, given in zip(sides, marks)]

    tasks = [*product(pairs, (1, 2))]
    numbers = [[number] for number in range(len(tasks))]
    ratings = compute_batches(numbers, lambda batch: [rate(*tasks[n]) for n in batch], keep, hours, "judged pair")
    return [*chain.from_iterable(ratings)]


def _parse_answer(text: str) -> list[dict[str, float]] | None:
    """Returns the marks of both replies out of an answer, None when they are not all there; with `preferred`, 1 for
    the reply that it chose, 0 for the other, 0.5 for no difference, where it chose."""
    try:
        answer = json.loads("".join(re.findall(r"\{.*\}", text, re.DOTALL)))
        marks: list[dict[str, float]] = [
            {scale: int(answer[f"reply_{place}"][scale]) for scale in SCALES} for place in (1, 2)
        ]
    except (ValueError, KeyError, TypeError):
        return None
    if not all(1 <= mark <= 5 for mark in chain(*(given.values() for given in marks))):
        return None
    preferred = {"0": (0.5, 0.5), "1": (1, 0), "2": (0, 1)}.get(str(answer.get("choice")))
    return [own | {"preferred": share} for own, share in zip(marks, preferred)] if preferred else marks


def llm_choices(ratings: list[dict]) -> list[dict]:
    """Returns a language model's choices as those of `read_ratings`, each order as a rater of its own."""
    return [
        {"rater": f"{rating['rater']} {rating['order']}", "id": rating["id"], "tuned": rating["preferred"]}
        for rating in ratings
        if rating["side"] == "tuned" and "preferred" in rating
    ]


def llm_marks(ratings: list[dict]) -> list[dict]:
    """Returns a language model's marks as those of `read_ratings`, each order as a rater of its own."""
    return [{**rating, "rater": f"{rating['rater']} {rating['order']}"} for rating in ratings if "wrong" not in rating]


def summarise_llm_ratings(ratings: list[dict], draws: int, seed: int, sample: SheetSample | None = None) -> dict:
    """Returns `summarise_ratings` of the means of both orders, with `choices`, `sample`, `unread` (no marks) and
    `same_in_both_orders`, the share of pairs where both orders favour the same reply, or neither."""
    import pandas

    names = ["rater", "id", "order", "side", *SCALES]
    read = pandas.DataFrame([rating for rating in ratings if "wrong" not in rating], columns=names)
    means = pandas.DataFrame(read.groupby(["rater", "id", "side"], sort=False)[[*SCALES]].mean()).reset_index()
    totals = read[[*SCALES]].sum(axis=1)
    signed: Any = totals.where(read["side"] == "tuned", -totals)
    leads = signed.groupby([read["id"], read["order"]]).sum()  # tuned − base
    favoured = leads.clip(-1, 1).unstack().reindex(columns=[1, 2]).dropna()  # (pairs, orders)
    return {
        **summarise_ratings(means.to_dict("records"), draws, seed, sample),
        "choices": summarise_choices(llm_choices(ratings), {}, sample),
        **({"sample": sample.describe()} if sample and sample.describe() else {}),
        "unread": len({(rating["id"], rating["order"]) for rating in ratings if "wrong" in rating}),
        "same_in_both_orders": float((favoured[1] == favoured[2]).mean()) if len(favoured) else None,
    }


def rate_with_llm(run: Run, rater: LlmJudge, pairs: list[dict], draws: int, seed: int, hours: float = 0.0) -> dict:
    """Writes a language model's ratings of blind pairs to judge.jsonl and returns their summary; {} without a model."""
    if not rater.model or not pairs:
        return {}
    ratings = rate_pairs(rater, pairs, seed, run / "evaluate" / "work" / "judge.jsonl", hours)
    write_jsonl(run / "evaluate" / "judge.jsonl", ratings)
    return summarise_llm_ratings(ratings, draws, seed, read_sample(run / "evaluate"))
