"""What people give on the chat page: thumbs and better replies, kept for a time, taken back by whoever gave them."""

import datetime
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.runs.experiments import FEEDBACK_FILES, open_database, write_feedback_files
from helpers.runs.files import utc_now

KEEP_DAYS = 180  # that a thumb is kept for, unless `chat --keep-days` says otherwise
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # of a code that people copy by hand: no i, l, o, 0 and 1
COLUMNS = ("run", "side", "conversation", "liked", "settings", "timestamp", "rewritten", "person")
KEY = "run = :run AND side = :side AND conversation = :conversation AND person = :person"
INSERT = f"INSERT INTO Feedback ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"


@dataclass(frozen=True)
class Thumb:
    """What a person says of the last reply of a conversation."""

    run: str
    side: str  # "base" or "tuned"
    conversation: list[dict]  # messages
    liked: bool
    settings: dict[str, Any]  # of the decoding
    rewritten: str = ""  # what the person would rather have read


@dataclass
class FeedbackStore:
    """The table Feedback of a database, made with the first thumb.

    `push`, where there is a copy elsewhere, returns once the copy has what stands here and nothing else.
    """

    database: Path
    keep_days: int = KEEP_DAYS
    push: Callable[[], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, thumb: Thumb, person: str) -> None:
        """Keeps a thumb; a later one of the same person on the same reply replaces it."""
        row = _key(thumb, person) | {"liked": int(thumb.liked), "settings": json.dumps(thumb.settings)}
        row |= {"timestamp": utc_now(), "rewritten": thumb.rewritten}
        with self.lock, open_database(self.database) as connection:
            connection.execute(f"DELETE FROM Feedback WHERE {KEY}", row)
            connection.execute(INSERT, row)

    def withdraw(self, thumb: Thumb, person: str) -> None:
        """Deletes a person's thumb on a reply."""
        self._delete(KEY, _key(thumb, person))

    def rows(self, person: str | None = None) -> list[dict]:
        """Returns what is kept, or what one person gave, by column, the conversation as messages."""
        if not self.database.is_file():
            return []
        with open_database(self.database) as connection:
            kept = connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM Feedback WHERE :person IS NULL OR person = :person ORDER BY id",
                {"person": person},
            ).fetchall()
        rows = [dict(zip(COLUMNS, row)) for row in kept]
        parsed = ("conversation", "settings")
        return [row | {name: json.loads(row[name]) for name in parsed} | {"liked": bool(row["liked"])} for row in rows]

    def restore(self, rows: list[dict]) -> None:
        """Replaces what is kept by rows that `rows` returned, here or elsewhere."""
        parsed = ("conversation", "settings")
        texts = [row | {name: json.dumps(row[name], ensure_ascii=False) for name in parsed} for row in rows]
        with self.lock, open_database(self.database) as connection:
            connection.execute("DELETE FROM Feedback")
            connection.executemany(INSERT, texts)

    def delete_person(self, person: str) -> int:
        """Deletes all that one person gave, in the files of an export beside the database and in a copy elsewhere too;
        returns how much. Raises what `push` does: then it is deleted here alone."""
        if not person:
            raise ValueError("the code is empty: expected that of the person whose thumbs are to be deleted.")
        deleted = self._delete("person = :person", {"person": person})
        if self.push:
            self.push()
        return deleted

    def delete_expired(self) -> int:
        """Deletes what is older than `keep_days`, whoever gave it, and returns how much."""
        oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=self.keep_days)
        return self._delete("timestamp < :oldest", {"oldest": oldest.isoformat(timespec="seconds")})

    def delete_daily(self) -> None:
        """Deletes what has expired, now and, in the background, once a day."""
        if deleted := self.delete_expired():
            print(f"{deleted:,} thumbs were older than {self.keep_days:,} days: deleted")
        later = threading.Timer(24 * 3600, self.delete_daily)
        later.daemon = True
        later.start()

    def _delete(self, condition: str, values: dict[str, str]) -> int:
        if not self.database.is_file():
            return 0
        with self.lock, open_database(self.database) as connection:
            deleted = connection.execute(f"DELETE FROM Feedback WHERE {condition}", values).rowcount
        if deleted and any(self.database.with_name(name).exists() for name in FEEDBACK_FILES):
            write_feedback_files(self.database)
        return deleted


def _key(thumb: Thumb, person: str) -> dict[str, str]:
    conversation = json.dumps(thumb.conversation, ensure_ascii=False)
    return {"run": thumb.run, "side": thumb.side, "conversation": conversation, "person": person}


def new_person() -> str:
    """Returns a random id of a person, 79 bits, in four groups: k7qf-2m9x-…."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


def read_person(code: Any) -> str:
    """Returns an id as it was typed, in small letters, without spaces at its ends."""
    return str(code or "").strip().lower()
