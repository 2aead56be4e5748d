"""Ctrl-C while the command line is being imported: one line, no traceback."""

import functools
import os
import signal
import subprocess
import sys


def test_an_interrupted_start_has_no_traceback(tmp_path):
    (tmp_path / "yaml.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "helpers", "report", "outputs/demo"]
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what started the tests may ignore it
    options = {"capture_output": True, "text": True, "preexec_fn": listening}
    done = subprocess.run(command, env=environment, cwd=tmp_path, **options)
    assert done.returncode == 130
    assert done.stderr == "interrupted: the same command continues\n"
