"""Columns that a data set has besides those that are read, and the parts that it brings itself."""

from types import SimpleNamespace

import pandas
from datasets import Dataset, DatasetDict
from tables import raw_table

from helpers.data.load import SPLITS, load_table

OWN_NAMES = ["published", "part", "group", "id", "rule", "plain", "number", "dialogue", "defects", "messages_", "topic"]


def test_a_column_of_any_other_name_changes_nothing(tmp_path):
    rows = [{"Questions": f"প্রশ্ন {n} নম্বর ক্ষেত্র।"} for n in range(8)]
    table = raw_table(*rows)
    table.to_csv(tmp_path / "plain.csv", index=False)
    table.assign(**dict.fromkeys(OWN_NAMES, "2026-01-01")).to_csv(tmp_path / "more.csv", index=False)
    plain, more = (load_table(str(tmp_path / f"{name}.csv"))[0] for name in ("plain", "more"))
    pandas.testing.assert_frame_equal(more, plain)


def test_a_hub_data_sets_own_parts_are_kept(monkeypatch):
    split = DatasetDict({name: Dataset.from_dict({"text": [f"লেখা {name}"], "published": ["2019"]}) for name in SPLITS})
    builder = SimpleNamespace(config=SimpleNamespace(data_files={}))
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *_: builder)
    monkeypatch.setattr("datasets.load_dataset", lambda *_: split)
    monkeypatch.setattr("helpers.data.load.fetch_files", lambda *_: None)
    assert load_table("hf:owner/corpus")[0].published.tolist() == ["train", "val", "test"]
