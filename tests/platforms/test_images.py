"""Every way into the suite on twins of Kaggle's and Colab's images: run by make test-platforms."""

import papermill
import pytest
from image_twins import PlatformSession, list_image, printed_text
from kaggle_machine import Kaggle
from nbformat import read, write
from nbformat.v4 import new_code_cell, new_notebook
from preferences import COLD, ask

from helpers.__main__ import main
from helpers.runs.files import read_json, read_jsonl, write_jsonl
from helpers.runs.settings import NOTEBOOKS, resolve_settings
from helpers.runs.stages import STAGES

pytestmark = pytest.mark.platforms
BENGALI = """
import hashlib
from helpers.reporting.bengali_text import outline_line
from helpers.reporting.figures import create_axes, load_pyplot  # words: ok
from matplotlib.font_manager import FontProperties, findfont
load_pyplot()
text = "ক্ষুধা, স্ত্রী, কৈ, কো, র‍্যাব, ড়, mental health ২৫%"
path, *_ = outline_line(text, str(findfont(FontProperties(size=10))))
outline = hashlib.sha256(path.vertices.round(6).tobytes()).hexdigest()
figure, axes = create_axes(figsize=(5, 2))
axes.set_title(text)
print(outline)
"""
DRAWN = {"prepare_data": 5, "tune": 1, "train": 3, "prefer": 1, "report": 4}  # pictures in it


@pytest.fixture(scope="module", params=["kaggle", "colab"])
def session(request, tmp_path_factory, model_cache):
    """Returns a session on a twin; `session.before` is the image as it was."""
    session = PlatformSession(request.param, tmp_path_factory.mktemp(request.param))
    session.before = list_image(session.python)
    return session


@pytest.fixture(scope="module")
def opened(session):
    """Returns {stage: its notebook, opened directly and executed in a kernel of its own}."""
    pairs, notebooks = session.root / "pairs.jsonl", {}
    settings = resolve_settings("demo", "direct", "outputs", ["tune.trials=2", f"prefer.dataset=[{pairs}]"], tiny=True)
    for stage, (name, _) in STAGES.items():
        if stage == "prefer":
            rows = read_jsonl(session.working / "outputs/direct/data/train.jsonl")
            asked = [[turn["content"] for turn in row["messages"]] for row in rows if len(row["messages"]) == 3]
            write_jsonl(pairs, [ask(question, answer, COLD) for _, question, answer in asked])
        notebooks[stage] = session.open_notebook(NOTEBOOKS / f"{name}.ipynb", settings[stage])
    return notebooks


@pytest.fixture(scope="module")
def report_first(session, opened):
    """Returns the report's notebook as the first one that a session opens, on a run that is there already."""
    for picture in (session.working / "outputs/direct/report").glob("*.svg"):
        picture.unlink()
    settings = resolve_settings("demo", "direct", "outputs", [], tiny=True)
    return session.open_notebook(NOTEBOOKS / "05_report.ipynb", settings["report"])


@pytest.fixture(scope="module")
def runner(session):
    """Runs the suite through the runner."""
    return session.run("-m", "helpers", "run", "--preset", "demo", "--tiny", "--run-name", "runner")


def test_every_notebook_runs_when_opened_directly(session, opened):
    for stage, (_, folder) in STAGES.items():
        metrics = session.working / "outputs/direct" / folder / "metrics.json"
        assert metrics.is_file(), f"{stage}: {printed_text(opened[stage])[-2000:]}"


def test_the_rows_are_those_of_this_environment(session, opened, suite, tmp_path):
    done = suite("--preset", "demo", "--tiny", "--outputs", tmp_path, "--stages", "prepare_data")
    assert done.returncode == 0, done.output
    for part in ("train", "val", "test"):
        rows = (session.working / f"outputs/direct/data/{part}.jsonl").read_bytes()
        assert rows == (tmp_path / f"demo-tiny/data/{part}.jsonl").read_bytes(), part


def test_every_figure_is_shown(opened):
    for stage, pictures in DRAWN.items():
        outputs = [output for cell in opened[stage].cells for output in cell.get("outputs", [])]
        shown = [output.get("data", {}).get("text/html", "").count("data:image/svg+xml") for output in outputs]
        assert sum(shown) >= pictures, f"{stage}: {shown}"


def test_every_character_of_a_figure_has_a_glyph(opened):
    for stage, notebook in opened.items():
        assert "missing from" not in printed_text(notebook), f"{stage}: {printed_text(notebook)[-2000:]}"


def test_bengali_on_a_figure_is_that_of_this_environment(session, opened, tmp_path):
    setup = read(NOTEBOOKS / "05_report.ipynb", as_version=4).cells[1].source
    assert "set_up()" in setup
    write(new_notebook(cells=[new_code_cell(setup), new_code_cell(BENGALI)]), tmp_path / "figure.ipynb")
    drawn = session.open_notebook(tmp_path / "figure.ipynb", {})
    place: dict = {}
    exec(BENGALI, place)
    assert printed_text(drawn).splitlines()[-1] == place["outline"]
    assert any("image/png" in output.get("data", {}) for output in drawn.cells[-1].outputs)


def test_the_report_as_first_notebook_saves_its_figures(session, report_first):
    folder = session.working / "outputs/direct/report"
    for name in ("training_loss", "eval_results", "sessions"):
        assert (folder / f"{name}.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>"), name


def test_the_runner_finishes(session, runner):
    assert runner.returncode == 0, runner.stdout[-3000:] + runner.stderr[-3000:]
    stages = read_json(session.working / "outputs/runner/run.json")["stages"]
    assert {stage["status"] for stage in stages.values()} == {"finished"}


def test_the_runners_kernels_use_the_packages_beside(session, opened, runner):
    versions = read_json(session.working / "outputs/runner/run.json")["stages"]["train"]["versions"]
    recorded = read_json(session.working / "outputs/direct/run.json")["stages"]["train"]["versions"]
    assert versions == recorded
    assert versions["transformers"] == "5.17.0"


def test_papermill_on_the_command_line_runs_a_notebook(session):
    if session.image == "colab":
        pytest.skip("Colab has no papermill")
    settings = resolve_settings("demo", "papermill", "outputs", [], tiny=True)["prepare_data"]
    parameters = [part for name in ("run_name", "max_rows") for part in ("-p", name, str(settings[name]))]
    done = session.run("-m", "papermill", session.suite / "notebooks/01_prepare_data.ipynb", "out.ipynb", *parameters)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (session.working / "outputs/papermill/data/metrics.json").is_file()


def test_a_chain_on_kaggle_finishes(session, tmp_path, monkeypatch):
    if session.image == "colab":
        pytest.skip("it is Kaggle's")
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "not a key")
    with Kaggle(tmp_path / "kaggle", limit=1200) as server:
        server.python = str(session.python)
        server.variables = {name: value for name, value in session.environment.items() if not name.startswith("KAGGLE")}
        del server.variables["SAHANUBHUTI_KAGGLE"]
        options = ["--preset", "demo", "--tiny", "--run-name", "chained", "--outputs", str(tmp_path)]
        assert main(["kaggle", "chain", *options, "--owner", "someone", "--every", "1"]) == 0
    assert read_json(tmp_path / "chained/report/metrics.json")


def test_the_colab_notebook_finishes(session):
    parameters = {"preset": "demo", "run_name": "drive", "drive": str(session.root / "drive")}
    parameters["more"] = ["--tiny", "--stages", "prepare_data"]
    done = session.open_notebook(session.suite / "notebooks/colab.ipynb", parameters)
    assert printed_text(done).endswith("finished\n"), printed_text(done)[-3000:]
    assert (session.root / "drive/MyDrive/sahanubhuti/drive/run.tar").is_file() == (session.image == "colab")


def test_an_imported_transformers_asks_for_a_restart(session):
    with pytest.raises(papermill.PapermillExecutionError, match="already imported transformers") as caught:
        session.open_notebook(NOTEBOOKS / "05_report.ipynb", {"run_name": "direct"}, "import transformers")
    assert "restart the kernel" in str(caught.value)


def test_the_images_nbconvert_renders_an_executed_notebook(session, opened):
    executed = session.root / "shown.ipynb"
    write(opened["report"], executed)
    done = session.run("-m", "nbconvert", "--to", "html", "--output", session.root / "page.html", executed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Base against tuned" in (session.root / "page.html").read_text(encoding="utf-8")


def test_the_image_is_as_it_was(session, opened, report_first, runner):
    now = list_image(session.python)
    changed = {name for name in now.keys() | session.before.keys() if now.get(name) != session.before.get(name)}
    assert changed == set()
