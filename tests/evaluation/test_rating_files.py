"""Ratings as people send them back: every way in which a spreadsheet saves them, and files that nothing can read."""

import codecs
import csv
import functools
import io
import zipfile

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.evaluation import rating_files
from helpers.evaluation.raters import Ratings, read_ratings
from helpers.evaluation.sheet import MARK_FIELDS, SCALES, attention_checks, blind_pair, sheet_id, tuned_is_first

SEED = 3407
PAIRS = [
    blind_pair({"id": f"r{n}", "prompt": "মন খারাপ", "reply": "ঠিক আছে"}, {"id": f"r{n}", "reply": "শুনছি"}, SEED)
    for n in range(4)
]
COLUMNS = ["rater", "sheet", *PAIRS[0]]


def filled(mark="3", **changes):
    """Returns the sheet's rows with every mark given."""
    given = dict.fromkeys(MARK_FIELDS, mark)
    return [{"rater": "ক. খান", "sheet": sheet_id(PAIRS), **pair, **given, **changes} for pair in PAIRS]


def to_csv(rows, separator=",", line_end="\n"):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=separator, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read(folder):
    return read_ratings(folder, PAIRS, SEED)


SAVED = {
    "utf-8": to_csv(filled()).encode(),
    "utf-8 with its mark": codecs.BOM_UTF8 + to_csv(filled()).encode(),
    "utf-16": to_csv(filled(), "\t", "\r\n").encode("utf-16"),
    "utf-16, big-endian": codecs.BOM_UTF16_BE + to_csv(filled(), "\t").encode("utf-16-be"),
    "semicolons": to_csv(filled(), ";", "\r\n").encode(),
    "the separator first": b"sep=;\r\n" + to_csv(filled(), ";", "\r\n").encode(),
    "commas named first": codecs.BOM_UTF8 + b"sep=,\n" + to_csv(filled()).encode(),
    "an older encoding": to_csv(filled(rater="x")).encode("ascii", errors="replace"),
    "old line ends": to_csv(filled(), line_end="\r").encode(),
    "3.0": to_csv(filled("3.0")).encode(),
    "3,0": to_csv(filled("3,0"), ";").encode(),
    "Bengali digits": to_csv(filled(" ৩ ")).encode(),
    "column names in capitals": to_csv(filled()).replace(",".join(COLUMNS), ",".join(COLUMNS).upper()).encode(),
    "empty lines": (to_csv(filled()) + "," * (len(COLUMNS) - 1) + "\n\n").encode(),
}


def test_what_a_system_keeps_in_a_folder_is_no_rating_file(tmp_path):
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "~$a.xlsx", "a.csv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "older").mkdir()
    assert [file.name for file in rating_files.list_rating_files(tmp_path)] == ["a.csv"]


@pytest.mark.parametrize("how", SAVED)
def test_ratings_are_read_however_they_were_saved(tmp_path, how):
    (tmp_path / "a.csv").write_bytes(SAVED[how])
    ratings = read(tmp_path)
    assert ratings.skipped == []
    assert len(ratings.marks) == 2 * len(PAIRS)
    assert {rating[scale] for rating in ratings.marks for scale in SCALES} == {3}


@pytest.mark.parametrize("cell", [3, 3.0, "3"])
def test_a_workbook_is_read(tmp_path, cell):
    pandas.DataFrame(filled(cell)).to_excel(tmp_path / "a.xlsx", index=False)
    ratings = read(tmp_path)
    assert ratings.skipped == []
    assert {rating["empathy"] for rating in ratings.marks} == {3}
    assert {rating["rater"] for rating in ratings.marks} == {"ক. খান"}


def test_a_workbook_without_openpyxl_says_what_to_do(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")

    def read_excel(*_, **__):
        raise ImportError("Missing optional dependency 'openpyxl'.")

    monkeypatch.setattr(pandas, "read_excel", read_excel)
    assert read(tmp_path).skipped == [
        "a.xlsx: reading .xlsx needs the package openpyxl: pip install openpyxl, or save it as CSV"
    ]


def test_a_mark_that_was_not_given_is_left_out(tmp_path):
    (tmp_path / "a.csv").write_text(to_csv(filled(empathy_1="", empathy_2="")), encoding="utf-8")
    assert all("empathy" not in rating and rating["fluency"] == 3 for rating in read(tmp_path).marks)


def test_a_file_without_a_rater_is_of_its_name(tmp_path):
    (tmp_path / "রহিম.csv").write_text(to_csv(filled(rater="")), encoding="utf-8")
    assert {rating["rater"] for rating in read(tmp_path).marks} == {"রহিম"}


@pytest.mark.parametrize(
    ("cell", "share"),
    [("1", 1), ("2.0", 0), ("০", 0.5), ("First", 1), ("দ্বিতীয়", 0), ("দ্বিতী\u09df", 0), ("same", 0.5)],
)
def test_a_choice_is_read_however_it_was_written(tmp_path, cell, share):
    (tmp_path / "a.csv").write_text(to_csv(filled(choice=cell)), encoding="utf-8")
    expected = [share if tuned_is_first(pair["id"], SEED) else 1 - share for pair in PAIRS]
    assert [choice["tuned"] for choice in read(tmp_path).choices] == expected


IDS = ["123456789012", "123457000000", "000000012345", "37e3", "abcdef012345"]


@pytest.mark.parametrize(
    ("cell", "row"),
    [
        ("12345", "000000012345"),
        ("37000", "37e3"),
        ("3.7E+04", "37e3"),
        ("3,7E+04", "37e3"),
        ("1.23456789012E+11", "123456789012"),
        ("abcdef012345", "abcdef012345"),
    ],
)
def test_an_id_that_became_a_number_is_restored(cell, row):
    assert rating_files.restore_id(cell, IDS) == row


@pytest.mark.parametrize("cell", ["1.23457E+11", "999", "x", "", "1e999"])
def test_a_cell_that_may_mean_several_ids_stays_as_it_is(cell):
    assert rating_files.restore_id(cell, IDS) == cell


def test_a_file_whose_ids_became_numbers_is_read(tmp_path):
    pairs = [{**pair, "id": f"00000000000{place}"} for place, pair in enumerate(PAIRS)]
    rows = [
        {"rater": "x", "sheet": sheet_id(pairs), **pair, "id": str(int(pair["id"])), "choice": "1"} for pair in pairs
    ]
    (tmp_path / "a.csv").write_text(to_csv(rows), encoding="utf-8")
    ratings = read_ratings(tmp_path, pairs, SEED)
    assert ratings.skipped == []
    assert [choice["id"] for choice in ratings.choices] == [pair["id"] for pair in pairs]


def earlier_file(folder):
    """Writes a file as an earlier sheet saved it: no choice, correctness in the place of helpfulness."""
    scales = ("fluency", "relevance", "correctness", "empathy", "safety")
    fields = [f"{scale}_{place}" for scale in scales for place in (1, 2)]
    rows = [{"sheet": sheet_id(PAIRS), "rater": "ক", "id": pair["id"], **dict.fromkeys(fields, 4)} for pair in PAIRS]
    pandas.DataFrame(rows).to_csv(folder / "old.csv", index=False)


def test_a_file_of_an_earlier_sheet_keeps_all_its_marks(tmp_path):
    earlier_file(tmp_path)
    ratings = read(tmp_path)
    assert ratings.skipped == []
    assert len(ratings.marks) == 2 * len(PAIRS)
    assert all(rating["correctness"] == rating["empathy"] == 4 for rating in ratings.marks)


def test_an_earlier_file_has_neither_choices_nor_helpfulness(tmp_path):
    earlier_file(tmp_path)
    ratings = read(tmp_path)
    assert ratings.choices == []
    assert all("helpfulness" not in rating for rating in ratings.marks)


CHECKS = attention_checks(SEED)


def attentive(failed, rater="ক", answered=3):
    """Returns a filled sheet with attention checks, so many of which are answered, and so many of these failed."""
    rows = [{"rater": rater, "sheet": sheet_id(PAIRS), **check.pair} for check in CHECKS]
    for place, (row, check) in enumerate(zip(rows, CHECKS)):
        answer = (check.answer + 1) % 3 if place < failed else check.answer
        row["choice"] = str(answer) if place < answered else ""
    return [*filled(choice="1", rater=rater), *rows]


@pytest.mark.parametrize(("failed", "used"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_rater_may_fail_one_attention_check(tmp_path, failed, used):
    (tmp_path / "a.csv").write_text(to_csv(attentive(failed)), encoding="utf-8")
    ratings = read(tmp_path)
    assert bool(ratings.marks) == bool(ratings.choices) == used
    expected = [{"rater": "ক", "failed": failed, "checks": 3, "left_out": not used}] if failed else []
    assert ratings.attention == expected


def test_a_rater_who_is_left_out_costs_no_other(tmp_path):
    (tmp_path / "a.csv").write_text(to_csv(attentive(3)), encoding="utf-8")
    (tmp_path / "b.csv").write_text(to_csv(attentive(0, "খ")), encoding="utf-8")
    assert {rating["rater"] for rating in read(tmp_path).marks} == {"খ"}


def test_an_attention_check_is_no_rated_row(tmp_path):
    (tmp_path / "a.csv").write_text(to_csv(attentive(0)), encoding="utf-8")
    assert {choice["id"] for choice in read(tmp_path).choices} == {pair["id"] for pair in PAIRS}


def test_a_check_that_was_not_answered_is_not_failed(tmp_path):
    (tmp_path / "a.csv").write_text(to_csv(attentive(2, answered=0)), encoding="utf-8")
    assert read(tmp_path).attention == []


def bomb():
    """Returns a workbook that is small packed and large unpacked."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (rating_files.LARGEST_FILE + 1))
    return packed.getvalue()


BAD = {
    "empty.csv": (b"", "it is empty"),
    "header.csv": (to_csv([]).encode(), "it is empty"),
    "scales.csv": (b"id,colour_1\nr0,3\n", "it has no column of answers: expected choice, relevance_1 and so on"),
    "choice.csv": (to_csv(filled(choice="3")).encode(), "row r0: '3' is not a choice: expected 1, 2, or 0 for no diff"),
    "six.csv": (to_csv(filled(empathy_1="6")).encode(), "row r0: '6' is not a mark: expected 1 to 5, or nothing"),
    "half.csv": (to_csv(filled(empathy_1="3.5")).encode(), "row r0: '3.5' is not a mark"),
    "row.csv": (to_csv(filled(id="r99")).encode(), "it rates row 'r99'"),
    "twice.csv": (to_csv([*filled(), filled()[1]]).encode(), "it rates row r1 twice"),
    "sheet.csv": (to_csv(filled(sheet="0123")).encode(), "it rates row 'r0' of sheet '0123': this run's sheet is"),
    "picture.csv": (bytes(range(256)) * 9, "it has no column id"),
    "quote.csv": (to_csv(filled()).encode() + b'"' + b"x" * 200_000, "it cannot be read (Error: field larger"),
    "large.csv": (b"," * (rating_files.LARGEST_FILE + 1), "it has 16 MiB, expected at most 16"),
    "broken.xlsx": (b"PK\x03\x04 no workbook", "it cannot be read (BadZipFile"),
    "empty.xlsx": (b"", "it cannot be read (BadZipFile"),
    "bomb.xlsx": (bomb(), "it has 16 MiB unpacked, expected at most 16"),
    "words.docx": (b"", "it is no .csv and no .xlsx: save it as one of them"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_skipped_with_its_reason(tmp_path, name, request):
    """The good file beside it is read: a bad one never costs the others."""
    content, reason = BAD[name]
    request.addfinalizer(functools.partial(csv.field_size_limit, csv.field_size_limit(131_072)))  # libraries change it
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.csv").write_text(to_csv(filled(rater="good")), encoding="utf-8")
    ratings = read(tmp_path)
    assert len(ratings.skipped) == 1
    assert ratings.skipped[0].startswith(f"{name}: {reason}")
    assert {rating["rater"] for rating in ratings.marks} == {"good"}


def test_a_raters_second_file_is_skipped(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(to_csv(filled()), encoding="utf-8")
    ratings = read(tmp_path)
    assert ratings.skipped == ["b.csv: a.csv is by 'ক. খান' too: keep one, or rename the rater"]
    assert len(ratings.marks) == 2 * len(PAIRS)


def test_hidden_files_and_locks_are_no_ratings(tmp_path):
    for name in (".DS_Store", "~$a.xlsx"):
        (tmp_path / name).touch()
    assert read(tmp_path) == Ratings([], [], [], [])


CELLS = st.one_of(
    st.sampled_from(["", "1", "3.0", "৫", "6", "nan", "-1", "1e9", '"', "r0", sheet_id(PAIRS), "=1+1", "\x00", "1\n2"]),
    st.text(max_size=12),
)
TABLES = st.builds(
    lambda rows, separator, ends: to_csv([filled()[0] | row for row in rows], separator, ends),
    st.lists(st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=5), max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
GOOD = SAVED["utf-8"]
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda text, encoding: text.encode(encoding, errors="replace"), TABLES, ENCODINGS),
    st.builds(  # a good file with bytes taken out and put in
        lambda start, length, more: GOOD[:start] + more + GOOD[start + length :],
        st.integers(0, len(GOOD)),
        st.integers(0, 300),
        st.binary(max_size=20),
    ),
)


def check_any_content(folder, content, suffix):
    """Puts a file with this content beside a good one: it is read or skipped with one line, and costs no other."""
    name, good = f"any{suffix}", f"good of {suffix}"
    for file in folder.iterdir():
        file.unlink()
    (folder / name).write_bytes(content)
    (folder / "good.csv").write_text(to_csv(filled(rater=good)), encoding="utf-8")
    ratings = read(folder)
    assert sum(rating["rater"] == good for rating in ratings.marks) == 2 * len(PAIRS)
    for rating in ratings.marks:
        assert rating["id"] in {pair["id"] for pair in PAIRS}
        assert all(rating[scale] in range(1, 6) for scale in rating.keys() & SCALES.keys())
    assert len(ratings.skipped) <= 1
    assert all(line.startswith(f"{name}: ") and len(line.splitlines()) == 1 for line in ratings.skipped)


FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}
SUFFIXES = st.sampled_from([".csv", ".csv", ".csv", ".xlsx"])


@settings(max_examples=300, **FUZZ)
@given(CONTENTS, SUFFIXES)
def test_any_file_is_read_or_skipped(tmp_path, content, suffix):
    check_any_content(tmp_path, content, suffix)


@pytest.mark.slow
@settings(max_examples=10_000, **FUZZ)
@given(CONTENTS, SUFFIXES)
def test_ten_thousand_files_are_read_or_skipped(tmp_path, content, suffix):
    check_any_content(tmp_path, content, suffix)
