"""What is asked in a process of its own: of the network, the Hub and Kaggle."""

import socket

import pytest
from hub_server import Hub
from kaggle_machine import Kaggle

from helpers.platforms.probe import ask_kaggle, can_connect, run_probe


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Returns a function that asks, without credentials, for a data set for which Kaggle answers with a status."""

    def call(status):
        with Kaggle(tmp_path) as server:
            server.GetDataset = lambda body: (status, {"code": status})
            return ask_kaggle("owner/corpus")

    for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("kagglehub.config.DEFAULT_KAGGLE_CREDENTIALS_FOLDER", str(tmp_path))
    return call


@pytest.mark.parametrize(("status", "state"), [(200, "ready"), (403, "denied"), (404, "denied"), (500, "ready")])
def test_kaggle_says_whether_a_data_set_may_be_read(status, state, ask):
    assert ask(status)["state"] == state


@pytest.mark.parametrize(("tokens", "state"), [(True, "ready"), (False, "denied")])
def test_a_kaggle_session_attaches_data_with_its_own_tokens(tokens, state, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    for name in ("KAGGLE_USER_SECRETS_TOKEN", "KAGGLE_DATA_PROXY_TOKEN"):
        monkeypatch.setenv(name, "x" * tokens)
    with Hub({}) as proxy:
        monkeypatch.setenv("KAGGLE_DATA_PROXY_URL", proxy.address)
        assert ask_kaggle("owner/corpus")["state"] == state


def test_a_host_that_takes_no_connection_is_unreachable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        assert not can_connect(f"http://127.0.0.1:{free.getsockname()[1]}")


def test_a_host_that_listens_is_reachable():
    with Hub({}) as hub:
        assert can_connect(hub.address)


def test_a_question_that_fails_is_not_answered(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answers = run_probe(["model:no/such/name", "tokenizer:somebody/some-llama"])
    assert list(answers) == ["tokenizer:somebody/some-llama"]
    assert answers["tokenizer:somebody/some-llama"]["state"] == "offline"


def test_a_question_that_takes_too_long_is_not_answered():
    assert run_probe(["torch"], seconds=0.01) == {}
