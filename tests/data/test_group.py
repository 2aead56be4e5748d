"""Grouping: which rows belong together, and which only look like it."""

from tables import cleaned

from helpers.data.clean import clean_table
from helpers.data.group import group_rows, link_rows, measure_title_agreement
from helpers.data.load import load_table
from helpers.data.rows import join_dialogues


def group(kept, near_duplicate=0.8):
    return group_rows(kept, link_rows(kept, near_duplicate))


def test_the_same_question_is_one_group():
    titled = {"Question-Title": "শিরোনাম"}
    kept = cleaned(
        {**titled, "Topics": "ক", "Questions": "প্রথম প্রশ্ন কী?", "Answers": "উত্তর এক এখানে"},
        {**titled, "Topics": "খ", "Questions": "প্রথম প্রশ্ন কী।", "Answers": "উত্তর দুই এখানে"},
        {"Topics": "ঘ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
    ).kept
    groups = group(kept)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 2


def test_the_turns_of_a_dialogue_are_one_group():
    kept = cleaned(
        {"Topics": "গ", "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
        {"Topics": "গ", "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
        {"Topics": "ঘ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
    ).kept
    groups = group(kept)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 2


def test_near_duplicates_are_one_group_unless_they_are_short():
    words = "আজ সকাল থেকে মনটা খুব ভারী হয়ে আছে কিছুতেই কাজে মন বসছে না"
    kept = cleaned(
        {"Topics": "ক", "Questions": words, "Answers": "উত্তর এক এখানে"},
        {"Topics": "খ", "Questions": words.replace("খুব", "ভীষণ"), "Answers": "উত্তর দুই এখানে"},
        {"Topics": "গ", "Questions": "কেমন আছেন আপনি", "Answers": words},
        {"Topics": "ঘ", "Questions": "আপনি আছেন কেমন ভাই", "Answers": words + " একদম"},
        {"Topics": "ঙ", "Questions": "কেমন আছেন আপনি আজ", "Answers": "অন্য কিছু বলি"},
    ).kept
    groups = group(kept)
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3
    assert len(set(group(kept, 0.0))) == 5, "near-duplicates were joined although none were looked for"


def test_a_long_run_of_one_topic_is_not_one_dialogue():
    kept = cleaned(*({"Questions": f"প্রশ্ন নম্বর {n} বলছি"} for n in range(40))).kept
    assert len(set(group(kept, 0.0))) == 40


def test_the_turns_of_a_titled_dialogue_are_one_group_too():
    titled = {"Topics": "ক", "Question-Title": "একই শিরোনাম"}
    kept = cleaned(
        {**titled, "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
        {**titled, "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
        {**titled, "Question-Title": "অন্য শিরোনাম", "Questions": "তৃতীয় কথা বলি", "Answers": "তৃতীয় উত্তর দিই"},
    ).kept
    groups = group(kept, 0.0)
    assert groups[0] == groups[1] != groups[2]
    assert len(join_dialogues(kept.assign(group=groups, part="train"))) == 3, "several answers became one conversation"


def test_pairs_of_dropped_rows_are_ignored():
    kept = cleaned({"Answers": "উত্তর এক এখানে"}, {"Answers": "উত্তর দুই এখানে"}).kept
    first, second = kept.id
    assert group_rows(kept, {"a test": [(first, "gone"), ("gone", second)]}) == [first, second]


def test_titles_of_other_rows_do_not_fit_their_own(planted_file):
    agreement = measure_title_agreement(planted_file.corpus.kept, 0)
    assert agreement["their own"] < agreement["another row's"] + 0.1


def test_titles_of_the_embedded_corpus_fit_their_own():
    agreement = measure_title_agreement(clean_table(load_table("embedded")[0]).kept, 0)
    assert agreement["their own"] > agreement["another row's"] + 0.2


def test_without_titles_there_is_no_agreement(planted_file):
    kept = planted_file.corpus.kept
    assert not measure_title_agreement(kept[kept.title == ""], 0)
