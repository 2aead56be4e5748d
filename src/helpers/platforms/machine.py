"""The machine a run is on: platform, GPUs, dtype, threads."""

import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

KAGGLE_FOLDER = Path(os.environ.get("SAHANUBHUTI_KAGGLE", "/kaggle"))  # where Kaggle's input and working folders are


class Gpu(NamedTuple):
    """A GPU, as nvidia-smi describes it."""

    name: str
    capability: str  # "7.5"; "" where nvidia-smi does not tell


def platform() -> str:
    """Returns "kaggle", "colab" or "local". Kaggle is tested first: its images set COLAB_* variables too."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ and (KAGGLE_FOLDER / "working").is_dir():
        return "kaggle"
    return "colab" if "COLAB_RELEASE_TAG" in os.environ else "local"


def pick_dtype(forced: str = "") -> tuple[str, str]:
    """Returns the dtype to train in and the reason for it.

    bfloat16 is emulated and far slower below compute capability 8.0 (a T4 is 7.5), so float16 is
    used there. A CPU computes in float32. `forced` is the dtype that the settings ask for.
    """
    import torch

    if not torch.cuda.is_available():
        return "float32", "no GPU: a CPU computes in float32"
    major, minor = torch.cuda.get_device_capability()
    name = f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}"
    if forced == "bfloat16" and major < 8:
        raise ValueError(f"sft.bf16 is set, but {name}: bfloat16 needs 8.0. Remove it, and float16 is used.")
    if forced:
        return forced, f"asked for by the settings ({name})"
    return ("bfloat16", f"{name}, at least 8.0") if major >= 8 else ("float16", f"{name}, below 8.0: no bfloat16")


def list_gpus() -> list[Gpu]:
    """Returns the GPUs here, [] without any."""
    names = gpu_names()
    capabilities = _query_gpus("compute_cap") if names else []
    return [Gpu(*each) for each in zip(names, capabilities or [""] * len(names))]


def gpu_names() -> list[str]:
    """Returns the names of the GPUs here, [] without any."""
    return _query_gpus("name")


def count_gpus(names: Iterable[str]) -> str:
    """Returns GPUs by kind with how many there are of each, "2 × Tesla T4", "" for none."""
    return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in Counter(names).items())


def gpu_gib() -> list[float]:
    """Returns the GiB that torch can use of each GPU here, [] without any. Of a T4's 15.00 it is 14.56."""
    return [float(mib) / 1024 * 14.56 / 15 for mib in _query_gpus("memory.total")]


def _query_gpus(field: str) -> list[str]:
    """Queries nvidia-smi, so that torch is not needed and no GPU memory is taken."""
    output = command_output(["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"])
    return [line.strip() for line in output.splitlines() if line.strip()]


def attached_folders(dataset: str) -> list[Path]:
    """Returns the folders where the Kaggle data set owner/name is mounted, in any of Kaggle's layouts."""
    slug = dataset.split("/")[-1]
    patterns = (slug, f"*/{slug}", f"*/*/{slug}")
    return [folder for pattern in patterns for folder in (KAGGLE_FOLDER / "input").glob(pattern)]


def command_output(command: list[str]) -> str:
    """Returns what a command prints, "" where it is not installed, fails or takes longer than 20 seconds."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


THREADS = {
    "MKL_CBWR": "AUTO,STRICT",  # the same bits in every process of a CPU
    "MKL_DYNAMIC": "FALSE",
    "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits leaves its core to another process
}


def set_threads() -> None:
    """Sets how a CPU's threads compute and wait. Call it before torch is imported, which reads them."""
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
