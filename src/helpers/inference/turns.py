"""A conversation on the chat page: what is shown, what the model reads, and what of its replies is held back.

In a crisis the fixed message comes first, and the model's reply is shown only when it is complete, names whom to turn
to, and has nothing that the rubric calls unsafe. Every later reply of that conversation is held back in the same way,
but needs no referral. The embedded model writes nothing there: its replies show the pipeline and help nobody.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from helpers.inference.limits import KEPT_ENTRIES, WORDS
from helpers.inference.loaded_model import LoadedModel
from helpers.language.bengali import bengali_share
from helpers.language.care import crisis_answer, detect_crisis
from helpers.language.rubric import CRISIS, unsafe_reasons

BENGALI_SHARE = 0.5  # of the letters of a reply that may be shown in a crisis


@dataclass(frozen=True)
class Entry:
    """One message on the page."""

    role: str  # "user" or "assistant"
    content: str
    kind: str = ""  # of an assistant's: "reply", or "care" for one that no model wrote
    side: str = ""  # of a reply: "base", "tuned" or "preferred"
    writing: bool = False  # a reply that is not complete yet
    id: str = ""
    care: str = ""  # "crisis" of a message in a crisis and of its fixed answer, "after" of what the person writes later


def speaks_of_crisis(entries: list[Entry]) -> bool:
    """Returns whether a message in a crisis was among those of a conversation."""
    return any(entry.care for entry in entries)


def model_messages(entries: list[Entry]) -> list[dict]:
    """Returns what the model reads of the messages shown: all but the fixed ones, and nothing that was left empty.

    Messages of a person with none of the model's between them are one: some chat templates take turns only.
    """
    messages: list[dict] = []
    for entry in entries:
        if entry.role == "assistant" and not entry.content:
            messages = messages[:-1]  # a reply that was stopped before it began, and what it was to answer
        elif entry.kind == "care":
            continue
        elif entry.role == "user" and messages and messages[-1]["role"] == "user":
            messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n{entry.content}"}
        else:
            messages.append({"role": entry.role, "content": entry.content})
    return messages


def fixed_answer(message: str, language: str) -> list[Entry]:
    """Returns the fixed answer to a message in a crisis, [] to any other."""
    return [Entry("assistant", crisis_answer(language), "care", care="crisis")] if detect_crisis(message) else []


def open_turn(
    entries: list[Entry], message: str, side: str, language: str, with_care: bool, speaks: bool = True
) -> list[Entry]:
    """Returns the messages shown with the person's, the fixed message where it is due, and an empty reply to be
    written; unchanged for an empty message or while a reply is being written.

    A model that does not speak in a crisis, `speaks`, opens no reply there: later messages get a fixed text.
    """
    message = message.strip()
    if not message or (entries and entries[-1].writing):
        return entries
    fixed = fixed_answer(message, language) if with_care else []
    care = "crisis" if fixed else "after" if speaks_of_crisis(entries) else ""
    opened = [*entries[-KEPT_ENTRIES:], Entry("user", message, care=care), *fixed]
    if care and not speaks:
        return opened if fixed else [*opened, Entry("assistant", WORDS[language]["silent"], "care")]
    return [*opened, Entry("assistant", "", "reply", side, True, uuid.uuid4().hex)]


def write_reply(
    model: LoadedModel, entries: list[Entry], language: str = "bn", **decoding: Any
) -> Iterator[list[Entry]]:
    """Yields the messages shown while the last of them, a reply opened before, is written.

    After a message in a crisis the reply stays empty until it is complete, and a fixed text stands for one that fails.
    """
    if entries and entries[-1].writing:
        *earlier, reply = entries
        care = _care_due(earlier)
        for text in model.stream(model_messages(earlier), reply.side, **decoding):
            reply = replace(reply, content=text)
            yield entries if care else [*earlier, reply]
        if care and not may_be_shown(reply.content, care):
            reply = replace(reply, content=WORDS[language]["held"], kind="care")
        yield close_reply([*earlier, reply])


def may_be_shown(reply: str, care: str) -> bool:
    """Returns whether a model's reply passes the checks for a message in a crisis, or for one after it.

    It is in Bengali, ends with a sentence (what was cut may have meant the contrary), and has nothing that the rubric
    calls unsafe, such as encouragement.
    """
    ended = reply.rstrip().endswith(("।", "॥", "?", "!", "."))
    sound = ended and bengali_share(reply) >= BENGALI_SHARE
    return sound and not unsafe_reasons(reply, CRISIS if care == "crisis" else "")


def _care_due(entries: list[Entry]) -> str:
    """Returns the care that the person's last message needs, as `Entry.care`."""
    return next((entry.care for entry in reversed(entries) if entry.role == "user"), "")


def stop_reply(entries: list[Entry], language: str) -> list[Entry]:
    """Returns the messages shown once the reply being written was stopped.

    One that was held back is never shown: the fixed message in a crisis is the last then.
    """
    if not entries or not entries[-1].writing or not _care_due(entries[:-1]):
        return close_reply(entries)
    *earlier, _ = entries
    fixed = Entry("assistant", crisis_answer(language), "care", care="crisis")
    return earlier if earlier[-1].care == "crisis" and earlier[-1].role == "assistant" else [*earlier, fixed]


def close_reply(entries: list[Entry]) -> list[Entry]:
    """Returns the messages shown with no reply being written any more."""
    return [*entries[:-1], replace(entries[-1], writing=False)] if entries else entries
