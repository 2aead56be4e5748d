"""A therapist's name under an answer, which is no part of it."""

import regex

from helpers.language.bengali import normalise

_OF_THERAPISTS = ["L M F T", "L C S W", "L M H C", "L P C C?", "L M S W", "M F T", "M S W", "Psy D", "Ph D"]
_OF_THERAPISTS += [
    "এল এম এফ টি",
    "এম এফ টি",
    "এল এম এইচ সি",
    "এল সি এস ডব্লিউ",
    "এল পি সি",
    "এল এম এস ডব্লিউ",
    "এম এস ডব্লিউ",
]
_OF_THERAPISTS += ["পিএইচ ডি"]  # a gap is a dot, a space or nothing
_DEGREE = rf"(?:{'|'.join(_OF_THERAPISTS).replace(' ', r'[. ]{0,2}')})\b(?:-(?:[A-Z]|সি|এস)\b)?\.?"
_OTHER_DEGREE = r"(?:(?-i:\p{Lu}[\p{Lu}.]{1,6})|(?:এম|বি)\.?\s?(?:এ|এড|এসসি|ডি)\b\.?)"
_DEGREES = rf"(?:{_OTHER_DEGREE}[,/ ]+)*{_DEGREE}(?:[,/ ]+(?:{_OTHER_DEGREE}|{_DEGREE}))*[ )]*(?:#?[ \d-]*\d)?"
_WORD = r"[\p{L}\p{M}.]+"
_ANY_DEGREE = regex.compile(_DEGREE, regex.IGNORECASE)
# A sentence of its own; a line that no danda ends; the answer's last words, perhaps with the place
_NAME_WITH_DEGREE = regex.compile(
    rf"(?:^|(?<=[।.!?] )) ?(?P<name>{_WORD}(?: {_WORD}){{0,2}})(?:, ?| ?\(){_DEGREES}[।.]?$"
    rf"|(?:^|(?<=[।.!?] )|[—–-]) ?(?P<name>{_WORD}(?: {_WORD}){{0,4}})(?:, ?| ?\(| ){_DEGREES}$"
    rf"|(?<![\p{{L}}\p{{M}}.])(?P<name>(?:{_WORD} ){{0,3}}{_WORD}), ?{_DEGREES}(?:, ?[\p{{L}}\p{{M}}]+){{0,2}}\Z",
    regex.IGNORECASE | regex.MULTILINE,
)
_CLOSING = regex.compile(
    r"(?:^|[।.!?\n])\s*(?:শুভেচ্ছান্তে|ধন্যবাদান্তে|বিনীত|ইতি)\s*[,\n]\s*(?P<name>[^।!?]{2,60}?)[।.]?\s*\Z"
)
_LETTER_INSIDE = regex.compile(normalise(r"[:—–-]\s*(?:প্রিয়|শ্রদ্ধেয়|পূজনীয়|মাননীয়|স্নেহের|আদরের)\b"))  # its draft
_QUOTED = regex.compile(r"“[^”]*”|«[^»]*»|\"[^\"]*\"|‘[^’]*’(?![\p{L}\p{M}])|(?<![\p{L}\p{M}])'[^']*'(?![\p{L}\p{M}])")
_LONGEST_CLOSING = 5  # words, as in "your friend from the village, Robin"
_VERB = regex.compile(  # the frequent ones, which end a sentence or a clause
    normalise(
        r"(?:কর|পার|থাক|দেখ|বল|রাখ(?!ি)|শোন|শুন|বোঝ|বুঝ|জান|পড়|লেখ|লিখ|ভাব|খোঁজ|খুঁজ|চল|আছ|হ|যা|আস|দে|দি|নে|নি)"
        r"(?:েন|ুন|ন|ি|ো|ে|ছি|ছে|ছেন|বেন|বে|বো|তে|লে|লো|লাম|লেন|তাম|তেন|েছ(?:ি|ে|েন|িল|িলাম|িলেন))"
        r"|ছিল(?:াম|েন|ে)?|নেই|নয়|হয়|হব|যায়|দেয়|নেয়|লাগে|পাবেন"
    )
)
_NO_NAME = set(
    normalise(
        """আমি আমার আমরা আমাদের তুমি তোমার তোমাদের আপনি আপনার আপনাদের তিনি তাঁর তাঁদের তার তাদের সে ও এটা সেটা এই সেই যে
        যেমন এমন একজন একটা একটাই কি কী না তো বা এবং এখন তখন আজ আগে পরে প্রথমে তারপর জন্য সঙ্গে কারও কাউকে কেউ নাম ডিগ্রি লেখা
        পাশ পেশায় তাঁরা ওঁরা ওরা উনি সবাই লক্ষ্য স্বপ্ন ধাপ"""
    ).split()
)


def is_signed(answer: str) -> bool:
    """Returns whether a line of an answer ends with a name and degree, or the answer with a letter's closing words.

    A degree that a sentence mentions is no signature, and neither is what closes a letter that the answer quotes.
    """
    own = _QUOTED.sub(" ", answer)
    own = normalise(own) if regex.search(r"\p{L}", own) else answer.strip("“”«»\"‘’'")
    if _ANY_DEGREE.search(own):  # quick, and seldom there
        matches = _NAME_WITH_DEGREE.finditer(own, overlapped=True)
        if any(_is_name(match["name"].split()) for match in matches):
            return True
    closing = _CLOSING.search(own)
    if not closing or _LETTER_INSIDE.search(own, endpos=closing.start()):
        return False
    words = regex.findall(r"[\p{L}\p{M}]+", closing["name"])
    return len(words) <= _LONGEST_CLOSING and not any(map(_VERB.fullmatch, words))


def _is_name(words: list[str]) -> bool:
    """Returns whether the last of these words, those after a verb, can be a name: more than degrees, and no pronoun."""
    verbs = [place for place, word in enumerate(words) if _VERB.fullmatch(word)]
    words = words[verbs[-1] + 1 :] if verbs else words
    words = [word for word in words if not _ANY_DEGREE.fullmatch(word)]
    return bool(words) and _NO_NAME.isdisjoint(words)
