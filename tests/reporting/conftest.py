"""A copy of the demo's run, as it is downloaded: a test may change its files, but for those of `shown`."""

import functools
import pickle
import shutil

import pytest

from helpers.reporting import figures, report
from helpers.reporting.report import write_report
from helpers.runs.files import write_bytes, write_json
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


class KeptPictures:
    """Stands for the module `figures` in the report: a picture of what another page has shown is taken from there."""

    def __init__(self):
        self.kept = {}  # {what is drawn, pickled: {"png": content, "svg": content}}

    def __getattr__(self, name):
        member = getattr(figures, name)
        return functools.partial(functools.partial, member) if name.startswith("draw_") else member

    def save_figure(self, draw, folder, name):
        files, drawn = {kind: folder / f"{name}.{kind}" for kind in ("png", "svg")}, pickle.dumps(draw)
        if drawn in self.kept:
            for kind, file in files.items():
                write_bytes(file, self.kept[drawn][kind])
        else:
            figures.save_figure(draw(), folder, name)
            self.kept[drawn] = {kind: file.read_bytes() for kind, file in files.items()}
        return self.kept[drawn]["svg"]


@pytest.fixture(scope="session")
def kept_pictures():
    return KeptPictures()


@pytest.fixture(autouse=True)
def draw_once(kept_pictures, monkeypatch):
    """Draws a picture once for all pages that show the same: drawing is most of the time that a page takes."""
    monkeypatch.setattr(report, "figures", kept_pictures)
