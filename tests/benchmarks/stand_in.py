"""A T4's balance of arithmetic and launches on a faster GPU: a few of its multiprocessors (SMs), by CUDA MPS.

At full width a faster GPU waits for Python's launches, where a T4 waits for arithmetic. Held to 8 SMs an H200 is a T4
with a scale factor, which `measure_rates` gives for products and for copies.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helpers.planning.speed import T4_BYTES, T4_FLOPS
from helpers.platforms import rates as machine_rates

CONTROL = "nvidia-cuda-mps-control"
COUNT_SMS = "import torch; print(torch.cuda.get_device_properties(0).multi_processor_count)"


@contextlib.contextmanager
def hold_to_sms(sms: int) -> Iterator[None]:
    """Holds every process started inside to `sms` SMs of each GPU; 0 leaves them all.

    This process must not have used CUDA before. Raises SystemExit where MPS is missing, does not start, or gives no
    such number.
    """
    if not sms:
        yield
        return
    if not shutil.which(CONTROL):
        raise SystemExit(f"--sms {sms} needs {CONTROL}, which comes with NVIDIA's driver on Linux; it is not in PATH.")
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        changes = {f"CUDA_MPS_{name}_DIRECTORY": folder for name in ("PIPE", "LOG")}
        with environment(changes):
            subprocess.run([CONTROL, "-d"], check=True)
            try:
                with environment({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(find_percentage(sms))}):
                    yield
            finally:
                subprocess.run([CONTROL], input="quit\n", text=True, check=False, timeout=60)


@contextlib.contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Sets environment variables, for this process and those started inside, and puts back what was there."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


def find_percentage(sms: int) -> int:
    """Returns the percentage of threads with which a process has `sms` SMs. Raises SystemExit when none gives them."""

    def counted(percentage: int) -> int:
        variables = {**os.environ, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(percentage)}
        done = subprocess.run([sys.executable, "-c", COUNT_SMS], env=variables, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit("CUDA does not start under MPS, for the reason above.")
        return int(done.stdout)

    total = counted(100)
    guess = 100 * sms // total
    seen = {percentage: counted(percentage) for percentage in (guess, guess - 1, guess + 1) if percentage > 0}
    for percentage, count in seen.items():
        if count == sms:
            return percentage
    raise SystemExit(f"--sms {sms}: MPS gives {sorted(set(seen.values()))} of this GPU's {total} SMs around it.")


def measure_rates() -> dict[str, float]:
    """Returns this process's rates on its first GPU, and a T4's share of each: 0.4 means that a T4 has 0.4 of it.

    `products` is in floating-point operations per second, of a 4096³ product in float16; `copies` in bytes per second,
    read and written, of 1 GiB. Medians of events.
    """
    import torch

    rates = machine_rates.measure_rates()
    return {
        "sms": torch.cuda.get_device_properties(0).multi_processor_count,
        "products": rates["products"],
        "copies": rates["copies"],
        "t4_share_by_products": T4_FLOPS / rates["products"],
        "t4_share_by_copies": T4_BYTES / rates["copies"],
    }


def rates_of_a_child() -> dict[str, float]:
    """Returns `measure_rates` of a process of its own, as the cases are."""
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
    code += "import json, stand_in; print(json.dumps(stand_in.measure_rates()))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
