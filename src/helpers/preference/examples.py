"""Preferences as token ids: a prompt's, and those of the replies to it."""

from typing import Any

from helpers.data.sampling import shuffle_key
from helpers.models.chat import Tokenizer, encode_prompt, encode_row
from helpers.planning.config import TrainingConfig

Example = dict[str, Any]
Lengths = list[tuple[int, int]]  # tokens of the two sequences that each example computes
REFERENCES = {  # whether an example is a pair: the library's names for what the reference finds of its two sequences
    True: ("ref_chosen_logps", "ref_rejected_logps"),
    False: ("ref_logps", "ref_KL_logps"),
}


def encode_reply(tokenizer: Tokenizer, prompt: list[dict[str, str]], reply: str) -> tuple[list[int], list[int]]:
    """Returns the token ids of a prompt, where generation starts, and of a reply with its end token.

    Raises ValueError where a chat template does not continue its own prompt.
    """
    before = encode_prompt(tokenizer, prompt)
    row = {"id": "", "messages": [*prompt, {"role": "assistant", "content": reply}]}
    ids = encode_row(tokenizer, row)["input_ids"]
    if ids[: len(before)] != before or len(ids) == len(before):
        raise ValueError("the chat template changes the prompt when a reply follows: it cannot be trained on.")
    return before, ids[len(before) :]


def encode_pair(tokenizer: Tokenizer, row: dict[str, Any]) -> Example:
    """Returns `prompt_ids`, `chosen_ids` and `rejected_ids` of a pair, as trl.DPOTrainer names them."""
    prompt, chosen = encode_reply(tokenizer, row["prompt"], row["chosen"])
    _, rejected = encode_reply(tokenizer, row["prompt"], row["rejected"])
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "group": row["group"]}


def split_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows in which every pair has become two single replies, one liked and one not.

    A reply that is better than one and worse than another is both: it is left out.
    """
    singles: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for row in rows:
        kept = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
        sides = [("chosen", True), ("rejected", False)] if "chosen" in row else [("completion", row["label"])]
        for side, label in sides:
            single = {**kept, "id": f"{row['id']} {side}", "completion": row[side], "label": label}
            singles.setdefault((str(row["prompt"]), row[side], label), single)
    return [single for (prompt, reply, label), single in singles.items() if (prompt, reply, not label) not in singles]


def encode_singles(tokenizer: Tokenizer, rows: list[dict[str, Any]], seed: int) -> list[Example]:
    """Returns `prompt_ids`, `completion_ids` and `label` of single replies, as trl.KTOTrainer names them, and
    `other_ids`, the reply to another prompt, by seed.

    By replies to other prompts KTO measures the distance from the reference (Ethayarajh et al. 2024, §4.1).
    """
    examples = []
    for row in rows:
        prompt, completion = encode_reply(tokenizer, row["prompt"], row["completion"])
        example = {"prompt_ids": prompt, "completion_ids": completion, "label": row["label"], "group": row["group"]}
        examples.append(example)
    order = sorted(range(len(rows)), key=lambda place: shuffle_key(seed, rows[place]["id"]))
    for turn, place in enumerate(order):
        others = (order[(turn + ahead) % len(order)] for ahead in range(1, len(order) + 1))
        other = next((o for o in others if rows[o]["group"] != rows[place]["group"]), order[(turn + 1) % len(order)])
        examples[place]["other_ids"] = examples[other]["completion_ids"]
    return examples


def encode_examples(tokenizer: Tokenizer, rows: list[dict[str, Any]], config: TrainingConfig) -> list[Example]:
    """Returns the examples of rows as the configuration's method reads them: pairs for DPO, single replies for KTO."""
    if config.method == "dpo":
        return [encode_pair(tokenizer, row) for row in rows]
    return encode_singles(tokenizer, split_pairs(rows), config.seed)


def sequences_of(example: Example) -> tuple[tuple[list[int], list[int]], tuple[list[int], list[int]]]:
    """Returns the two sequences that an example computes, each a prompt and a reply: the chosen and the rejected reply,
    or a reply and that to another prompt."""
    names = ("chosen_ids", "rejected_ids") if "chosen_ids" in example else ("completion_ids", "other_ids")
    first, second = ((example["prompt_ids"], example[name]) for name in names)
    return first, second


def sequence_lengths(examples: list[Example]) -> Lengths:
    """Returns the tokens of each example's two sequences."""
    lengths = ([sum(map(len, sequence)) for sequence in sequences_of(example)] for example in examples)
    return [(first, second) for first, second in lengths]
