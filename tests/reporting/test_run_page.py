"""The page of a run: every number from a file, nothing that acts, nothing from elsewhere, readable for everyone."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from in_browser import check_in_browser
from page_text import PageText, unknown_numbers

from helpers.platforms.environment import ROOT
from helpers.reporting.comparison import write_comparison
from helpers.reporting.render import render_notebook
from helpers.reporting.report import write_report
from helpers.runs.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from helpers.runs.record import Run
from helpers.runs.stages import MAIN_STAGES, STAGES

HOSTILE = "<script>alert(1)</script> </style><b>x [y](javascript:alert(2)) \x1b[31m\x00\u202eউল্টো ক্ষ\u200dর\u200cড়"


def read_page(run):
    """Writes a run's page anew, and returns it."""
    write_report(run, 6)
    return PageText(run / "report/index.html")


def test_every_number_on_the_page_is_in_a_file_of_the_run(run):
    write_json(run / "report/metrics.json", write_report(run, 6))
    page = PageText(run / "report/index.html")
    assert len([word for line in page.lines for word in re.findall(r"\d+\.\d+", line)]) > 150
    assert unknown_numbers(page, run.folder) == []


def test_a_number_that_no_file_holds_is_noticed(run):
    write_report(run, 6)
    html = (run / "report/index.html").read_text("utf-8")
    value = run.metrics("evaluate")["tuned"]["perplexity"]["value"]
    (run / "report/index.html").write_text(html.replace(f"{value:.2f}", "299.98"), "utf-8")
    assert "299.98" in unknown_numbers(PageText(run / "report/index.html"), run.folder), "the walk finds nothing"


@pytest.fixture
def hostile_pages(run):
    """Returns the pages of a run whose texts all try to act: its own, its comparison, a notebook's."""
    for name in ("base", "tuned"):
        rows = read_jsonl(run / f"evaluate/{name}.jsonl")
        rows = [{**row, "prompt": HOSTILE, "reply": HOSTILE, "reference": HOSTILE, "topic": HOSTILE} for row in rows]
        write_jsonl(run / f"evaluate/{name}.jsonl", rows)
    evaluation = run.metrics("evaluate")
    evaluation["topics"] = [{**evaluation["topics"][0], "label": HOSTILE}] * 2
    write_json(run / "evaluate/metrics.json", evaluation)
    replies = read_jsonl(run / "infer/replies.jsonl")
    write_jsonl(run / "infer/replies.jsonl", [{**row, "prompt": HOSTILE, "base": HOSTILE} for row in replies])
    record = read_json(run / "run.json")
    record["stages"]["prepare_data"]["parameters"]["dataset"] = HOSTILE
    record["stages"]["infer"] |= {"status": "failed", "error": HOSTILE}
    write_json(run / "run.json", {**record, "commands": [HOSTILE], "preset": HOSTILE})
    other = run.outputs / "other"
    shutil.copytree(run, other)
    write_report(run, 6)
    write_comparison([run, Run(other)], run.outputs / "both.html")
    notebook = nbformat.v4.new_notebook()
    outputs = [nbformat.v4.new_output("stream", text=f"{HOSTILE}\n")]
    outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue=HOSTILE, traceback=[HOSTILE]))
    notebook.cells = [nbformat.v4.new_code_cell(f"x = {HOSTILE!r}", outputs=outputs)]
    nbformat.write(notebook, run / "notebooks/02_train.ipynb")
    render_notebook(run / "notebooks/02_train.ipynb", run / "html/02_train.html")
    return [run / "report/index.html", run.outputs / "both.html", run / "html/02_train.html"]


def test_hostile_text_is_inert_on_every_page(hostile_pages):
    for path in hostile_pages:
        html, page = path.read_text("utf-8"), PageText(path)
        assert "script" not in page.tags, path.name
        assert html.count("<style") == html.count("</style>"), path.name
        assert not [address for address in page.addresses if address.startswith("javascript")], path.name
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e]", html), path.name


def test_hostile_text_is_visible_on_the_pages_that_show_it(hostile_pages):
    for path in [path for path in hostile_pages if path.name != "both.html"]:
        html = path.read_text("utf-8")
        assert "[U+202E]উল্টো ক্ষ\u200dর\u200cড়" in html, path.name
        assert "&lt;script&gt;alert(1)" in html, path.name


def test_the_password_of_a_storage_is_on_no_page(run):
    url = "postgresql+psycopg://searcher:{}@db.example:5432/studies".format("s3cret-word")
    record = read_json(run / "run.json")
    record["stages"]["tune"] = {**record["stages"]["train"], "parameters": {"storage": url}}
    write_json(run / "run.json", {**record, "commands": [f"python -m helpers run --set tune.storage={url}"]})
    write_report(run, 6)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f'storage = "{url}"')])
    nbformat.write(notebook, run / "notebooks/02_train.ipynb")
    render_notebook(run / "notebooks/02_train.ipynb", run / "html/02_train.html")
    for name in ("report/index.html", "html/02_train.html"):
        html = (run / name).read_text("utf-8")
        assert "s3cret" not in html, name
        assert "searcher:…@db.example" in html, name


def stop_at(run, stage, **facts):
    """Makes a run that stopped at a stage: what comes after has not begun. Returns its page's text."""
    stages = list(MAIN_STAGES)
    record = read_json(run / "run.json")
    for later in stages[stages.index(stage) :]:
        (run / STAGES[later][1] / "metrics.json").unlink(missing_ok=True)
        if later != stage:
            record["stages"].pop(later)
    record["stages"][stage] |= facts
    write_json(run / "run.json", record)
    return read_page(run).text


def test_a_paused_run_says_what_is_done_and_how_to_resume(run):
    paused = {"status": "paused", "step": 40, "steps": 102, "reason": "the session's time is nearly up"}
    text = stop_at(run, "train", status="paused", paused=paused)
    assert "train: paused (step 40 of 102: the session's time is nearly up)" in text
    assert "evaluate: not begun; infer: not begun" in text
    assert "To resume, run the same command again" in text
    assert "python -m helpers run --preset demo" in (run / "report/index.html").read_text("utf-8")
    assert "Data" in text
    assert "Base against tuned" not in text
    assert "Cleaning" not in text, "the label of a table is no text"


def test_a_failed_run_says_why(run):
    text = stop_at(run, "evaluate", status="failed", error="OutOfMemoryError: CUDA out of memory\nTraceback …")
    assert "evaluate: failed (OutOfMemoryError: CUDA out of memory)" in text
    assert "Traceback" not in text
    assert "Loss" not in text
    assert "Plan against actual" in text


@pytest.mark.parametrize("stage", ["prepare_data", "train", "evaluate", "infer"])
def test_a_run_that_lacks_a_stage_still_has_a_page(run, stage):
    shutil.rmtree(run / STAGES[stage][1])
    text = read_page(run).text
    assert f"{stage}: its metrics.json is gone" in text
    assert ("Base against tuned" in text) == (stage != "evaluate")


def call_report(folder, **environment):
    command = [sys.executable, "-m", "helpers", "report", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_downloaded_run_renders_without_torch_in_seconds(run, tmp_path):
    for name in ("torch", "transformers", "unsloth", "trl", "peft"):
        write_text(tmp_path / "none" / f"{name}.py", "raise ImportError('not on this laptop')\n")
    (run / "report/index.html").unlink()
    before = os.times().children_user
    path = os.pathsep.join([str(tmp_path / "none"), str(ROOT / "src")])
    done = call_report(run, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    seconds = os.times().children_user - before  # of the processor: other work on the machine does not count
    assert seconds < 8, "reporting imports or reads more than it needs: see python -X importtime"
    assert (run / "report/index.html").stat().st_size < 3e6


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    done = call_report(tmp_path)
    assert done.returncode == 2
    assert "is not the folder of a run" in done.stderr


@pytest.mark.browser
def test_a_browser_finds_nothing_wrong_at_any_width_or_light(run, browser):
    evaluation = run.metrics("evaluate")
    evaluation["topics"] = [{**evaluation["topics"][0], "label": label} for label in ("দুঃখ", "বন্ধুত্ব")]
    write_json(run / "evaluate/metrics.json", evaluation)
    write_report(run, 6)
    shutil.copytree(run, run.outputs / "other")
    write_comparison([run, Run(run.outputs / "other")], run.outputs / "both.html")
    for path in (run / "report/index.html", run.outputs / "both.html"):
        for width in (390, 1280):
            for light in ("light", "dark"):
                check_in_browser(browser, path, width, light)
