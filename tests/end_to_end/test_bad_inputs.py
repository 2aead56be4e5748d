"""Every input that no command can work on: exit code, one clear message, and nothing lost."""

import contextlib
import io
import random
import signal
from types import SimpleNamespace

import bad_inputs
import pytest

from helpers.__main__ import main
from helpers.runs.files import file_sha256
from helpers.runs.settings import NOTEBOOKS

CASES = bad_inputs.all_cases()
LIMIT = 60  # seconds
DERIVED = {"report/index.html", "comparison.html"}  # pages, which every report writes again


def list_hashes(folder):
    """Returns {file: SHA-256} of all that a folder holds."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


@contextlib.contextmanager
def time_limit():
    """Raises TimeoutError where the block takes longer than LIMIT."""

    def end(*_):
        raise TimeoutError(f"longer than {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """Makes the presets a folder of links, to which a case may add its own."""
    folder = tmp_path / "notebooks"
    (folder / "presets").mkdir(parents=True)
    for path in [*NOTEBOOKS.glob("*.ipynb"), NOTEBOOKS / "tiny.yaml", *NOTEBOOKS.glob("presets/*.yaml")]:
        (folder / path.relative_to(NOTEBOOKS)).symlink_to(path)
    monkeypatch.setattr("helpers.runs.settings.NOTEBOOKS", folder)
    return folder / "presets"


@pytest.fixture
def execute(tmp_path, presets, monkeypatch):
    """Returns a function that runs a case: exit code, what was printed, and the files before and after."""
    started = []
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: started.append("a notebook"))
    monkeypatch.setattr("helpers.inference.serve.LoadedModel", lambda *_: started.append("the model"))
    monkeypatch.chdir(tmp_path)

    def call(case):
        outputs, printed = tmp_path / "outputs", io.StringIO()
        bad_inputs.copy_runs(outputs)
        case.damage(outputs)
        if (outputs / "mine.yaml").exists():
            (outputs / "mine.yaml").rename(presets / "mine.yaml")
        before = list_hashes(outputs)
        arguments = [argument.replace("OUT", str(outputs)) for argument in case.arguments]
        with time_limit(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                code = main(arguments)
            except SystemExit as end:  # argparse's
                code = end.code
        after = list_hashes(outputs)
        return SimpleNamespace(code=code, printed=printed.getvalue(), before=before, after=after, started=started)

    return call


def check(case, execute):
    """Checks exit code, message and files of a case."""
    done = execute(case)
    assert done.code in case.codes, f"exit code {done.code}:\n{done.printed}"
    assert case.says in done.printed, f"expected {case.says!r} in:\n{done.printed}"
    assert "error: " in done.printed or done.code == 0, "a bad input must be called an error"
    assert "Traceback" not in done.printed, done.printed
    assert "--verbose shows where" not in done.printed, f"an error that nobody foresaw:\n{done.printed}"
    assert done.printed.count("\nerror") <= 1, done.printed
    if case.hides:
        assert case.hides not in done.printed, "a secret was printed"
    if done.code == 2:
        assert not done.started, f"{done.started} was started"
        lost = {name for name, digest in done.before.items() if done.after.get(name) != digest} - DERIVED
        assert not lost, f"{lost} changed"


@pytest.mark.parametrize("case", random.Random(20).sample(CASES, 40), ids=lambda case: case.name)
def test_a_bad_input_is_refused_without_loss(case, execute):
    check(case, execute)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_bad_input_is_refused_without_loss(case, execute):
    check(case, execute)


def test_the_table_of_bad_inputs_is_a_large_one():
    assert len(CASES) >= 250
    assert len({case.name for case in CASES}) == len(CASES), "two cases have one name"
