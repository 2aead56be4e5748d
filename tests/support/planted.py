"""A file in the corpus's format with every known defect planted at known rows; its text is random words."""

import random

import pandas

from helpers.data.clean import DROPS
from helpers.data.load import COLUMNS, load_table

TOPICS = [f"বিষয়{letter}{vowel}" for letter in "কগচজটডতদ" for vowel in "ািুে"]  # 32
SINGLE = {  # rule that must drop the row: what is done to a sound (question, answer)
    "missing side": [lambda q, a: ("", a), lambda q, a: (q, " \u200b\n"), lambda q, a: (q, "")],
    "list cell": [
        lambda q, a: (q, str([a])),
        lambda q, a: (q, f'["{a}", "{q}"]'),
        lambda q, a: (str([q]), a),
    ],
    "too short": [lambda q, a: ("কী?", a), lambda q, a: (q, "হুম")],
    "url": [
        lambda q, a: (q, f"{a} https://example.com/page দেখুন"),
        lambda q, a: (q, f"{a} www. example. com"),
        lambda q, a: (q, f"{a} example.org সাইটে যান"),
    ],
    "signature": [
        lambda q, a: (q, f"{a} রবিন শিল্পী, LMFT"),
        lambda q, a: (q, f"{a} রবিন শিল্পী, পিএইচডি"),
        lambda q, a: (q, f"{a} শুভেচ্ছান্তে, রবিন শিল্পী।"),
    ],
    "foreign crisis number": [
        lambda q, a: (q, f"{a} বিপদে ৯১১ নম্বরে ফোন করুন।"),
        lambda q, a: (q, f"{a} এখনই ১-৮০০-২৭৩-৮২৫৫ এ কথা বলুন।"),
        lambda q, a: (q, f"{a} 1-800-273-8255 এ কথা বলুন।"),
        lambda q, a: (q, f"{a} 988 নম্বরটি রাখুন।"),
        lambda q, a: (q, f"{a} (800) 273 8255 নম্বরে।"),
        lambda q, a: (q, f"{a} মন না মানলে ৯৮৮-তে কথা বলুন।"),
    ],
    "not Bengali": [
        lambda q, a: (q, "I hear how hard this has been for you and I am here with you."),
        lambda q, a: ("This is how I feel today, what shall I do now?", a),
        lambda q, a: (q, "আপোনাৰ কষ্ট মই বুজি পাইছোঁ, আপুনি অকলশৰীয়া নহয়।"),  # Assamese
    ],
}
REPAIRED = {  # rule that must change the row: (what is done, what must be back)
    "entities": lambda a: a.replace(" ", "&nbsp ;", 1) + " &amp; আরও",
    "mojibake": lambda a: a.replace(" ", " Â ", 1),
    "markup": lambda a: a.replace(" ", " < ", 1),
}
SOUND = [  # near-misses that no rule may touch
    "একজন কাউন্সেলরের সঙ্গে কথা বলা যায়, ডাক্তারও আছেন পাশে।",
    "সেদিন ২৯১১৭ নম্বর ট্রেনে ফিরছিলাম, বাড়ি পৌঁছে কাঁদলাম।",
    "সরকারি সহায়তার জন্য স্থানীয় হাসপাতালে খোঁজ নেওয়া যায় আজই।",
    "ও বলল sorry, তারপর আর কথা হয়নি আমাদের মধ্যে কখনো।",
    "ইতি টানতে হয় একদিন, তবু মন মানে না কিছুতেই।",
    "রোল নম্বর 988 দেখে মা কেঁদে ফেললেন, ৯১১ টাকার মিষ্টি এল।",
    "[প্রথম পাতায়] লেখা ছিল 'ভালো থেকো', সেটাই শেষ চিঠি [দুঃখিত]",
    "আমার বোন MSW পড়ছে, তার কাছেও অনেক কিছু শিখেছি এবার।",
]


def make(  # noqa: C901 - a case per kind of row
    rows: int, seed: int = 0
) -> tuple[pandas.DataFrame, dict[str, list[int]], list[tuple[int, int]]]:
    """Returns the file's table, {rule: row numbers}, and pairs of rows that are near-duplicates of each other.

    About a twentieth of the rows is long and titled (the titles belong to other rows; a question has one to three
    answers), the rest are dialogues of two or three turns under one of 32 topics, some of them misspelt.
    """
    rng = random.Random(seed)
    pool = sorted({word.strip("।,?!") for row in load_table("embedded")[0].itertuples() for word in row.answer.split()})
    pool = [word for word in pool if word.isalpha() or len(word) > 3]

    def words(characters):
        chosen = rng.choices(pool, k=max(5, int(characters / 6.2)))
        return " ".join(chosen) + "।"

    table_rows, planted, near, topic = [], {rule: [] for rule in [*SINGLE, *REPAIRED, *DROPS, "sound"]}, [], ""
    long_rows = rows // 20
    while len(table_rows) < long_rows:
        question = words(rng.lognormvariate(5.6, 0.5))
        for _ in range(rng.choice([1, 1, 2, 3])):
            title = words(40) if rng.random() < 0.95 else words(20)
            table_rows.append([rng.choice(TOPICS), title, question, words(rng.lognormvariate(6.1, 0.7))])
    while len(table_rows) < rows:
        topic = rng.choice([other for other in TOPICS if other != topic])
        spelt = topic + "্য" if rng.random() < 0.02 else topic
        kind = rng.random()
        start = len(table_rows)
        touched = {number for numbers in planted.values() for number in numbers[-200:]}
        for _ in range(rng.choice([2, 2, 3])):
            table_rows.append([spelt, "", words(rng.lognormvariate(4.1, 0.4)), words(rng.lognormvariate(4.2, 0.5))])
        if kind < 0.06:
            rule = rng.choice(list(SINGLE))
            table_rows[start][2:] = rng.choice(SINGLE[rule])(*table_rows[start][2:])
            planted[rule].append(start)
        elif kind < 0.09:
            rule = rng.choice(list(REPAIRED))
            table_rows[start][3] = REPAIRED[rule](table_rows[start][3])
            planted[rule].append(start)
        elif kind < 0.10:
            table_rows[start][3] = table_rows[start][2].replace("।", " ।")
            planted["question is the answer"].append(start)
            planted["roles swapped"] += range(start + 1, len(table_rows))
        elif kind < 0.12 and start > long_rows + 50 and start - 30 not in touched:
            table_rows[start][2:] = table_rows[start - 30][2:]
            planted["exact duplicate"].append(start)
        elif kind < 0.16 and start > long_rows + 50 and start - 37 not in touched:
            source = start - 37
            sentence = table_rows[source][2].split()
            sentence[rng.randrange(len(sentence))] = rng.choice(pool)
            table_rows[start][2] = " ".join(sentence)
            near.append((source, start))
        elif kind < 0.18:
            table_rows[start][3] = rng.choice(SOUND) + " " + table_rows[start][3]
            planted["sound"].append(start)
    table = pandas.DataFrame(table_rows, columns=COLUMNS)
    spoilt = {number for rule in DROPS for number in planted[rule]}
    clean = {n for n in range(len(table))} - spoilt
    return table, planted, [(a, b) for a, b in near if a in clean and b in clean]


def undone(rule: str, answer: str) -> str:
    """Returns an answer without what REPAIRED put in."""
    return answer.replace({"entities": "&nbsp ;", "mojibake": " Â ", "markup": " < "}[rule], " ", 1)
