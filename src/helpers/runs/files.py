"""Files and folders that are complete or not there, and read with a clear error."""

import contextlib
import datetime
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml


def utc_now() -> str:
    """Returns the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def expand_home(path: str) -> str:
    """Returns a path as it was typed with the home folder in place of a ~ at its start."""
    return os.path.expanduser(path)  # not Path's, which fails for the home folder of nobody


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a temporary file beside `path`, then renames it: after a kill, the old or the new content is there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with Bengali unescaped. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


MEND_JSON = "Run the command that made it again: what can be made from it is made anew, and every checkpoint is kept."


def read_json(path: Path, mend: str = MEND_JSON) -> Any:
    """Reads one JSON file. Raises ValueError with its name, and what mends it, where it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, nested without end
        raise ValueError(f"{path} is not valid JSON ({error}). {mend}") from error


def load_yaml(path: Path) -> Any:
    """Reads one of the suite's own YAML files; with libyaml, where it is there, in a tenth of the time."""
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def take_separator_line(text: str) -> tuple[str, str]:
    """Returns a CSV file's text with the line sep=; that some spreadsheets write first made empty, and the sign that it
    names, "" without one."""
    line = re.match(r'"?sep=([^\r\n"])"?[,;\t ]*(?=\r|\n)', text)
    return (text[line.end() :], line[1]) if line else (text, "")


def write_csv(path: Path, table: Any) -> None:
    """Writes a pandas.DataFrame; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    inert = table.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell)
    write_text(path, inert.to_csv(index=False))


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Writes one JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict]:
    """Reads one JSON object per line. Raises ValueError with the file and the line where one is damaged."""
    rows = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), 1):
        if line.strip():
            row = _parse_line(line)
            if row is None:
                raise ValueError(f"{path}, line {number}, is not a JSON object: {line[:60]!r}. The file is damaged.")
            rows.append(row)
    return rows


def _parse_line(line: bytes) -> dict | None:
    """Returns the JSON object of a line, None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def file_sha256(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal, "" where there is no such file."""
    if not Path(path).is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1(content: bytes) -> str:
    """Returns git's SHA-1 of a file's content, by which data hubs name it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def read_journal(path: Path, repair: bool = True) -> list[dict]:
    """Reads the complete lines of a JSONL file whose writer may have been killed, or (not `repair`) writes to it now.

    A half last line is left out; with `repair` it is cut off. A damaged line is left out, so that it is computed again.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if repair and len(complete) < len(content):
        with open(path, "r+b") as file:
            file.truncate(len(complete))
    return [row for line in complete.split(b"\n") if line.strip() and (row := _parse_line(line)) is not None]


def append_journal(path: Path, entry: dict) -> None:
    """Adds one line to a JSONL file, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`, and puts it in its place when the block ends without an error.

    What stood there stays until the new one is complete; what a kill left of an earlier call is removed, or put back.
    """
    part, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def folder_bytes(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
