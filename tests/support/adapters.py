"""What a training leaves, read for comparison."""

from pathlib import Path

from safetensors.torch import load_file

from helpers.runs.files import read_jsonl
from helpers.runs.record import Run

ADAPTER = Path("train/adapter/adapter_model.safetensors")


def adapter_difference(first: Run, second: Run, file: Path = ADAPTER) -> float:
    """Returns the largest difference between two runs' adapters, relative to the largest weight of the first."""
    adapter, other = load_file(first / file), load_file(second / file)
    assert adapter.keys() == other.keys()
    largest = max(float(value.abs().max()) for name, value in adapter.items() if "lora_B" in name)
    assert largest > 0, "the adapter was not trained"
    return max(float((adapter[name] - other[name]).abs().max()) for name in adapter) / largest


def log_entries(run: Run, *names: str, folder: str = "train") -> list[dict]:
    """Returns the entries of a run's log that have a training loss, with these names only."""
    return [
        {name: entry.get(name) for name in names} for entry in read_jsonl(run / folder / "log.jsonl") if "loss" in entry
    ]


def losses(run: Run) -> list[float]:
    """Returns the training losses in a run's log."""
    return [entry["loss"] for entry in log_entries(run, "loss")]
