"""A vocabulary with Bengali tokens that are learned from rows to train on, and what it makes of held-out rows."""

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from helpers.data.clean import clean_table
from helpers.data.group import link_rows
from helpers.data.load import load_table
from helpers.data.rows import make_parts
from helpers.data.split import split_corpus
from helpers.language.bengali import split_words
from helpers.models.chat import Tokenizer, encode_rows, prepare_tokenizer
from helpers.models.families import find_rate
from helpers.models.loading import load_tokenizer
from helpers.planning.candidates import texts_of
from helpers.planning.lengths import keep_lengths, scale_lengths
from helpers.planning.plan import plan_preset, split_lengths
from helpers.reporting.tables import markdown_table
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings

PRESET = "kaggle-t4x2"
HELD_OUT = 10  # of a file's lines, every tenth is held out and every tenth is for validation
WORDS = r" ?[\p{L}\p{M}\p{N}]+"  # Llama 3 splits Bengali words at their vowel signs; new tokens may hold any part

Rows = list[dict[str, Any]]
Example = dict[str, list[int]]


@dataclass(frozen=True)
class Corpus:
    """Lines to pretrain on, and the rows that are trained on, choose the learning rate, and are held out."""

    base: list[str]
    train: Rows
    val: Rows
    test: Rows


def read_corpus(base_text: list[Path], row_files: list[Path]) -> Corpus:
    """Returns the embedded corpus, split as 01_prepare_data does, with the files' lines as rows of plain text."""
    kept = clean_table(load_table("embedded")[0])
    split = split_corpus(kept, link_rows(kept.kept, 0.8), (0.8, 0.1), 0)
    parts = make_parts(split.kept, "", "embedded")
    lines = [line for path in row_files for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        part = {0: "test", 1: "val"}.get(number % HELD_OUT, "train")
        parts[part].append({"id": f"line-{number}", "text": line})
    base = [line for path in base_text for line in path.read_text(encoding="utf-8").splitlines()]
    return Corpus(base, parts["train"], parts["val"], parts["test"])


def learn_tokens(tokenizer: Tokenizer, texts: list[str], number: int) -> list[str]:
    """Returns the `number` first merges of a byte-pair encoding of the texts' letters that are Bengali and take the
    tokenizer two tokens or more."""
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(WORDS), "isolated")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1000 + 2 * number, min_frequency=2, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    merged = [token for token, _ in sorted(learner.get_vocab().items(), key=lambda item: item[1]) if len(token) > 1]
    bengali = [token for token in merged if all("\u0980" <= letter <= "\u09ff" for letter in token.strip())]
    pieces = tokenizer(bengali, add_special_tokens=False)["input_ids"]
    return [token for token, ids in zip(bengali, pieces, strict=True) if len(ids) > 1][:number]


def extend_tokenizer(folder: str, tokens: list[str]) -> Tokenizer:
    """Returns the tokenizer with more tokens, which are found in a text before all others, the longest first."""
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in tokens])
    return prepare_tokenizer(tokenizer)


class Vocabulary:
    """A vocabulary, and the rows in it. `tokens` are those added, the others have ids below `old`."""

    def __init__(self, number: int, folder: str, corpus: Corpus) -> None:
        self.plain = load_tokenizer(folder)
        self.tokens = learn_tokens(self.plain, [*texts_of(corpus.train)], number) if number else []
        self.tokenizer = extend_tokenizer(folder, self.tokens) if number else self.plain
        self.pieces = self.plain(self.tokens, add_special_tokens=False)["input_ids"] if number else []
        self.old = len(self.plain)
        self.parts = {part: encode_rows(self.tokenizer, getattr(corpus, part)) for part in ("train", "val", "test")}

    def old_ids(self) -> set[int]:
        """Returns the ids of Llama's own that the rows take with this vocabulary."""
        examples = itertools.chain.from_iterable(self.parts.values())
        ids = itertools.chain(*self.pieces, *(example["input_ids"] for example in examples))
        return {number for number in ids if number < self.old}


def describe_vocabularies(vocabularies: list[Vocabulary], corpus: Corpus) -> str:
    """Returns the table of the tokens of the embedded corpus's held-out rows by each vocabulary, and of the hours that
    the plan has for them, replies of equally many characters."""
    texts, table = [*texts_of([row for row in corpus.test if "messages" in row])], []
    settings = resolve_settings(PRESET, "", tempfile.gettempdir(), [], False)
    data, limit = settings["prepare_data"], settings["evaluate"]["max_new_tokens"]
    letters, words, rate = sum(map(len, texts)), sum(len(split_words(text)) for text in texts), 0.0
    for each in vocabularies:
        ids = each.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        assert all(each.tokenizer.decode(own) == text for own, text in zip(ids, texts, strict=True))
        tokens = sum(map(len, ids))
        rate = rate or tokens / letters
        share = tokens / letters / rate
        lengths, source = scale_lengths(data["dataset"], find_rate(data["base_model"])[0] * share)
        settings["evaluate"]["max_new_tokens"] = round(limit * share)
        known = split_lengths(keep_lengths(lengths, data), source, data, 0)
        plan = plan_preset(settings, Run.named(tempfile.gettempdir(), "none"), known=known)
        cells = {"tokens added": str(len(each.tokens)), "per word": f"{tokens / words:.2f}"}
        cells["per character"] = f"{tokens / letters:.3f}"
        cells["of an epoch"] = f"{plan.tokens_per_epoch:,}"
        cells |= {f"hours: {part}": f"{plan.hours[part]:.2f}" for part in ("train", "evaluate", "total")}
        table.append(cells)
    return markdown_table(table)
