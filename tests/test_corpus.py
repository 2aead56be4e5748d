"""Reading, cleaning, grouping and splitting, and the embedded corpus itself."""

from collections import Counter

import pandas
import pytest

from helpers import corpus, text

ROW = {"Topics": "শোক", "Question-Title": "", "Questions": "মন ভালো নেই আজ।", "Answers": "আপনার কষ্টটা বুঝতে পারছি।"}


def table(*rows):
    return pandas.DataFrame([{**ROW, **row} for row in rows])[corpus.COLUMNS]


def write(path, rows):
    table(*rows).to_csv(path, index=False)
    return path


def test_the_embedded_corpus_has_the_real_ones_shapes():
    rows, _ = corpus.load("embedded")
    assert list(rows.columns) == corpus.COLUMNS
    assert len(rows) >= 300 and rows.Topics.nunique() >= 12
    assert rows.Answers.is_unique, "an answer stands twice"
    answers = rows.groupby("Questions").size()
    assert (answers >= 2).sum() >= 50, "questions with several answers"
    dialogues = rows[rows["Question-Title"] == ""]
    assert len(dialogues) >= 120, "rows that are turns of a dialogue"
    lengths = rows.Answers.str.len()
    assert lengths.min() < 40 and lengths.max() > 600
    assert (rows.Questions + rows.Answers).map(text.bengali_share).min() > 0.95


def test_no_row_of_the_embedded_corpus_is_dropped_and_none_is_filled_from_a_template():
    kept, dropped = corpus.clean(corpus.load("embedded")[0])
    assert dropped.empty
    openings = Counter(tuple(text.words(answer)[:4]) for answer in kept.Answers)
    assert openings.most_common(1)[0][1] <= 3
    fives = Counter(
        five
        for answer in kept.Answers
        for words in [text.words(answer)]
        for five in {tuple(words[n : n + 5]) for n in range(len(words) - 4)}
    )
    assert fives.most_common(1)[0][1] <= 4, "the same five words in many answers"


def test_the_corpus_file_is_found_with_the_space_in_its_name(tmp_path):
    path = write(tmp_path / "BengaliEmpatheticConversationsCorpus .csv", [{}, {"Questions": "আরেকটা প্রশ্ন"}])
    assert len(corpus.load(str(path))[0]) == 2


def test_columns_are_exact_names_and_spaces_around_them_do_not_matter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("﻿Topics, Question-Title ,Questions,Answers\nক,খ,গ,ঘ\n", encoding="utf-8")
    assert corpus.load(str(path))[0].iloc[0].to_dict() == dict(zip(corpus.COLUMNS, "কখগঘ"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_table_formats_read_the_same(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    rows = table({}, {"Topics": "চাকরি"})
    rows.to_parquet(path) if kind == "parquet" else rows.to_json(path, orient="records", lines=True, force_ascii=False)
    assert corpus.load(str(path))[0].equals(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"empty \(0 bytes\)"),
        ("a.csv", b"Topics,Question-Title,Questions,Answers\n", "no row"),
        ("a.csv", "Question,Answers\nক,খ\n".encode(), r"no column 'Topics'.*Found: \['Question', 'Answers'\]"),
        ("a.csv", "Topics,Question-Title,Questions,Answers\nক,খ,গ,ঘ\n".encode("utf-16"), "not UTF-8.*iconv"),
        ("a.csv", b'Topics,Questions\n"a\nb,c', "cannot be read as .csv"),
        ("a.jsonl", b"{not json}\n", "cannot be read as .jsonl"),
        ("a.xlsx", b"x", r"ends in '.xlsx': expected one of .csv, .jsonl, .parquet"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        corpus.load(str(path))


def test_a_missing_file_says_what_may_stand_there():
    with pytest.raises(FileNotFoundError, match="no such file.*kaggle:owner/name"):
        corpus.load("nowhere.csv")


@pytest.mark.parametrize("name", ["kaggle:somebody/some-corpus", "hf:somebody/some-corpus"])
def test_a_remote_name_without_network_says_what_to_do(name, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ConnectionError, match="pass its path as.*prepare_data.dataset"):
        corpus.load(name)


@pytest.mark.parametrize("mount", ["some-corpus", "datasets/somebody/some-corpus"])
def test_an_attached_kaggle_data_set_is_read_where_it_is_mounted(tmp_path, monkeypatch, mount):
    (tmp_path / mount).mkdir(parents=True)
    write(tmp_path / mount / "Corpus .csv", [{}])
    monkeypatch.setattr(corpus, "KAGGLE_INPUT", tmp_path)
    rows, source = corpus.load("kaggle:somebody/some-corpus")
    assert len(rows) == 1 and "Corpus .csv" in source


def test_each_rule_drops_its_row_and_no_other():
    rows = table(
        {},
        {"Answers": ""},
        {"Questions": " \u200b\n "},
        {"Questions": "কী?"},
        {"Questions": "আমি ভালো নেই।", "Answers": "আমি  ভালো নেই"},
        {},
        {"Answers": "অন্য একটা উত্তর।"},
    )
    kept, dropped = corpus.clean(rows)
    assert list(dropped.rule) == [
        "missing side",
        "too short",
        "too short",
        "question is the answer",
        "exact duplicate",
    ]
    assert list(kept.Answers) == [ROW["Answers"], "অন্য একটা উত্তর।"]


def test_nothing_left_after_cleaning_is_an_error_that_counts_the_rules():
    with pytest.raises(ValueError, match="all 2 rows were dropped.*'missing side': 2"):
        corpus.clean(table({"Answers": ""}, {"Questions": ""}))


def test_the_same_question_and_the_turns_of_a_dialogue_are_one_group():
    rows, _ = corpus.clean(
        table(
            {"Topics": "ক", "Question-Title": "শিরোনাম", "Questions": "প্রথম প্রশ্ন কী?", "Answers": "উত্তর এক এখানে"},
            {"Topics": "খ", "Question-Title": "শিরোনাম", "Questions": "প্রথম প্রশ্ন কী।", "Answers": "উত্তর দুই এখানে"},
            {"Topics": "গ", "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
            {"Topics": "গ", "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
            {"Topics": "ঘ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
        )
    )
    found = corpus.groups(rows)
    assert found[0] == found[1] and found[2] == found[3]
    assert len(set(found)) == 3


def test_a_long_run_of_one_topic_is_a_sorted_table_and_not_one_dialogue():
    rows, _ = corpus.clean(table(*({"Questions": f"প্রশ্ন নম্বর {n} বলছি"} for n in range(40))))
    assert len(set(corpus.groups(rows))) == 40


def test_the_split_keeps_groups_whole_fills_the_shares_and_depends_on_the_seed():
    groups = [f"g{n % 90}" for n in range(300)]
    parts = corpus.split(groups, 0.8, 0.1, 7)
    assert len({(group, part) for group, part in zip(groups, parts)}) == 90
    counts = Counter(parts)
    assert abs(counts["train"] - 240) <= 4 and abs(counts["val"] - 30) <= 4
    assert parts == corpus.split(groups, 0.8, 0.1, 7) != corpus.split(groups, 0.8, 0.1, 8)


@pytest.mark.parametrize(
    ("shares", "rows", "message"), [((0.9, 0.1), 9, "leave no test part"), ((0.8, 0.1), 2, "at least 3")]
)
def test_a_split_that_cannot_be_is_refused(shares, rows, message):
    with pytest.raises(ValueError, match=message):
        corpus.split([f"g{n}" for n in range(rows)], *shares, 0)


def test_overlap_counts_rows_whose_question_stands_in_another_part(embedded_rows):
    first, second, third = embedded_rows[:3]
    assert corpus.overlap({"train": [first], "val": [second], "test": [third]}) == 0
    assert corpus.overlap({"train": [first, second], "val": [second], "test": [third, first]}) == 2


def test_a_sample_is_spread_over_the_table_and_keeps_its_order():
    rows, _ = corpus.clean(table(*({"Questions": f"প্রশ্ন নম্বর {n} বলছি"} for n in range(200))))
    picked = corpus.sample(rows, 50, 1)
    places = [rows.index[rows.id == row_id][0] for row_id in picked.id]
    assert len(picked) == 50 and places == sorted(places) and max(places) > 150
    assert list(picked.id) == list(corpus.sample(rows, 50, 1).id) != list(corpus.sample(rows, 50, 2).id)
