"""The corpus, read from where it is, in one table whatever its format.

A file whose structure is broken is refused, with the line: no reader can know which column a cell then belongs to.
What one row lacks drops that row alone, by a rule of `helpers.data.clean`.
"""

import codecs
import csv
import glob
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas
import regex

from helpers.data.turns import DROPPED, ROLES, read_turns
from helpers.platforms.downloads import fetch_files
from helpers.platforms.errors import describe_error
from helpers.platforms.machine import attached_folders
from helpers.runs.files import git_blob_sha1, take_separator_line
from helpers.runs.stages import EMBEDDED_CORPUS

COLUMNS = ["Topics", "Question-Title", "Questions", "Answers"]
FORMATS = {"qa": COLUMNS, "messages": ["messages"], "conversations": ["conversations"], "text": ["text"]}
SUFFIXES = (".csv", ".jsonl", ".parquet")
BOMS = {  # longest first: UTF-32's begins as UTF-16's does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")  # what a table without BOM may be, the longest first
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # a hub's name of a split: of the part it becomes
PUBLISHED = {"65f6f61ed1e491c28e4d16e5a2e5724bb2237252": "BengaliEmpatheticConversationsCorpus as published"}
_CELL = r'(?:"(?<quoted>(?:[^"]|"")*+)(?<end>"?)(?<more>[^,\r\n]*)|[^,\r\n]*)(?:,|\r\n|\r|\n|\Z)'
OFFLINE_HINT = "switch the internet on, or download the file and pass its path as prepare_data.dataset."


class Source(NamedTuple):
    """What is known of a data set that was read."""

    dataset: str  # the setting that named it
    source: str  # where it was read from, in words
    format: str  # a key of FORMATS
    blob_sha1: str  # git's SHA-1 of the file, by which data hubs name it; "" for a data set that is no single file
    published: str  # which published file it is, "" for another one
    rows: int

    def as_json(self) -> dict[str, str]:
        """Returns what data/metrics.json says of it."""
        facts = self._replace(published=self.published or "no")._asdict()
        return {name: value for name, value in facts.items() if name != "rows"}


def load_table(dataset: str, dataset_format: str = "auto") -> tuple[pandas.DataFrame, Source]:
    """Reads a data set; returns its table with the columns of `unify_columns`, and what is known of its source.

    `dataset` is "embedded", a file (.csv, .jsonl, .parquet), "kaggle:owner/name" (the mounted input, else kagglehub)
    or "hf:owner/name" with an optional ":config" (datasets.load_dataset). The embedded corpus also comes as "text" and
    "conversations", in place of data sets of those formats.
    Raises FileNotFoundError or ConnectionError when the data set cannot be had and ValueError when it is not UTF-8,
    empty, broken at a line, or lacks a column.
    """
    parts: list[str] | str = ""
    kind, _, name = dataset.partition(":")
    if kind == "hf" and name:
        (raw, parts), origin, sha1 = load_hub_table(name), f"Hugging Face data set {name}", ""
    else:
        if dataset == "embedded":
            path, origin = EMBEDDED_CORPUS, "the embedded corpus (CC0, written for this suite)"
        elif kind == "kaggle" and name:
            path = locate_kaggle_table(name)
            origin = f"Kaggle data set {name}, {path.name!r}"
        else:
            path = Path(dataset)
            origin = f"the file {path.name!r}"
        raw, name, sha1 = read_table(path), path.name, git_blob_sha1(path.read_bytes())
    if dataset == "embedded":
        raw["text"] = raw.Questions + "\n" + raw.Answers
        pairs = zip(raw.Questions, raw.Answers)
        raw["conversations"] = [[{"from": "human", "value": q}, {"from": "gpt", "value": a}] for q, a in pairs]
    table, known = unify_columns(raw, dataset_format, name, parts)
    return table, Source(dataset, origin, known, sha1, PUBLISHED.get(sha1, ""), len(table))


def check_file(path: Path) -> None:
    """Raises FileNotFoundError for a file that is not there, ValueError for one that can hold no table."""
    if not path.is_file():
        forms = "'embedded', the path of a .csv, .jsonl or .parquet file, 'kaggle:owner/name' or 'hf:owner/name'"
        raise FileNotFoundError(f"dataset is {str(path)!r}: no such file in {Path.cwd()}. Expected {forms}.")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name!r} ends in {path.suffix!r}: expected one of {', '.join(SUFFIXES)}.")
    if not path.stat().st_size:
        raise ValueError(f"{path.name!r} is empty (0 bytes): expected a table with the columns {COLUMNS}.")


def read_table(path: Path) -> pandas.DataFrame:
    """Reads a CSV, JSONL or Parquet file as it is; raises as `load_table` does."""
    check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        try:
            return pandas.read_parquet(path)
        except (ValueError, OSError) as error:  # Arrow's errors are one or the other
            raise ValueError(f"{path.name!r} cannot be read as {path.suffix} ({describe_error(error)}).") from error
    return (_read_jsonl if suffix == ".jsonl" else _read_csv)(_decode(path), path.name)


def _decode(path: Path) -> str:
    """Returns a file's text without BOM and null characters; raises ValueError when it is not UTF-8."""
    content = path.read_bytes()
    encoding = next((name for bom, name in BOMS.items() if content.startswith(bom)), "") or _guess_wide(content[:4096])
    problem = f"is {encoding}, not UTF-8"
    try:
        if not encoding:
            return content.decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        encoding, problem = "WINDOWS-1252", f"is not UTF-8 (byte {error.start})"
    convert = f"iconv -f {encoding} -t UTF-8 OLD{path.suffix} > NEW{path.suffix}"
    raise ValueError(f"{path.name!r} {problem}. Convert it first, for example: {convert}")


def _guess_wide(sample: bytes) -> str:
    """Returns the encoding of WIDE in which a file's first bytes are letters and signs of common scripts, "" for none.

    In UTF-8, two of its bytes are in these encodings a character of another kind: an ideograph or none at all.
    """
    for encoding in WIDE:
        text = sample.decode(encoding, errors="replace")
        letters = sum(sign < "\u2070" and (sign.isprintable() or sign in "\t\r\n") for sign in text)
        if letters > 0.9 * len(text) and len(sample) >= 8:
            return encoding
    return ""


def _check_separator(text: str, name: str, separator: str) -> None:
    """Raises ValueError for a header that has its columns between other signs than `separator`."""
    line = (regex.search(r"\S[^\r\n]*", text) or [""])[0]
    columns = {
        sign: [cell.strip() for cell in next(csv.reader([line], delimiter=sign), [])]
        for sign in [*SEPARATORS, separator]
    }
    fits = {sign: any(set(needed) <= set(cells) for needed in FORMATS.values()) for sign, cells in columns.items()}
    for sign, signs in SEPARATORS.items() if not fits[separator] else []:
        if fits[sign] or (len(columns[separator]) == 1 and len(columns[sign]) > 1):
            skip = ", skiprows=1" * text.startswith(("\r", "\n"))  # where a spreadsheet's line sep=; was taken away
            read = f"pandas.read_csv('OLD.csv', sep={sign!r}{skip}, dtype=str, keep_default_na=False)"
            hint = f"python -c \"import pandas; {read}.to_csv('NEW.csv', index=False)\""
            problem = f"is separated by {signs} (sep={sign!r}), not by {SEPARATORS.get(separator, repr(separator))}"
            raise ValueError(f"{name!r} {problem}. Write it anew, for example: {hint}")


def _check_quotes(text: str, name: str, separator: str) -> None:
    """Raises ValueError for a quoted cell that no quote ends, or only one that begins a cell of a later line."""
    for cell in regex.finditer(_CELL.replace(",", regex.escape(separator)), text):
        ended = bool(cell["end"])
        if cell["quoted"] is None or (ended and not (cell["more"].strip() and regex.search(r"[\r\n]", cell["quoted"]))):
            continue
        first, last = (len(regex.findall(r"\r\n|\r|\n", text[:place])) + 1 for place in (cell.start(), cell.end("end")))
        problem = f"begins a quoted cell that {f'ends within a cell of line {last}' if ended else 'no quote ends'}"
        hint = "Put a quote at its end; inside a quoted cell, write a quote twice."
        raise ValueError(f"{name!r} cannot be read as .csv: line {first} {problem}. {hint}")


def _read_csv(text: str, name: str) -> pandas.DataFrame:
    """Returns the table of a CSV file, all texts; lines without a cell are left out. Its cells are between commas, or
    what a first line such as sep=; names.

    Raises ValueError for another separator, a quote that is never closed, and rows with more or fewer fields than the
    header. pandas takes a field too many for an index, which shifts every column, and fills up a row with too few.
    """
    text, separator = take_separator_line(text)
    separator = separator or ","
    _check_separator(text, name, separator)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 2))
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator):
            pass
    except csv.Error:  # a text after a closing quote, or none
        _check_quotes(text, name, separator)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows, lines, start = [], [], 1
    for row in reader:
        if any(cell.strip() for cell in row) or len(row) > 1:
            rows.append(row)
            lines.append(start)
        start = reader.line_num + 1
    header, *rows = rows or [[]]
    odd = [(line, len(row)) for line, row in zip(lines[1:], rows) if len(row) != len(header)]
    if odd:
        (line, fields), *others = odd
        more = f" ({len(others)} more such rows, the next at line {others[0][0]})" if others else ""
        problem = f"line {line} has {fields} field{'s' * (fields != 1)}, the header has {len(header)}{more}"
        signs = SEPARATORS.get(separator, separator)
        hint = f"Its cells would stand in other columns. Put a cell that holds {signs} into quotes, or remove the line."
        raise ValueError(f"{name!r}, {problem}. {hint}")
    return pandas.DataFrame(rows, columns=header, dtype=object)


def _read_jsonl(text: str, name: str) -> pandas.DataFrame:
    """Returns the table of a JSONL file, values as they are; raises ValueError for a line that is no JSON object."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
            problem = "" if isinstance(rows[-1], dict) else f"it is {type(rows[-1]).__name__}, {line.strip()[:60]!r}"
        except ValueError as error:
            problem = str(error)
        if problem:
            raise ValueError(f"{name!r} cannot be read as .jsonl: line {number} is no JSON object ({problem}).")
    return pandas.DataFrame(rows, dtype=object)


def detect_format(columns: pandas.Index, dataset_format: str, name: str) -> str:
    """Returns the first of FORMATS whose columns are all there, by exact name; only `dataset_format` unless "auto".

    Raises ValueError for an unknown format, columns of no format, and a column that stands twice.
    """
    if dataset_format not in ("auto", *FORMATS):
        raise ValueError(f"dataset_format is {dataset_format!r}: expected auto, {', '.join(FORMATS)}.")
    formats = FORMATS if dataset_format == "auto" else {dataset_format: FORMATS[dataset_format]}
    known = next((known for known, needed in formats.items() if set(needed) <= set(columns)), None)
    if known is None:
        forms = "; or ".join(f"{known}: {', '.join(needed)}" for known, needed in formats.items())
        raise ValueError(f"{name!r} has the columns {list(columns)}. Expected, by exact name, {forms}.")
    for column in FORMATS[known]:
        if list(columns).count(column) > 1 or f"{column}.1" in columns:
            raise ValueError(f"{name!r} has the column {column!r} twice: rename or remove one.")
    return known


def unify_columns(
    raw: pandas.DataFrame, dataset_format: str, name: str, parts: list[str] | str = ""
) -> tuple[pandas.DataFrame, str]:
    """Brings a raw table, called `name` in errors, to the columns that all formats share; returns it and its format.

    `number` (the row's place, from 1), `topic`, `title`, `question`, `answer`, `plain` (text without a question),
    `published` (`parts`: train, val or test where the data set brings its own split, else "") and, for conversations,
    `messages`, whose turns are joined as question and answer, and `defects`, the rules of `read_turns` that apply; for
    plain text the answer is the text.
    Raises ValueError as `detect_format` does, for a table without rows, and where no conversation is one.
    """
    raw = raw.rename(columns=lambda column: str(column).strip()).reset_index(drop=True)
    known = detect_format(raw.columns, dataset_format, name)
    if raw.empty:
        raise ValueError(f"{name!r} has the right columns and no row.")
    table = pandas.DataFrame({"number": raw.index + 1, "plain": known == "text", "published": parts})
    table[["topic", "title", "question"]] = ""
    if known in ("qa", "text"):
        names = ["topic", "title", "question", "answer"] if known == "qa" else ["answer"]
        table[names] = raw[FORMATS[known]].fillna("").astype(str)
        return table, known
    table["messages"], table["defects"] = zip(*map(read_turns, raw[known]))
    dropped = table.defects.map(lambda rules: not set(rules).isdisjoint(DROPPED))
    if dropped.all():
        forms = f"a list of {{role, content}} or {{from, value}} with the roles {', '.join(ROLES)}"
        problem = f"{table.defects[0][-1]}: expected {forms}; got {str(raw[known][0])[:80]!r}"
        raise ValueError(f"{name!r} has no conversation to train on. Row 1, {problem}.")
    for column, role in (("question", "user"), ("answer", "assistant")):
        table[column] = ["\n\n".join(m["content"] for m in turns if m["role"] == role) for turns in table.messages]
    written = ["\n".join(f"{turn['role']}: {turn['content']}" for turn in turns) for turns in table.messages]
    table["question"] = table.question.mask(dropped, pandas.Series(written))
    table["answer"] = table.answer.mask(dropped, "")
    return table, known


def locate_kaggle_table(name: str) -> Path:
    """Finds the one table of the Kaggle data set owner/name: mounted in any of Kaggle's layouts, else downloaded."""
    folders = attached_folders(name)
    if not folders:
        import kagglehub

        try:
            folders = [Path(kagglehub.dataset_download(name))]
        except Exception as error:  # kagglehub raises requests', its own and OS errors
            problem = f"is not attached and could not be downloaded ({describe_error(error)})"
            hint = f"On Kaggle use Add Input; elsewhere {OFFLINE_HINT}"
            raise ConnectionError(f"Kaggle data set {name!r} {problem}. {hint}") from error
    tables = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(tables) != 1:
        tables = f"{len(tables)} tables {[path.name for path in tables]}: expected one"
        hint = "Pass the path of the one you want as the dataset."
        raise FileNotFoundError(f"Kaggle data set {name!r} holds {tables}. {hint}")
    return tables[0]


def load_hub_table(name: str) -> tuple[pandas.DataFrame, list[str] | str]:
    """Loads a Hugging Face data set "owner/name" or "owner/name:config".

    With a validation and a test split it also returns of which part each row is; else "", and only train is read.
    Raises ConnectionError when it cannot be loaded.
    """
    from datasets import load_dataset, load_dataset_builder

    try:
        path, _, config = name.partition(":")
        builder: Any = load_dataset_builder(path, config or None)
        urls = [url for split in (builder.config.data_files or {}).values() for url in split]
        fetch_files(path, "dataset", [glob.escape(url.partition("@")[2].partition("/")[2]) for url in urls])
        splits: Any = load_dataset(path, config or None)
        if not set(SPLITS) <= set(splits):
            return splits["train"].to_pandas(), ""
        tables = {part: splits[split].to_pandas() for split, part in SPLITS.items()}
        return pandas.concat(tables.values()), [part for part, table in tables.items() for _ in range(len(table))]
    except Exception as error:  # datasets raises its own, the hub's and httpx's errors
        problem = f"could not be loaded ({describe_error(error)})"
        hint = f"Check the name and that HF_HUB_OFFLINE is unset, and {OFFLINE_HINT}"
        raise ConnectionError(f"Hugging Face data set {name!r} {problem}. {hint}") from error
