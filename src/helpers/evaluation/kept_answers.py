"""The answers of a finished evaluation, kept in evaluate/answers/ for the next one.

When the stage prefer adds a model, base and tuned have answered already: their batches, hours of a T4, are taken over
where nothing that decides them has changed.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from helpers.models.loading import ADAPTERS
from helpers.platforms.machine import gpu_names
from helpers.runs.files import file_sha256, read_json, write_folder, write_json
from helpers.runs.record import Run

FINGERPRINTS = "fingerprints.json"  # {side: of what decides its answers}


def make_fingerprint(run: Run, side: str, asked: Any) -> str:
    """Returns the SHA-256 of what decides a model's answers: what is `asked` and how, base model, adapter, GPUs.

    `asked` is anything that JSON holds.
    """
    config = run.training_config()
    facts = {
        "asked": asked,
        "model": {name: config[name] for name in ("base_model", "load_in_4bit", "embedded_model") if name in config},
        "adapter": file_sha256(run / ADAPTERS[side] / "adapter_model.safetensors") if side in ADAPTERS else "",
        "gpus": sorted(set(gpu_names())),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def keep_answers(run: Run, fingerprints: dict[str, str], kinds: list[str]) -> None:
    """Copies the models' batches of these kinds from evaluate/work to evaluate/answers, all or nothing."""
    work = run / "evaluate" / "work"
    with write_folder(run / "evaluate" / "answers") as part:
        for journal in _journals(work, [*fingerprints], kinds):
            shutil.copy(journal, part)
        write_json(part / FINGERPRINTS, fingerprints)


def reuse_answers(run: Run, fingerprints: dict[str, str], kinds: list[str]) -> list[str]:
    """Copies the kept batches of every model whose fingerprint has not changed to evaluate/work, where they count as
    done, and returns these models; a model that has begun to answer there is left alone."""
    kept, work = run / "evaluate" / "answers", run / "evaluate" / "work"
    if not (kept / FINGERPRINTS).is_file():
        return []
    before, reused = read_json(kept / FINGERPRINTS), []
    for side, fingerprint in fingerprints.items():
        journals = _journals(kept, [side], kinds)
        if before.get(side) == fingerprint and journals and not _journals(work, [side], kinds):
            work.mkdir(parents=True, exist_ok=True)
            for journal in journals:
                shutil.copy(journal, work)
            reused.append(side)
    return reused


def _journals(folder: Path, sides: list[str], kinds: list[str]) -> list[Path]:
    return [file for side in sides for kind in kinds for file in sorted(folder.glob(f"{side}_{kind}-*.jsonl"))]
