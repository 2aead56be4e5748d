"""What a caller of the chat page may ask of the model: settings in range, a message that fits, and not too often."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.runs.files import load_yaml

WORDS: dict[str, dict[str, Any]] = load_yaml(Path(__file__).with_name("chat_page.yaml"))
BENGALI_DIGITS = str.maketrans("0123456789", "০১২৩৪৫৬৭৮৯")

MESSAGE_CHARACTERS = 8000  # more never fit a prompt of LoadedModel
KEPT_ENTRIES = 64  # messages of a conversation that a page shows and a prompt is made of
REPLY_SECONDS = 300.0  # after which a reply is cut: one call never holds the model for longer
WAITING = 64  # calls of all callers that may wait for the model
PER_MINUTE = 60  # messages of one caller
CALLERS = 10_000  # whose messages are counted; of more, those who wrote last
SIDES = ("preferred", "tuned", "base")  # the models of a run; the first where the stage prefer has finished
RANGES = {"temperature": (0.0, 2.0), "top_p": (0.05, 1.0), "max_new_tokens": (1, 1024), "seed": (-(2**53), 2**53)}


class Unacceptable(ValueError):
    """Something asked of the chat page that no model is started for: why, as a key of `refused` in chat_page.yaml.

    As a text it says what is expected, in English.
    """

    def __init__(self, reason: str, **facts: Any) -> None:
        self.reason, self.facts = reason, facts
        super().__init__(self.explain("en"))

    def explain(self, language: str) -> str:
        """Returns what was refused, and what is expected, in a language of the page."""
        return refusal(self.reason, language, **self.facts)


def refusal(reason: str, language: str, **facts: Any) -> str:
    """Returns a text of `refused` in chat_page.yaml."""
    return in_digits(WORDS[language]["refused"][reason], language, **facts)


def in_digits(text: str, language: str, **facts: Any) -> str:
    """Returns a text of chat_page.yaml with its facts; whole numbers in the language's own digits."""
    if language == "bn":
        facts = {name: str(v).translate(BENGALI_DIGITS) if isinstance(v, int) else v for name, v in facts.items()}
    return text.format(**facts)


def check_decoding(**settings: Any) -> dict[str, Any]:
    """Returns the settings of `stream_reply` that a caller gave; a number field gives floats. Raises Unacceptable."""
    for name, value in settings.items():
        low, high = RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unacceptable("number", name=name, value=repr(value)[:40], low=low, high=high)
        if not low <= value <= high:
            raise Unacceptable("range", name=name, value=str(value)[:40], low=low, high=high)
    return settings | {name: int(settings[name]) for name in ("max_new_tokens", "seed")}


def check_message(message: Any, side: Any = "tuned", sides: Sequence[str] = SIDES) -> str:
    """Returns a message without spaces at its ends. Raises Unacceptable for none, for one that no prompt holds, and for
    a side that is none of `sides`."""
    if side not in sides:
        raise Unacceptable("side", value=repr(str(side)[:40]), known=", ".join(sides))
    if not isinstance(message, str) or not message.strip():
        raise Unacceptable("empty")
    if len(message) > MESSAGE_CHARACTERS:
        raise Unacceptable("long", length=len(message), most=MESSAGE_CHARACTERS)
    return message.strip()


def check_rewritten(text: Any, reply: str) -> str:
    """Returns what a person would rather have read than a reply. Raises Unacceptable as for a message, and for the
    reply itself, which makes no pair."""
    text = check_message(text)
    if text == reply.strip():
        raise Unacceptable("same")
    return text


class RateLimit:
    """Counts the messages of each caller in the last minute."""

    def __init__(self, most: int = PER_MINUTE) -> None:
        self.most, self.lock = most, threading.Lock()
        self.times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, caller: str) -> None:
        """Counts a message. Raises Unacceptable, and does not count it, when the caller has written too many."""
        now = time.monotonic()
        with self.lock:
            times = self.times.setdefault(caller, deque())
            self.times.move_to_end(caller)
            while len(self.times) > CALLERS:
                self.times.popitem(last=False)
            while times and times[0] <= now - 60:
                times.popleft()
            if len(times) >= self.most:
                raise Unacceptable("often", most=self.most)
            times.append(now)
