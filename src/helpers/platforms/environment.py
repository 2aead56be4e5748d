"""The Python a run is in: packages, versions, the commit."""

import contextlib
import importlib.metadata
import logging
import sys
import warnings
from pathlib import Path

from packaging.utils import canonicalize_name

from helpers.platforms.machine import command_output, platform, set_threads
from helpers.platforms.overlay import is_met, read_requirements, read_versions, use_overlay

PACKAGES = [
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "unsloth",
    "bitsandbytes",
    "evaluate",
    "rouge_score",
    "sacrebleu",
]

ROOT = Path(__file__).resolve().parents[3]  # the checkout, where there is one


def set_up() -> None:
    """Makes a notebook's Python ready: its packages, its threads; silences messages that no user can act on."""
    prepare_packages()
    set_threads()
    warnings.filterwarnings("ignore", message="IProgress not found")
    for name in ("torch.utils._pytree", "torchao", "torchao.kernel.intmm", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)


def prepare_packages() -> None:
    """Makes the pinned packages available: on Kaggle and Colab beside the image's own, which stay as they are.

    Elsewhere nothing is installed: a missing package raises ModuleNotFoundError with the command, another version
    than the pinned one is printed. Raises RuntimeError as `use_overlay` does.
    """
    if not (ROOT / "requirements.txt").is_file():  # installed as a package: pip has seen to what it needs
        return
    if platform() != "local":
        use_overlay(ROOT)
        return
    versions = read_versions(*sys.path)
    unmet = [need for need in read_requirements(ROOT) if not is_met(need, versions)]
    if missing := [need for need in unmet if canonicalize_name(need.name) not in versions]:
        command = f"{sys.executable} -m pip install {' '.join(f'{str(need)!r}' for need in missing)}"
        names = ", ".join(need.name for need in missing)
        raise ModuleNotFoundError(f"this Python lacks {names}. Run `make setup` and use .venv, or: {command}")
    if unmet:
        print(f"tested with {', '.join(map(str, unmet))}: other versions are installed")


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a run's numbers."""
    versions = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def git_sha() -> str:
    """Returns the checkout's commit, "" outside a checkout."""
    return command_output(["git", "-C", str(ROOT), "rev-parse", "HEAD"])
