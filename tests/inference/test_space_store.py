"""The thumbs of a Space: in a private data set of its owner, restored at the start, deleted there too."""

import json
import shutil

import pytest
from hub_server import Hub
from huggingface_hub import constants

from helpers.inference.space_store import open_space_store
from helpers.runs.feedback import Thumb

DATASET = "datasets/owner/talk-feedback"


@pytest.fixture
def hub(monkeypatch):
    """Serves a Hub without a data set, for a Space owner/talk with a token."""
    with Hub({}) as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("SPACE_ID", "owner/talk")
        monkeypatch.setenv("FEEDBACK_TOKEN", "granted")
        yield hub


@pytest.fixture
def space(hub, tmp_path):
    """Returns a function that starts the Space anew, on an empty disk, and gives its store."""
    stores = []

    def start():
        stop()
        shutil.rmtree(tmp_path / "disk", ignore_errors=True)
        (tmp_path / "disk").mkdir()
        stores.append(open_space_store(tmp_path / "disk/experiments.db", 180))
        return stores[-1]

    def stop():
        if stores and stores[-1]:
            stores[-1].push.__self__.stop()

    yield start
    stop()


def keep(store, *people):
    for person in people:
        store.keep(Thumb("demo", "tuned", [{"role": "assistant", "content": "শুনছি।"}], True, {}), person)


def kept(files):
    """Returns whose thumbs are in the data set's file."""
    return [json.loads(line)["person"] for line in files.get("feedback.jsonl", b"").splitlines()]


def test_thumbs_of_a_space_outlive_its_disk(hub, space):
    store = space()
    keep(store, "a", "b")
    store.push()
    assert DATASET in hub.private
    assert kept(hub.repositories[DATASET]) == ["a", "b"]
    assert [row["person"] for row in space().rows()] == ["a", "b"]


def test_what_is_deleted_is_in_no_version_of_the_data_set(hub, space):
    store = space()
    keep(store, "a", "b")
    store.push()
    keep(store, "c")
    store.push()
    store.delete_person("a")
    assert [kept(files) for files in hub.history[DATASET]] == [["b", "c"]]


def test_nothing_is_written_where_nothing_has_changed(hub, space):
    store = space()
    store.push()
    keep(store, "a")
    store.push()
    store.push()
    assert sum("/commit/" in path for _, path, _ in hub.requests) == 1
    space().push()
    assert sum("/commit/" in path for _, path, _ in hub.requests) == 1


def test_a_hub_that_fails_is_no_deletion(hub, space):
    store = space()
    keep(store, "a")
    store.push()
    hub.fault = 403
    with pytest.raises(ValueError, match="the data set owner/talk-feedback could not be changed"):
        store.delete_person("a")
    hub.fault = 0
    store.delete_person("a")
    assert hub.history[DATASET] == [{"feedback.jsonl": b""}], "what had failed was not tried again"


REASONS = [
    ("FEEDBACK_TOKEN", "", "FEEDBACK_TOKEN is not set"),
    ("SPACE_ID", "", "FEEDBACK_DATASET is not set"),
    ("FEEDBACK_DATASET", "owner/open", "the data set owner/open is public: make it private"),
]


@pytest.mark.parametrize(("name", "value", "reason"), REASONS)
def test_a_space_without_a_private_place_keeps_nothing(hub, space, monkeypatch, capsys, name, value, reason):
    hub.repositories["datasets/owner/open"] = {}
    monkeypatch.setenv(name, value)
    assert space() is None
    printed = capsys.readouterr().out
    assert printed.startswith("no thumbs are kept: ")
    assert reason in printed
