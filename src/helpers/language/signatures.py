"""A therapist's name under an answer, which is no part of it."""

import regex

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
_NAME = r"[\p{L}\p{M}.]+(?: [\p{L}\p{M}.]+)"
_ANY_DEGREE = regex.compile(_DEGREE, regex.IGNORECASE)
_NAME_WITH_DEGREE = regex.compile(
    rf"(?:^|(?<=[।.!?] )) ?{_NAME}{{0,2}}(?:, ?| ?\(){_DEGREES}[।.]?$"  # a sentence of its own
    rf"|(?:^|(?<=[।.!?] )|[—–-]) ?{_NAME}{{0,4}}(?:, ?| ?\(| ){_DEGREES}$"  # without a danda, which a sentence has
    rf"|, ?{_DEGREES}(?:, ?[\p{{L}}\p{{M}}]+){{0,2}}\Z",  # the answer's last words, perhaps with the place
    regex.IGNORECASE | regex.MULTILINE,
)
_CLOSING = regex.compile(r"(?:^|[।.!?\n])\s*(?:শুভেচ্ছান্তে|ধন্যবাদান্তে|বিনীত|ইতি)\s*[,\n]\s*[^।!?]{2,60}[।.]?\s*\Z")


def is_signed(answer: str) -> bool:
    """Returns whether a line of an answer ends with a name and degree, or the answer with a letter's closing words.

    A degree that a sentence mentions is no signature.
    """
    signed = _ANY_DEGREE.search(answer) and _NAME_WITH_DEGREE.search(answer)  # the first is quick, and seldom there
    return bool(signed or _CLOSING.search(answer))
