"""A keyword rubric for empathy: four checks of 25 points each, over Bengali word forms.

It reads words, not meaning: a reply that uses the words coldly scores high, a warm one in other words scores low. It
compares systems; it does not judge one reply.
"""

from helpers import text

LENGTH = (10, 100)  # words
STEMS = {  # a word that begins with one of these counts; a stem of two words must stand in this order
    "empathy": ("কষ্ট দুঃখ বেদনা ব্যথা যন্ত্রণা সহানুভূতি সমবেদনা মায়া ভালোবাসা অনুভব আন্তরিক আপন স্নেহ ভরসা সান্ত্বনা").split(),
    "acknowledgement": [
        *"বুঝতে বুঝি বুঝেছি স্বাভাবিক সত্যিই শুনছি শুনে শুনলাম অনুভব কঠিন খারাপ ক্লান্ত ভয়".split(),
        "মন খারাপ",
        "টের পা",
    ],
    "support": [
        *"পাশে সাহায্য পরামর্শ চেষ্টা বলুন বলো জানান জানাও দেখুন দেখো করুন করো নিন নাও একা সঙ্গে যান যাও".split(),
        "কথা বল",
    ],
}

PROMPTS = [  # sad and lonely; lost a job; failed an exam; quarrelled with the family; under pressure and sleepless
    "আজ খুব মন খারাপ, নিজেকে ভীষণ একা লাগছে।",
    "গত সপ্তাহে আমার চাকরিটা চলে গেছে, কী করব বুঝতে পারছি না।",
    "পরীক্ষায় ফেল করেছি, বাড়িতে মুখ দেখাতে পারছি না।",
    "বাড়ির সবার সঙ্গে ঝগড়া হয়ে গেছে, কারও সঙ্গে কথা বলতে ইচ্ছে করে না।",
    "এত চাপের মধ্যে আছি যে কয়েক রাত ধরে ঘুমাতে পারি না।",
]


def _says(words: list[str], stem: str) -> bool:
    parts = stem.split()
    return any(
        all(word.startswith(part) for word, part in zip(words[place:], parts))
        for place in range(len(words) - len(parts) + 1)
    )


def score(reply: str) -> dict:
    """Returns the four checks (0 or 1) and `total`, 0 to 100, for one reply."""
    words = text.words(reply)
    normal = {check: [" ".join(text.words(stem)) for stem in stems] for check, stems in STEMS.items()}
    checks = {check: int(any(_says(words, stem) for stem in stems)) for check, stems in normal.items()}
    checks["length"] = int(LENGTH[0] <= len(words) <= LENGTH[1])
    return {**checks, "total": 25 * sum(checks.values())}
