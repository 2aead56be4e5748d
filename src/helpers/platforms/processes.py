"""Child processes: one that streams its output, or one per GPU through accelerate."""

import contextlib
import os
import subprocess
import sys
import threading

from helpers.platforms.environment import ROOT


def child_environment(**variables: str) -> dict[str, str]:
    """Returns the environment of a child process that finds these helpers, with further variables."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables}


def run_child(command: list[str], seconds: float | None = None, /, **environment: str) -> int:
    """Runs a command that finds these helpers, prints its output as it comes, and returns its exit code.

    Ctrl-C reaches the command too, which ends as it sees fit: it is waited for. After so many `seconds` it is killed,
    with all that it started.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=child_environment(**environment),
        bufsize=1,
    )
    timer = threading.Timer(seconds or 0, kill_family, [process.pid])
    if seconds:
        timer.start()
    while process.poll() is None:
        with contextlib.suppress(KeyboardInterrupt):
            for line in process.stdout or ():
                print(line, end="", flush=True)
            process.wait()
    timer.cancel()
    return process.returncode


def kill_family(pid: int) -> None:
    """Kills a process and all that it started."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def launch_processes(
    module: str, arguments: list[str], processes: int, seconds: float | None = None, /, **environment: str
) -> int:
    """Runs `python -m module arguments` in so many processes, by `accelerate launch` on this machine.

    A process finds its place in RANK, LOCAL_RANK and WORLD_SIZE. Returns the launcher's exit code. `seconds` are those
    of `run_child`.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += ["--multi_gpu"]  # on a CPU too: with --cpu it starts one process, whatever their number
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", module, *arguments]
    return run_child(command, seconds, **environment)


def process_rank() -> int:
    """Returns this process's place in its launch, 0 for the first or the only one, which writes and prints."""
    return int(os.environ.get("RANK", 0))


def process_count() -> int:
    """Returns the number of processes of the launch."""
    return int(os.environ.get("WORLD_SIZE", 1))


def print_once(*lines: str) -> None:
    """Prints lines in the first process of a launch."""
    if lines and not process_rank():
        print(*lines, sep="\n", flush=True)
