"""Several runners at one run: one works, the others are refused, and the result is that of one left alone."""

import random
import subprocess
import sys
import time
from functools import partial

import pytest
from benchmarks import rivals

from helpers.runs.files import file_sha256, read_json, read_jsonl
from helpers.runs.record import Run

KERNEL = """
import os, sys, threading, time
from pathlib import Path
from helpers.runs.files import write_json
from helpers.runs.record import Run
from helpers.runs.session import compute_batches
run, parent = Run(Path(sys.argv[1])), os.getppid()
def end_with_parent():  # as a notebook's kernel does, a moment later
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
run.lock()
run.open_session("evaluate", None)
def compute(batch):
    time.sleep(0.05)
    return [number ** 3 for number in batch]
values = compute_batches([[n, n + 1] for n in range(0, 40, 2)], compute, run / "evaluate/work/x.jsonl")
write_json(run / "evaluate/values.json", values)
run.note_stage("evaluate", status="finished")
run.close_session(None, "finished")
"""
RUNNER = f"""
import subprocess, sys
from pathlib import Path
from helpers.platforms.errors import Refused
from helpers.runs.record import Run
run = Run(Path(sys.argv[1]))
try:
    run.lock(runner=True)
except Refused as refusal:
    print("error:", refusal)
    sys.exit(2)
if run.stage("evaluate").status != "finished":
    subprocess.run([sys.executable, "-c", {KERNEL!r}, str(run)], check=True)
run.unlock()
"""


def start(run):
    """Starts a runner whose only stage computes cubes, in a kernel of its own."""
    command = [sys.executable, "-c", RUNNER, str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("runners", "kills"), [(2, 0), (5, 2)])
def test_a_contested_run_equals_an_undisturbed_one(runners, kills, tmp_path):
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "contested")
    began = time.monotonic()
    assert start(whole).wait(60) == 0
    seconds = time.monotonic() - began
    counts = rivals.Round(partial(start, run), runners, kills, random.Random(runners), seconds).play()
    assert counts["finished"] >= 1
    assert counts["refused"] >= 1 or kills
    assert file_sha256(run / "evaluate/values.json") == file_sha256(whole / "evaluate/values.json")
    kept = [tuple(entry["items"]) for entry in read_jsonl(run / "evaluate/work/x-0.jsonl")]
    assert len(kept) == len(set(kept)), "two have computed one batch"
    assert all(session["ended"] for session in read_json(run / "run.json")["sessions"])
    assert len(run.sessions("evaluate")) <= 1 + kills


@pytest.mark.slow
def test_a_contested_demo_equals_an_undisturbed_one(tmp_path):
    counts = rivals.play_rounds(tmp_path, 2, [2, 5], random.Random(3))
    assert counts["rounds"] == 2
    assert counts["refused"] >= 2
