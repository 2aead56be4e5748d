"""Training in two processes on a CPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from helpers.runs.files import read_json

ROOT = Path(__file__).resolve().parents[2]


def train_on_two_machines(run, module="helpers.training.launch", stage="train"):
    """Trains a stage of a run in two processes, as on two machines; returns its result and what the first printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"]
    command += ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    run.id()  # as a launch makes it before its processes
    machines = [
        subprocess.Popen(
            [*command, "--machine_rank", rank, "-m", module, str(run / stage / "config.json")],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    outputs = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(outputs)[-4000:]
    return read_json(run / stage / "result.json"), outputs[0]
