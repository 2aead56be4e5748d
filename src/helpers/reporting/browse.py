"""A page to read the prepared rows on: every row with its part, group, rule and tokens, in one file without network."""

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import markupsafe
import pandas

from helpers.data.clean import Corpus
from helpers.data.sampling import shuffle_key
from helpers.data.split import PARTS
from helpers.reporting.render import PAGES, as_base64, visible_text, write_page

DROPPED = "dropped"  # the part of rows that a rule dropped
PAGE_CHARACTERS = 14_000_000  # of all texts: so many random Bengali words still make a page below 15 MB
COMPRESSION = 6  # of gzip: 9 makes the page a tenth smaller and takes four times as long


def write_browse_page(run: Path, corpus: Corpus, tokens: pandas.Series) -> Path:
    """Writes data/browse.html of a run and returns it; `tokens` are those of a conversation by row id.

    The rows are JSON, compressed, in base64: no text of theirs is read as HTML, and the page's policy lets nothing run
    but its own script, known by its hash. Of more than PAGE_CHARACTERS, the page holds a sample, and says so.
    """
    table = pandas.concat([corpus.kept, corpus.dropped.assign(part=DROPPED)], ignore_index=True)
    shown = sample_groups(table)
    rows = browse_rows(shown, tokens)
    packed = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    script = (PAGES / "browse.js").read_text(encoding="utf-8")
    counts = shown.part.value_counts()
    content = {
        "name": Path(run).name,
        "rows": as_base64(gzip.compress(packed.encode(), COMPRESSION, mtime=0)),
        "read": len(table),
        "total": len(shown),
        "parts": {part: int(counts.get(part, 0)) for part in (*PARTS, DROPPED)},
        "rules": shown[shown.part == DROPPED].rule.value_counts().to_dict(),
        "script": markupsafe.Markup(script),  # this suite's own
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    page = Path(run) / "data" / "browse.html"
    write_page("browse.html", page, {}, content)
    return page


def sample_groups(table: pandas.DataFrame) -> pandas.DataFrame:
    """Returns the rows in the file's order, `group` filled in: all, or whole groups up to PAGE_CHARACTERS.

    A dropped duplicate is put into the group of the row that was kept, a row that was dropped before groups were made
    stands alone.
    """
    group_of = table.dropna(subset=["group"]).set_index("id").group.to_dict()
    table = table.assign(group=[group_of.get(row_id, row_id) for row_id in table.id])
    sizes = table.question.str.len() + table.answer.str.len()
    if sizes.sum() > PAGE_CHARACTERS:
        order = table.group.map(lambda group: shuffle_key(0, group)).sort_values(kind="stable").index
        table = table.loc[order[sizes[order].cumsum() <= PAGE_CHARACTERS]]
    return table.sort_values("number", kind="stable")


def browse_rows(table: pandas.DataFrame, tokens: pandas.Series) -> list[dict[str, Any]]:
    """Returns the rows as the page's script reads them.

    `turns` are [role, text]; tokens are None for a row that was dropped before they were counted.
    """
    count_of = tokens.to_dict()
    return [
        {
            "number": int(row["number"]),
            "id": row["id"],
            "group": row["group"],
            "part": row["part"],
            "rule": row["rule"] if row["part"] == DROPPED else "",
            "tokens": count_of.get(row["id"]),
            "topic": visible_text(row["topic"]),
            "title": visible_text(row["title"]),
            "turns": [[role, visible_text(text)] for role, text in row_turns(row)],
        }
        for row in table.to_dict("records")
    ]


def row_turns(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the (role, text) of a table's row: its messages where it has some, else question and answer."""
    if isinstance(row.get("messages"), list):
        return [(message["role"], message["content"]) for message in row["messages"]]
    return [("text", row["answer"])] if row["plain"] else [("user", row["question"]), ("assistant", row["answer"])]
