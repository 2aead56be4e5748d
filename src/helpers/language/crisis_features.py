"""What the detector of crisis messages reads in a sentence: strings, each of which it has a weight for.

Letters and words of the folded spelling (folding.py), words with what the others speak of (crisis_words.yaml), and the
rules of care.yaml, which match the folded spelling too.
"""

from functools import cache
from pathlib import Path
from typing import Any

import regex

from helpers.language.bengali import normalise, split_words
from helpers.language.folding import fold, skeleton
from helpers.runs.files import load_yaml

# Of a message's words in Latin letters, how many of `english marks` in crisis_words.yaml make it English
_ENGLISH_SHARE = 0.2
_SIGNS = {"joke": "😂🤣😄😅😆😹😝😜😛😁🙈😀😃😎🤪", "love": "😘😍❤🥰💕💖😻"}
_BENGALI = regex.compile(r"[\u0980-\u09ff]")
_WORD = regex.compile(r"[\p{L}\p{M}]+")


@cache
def read_yaml(name: str) -> dict[str, Any]:
    """Returns a YAML file of this folder."""
    return load_yaml(Path(__file__).with_name(name))


@cache
def _english_marks() -> frozenset[str]:
    return frozenset(read_yaml("crisis_words.yaml")["english marks"].split())


def is_english(words: list[str]) -> bool:
    """Returns whether words are English: not Bengali in Latin letters, and not in its own script."""
    if any(_BENGALI.search(word) for word in words):
        return False
    marks = _english_marks()
    return sum(word in marks for word in words) >= max(1, _ENGLISH_SHARE * len(words))


@cache
def _topics(language: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Returns the topics of crisis_words.yaml by whole word and by the beginning of a word."""
    whole: dict[str, set[str]] = {}
    beginnings: dict[str, set[str]] = {}
    for topic, words in read_yaml("crisis_words.yaml")[language].items():
        for word in words.split():
            plain = word.strip("~")
            spelling = plain if language == "english" else fold(plain).replace(" ", "")
            (beginnings if word.endswith("~") else whole).setdefault(spelling, set()).add(topic)
    return whole, beginnings


@cache
def _topics_of(word: str, language: str) -> frozenset[str]:
    whole, beginnings = _topics(language)
    starts = (beginnings.get(word[:length], set()) for length in range(2, len(word) + 1))
    return frozenset(whole.get(word, set()).union(*starts))


def rule_pattern(rule: str, folded: bool) -> regex.Pattern:
    """Returns a rule of care.yaml as a regular expression over words, each with a space after it."""
    parts = []
    for word in normalise(rule).split():
        if folded and word != "..":
            word = _WORD.sub(lambda letters: fold(letters.group()).replace(" ", r"\ "), word)
        parts.append(r"(?:\S+ ){0,4}" if word == ".." else word.replace("~", r"\S*") + " ")
    return regex.compile(rf"(?<!\S)(?:{''.join(parts)})")


@cache
def _rules(folded: bool) -> list[tuple[str, str, regex.Pattern]]:
    """Returns (group, "rules" or "unless", pattern) of care.yaml; those in English are never folded."""
    return [
        (group, kind, rule_pattern(rule, folded and group != "in English"))
        for group, kinds in read_yaml("care.yaml")["groups"].items()
        for kind in ("rules", "unless")
        for rule in kinds[kind]
    ]


def matched_rules(sentence: str) -> tuple[list[str], list[str]]:
    """Returns (what a sentence matches of care.yaml's rules, the groups that it falls into, in the file's order)."""
    words = split_words(sentence)
    plain = "".join(f"{word} " for word in words)
    spelling = plain if is_english(words) else fold(sentence) + " "
    hits, groups, excepted = [], [], set()
    for place, (group, kind, pattern) in enumerate(_rules(folded=not is_english(words))):
        if pattern.search(plain if group == "in English" else spelling):
            hits.append(f"{group} {kind} {place}")
            if kind == "rules":
                groups.append(group)
            else:
                excepted.add(group)
    return hits, [group for group in dict.fromkeys(groups) if group not in excepted]


def _letters(text: str, shortest: int, longest: int) -> list[str]:
    """Returns the runs of letters inside words, a blank standing for a word's ends."""
    pieces = []
    for word in text.split():
        word = f" {word} "
        for length in range(shortest, longest + 1):
            pieces += [word[start : start + length] for start in range(max(1, len(word) - length + 1))]
            if length >= len(word):
                break
    return pieces


def _across(text: str) -> list[str]:
    """Returns runs of six to eight letters that reach from one word into the next."""
    text = f" {text} "
    runs = (text[start : start + length] for length in (6, 7, 8) for start in range(len(text) - length + 1))
    return [run for run in runs if " " in run[1:-1]]


def _words(words: list[str]) -> list[str]:
    """Returns words, two and three in a row, and two with up to three others between them."""
    ends = ["^", *words, "$"]
    rows = [" ".join(row) for row in (*zip(ends, ends[1:]), *zip(ends, ends[1:], ends[2:]))]
    apart = [f"{word}_{later}" for place, word in enumerate(words) for later in words[place + 2 : place + 5]]
    return [*words, *rows, *apart]


def sentence_features(sentence: str) -> dict[str, list[str]]:
    """Returns the features of a sentence by kind; each may stand there several times."""
    folded, words = fold(sentence), split_words(sentence.replace("'", "").replace("’", ""))
    english = is_english(words)
    language = "english" if english else "bengali"
    spoken = [_topics_of(word, language) for word in (words if english else folded.split())]
    signs = {topic for topic, letters in _SIGNS.items() if any(letter in sentence for letter in letters)}
    topics = sorted(set().union(signs, *spoken))
    hits, groups = matched_rules(sentence)
    return {
        "letters": _letters(folded, 2, 5),
        "skeleton": _letters(skeleton(folded), 2, 6),
        "across": _across(folded),
        "words": _words(folded.split()),
        "topics": [language, *(f"{language} {topic}" for topic in topics)],
        "word and topic": [f"{word}*{topic}" for word in set(folded.split()) for topic in topics],
        "rules": [*hits, *groups, *["any"] * bool(groups)],
    }
