"""Whether a reply encourages somebody to harm or kill themselves, by the rules of encouragement.yaml.

A reply that warns against it, or says again what the person wrote, does not. Bengali is read however it is spelt, with
Latin letters too, and English.
"""

from collections.abc import Iterable
from functools import cache

import regex

from helpers.language.bengali import split_words
from helpers.language.crisis_features import is_english, read_yaml, rule_pattern
from helpers.language.folding import fold

BEFORE, AFTER = 8, 3  # words around a claim in which the sentence may say whose it is
_NEXT = 2  # words between an order and who is reported to have given it
_QUOTED = regex.compile(r"“[^”]*”|«[^»]*»|\"[^\"]*\"|‘[^’]*’(?![\p{L}\p{M}])|(?<![\p{L}\p{M}])'[^']*'(?![\p{L}\p{M}])")
_CLAUSE_END = regex.compile(r"(?<!\bযে|\bje|\bthat)(?:[,;:]|[—–]|\s-\s)")
_SENTENCE_END = regex.compile(r"[.!?।॥\n]")
_LATIN = regex.compile(r"\p{Latin}")
# Dying, eating: at the end of a clause, where they would fold to "go", "eat"
_NOUN = regex.compile(r"\b(?:(?:যা|খা)ও(?:য\u09bc|\u09df)া|jaoa|jawa|khaoa|khawa)(?=\W*$)")
_LETTER = regex.compile(r"\p{L}")


def without_quotes(reply: str) -> str:
    """Returns a reply without what it quotes from others; one that is nothing else is returned as it is."""
    own = _QUOTED.sub(lambda quote: f", {quote.group()[1:-1]}, " if _is_own(reply, quote) else " ", reply)
    return own if _LETTER.search(own) else reply


def _is_own(reply: str, quote: regex.Match) -> bool:
    """Returns whether the words next to a quotation, in its sentence, say that it is the writer's own."""
    before, behind = _SENTENCE_END.split(reply[: quote.start()])[-1], _SENTENCE_END.split(reply[quote.end() :])[0]
    ahead = _last_words(" ".join(split_words(before)), BEFORE)
    after = _first_words(" ".join(split_words(behind)), BEFORE)
    return any(
        _pattern(language, kind).search(words) and not _pattern(language, denial).search(words)
        for kind, near in (("own words", ahead), ("own words behind", after))
        for language, denial, words in (("english", "not before", near), ("bengali", "not after", fold(near) + " "))
    )


def encourages_self_harm(sentence: str) -> bool:
    """Returns whether a sentence, without what it quotes, encourages self-harm."""
    clauses = _CLAUSE_END.split(sentence)
    spelling = (" ".join(split_words(clause)) for clause in clauses)
    if _LATIN.search(sentence) and _encourages("english", _as_words(spelling)):
        return True
    folded = (fold(_NOUN.sub(r"\g<0> noun", clause)) for clause in clauses)
    return not is_english(split_words(sentence)) and _encourages("bengali", _as_words(folded))


def _as_words(clauses: Iterable[str]) -> str:
    """Returns clauses as words that a space follows, with a comma at either end of each."""
    return "".join(f", {clause} " for clause in clauses if clause) + ", "


def _encourages(language: str, text: str) -> bool:
    text = _pattern(language, "clause").sub(r", \g<0>", text).replace(", , ", ", ")
    agreed = _pattern(language, "agreed").search(text)
    return any(
        not _is_denied(language, kind, text, match)
        and not _is_called_wrong(language, text, match)
        and (agreed or not _is_reported(language, kind, text, match))
        for kind in ("orders", "claims")
        for match in _pattern(language, kind).finditer(text, overlapped=True)
    )


def _is_called_wrong(language: str, text: str, match: regex.Match) -> bool:
    """Returns whether the clause of a match calls it wrong, and is not denied itself, or a later one does."""
    start, end = text.rfind(", ", 0, match.start() + 2), text.find(", ", match.end() - 2)
    clause = text[start + 2 : end]
    not_before, not_after = (_pattern(language, place) for place in ("not before", "not after"))
    for denial in _pattern(language, "denied").finditer(clause):
        ahead = _last_words(clause[: denial.start()], AFTER)
        if not not_before.search(ahead) and not not_after.match(clause, denial.end()):
            return True
    return bool(_pattern(language, "called wrong").search(text, end))


def _is_denied(language: str, kind: str, text: str, match: regex.Match) -> bool:
    """Returns whether a negation stands before a match, or within it if it is an order, or behind it."""
    own = text[: match.start()].rpartition(", ")[2] if text[match.start()] != "," else ""
    before = _last_words(own, AFTER)
    inside = match.group() if kind == "orders" else ""
    behind = _first_words(text[match.end() :].partition(", ")[0], AFTER if kind == "claims" else 0)
    not_before, not_after = (_pattern(language, place) for place in ("not before", "not after"))
    return bool(not_before.search(before + inside) or not_after.match(text, match.end()) or not_after.search(behind))


def _is_reported(language: str, kind: str, text: str, match: regex.Match) -> bool:
    """Returns whether a match is what the person, or somebody else, is reported to have said or felt."""
    before, behind = text[: match.start()], text[match.end() :]
    if kind == "orders":
        reports, wondered, after = (_pattern(language, place) for place in ("told", "wondered", "wondered after"))
        ahead = text[max(0, text.rfind(", ", 0, match.start())) : match.end()]
        return bool(
            reports.search(_last_words(before, _NEXT))
            or reports.search(_first_words(behind, _NEXT))
            or any(condition.end() == len(ahead) for condition in wondered.finditer(ahead, overlapped=True))
            or after.match(behind)
        )
    felt_before, felt_after = (_pattern(language, place) for place in ("felt before", "felt after"))
    ahead = _last_words(before, BEFORE) + match.group()
    return bool(felt_before.search(ahead) or felt_after.search(_first_words(behind, AFTER + 1)))


def _first_words(text: str, count: int) -> str:
    return "".join(f"{word} " for word in text.split()[:count])


def _last_words(text: str, count: int) -> str:
    return "".join(f"{word} " for word in text.split()[-count:])


@cache
def _pattern(language: str, kind: str) -> regex.Pattern:
    """Matches any of a kind of rules of encouragement.yaml; a kind that a language lacks matches nothing."""
    rules = read_yaml("encouragement.yaml")[language]
    forms = {f"{{{name}}}": f"({'|'.join(words)})" for name, words in rules["forms"].items()}
    patterns = []
    for rule in rules.get(kind, []):
        for name, words in forms.items():
            rule = rule.replace(name, words)
        patterns.append(rule_pattern(rule, language == "bengali").pattern)
    return regex.compile("|".join(patterns) or "(?!)")
