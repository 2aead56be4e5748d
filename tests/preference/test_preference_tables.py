"""Preferences from files, in every form in which people and TRL write them."""

import csv
import json

import pandas
import pytest
from preferences import COLD, SYSTEM, WARM, ask

from helpers.preference.tables import read_file, read_label

PROMPT = "কাল চাকরিটা চলে গেল, বাড়িতে বলতে পারিনি।"  # I lost my job yesterday and could not tell them at home.


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_csv(path, *rows, separator=",", encoding="utf-8", head=""):
    with open(path, "w", encoding=encoding, newline="") as file:
        file.write(head)
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def read(file):
    """Returns the replies of a file's preferences, and the reasons of its other rows."""
    items, dropped = read_file(file, [SYSTEM])
    return [(item.chosen, item.rejected) for item in items], [own.reason for own in dropped]


def test_a_pair_is_read_from_lines(tmp_path):
    assert read(write_lines(tmp_path / "p.jsonl", ask(PROMPT, WARM, COLD))) == ([(WARM, COLD)], [])


def test_a_label_is_read_from_lines(tmp_path):
    rows = [ask(PROMPT, WARM, label=True), ask(PROMPT, COLD, label=False)]
    assert read(write_lines(tmp_path / "p.jsonl", *rows)) == ([(WARM, ""), ("", COLD)], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(("separator", "head"), [(",", ""), (";", "sep=;\n"), ("\t", "sep=\t\n")])
def test_a_table_is_read_as_the_corpus_is(tmp_path, encoding, separator, head):
    file = write_csv(tmp_path / "p.csv", ask(PROMPT, WARM, COLD), separator=separator, encoding=encoding, head=head)
    assert read(file) == ([(WARM, COLD)], [])


def test_a_parquet_file_is_read(tmp_path):
    pandas.DataFrame([ask(PROMPT, WARM, COLD)]).to_parquet(tmp_path / "p.parquet")
    assert read(str(tmp_path / "p.parquet")) == ([(WARM, COLD)], [])


def test_columns_may_stand_in_any_order_among_others(tmp_path):
    row = {"rejected": COLD, "score": 3, "chosen": WARM, "prompt": PROMPT}
    assert read(write_lines(tmp_path / "p.jsonl", row)) == ([(WARM, COLD)], [])


def test_pairs_stand_beside_labelled_replies(tmp_path):
    rows = [ask(PROMPT, WARM, COLD), ask(PROMPT, COLD, label=False)]
    assert read(write_lines(tmp_path / "p.jsonl", *rows)) == ([(WARM, COLD), ("", COLD)], [])


def test_a_row_with_two_replies_is_a_pair(tmp_path):
    row = ask(PROMPT, WARM, COLD) | ask(PROMPT, "আচ্ছা, তারপর?", label=True)
    assert read(write_lines(tmp_path / "p.jsonl", row)) == ([(WARM, COLD)], [])


TURNS = [{"role": "user", "content": "মন খারাপ।"}, {"role": "assistant", "content": COLD}]
TURNS = [*TURNS, {"role": "user", "content": PROMPT}]


@pytest.mark.parametrize("as_text", [str, lambda turns: json.dumps(turns, ensure_ascii=False)])
def test_a_prompt_in_a_table_may_be_messages(tmp_path, as_text):
    (item,), _ = read_file(write_csv(tmp_path / "p.csv", ask(as_text(TURNS), WARM, COLD)), [SYSTEM])
    assert item.prompt == [SYSTEM, *TURNS]


def test_a_prompt_in_lines_may_be_messages(tmp_path):
    (item,), _ = read_file(write_lines(tmp_path / "p.jsonl", ask(TURNS, WARM, COLD)), [SYSTEM])
    assert item.prompt == [SYSTEM, *TURNS]


def test_messages_may_bring_their_own_system_turn(tmp_path):
    own = {"role": "system", "content": "Answer in Bengali."}
    (item,), _ = read_file(write_lines(tmp_path / "p.jsonl", ask([own, *TURNS], WARM, COLD)), [SYSTEM])
    assert item.prompt == [own, *TURNS]


def test_messages_may_have_the_names_of_sharegpt(tmp_path):
    turns = [{"from": "human", "value": PROMPT}]
    (item,), _ = read_file(write_lines(tmp_path / "p.jsonl", ask(turns, WARM, COLD)), [SYSTEM])
    assert item.prompt == [SYSTEM, {"role": "user", "content": PROMPT}]


def test_replies_may_be_messages(tmp_path):
    replies = [[{"role": "assistant", "content": text}] for text in (WARM, COLD)]
    assert read(write_lines(tmp_path / "p.jsonl", ask(PROMPT, *replies))) == ([(WARM, COLD)], [])


@pytest.mark.parametrize("write", [write_lines, write_csv])
def test_replies_may_bring_the_prompt_along(tmp_path, write):
    own = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}] for text in (WARM, COLD)]
    cells = own if write is write_lines else [json.dumps(turns, ensure_ascii=False) for turns in own]
    assert read(write(tmp_path / f"p.{'jsonl' if write is write_lines else 'csv'}", ask(PROMPT, *cells))) == (
        [(WARM, COLD)],
        [],
    )


def test_a_reply_that_begins_with_a_bracket_is_a_text(tmp_path):
    assert read(write_csv(tmp_path / "p.csv", ask(PROMPT, f"[হাসি] {WARM}", COLD))) == ([(f"[হাসি] {WARM}", COLD)], [])


def test_a_prompt_that_begins_with_a_bracket_is_a_text(tmp_path):
    (item,), _ = read_file(write_csv(tmp_path / "p.csv", ask(f"[কাল] {PROMPT}", WARM, COLD)), [])
    assert item.question == f"[কাল] {PROMPT}"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ask("", WARM, COLD), "missing side"),
        (ask(PROMPT, WARM, None), "missing side"),
        (ask(PROMPT, "", label=True), "missing side"),
        (ask(PROMPT, WARM, label="perhaps"), "unknown label"),
        (ask(TURNS[:2], WARM, COLD), "answer without a question"),
        (ask([{"role": "poet", "content": PROMPT}], WARM, COLD), "unknown role"),
        (ask([{"role": "tool", "content": PROMPT}], WARM, COLD), "tool turn"),
        (ask(5, WARM, COLD), "no conversation"),
        (ask(PROMPT, {"role": "assistant", "content": WARM}, COLD), "no conversation"),
        (ask(PROMPT, [{"role": "user", "content": WARM}], COLD), "no conversation"),
        (ask(PROMPT, TURNS, COLD), "no conversation"),
    ],
)
def test_a_row_that_is_none_is_dropped(tmp_path, row, reason):
    sound = ask(PROMPT, WARM, COLD)
    assert read(write_lines(tmp_path / "p.jsonl", sound, row)) == ([(WARM, COLD)], [reason])


LIKED = [True, 1, 1.0, "True", "১", " yes", "ভালো", "ভাল।", "পছন্দ", "হ্যাঁ", "👍", "👍\ufe0f", "+1"]


@pytest.mark.parametrize("label", [*LIKED, "ভাল\u09c7\u09be"])  # the vowel sign in two pieces
def test_a_label_says_liked(label):
    assert read_label(label) is True


@pytest.mark.parametrize("label", [False, 0, 0.0, "FALSE", "০", "No", "খারাপ", "অপছন্দ", "না", "না।", "👎", -1])
def test_a_label_says_disliked(label):
    assert read_label(label) is False


@pytest.mark.parametrize("label", ["", None, 2, "নাহ", "maybe", float("nan")])
def test_a_label_says_nothing(label):
    assert read_label(label) is None


PAIR = ask(PROMPT, WARM, COLD)
REFUSED = {
    "semicolons": (lambda path: write_csv(path, PAIR, separator=";"), "separated by semicolons"),
    "utf-16": (lambda path: write_csv(path, PAIR, encoding="utf-16"), "is UTF-16, not UTF-8. Convert it first"),
    "an older encoding": (lambda path: path.write_bytes(b"prompt,chosen,rejected\n\xe9,b,c\n"), "not UTF-8"),
    "nothing": (lambda path: path.write_bytes(b""), "empty .0 bytes.: expected a table with the columns prompt"),
    "a header alone": (lambda path: path.write_text("prompt,chosen,rejected\n"), "right columns and no row"),
    "other columns": (lambda path: path.write_text("a,b\n1,2\n"), r"\['a', 'b'\]. Expected.*prompt, chosen, rejected"),
    "a column missing": (lambda path: path.write_text("prompt,chosen\n1,2\n"), "Add or rename rejected"),
    "another column missing": (lambda path: path.write_text("prompt,completion\n1,2\n"), "Add or rename label"),
    "a column twice": (lambda path: path.write_text("prompt,chosen,chosen,rejected\n1,2,3,4\n"), "'chosen' twice"),
    "a cell too many": (lambda path: path.write_text("prompt,chosen,rejected\n1,2,3,4\n"), "line 2 has 4 fields"),
    "labels in marks": (
        lambda path: write_csv(path, ask(PROMPT, WARM, label=7), ask(PROMPT, COLD, label=2)),
        "no label is known, the first is '7'. Expected for a liked reply one of true",
    ),
}


@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, write, message):
    write(tmp_path / "p.csv")
    with pytest.raises(ValueError, match=message):
        read_file(str(tmp_path / "p.csv"), [SYSTEM])
