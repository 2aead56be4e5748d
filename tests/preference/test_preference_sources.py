"""Which sources there are, and what is said of a setting that names none."""

import pytest
from preferences import WARM

from helpers.runs.files import write_jsonl

REFUSED = {
    "no list": ("thumbs", "is 'thumbs': expected a list, each the path of a .csv"),
    "nothing": ([], r"is \[\]: expected a list"),
    "a word": (["thumb"], "names 'thumb': expected the path of a .*. Did you mean 'thumbs'"),
    "another format": (["p.xlsx"], "names 'p.xlsx': expected .*the name of a source. Known: ratings, thumbs"),
    "no text": ([3], "names 3: expected"),
    "one twice": (["ratings", "ratings"], "names 'ratings' twice: each vote would count twice"),
}


@pytest.mark.parametrize(("dataset", "message"), REFUSED.values(), ids=REFUSED)
def test_a_setting_that_names_no_sources_is_refused(run, dataset, message):
    from helpers.preference.gather import gather_preferences

    with pytest.raises(ValueError, match=message):
        gather_preferences(run, dataset, 0.2, 1)


def test_a_file_that_is_not_there_is_named(gather):
    with pytest.raises(FileNotFoundError, match=r"names 'no\.csv': no such file in .*: check the path"):
        gather(sources=["no.csv"])


def test_a_home_folder_is_known(gather, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "own.jsonl", pairs)
    assert len(gather(sources=["~/own.jsonl"]).rows) == len(pairs)


def test_a_run_of_plain_texts_is_refused(gather, pairs, run):
    write_jsonl(run / "data" / "train.jsonl", [{"id": "a", "group": "a", "source": "own", "text": WARM}])
    with pytest.raises(ValueError, match="run is trained on plain text, and preferences are of replies"):
        gather(pairs)


def test_a_run_without_data_is_refused(gather, pairs, run):
    (run / "data" / "train.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="finish 01_prepare_data of run run first"):
        gather(pairs)
