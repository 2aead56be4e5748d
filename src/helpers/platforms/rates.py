"""What this machine reaches: products and copies of its GPU or CPU, its disk, its way to the Hugging Face Hub."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.platforms.downloads import WEIGHT_FILES, is_hub_name
from helpers.platforms.errors import describe_error

SIDES = {"cuda": 4096, "cpu": 1024}  # of the matrices of a product
WRITTEN = 2**28  # bytes, of a file
DOWNLOADED = 2**26  # bytes at the most, of a file of weights
DOWNLOAD_SECONDS = 20.0  # at the most


def measure_rates() -> dict[str, Any]:
    """Returns the number of GPUs, the rates of a product and of a copy of 1 GiB, and what the product was."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    side = SIDES[device]
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    source = torch.zeros(2**28, device=device)
    target = torch.empty_like(source)
    return {
        "gpus": torch.cuda.device_count() if device == "cuda" else 0,
        "product": f"{side}³ in {str(dtype).removeprefix('torch.')}",
        "products": 2 * side**3 / timed(lambda: left @ right),
        "copies": 2 * source.numel() * source.element_size() / timed(lambda: target.copy_(source)),
    }


def synchronize() -> None:
    """Waits until the GPU has done all that it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], repeats: int = 10) -> float:
    """Returns the median seconds of a piece of work on the GPU, or the CPU, after two to warm up."""
    seconds = []
    for number in range(repeats + 2):
        synchronize()
        began = time.perf_counter()
        work()
        synchronize()
        seconds += [time.perf_counter() - began] * (number >= 2)
    return statistics.median(seconds)


def write_rate(folder: Path) -> float:
    """Returns the bytes per second of a file of WRITTEN bytes on its way to a folder's disk."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".calibrate-") as file:
        began = time.perf_counter()
        for _ in range(WRITTEN // 2**24):
            file.write(os.urandom(2**24))
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - began)


def download_rate(base_model: str) -> tuple[float | None, str]:
    """Returns the bytes per second at which a base model comes from the Hub, by one connection, and "".

    In place of the rate, None and the reason why it is not known: whatever goes wrong here, nothing needs it. Reads the
    beginning of one file of weights, DOWNLOADED bytes at the most, and keeps none of it.
    """
    from huggingface_hub import constants

    if not is_hub_name(base_model):
        return None, f"base_model {base_model!r} is not downloaded"
    if constants.HF_HUB_OFFLINE:
        return None, "HF_HUB_OFFLINE is set"
    try:
        return _read_weights(base_model), ""
    except Exception as error:  # the library's, the network's, a file that is not there
        return None, describe_error(error)


def _read_weights(repository: str) -> float:
    """Returns the bytes per second of the beginning of a model's first file of weights. Raises what the Hub answers."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, filter_repo_objects, get_session, hf_raise_for_status

    limit = DOWNLOAD_SECONDS / 4  # without an answer
    files = [file.rfilename for file in HfApi().model_info(repository, timeout=limit).siblings or []]
    name = next(iter(filter_repo_objects(files, allow_patterns=WEIGHT_FILES)), None)
    if name is None:
        raise FileNotFoundError(f"{repository} has no {WEIGHT_FILES[0]}")
    headers = {**build_hf_headers(), "Range": f"bytes=0-{DOWNLOADED - 1}"}
    url, arrived = hf_hub_url(repository, name), 0
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=limit) as answer:
        hf_raise_for_status(answer)
        began = time.perf_counter()
        for part in answer.iter_bytes(2**20):
            arrived += len(part)
            if arrived >= DOWNLOADED or time.perf_counter() - began > DOWNLOAD_SECONDS:
                break
        seconds = time.perf_counter() - began
    if not arrived:
        raise OSError(f"{name} is empty")
    return arrived / seconds
