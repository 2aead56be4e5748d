"""Ctrl-C while the command line is being imported: one line, no traceback."""

import os
import subprocess
import sys


def test_an_interrupted_start_has_no_traceback(tmp_path):
    (tmp_path / "yaml.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "helpers", "report", "outputs/demo"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "interrupted: the same command continues\n"
