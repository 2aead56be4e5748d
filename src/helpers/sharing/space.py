"""The chat page as a Hugging Face Space."""

import shutil
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from helpers.inference.generate import system_messages
from helpers.models.loading import ADAPTERS
from helpers.platforms.environment import ROOT
from helpers.runs.files import folder_bytes, write_folder, write_json, write_text
from helpers.runs.record import Run
from helpers.sharing.card import model_card

ROOMS = ("platforms", "runs", "language", "data", "models", "inference")  # what the chat page imports

# What the chat page needs beside what gradio brings
PACKAGES = ("torch", "transformers", "peft", "accelerate", "regex", "pandas", "pyyaml", "filelock")

GRADIO = "6.31.0"  # as in pyproject.toml


def write_space(run: Run, folder: Path, side: str = "tuned") -> dict[str, Any]:
    """Writes a folder that Hugging Face serves as the chat page, and returns its size. Holds no row of the data.

    With `side` "preferred" the page offers that model too.
    """
    config, helpers = run.training_config(), Path(__file__).parents[1]
    head = {
        "title": run.name,
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "app_file": "app.py",
        "python_version": "3.12",
        "pinned": False,
    }
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    pins = [line for line in filter(None, lines) if Requirement(line).name in PACKAGES]
    with write_folder(folder) as part:
        shutil.copy(Path(__file__).with_name("space_app.py"), part / "app.py")
        write_text(part / "requirements.txt", "\n".join([*pins, *["bitsandbytes"] * config["load_in_4bit"]]) + "\n")
        write_text(part / "README.md", model_card(run, head, side))
        for room in ROOMS:
            kept = shutil.ignore_patterns("__pycache__", "*.csv")
            shutil.copytree(helpers / room, part / "src" / "helpers" / room, ignore=kept)
        shutil.copy(helpers / "__init__.py", part / "src" / "helpers")
        shutil.copytree(run / "train" / "adapter", part / "run" / "train" / "adapter")
        if side == "preferred":
            shutil.copytree(run / ADAPTERS[side], part / "run" / ADAPTERS[side])
            write_json(part / "run" / "prefer" / "metrics.json", {"status": "finished"})
        write_json(part / "run" / "train" / "config.json", config)
        write_json(part / "run" / "system.json", system_messages(run))
        if (run / "data" / "model").is_dir():
            shutil.copytree(run / "data" / "model", part / "run" / "data" / "model")
            shutil.copy(run / "data" / "metrics.json", part / "run" / "data" / "metrics.json")
    return {"folder": str(folder), "bytes": folder_bytes(folder)}
