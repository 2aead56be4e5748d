"""Starts a training: in this process, or one process per GPU through accelerate."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.planning.config import TrainingConfig
from helpers.platforms.errors import describe_error
from helpers.platforms.machine import set_threads
from helpers.platforms.processes import launch_processes, process_rank
from helpers.runs.files import read_json, write_json
from helpers.runs.mirror import mirrored
from helpers.runs.record import Run
from helpers.runs.session import SESSION_START, session_start
from helpers.training.config import OnRung, fit_to_machine
from helpers.training.loop import LoadedTraining, load_training, run_training

Load = Callable[[Run], LoadedTraining]


def load_here(run: Run, config: TrainingConfig) -> LoadedTraining | None:
    """Loads what `launch_training` trains in this process; None where several processes train, and load their own."""
    config = write_config(run, config)
    return load_training(run) if count_processes(config) == 1 else None


def launch_training(
    run: Run,
    config: TrainingConfig,
    on_rung: OnRung | None = None,
    loaded: LoadedTraining | None = None,
    load: Load | None = None,
    module: str = "helpers.training.launch",
) -> dict[str, Any]:
    """Trains and returns the metrics: here, or with `num_gpus` over one in one process per GPU (0 = all).

    `on_rung` decides at the rungs of a search; several processes pause at config.pause_at instead. `loaded` comes from
    `load_here`; what is not loaded yet is loaded by `load` (None: `load_training`), in several processes by that of
    `module`, which each of them runs. Raises ValueError as `fit_gpus` does, RuntimeError when a process fails.
    """
    config, result_file = write_config(run, config), run / config.stage / "result.json"
    result_file.unlink(missing_ok=True)
    processes = count_processes(config)
    with mirrored(run, config.session):
        if processes == 1:
            return run_training(run, on_rung, loaded, load)
        print(f"{processes} GPUs, one process each")
        start = {SESSION_START: str(session_start())}
        code = launch_processes(module, [str(run / config.stage / "config.json")], processes, **start)
    if code:
        reason = read_json(result_file)["reason"] if result_file.is_file() else "see the log above"
        raise RuntimeError(f"training ended with exit code {code}: {reason}.")
    return read_json(result_file)


def write_config(run: Run, config: TrainingConfig) -> TrainingConfig:
    """Writes the stage's config.json for the GPUs of this machine, and returns what it holds."""
    config = fit_to_machine(run, config)
    run.id()  # made before several processes could each make one
    write_json(run / config.stage / "config.json", config.to_json())
    return config


def count_processes(config: TrainingConfig) -> int:
    """Returns how many processes train."""
    import torch

    return config.num_gpus or max(1, torch.cuda.device_count())


def train_process(config_file: Path, load: Load | None = None) -> None:
    """One process of a launch: trains by a stage's config.json; the first writes the outcome to result.json."""
    set_threads()
    run = Run(config_file.resolve().parents[1])
    run.join()
    result = {"status": "failed", "reason": "it was interrupted"}
    try:
        result = run_training(run, load=load)
    except Exception as error:
        result["reason"] = describe_error(error)
        raise
    finally:
        if not process_rank():
            write_json(config_file.with_name("result.json"), result)


if __name__ == "__main__":
    train_process(Path(sys.argv[1]))
