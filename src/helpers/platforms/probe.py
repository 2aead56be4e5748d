"""What only torch, the Hub's and Kaggle's libraries or the network can tell, asked in a process of its own.

That process imports them and ends: this one stays without torch, and without packages of the image that the session's
own are to replace. What takes too long or fails is not answered.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from helpers.platforms.downloads import WEIGHT_FILES, is_cached
from helpers.platforms.errors import describe_error
from helpers.platforms.processes import child_environment

PROBE_SECONDS = 90.0
CONNECT_SECONDS = 4.0
HERE, READY = "here", "ready"  # nothing has to be downloaded; it can be
OFFLINE, UNREACHABLE, GATED, MISSING, BAD_TOKEN, DENIED = (
    "offline",  # HF_HUB_OFFLINE is set
    "unreachable",  # no connection to the host
    "gated",  # the account, or nobody's, may not read it
    "missing",  # or private
    "bad token",
    "denied",  # by Kaggle, without credentials or with those of this machine
)
JWT_VARIABLES = ("KAGGLE_USER_SECRETS_TOKEN", "KAGGLE_DATA_PROXY_TOKEN")  # with which a Kaggle session attaches data


def run_probe(questions: list[str], seconds: float = PROBE_SECONDS) -> dict[str, dict[str, Any]]:
    """Returns {question: answer} for the questions that are answered within so many seconds.

    "torch": {version, gpus, architectures}. "model:OWNER/NAME", "tokenizer:OWNER/NAME", "hf:OWNER/NAME[:CONFIG]" and
    "kaggle:OWNER/NAME": {state: one of the above, host, and for the Hub bytes: to download, None where it is not known,
    cache: its folder, free: bytes there}.
    """
    if not questions:
        return {}
    command = [sys.executable, "-m", "helpers.platforms.probe", *questions]
    try:
        output = subprocess.run(command, capture_output=True, timeout=seconds, env=child_environment()).stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    answers = {}
    for line in output.decode(errors="replace").splitlines():  # what a library prints is among them
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            answers[entry["question"]] = entry["answer"]
    return answers


def ask_torch(_: str) -> dict[str, Any]:
    """Returns torch's version, how many GPUs it sees and the architectures that it has kernels for."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"version": torch.__version__, "gpus": gpus, "architectures": torch.cuda.get_arch_list()}


def ask_hub(name: str, kind: str, cached: bool, files: list[str]) -> dict[str, Any]:
    """Returns how a repository of the Hub, a "model" or a "dataset", can be had.

    `files` are patterns of names, those that are counted as `bytes`.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    if cached:
        return {"state": HERE}
    cache = Path(constants.HF_HUB_CACHE)
    disk = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists()))
    answer: dict[str, Any] = {"host": constants.ENDPOINT, "bytes": None, "cache": str(cache), "free": disk.free}
    if constants.HF_HUB_OFFLINE:
        return {**answer, "state": OFFLINE}
    if not can_connect(constants.ENDPOINT):
        return {**answer, "state": UNREACHABLE}
    api = HfApi()
    try:
        info: Any = api.repo_info(name, repo_type=kind, files_metadata=True, timeout=CONNECT_SECONDS)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        wanted = filter_repo_objects(sizes, allow_patterns=files)
        here = {file for file in sizes if isinstance(try_to_load_from_cache(name, file, revision=info.sha), str)}
        answer["bytes"] = sum(sizes[file] for file in wanted if file not in here)
        api.auth_check(name, repo_type=kind)
    except GatedRepoError:
        return {**answer, "state": GATED}
    except RepositoryNotFoundError:
        return {**answer, "state": MISSING}
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 401:
            return {**answer, "state": BAD_TOKEN}
    return {**answer, "state": READY}


def ask_model(name: str, weights: bool = True) -> dict[str, Any]:
    """Returns how a base model, or its tokenizer alone, can be had."""
    return ask_hub(name, "model", is_cached(name, weights), WEIGHT_FILES if weights else [])


def ask_dataset(name: str) -> dict[str, Any]:
    """Returns how a data set of the Hub can be had; `datasets` keeps what it has prepared in a folder of its own."""
    from huggingface_hub import constants

    repository = name.partition(":")[0]
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    prepared = {path.name.lower() for path in cache.glob("*___*")}
    return ask_hub(repository, "dataset", repository.replace("/", "___").lower() in prepared, [])


def ask_kaggle(name: str) -> dict[str, Any]:
    """Returns how a Kaggle data set that is not attached can be had, in the way of kagglehub.

    In a session on Kaggle it is attached with the session's own tokens. Elsewhere it is downloaded: a public one needs
    no credentials.
    """
    import requests
    from kagglehub.clients import build_kaggle_client
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest
    from kagglesdk.kaggle_env import get_endpoint, get_env, is_in_kaggle_notebook

    in_session = is_in_kaggle_notebook()
    host = os.environ["KAGGLE_DATA_PROXY_URL"] if in_session else get_endpoint(get_env())
    if not can_connect(host):
        return {"state": UNREACHABLE, "host": host}
    if in_session:
        return {"state": READY if all(map(os.environ.get, JWT_VARIABLES)) else DENIED, "host": host}
    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = name.split("/")
    try:
        with build_kaggle_client() as client:
            client.datasets.dataset_api_client.get_dataset(request)
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403, 404):
            return {"state": DENIED, "host": host}
    return {"state": READY, "host": host}


def can_connect(url: str, seconds: float = CONNECT_SECONDS) -> bool:
    """Returns whether the host of an address, or the proxy that leads to it, takes a connection."""
    parts = urlsplit(url)
    proxies = {} if proxy_bypass(parts.hostname or "") else getproxies()
    if proxy := proxies.get(parts.scheme) or proxies.get("all"):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 3128)
    try:
        socket.create_connection((parts.hostname or "", port), seconds).close()
    except OSError:
        return False
    return True


ASKED: dict[str, Callable[[str], dict[str, Any]]] = {  # by the word before the colon
    "torch": ask_torch,
    "model": ask_model,
    "tokenizer": lambda name: ask_model(name, weights=False),
    "hf": ask_dataset,
    "kaggle": ask_kaggle,
}


def answer_questions(questions: list[str]) -> None:
    """Prints a line of JSON for each question that can be answered, as soon as it is."""
    for question in questions:
        kind, _, name = question.partition(":")
        try:
            print(json.dumps({"question": question, "answer": ASKED[kind](name)}), flush=True)
        except Exception as error:  # whatever a library or the network does: nothing is known then
            print(f"{question}: {describe_error(error)}", file=sys.stderr)


if __name__ == "__main__":
    answer_questions(sys.argv[1:])
