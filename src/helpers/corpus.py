"""The corpus: read from where it is, cleaned by named rules, grouped, and split so that no group is on two sides."""

import bisect
import difflib
import hashlib
import html
import io
import itertools
import math
from collections import Counter, defaultdict
from pathlib import Path

import pandas
import regex

from helpers import env, text

COLUMNS = ["Topics", "Question-Title", "Questions", "Answers"]
FORMATS = {"qa": COLUMNS, "messages": ["messages"], "conversations": ["conversations"], "text": ["text"]}
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
EMBEDDED = Path(__file__).with_name("embedded_corpus.csv")
KAGGLE_INPUT = env.KAGGLE / "input"
TABLES = {".csv", ".jsonl", ".parquet"}
PUBLISHED = {"65f6f61ed1e491c28e4d16e5a2e5724bb2237252": "BengaliEmpatheticConversationsCorpus as published"}
MIN_CHARACTERS = 6  # a side with fewer says nothing
LONGEST_DIALOGUE = 12, 0.01  # rows, and share of all rows; a longer run of one topic is a sorted table
NEAR_WORDS = {"question": 5, "answer": 8}  # distinct words from which two texts can be near-duplicates
PERMUTATIONS = 64
SHARED = 2  # rare words that two near-duplicates are known to share: see `crossing`


# Reading


def load(dataset: str, dataset_format: str = "auto") -> tuple[pandas.DataFrame, dict]:
    """Reads a data set and returns its table and what is known of it.

    `dataset` is "embedded", a file (.csv, .jsonl, .parquet), "kaggle:owner/name" (the mounted input, else kagglehub)
    or "hf:owner/name" with an optional ":config" (datasets.load_dataset). The table has one row a data row: `topic`,
    `title`, `question`, `answer`, `plain` (text without a question), `published` (train, val or test where the hub's
    data set brings its own split, else "") and, for conversations, `messages`. The second value has `source`, `format`,
    `rows`, `blob_sha1` (git's, of a file) and `published` (which known file it is, "" for another).

    Raises FileNotFoundError or ConnectionError when the data set cannot be had and ValueError when it is not UTF-8,
    empty, or lacks a column.
    """
    kind, _, name = dataset.partition(":")
    if dataset == "embedded":
        path, source = EMBEDDED, "the embedded corpus (CC0, written for this suite)"
    elif kind == "kaggle" and name:
        path = kaggle_table(name)
        source = f"Kaggle data set {name}, {path.name!r}"
    elif kind == "hf" and name:
        path, source = None, f"Hugging Face data set {name}"
    else:
        path = Path(dataset).expanduser()
        source = f"the file {path.name!r}"
        if not path.is_file():
            raise FileNotFoundError(
                f"dataset is {dataset!r}: no such file in {Path.cwd()}. Expected 'embedded', the path of a .csv, "
                f".jsonl or .parquet file, 'kaggle:owner/name' or 'hf:owner/name'."
            )
    raw = read_table(path) if path else hub_table(name)
    if dataset == "embedded":  # in the format of the data set it stands in for
        pairs = list(zip(raw[COLUMNS[2]], raw[COLUMNS[3]]))
        if dataset_format == "text":
            raw["text"] = [f"{question}\n{answer}" for question, answer in pairs]
        if dataset_format == "conversations":
            raw["conversations"] = [[{"from": "human", "value": q}, {"from": "gpt", "value": a}] for q, a in pairs]
    table, found = as_rows(raw, dataset_format, path.name if path else name)
    sha1 = blob_sha1(path) if path else ""
    about = {"source": source, "format": found, "rows": len(table), "blob_sha1": sha1}
    return table, {**about, "published": PUBLISHED.get(sha1, "")}


def blob_sha1(path: Path) -> str:
    """Returns git's SHA-1 of a file's content, by which data hubs name it."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def read_table(path: Path) -> pandas.DataFrame:
    """Reads a CSV, JSONL or Parquet file as it is; see `load` for the errors."""
    if path.suffix.lower() not in TABLES:
        raise ValueError(f"{path.name!r} ends in {path.suffix!r}: expected one of {', '.join(sorted(TABLES))}.")
    if not path.stat().st_size:
        raise ValueError(f"{path.name!r} is empty (0 bytes): expected a table with the columns {COLUMNS}.")
    try:
        if path.suffix.lower() == ".parquet":
            return pandas.read_parquet(path)
        content = path.read_bytes().decode("utf-8-sig").replace("\0", "")
        if path.suffix.lower() == ".jsonl":
            return pandas.read_json(io.StringIO(content), lines=True, dtype=False)
        return pandas.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name!r} is not UTF-8 (byte {error.start}). Convert it first, for example: "
            f"iconv -f WINDOWS-1252 -t UTF-8 OLD.csv > NEW.csv"
        ) from error
    except (ValueError, OSError) as error:  # the parsers' errors are ValueErrors, Arrow's also OSErrors
        raise ValueError(f"{path.name!r} cannot be read as {path.suffix} ({env.brief(error)}).") from error


def as_rows(raw: pandas.DataFrame, dataset_format: str, name: str) -> tuple[pandas.DataFrame, str]:
    """Brings a raw table to `topic, title, question, answer, messages`; returns it and its format.

    The format is told by exact column names (spaces around them aside). For `messages` and `conversations` question
    and answer are the joined turns of each side; for `text` the answer is the text. ValueError for columns of no
    format, a column that stands twice, an unknown role, or no row.
    """
    raw = raw.rename(columns=lambda column: str(column).strip())
    fitting = [known for known, columns in FORMATS.items() if all(column in raw.columns for column in columns)]
    if dataset_format != "auto":
        if dataset_format not in FORMATS:
            raise ValueError(f"dataset_format is {dataset_format!r}: expected auto, {', '.join(FORMATS)}.")
        fitting = [dataset_format] if dataset_format in fitting else []
    if not fitting:
        wanted = FORMATS if dataset_format == "auto" else {dataset_format: FORMATS[dataset_format]}
        forms = "; or ".join(f"{known}: {', '.join(columns)}" for known, columns in wanted.items())
        raise ValueError(f"{name!r} has the columns {list(raw.columns)}. Expected, by exact name, {forms}.")
    found = fitting[0]
    twice = [c for c in FORMATS[found] if (raw.columns == c).sum() > 1 or f"{c}.1" in raw.columns]
    if twice:
        raise ValueError(f"{name!r} has the column {twice[0]!r} twice: rename or remove one.")
    if raw.empty:
        raise ValueError(f"{name!r} has the right columns and no row.")
    rows = pandas.DataFrame({"plain": found == "text"}, index=range(len(raw)))
    rows["published"] = raw["published"].to_numpy() if "published" in raw else ""
    if found == "qa":
        for column, source in zip(("topic", "title", "question", "answer"), COLUMNS):
            rows[column] = raw[source].fillna("").astype(str).to_numpy()
        return rows, found
    rows["topic"], rows["title"] = "", ""
    if found == "text":
        rows["question"], rows["answer"] = "", raw["text"].fillna("").astype(str).to_numpy()
        return rows, found
    rows["messages"] = [_messages(value, name, number) for number, value in enumerate(raw[found], start=1)]
    for column, role in (("question", "user"), ("answer", "assistant")):
        rows[column] = ["\n\n".join(m["content"] for m in value if m["role"] == role) for value in rows["messages"]]
    return rows, found


def _messages(value, name: str, number: int) -> list[dict]:
    """Returns one conversation as messages, from OpenAI's or ShareGPT's names."""
    try:
        turns = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in value]
        return [{"role": ROLES[role], "content": str(content or "")} for role, content in turns]
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{name!r}, row {number}: expected a list of {{role, content}} or {{from, value}} with the roles "
            f"{', '.join(ROLES)}; got {str(value)[:80]!r} ({env.brief(error)})."
        ) from error


def kaggle_table(name: str) -> Path:
    """Finds the one table of the Kaggle data set owner/name: mounted in any of Kaggle's layouts, else downloaded."""
    slug = name.split("/")[-1]
    folders = [folder for pattern in (slug, f"*/{slug}", f"*/*/{slug}") for folder in KAGGLE_INPUT.glob(pattern)]
    if not folders:
        import kagglehub

        try:
            folders = [Path(kagglehub.dataset_download(name))]
        except Exception as error:  # kagglehub raises requests', its own and OS errors
            raise ConnectionError(
                f"Kaggle data set {name!r} is not attached and could not be downloaded ({env.brief(error)}). "
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
    """Loads a Hugging Face data set "owner/name" or "owner/name:config"; see `load`.

    With a validation and a test split, the column `published` says which a row is of; else only train is read.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(*name.split(":", 1))
        if not {"train", "validation", "test"} <= set(splits):
            return splits["train"].to_pandas()
        parts = {"train": "train", "validation": "val", "test": "test"}
        return pandas.concat([splits[own].to_pandas().assign(published=part) for own, part in parts.items()])
    except Exception as error:  # datasets raises its own, the hub's and httpx's errors
        raise ConnectionError(
            f"Hugging Face data set {name!r} could not be loaded ({env.brief(error)}). "
            f"Check the name and that the internet is on (and HF_HUB_OFFLINE unset), or download the file and pass its "
            f"path as prepare_data.dataset."
        ) from error


# Cleaning

_ENTITY = regex.compile(r"&\s?(#?\w{2,8})\s?;")
_MOJIBAKE = regex.compile(
    r"[\u0080-\u009f\u00a6-\u00ff\u0152-\u0178\u2020-\u203a\u20ac]"
)  # what UTF-8 read as Latin leaves
_LEFTOVER = regex.compile(r"[ÂÃ]+(?=\s|$)|(?<=\s)[ÂÃ]+")
_TAG = regex.compile(r"</?\s?(?:br|p|div|span|b|i|u|em|strong|a|font)\b[^<>]*>", regex.IGNORECASE)
_URL = regex.compile(r"https?\s?:\s?//|\bwww\s?\.|\b[\w-]+\.(?:com|org|net|edu|gov|info)\b", regex.IGNORECASE)
_SIGNATURE = regex.compile(
    r"\b(?:LMFT|LCSW|LMHC|LPCC?|LMSW|MFT|Psy\.?\s?D|Ph\.?\s?D|M\.?S\.?W|এলএমএফটি|এলসিএসডব্লিউ|এলপিসি|এলএমএইচসি|পিএইচ\.?\s?ডি)\b"
    r"|(?:^|[।.!?\n])\s*(?:শুভেচ্ছান্তে|ধন্যবাদান্তে|বিনীত|ইতি)\s*[,\n]\s*[^।!?]{2,60}[।.]?\s*$",
    regex.IGNORECASE,
)


def _entities(value: str) -> str:
    return html.unescape(_ENTITY.sub(r"&\1;", value)) if "&" in value else value


def _mojibake(value: str) -> str:
    if not _MOJIBAKE.search(value):
        return value
    import ftfy

    return _LEFTOVER.sub("", ftfy.fix_encoding(value))


def _markup(value: str) -> str:
    return _TAG.sub(" ", value).replace("<", " ").replace(">", " ") if "<" in value or ">" in value else value


REPAIRS = {"entities": _entities, "mojibake": _mojibake, "markup": _markup}  # these change a row
DROPS = {  # in this order; the first that holds drops the row
    "missing side": lambda row: not row.answer or (not row.question and not row.plain),
    "too short": lambda row: min(len(side) for side in (row.question, row.answer) if side) < MIN_CHARACTERS,
    "question is the answer": lambda row: not row.plain and text.words(row.question) == text.words(row.answer),
    "roles swapped": None,  # after a row whose question is its answer, the rest of the dialogue has the roles swapped
    "url": lambda row: bool(_URL.search(row.answer) or _URL.search(row.question)),
    "signature": lambda row: bool(_SIGNATURE.search(row.answer)),
    "foreign crisis number": lambda row: bool(text.foreign_crisis_number(row.answer)),
    "not Bengali": None,  # needs the threshold
    "exact duplicate": None,  # needs the rows before
}
RULES = [*REPAIRS, *DROPS]


def clean(table: pandas.DataFrame, skip_rules: list[str] = (), min_bengali_share: float = 0.6):
    """Normalises every text once, repairs it, and drops rows by the RULES but those in `skip_rules`.

    Returns (kept, dropped, funnel). `kept` and `dropped` have the table's columns and `id` (of the content, so that
    row order does not change it), in the table's order; `dropped` also has `rule`. `funnel` lists, rule by rule,
    `rule`, `rows_in`, `changed`, `dropped`, `rows_out`, `share` (of rows_in, changed or dropped) and `examples` (at
    most three).
    Raises ValueError for an unknown rule and when no row is left.
    """
    for rule in skip_rules:
        if rule not in RULES:
            raise ValueError(f"skip_rules names {rule!r}: expected one of {', '.join(RULES)}.")
    rules = [rule for rule in RULES if rule not in skip_rules]
    table = table.copy()
    funnel = []
    texts = table[["topic", "title", "question", "answer"]].map(text.normalise)
    for rule, repair in REPAIRS.items():
        if rule in rules:
            after = texts.map(lambda value, repair=repair: _repaired(value, [repair]))
            changed = (after[["question", "answer"]] != texts[["question", "answer"]]).any(axis=1)
            examples = [_near_change(*pair) for pair in zip(texts[changed].answer[:3], after[changed].answer[:3])]
            funnel.append(step(rule, len(table), changed=int(changed.sum()), examples=examples))
            texts = after
    table[texts.columns] = texts
    table["topic"] = canonical_topics(table.topic)
    if "messages" in table:
        fixes = [repair for rule, repair in REPAIRS.items() if rule in rules]
        table["messages"] = [
            [{**message, "content": _repaired(text.normalise(message["content"]), fixes)} for message in value]
            for value in table["messages"]
        ]
    keys = [f"{row.question}\0{row.answer}" for row in table.itertuples()]
    table["id"] = [hashlib.blake2b(key.encode(), digest_size=6).hexdigest() for key in keys]
    reasons = _reasons(table, rules, min_bengali_share)
    counts, left = Counter(reasons), len(table)
    for rule in DROPS:
        if rule in rules:
            examples = [row for row, reason in zip(table.itertuples(), reasons) if reason == rule][:3]
            said = [f"{row.question[:80]} → {row.answer[:80]}" for row in examples]
            funnel.append(step(rule, left, dropped=counts[rule], examples=said))
            left -= counts[rule]
    table["rule"] = reasons
    kept = table[table.rule.isna()].drop(columns="rule").reset_index(drop=True)
    dropped = table[table.rule.notna()].reset_index(drop=True)
    if kept.empty:
        counts.pop(None, None)
        raise ValueError(f"all {len(table)} rows were dropped: {dict(counts)}. Nothing is left to train on.")
    return kept, dropped, funnel


def _reasons(table: pandas.DataFrame, rules: list[str], min_bengali_share: float) -> list[str | None]:
    """Returns for each row the first rule that drops it, or None."""
    seen, reasons, swapped_topic = set(), [], None
    for row in table.itertuples():
        if row.topic != swapped_topic or row.title:
            swapped_topic = None
        reason = None
        for rule, drops in DROPS.items():
            if rule not in rules:
                continue
            if rule == "roles swapped":
                hit = swapped_topic is not None
            elif rule == "not Bengali":
                hit = min(text.bengali_share(side) for side in (row.question, row.answer) if side) < min_bengali_share
            elif rule == "exact duplicate":
                hit = row.id in seen
            else:
                hit = drops(row)
            if hit:
                reason = rule
                break
        if reason == "question is the answer" and row.topic and not row.title:
            swapped_topic = row.topic
        if reason is None:
            seen.add(row.id)
        reasons.append(reason)
    return reasons


def step(rule: str, rows_in: int, changed: int = 0, dropped: int = 0, examples: list[str] = ()) -> dict:
    """Returns one line of the funnel."""
    share = (changed + dropped) / rows_in if rows_in else 0.0
    counts = {"rows_in": rows_in, "changed": changed, "dropped": dropped, "rows_out": rows_in - dropped}
    return {"rule": rule, **counts, "share": share, "examples": list(examples)}


def _repaired(value: str, repairs: list) -> str:
    for repair in repairs:
        after = repair(value)
        value = value if after == value else text.normalise(after)
    return value


def _near_change(before: str, after: str) -> str:
    """Returns the first place where two texts differ, with a little around it."""
    place = next((n for n, pair in enumerate(zip(before, after)) if pair[0] != pair[1]), min(len(before), len(after)))
    start = max(0, place - 20)
    return f"…{before[start : place + 25]}… → …{after[start : place + 25]}…"


def canonical_topics(topics: pandas.Series) -> pandas.Series:
    """Returns the topics with rare spellings (under a tenth of the nearest one's rows) put to the one they vary."""
    counts = topics.value_counts()
    names = {}
    for topic, count in counts.items():
        common = [other for other in counts.index[:200] if counts[other] >= 10 * count and topic]
        close = difflib.get_close_matches(topic, common, n=1, cutoff=0.8) if len(counts) < 2000 else []
        names[topic] = close[0] if close else topic
    return topics.map(names)


def fates(table: pandas.DataFrame, kept: pandas.DataFrame, dropped: pandas.DataFrame, seed: int) -> list[dict]:
    """Returns three rows, raw, with what became of them: dropped ones and changed ones first, picked by seed.

    All three tables have `number`, the row's place in the file.
    """
    raw = table.set_index("number")
    after = kept.set_index("number")
    changed = [n for n in after.index if after.answer[n] != raw.answer[n] or after.question[n] != raw.question[n]]
    order = lambda numbers: sorted(numbers, key=lambda n: text.shuffle_key(seed, str(n)))  # noqa: E731
    chosen = [*order(dropped.number)[:1], *order(changed)[:1], *order(set(after.index) - set(changed))]
    rule = dict(zip(dropped.number, dropped.rule))
    return [
        {
            "row": n,
            "raw question": raw.question[n],
            "raw answer": raw.answer[n],
            "became": f"dropped: {rule[n]}" if n in rule else after.answer[n] if n in changed else "kept as it is",
        }
        for n in chosen[:3]
    ]


def title_agreement(table: pandas.DataFrame, seed: int) -> dict[str, float] | None:
    """Returns how often a title shares a word with its own question, and with another row's; None without titles.

    Where both are alike, titles (and topics) belong to other rows and must not be trained on.
    """
    titled = table[table.title != ""]
    if len(titled) < 20:
        return None
    questions = list(titled.question)
    other = titled.question.sample(frac=1, random_state=seed)
    share = {}
    for name, column in (("own", questions), ("another's", other)):
        pairs = [(set(text.words(a)), set(text.words(b))) for a, b in zip(titled.title, column)]
        share[name] = sum(bool(a & b) for a, b in pairs) / len(pairs)
    return share


# Groups and the split


def dialogue_runs(table: pandas.DataFrame, titled: bool = True) -> list[int]:
    """Returns a number for each row: adjacent rows of one topic and one title share it, as the turns of one dialogue.

    Without `titled`, only rows that have no title. A run longer than LONGEST_DIALOGUE is a sorted table: its rows stay
    single.
    """
    same = (table.topic == table.topic.shift()) & (table.topic != "") & (table.title == table.title.shift())
    runs = (~(same if titled else same & (table.title == ""))).cumsum()
    longest = max(LONGEST_DIALOGUE[0], LONGEST_DIALOGUE[1] * len(table))
    sizes = runs.map(runs.value_counts())
    return list(runs.where(sizes <= longest, -pandas.Series(range(1, len(table) + 1), index=table.index)))


def links(table: pandas.DataFrame, near_duplicate: float = 0.0) -> dict[str, list[tuple[str, str]]]:
    """Returns the pairs of row ids that must stay together, by reason.

    The same question (by its words), turns of one dialogue, near-duplicate questions and near-duplicate answers
    (Jaccard similarity of their words of at least `near_duplicate`, 0 = not looked for). ValueError for less than .5.
    """
    if near_duplicate and not 0.5 <= near_duplicate <= 1:
        raise ValueError(f"near_duplicate is {near_duplicate}: expected 0 (not looked for), or 0.5 to 1.")
    found = {}
    questions = [tuple(text.words(question)) or None for question in table.question]
    for reason, keys in (("same question", questions), ("one dialogue", dialogue_runs(table))):
        first = {}
        pairs = [(first.setdefault(key, row_id), row_id) for key, row_id in zip(keys, table.id) if key is not None]
        found[reason] = [pair for pair in pairs if pair[0] != pair[1]]
    for side, fewest in NEAR_WORDS.items() if near_duplicate else []:
        sets = [frozenset(text.words(value)) for value in table[side]]
        pairs = near_pairs(sets, near_duplicate, fewest)
        found[f"near-duplicate {side}"] = [(table.id[a], table.id[b]) for a, b in pairs]
    return found


def groups(table: pandas.DataFrame, pairs: list[tuple[str, str]]) -> list[str]:
    """Returns each row's group: the connected rows, named after their smallest id."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(table.id)
    graph.add_edges_from(pairs)
    group_of = {}
    for members in networkx.connected_components(graph):
        group_of.update(dict.fromkeys(members, min(members)))
    return [group_of[row_id] for row_id in table.id]


def near_pairs(sets: list[frozenset], threshold: float, fewest: int) -> list[tuple[int, int]]:
    """Returns pairs of places whose word sets have a Jaccard similarity of at least the threshold.

    Candidates come from MinHash LSH (datasketch; Broder 1997) at a lower threshold, so that few are missed; each is
    verified. Equal sets are paired with their first. Sets of fewer than `fewest` words are passed over.
    """
    from datasketch import MinHash, MinHashLSH

    first, pairs = {}, []
    for place, words in enumerate(sets):
        if len(words) >= fewest:
            if words in first:
                pairs.append((first[words], place))
            else:
                first[words] = place
    unique = list(first)
    hashes = MinHash.bulk([[word.encode() for word in words] for words in unique], num_perm=PERMUTATIONS)
    index = MinHashLSH(threshold=max(0.1, threshold - 0.2), num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    for number, words in enumerate(unique):
        for other in index.query(hashes[number]):
            if jaccard(words, unique[other]) >= threshold:
                pairs.append((first[unique[other]], first[words]))
        index.insert(number, hashes[number])
    return pairs


def jaccard(a: frozenset, b: frozenset) -> float:
    """Returns the share of words in both of the words in either."""
    return len(a & b) / len(a | b)


def split(group_of_row: list[str], train_share: float, val_share: float, seed: int) -> list[str]:
    """Returns "train", "val" or "test" for each row: whole groups in seeded order, each to the part that lacks most.

    Raises ValueError for shares that leave a part without rows.
    """
    shares = {"train": train_share, "val": val_share, "test": 1 - train_share - val_share}
    if min(shares.values()) <= 1e-9:
        raise ValueError(
            f"train_share {train_share} and val_share {val_share} leave no test part: their sum must be < 1."
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


PARTS = ("train", "val", "test")


def divide(table: pandas.DataFrame, pairs: list, shares: tuple[float, float], seed: int, near_duplicate: float):
    """Groups and splits until the independent check finds nothing across: returns (group, part) of each row.

    LSH misses a pair now and then; `crossing` does not, so a pair that it finds is joined and the split made again.
    `pairs` come from `links`, `shares` are train's and val's.
    """
    pairs = list(pairs)
    while True:
        group = groups(table, pairs)
        part = split(group, *shares, seed)
        found = crossing(table, part, near_duplicate)
        if not found:
            return group, part
        pairs += found


def as_published(table: pandas.DataFrame) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Splits as the data set was published: returns the table with `part`, and the rows that stand in an earlier part.

    Those, word for word the same question (or plain text), are dropped from val and test.
    """
    seen, again = {}, []
    for row_id, part, question, answer in sorted(
        zip(table.id, table.published, table.question, table.answer), key=lambda row: PARTS.index(row[1])
    ):
        if seen.setdefault(tuple(text.words(question or answer)), part) != part:
            again.append(row_id)
    twice = table.id.isin(again)
    return table[~twice].assign(part=table.published).reset_index(drop=True), table[twice]


def leak(group: list[str], part: list[str]) -> float:
    """Returns the share of held-out rows that have a row of their group in train; 0 for a split by group."""
    trained = {g for g, p in zip(group, part) if p == "train"}
    held_out = [g in trained for g, p in zip(group, part) if p != "train"]
    return sum(held_out) / len(held_out)


def crossing(table: pandas.DataFrame, part: list[str], near_duplicate: float) -> list[tuple[str, str]]:
    """Returns pairs of ids in different parts that have the same question or near-duplicate questions or answers.

    Independent of `groups`: an exact set similarity join, nothing sampled. Two sets that share at least t·n of the
    larger one's n words share SHARED words among the n − ⌈t·n⌉ + SHARED rarest of each (prefix filtering, Wang et al.
    2012), so only sets with such words in common are compared.
    """
    found = []
    rows = list(zip(table.itertuples(), part))
    first = defaultdict(dict)  # question → {part: id}
    for row, where in rows:
        if row.question:
            first[tuple(text.words(row.question))].setdefault(where, row.id)
    found += [tuple(ids.values())[:2] for ids in first.values() if len(ids) > 1]
    for side, fewest in NEAR_WORDS.items() if near_duplicate else []:
        where_of = defaultdict(dict)  # word set → {part: id}
        for row, where in rows:
            words = frozenset(text.words(getattr(row, side)))
            if len(words) >= fewest:
                where_of[words].setdefault(where, row.id)
        found += [tuple(ids.values())[:2] for ids in where_of.values() if len(ids) > 1]
        frequency = Counter(word for words in where_of for word in words)
        index = defaultdict(lambda: ([], []))  # two rare words → (word sets, their sizes), smaller sets first
        for words in sorted(where_of, key=len):
            least = near_duplicate * len(words)  # words that a near-duplicate shares
            ordered = sorted(words, key=lambda word: (frequency[word], word))
            prefix = ordered[: len(words) - math.ceil(least) + SHARED]
            here, candidates = where_of[words], set()
            for rare in itertools.combinations(sorted(prefix), SHARED):
                sets, sizes = index[rare]
                candidates.update(sets[bisect.bisect_left(sizes, least) :])
                sets.append(words)
                sizes.append(len(words))
            for other in candidates:
                apart = [(a, b) for p, a in here.items() for q, b in where_of[other].items() if p != q]
                if apart and jaccard(words, other) >= near_duplicate:
                    found.append(apart[0])
    return found


def overlap(parts: dict[str, list[dict]]) -> int:
    """Counts the val and test rows with a text (a user's turn, or a plain text) that stands, word for word, elsewhere.

    Reads the data rows themselves, whatever grouped them.
    """

    def texts(row):
        asked = [turn["content"] for turn in row.get("messages", []) if turn["role"] == "user"]
        return {tuple(text.words(value)) for value in asked or [row["text"]]} - {()}

    read = {part: [texts(row) for row in rows] for part, rows in parts.items()}
    found = 0
    for part in ("val", "test"):
        elsewhere = set().union(*(found for other in read if other != part for found in read[other]))
        found += sum(bool(mine & elsewhere) for mine in read[part])
    return found


def sample(table: pandas.DataFrame, max_rows: int, seed: int) -> pandas.DataFrame:
    """Returns `max_rows` rows (0 = all), picked by seed and content, in the table's order; never its head.

    Stratified by part, source part (with or without a title) and quarter of length: each stratum gives its share.
    """
    if not max_rows or max_rows >= len(table):
        return table
    length = table.question.str.len() + table.answer.str.len()
    quarter = (length.rank(pct=True) * 4).clip(upper=3.99).astype(int)
    strata = defaultdict(list)
    for row_id, *stratum in zip(table.id, table.part, table.title != "", quarter):
        strata[tuple(stratum)].append(row_id)
    exact = {key: max_rows * len(ids) / len(table) for key, ids in strata.items()}
    take = {key: int(share) for key, share in exact.items()}
    for key in sorted(exact, key=lambda key: (take[key] - exact[key], key))[: max_rows - sum(take.values())]:
        take[key] += 1
    picked = set()
    for key, ids in strata.items():
        picked.update(sorted(ids, key=lambda row_id: text.shuffle_key(seed, row_id))[: take[key]])
    return table[table.id.isin(picked)].reset_index(drop=True)


def turns(row) -> list[dict]:
    """Returns a table row's messages."""
    own = getattr(row, "messages", None)
    if isinstance(own, list):
        return own
    return [{"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer}]


def join_turns(table: pandas.DataFrame) -> pandas.DataFrame:
    """Returns the table with the turns of each dialogue joined into one conversation; needs `group` and `part`."""
    joined = []
    for _, run in table.assign(run=dialogue_runs(table, titled=False)).groupby("run", sort=False):
        row = run.iloc[0].to_dict() | {"messages": [turn for part in run.itertuples() for turn in turns(part)]}
        if len(run) > 1:
            row |= {"question": "\n\n".join(run.question), "answer": "\n\n".join(run.answer)}
            row["id"] = hashlib.blake2b("".join(run.id).encode(), digest_size=6).hexdigest()
        joined.append(row)
    return pandas.DataFrame(joined).drop(columns="run")


def data_rows(table: pandas.DataFrame, system_prompt: str, source: str) -> list[dict]:
    """Turns the table (with `id` and `group`) into data rows, sorted by id.

    A row: {"id", "group", "source", "topic", "messages": [{"role", "content"}, …]}, the system prompt first unless the
    row brings its own; for plain text {"id", "group", "source", "text"}.
    """
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    rows = []
    for row in table.itertuples():
        about = {"id": row.id, "group": row.group, "source": source}
        if row.plain:
            rows.append({**about, "text": row.answer})
            continue
        messages = turns(row)
        own = messages[0]["role"] == "system"
        rows.append({**about, "topic": row.topic, "messages": [*([] if own else system), *messages]})
    return sorted(rows, key=lambda row: row["id"])


LICENCES = {"embedded": "CC0 1.0, written for this suite"}
PUBLISHED_DEFECTS = """- Part A (about the first 2,000 rows) is translated counselling. Topics and titles mostly belong
  to another row; one question often has several answers.
- Part B is translated two-speaker dialogues cut into pairs. Where a question is its own answer the roles are swapped.
- Entities, mojibake, URLs, signatures, English remnants, and crisis numbers of the United States."""


def data_card(about: dict, metrics: dict, funnel: list[dict]) -> str:
    """Returns a data card in Markdown: source, licence as far as known, counts, defects found, intended use."""
    defects = [f"- {step['rule']}: {step['changed'] or step['dropped']} rows" for step in funnel]
    known = PUBLISHED_DEFECTS if about["published"] else "- Nothing is known of this file beyond what the rules found."
    return "\n".join(
        [
            f"# Data card: {about['source']}",
            "",
            f"Format {about['format']}, {about['rows']:,} rows, git blob SHA-1 {about['blob_sha1'] or 'not known'}.",
            f"Licence: {LICENCES.get(metrics['dataset'], 'not verified; no row of it is part of this suite')}.",
            "",
            f"Rows kept {metrics['rows_out']:,} of {metrics['rows_in']:,}: train {metrics['train']:,}, val "
            f"{metrics['val']:,}, test {metrics['test']:,}, in {metrics['groups']:,} groups.",
            "",
            "## Known defects",
            known,
            "",
            "## Found by the rules",
            *defects,
            "",
            "## Intended use",
            "Research on empathetic replies. A model trained on it is no therapist and no crisis service.",
            "",
        ]
    )
