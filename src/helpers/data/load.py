"""The corpus, read from where it is, in one table whatever its format."""

import glob
import io
from pathlib import Path
from typing import Any, NamedTuple

import pandas

from helpers.platforms.downloads import fetch_files
from helpers.platforms.errors import describe_error
from helpers.platforms.machine import attached_folders
from helpers.runs.files import git_blob_sha1
from helpers.runs.stages import EMBEDDED_CORPUS

COLUMNS = ["Topics", "Question-Title", "Questions", "Answers"]
FORMATS = {"qa": COLUMNS, "messages": ["messages"], "conversations": ["conversations"], "text": ["text"]}
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
SUFFIXES = (".csv", ".jsonl", ".parquet")
PUBLISHED = {"65f6f61ed1e491c28e4d16e5a2e5724bb2237252": "BengaliEmpatheticConversationsCorpus as published"}
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
        facts = self._replace(published=self.published or "no, another one")._asdict()
        return {name: value for name, value in facts.items() if name != "rows"}


def load_table(dataset: str, dataset_format: str = "auto") -> tuple[pandas.DataFrame, Source]:
    """Reads a data set; returns its table with the columns of `unify_columns`, and what is known of its source.

    `dataset` is "embedded", a file (.csv, .jsonl, .parquet), "kaggle:owner/name" (the mounted input, else kagglehub)
    or "hf:owner/name" with an optional ":config" (datasets.load_dataset). The embedded corpus also comes as "text" and
    "conversations", in place of data sets of those formats.
    Raises FileNotFoundError or ConnectionError when the data set cannot be had and ValueError when it is not UTF-8,
    empty, or lacks a column.
    """
    kind, _, name = dataset.partition(":")
    if kind == "hf" and name:
        raw, origin, sha1 = load_hub_table(name), f"Hugging Face data set {name}", ""
    else:
        if dataset == "embedded":
            path, origin = EMBEDDED_CORPUS, "the embedded corpus (CC0, written for this suite)"
        elif kind == "kaggle" and name:
            path = locate_kaggle_table(name)
            origin = f"Kaggle data set {name}, {path.name!r}"
        else:
            path = Path(dataset).expanduser()
            origin = f"the file {path.name!r}"
        raw, name, sha1 = read_table(path), path.name, git_blob_sha1(path.read_bytes())
    if dataset == "embedded":
        raw["text"] = raw.Questions + "\n" + raw.Answers
        pairs = zip(raw.Questions, raw.Answers)
        raw["conversations"] = [[{"from": "human", "value": q}, {"from": "gpt", "value": a}] for q, a in pairs]
    table, known = unify_columns(raw, dataset_format, name)
    return table, Source(dataset, origin, known, sha1, PUBLISHED.get(sha1, ""), len(table))


def read_table(path: Path) -> pandas.DataFrame:
    """Reads a CSV, JSONL or Parquet file as it is; raises as `load_table` does."""
    suffix = path.suffix.lower()
    if not path.is_file():
        forms = "'embedded', the path of a .csv, .jsonl or .parquet file, 'kaggle:owner/name' or 'hf:owner/name'"
        raise FileNotFoundError(f"dataset is {str(path)!r}: no such file in {Path.cwd()}. Expected {forms}.")
    if suffix not in SUFFIXES:
        raise ValueError(f"{path.name!r} ends in {path.suffix!r}: expected one of {', '.join(SUFFIXES)}.")
    if not path.stat().st_size:
        raise ValueError(f"{path.name!r} is empty (0 bytes): expected a table with the columns {COLUMNS}.")
    try:
        if suffix == ".parquet":
            return pandas.read_parquet(path)
        content = io.StringIO(path.read_bytes().decode("utf-8-sig").replace("\0", ""))
        if suffix == ".jsonl":
            return pandas.read_json(content, lines=True, dtype=False)  # pyright: ignore[reportArgumentType] - as documented
        return pandas.read_csv(content, dtype=str, keep_default_na=False)
    except UnicodeDecodeError as error:
        convert = "Convert it first, for example: iconv -f WINDOWS-1252 -t UTF-8 OLD.csv > NEW.csv"
        raise ValueError(f"{path.name!r} is not UTF-8 (byte {error.start}). {convert}") from error
    except (ValueError, OSError) as error:  # the parsers' errors are ValueErrors, Arrow's also OSErrors
        raise ValueError(f"{path.name!r} cannot be read as {path.suffix} ({describe_error(error)}).") from error


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


def unify_columns(raw: pandas.DataFrame, dataset_format: str, name: str) -> tuple[pandas.DataFrame, str]:
    """Brings a raw table, called `name` in errors, to the columns that all formats share; returns it and its format.

    `number` (the row's place, from 1), `topic`, `title`, `question`, `answer`, `plain` (text without a question),
    `published` (train, val or test where the data set brings its own split, else "") and, for conversations,
    `messages`, whose turns are joined as question and answer; for plain text the answer is the text.
    Raises ValueError as `detect_format` does, for an unknown role, and for a table without rows.
    """
    raw = raw.rename(columns=lambda column: str(column).strip()).reset_index(drop=True)
    known = detect_format(raw.columns, dataset_format, name)
    if raw.empty:
        raise ValueError(f"{name!r} has the right columns and no row.")
    table = pandas.DataFrame({"number": raw.index + 1, "plain": known == "text", "published": raw.get("published", "")})
    table[["topic", "title", "question"]] = ""
    if known in ("qa", "text"):
        names = ["topic", "title", "question", "answer"] if known == "qa" else ["answer"]
        table[names] = raw[FORMATS[known]].fillna("").astype(str)
        return table, known
    table["messages"] = [_parse_messages(value, name, number) for number, value in zip(table.number, raw[known])]
    for column, role in (("question", "user"), ("answer", "assistant")):
        table[column] = ["\n\n".join(m["content"] for m in turns if m["role"] == role) for turns in table.messages]
    return table, known


def _parse_messages(value: Any, name: str, number: int) -> list[dict[str, str]]:
    """Returns one conversation as messages, from OpenAI's or ShareGPT's names."""
    try:
        turns = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in value]
        return [{"role": ROLES[role], "content": str(content or "")} for role, content in turns]
    except (TypeError, AttributeError, KeyError) as error:
        forms = f"a list of {{role, content}} or {{from, value}} with the roles {', '.join(ROLES)}"
        problem = f"expected {forms}; got {str(value)[:80]!r} ({describe_error(error)})"
        raise ValueError(f"{name!r}, row {number}: {problem}.") from error


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
        hint = "Pass the path of the one you want as prepare_data.dataset."
        raise FileNotFoundError(f"Kaggle data set {name!r} holds {tables}. {hint}")
    return tables[0]


def load_hub_table(name: str) -> pandas.DataFrame:
    """Loads a Hugging Face data set "owner/name" or "owner/name:config".

    With a validation and a test split, the column `published` says which a row is of; else only train is read.
    Raises ConnectionError when it cannot be loaded.
    """
    from datasets import load_dataset, load_dataset_builder

    try:
        path, _, config = name.partition(":")
        builder: Any = load_dataset_builder(path, config or None)
        urls = [url for split in (builder.config.data_files or {}).values() for url in split]
        fetch_files(path, "dataset", [glob.escape(url.partition("@")[2].partition("/")[2]) for url in urls])
        splits: Any = load_dataset(path, config or None)
        if not {"train", "validation", "test"} <= set(splits):
            return splits["train"].to_pandas()
        parts = {"train": "train", "validation": "val", "test": "test"}
        return pandas.concat([splits[split].to_pandas().assign(published=part) for split, part in parts.items()])
    except Exception as error:  # datasets raises its own, the hub's and httpx's errors
        problem = f"could not be loaded ({describe_error(error)})"
        hint = f"Check the name and that HF_HUB_OFFLINE is unset, and {OFFLINE_HINT}"
        raise ConnectionError(f"Hugging Face data set {name!r} {problem}. {hint}") from error
