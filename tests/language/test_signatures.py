"""A therapist's signature is no part of an answer; a degree that a sentence mentions is."""

import pytest

from helpers.language.bengali import normalise
from helpers.language.signatures import is_signed

SIGNED = [
    "রবিন শিল্পী, LMFT",
    "রবিন শিল্পী, এলএমএফটি।",
    "রবিন শিল্পী, এম.এ., এলপিসি",
    "রবিন শিল্পী, M.S.W., LCSW",
    "রবিন শিল্পী, MA, LMHC, NCC",
    "রবিন শিল্পী LCSW",
    "ডা. রবিন শিল্পী, পিএইচ.ডি.",
    "Robin Shilpi, Psy.D.",
    "— রবিন শিল্পী, পিএইচডি",
    "- Robin Shilpi, MSW",
    "রবিন শিল্পী (LPC)",
    "রবিন শিল্পী, LMFT #00000",
    "রবিন, এলসিএসডব্লিউ-সি",
    "রবিন শিল্পী, এল.এম.এফ.টি.",
    "রবিন শিল্পী, LMFT, কলকাতা",
    "শুভকামনা, রবিন শিল্পী, LMFT",
    "শুভেচ্ছান্তে, রবিন শিল্পী।",
    "ইতি,\nরবিন শিল্পী",
    "ইতি, তোমার বন্ধু রবিন।",
    "ইতি, রাখি।",
    "ভালো থাকবেন রবিন শিল্পী, LMFT",
    "রবিন সেন, MSW",
    "রবিন হোসেন ইসলাম, পিএইচডি।",
    "রবিন “রবি” শিল্পী, LMFT",
    "রবিন শিল্পী LMFT, LCSW",
]
MENTIONED = [
    "আমার বোন MSW পড়ছে, তার কাছেও শুনেছি।",
    "একজন LCSW বা LMFT-র সঙ্গে কথা বলা যায়।",
    "পিএইচডি শেষ করার চাপ কম নয়।",
    "আপনি পিএইচডি করছেন, তাই সময় কম।",
    "তিনি এখন MSW।",
    "আপনার ডিগ্রি এমএসডব্লিউ।",
    "লাইসেন্স আছে এমন কাউকে খুঁজুন, যেমন LMFT, LCSW, LPC।",
    "লাইসেন্স আছে এমন কাউকে খুঁজুন (যেমন LMFT, LCSW)।",
    "আপনার স্বপ্ন তো একটাই, পিএইচডি।",
    "প্রথমে MSW, তারপর পিএইচডি।",
    "দিদি, MSW, খুব সাহায্য করেছেন আপনাকে।",
    "Ph.D করা মানেই ভালো থাকা নয়।",
    "তাঁর নামের পাশে লেখা ছিল Psy.D, সেটা দেখে ভরসা পেয়েছেন।",
    "সম্পর্কের ইতি, তারপর নতুন শুরু হতে পারে।",
    "আপনি কি MSW?",
    "তিনি এখন পিএইচডি",
    "তিনি এখন পিএইচডি।",
    "আমার দিদি, MSW।",
    "সে তো পিএইচডি, LMFT",
    "আপনি একজন কাউন্সেলরের সঙ্গে কথা বলতে পারেন, MSW",
    "কারও সঙ্গে কথা বলতে পারেন, MSW, কলকাতা",
    "লাইসেন্স আছে এমন কাউকে খুঁজুন, যেমন LMFT, LCSW",
    "তাঁর ডিগ্রি MSW",
    "ওঁরা সবাই LMFT",
    "এবার লক্ষ্য পিএইচডি",
    "ইতি, তোমার মা লেখা চিঠিটা রেখে দিন।",
    "ধন্যবাদান্তে, আবার লিখবেন কেমন আছেন।",
    "চিঠিটা এভাবে শুরু করুন: “মা, তোমার কথা মনে পড়ে। ইতি, তোমার ছেলে”",
    'বাবাকে লিখতে পারেন, "বাবা, আমি ভালো আছি।\nইতি,\nতোমার খোকা"',
    "তিনি লিখেছিলেন, ‘ভালো থেকো। রবিন শিল্পী, LMFT’",
    "এমন একটা চিঠি লিখুন:\nপ্রিয় মা,\nতোমার কথা মনে পড়ে।\nইতি,\nতোমার মেয়ে",
]
WHOLE = [  # answers that begin as a letter, or are one quotation: what closes them is the writer's
    "প্রিয় বন্ধু,\nতোমার কষ্ট বুঝি।\nইতি,\nরবিন শিল্পী",
    "“তোমার কষ্ট বুঝি। রবিন শিল্পী, LMFT”",
]
ANSWER = "আপনার কষ্টটা বুঝতে পারছি।"


@pytest.mark.parametrize("ending", SIGNED)
@pytest.mark.parametrize("before", [f"{ANSWER} ", f"{ANSWER}\n", f"{ANSWER}\n\n"])
def test_an_answer_with_a_name_and_degree_is_signed(before, ending):
    assert is_signed(normalise(before + ending))


@pytest.mark.parametrize("answer", WHOLE)
def test_a_letter_that_is_the_whole_answer_is_signed(answer):
    assert is_signed(normalise(answer))


@pytest.mark.parametrize("sentence", MENTIONED)
@pytest.mark.parametrize("form", [f"{ANSWER} {{}}", f"{{}} {ANSWER}", f"{ANSWER}\n{{}}\n{ANSWER}"])
def test_an_answer_that_mentions_a_degree_is_not_signed(form, sentence):
    assert not is_signed(normalise(form.format(sentence)))
