"""Defects that rows are planted with, by the rule that must see them, and near-misses that no rule may touch."""

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
HARD = {  # what should be dropped by the rule and is written in a way that the rule does not know
    "too short": [lambda q, a: (q, "হুম, হুম।")],
    "url": [lambda q, a: (q, f"{a} এক্সাম্পল ডট কম সাইটে দেখুন।")],
    "signature": [
        lambda q, a: (q, f"{a} রবিন শিল্পী, লাইসেন্সপ্রাপ্ত পরামর্শদাতা।"),
        lambda q, a: (q, f"{a} রবিন শিল্পী MSW।"),
    ],
    "foreign crisis number": [lambda q, a: (q, f"{a} বিপদে নাইন ইলেভেনে ফোন করুন।")],
    "not Bengali": [lambda q, a: (q, f"{a} I am here with you.")],
}
REPAIRED = {  # rule that must change the row: what is done to an answer, its words apart
    "entities": [lambda a: a.replace(" ", "&nbsp ;", 1), lambda a: a.replace("।", " &amp;।", 1)],
    "mojibake": [lambda a: a.replace(" ", " Â ", 1), lambda a: a.replace("। ", "।Â Â ", 1) + " Â"],
    "markup": [
        lambda a: a.replace(" ", " < ", 1),
        lambda a: f'<p class="MsoNormal">{a}</p>',
        lambda a: a.replace("। ", "।<br />", 1) + "<br>",
    ],
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
    "আপনার MSW ডিগ্রিটা কাজে লাগানোর অনেক পথ খোলা আছে।",
    "তিনি আমার কথা আমার মতোই বলেন, তবু মনটা হালকা হয়।",
]
