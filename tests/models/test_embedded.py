"""The embedded model: reproducible, cached by what it was made of, trained on training rows alone."""

import pytest

from helpers.models.embedded import DEFAULT_SPLIT, embedded_model_folder, embedded_model_for
from helpers.runs.files import file_sha256
from helpers.runs.settings import default_settings


@pytest.fixture(scope="module")
def texts(embedded_rows):
    return [row["messages"][-1]["content"] for row in embedded_rows[:40]]


@pytest.fixture
def training_texts(monkeypatch):
    """Returns the lists of texts that embedded models were asked for; none is built."""
    asked = []
    monkeypatch.setattr("helpers.models.embedded.embedded_model_folder", asked.append)
    return asked


def test_the_same_texts_give_the_same_embedded_model(tmp_path, monkeypatch, texts):
    hashes = []
    for name in ("first", "second"):
        monkeypatch.setenv("SAHANUBHUTI_CACHE", str(tmp_path / name))
        folder = embedded_model_folder(texts, steps=3)
        hashes.append([file_sha256(folder / file) for file in ("model.safetensors", "tokenizer.json")])
    assert hashes[0] == hashes[1]
    assert embedded_model_folder(texts, steps=3) == folder, "the second call takes it from the cache"


def test_other_texts_give_another_embedded_model(texts):
    assert embedded_model_folder(texts[1:], steps=3) != embedded_model_folder(texts, steps=3)


def test_the_recipe_has_the_hash_of_earlier_runs(monkeypatch, tmp_path):
    """A changed recipe makes runs whose data are prepared again refuse their checkpoints: change it on purpose."""
    monkeypatch.setenv("SAHANUBHUTI_CACHE", str(tmp_path))
    (tmp_path / "tiny-llama-c60bd4902fe8").mkdir()
    (tmp_path / "tiny-llama-c60bd4902fe8/config.json").touch()
    assert embedded_model_folder(["মন ভালো নেই।"], steps=1).name == "tiny-llama-c60bd4902fe8"


def test_a_run_on_the_embedded_corpus_gives_its_own_rows(training_texts, embedded_rows):
    embedded_model_for("embedded", embedded_rows[:5])
    messages = [message for row in embedded_rows[:5] for message in row["messages"]]
    assert training_texts == [[message["content"] for message in messages if message["role"] != "system"]]


def test_any_other_corpus_gets_the_default_splits_rows(training_texts, embedded_rows):
    embedded_model_for("/another/file.csv", embedded_rows[:5])
    assert len(training_texts[0]) > 400


def test_the_default_split_is_the_parameters_cells():
    cell = default_settings("prepare_data")
    shares = cell["train_share"], cell["val_share"]
    assert {"near_duplicate": cell["near_duplicate"], "shares": shares, "seed": cell["seed"]} == DEFAULT_SPLIT
