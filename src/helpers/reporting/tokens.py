"""Whether runs cut a text into the same tokens: what is measured per token compares only where they do."""

import itertools

from helpers.models.families import name_16bit
from helpers.reporting.results import Results
from helpers.reporting.words import Words

PER_TOKEN = ("perplexity", "token_accuracy", "hit_cap")  # scores; a reply is cut at a limit of tokens


def common_rows(results: list[Results]) -> list[str]:
    """Returns the ids of the test rows that every run has answered, with the same reference."""
    references = [dict.fromkeys(run.row_scores) | {row["id"]: row["reference"] for row in run.tuned} for run in results]
    shared = set.intersection(*(set(texts.items()) for texts in references))
    return [row_id for row_id, text in references[0].items() if (row_id, text) in shared]


def model_name(result: Results) -> str:
    """Returns the base model's name, that of an embedded model with the hash of what it was made of; "" for a run whose
    files name none."""
    name = result.metrics.get("train", {}).get("base_model", "")
    return result.metrics.get("prepare_data", {}).get("embedded_model") or name if name == "embedded" else name


def share_tokenizer(first: Results, second: Results) -> bool:
    """Returns whether two evaluated runs have one tokenizer: by its digest, or, where a run of an earlier version has
    none, by the name of the base model."""
    digests = [run.metrics["evaluate"].get("tokenizer") for run in (first, second)]
    if all(digests):
        return digests[0] == digests[1]
    names = [name_16bit(model_name(run)) for run in (first, second)]
    return bool(names[0]) and names[0] == names[1]


def share_tokens(results: list[Results]) -> bool:
    """Returns whether all evaluated runs have one tokenizer, and have counted the same tokens in the answers to the
    rows that they share."""
    if not all(share_tokenizer(*pair) for pair in itertools.combinations(results, 2)):
        return False
    lines = [[run.row_scores[row_id] for row_id in common_rows(results)] for run in results]
    counts = [[float(line["tokens"]) for line in own] for own in lines if own and "tokens" in own[0]]
    return all(own == counts[0] for own in counts)


def reply_characters(result: Results) -> float | None:
    """Returns how many characters the limit of new tokens is in the tuned model's replies; None without replies."""
    tokens, limit = sum(row.get("new_tokens", 0) for row in result.tuned), result.metrics["evaluate"]["max_new_tokens"]
    return limit * sum(len(row["reply"]) for row in result.tuned) / tokens if tokens else None


def describe_tokens(results: list[Results], words: Words) -> list[str]:
    """Returns in sentences what is not compared between runs of different tokenizers, why, and how long their limits of
    new tokens are."""
    models = [f"{run.run.name}: {model_name(run) or '?'}" for run in results]
    texts = [words.say("compare.tokens_differ"), words.say("compare.tokens_models", models="; ".join(models))]
    limits = [
        words.say(
            "compare.limit_of", run=run.run.name, limit=run.metrics["evaluate"]["max_new_tokens"], characters=long
        )
        for run in results
        if (long := reply_characters(run))
    ]
    return [*texts, words.say("compare.limits", limits="; ".join(limits))] if limits else texts
