"""The corpus: read from where it is, cleaned by named rules, grouped, and split so that no group is on two sides."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import pandas

from helpers import env, text

COLUMNS = ["Topics", "Question-Title", "Questions", "Answers"]
EMBEDDED = Path(__file__).with_name("embedded_corpus.csv")
KAGGLE_INPUT = Path("/kaggle/input")
TABLES = {".csv", ".jsonl", ".parquet"}
MIN_CHARACTERS = 6  # a side with fewer says nothing
LONGEST_DIALOGUE = 12  # rows; a longer run of one topic is a sorted table, not a conversation


# Reading


def load(dataset: str) -> tuple[pandas.DataFrame, str]:
    """Reads a data set and returns its table (strings, the four columns) and a line that says what was read.

    `dataset` is "embedded", a file (.csv, .jsonl, .parquet), "kaggle:owner/name" (the mounted input, else kagglehub)
    or "hf:owner/name" (datasets.load_dataset). Raises FileNotFoundError or ConnectionError when it cannot be had and
    ValueError when it is not UTF-8, empty, or lacks a column.
    """
    if dataset == "embedded":
        return read_table(EMBEDDED), "the embedded corpus (CC0, written for this suite)"
    kind, _, name = dataset.partition(":")
    if kind == "kaggle" and name:
        path = kaggle_table(name)
        return read_table(path), f"Kaggle data set {name}, {path.name!r}"
    if kind == "hf" and name:
        return check_columns(hub_table(name), dataset), f"Hugging Face data set {name}"
    path = Path(dataset).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"dataset is {dataset!r}: no such file in {Path.cwd()}. Expected 'embedded', the path of a .csv, .jsonl or "
            f".parquet file, 'kaggle:owner/name' or 'hf:owner/name'."
        )
    return read_table(path), f"the file {path.name!r}"


def read_table(path: Path) -> pandas.DataFrame:
    """Reads a CSV, JSONL or Parquet file with the four columns into a table of strings; see `load` for the errors."""
    path = Path(path)
    if path.suffix.lower() not in TABLES:
        raise ValueError(f"{path.name!r} ends in {path.suffix!r}: expected one of {', '.join(sorted(TABLES))}.")
    if not path.stat().st_size:
        raise ValueError(f"{path.name!r} is empty (0 bytes): expected a table with the columns {COLUMNS}.")
    if path.suffix.lower() == ".parquet":
        return check_columns(pandas.read_parquet(path), path.name)
    try:
        content = path.read_bytes().decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name!r} is not UTF-8 (byte {error.start}). Convert it first, for example: "
            f"iconv -f WINDOWS-1252 -t UTF-8 OLD.csv > NEW.csv"
        ) from error
    try:
        if path.suffix.lower() == ".jsonl":
            table = pandas.read_json(io.StringIO(content), lines=True, dtype=False)
        else:
            table = pandas.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"{path.name!r} cannot be read as {path.suffix} ({env.brief(error)}).") from error
    return check_columns(table, path.name)


def check_columns(table: pandas.DataFrame, name: str) -> pandas.DataFrame:
    """Returns the four columns as strings; ValueError for a missing column (with those found) or no row."""
    table = table.rename(columns=lambda column: str(column).strip())
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(
            f"{name!r} has no column {', '.join(map(repr, missing))}. Found: {list(table.columns)}. Expected, by exact "
            f"name: {COLUMNS}."
        )
    if table.empty:
        raise ValueError(f"{name!r} has the right columns and no row.")
    return table[COLUMNS].fillna("").astype(str).reset_index(drop=True)


def kaggle_table(name: str) -> Path:
    """Finds the one table of the Kaggle data set owner/name: mounted in either of Kaggle's layouts, else downloaded."""
    slug = name.split("/")[-1]
    folders = [folder for pattern in (slug, f"*/{slug}", f"*/*/{slug}") for folder in KAGGLE_INPUT.glob(pattern)]
    if not folders:
        import kagglehub

        try:
            folders = [Path(kagglehub.dataset_download(name))]
        except Exception as error:  # kagglehub raises requests', its own and OS errors
            raise ConnectionError(
                f"Kaggle data set {name!r} is not attached and could not be downloaded "
                f"({env.brief(error)}). "
                f"On Kaggle use Add Input; elsewhere switch the internet on, or download the file and pass its path as "
                f"prepare_data.dataset."
            ) from error
    tables = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in TABLES)
    if len(tables) != 1:
        raise FileNotFoundError(
            f"Kaggle data set {name!r} holds {len(tables)} tables {[path.name for path in tables]}: expected one. "
            f"Pass the path of the one you want as prepare_data.dataset."
        )
    return tables[0]


def hub_table(name: str) -> pandas.DataFrame:
    """Loads the train split of a Hugging Face data set; ConnectionError with the way out when it cannot be reached."""
    from datasets import load_dataset

    try:
        return load_dataset(name, split="train").to_pandas()
    except Exception as error:  # datasets raises its own, the hub's and httpx's errors
        raise ConnectionError(
            f"Hugging Face data set {name!r} could not be loaded ({env.brief(error)}). "
            f"Check the name and that the internet is on (and HF_HUB_OFFLINE unset), or download the file and pass its "
            f"path as prepare_data.dataset."
        ) from error


# Cleaning

RULES = {  # in this order; the first that holds drops the row
    "missing side": lambda row: not row.Questions or not row.Answers,
    "too short": lambda row: min(len(row.Questions), len(row.Answers)) < MIN_CHARACTERS,
    "question is the answer": lambda row: text.words(row.Questions) == text.words(row.Answers),
    "exact duplicate": None,  # needs the whole table
}


def clean(table: pandas.DataFrame) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Normalises the four columns and applies the rules.

    Returns (kept, dropped): both with the four columns and `id` (of the content, so that row order does not change it)
    in the order of the table; `dropped` also has `rule`. Raises ValueError when no row is left.
    """
    table = table.map(text.normalise)
    table["id"] = [
        hashlib.blake2b(f"{row.Questions}\0{row.Answers}".encode(), digest_size=6).hexdigest()
        for row in table.itertuples()
    ]
    seen, rules = set(), []
    for row in table.itertuples():
        rule = next((name for name, drops in RULES.items() if drops and drops(row)), None)
        if rule is None and row.id in seen:
            rule = "exact duplicate"
        seen.add(row.id)
        rules.append(rule)
    table["rule"] = rules
    kept = table[table.rule.isna()].drop(columns="rule").reset_index(drop=True)
    dropped = table[table.rule.notna()].reset_index(drop=True)
    if kept.empty:
        raise ValueError(f"all {len(table)} rows were dropped: {dict(Counter(rules))}. Nothing is left to train on.")
    return kept, dropped


# Groups and the split


def groups(table: pandas.DataFrame) -> list[str]:
    """Returns each row's group: rows with the same question (by its words), and runs of one dialogue, joined.

    A dialogue is a run of at most LONGEST_DIALOGUE adjacent rows with one topic and no title. A group is named after
    its smallest row id.
    """
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(table.id)
    first_with = {}
    run = []
    for row in [*table.itertuples(), None]:
        if row is not None:
            graph.add_edge(first_with.setdefault(tuple(text.words(row.Questions)), row.id), row.id)
        in_run = run and row is not None and row.Topics == run[-1].Topics and not row._2 and not run[-1]._2
        if not in_run:
            if len(run) <= LONGEST_DIALOGUE:
                networkx.add_path(graph, [turn.id for turn in run])
            run = []
        run.append(row)
    group_of = {}
    for members in networkx.connected_components(graph):
        group_of.update(dict.fromkeys(members, min(members)))
    return [group_of[row_id] for row_id in table.id]


def split(group_of_row: list[str], train_share: float, val_share: float, seed: int) -> list[str]:
    """Returns "train", "val" or "test" for each row: whole groups in seeded order, each to the part that lacks most.

    Raises ValueError for shares that leave a part without rows.
    """
    shares = {"train": train_share, "val": val_share, "test": 1 - train_share - val_share}
    if min(shares.values()) <= 1e-9:
        raise ValueError(
            f"train_share {train_share} and val_share {val_share} leave no test part: they must add to < 1."
        )
    sizes = Counter(group_of_row)
    if len(sizes) < 3:
        raise ValueError(f"{len(group_of_row)} rows form {len(sizes)} groups: train, val and test need at least 3.")
    order = sorted(sizes, key=lambda group: text.shuffle_key(seed, group))
    parts = dict(zip(order, shares))  # one group each, so that no part is empty
    filled = Counter({part: sizes[group] for group, part in parts.items()})
    for group in order[len(shares) :]:
        part = max(shares, key=lambda name: shares[name] * len(group_of_row) - filled[name])
        parts[group] = part
        filled[part] += sizes[group]
    return [parts[group] for group in group_of_row]


def overlap(parts: dict[str, list[dict]]) -> int:
    """Counts the val and test rows whose question stands, word for word, in another part; independent of the groups."""
    questions = {
        part: {tuple(text.words(message["content"])) for row in rows for message in row["messages"][:-1] if
               message["role"] == "user"}
        for part, rows in parts.items()
    }  # fmt: skip
    others = {part: set().union(*(q for name, q in questions.items() if name != part)) for part in questions}
    return sum(
        any(
            tuple(text.words(message["content"])) in others[part]
            for message in row["messages"][:-1]
            if message["role"] == "user"
        )
        for part in ("val", "test")
        for row in parts[part]
    )


def sample(table: pandas.DataFrame, max_rows: int, seed: int) -> pandas.DataFrame:
    """Returns `max_rows` rows (0 = all) picked by seed and content, in the table's order; never its head."""
    if not max_rows or max_rows >= len(table):
        return table
    order = table.id.map(lambda row_id: text.shuffle_key(seed, row_id))
    return table.loc[order.sort_values().index[:max_rows].sort_values()].reset_index(drop=True)


def data_rows(table: pandas.DataFrame, system_prompt: str, source: str) -> list[dict]:
    """Turns the table (with `id` and `group`) into data rows, sorted by id.

    A row: {"id", "group", "source", "topic", "messages": [{"role", "content"}, …]}, the system prompt first if any.
    """
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    rows = [
        {
            "id": row.id,
            "group": row.group,
            "source": source,
            "topic": row.Topics,
            "messages": [
                *system,
                {"role": "user", "content": row.Questions},
                {"role": "assistant", "content": row.Answers},
            ],
        }
        for row in table.itertuples()
    ]
    return sorted(rows, key=lambda row: row["id"])
