"""Tables as people send them back: saved by the sheet for ratings, or by a spreadsheet in whatever way it saves."""

import codecs
import csv
import io
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path

import regex

from helpers.language.bengali import latin_digits
from helpers.platforms.errors import describe_error
from helpers.runs.files import take_separator_line

LARGEST_FILE = 16 * 2**20  # bytes of a file, and of a workbook when it is unpacked
ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # by a file's first bytes
CHOICES = {  # as words, beside 1, 2 and 0
    unicodedata.normalize("NFC", word): choice
    for word, choice in {"first": 1, "second": 2, "same": 0, "প্রথম": 1, "দ্বিতীয়": 2, "সমান": 0}.items()
}
OF_SYSTEM = ("thumbs.db", "ehthumbs.db", "desktop.ini")  # of Windows; those of others are hidden
CHOICE = regex.compile(r"([0-2])(?:[.,]0+)?")
MARK = regex.compile(r"([1-5])(?:[.,]0+)?")  # a spreadsheet writes 3.0, or 3,0
NUMBER = regex.compile(r"\d+([.,]\d+)?([eE]\+?\d+)?")  # as a spreadsheet saves it
LIKE_NUMBER = regex.compile(r"\d+(e\d+)?")  # an id that it takes for one

Row = dict[str, str]  # a file's row by column, its cells without spaces at either end


def list_rating_files(folder: Path) -> list[Path]:
    """Returns the files in a folder, without hidden ones, a spreadsheet's locks and what a system keeps there."""
    files = [file for file in folder.glob("*") if file.is_file() and file.name.lower() not in OF_SYSTEM]
    return sorted(file for file in files if not file.name.startswith((".", "~$")))


def read_table(file: Path, columns: Iterable[str]) -> list[Row]:
    """Returns the rows of a .csv (UTF-8 or UTF-16; comma, semicolon or tab) or .xlsx file that have a cell with a text.

    Column names are in small letters, however the file has them. Raises ValueError, in words for whoever sent the file,
    when it cannot be read or lacks one of the columns.
    """
    readers = {".csv": _read_csv, ".xlsx": _read_workbook}
    if file.suffix.lower() not in readers:
        raise ValueError("it is no .csv and no .xlsx: save it as one of them")
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it has {file.stat().st_size / 2**20:.0f} MiB, expected at most {LARGEST_FILE >> 20}")
        table = readers[file.suffix.lower()](file)
    except ImportError as error:
        raise ValueError("reading .xlsx needs the package openpyxl: pip install openpyxl, or save it as CSV") from error
    except Exception as error:  # whatever the libraries make of a file that they cannot read
        reason = str(error) if type(error) is ValueError else f"it cannot be read ({describe_error(error)})"
        raise ValueError(reason) from error
    rows = [{name.strip().lower(): (cell or "").strip() for name, cell in row.items() if name} for row in table]
    if not rows:
        raise ValueError("it is empty")
    if missing := [name for name in columns if name not in rows[0]]:
        raise ValueError(f"it has no column {', '.join(missing)}: expected those of the file that was given out")
    return [row for row in rows if any(row.values())]


def restore_id(cell: str, ids: Iterable[str]) -> str:
    """Returns the one of these ids that a spreadsheet has taken for a number and saved as 1.23457E+11, or without the
    zeros before it; the cell itself where it is an id, or none or several could be meant."""
    ids = [*ids]
    if cell in ids or not NUMBER.fullmatch(cell):
        return cell
    number = float(cell.replace(",", "."))
    places = len(regex.sub(r"\D", "", regex.sub("[eE].*", "", cell)))
    numbers = [own for own in ids if LIKE_NUMBER.fullmatch(own)]
    same = [own for own in numbers if float(f"{float(own):.{places - 1}e}") == number]
    return same[0] if len(same) == 1 else cell


def read_mark(cell: str) -> int | None:
    """Returns a mark, None for an empty cell. Raises ValueError for what is no mark."""
    match = MARK.fullmatch(latin_digits(cell))
    if cell and not match:
        raise ValueError(f"{cell[:20]!r} is not a mark: expected 1 to 5, or nothing")
    return int(match[1]) if match else None


def read_choice(cell: str) -> int | None:
    """Returns a choice: 1, 2, or 0 for no difference; None for an empty cell. Raises ValueError for what is none."""
    text = unicodedata.normalize("NFC", latin_digits(cell)).lower()
    match = CHOICE.fullmatch(text)
    if cell and not match and text not in CHOICES:
        raise ValueError(f"{cell[:20]!r} is not a choice: expected 1, 2, or 0 for no difference")
    return int(match[1]) if match else CHOICES.get(text)


def _read_csv(file: Path) -> list[Row]:
    content = file.read_bytes()
    # Ids and marks are ASCII: a file that a spreadsheet saved in an older encoding has them still
    text = content.decode(ENCODINGS.get(content[:2], "utf-8-sig"), errors="replace")
    text, separator = take_separator_line(text)
    text = text.lstrip("\r\n")
    head = text.partition("\n")[0]
    separator = separator or max(",;\t", key=head.count)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval=""))


def _read_workbook(file: Path) -> list[Row]:
    """Returns the rows of a workbook's first sheet."""
    import pandas

    with zipfile.ZipFile(file) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > LARGEST_FILE:
        raise ValueError(f"it has {unpacked / 2**20:.0f} MiB unpacked, expected at most {LARGEST_FILE >> 20}")
    table = pandas.read_excel(file, dtype=str, keep_default_na=False, engine="openpyxl")
    return table.rename(columns=str).to_dict("records")
