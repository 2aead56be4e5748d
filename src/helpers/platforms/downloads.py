"""Downloads from the Hugging Face Hub that stall, in a child process that can be ended and started again."""

import json
import os
import re
import time
from pathlib import Path

from helpers.platforms.errors import describe_error
from helpers.platforms.processes import print_once
from helpers.platforms.secrets import export_secrets

STALL_SECONDS = 120.0  # without a byte that arrives
TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]  # names; they hold the configuration too
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")  # any, of a tokenizer
WEIGHT_FILES = ["model*.safetensors"]  # as transformers loads them: no original/*.pth, no GGUF


def fetch_model(base_model: str, weights: bool = True, seconds: float = STALL_SECONDS) -> None:
    """Downloads what is missing of a base model, or of its tokenizer alone, as `fetch_files` does.

    Does nothing for a folder.
    """
    if is_hub_name(base_model) and not is_cached(base_model, weights):
        fetch_files(base_model, "model", TOKENIZER_FILES + (WEIGHT_FILES if weights else []), seconds)


def fetch_files(repository: str, kind: str, files: list[str], seconds: float = STALL_SECONDS) -> None:
    """Downloads files of a Hub repository ("model" or "dataset") into the cache, from where the libraries load them.

    `files` are patterns of their names. When nothing arrives for `seconds`, the child process that downloads is ended
    and another continues without Xet: files that are complete stay, and over plain HTTP a broken one resumes where it
    broke off. Raises OSError when that stalls or fails too, and the Hub's own errors. Does nothing with HF_HUB_OFFLINE.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from unsloth_zoo_downloads.hf_xet_fallback import DownloadStallError, snapshot_download_with_xet_fallback

    if constants.HF_HUB_OFFLINE:
        return
    export_secrets()
    os.environ.setdefault("UNSLOTH_XET_ATTEMPTS", "1")  # then plain HTTP
    os.environ.setdefault("UNSLOTH_XET_CONNECT_TIMEOUT", str(seconds))  # until the first byte
    began = time.monotonic()
    print_once(f"downloading {repository}")
    try:
        snapshot_download_with_xet_fallback(
            repository,
            repo_type=kind,
            allow_patterns=files,
            stall_timeout=seconds,
            on_status=lambda line: print_once(f"  {time.monotonic() - began:.0f} s  {line}"),
        )
    except DownloadStallError as error:
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind), "blobs")
        for partial in folder.glob("*.incomplete"):  # its name is of the process that ended: nobody can continue it,
            partial.unlink(missing_ok=True)  # and where one lies the next call downloads every file again
        raise OSError(
            f"{repository} could not be downloaded, with Xet and without ({describe_error(error)}). What is complete "
            f"is kept: run this again to continue, or attach the model or data set as input."
        ) from error


def is_hub_name(name: str) -> bool:
    """Returns whether a base model is one of the Hub, "owner/name", and no folder here."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not Path(name).exists()


def check_tokenizer_files(base_model: str) -> None:
    """Raises FileNotFoundError for a folder without a tokenizer, from which transformers would make an empty one."""
    folder = Path(base_model)
    if folder.is_dir() and not any((folder / name).is_file() for name in VOCABULARIES):
        files = ", ".join(VOCABULARIES)
        raise FileNotFoundError(f"the folder {base_model!r} has no tokenizer: expected one of {files}.")


def is_cached(repository: str, weights: bool) -> bool:
    """Returns whether the Hub's cache holds a model's tokenizer and configuration, and its weights where asked for."""
    from huggingface_hub import snapshot_download

    try:
        files = TOKENIZER_FILES + (WEIGHT_FILES if weights else [])
        folder = Path(snapshot_download(repository, allow_patterns=files, local_files_only=True))
    except OSError:  # not there, or known to be incomplete
        return False
    if not (folder / "config.json").is_file() or not any(folder.glob("tokenizer*")):
        return False
    indexes = [json.loads(path.read_bytes()) for path in folder.glob("*.index.json")]
    shards = {name for index in indexes for name in index["weight_map"].values()}
    whole = bool(shards) and all((folder / name).is_file() for name in shards)
    single = any((folder / name).is_file() for name in ("model.safetensors", "pytorch_model.bin"))
    return not weights or whole or single
