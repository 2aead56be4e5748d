"""The Python a run is in: packages, versions, the commit."""

import contextlib
import importlib.metadata
import logging
import subprocess
import sys
import warnings
from pathlib import Path

from helpers.platforms.machine import command_output, platform, set_threads

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
    """Makes a notebook's Python ready: installs what the platform lacks, silences messages that no user can act on."""
    install_missing()
    set_threads()
    warnings.filterwarnings("ignore", message="IProgress not found")
    for name in ("torch.utils._pytree", "torchao", "torchao.kernel.intmm", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)


def install_missing() -> None:
    """Installs the pinned packages that are missing or differ, on Kaggle and Colab.

    Elsewhere nothing is installed: a missing package raises ModuleNotFoundError with the command, another version
    than the pinned one is printed.
    """
    from packaging.requirements import Requirement

    for name, options in (("requirements.txt", []), ("requirements-unsloth.txt", ["--no-deps"])):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines() if (ROOT / name).is_file() else []
        missing, differing = [], []
        for line in filter(None, (line.split("#")[0].strip() for line in lines)):
            wanted = Requirement(line)
            try:
                if not wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True):
                    differing.append(line)
            except importlib.metadata.PackageNotFoundError:
                missing.append(line)
        command = [sys.executable, "-m", "pip", "install", "-q", *options, *missing, *differing]
        if platform() == "local":
            if missing:
                raise ModuleNotFoundError(
                    f"this Python lacks {', '.join(missing)}. Run `make setup` and use .venv, or: {' '.join(command)}"
                )
            if differing:
                print(f"tested with {', '.join(differing)}: other versions are installed")
        elif missing or differing:
            print("installing", *missing, *differing)
            subprocess.run(command, check=True)
            importlib.invalidate_caches()


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
