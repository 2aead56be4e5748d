"""Reads an HTML page as a reader sees it, and finds the numbers on it that no file of the run holds."""

import bisect
import csv
import math
import re
from html.parser import HTMLParser
from pathlib import Path

from helpers.language.bengali import latin_digits
from helpers.reporting.render import visible_text
from helpers.runs.files import read_json, read_jsonl

PROSE = {"95", "1", "5", "8", "4", "0", "256", "2", "100"}  # of the page's own sentences: "95 %", "1 to 5", "SHA-256"
UNITS = {"minutes": 60, "মিনিট": 60, "seconds": 3600, "সেকেন্ড": 3600}  # of an hour, as which the files have times


class PageText(HTMLParser):
    """Collects the text that a reader sees, and the tags and addresses of a page."""

    def __init__(self, page):
        super().__init__()
        self.lines, self.tags, self.addresses, self.inside = [], [], [], []
        self.html = Path(page).read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside.append(tag)
        self.addresses += [value for name, value in attributes if name in ("href", "src", "action")]
        assert not [name for name, _ in attributes if name.startswith("on")], "an attribute that runs code"
        if tag in ("meta", "img", "br", "link", "input", "hr"):
            self.inside.pop()

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"style", "script", "pre"} & set(self.inside):
            self.lines.append(data)

    @property
    def text(self):
        """All lines as one."""
        return " ".join(line.strip() for line in self.lines if line.strip())


def scalars(value):
    """Yields every number and text in a JSON value, the names of its objects and the lengths of its lists too."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    elif isinstance(value, list):
        yield len(value)
    else:
        yield value
        return
    for part in value:
        yield from scalars(part)


def csv_cells(path):
    """Yields every cell of a CSV file, as a number where it is one, and tuned_X − base_X of a row that has both."""
    with open(path, encoding="utf-8") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    yield from head
    for row in rows:
        for cell in row:
            try:
                yield float(cell)
            except ValueError:
                yield cell
        cells = dict(zip(head, row))
        for tuned in [name for name in head if name.startswith("tuned_") and cells.get(name)]:
            if base := cells.get(tuned.replace("tuned_", "base_")):
                yield float(cells[tuned]) - float(base)


def numbers_of(folder):
    """Returns every number in a run's files, as floats, and every text in them; without the answers that an evaluation
    keeps for the next one, where nearly every number can be found."""
    readers = {
        ".json": lambda path: scalars(read_json(path)),
        ".jsonl": lambda path: scalars(read_jsonl(path)),
        ".csv": csv_cells,
    }
    files = [path for path in folder.rglob("*") if "answers" not in path.parts]
    values = [v for path in files if path.suffix in readers for v in readers[path.suffix](path)]
    for path in folder.glob(
        "*/*.jsonl"
    ):  # counts that a page makes of rows: different replies, and those that were cut
        rows = read_jsonl(path)
        values += [len({row.get("reply") for row in rows}), sum(bool(row.get("hit_cap")) for row in rows)]
    numbers = {float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)}
    return sorted(numbers), "\n".join(visible_text(v) for v in values if isinstance(v, str))


def unknown_numbers(page, folder):
    """Returns the numbers a page shows that are in no file of the run, rounded as they are shown."""
    known, texts = numbers_of(folder)
    unknown = []
    for line in page.lines:
        if line.strip() and line.strip() in texts:
            continue
        number = r"(?<![\w.])([-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?![a-zA-Z_\d])(?: ([^\s,;.।)]+))?"
        for shown, unit in re.findall(number, latin_digits(line)):
            value = float(shown.replace(",", ""))
            digits = len(shown.partition(".")[2]) if "e" not in shown else 0
            slack = 0.5 * 10.0**-digits * 1.001 if "e" not in shown else abs(value) * 0.05
            if shown.lstrip("+-") in PROSE or shown in texts:
                continue
            if not digits and abs(value) <= 999:  # 265.04 to four digits reads "265"
                slack = 0.5 * 10.0 ** (len(shown.lstrip("+-")) - 4) * 1.001
            if not any(is_near(known, value, slack, scale) for scale in (1, 100, UNITS.get(unit, 1))):
                unknown.append(shown)
    return unknown


def is_near(known, value, slack, scale):
    """Returns whether one of the sorted numbers, times the scale, is within the slack of a value."""
    place = bisect.bisect_left(known, value / scale)
    return any(abs(number * scale - value) <= slack for number in known[max(0, place - 1) : place + 1])
