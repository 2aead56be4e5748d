"""Downloads from the Hub that stall."""

import os
import subprocess
import sys

import pytest
from hub_server import Hub

WEIGHTS = bytes(24 * 2**20)  # several of the parts in which the library counts what has arrived
CHUNK = 10 * 2**20
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}',
    "model-1.safetensors": b"first",
    "model-2.safetensors": WEIGHTS,
    "original/consolidated.00.pth": b"the same weights again",
    "model.Q4_K_M.gguf": b"and again",
}
FETCH = "from helpers.platforms.downloads import fetch_model; fetch_model('owner/llama', {weights}, seconds={seconds})"


@pytest.fixture
def fetch(tmp_path):
    """Returns a function that runs code against a stand-in for the Hub, and gives what the process left and printed."""

    def call(hub, code=None, weights=True, seconds=6.0, **environment):
        environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", **environment}
        command = [sys.executable, "-c", code or FETCH.format(weights=weights, seconds=seconds)]
        env = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)

    return call


def cached(tmp_path):
    """Returns the files in the cache of the model, with their sizes."""
    (folder,) = tmp_path.glob("hub/models--owner--llama/snapshots/*")
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def counts(hub):
    """Returns how often the content of each file was asked for."""
    names = [path.partition("/resolve/")[2].partition("/")[2] for path in hub.downloads()]
    return {name: names.count(name) for name in names}


def test_a_download_that_hangs_in_xet_is_finished_without_it(fetch, tmp_path):
    with Hub({"owner/llama": FILES}, xet=["model-2.safetensors"]) as hub:
        done = fetch(hub)
    assert done.returncode == 0, done.stderr
    assert any(path.startswith("cas/") for _, path, _ in hub.requests), "Xet was not tried"
    assert "Xet stalled, retrying over HTTP" in done.stdout
    assert cached(tmp_path)["model-2.safetensors"] == len(WEIGHTS)
    assert set(counts(hub).values()) == {1}, "what had arrived was downloaded again"


def test_a_broken_download_resumes_where_it_broke_off(fetch, tmp_path):
    with Hub({"owner/llama": FILES}, stalls={"model-2.safetensors": CHUNK + 1000}) as hub:
        done = fetch(hub, HF_HUB_DISABLE_XET="1", HF_HUB_DOWNLOAD_TIMEOUT="2", seconds=20.0)
    assert done.returncode == 0, done.stderr
    ranges = [part for method, path, part in hub.requests if method == "GET" and path.endswith("model-2.safetensors")]
    assert ranges == ["", f"bytes={CHUNK}-"]
    assert cached(tmp_path)["model-2.safetensors"] == len(WEIGHTS)


def test_a_download_that_stalls_both_ways_says_what_to_do(fetch, tmp_path):
    with Hub({"owner/llama": FILES}, stalls={"model-2.safetensors": 1000}) as hub:
        patient = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
        done = fetch(hub, seconds=4.0, **patient)
        assert "OSError: owner/llama could not be downloaded, with Xet and without (DownloadStallError" in done.stderr
        assert "run this again to continue" in done.stderr
        hub.requests.clear()
        again = fetch(hub, **patient)
    assert again.returncode == 0, again.stderr
    assert counts(hub) == {"model-2.safetensors": 1}, "what had arrived was downloaded again"
    assert not list(tmp_path.rglob("*.incomplete"))


def test_only_what_is_loaded_is_downloaded(fetch, tmp_path):
    with Hub({"owner/llama": FILES}) as hub:
        fetch(hub)
    assert {*cached(tmp_path)} == {name for name in FILES if not name.endswith((".pth", ".gguf"))}


def test_a_tokenizer_comes_without_the_weights(fetch, tmp_path):
    with Hub({"owner/llama": FILES}) as hub:
        fetch(hub, weights=False)
    assert {*cached(tmp_path)} == {name for name in FILES if name.endswith(".json")}


def test_a_model_in_the_cache_is_not_asked_for_again(fetch):
    with Hub({"owner/llama": FILES}) as hub:
        fetch(hub)
        hub.requests.clear()
        done = fetch(hub)
    assert done.returncode == 0, done.stderr
    assert hub.requests == []


def test_a_cache_without_a_shard_is_completed(fetch, tmp_path):
    with Hub({"owner/llama": FILES}) as hub:
        fetch(hub)
        (shard,) = tmp_path.glob("hub/models--owner--llama/snapshots/*/model-2.safetensors")
        shard.resolve().unlink()
        hub.requests.clear()
        fetch(hub)
    assert counts(hub) == {"model-2.safetensors": 1}


def test_with_the_hub_switched_off_nothing_is_asked(fetch):
    with Hub({"owner/llama": FILES}) as hub:
        done = fetch(hub, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []


LOAD = """
from helpers.models import loading
from functools import partial
loading.fetch_model = partial(loading.fetch_model, seconds=6.0)
tokenizer = loading.load_tokenizer("owner/llama")
model = loading.load_base_model("owner/llama", False, "float32", {"": "cpu"})
print(len(tokenizer), sum(weight.numel() for weight in model.parameters()))
"""


@pytest.mark.slow
def test_a_model_whose_download_stalls_is_loaded(fetch, base, tmp_path):
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    with Hub({"owner/llama": files}, xet=["model.safetensors"]) as hub:
        done = fetch(hub, LOAD)
    assert done.returncode == 0, done.stderr
    tokens, weights = map(int, done.stdout.splitlines()[-1].split())
    assert tokens > 500
    assert weights > 50_000
    assert "Xet stalled" in done.stdout
    assert counts(hub)["model.safetensors"] == 1


READ = """
from helpers.data import load
from functools import partial
load.fetch_files = partial(load.fetch_files, seconds=6.0)
print(load.load_hub_table("owner/corpus:first")[0].text.tolist())
"""
CARD = """---
configs:
- config_name: first
  data_files: [{split: train, path: "first/*.csv"}]
- config_name: second
  data_files: second/train.csv
---
"""


def test_a_data_set_whose_download_stalls_is_read(fetch):
    files = {"README.md": CARD.encode(), "first/train [1].csv": b"text\nhere\n", "second/train.csv": b"text\nthere\n"}
    with Hub({"datasets/owner/corpus": files}, xet=["first/train [1].csv"]) as hub:
        done = fetch(hub, READ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['here']"
    assert "Xet stalled" in done.stdout
    assert not any("second" in path for path in hub.downloads())


RATE = "from helpers.platforms.rates import download_rate; print(*download_rate('owner/llama'))"
NOT_KNOWN = [
    ({}, {"HF_HUB_OFFLINE": "1"}, "None HF_HUB_OFFLINE is set"),
    ({}, {}, "None RepositoryNotFoundError: 401"),
    ({"owner/llama": {"config.json": b"{}"}}, {}, "None FileNotFoundError: owner/llama has no model*.safetensors"),
]


def test_measuring_a_download_keeps_no_file(fetch, tmp_path):
    with Hub({"owner/llama": FILES}) as hub:
        done = fetch(hub, RATE)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
    ranges = [part for method, path, part in hub.requests if "/resolve/" in path]
    assert ranges == ["bytes=0-67108863"]
    assert not [*tmp_path.glob("hub/models--*")]


@pytest.mark.parametrize(("repositories", "environment", "says"), NOT_KNOWN)
def test_a_rate_that_is_not_known_is_no_error(repositories, environment, says, fetch):
    with Hub(repositories) as hub:
        done = fetch(hub, RATE, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(says)


def test_a_download_that_falls_silent_has_no_rate(fetch):
    code = f"import helpers.platforms.rates as r; r.DOWNLOAD_SECONDS = 2.0\n{RATE}"
    with Hub({"owner/llama": {"model.safetensors": WEIGHTS}}, stalls={"model.safetensors": 1000}) as hub:
        done = fetch(hub, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("None ReadTimeout")
