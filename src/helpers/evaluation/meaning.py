"""Similarity of meaning: each reply against its reference and against its question, by an encoder's cosine.

It measures what a text is about rather than how kind it is. A reply on the topic scores high whatever it says of it,
and one that repeats the question scores 1 against that: so similarity to the question has no better direction.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from helpers.evaluation.encoder import Encoder, embed_texts, load_encoder, pick_device
from helpers.evaluation.metrics import pick_others
from helpers.platforms.errors import describe_error

AGAINST = {"similarity_reference": "reference", "similarity_question": "prompt"}  # score: the other text of a row


@dataclass(frozen=True)
class Meaning:
    """The similarities of each model's replies, as sums like those of helpers.evaluation.metrics; all empty without."""

    sums: dict[str, dict[str, numpy.ndarray]] = field(default_factory=dict)  # model: {score: (rows, 2)}
    floors: dict[str, dict[str, numpy.ndarray]] = field(default_factory=dict)  # model: {score: (rows, m, 2)}
    facts: dict[str, Any] = field(default_factory=dict)  # what metrics.json keeps of it

    def columns(self) -> dict[str, list[float]]:
        """Returns each row's similarities by their column in scores.csv."""
        return {f"{side}_{name}": own[:, 0].tolist() for side, sums in self.sums.items() for name, own in sums.items()}

    def describe(self) -> str:
        """Returns in a sentence what was compared, or why nothing was."""
        if "skipped" in self.facts:
            return f"Similarity of meaning is skipped: {self.facts['skipped']}."
        if not self.facts:
            return "Similarity of meaning is not asked for: evaluate.encoder is empty."
        cut = "{cut:,} of {texts:,} different texts are cut at {max_tokens:,} tokens".format(**self.facts)
        return f"Similarity of meaning by {self.facts['encoder']} on {self.facts['device']}: {cut}."


def measure_meaning(name: str, replies: dict[str, list[dict]], groups: Sequence[str], seed: int) -> Meaning:
    """Returns the similarities of each model's replies; `replies` are the rows of base.jsonl and tuned.jsonl, by model.

    `groups` has an entry per row. An encoder that cannot be loaded or run ends nothing: `facts` say why it is skipped.
    """
    if not name:
        return Meaning()
    if not replies["base"]:
        return Meaning(facts={"encoder": name, "skipped": "plain texts have no replies"})
    try:
        free_memory()
        measured = compare_texts(load_encoder(name, pick_device()), replies, groups, seed)
    except Exception as error:  # whatever the libraries raise: the answers of hours do not depend on it
        return Meaning(facts={"encoder": name, "skipped": describe_error(error)})
    finally:
        free_memory()
    return Meaning(measured.sums, measured.floors, {"encoder": name, **measured.facts})


def free_memory() -> None:
    """Gives the memory of models that nothing refers to back to the GPUs."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def compare_texts(encoder: Encoder, replies: dict[str, list[dict]], groups: Sequence[str], seed: int) -> Meaning:
    """Returns the cosines of each reply with its reference and its question, and of both with those of rows of other
    groups, for the floor. Every different text is embedded once."""
    rows = [row for own in replies.values() for row in own]
    places = {text: place for place, text in enumerate(dict.fromkeys(_texts(rows)))}
    vectors, cut = embed_texts(encoder, [*places])
    others = pick_others(groups, numpy.random.default_rng(seed)) if len(set(groups)) > 1 else None
    sums, floors = {}, {}
    for side, own in replies.items():
        own_vectors = vectors[[places[row["reply"]] for row in own]]
        asked = {name: vectors[[places[row[key]] for row in own]] for name, key in AGAINST.items()}
        sums[side] = {name: _as_means((own_vectors * other).sum(axis=-1)) for name, other in asked.items()}
        if others is not None:
            pools = {name: (own_vectors[:, None] * other[others]).sum(axis=-1) for name, other in asked.items()}
            floors[side] = {name: _as_means(own_pool) for name, own_pool in pools.items()}
    facts = {"pooling": encoder.pooling, "device": encoder.device, "max_tokens": encoder.max_tokens}
    return Meaning(sums, floors, facts | {"texts": len(places), "cut": cut})


def _texts(rows: list[dict]) -> list[str]:
    return [row[key] for row in rows for key in ("reply", *AGAINST.values())]


def _as_means(values: numpy.ndarray) -> numpy.ndarray:
    """Returns values as what a mean is made of: each with its weight of 1, on a last axis."""
    return numpy.stack([values, numpy.ones_like(values)], axis=-1)
