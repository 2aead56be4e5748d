"""Data rows, the sample, and the data card."""

import io

import datasets
import pandas
import pytest
from huggingface_hub import DatasetCard
from tables import cleaned

from helpers.data.card import data_card
from helpers.data.load import load_table
from helpers.data.rows import data_rows, join_dialogues, make_parts, pick_rows
from helpers.data.sampling import sample_rows, shuffle_key
from helpers.data.split import split_groups
from helpers.language.bengali import normalise
from helpers.runs.files import write_csv, write_jsonl, write_text


def test_the_turns_of_a_dialogue_can_be_one_conversation():
    kept = cleaned(
        {"Topics": "ক", "Questions": "প্রথম কথা বলি", "Answers": "প্রথম উত্তর দিই"},
        {"Topics": "ক", "Questions": "দ্বিতীয় কথা বলি", "Answers": "দ্বিতীয় উত্তর দিই"},
        {"Topics": "খ", "Questions": "অন্য আলাপ শুরু", "Answers": "অন্য আলাপের উত্তর"},
    ).kept
    rows = data_rows(join_dialogues(kept.assign(group="g", part="train"), {}), "", "x")
    assert sorted(len(row["messages"]) for row in rows) == [2, 4]
    roles = [message["role"] for row in rows if len(row["messages"]) == 4 for message in row["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_joined_turns_keep_every_row_and_its_part(twin):
    kept = twin.corpus.kept
    joined = join_dialogues(kept, twin.links)
    assert set(joined.messages.map(len)) == {2, 4, 6, 8}
    assert joined.id.is_unique
    turns = [part for part, messages in zip(joined.part, joined.messages) for _ in messages[::2]]
    assert turns == list(kept.part)


def test_a_part_without_rows_is_refused():
    kept = cleaned({}).kept.assign(group="g", part="train")
    with pytest.raises(ValueError, match=r"no row of \['val', 'test'\] is left: raise shared.max_length"):
        make_parts(kept, "", "embedded")


def test_a_sample_takes_its_share_of_every_stratum(twin):
    kept = twin.corpus.kept
    kept = kept.assign(part=split_groups(list(kept.id), 0.8, 0.1, 0))
    picked = sample_rows(kept, 500, 1)
    assert len(picked) == 500
    for column in (lambda t: t.title != "", lambda t: t.part == "train", lambda t: t.answer.str.len() > 100):
        assert column(picked).mean() == pytest.approx(column(kept).mean(), abs=0.03)


def test_a_sample_keeps_the_order_of_the_file(twin):
    assert sample_rows(twin.corpus.kept.assign(part="train"), 500, 1).number.is_monotonic_increasing


def test_a_sample_depends_on_the_seed_alone(twin):
    kept = twin.corpus.kept.assign(part="train")
    picked = sample_rows(kept, 500, 1).id
    assert picked.equals(sample_rows(kept, 500, 1).id)
    assert not picked.equals(sample_rows(kept, 500, 2).id)


def shuffle(names, seed):
    return sorted(names, key=lambda name: shuffle_key(seed, name))


def test_a_shuffle_does_not_depend_on_the_order_before():
    names = [f"row{n}" for n in range(50)]
    assert shuffle(names, 1) == shuffle(names[::-1], 1)


def test_a_shuffle_depends_on_the_seed():
    names = [f"row{n}" for n in range(50)]
    assert shuffle(names, 1) != shuffle(names, 2)


def test_a_formula_in_a_cell_is_inert_in_every_csv(tmp_path):
    cells = ["=cmd()|'/c calc'!A0", "+1", "-1", "@SUM(A1)", "ভালো = ভালো", ""]
    write_csv(tmp_path / "a.csv", pandas.DataFrame({"reply": cells, "n": range(6)}))
    read = pandas.read_csv(io.StringIO((tmp_path / "a.csv").read_text()), keep_default_na=False)
    assert list(read.reply) == [f"'{cell}" for cell in cells[:4]] + cells[4:]


SOURCE = load_table("embedded")[1]


def make_card(rows_out=4, answer="আপনার কষ্টটা বুঝতে পারছি।", metrics=None, **source):
    counts = {"rows_in": 5, "rows_out": rows_out, "train": 2, "val": 1, "test": 1, "groups": 3}
    facts = {**counts, "funnel": [{"rule": "url", "changed": 0, "dropped": 1}], "merged_topics": []}
    facts |= metrics or {}
    return DatasetCard(data_card(SOURCE._replace(**source), facts, pandas.Series([answer])))


def test_the_data_card_names_source_licence_counts():
    card = make_card()
    for fact in ("CC0", SOURCE.blob_sha1, "url: 1 row", "4 of 5"):
        assert fact in card.text, f"the data card does not say {fact!r}: see card.md.j2"


def test_the_data_card_claims_no_licence_it_does_not_know():
    card = make_card(dataset="kaggle:a/b")
    assert "not verified" in card.text
    assert card.data.license == "unknown"


@pytest.mark.parametrize(("published", "known"), [("as published", True), ("", False)])
def test_the_known_defects_are_the_published_files_alone(published, known):
    assert ("Part A" in make_card(dataset="corpus.csv", published=published).text) == known


def test_the_data_card_says_that_the_embedded_corpus_has_dirt():
    assert "with the shapes and the dirt" in make_card().text


def test_the_data_card_names_merged_topics():
    merged = {"merged_topics": [{"from": "শোক\n`ক", "to": "শোক", "rows": 3}]}
    assert "- `শোক 'ক` → `শোক` (3 rows)\n" in make_card(metrics=merged).text
    assert "Rare spellings of topics, merged into the common one\n- none" in make_card().text


def test_the_data_cards_metadata_are_the_hubs():
    data = make_card().data
    assert (data.language, data.license) == (["bn"], "cc0-1.0")
    assert data.task_categories == ["text-generation"]
    assert data.pretty_name == "embedded, cleaned and split by group"


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (38_105, "10K<n<100K")])
def test_the_data_cards_size_is_a_category_of_the_hub(rows, size):
    assert make_card(rows).data.size_categories == [size]


def test_the_data_card_of_another_language_names_none():
    assert make_card(answer="I hear how hard this has been.").data.language is None


def test_the_data_card_holds_no_path_of_the_machine():
    assert make_card(dataset="/home/somebody/own.csv").data.pretty_name == "own.csv, cleaned and split by group"


def test_the_folder_is_read_as_a_data_set_with_its_splits(tmp_path):
    for part, count in {"train": 3, "val": 2, "test": 1}.items():
        turns = [{"role": "user", "content": "মন ভালো নেই।"}, {"role": "assistant", "content": "শুনছি।"}]
        write_jsonl(tmp_path / "data" / f"{part}.jsonl", [{"id": str(n), "messages": turns} for n in range(count)])
    write_text(tmp_path / "data" / "README.md", str(make_card()))
    write_text(tmp_path / "data" / "dropped.csv", "number,rule\n1,url\n")
    loaded = datasets.load_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 3, "validation": 2, "test": 1}
    assert loaded["test"][0]["messages"][1]["content"] == normalise("শুনছি।")


def test_the_rows_that_are_not_picked_keep_their_rule(twin):
    picked = pick_rows(twin.corpus, 50, 1)
    assert len(picked.kept) == 50
    assert picked.funnel[-1].rule == "not sampled"
    assert picked.funnel[-1].dropped == len(twin.corpus.kept) - 50
    assert pick_rows(twin.corpus, 0, 1) is twin.corpus
