"""The chat page's address is checked before the model is loaded."""

import socket

import pytest

from helpers.inference import serve
from helpers.inference.serve import check_address, serve_chat
from helpers.platforms.errors import Refused
from helpers.runs.record import Run


@pytest.fixture
def port():
    """Returns a port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def trained(tmp_path):
    """Returns a run that has the two files of a training."""
    for name in ("train/config.json", "train/adapter/adapter_config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    return Run(tmp_path)


def test_a_port_in_use_is_told_before_the_model_is_loaded(trained, port, monkeypatch):
    loaded = []
    monkeypatch.setattr(serve, "LoadedModel", loaded.append)
    with pytest.raises(Refused, match=f"port {port} is in use: choose another --port"):
        serve_chat(trained, port=port)
    assert not loaded


def test_a_host_that_is_elsewhere_is_told():
    with pytest.raises(Refused, match="--host 192.0.2.1 --port 0 cannot be listened on"):
        check_address("192.0.2.1", 0)


def test_a_host_that_is_no_address_is_told(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_server", fail)
    with pytest.raises(Refused, match="--host my host is no address of this machine"):
        check_address("my host", 7860)


def test_a_free_port_stays_free(port):
    check_address("127.0.0.1", 0)
    with pytest.raises(Refused):
        check_address("127.0.0.1", port)
