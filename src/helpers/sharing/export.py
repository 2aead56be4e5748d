"""What people take away: adapter with model card, the merged model, GGUF files, a Space, a push to the Hub."""

import shutil
from pathlib import Path
from typing import Any

from helpers.models.embedded import locate_base_model
from helpers.models.families import count_parameters, model_shape, name_16bit
from helpers.models.loading import ADAPTERS, load_tokenizer
from helpers.platforms.errors import describe_error
from helpers.platforms.machine import platform
from helpers.platforms.secrets import read_secret
from helpers.runs.files import folder_bytes, write_folder, write_text
from helpers.runs.record import Run
from helpers.runs.stages import has_preferred
from helpers.sharing.card import model_card


def large_files_folder(run: Run, scratch: str) -> Path:
    """Returns where large files are made: `scratch`, else /tmp on Kaggle (which keeps 20 GB), else the run's folder."""
    if scratch or platform() == "kaggle":
        return Path(scratch or "/tmp") / f"sahanubhuti-{run.name}"
    return run / "export"


def locate_16bit_base(config: dict, chosen: str, run: Run) -> str:
    """Returns the base model to merge into: `chosen`, else the trained one without the ending of its 4-bit copy."""
    return locate_base_model(chosen or name_16bit(config["base_model"]), run)


def check_export(forms: list[str], gguf_types: list[str], base: str, folder: Path) -> None:
    """Raises OSError where the folder's disk is too small for what is asked."""
    size = 2 * count_parameters(model_shape(base), {"target_modules": []})["base"] / 1e9  # GB in 16 bits
    copies = 1.1 * (bool({"merged", "gguf"} & set(forms)) + ("gguf" in forms) * (1 + 0.5 * len(gguf_types)))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e9
    if size * copies > free:
        raise OSError(
            f"{folder} has {free:.1f} GB free, {', '.join(forms)} need about {size * copies:.1f} GB: set "
            f"export.scratch to a larger disk, or ask for fewer forms."
        )


def choose_side(run: Run, chosen: str) -> str:
    """Returns which model is exported: `chosen`, else the preferred one where the stage prefer has finished.

    Raises FileNotFoundError for a preferred model that is not there.
    """
    if chosen == "preferred" and not has_preferred(run.folder):
        raise FileNotFoundError(f"export.model is 'preferred', but run {run.name} has none: finish prefer first.")
    return chosen or ("preferred" if has_preferred(run.folder) else "tuned")


def export_adapter(run: Run, folder: Path, side: str = "tuned") -> dict[str, Any]:
    """Writes a model's adapter, its tokenizer and its model card, all or nothing; returns the folder and its bytes."""
    with write_folder(folder) as part:
        shutil.copytree(run / ADAPTERS[side], part, dirs_exist_ok=True)
        load_tokenizer(locate_base_model(run.training_config()["base_model"], run)).save_pretrained(part)
        write_text(part / "README.md", model_card(run, side=side))
    named = {"model": side} if side != "tuned" else {}
    return {"folder": str(folder), "bytes": folder_bytes(folder), **named}


def exported_sizes(exported: dict[str, Any]) -> dict[str, int]:
    """Returns the bytes of each thing that was written, a GGUF file by its type; what was pushed has none."""
    sizes = {}
    for form, facts in exported.items():
        if form == "gguf":
            sizes |= {f"gguf {kind}": file["bytes"] for kind, file in facts.items()}
        elif "bytes" in facts and not isinstance(facts, str):
            sizes[form] = facts["bytes"]
    return sizes


def push_to_hub(folder: Path, repository: str, private: bool) -> str:
    """Uploads a folder to the Hub and returns its address.

    Raises OSError where the Hub cannot be reached; what was built stays, for a later push.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=read_secret("HF_TOKEN"))
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder))
    except Exception as error:  # the library's and its HTTP client's own
        raise OSError(
            f"{repository} could not be pushed to ({describe_error(error)}). What was built stays in {folder}: check "
            f"the token HF_TOKEN and the internet, and run the stage again."
        ) from error
    return str(address)
