"""What a run's record said, from what its stages left: where run.json and its copy are gone or damaged."""

from pathlib import Path
from typing import Any

from helpers.runs.checkpoints import checkpoint_folders, read_manifest
from helpers.runs.files import read_json
from helpers.runs.stages import STAGES


def left_by_a_run(folder: Path) -> bool:
    """Returns whether a folder holds a checkpoint or a finished stage."""
    has_checkpoint = any(folder.glob("train/checkpoints/checkpoint-*"))
    return has_checkpoint or any((folder / own / "metrics.json").is_file() for _, own in STAGES.values())


def checkpoint_run_id(folder: Path) -> str | None:
    """Returns the id of the run that wrote the newest checkpoint in a run's folder, None without one."""
    for checkpoint in reversed(checkpoint_folders(folder / "train" / "checkpoints")):
        try:
            return read_manifest(checkpoint).fingerprint.run
        except ValueError:  # one that was not finished
            continue
    return None


def rebuild_record(folder: Path) -> dict[str, Any]:
    """Returns a record of the stages that have finished or begun, with the parameters of their executed notebooks."""
    stages, settings = {}, {}
    for stage, (notebook, own) in STAGES.items():
        parameters = executed_parameters(folder / "notebooks" / f"{notebook}.ipynb")
        finished = (folder / own / "metrics.json").is_file()
        if finished or parameters or any((folder / own / "checkpoints").glob("checkpoint-*")):
            stages[stage] = {"status": "finished" if finished else "paused", "parameters": parameters}
        if parameters:
            settings[stage] = parameters
    return {"run_name": folder.name, "settings": settings, "stages": stages}


def executed_parameters(notebook: Path) -> dict[str, Any]:
    """Returns the parameters that papermill noted in an executed notebook, {} where they cannot be read."""
    try:
        parameters = read_json(notebook)["metadata"]["papermill"]["parameters"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return parameters if isinstance(parameters, dict) else {}
