"""The blind sheet for people: its pairs, the attention checks among them, how long it takes, and its two files."""

import base64
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

from helpers.data.sampling import shuffle_key
from helpers.language.bengali import latin_digits, split_words
from helpers.language.hotlines import HELPLINES
from helpers.runs.files import load_yaml, write_csv, write_text

QUESTIONS: dict[str, Any] = load_yaml(Path(__file__).with_name("raters.yaml"))
SCALES: dict[str, list[str]] = QUESTIONS["scales"]
FONT = Path(__file__).parents[1] / "reporting" / "fonts" / "NotoSansBengali-Regular.ttf"  # as on the other pages
SHEET_TEMPLATE = Path(__file__).with_name("sheet.html")
SHEET_WORDS = Path(__file__).with_name("sheet.yaml")
SHOWN_FIELDS = ("id", "prompt", "reply_1", "reply_2")
MARK_FIELDS = [f"{scale}_{place}" for scale in SCALES for place in (1, 2)]  # a sheet's marks, by reply
ANSWER_FIELDS = ["choice", *MARK_FIELDS]  # what a rater fills in for a pair


class AttentionCheck(NamedTuple):
    """A pair with an unmistakable answer."""

    pair: dict[str, str]  # as `blind_pair` returns it
    answer: int  # the choice of whoever reads it: 1, 2, or 0 for no difference


class SheetLayout(NamedTuple):
    """The pairs of a sheet in their order."""

    pairs: list[dict[str, str]]  # attention checks among them
    sitting: int  # of them, from the first, that take about twenty minutes
    checks: int  # attention checks, all within the sitting

    def describe(self) -> str:
        """Returns in a sentence how long the sheet is."""
        minutes = sum(map(reading_seconds, self.pairs[: self.sitting])) / 60
        enough = f"the first {self.sitting} take about {minutes:.0f} minutes, {self.checks} of them attention checks"
        more = f"; a rater may continue with {len(self.pairs) - self.sitting} more"
        return f"{len(self.pairs)} screens on the sheet: {enough}{more if len(self.pairs) > self.sitting else ''}."


def blind_pair(base: dict, tuned: dict, seed: int) -> dict[str, str]:
    """Returns one line of the sheet: two replies, which is which decided by seed and row, nothing filled in."""
    first, second = (tuned, base) if tuned_is_first(tuned["id"], seed) else (base, tuned)
    return _empty_pair(base["id"], base["prompt"], first["reply"], second["reply"])


def _empty_pair(*shown: str) -> dict[str, str]:
    return {**dict(zip(SHOWN_FIELDS, shown, strict=True)), **dict.fromkeys(ANSWER_FIELDS, "")}


def tuned_is_first(row_id: str, seed: int) -> bool:
    """Returns whether reply_1 of a row's blind pair is the tuned model's."""
    return shuffle_key(seed, row_id)[0] % 2 == 1


def sheet_id(pairs: list[dict]) -> str:
    """Returns what tells a sheet from every other: 12 hexadecimal digits of its questions and replies, without the
    attention checks, so that a file filled in before there were any is still this sheet's."""
    shown = [[pair[name] for name in SHOWN_FIELDS] for pair in pairs]
    return hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode()).hexdigest()[:12]


def attention_checks(seed: int) -> list[AttentionCheck]:
    """Returns the attention checks of a seed, with ids that look like a row's.

    Of the pairs of sense and nonsense every other one has the sense first, and one check asks for "no difference": a
    rater who always presses the same button fails two of three.
    """
    checks, sense_first = [], shuffle_key(seed, "attention")[0] % 2 == 1
    for number, texts in enumerate(QUESTIONS["attention"]):
        row_id = shuffle_key(seed, f"attention {number}").hex()[:12]
        if "instruction" in texts:
            replies, answer = [texts["same"], texts["same"] + texts["instruction"]], 0
        else:
            replies, answer = [texts["right"], texts["wrong"]], 1 if sense_first else 2
            replies, sense_first = replies if sense_first else replies[::-1], not sense_first
        checks.append(AttentionCheck(_empty_pair(row_id, texts["prompt"], *replies), answer))
    return checks


def reading_seconds(pair: dict[str, str]) -> float:
    """Returns how long a pair takes at the pace of raters.yaml: its words, a choice and ten marks."""
    pace, texts = QUESTIONS["pace"], (pair[name] for name in ("prompt", "reply_1", "reply_2"))
    words = sum(len(split_words(text)) for text in texts)
    return 60 * words / pace["words_per_minute"] + pace["seconds_per_answer"] * len(ANSWER_FIELDS)


def lay_out_sheet(pairs: list[dict[str, str]], seed: int) -> SheetLayout:
    """Returns the pairs with the attention checks at places by seed, one in each third of the first twenty minutes.

    A sitting of fewer than six pairs has a check for every two. A pair that takes longer than that is a sitting alone.
    """
    checks = [check.pair for check in attention_checks(seed)]
    seconds = 60 * QUESTIONS["pace"]["minutes"] - sum(map(reading_seconds, checks))
    spent = itertools.accumulate(map(reading_seconds, pairs))
    sitting = max(1, sum(total <= seconds for total in spent))
    checks, laid = checks[: sitting // 2], list(pairs)
    for number in reversed(range(len(checks))):
        start, end = (sitting * edge // len(checks) for edge in (number, number + 1))
        place = start + 1 + shuffle_key(seed, f"place {number}")[0] % (end - start)  # after a pair of its own third
        laid.insert(place, checks[number])
    return SheetLayout(laid, min(sitting + len(checks), len(laid)), len(checks))


def raters_helplines(numbers: list[str]) -> list[dict[str, str]]:
    """Returns the helplines with these numbers, each with its number in the digits 0 to 9 as `dial`, "" for a site.

    Raises KeyError for one that helplines.yaml does not have.
    """
    lines = {line["number"]: line for line in HELPLINES}
    dials = {number: latin_digits(number) for number in numbers}
    return [{**lines[number], "dial": dial if dial.isdigit() else ""} for number, dial in dials.items()]


def write_sheet(folder: Path, pairs: list[dict[str, str]], seed: int) -> SheetLayout:
    """Writes human_eval.csv, for a spreadsheet, and human_eval.html, which needs nothing but a browser.

    Every text on the page is escaped: it comes from a model.
    """
    import jinja2
    import pandas

    layout, words = lay_out_sheet(pairs, seed), load_yaml(SHEET_WORDS)
    write_csv(folder / "human_eval.csv", pandas.DataFrame(layout.pairs))
    page = jinja2.Environment(autoescape=True).from_string(SHEET_TEMPLATE.read_text(encoding="utf-8"))
    html = page.render(
        layout=layout,
        seconds=[round(reading_seconds(pair)) for pair in layout.pairs],
        questions=QUESTIONS,
        fields=ANSWER_FIELDS,
        sheet=sheet_id(pairs),
        words=words,
        helplines=raters_helplines(words["helplines"]),
        font=base64.b64encode(FONT.read_bytes()).decode(),
    )
    write_text(folder / "human_eval.html", html)
    return layout
