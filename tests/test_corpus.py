"""Reading, cleaning, grouping, splitting and sampling, and the embedded corpus itself."""

import io
import itertools
import json
import random
from collections import Counter

import pandas
import planted
import pytest

from helpers import corpus, text

ROW = {"Topics": "শোক", "Question-Title": "", "Questions": "মন ভালো নেই আজ।", "Answers": "আপনার কষ্টটা বুঝতে পারছি।"}


def table(*rows):
    return pandas.DataFrame([{**ROW, **row} for row in rows])[corpus.COLUMNS]


def rows_of(*rows):
    """The rows as the table that cleaning reads."""
    return corpus.as_rows(table(*rows), "auto", "a test")[0]


def clean(*rows, **options):
    return corpus.clean(rows_of(*rows), **options)


def all_pairs(kept, near_duplicate=0.8):
    return [pair for pairs in corpus.links(kept, near_duplicate).values() for pair in pairs]


def write(path, rows):
    table(*rows).to_csv(path, index=False)
    return path


def test_the_embedded_corpus_has_the_real_ones_shapes():
    rows, about = corpus.load("embedded")
    assert about["format"] == "qa" and about["rows"] == len(rows) and not about["published"]
    assert len(rows) >= 300 and rows.topic.nunique() >= 12
    assert rows.answer.is_unique, "an answer stands twice"
    assert (rows.groupby("question").size() >= 2).sum() >= 50, "questions with several answers"
    assert (rows.title == "").sum() >= 120, "rows that are turns of a dialogue"
    lengths = rows.answer.str.len()
    assert lengths.min() < 40 and lengths.max() > 600
    assert (rows.question + rows.answer).map(text.bengali_share).min() > 0.95


def test_no_row_of_the_embedded_corpus_is_touched_and_none_is_filled_from_a_template():
    kept, dropped, funnel = corpus.clean(corpus.load("embedded")[0])
    assert dropped.empty and not any(step["changed"] or step["dropped"] for step in funnel)
    openings = Counter(tuple(text.words(answer)[:4]) for answer in kept.answer)
    assert openings.most_common(1)[0][1] <= 3
    fives = Counter(
        five
        for answer in kept.answer
        for words in [text.words(answer)]
        for five in {tuple(words[n : n + 5]) for n in range(len(words) - 4)}
    )
    assert fives.most_common(1)[0][1] <= 4, "the same five words in many answers"


def test_the_published_file_is_known_by_its_blob(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", [{}])
    import subprocess

    own = subprocess.run(["git", "hash-object", str(path)], capture_output=True, text=True).stdout.strip()
    assert corpus.load(str(path))[1]["blob_sha1"] == own
    monkeypatch.setitem(corpus.PUBLISHED, own, "the published one")
    assert corpus.load(str(path))[1]["published"] == "the published one"


def test_the_corpus_file_is_found_with_the_space_in_its_name(tmp_path):
    path = write(tmp_path / "BengaliEmpatheticConversationsCorpus .csv", [{}, {"Questions": "আরেকটা প্রশ্ন"}])
    assert len(corpus.load(str(path))[0]) == 2


def test_columns_are_exact_names_and_spaces_around_them_do_not_matter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffTopics, Question-Title ,Questions,Answers\r\nক,খ,গ,ঘ\r\n", encoding="utf-8")
    row = corpus.load(str(path))[0].iloc[0]
    assert [row.topic, row.title, row.question, row.answer] == list("কখগঘ")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_table_formats_read_the_same(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    rows = table({}, {"Topics": "চাকরি"})
    rows.to_parquet(path) if kind == "parquet" else rows.to_json(path, orient="records", lines=True, force_ascii=False)
    assert corpus.load(str(path))[0].equals(rows_of({}, {"Topics": "চাকরি"}))


TURNS = [
    ("system", "সহায়ক"),
    ("human", "প্রথম প্রশ্ন করি"),
    ("gpt", "প্রথম উত্তর দিই"),
    ("human", "আবার বলি"),
    ("gpt", "আবার শুনি"),
]


@pytest.mark.parametrize(("column", "names"), [("conversations", ("from", "value")), ("messages", ("role", "content"))])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_conversations_of_both_kinds_become_data_rows(tmp_path, column, names, kind):
    turns = [dict(zip(names, turn)) for turn in TURNS]
    raw = pandas.DataFrame({column: [turns, turns[1:3]]})
    path = tmp_path / f"a.{kind}"
    raw.to_parquet(path) if kind == "parquet" else raw.to_json(path, orient="records", lines=True, force_ascii=False)
    kept, _, _ = corpus.clean(corpus.load(str(path))[0])
    rows = corpus.data_rows(kept.assign(group="g"), "নিজের", "x")
    found = sorted((len(row["messages"]), row["messages"][0]["content"]) for row in rows)
    assert found == [(3, "নিজের"), (5, "সহা" + text.normalise("য়") + "ক")]
    assert {m["role"] for row in rows for m in row["messages"]} == {"system", "user", "assistant"}


def test_plain_text_has_rows_without_messages(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ["", " = শিরোনাম = ", "প্রথম অনুচ্ছেদ এখানে।", "দ্বিতীয় অনুচ্ছেদ এখানে।"]
    path.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    kept, dropped, _ = corpus.clean(corpus.load(str(path))[0])
    rows = corpus.data_rows(kept.assign(group="g"), "নিজের", "x")
    assert len(rows) == 3 and list(dropped.rule) == ["missing side"]
    assert all(set(row) == {"id", "group", "source", "text"} for row in rows)


def test_a_role_nobody_knows_names_its_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "oracle", "content": "ক"}]}))
    with pytest.raises(ValueError, match="row 1: expected a list of .*got .*oracle"):
        corpus.load(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"empty \(0 bytes\)"),
        ("a.csv", b"Topics,Question-Title,Questions,Answers\n", "no row"),
        (
            "a.csv",
            "Question,Answers\nক,খ\n".encode(),
            r"has the columns \['Question', 'Answers'\]. Expected, by exact name, qa: Topics",
        ),
        ("a.csv", "Topics,Question-Title,Questions,Answers\nক,খ,গ,ঘ\n".encode("utf-16"), "not UTF-8.*iconv"),
        ("a.csv", b'Topics,Questions\n"a\nb,c', "cannot be read as .csv"),
        ("a.jsonl", b"{not json}\n", "cannot be read as .jsonl"),
        ("a.csv", "Topics,Question-Title,Questions,Answers,Answers\nক,খ,গ,ঘ,ঙ\n".encode(), "'Answers' twice"),
        ("a.parquet", b"PAR1 no parquet", "cannot be read as .parquet"),
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
    rows, about = corpus.load("kaggle:somebody/some-corpus")
    assert len(rows) == 1 and "Corpus .csv" in about["source"]


def test_each_rule_drops_its_row_and_no_other():
    kept, dropped, funnel = clean(
        {},
        {"Answers": ""},
        {"Questions": " \u200b\n "},
        {"Questions": "কী?"},
        {"Topics": "অন্য", "Questions": "আমি ভালো নেই।", "Answers": "আমি  ভালো নেই"},
        {},
        {"Answers": "অন্য একটা উত্তর।"},
    )
    rules = ["missing side", "missing side", "too short", "question is the answer", "exact duplicate"]
    assert list(dropped.rule) == rules
    assert list(kept.answer) == [text.normalise(ROW["Answers"]), "অন্য একটা উত্তর।"]
    assert [step["rule"] for step in funnel] == corpus.RULES
    drops = [step for step in funnel if step["rule"] in corpus.DROPS]
    assert all(a["rows_out"] == b["rows_in"] for a, b in itertools.pairwise(drops)) and drops[-1]["rows_out"] == 2


@pytest.fixture(scope="module")
def planted_file():
    raw, planted_rows, near = planted.make(6000)
    rows, _ = corpus.as_rows(raw, "auto", "planted")
    rows["number"] = range(len(rows))
    return raw, rows, planted_rows, near, corpus.clean(rows)


def test_every_planted_defect_is_caught_by_its_rule_and_no_sound_row_is_dropped(planted_file):
    raw, rows, planted_rows, _, (kept, dropped, funnel) = planted_file
    caught = dict(zip(dropped.number, dropped.rule))
    for rule in corpus.DROPS:
        wanted, found = set(planted_rows[rule]), {number for number, by in caught.items() if by == rule}
        assert len(wanted) >= 10, f"only {len(wanted)} rows planted for {rule}"
        precision, recall = len(wanted & found) / len(found), len(wanted & found) / len(wanted)
        print(f"{rule}: {len(wanted)} planted, precision {precision:.3f}, recall {recall:.3f}")
        assert precision == recall == 1, (
            f"{rule}: missed {sorted(wanted - found)[:3]}, took {sorted(found - wanted)[:3]}"
        )
    assert len(planted_rows["sound"]) >= 20 and not set(planted_rows["sound"]) & set(caught)
    after = dict(zip(kept.number, kept.answer))
    for rule in corpus.REPAIRS:
        for number in set(planted_rows[rule]) & set(after):
            assert not any(mark in after[number] for mark in ("&nbsp", "&amp", "Â", "<")), after[number]
            assert text.words(after[number])[:3] == text.words(planted.undone(rule, raw.Answers[number]))[:3]
        changed = next(step["changed"] for step in funnel if step["rule"] == rule)
        assert changed >= len(planted_rows[rule]) >= 10


@pytest.mark.parametrize("rule", corpus.RULES)
def test_each_rule_can_be_switched_off(planted_file, rule):
    _, rows, planted_rows, _, _ = planted_file
    few = rows.iloc[:1500]
    _, dropped, funnel = corpus.clean(few, skip_rules=[rule])
    assert rule not in set(dropped.rule) and rule not in [step["rule"] for step in funnel]


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="skip_rules names 'urls': expected one of .*url"):
        clean({}, skip_rules=["urls"])


def test_misspelt_topics_are_put_to_the_one_they_vary(planted_file):
    raw, _, _, _, (kept, _, _) = planted_file
    assert raw.Topics.nunique() > 32 == kept.topic.nunique()


def test_titles_of_other_rows_are_told_from_titles_of_their_own(planted_file):
    *_, (kept, _, _) = planted_file
    foreign = corpus.title_agreement(kept, 0)
    assert foreign["own"] < foreign["another's"] + 0.1
    own = corpus.title_agreement(corpus.clean(corpus.load("embedded")[0])[0], 0)
    assert own["own"] > own["another's"] + 0.2
    assert corpus.title_agreement(kept[kept.title == ""], 0) is None


def brute_force(kept, part, side, fewest, threshold):
    """Counts pairs across parts by comparing everything with everything."""
    sets = [(frozenset(text.words(value)), where) for value, where in zip(kept[side], part)]
    sets = [(words, where) for words, where in sets if len(words) >= fewest]
    return sum(
        corpus.jaccard(a, b) >= threshold
        for (a, here), (b, there) in itertools.combinations(sets, 2)
        if here != there and min(len(a), len(b)) >= threshold * max(len(a), len(b))
    )


def test_no_group_and_no_near_duplicate_crosses_the_split_while_a_split_by_row_leaks(planted_file):
    *_, near, (kept, _, _) = planted_file
    kept = kept.iloc[:2000].reset_index(drop=True)
    group, part = corpus.divide(kept, all_pairs(kept), (0.8, 0.1), 1, 0.8)
    parts_of = {}
    for g, p in zip(group, part):
        assert parts_of.setdefault(g, p) == p
    for side, fewest in corpus.NEAR_WORDS.items():
        assert brute_force(kept, part, side, fewest, 0.8) == 0
    by_row = corpus.split(list(kept.id), 0.8, 0.1, 1)
    crossing = corpus.crossing(kept, by_row, 0.8)
    expected = sum(brute_force(kept, by_row, side, fewest, 0.8) for side, fewest in corpus.NEAR_WORDS.items())
    assert crossing and expected
    assert corpus.leak(group, by_row) > 0.5 and corpus.leak(group, part) == 0
    number = dict(zip(kept.number, group))
    planted_near = [(a, b) for a, b in near if a in number and b in number]
    together = [number[a] == number[b] for a, b in planted_near]
    print(f"planted near-duplicates in one group: {sum(together)} of {len(together)}")


def test_what_lsh_misses_is_found_by_the_check_and_joined(planted_file):
    *_, (kept, _, _) = planted_file
    kept = kept.iloc[:2000].reset_index(drop=True)
    blind = all_pairs(kept, 0.0)  # as if every near-duplicate had been missed
    _, part = corpus.divide(kept, blind, (0.8, 0.1), 1, 0.8)
    assert corpus.crossing(kept, part, 0.8) == []


def test_the_row_order_changes_nothing_but_the_dialogue_runs():
    rows = [
        {"Topics": f"বিষয় {n}", "Questions": f"প্রশ্ন নম্বর {n % 50} এখানে", "Answers": f"উত্তর নম্বর {n} এখানে"}
        for n in range(120)
    ]
    found = []
    for order in (rows, random.Random(3).sample(rows, len(rows))):
        kept, _, _ = clean(*order)
        kept["group"], kept["part"] = corpus.divide(kept, all_pairs(kept), (0.8, 0.1), 5, 0.8)
        kept = corpus.sample(kept, 60, 5)
        found.append([(r["id"], r["group"]) for r in corpus.data_rows(kept[kept.part == "train"], "", "x")])
    assert found[0] == found[1] != []


def test_the_same_question_and_the_turns_of_a_dialogue_are_one_group():
    kept, _, _ = clean(
        {"Topics": "ক", "Question-Title": "শিরোনাম", "Questions": "প্রথম প্রশ্ন কী?", "Answers": "উত্তর এক এখানে"},
        {"Topics": "খ", "Question-Title": "শিরোনাম", "Questions": "প্রথম প্রশ্ন কী।", "Answers": "উত্তর দুই এখানে"},
        {"Topics": "গ", "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
        {"Topics": "গ", "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
        {"Topics": "ঘ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
    )
    found = corpus.groups(kept, all_pairs(kept))
    assert found[0] == found[1] and found[2] == found[3]
    assert len(set(found)) == 3


def test_near_duplicate_questions_and_answers_are_one_group_and_short_ones_are_not():
    words = "আজ সকাল থেকে মনটা খুব ভারী হয়ে আছে কিছুতেই কাজে মন বসছে না"
    kept, _, _ = clean(
        {"Topics": "ক", "Questions": words, "Answers": "উত্তর এক এখানে"},
        {"Topics": "খ", "Questions": words.replace("খুব", "ভীষণ"), "Answers": "উত্তর দুই এখানে"},
        {"Topics": "গ", "Questions": "কেমন আছেন আপনি", "Answers": words},
        {"Topics": "ঘ", "Questions": "আপনি আছেন কেমন ভাই", "Answers": words + " একদম"},
        {"Topics": "ঙ", "Questions": "কেমন আছেন আপনি আজ", "Answers": "অন্য কিছু বলি"},
    )
    found = corpus.groups(kept, all_pairs(kept))
    assert found[0] == found[1] and found[2] == found[3] and len(set(found)) == 3
    assert len(set(corpus.groups(kept, all_pairs(kept, 0.0)))) == 5


def test_a_long_run_of_one_topic_is_a_sorted_table_and_not_one_dialogue():
    kept, _, _ = clean(*({"Questions": f"প্রশ্ন নম্বর {n} বলছি"} for n in range(40)))
    assert len(set(corpus.groups(kept, all_pairs(kept, 0.0)))) == 40


def test_the_turns_of_a_titled_dialogue_are_one_group_too_and_two_answers_are_no_conversation():
    same = {"Topics": "ক", "Question-Title": "একই শিরোনাম"}
    kept, _, _ = clean(
        {**same, "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
        {**same, "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
        {**same, "Question-Title": "অন্য শিরোনাম", "Questions": "তৃতীয় কথা বলি", "Answers": "তৃতীয় উত্তর দিই"},
    )
    found = corpus.groups(kept, all_pairs(kept, 0.0))
    assert found[0] == found[1] != found[2]
    assert len(corpus.join_turns(kept.assign(group=found, part="train"))) == 3


def test_the_turns_of_a_dialogue_can_be_one_conversation():
    kept, _, _ = clean(
        {"Topics": "ক", "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
        {"Topics": "ক", "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
        {"Topics": "খ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
    )
    joined = corpus.join_turns(kept.assign(group="g", part="train"))
    rows = corpus.data_rows(joined, "", "x")
    assert sorted(len(row["messages"]) for row in rows) == [2, 4]
    roles = [message["role"] for row in rows if len(row["messages"]) == 4 for message in row["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]


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


def test_nothing_left_after_cleaning_is_an_error_that_counts_the_rules():
    with pytest.raises(ValueError, match="all 2 rows were dropped.*'missing side': 2"):
        clean({"Answers": ""}, {"Questions": ""})


def test_overlap_counts_rows_whose_question_stands_in_another_part(embedded_rows):
    first, second, third = embedded_rows[:3]
    assert corpus.overlap({"train": [first], "val": [second], "test": [third]}) == 0
    assert corpus.overlap({"train": [first, second], "val": [second], "test": [third, first]}) == 2
    plain = {"id": "x", "group": "x", "source": "x", "text": "একই লেখা"}
    assert corpus.overlap({"train": [plain], "val": [first], "test": [plain]}) == 1


def test_a_sample_takes_its_share_of_every_stratum_and_keeps_the_order(planted_file):
    *_, (kept, _, _) = planted_file
    kept = kept.assign(part=corpus.split(list(kept.id), 0.8, 0.1, 0))
    picked = corpus.sample(kept, 500, 1)
    assert len(picked) == 500 and picked.number.is_monotonic_increasing
    assert picked.id.equals(corpus.sample(kept, 500, 1).id) and not picked.id.equals(corpus.sample(kept, 500, 2).id)
    for column in (lambda t: t.title != "", lambda t: t.part == "train", lambda t: t.answer.str.len() > 100):
        assert column(picked).mean() == pytest.approx(column(kept).mean(), abs=0.03)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"Answers": 'তিনি বললেন, "ভালো থেকো", তারপর\r\nচলে গেলেন।'}, None),
        ({"Answers": "আপনার কষ্ট\0 বুঝতে পারছি।"}, None),
        ({"Question-Title": "", "Topics": ""}, None),
        ({"Answers": "\u202eউল্টো দিকে লেখা\u202c কথা।"}, None),
        ({"Answers": "ক" * 10_000}, None),
        ({"Answers": "সেদিনই তিনি সম্পর্কের ইতি টেনে দিলেন।"}, None),
        ({"Answers": "দীর্ঘ কথা " * 100_000}, None),
    ],
)
def test_odd_cells_are_read_and_made_plain(tmp_path, row, rule):
    path = write(tmp_path / "a.csv", [row, {"Topics": "অন্য", "Questions": "আরেকটা প্রশ্ন"}])
    kept, dropped, _ = corpus.clean(corpus.load(str(path))[0])
    assert len(kept) == 2 and dropped.empty
    assert not any(mark in kept.answer[0] for mark in "\0\r\u202e\u202c")


def test_a_formula_in_a_cell_is_inert_in_every_csv(tmp_path):
    from helpers import env

    cells = ["=cmd()|'/c calc'!A0", "+1", "-1", "@SUM(A1)", "ভালো = ভালো", ""]
    env.write_csv(tmp_path / "a.csv", pandas.DataFrame({"reply": cells, "n": range(6)}))
    read = pandas.read_csv(io.StringIO((tmp_path / "a.csv").read_text()), keep_default_na=False)
    assert list(read.reply) == [f"'{cell}" for cell in cells[:4]] + cells[4:]


def test_the_data_card_says_where_from_how_many_and_what_is_wrong():
    rows, about = corpus.load("embedded")
    metrics = {"dataset": "embedded", "rows_in": 5, "rows_out": 4, "train": 2, "val": 1, "test": 1, "groups": 3}
    card = corpus.data_card(about, metrics, [corpus.step("url", 5, dropped=1)])
    assert "CC0" in card and about["blob_sha1"] in card and "url: 1 rows" in card and "4 of 5" in card
    assert "not verified" in corpus.data_card(about, {**metrics, "dataset": "kaggle:a/b"}, [])
