"""The stages of a run: their notebooks, their folders, what each reads."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers.platforms.environment import ROOT
from helpers.platforms.errors import Refused, suggest_name

STAGES = {  # stage: (notebook, folder)
    "prepare_data": ("01_prepare_data", "data"),
    "tune": ("tune", "tune"),
    "train": ("02_train", "train"),
    "prefer": ("prefer", "prefer"),
    "evaluate": ("03_evaluate", "evaluate"),
    "infer": ("04_infer", "infer"),
    "report": ("05_report", "report"),
    "export": ("export", "export"),
}

EMBEDDED_CORPUS = Path(__file__).parents[1] / "data" / "embedded.csv"  # what prepare_data.dataset "embedded" means

TRAINING_STAGES = ("train", "prefer")  # they note their own sessions and mirror themselves

MAIN_STAGES = ("prepare_data", "train", "evaluate", "infer", "report")  # what a run does unless asked for more

STAGE_INPUTS = {  # stage: the files of the run that it always reads
    "prepare_data": [],
    "tune": ["data/train.jsonl", "data/val.jsonl"],
    "train": ["data/train.jsonl", "data/val.jsonl"],
    "prefer": ["data/test.jsonl", "train/config.json", "train/adapter/adapter_model.safetensors"],
    "evaluate": ["data/test.jsonl", "train/config.json", "train/adapter/adapter_model.safetensors"],
    "infer": ["train/config.json", "train/adapter/adapter_model.safetensors"],
    "report": ["data/metrics.json", "train/metrics.json", "evaluate/metrics.json", "infer/metrics.json"],
    "export": ["data/test.jsonl", "train/config.json", "train/adapter/adapter_model.safetensors"],
}

WRITTEN_BY_PEOPLE = ("evaluate/ratings/*", "evaluate/gloss.csv")  # patterns of what no stage writes

PREFERRED = ("prefer/metrics.json", "prefer/adapter/adapter_model.safetensors")  # what the stage prefer leaves
OPTIONAL_INPUTS = {stage: [PREFERRED[1]] for stage in ("evaluate", "infer", "export")}  # read where prefer has finished


def stage_inputs(stage: str, parameters: dict[str, Any]) -> list[str]:
    """Returns the files of the run that a stage with these parameters reads; a finished one holds while they stay.

    Training reads the result of the search where `sft.settings_from` says so.
    """
    reads_search = stage == "train" and parameters["sft"].get("settings_from") == "tune"
    return [*STAGE_INPUTS[stage], *["tune/best.json"] * reads_search]


def has_preferred(folder: Path) -> bool:
    """Returns whether the stage prefer of the run in this folder has finished, so that there is a third model."""
    return all((folder / name).is_file() for name in PREFERRED)


def run_folder(outputs: str, run_name: str) -> Path:
    """Returns outputs/<run_name>; in a notebook opened in notebooks/, the checkout's outputs are meant.

    Raises ValueError for a name that is not Latin letters, digits, ".", "_" and "-" alone.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_name):
        raise ValueError(
            f"run_name is {run_name!r}: expected Latin letters (a to z), digits 0 to 9, '.', '_' and '-', at most 100, "
            f"starting with a letter or digit."
        )
    return Path(".." if Path.cwd() == ROOT / "notebooks" else "") / outputs / run_name


def other_seeds(folder: Path) -> dict[int, Path]:
    """Returns {seed: its evaluate/metrics.json} of the trainings with other seeds that stand beside a run's folder:
    those of `run --seeds`, as far as they have been evaluated."""
    files = {}
    for file in folder.parent.glob("*/evaluate/metrics.json"):
        if match := re.fullmatch(rf"{re.escape(folder.name)}-seed-(\d+)", file.parents[1].name):
            files[int(match[1])] = file
    return dict(sorted(files.items()))


def sort_stages(stages: Iterable[str]) -> list[str]:
    """Returns stages in the order they run. Raises Refused for an unknown one."""
    chosen = [*stages]
    if unknown := [stage for stage in chosen if stage not in STAGES]:
        raise Refused(f"--stages: no stage {unknown[0]!r}.{suggest_name(unknown[0], STAGES)}")
    return [stage for stage in STAGES if stage in chosen]
