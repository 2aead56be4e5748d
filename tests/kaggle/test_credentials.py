"""Credentials of Kaggle that are there and cannot be used, and a connection that is lost: told in whole words."""

import pytest
from kaggle.api.kaggle_api_extended import KaggleApi
from kaggle_calls import call
from kaggle_machine import Kaggle
from requests.exceptions import ConnectionError
from urllib3.exceptions import MaxRetryError

from helpers.kaggle.client import describe_call_error
from helpers.platforms.errors import describe_error


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Returns the empty folder .kaggle of a home folder, without credentials in the environment."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    folder = tmp_path / ".kaggle"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(KaggleApi, "config_dir", str(folder))
    monkeypatch.setattr(KaggleApi, "config", str(folder / "kaggle.json"))
    return folder


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "not json{",
            "kaggle.json cannot be read (JSONDecodeError; expected Kaggle's JSON with username and key): ",
        ),
        ('{"username": "someone"}', "kaggle.json has no key: make"),
        ("[]", "kaggle.json has no username and key: make"),
    ],
)
def test_damaged_credentials_are_explained(content, says, home, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle"):
        (home / "kaggle.json").write_text(content, encoding="utf-8")
        assert call("status", tmp_path / "outputs") == 2
    assert says in capsys.readouterr().err


def test_a_folder_in_place_of_a_token_is_explained(home, tmp_path, capsys):
    (home / "access_token").mkdir()
    with Kaggle(tmp_path / "kaggle"):
        assert call("status", tmp_path / "outputs") == 2
    printed = capsys.readouterr().err
    assert "access_token cannot be read (IsADirectoryError" in printed
    assert "a token is looked for there: remove it, then make a new API token" in printed


def test_a_lost_connection_is_told_in_whole_words():
    reason = OSError("HTTPSConnection(host='www.kaggle.com', port=443): Failed to resolve 'www.kaggle.com'")
    url = f"/v1/{'a' * 60}"
    text = f"HTTPSConnectionPool(host='www.kaggle.com', port=443): Max retries exceeded with url: {url} (Caused by"
    cause = MaxRetryError(None, url, reason)
    assert describe_call_error(ConnectionError(cause, text)) == f"OSError: {reason}"


@pytest.mark.parametrize("text", ["কষ্টটা বুঝতে পারছি। " * 20, "x" * 300])
def test_a_long_error_is_cut_after_a_word(text):
    words = describe_error(ValueError(text)).removeprefix("ValueError: ")
    kept = words.removesuffix(" …")
    assert kept != words
    assert len(kept) <= 200
    assert text.startswith(kept)
    assert " " not in text or text[len(kept)] == " "
