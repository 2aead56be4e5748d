"""A copy of the demo's run, as it is downloaded: a test may change its files, but for those of `shown`."""

import functools
import shutil

import pytest

from helpers.reporting.report import write_report
from helpers.runs.files import write_json
from helpers.runs.record import Run


@pytest.fixture(scope="session")
def copied(demo):
    """Returns a function that copies the demo's run, without its weights, into a folder."""

    def call(folder):
        weights = ("checkpoints", "adapter", "model")
        shutil.copytree(demo.run, folder / "demo", ignore=lambda _, names: [n for n in names if n in weights])
        return Run(folder / "demo")

    return call


@pytest.fixture
def run(copied, tmp_path):
    return copied(tmp_path)


@pytest.fixture(scope="session")
def shown(copied, tmp_path_factory):
    """Returns a function that gives the run with its page in a language, written once: no test may change it."""

    @functools.cache
    def call(language):
        run = copied(tmp_path_factory.mktemp(language))
        write_json(run / "report/metrics.json", write_report(run, 6, language))
        return run

    return call
