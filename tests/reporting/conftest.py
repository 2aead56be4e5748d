"""A copy of the demo's run, as it is downloaded: a test may change its files."""

import shutil

import pytest

from helpers.runs.record import Run


@pytest.fixture
def run(demo, tmp_path):
    """Returns a copy of the demo's run without its weights."""
    weights = ("checkpoints", "adapter", "model")
    shutil.copytree(demo.run, tmp_path / "demo", ignore=lambda folder, names: [n for n in names if n in weights])
    return Run(tmp_path / "demo")
