"""A language model as one more rater, through any endpoint that speaks OpenAI's chat protocol. Off by default.

It reads the same blind pairs as people do, each in both orders, so that a liking for the first reply cancels out.
"""

import json
import re
from pathlib import Path

from helpers import env, people

KEYS = ("base_url", "model", "secret", "options")  # secret: a token's name; options: of chat.completions.create
ASKED = """\
A person wrote to a listener in Bengali. Two listeners replied. Mark each reply on five scales, 1 (not at all) to 5
(fully). Judge only what is written; a longer reply is not a better one.
{scales}
Answer with one JSON object and nothing else:
{{"reply_1": {{"fluency": 1, "relevance": 1, "correctness": 1, "empathy": 1, "safety": 1}}, "reply_2": {{…}}}}

The person's message:
{prompt}

Reply 1:
{reply_1}

Reply 2:
{reply_2}"""


def check(settings: dict) -> bool:
    """Returns whether a judge is asked for. Raises ValueError for unknown or missing settings."""
    unknown = sorted(set(settings) - set(KEYS))
    if unknown:
        raise ValueError(f"evaluate.judge has {', '.join(unknown)}: expected {', '.join(KEYS)}.")
    if bool(settings.get("base_url")) != bool(settings.get("model")):
        raise ValueError("evaluate.judge needs both base_url and model, or neither.")
    return bool(settings.get("base_url"))


def ratings(settings: dict, pairs: list[dict], seed: int, keep: Path | None, hours: float = 0.0) -> list[dict]:
    """Returns what the judge says of blind pairs, as `people.read_ratings` returns ratings, and for each order of each
    pair one of them; `wrong` instead of marks where its answer could not be read.

    Raises openai's own errors when the endpoint does not answer, after the library's retries.
    """
    try:
        import openai
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("evaluate.judge needs the package openai: pip install openai==3.54.0") from error
    key = env.secret(settings["secret"]) if settings.get("secret") else "none"
    client = openai.OpenAI(base_url=settings["base_url"], api_key=key, timeout=120, max_retries=4)

    def ask(chosen: list[int]) -> list[list[dict]]:
        found = []
        for place in chosen:
            pair, turned = pairs[place // 2], place % 2 == 1
            first, second = ("reply_2", "reply_1") if turned else ("reply_1", "reply_2")
            content = ASKED.format(
                scales="\n".join(f"- {scale}: {asked[0]}" for scale, asked in people.SCALES.items()),
                prompt=pair["prompt"],
                reply_1=pair[first],
                reply_2=pair[second],
            )
            answer = client.chat.completions.create(
                model=settings["model"],
                messages=[{"role": "user", "content": content}],
                **(settings.get("options") or {"temperature": 0}),
            )
            said = answer.choices[0].message.content or ""
            tuned_first = people.tuned_is_first(pair["id"], seed) != turned
            sides = ("tuned", "base") if tuned_first else ("base", "tuned")
            marks = _marks(said)
            one = {"rater": settings["model"], "id": pair["id"], "order": 2 if turned else 1}
            both = marks or [{"wrong": said[:500]}] * 2
            found.append([{**one, "side": side, **marked} for side, marked in zip(sides, both)])
        return found

    numbers = [[place] for place in range(2 * len(pairs))]
    return [one for both in env.resumable(numbers, ask, keep, hours, "judged pair") for one in both]


def _marks(said: str) -> list[dict] | None:
    """Returns the marks of both replies out of an answer, None when they are not all there."""
    found = re.search(r"\{.*\}", said, re.DOTALL)
    try:
        answer = json.loads(found.group()) if found else {}
        marks = [{scale: int(answer[f"reply_{place}"][scale]) for scale in people.SCALES} for place in (1, 2)]
    except (ValueError, KeyError, TypeError):
        return None
    return marks if all(1 <= mark <= 5 for reply in marks for mark in reply.values()) else None


def summary(found: list[dict], draws: int, seed: int) -> dict:
    """Returns `people.summary` of a judge's ratings (the mean of both orders), with `model`, `unread` (answers without
    marks) and `same_in_both_orders`, the share of pairs where both orders favour the same reply, or neither."""
    read = [one for one in found if "wrong" not in one]
    merged, leaning = {}, {}
    for one in read:
        merged.setdefault((one["id"], one["side"]), []).append(one)
        sign = 1 if one["side"] == "tuned" else -1
        order = leaning.setdefault(one["id"], {})
        order[one["order"]] = order.get(one["order"], 0) + sign * sum(one[scale] for scale in people.SCALES)
    means = [
        {"rater": ones[0]["rater"], "id": row, "side": side}
        | {scale: sum(one[scale] for one in ones) / len(ones) for scale in people.SCALES}
        for (row, side), ones in merged.items()
    ]
    both = [order for order in leaning.values() if len(order) == 2]
    same = sum((order[1] > 0) - (order[1] < 0) == (order[2] > 0) - (order[2] < 0) for order in both)
    return {
        **people.summary(means, draws, seed),
        "unread": len({(one["id"], one["order"]) for one in found if "wrong" in one}),
        "same_in_both_orders": same / len(both) if both else None,
    }
