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
from helpers.reporting.results import read_results
from helpers.reporting.summary import summarise_run
from helpers.reporting.words import BENGALI_DIGITS, LANGUAGES, Words
from helpers.runs.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from helpers.runs.record import Run
from helpers.runs.stages import MAIN_STAGES, STAGES

DIGITS = {"en": {}, "bn": BENGALI_DIGITS}
HOSTILE = "<script>alert(1)</script> </style><b>x [y](javascript:alert(2)) \x1b[31m\x00\u202eউল্টো ক্ষ\u200dর\u200cড়"


def read_page(run, language="en"):
    """Writes a run's page anew, and returns it."""
    write_report(run, 6, language)
    return PageText(run / "report/index.html")


def page_of(run):
    """Returns the page that a run has."""
    return PageText(run / "report/index.html")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_number_on_the_page_is_in_a_file_of_the_run(shown, language):
    page = page_of(shown(language))
    assert len([word for line in page.lines for word in re.findall(r"\d+\.\d+", line)]) > 150
    assert unknown_numbers(page, shown(language).folder) == []


def test_a_number_that_no_file_holds_is_noticed(shown, tmp_path):
    run, html = shown("en"), page_of(shown("en")).html
    value = run.metrics("evaluate")["tuned"]["perplexity"]["value"]
    assert f"{value:.2f}" in html
    (tmp_path / "index.html").write_text(html.replace(f"{value:.2f}", "299.98"), "utf-8")
    assert "299.98" in unknown_numbers(PageText(tmp_path / "index.html"), run.folder), "the walk finds nothing"


@pytest.mark.parametrize(("speed", "unknown"), [(265.04, []), (264.9, ["265"])])
def test_a_speed_shown_to_four_digits_is_known(tmp_path, speed, unknown):
    write_json(tmp_path / "infer/metrics.json", {"tokens_per_second": speed})
    (tmp_path / "index.html").write_text("<p>tokens/s</p><p>265</p>", "utf-8")
    assert unknown_numbers(PageText(tmp_path / "index.html"), tmp_path) == unknown


@pytest.fixture(scope="module")
def hostile_pages(copied, tmp_path_factory):
    """Returns the pages of a run whose texts all try to act: its own, its comparison, a notebook's."""
    run = copied(tmp_path_factory.mktemp("hostile"))
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


def test_the_verdict_comes_first_then_pictures_then_tables(shown):
    text = page_of(shown("en")).text
    decision = summarise_run(read_results(shown("en")), Words()).decision
    places = [text.index(part) for part in (decision, "Pictures", "Base against")]
    assert places == sorted(places)
    assert places[0] < 100


def test_the_note_on_the_embedded_model_follows_the_verdict(shown):
    html = page_of(shown("en")).html
    order = [
        html.index(part) for part in ('<div class="verdict', "The embedded model is a small Llama", 'class="lead"')
    ]
    assert order == sorted(order)
    assert html.count("What the words mean", 0, html.index("Pictures")) == 1, "the first numbers are explained"


def test_the_page_counts_the_different_replies_and_the_cut_ones(run):
    write_jsonl(run / "evaluate/base.jsonl", [{**r, "reply": "না।"} for r in read_jsonl(run / "evaluate/base.jsonl")])
    replies = read_jsonl(run / "infer/replies.jsonl")
    write_jsonl(run / "infer/replies.jsonl", [{**row, "hit_cap": place < 3} for place, row in enumerate(replies)])
    page, rows = read_page(run), len(read_jsonl(run / "evaluate/base.jsonl"))
    tuned = len({row["reply"] for row in read_jsonl(run / "evaluate/tuned.jsonl")})
    assert f"Different replies: base 1 of {rows}, tuned {tuned} of {rows}." in page.text
    assert f"of the tuned model's {len(replies)} replies, 3 cut at 96 tokens." in page.text
    assert page.html.count('lang="en">cut at the limit<') == 3, "a cut reply is not marked"


def test_the_scores_show_the_interval_above_the_floor(shown):
    chrf = shown("en").metrics("evaluate")["tuned"]["chrf"]
    assert f"{chrf['low']:.2f} to {chrf['high']:.2f} {chrf['floor']:.2f}" in page_of(shown("en")).text


def test_a_mailed_page_says_which_links_stay_behind(shown):
    assert "These pages open only inside the run's folder." in page_of(shown("en")).text


def test_every_term_of_a_table_is_explained_once(shown):
    html = page_of(shown("en")).html
    targets = re.findall(r'popovertarget="([^"]+)"', html)
    explained = re.findall(r'<p popover id="([^"]+)"', html)
    assert "term-floor" in explained
    assert len(explained) == len(set(explained)), "an id stands twice"
    assert set(targets) == set(explained)


def test_a_page_in_bengali_leaves_no_english_heading(shown):
    page = page_of(shown("bn"))
    assert page.html.startswith('<!doctype html>\n<html lang="bn">')
    headings = re.findall(r"<h[23]>([^<]*)</h[23]>", page.html)
    assert len(headings) > 10
    assert [heading for heading in headings if not re.search("[\u0980-\u09fe]", heading)] == []


def test_a_planned_time_of_nearly_nothing_is_not_0_hours(run):
    training = run.metrics("train")
    training["plan"]["hours"] |= {"train": 0.0, "evaluate": 0.0}
    write_json(run / "train/metrics.json", training)
    record = read_json(run / "run.json")
    record["stages"]["train"]["gpu"] = ["Tesla T4"]
    write_json(run / "run.json", record)
    text = read_page(run).text
    assert "time of training under 2 seconds" in text
    assert "0.00 hours" not in text


def test_a_plan_for_t4s_is_not_held_against_a_cpu(shown):
    text = page_of(shown("en")).text
    assert "This run had no GPU" in text
    assert "time of evaluation" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_value_is_shown_as_a_machine_writes_it(shown, language):
    training = shown(language).metrics("train")
    html = re.sub(r"(?s)<style.*?</style>|<pre.*?</pre>|<[^>]+>", "|", page_of(shown(language)).html)
    assert not re.search(r"\{&#39;|\[\{|T\d\d:\d\d|\+00:00|no, another", html)
    assert f"{training['total_parameters']:,}".translate(DIGITS[language]) in html


def test_a_page_in_bengali_leaves_no_english_sentence(shown):
    page = page_of(shown("bn"))
    names = r"\b(?:Noto|Sans|Bengali|Llama|LoRA|GPU|CPU|SHA|UTC|BLEU|ROUGE|sacreBLEU|Space|temperature|top)\b"
    lines = [re.sub(names, "", line) for line in page.lines if re.search("[\u0980-\u09fe]", line)]
    assert [line for line in lines if re.search(r"[A-Za-z]{3,} [A-Za-z]{2,} [A-Za-z]{2,}", line)] == []
    assert "split row by row" not in page.text
    assert "foreign crisis number" not in page.text


def test_a_heading_stands_once(shown):
    headings = re.findall(r"<h[23]>([^<]*)</h[23]>", page_of(shown("en")).html)
    assert len(headings) == len(set(headings))


def test_the_two_losses_are_explained_beside_each_other(shown):
    training = shown("en").metrics("train")
    text = page_of(shown("en")).text
    losses = f"Training loss {training['train_loss']:.2f}, validation loss {training['val_loss']:.2f}. They are not"
    assert text.count(losses) == 2, "below the curves, and above the table"


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
    assert seconds < 15, "reporting imports or reads more than it needs: see python -X importtime"
    assert (run / "report/index.html").stat().st_size < 3e6


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    done = call_report(tmp_path)
    assert done.returncode == 2
    assert "is not the folder of a run" in done.stderr


# The words of stacked headings that are wider than the column they stand in: (word, its width, the column's)
BROKEN_WORDS = """() => [...document.querySelectorAll('.stacked td')].flatMap(cell => {
  const column = parseFloat(getComputedStyle(cell.parentElement).gridTemplateColumns);
  const ruler = document.body.appendChild(document.createElement('span'));
  ruler.style.cssText = `font: ${getComputedStyle(cell, '::before').font}; position: absolute; white-space: nowrap`;
  const measure = word => [ruler.textContent = word, ruler.offsetWidth, column];
  const words = cell.dataset.heading.split(/[\\s-]+/).map(measure);
  ruler.remove();
  return words.filter(([, width]) => width > column + 1);
})"""


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_heading_on_a_phone_is_broken_within_a_word(shown, browser, language):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((shown(language) / "report/index.html").as_uri())
    page.evaluate("document.fonts.ready")
    assert page.locator(".stacked td").count() > 20
    assert page.evaluate(BROKEN_WORDS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.browser
def test_a_long_title_wraps_on_a_phone(run, browser):
    longer = Run(run.folder.rename(run.folder.with_name("llama-3.1-8b_r16_" * 5)))
    write_report(longer, 6, "bn")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((longer / "report/index.html").as_uri())
    assert page.evaluate("document.querySelector('h1').scrollWidth") <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.browser
def test_a_phone_shows_every_column_of_the_scores(shown, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((shown("en") / "report/index.html").as_uri())
    scores = page.locator("table.stacked", has=page.get_by_text("floor", exact=True)).first  # not the table of gates
    cells = scores.locator("tbody tr").first.locator("td")
    assert cells.count() == 11
    for place in range(cells.count()):
        box = cells.nth(place).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    headings = cells.evaluate_all("cells => cells.map(cell => getComputedStyle(cell, '::before').content)")
    assert '"floor"' in headings
    page.close()


@pytest.mark.browser
def test_a_term_opens_by_tap_and_by_keyboard(shown, browser):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto((shown("en") / "report/index.html").as_uri())
    term, meaning = page.locator("[popovertarget=term-chrf]").first, page.locator("#term-chrf")
    page.locator("[popovertarget=term-floor]").first.tap()  # of a heading
    assert page.locator("#term-floor").is_visible()
    page.keyboard.press("Escape")
    assert not meaning.is_visible()
    term.tap()
    assert meaning.is_visible()
    page.keyboard.press("Escape")
    assert not meaning.is_visible()
    term.focus()
    page.keyboard.press("Enter")
    assert meaning.is_visible()
    page.keyboard.press("Escape")
    page.emulate_media(media="print")
    assert meaning.is_visible(), "it is not printed"
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_browser_finds_nothing_wrong_at_any_width_or_light(run, browser, language):
    evaluation = run.metrics("evaluate")
    evaluation["topics"] = [{**evaluation["topics"][0], "label": label} for label in ("দুঃখ", "বন্ধুত্ব")]
    write_json(run / "evaluate/metrics.json", evaluation)
    write_report(run, 6, language)
    shutil.copytree(run, run.outputs / "other")
    write_comparison([run, Run(run.outputs / "other")], run.outputs / "both.html")
    for path in (run / "report/index.html", *[run.outputs / "both.html"] * (language == "en")):
        for width, light in ((390, "dark"), (1280, "light")) if language == "en" else ((390, "light"),):
            check_in_browser(browser, path, width, light)


def test_a_renamed_runs_page_says_how_to_resume_it_where_it_is(run):
    record = read_json(run / "run.json")
    write_json(run / "run.json", record | {"run_name": f"before-{run.name}"})
    stop_at(run, "train", status="paused")
    command = (run / "report/index.html").read_text("utf-8").partition("<pre>")[2].partition("</pre>")[0]
    assert f"--run-name {run.name} --outputs" in command
