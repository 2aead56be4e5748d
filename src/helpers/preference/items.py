"""What a source says of the replies to a prompt, and when two texts are the same."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from helpers.data.clean import make_id
from helpers.data.excerpts import excerpt_row
from helpers.data.turns import DROPPED, Turns, read_turns
from helpers.language.bengali import normalise, split_words
from helpers.language.folding import fold


@dataclass(frozen=True)
class Preference:
    """A pair of replies, or one reply: liked, then `rejected` is empty, or disliked, then `chosen` is."""

    source: str  # "thumbs", "ratings", "llm_judge", or a file's name
    origin: str  # which of its source it is: a thumb's or a test row's id, or a row's number
    prompt: Turns  # the last turn is the user's
    chosen: str = ""
    rejected: str = ""
    voters: frozenset[str] = field(default=frozenset(), repr=False)  # who says so; never written
    test_group: str = ""  # of a rated reply: the group of its test row
    off_policy: bool = False  # no reply of this run's tuned or preferred model

    @property
    def is_pair(self) -> bool:
        """Whether it compares two replies."""
        return bool(self.chosen and self.rejected)

    @property
    def votes(self) -> int:
        """How many say so."""
        return len(self.voters)

    @property
    def place(self) -> tuple[int, str]:
        """Its origin as a key that sorts "row 4" before "row 28"."""
        return len(self.origin), self.origin

    @property
    def id(self) -> str:
        """12 hexadecimal digits of its content, wherever it stood."""
        turns = "\0".join(f"{turn['role']}\0{turn['content']}" for turn in self.prompt)
        return make_id(f"{turns}\0\0{self.chosen}\0\0{self.rejected}")

    @property
    def question(self) -> str:
        """The user's turns."""
        return "\n\n".join(turn["content"] for turn in self.prompt if turn["role"] == "user")


class Dropped(NamedTuple):
    """A preference that is not used."""

    reason: str
    item: Preference

    def as_row(self) -> dict[str, str]:
        """Returns its line in dropped.csv; `text` is an excerpt."""
        replies = self.item.chosen or self.item.rejected
        text = excerpt_row(self.reason, self.item.question, replies)
        return {"reason": self.reason, "source": self.item.source, "id": self.item.origin, "text": text}


Sieved = tuple[list[Preference], list[Dropped]]  # what is kept, and what was dropped


def split_dropped(items: list[Preference], reasons: Iterable[str]) -> Sieved:
    """Returns the items whose reason is "", and the others with it."""
    both = list(zip(items, reasons, strict=True))
    return [item for item, reason in both if not reason], [Dropped(reason, item) for item, reason in both if reason]


def read_prompt(raw: list[dict[str, Any]], system: Turns) -> tuple[Turns, str]:
    """Returns the turns before a reply, `system` first unless they bring their own, and the rule of
    `helpers.data.turns` by which they cannot be used, "" for none."""
    turns, rules = read_turns([*raw, {"role": "assistant", "content": "…"}])
    broken = next((rule for rule in DROPPED if rule in rules), "")
    turns = turns[:-1]
    return turns if broken or turns[0]["role"] == "system" else [*system, *turns], broken


def prompt_key(prompt: Turns) -> str:
    """Returns what equal prompts share: their turns, spelling folded (`helpers.language.folding`), whatever the system
    turn. One who misspells a question has asked the same."""
    return "\n".join(f"{turn['role']} {fold_text(turn['content'])}" for turn in prompt if turn["role"] != "system")


@lru_cache(maxsize=2**16)
def fold_text(text: str) -> str:
    """Returns a text folded, or as it is where nothing of it is left, such as a sign."""
    return fold(text) or normalise(text)


def reply_key(text: str) -> str:
    """Returns what equal replies share: their words, in either form of a nukta letter, without joiners and punctuation.

    Spelling is not folded: whoever corrects a reply's spelling prefers another reply.
    """
    return " ".join(split_words(text)) or normalise(text)
