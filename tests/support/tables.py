"""Tables of a few rows, as the corpus has them, and words to make more of them."""

from functools import cache

import pandas
import regex

from helpers.data.clean import Corpus, clean_table
from helpers.data.load import COLUMNS, load_table, unify_columns

ROW = {"Topics": "শোক", "Question-Title": "", "Questions": "মন ভালো নেই আজ।", "Answers": "আপনার কষ্টটা বুঝতে পারছি।"}


def raw_table(*rows: dict[str, str]) -> pandas.DataFrame:
    """Returns a table in the corpus's four columns; a row names only what differs from ROW."""
    return pandas.DataFrame([{**ROW, **row} for row in rows])[COLUMNS]


def unified_table(*rows: dict[str, str]) -> pandas.DataFrame:
    """Returns the same rows as the table that cleaning reads."""
    return unify_columns(raw_table(*rows), "auto", "a test")[0]


def cleaned(*rows: dict[str, str], **options) -> Corpus:
    """Returns the same rows cleaned; the options are those of `clean_table`."""
    return clean_table(unified_table(*rows), **options)


@cache
def embedded_table() -> pandas.DataFrame:
    """Returns the embedded corpus cleaned, for reading alone."""
    return clean_table(load_table("embedded")[0]).kept


def bengali_words() -> list[str]:
    """Returns the words of the embedded corpus's sound answers, with none of its dirt; sorted."""
    answers = " ".join(embedded_table().answer)
    return sorted(
        {word for word in regex.findall(r"[\p{L}\p{M}\u200c\u200d]+", answers) if regex.match(r"\p{Bengali}{3}", word)}
    )


def write_csv_file(path, *rows: dict[str, str]):
    """Writes the same rows as a CSV file and returns its path."""
    raw_table(*rows).to_csv(path, index=False)
    return path
