"""What a caller of the chat page may ask of the model: settings in range, a message that fits, and not too often."""

import threading
import time
from collections import OrderedDict, deque
from typing import Any

MESSAGE_CHARACTERS = 8000  # more never fit a prompt of LoadedModel
KEPT_ENTRIES = 64  # messages of a conversation that a page shows and a prompt is made of
REPLY_SECONDS = 300.0  # after which a reply is cut: one call never holds the model for longer
WAITING = 64  # calls of all callers that may wait for the model
PER_MINUTE = 60  # messages of one caller
CALLERS = 10_000  # whose messages are counted; of more, those who wrote last
SIDES = ("tuned", "base")
RANGES = {"temperature": (0.0, 2.0), "top_p": (0.05, 1.0), "max_new_tokens": (1, 1024), "seed": (-(2**53), 2**53)}


class Unacceptable(ValueError):
    """Something asked of the chat page that no model is started for; the message says what is expected."""


def check_decoding(**settings: Any) -> dict[str, Any]:
    """Returns the settings of `stream_reply` that a caller gave; a number field gives floats. Raises Unacceptable."""
    for name, value in settings.items():
        low, high = RANGES[name]
        if not isinstance(value, int | float) or not low <= value <= high:
            raise Unacceptable(f"{name} is {str(value)[:40]}: expected {low} to {high}.")
    return settings | {name: int(settings[name]) for name in ("max_new_tokens", "seed")}


def check_message(message: Any, side: Any = SIDES[0]) -> str:
    """Returns a message without spaces at its ends. Raises Unacceptable for none, and for one that no prompt holds."""
    if side not in SIDES:
        raise Unacceptable(f"side is {str(side)[:40]!r}: expected one of {', '.join(SIDES)}.")
    if not isinstance(message, str) or not message.strip():
        raise Unacceptable("the message is empty: expected a text.")
    if len(message) > MESSAGE_CHARACTERS:
        raise Unacceptable(f"the message has {len(message)} characters, at most {MESSAGE_CHARACTERS} fit.")
    return message.strip()


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
                raise Unacceptable(f"{self.most} messages within a minute: wait a little.")
            times.append(now)
