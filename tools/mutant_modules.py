"""The modules of tools/mutants.yaml, where their results are kept, and which of their mutants count."""

import hashlib
import random
from pathlib import Path
from typing import NamedTuple

import yaml
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import WorkerOutcome, WorkItem

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "tools/mutants.yaml"
RESULTS = ROOT / "outputs/.cache/mutants"
SEED = 1  # of a sample of mutants
TIMED_OUT = "timed out"


class Module(NamedTuple):
    """A module, and the tests that are to notice its mutants, the fastest first."""

    name: str
    path: Path
    tests: tuple[str, ...]  # pytest's arguments
    sample: int = 0  # so many mutants, drawn by SEED; 0: all

    @property
    def import_name(self) -> str:
        return ".".join(self.path.with_suffix("").parts[self.path.parts.index("src") + 1 :])

    @property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def results(self) -> Path:
        """The database of this very source."""
        return RESULTS / f"{self.name}-{hashlib.sha256(self.source.encode()).hexdigest()[:8]}.sqlite"


def read_modules(path: Path = MODULES, root: Path = ROOT) -> dict[str, Module]:
    """Returns the modules of the YAML file by their name."""
    listed = yaml.safe_load(path.read_text(encoding="utf-8"))["modules"]
    return {
        name: Module(name, root / entry["file"], tuple(entry["tests"]), entry.get("sample", 0))
        for name, entry in listed.items()
    }


def drawn(db: WorkDB, module: Module) -> list[WorkItem]:
    """Returns the mutants that count, in an order drawn by SEED: all of them, or the module's sample."""
    left_out = {job for job, result in db.results if result.worker_outcome == WorkerOutcome.SKIPPED}
    items = [item for item in db.work_items if item.job_id not in left_out]
    items.sort(key=lambda item: (item.mutations[0].operator_name, item.mutations[0].occurrence))
    random.Random(SEED).shuffle(items)
    return items[: module.sample or None]
