"""The check of the split: it finds what comparing everything with everything finds, whatever grouped the rows."""

import itertools
import random

import jupytext
import pytest
from tables import bengali_words, cleaned, write_csv_file

from helpers.data.group import link_rows
from helpers.data.leaks import NEAR_WORDS, LeakCheck, count_overlap, describe_leaks, find_leaks
from helpers.data.split import split_groups
from helpers.language.bengali import split_words
from helpers.runs.settings import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "01_prepare_data.py"
WORDS = [f"শব্দ{letter}" for letter in "কখগঘচছজঝটঠডঢতথদধপফবভমযরলশ"]


def write_rows(seed, rows=60):
    """Returns rows of few words, so that many questions and answers are equal or near-duplicates."""
    rng = random.Random(seed)

    def write():
        return " ".join(rng.sample(WORDS, rng.randrange(3, 14)))

    texts = [write() for _ in range(rows // 8)]

    def retell():
        words = rng.choice(texts).split()
        words[rng.randrange(len(words))] = rng.choice([*words, *WORDS[:9]])
        return " ".join(rng.sample(words, len(words)) if rng.random() < 0.5 else words)

    return [
        {
            "Topics": rng.choice(["", "ক", "ক", "খ", "গ"]),
            "Questions": rng.choice([write, retell, lambda: rng.choice(texts)])(),
            "Answers": "কী?" if rng.random() < 0.1 else rng.choice([write, retell])(),
        }
        for _ in range(rows)
    ]


def compare_everything(kept, dropped, part, threshold, longest):
    """Returns {reason: held-out rows with a twin in another part}, by comparing each row with each."""
    topic_of = {row.number: row.topic for row in [*kept.itertuples(), *dropped.itertuples()]}
    words_of = {(n, side): set(split_words(text)) for side in NEAR_WORDS for n, text in zip(kept.number, kept[side])}

    def are_neighbours(a, b):
        low, high = sorted((a.number, b.number))
        start, end = low, low
        while topic_of.get(start - 1) == a.topic:
            start -= 1
        while topic_of.get(end + 1) == a.topic:
            end += 1
        alone = not set(range(low + 1, high)) & set(kept.number)
        return topic_of[low] == a.topic != "" and high <= end and alone and end - start < longest

    def are_near(a, b, side):
        first, second = words_of[a.number, side], words_of[b.number, side]
        enough = min(len(first), len(second)) >= NEAR_WORDS[side]
        return enough and len(first & second) / len(first | second) >= threshold

    reasons = {
        "the same question": lambda a, b: a.question == b.question,
        "an adjacent row of the same topic": are_neighbours,
        "a near-duplicate question": lambda a, b: are_near(a, b, "question"),
        "a near-duplicate answer": lambda a, b: are_near(a, b, "answer"),
    }
    places = {reason: set() for reason in reasons}
    for (a, here), (b, there) in itertools.permutations(zip(kept.itertuples(), part), 2):
        if here != "train" and here != there:
            for reason in [reason for reason, is_twin in reasons.items() if is_twin(a, b)]:
                places[reason].add(a.number)
    return {reason: len(rows) for reason, rows in places.items()}, len(set().union(*places.values()))


@pytest.mark.parametrize("threshold", [0.5, 0.65, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_check_finds_what_comparing_everything_finds(seed, threshold):
    corpus = cleaned(*write_rows(seed))
    part = [random.Random(row_id).choice(["train", "train", "val", "test"]) for row_id in corpus.kept.id]
    check = find_leaks(corpus.kept, corpus.dropped, {"a test": part}, threshold, longest=4)["a test"]
    reasons, leaked = compare_everything(corpus.kept, corpus.dropped, part, threshold, 4)
    assert check.reasons == reasons
    assert check.leaked == leaked
    assert min(reasons.values()) > 0 or threshold == 1, "the rows have no twin of one kind: they test nothing"


def test_rows_under_titles_of_other_rows_are_no_neighbours():
    own = [{"Topics": f"বিষয় {n}", "Questions": f"কথা নম্বর {n}", "Question-Title": "কথা"} for n in range(30)]
    foreign = {"Topics": "ক", "Question-Title": "অন্য সারির"}
    rows = [*own, {**foreign, "Questions": "প্রথম প্রশ্ন করি"}, {**foreign, "Questions": "দ্বিতীয় প্রশ্ন করি"}]
    corpus = cleaned(*rows)
    for titles in ("অন্য সারির", "প্রশ্ন"):
        kept = corpus.kept.assign(title=corpus.kept.title.replace("অন্য সারির", titles))
        check = find_leaks(kept, corpus.dropped, {"a test": ["train"] * 31 + ["test"]}, 0.0, 4)["a test"]
        assert check.leaked == (titles == "প্রশ্ন")


def test_near_duplicates_are_not_looked_for_at_zero():
    corpus = cleaned(*write_rows(0))
    part = split_groups(list(corpus.kept.id), 0.8, 0.1, 1)
    reasons = find_leaks(corpus.kept, corpus.dropped, {"a test": part}, 0.0, 4)["a test"].reasons
    assert list(reasons) == ["the same question", "an adjacent row of the same topic"]


@pytest.fixture
def retold(tmp_path):
    """Returns a file of 60 questions, each told a second time with one other word."""
    rng, words = random.Random(0), bengali_words()
    rows = []
    for _ in range(60):
        question = rng.sample(words, 14)
        for words_asked in (question, [*question[:-1], rng.choice(words)]):
            answer = " ".join(rng.sample(words, 14))
            rows.append({"Topics": f"বিষয় {len(rows)}", "Questions": " ".join(words_asked), "Answers": answer})
    return write_csv_file(tmp_path / "retold.csv", *rng.sample(rows, len(rows)))


def run_notebook_check(file):
    """Runs the cells of 01_prepare_data up to its check of the split, on a file."""
    cells = [cell for cell in jupytext.read(NOTEBOOK).cells if cell.cell_type == "code"]
    names = {}
    for cell in cells[1:]:  # the first finds the helpers
        exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"run_name": "check", "outputs": str(file.parent), "dataset": str(file)}
        if "check_split(" in cell.source:
            return names["split_check"]
    raise AssertionError("01_prepare_data no longer calls check_split: this test checks nothing")


def test_the_notebook_finds_no_leak_in_its_own_split(retold):
    check = run_notebook_check(retold)
    assert check.grouped.leaked == 0
    assert check.row_wise.reasons["a near-duplicate question"] > 10, "the file has no twins: it tests nothing"


def test_the_notebook_stops_when_near_duplicates_are_parted(retold, monkeypatch):
    """The split is made as if nobody had looked for near-duplicates; the check must look by itself."""
    monkeypatch.setattr("helpers.data.group.link_rows", lambda table, near_duplicate: link_rows(table, 0.0))
    with pytest.raises(ValueError, match="the split leaks: .*'a near-duplicate question': [1-9]"):
        run_notebook_check(retold)


def test_a_twin_in_the_same_part_is_no_leak():
    corpus = cleaned(*write_rows(1))
    check = find_leaks(corpus.kept, corpus.dropped, {"a test": ["test"] * len(corpus.kept)}, 0.8, 4)["a test"]
    assert check.held_out == len(corpus.kept)
    assert check.share == 0


def test_the_twins_split_leaks_nothing(twin):
    kept, dropped = twin.corpus.kept, twin.corpus.dropped
    splits = {"by group": kept.part, "by row": split_groups(list(kept.id), 0.8, 0.1, 1)}
    checks = find_leaks(kept, dropped, splits, 0.8, twin.corpus.order.longest)
    assert checks["by group"].leaked == 0, checks["by group"].reasons
    assert checks["by row"].share > 0.5, "the twin has no twins: the check tests nothing"
    assert min(list(checks["by row"].reasons.values())[:3]) > 0


def test_what_was_looked_for_is_said():
    corpus = cleaned(*write_rows(2))
    check = find_leaks(corpus.kept, corpus.dropped, {"a test": ["train"] * len(corpus.kept)}, 0.8, 24)["a test"]
    sentence = describe_leaks(check, check, 0.8, 24, 60, 7)
    for part in (
        "0 of 0",
        "word for word",
        "similarity of words of 0.8 or more",
        "runs of up to 24 rows",
        "Not looked for: turns of one dialogue whose rows stand apart",
        "in longer runs of one topic (60 rows)",
        "7 adjacent rows of one topic under titles in other words",
    ):
        assert part in sentence, part


def test_the_share_of_the_same_question_is_told_apart():
    by_row = LeakCheck(40, 30, {"the same question": 7, "an adjacent row of the same topic": 28})
    sentence = describe_leaks(LeakCheck(40, 0, {}), by_row, 0.8, 24, 0)
    assert "it would be 75.0%, dialogue turns included, and 17.5% for the same question alone." in sentence


def test_what_was_not_looked_for_is_said():
    corpus = cleaned(*write_rows(2))
    check = find_leaks(corpus.kept, corpus.dropped, {"a test": ["train"] * len(corpus.kept)}, 0.0, 1)["a test"]
    sentence = describe_leaks(check, check, 0.0, 1, 0)
    assert "Looked for: the same question, word for word. Not looked for: near-duplicates; turns of one" in sentence


def test_overlap_counts_questions_of_another_part(embedded_rows):
    first, second, third = embedded_rows[:3]
    assert count_overlap({"train": [first], "val": [second], "test": [third]}) == 0
    assert count_overlap({"train": [first, second], "val": [second], "test": [third, first]}) == 2


def test_overlap_counts_plain_texts_too(embedded_rows):
    plain = {"id": "x", "group": "x", "source": "x", "text": "একই লেখা"}
    assert count_overlap({"train": [plain], "val": [embedded_rows[0]], "test": [plain]}) == 1


def test_thanks_in_two_conversations_are_no_overlap():
    turns = ["মন ভালো নেই আজ", "বলুন", "ধন্যবাদ", "ভালো থাকবেন"]
    rows = [
        {
            "messages": [
                {"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, [first, *turns[1:]])
            ]
        }
        for first in ("মন ভালো নেই আজ", "রাতে ঘুম হয় না")
    ]
    assert count_overlap({"train": rows[:1], "val": rows[1:], "test": []}) == 0
