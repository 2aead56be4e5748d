"""The pages people read: every number from a file, nothing that acts, nothing from elsewhere, readable for everyone."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from helpers import compare, env, figures, report, run, tables

HOSTILE = "<script>alert(1)</script> </style><b>x [y](javascript:alert(2)) \x1b[31m\x00\u202eউল্টো ক্ষ\u200dর\u200cড়"
PROSE = {"95", "1", "5", "8", "4", "0", "256", "2"}  # numbers of the page's own sentences: "95 %", "1 to 5", "SHA-256"


@pytest.fixture
def copied(demo, tmp_path):
    """Returns a copy of the demo's run without its weights, as it is downloaded."""
    skip = ("checkpoints", "adapter", "model")
    shutil.copytree(demo.run, tmp_path / "demo", ignore=lambda folder, names: [n for n in names if n in skip])
    return tmp_path / "demo"


class Text(HTMLParser):
    """Collects the text that a reader sees, and the tags and addresses of a page."""

    def __init__(self):
        super().__init__()
        self.said, self.tags, self.addresses, self.inside = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside.append(tag)
        self.addresses += [value for name, value in attributes if name in ("href", "src", "action")]
        assert not [name for name, _ in attributes if name.startswith("on")], "an attribute that runs code"
        if tag in ("meta", "img", "br", "link", "input", "hr"):
            self.inside.pop()

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"style", "script", "pre"} & set(self.inside):
            self.said.append(data)


def read(page):
    text = Text()
    text.feed(Path(page).read_text(encoding="utf-8"))
    return text


def numbers_of(folder):
    """Returns every number in a run's files, as floats, and every text in them."""
    numbers, texts = set(), []

    def walk(value):
        if isinstance(value, dict):
            for name, part in value.items():
                texts.append(str(name))
                walk(part)
        elif isinstance(value, list):
            numbers.add(float(len(value)))
            for part in value:
                walk(part)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.add(float(value))
        elif isinstance(value, str):
            texts.append(tables.visible(value))

    for path in folder.rglob("*"):
        if path.suffix == ".json":
            walk(env.read_json(path))
        elif path.suffix == ".jsonl":
            walk(env.read_jsonl(path))
        elif path.suffix == ".csv":
            for row in csv.reader(open(path, encoding="utf-8")):
                for cell in row:
                    try:
                        numbers.add(float(cell))
                    except ValueError:
                        texts.append(cell)
    return sorted(numbers), "\n".join(texts)


def strangers(page, folder):
    """Returns the numbers a page shows that are in no file of the run, rounded as they are shown."""
    known, texts = numbers_of(folder)
    found = []
    for line in page.said:
        if line.strip() and line.strip() in texts:
            continue
        for shown in re.findall(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])", line):
            value = float(shown.replace(",", ""))
            digits = len(shown.partition(".")[2]) if "e" not in shown else 0
            room = 0.5 * 10.0**-digits * 1.001 if "e" not in shown else abs(value) * 0.05
            if shown.lstrip("+-") in PROSE or shown in texts:
                continue
            if not any(
                abs(one * scale - value) <= (room if digits or abs(value) > 999 else 1e-9)
                for one in known
                for scale in (1, 100)
            ):
                found.append(shown)
    return found


def test_every_number_on_the_page_is_in_a_file_of_the_run(copied):
    env.write_json(copied / "report/metrics.json", report.write(copied, 6))
    page = read(copied / "report/index.html")
    assert len([word for line in page.said for word in re.findall(r"\d+\.\d+", line)]) > 150
    assert strangers(page, copied) == []
    html = (copied / "report/index.html").read_text("utf-8")
    value = env.read_json(copied / "evaluate/metrics.json")["tuned"]["perplexity"]["value"]
    (copied / "report/index.html").write_text(html.replace(f"{value:.2f}", "299.98"), "utf-8")
    assert "299.98" in strangers(read(copied / "report/index.html"), copied), "the walk finds nothing"


def test_hostile_text_is_inert_and_visible_on_every_page(copied):
    for name in ("base", "tuned"):
        rows = env.read_jsonl(copied / f"evaluate/{name}.jsonl")
        rows = [{**row, "prompt": HOSTILE, "reply": HOSTILE, "reference": HOSTILE, "topic": HOSTILE} for row in rows]
        env.write_jsonl(copied / f"evaluate/{name}.jsonl", rows)
    judged = env.read_json(copied / "evaluate/metrics.json")
    judged["topics"] = [{**judged["topics"][0], "label": HOSTILE}] * 2
    env.write_json(copied / "evaluate/metrics.json", judged)
    talked = env.read_jsonl(copied / "infer/replies.jsonl")
    env.write_jsonl(copied / "infer/replies.jsonl", [{**row, "prompt": HOSTILE, "base": HOSTILE} for row in talked])
    record = env.read_json(copied / "run.json")
    record["stages"]["prepare_data"]["parameters"]["dataset"] = HOSTILE
    record["stages"]["infer"] |= {"status": "failed", "error": HOSTILE}
    env.write_json(copied / "run.json", {**record, "commands": [HOSTILE], "preset": HOSTILE})
    other = copied.parent / "other"
    shutil.copytree(copied, other)
    report.write(copied, 6)
    compare.write([copied, other], copied.parent / "both.html")
    notebook = nbformat.v4.new_notebook()
    outputs = [nbformat.v4.new_output("stream", text=f"{HOSTILE}\n")]
    outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue=HOSTILE, traceback=[HOSTILE]))
    notebook.cells = [nbformat.v4.new_code_cell(f"x = {HOSTILE!r}", outputs=outputs)]
    nbformat.write(notebook, copied / "notebooks/02_train.ipynb")
    run.render(copied / "notebooks/02_train.ipynb", copied / "html/02_train.html")
    for path in (copied / "report/index.html", copied.parent / "both.html", copied / "html/02_train.html"):
        html, page = path.read_text("utf-8"), read(path)
        assert "script" not in page.tags and html.count("<style") == html.count("</style>"), path.name
        assert not [one for one in page.addresses if one.startswith("javascript")], path.name
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e]", html), path.name
        if path.name != "both.html":
            assert "[U+202E]উল্টো ক্ষ\u200dর\u200cড়" in html and "&lt;script&gt;alert(1)" in html, path.name


def test_the_password_of_a_storage_is_on_no_page(copied):
    url = "postgresql+psycopg://searcher:s3cret-word@db.example:5432/studies"
    record = env.read_json(copied / "run.json")
    record["stages"]["tune"] = {**record["stages"]["train"], "parameters": {"storage": url}}
    env.write_json(copied / "run.json", {**record, "commands": [f"python -m helpers.run --set tune.storage={url}"]})
    report.write(copied, 6)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f'storage = "{url}"')])
    nbformat.write(notebook, copied / "notebooks/02_train.ipynb")
    run.render(copied / "notebooks/02_train.ipynb", copied / "html/02_train.html")
    for name in ("report/index.html", "html/02_train.html"):
        html = (copied / name).read_text("utf-8")
        assert "s3cret" not in html and "searcher:…@db.example" in html, name


def stand(copied, stage, **facts):
    """Makes a run that stands at a stage: what comes after has not begun."""
    stages = list(env.MAIN)
    record = env.read_json(copied / "run.json")
    for later in stages[stages.index(stage) :]:
        (copied / env.STAGES[later][1] / "metrics.json").unlink(missing_ok=True)
        if later != stage:
            record["stages"].pop(later)
    record["stages"][stage] |= facts
    env.write_json(copied / "run.json", record)
    return " ".join(line.strip() for line in page_of(copied).said if line.strip())


def page_of(copied):
    report.write(copied, 6)
    return read(copied / "report/index.html")


def test_a_paused_run_says_what_is_done_and_how_to_go_on(copied):
    paused = {"status": "paused", "step": 40, "steps": 102, "reason": "the session's time is nearly up"}
    said = stand(copied, "train", status="paused", paused=paused)
    assert "train: paused (step 40 of 102: the session's time is nearly up)" in said
    assert "evaluate: not begun; infer: not begun" in said and "run the same command again" in said
    assert "python -m helpers.run --preset demo" in (copied / "report/index.html").read_text("utf-8")
    assert "Base against tuned" not in said and "Cleaning" not in said and "Data" in said


def test_a_failed_run_says_why(copied):
    said = stand(copied, "evaluate", status="failed", error="OutOfMemoryError: CUDA out of memory\nTraceback …")
    assert "evaluate: failed (OutOfMemoryError: CUDA out of memory)" in said and "Traceback" not in said
    assert "Loss" not in said and "Plan against actual" in said


@pytest.mark.parametrize("stage", ["prepare_data", "train", "evaluate", "infer"])
def test_a_run_that_lacks_a_stage_has_a_page_all_the_same(copied, stage):
    shutil.rmtree(copied / env.STAGES[stage][1])
    text = " ".join(page_of(copied).said)
    assert f"{stage}: its metrics.json is gone" in text
    assert ("Base against tuned" in text) == (stage != "evaluate")


def test_a_downloaded_run_renders_without_torch_in_seconds(copied, tmp_path):
    for name in ("torch", "transformers", "unsloth", "trl", "peft"):
        env.write_text(tmp_path / "none" / f"{name}.py", "raise ImportError('not on this laptop')\n")
    path = os.pathsep.join([str(tmp_path / "none"), str(Path(env.ROOT) / "src")])
    (copied / "report/index.html").unlink()
    began = time.monotonic()
    command = [sys.executable, "-m", "helpers.report", str(copied)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 5 and (copied / "report/index.html").stat().st_size < 3e6
    done = subprocess.run([*command[:-1], str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "is no run's folder" in done.stderr


def test_a_browser_finds_nothing_wrong_at_any_width_in_any_light(copied, browser):
    from axe_playwright_python.sync_playwright import Axe

    judged = env.read_json(copied / "evaluate/metrics.json")
    judged["topics"] = [{**judged["topics"][0], "label": label} for label in ("দুঃখ", "বন্ধুত্ব")]
    env.write_json(copied / "evaluate/metrics.json", judged)
    report.write(copied, 6)
    shutil.copytree(copied, copied.parent / "other")
    compare.write([copied, copied.parent / "other"], copied.parent / "both.html")
    for path in (copied / "report/index.html", copied.parent / "both.html"):
        for width in (390, 1280):
            for light in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=light)
                page, said, asked = context.new_page(), [], []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.goto(path.as_uri())
                assert said == [] and [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
                assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
                if path.name == "index.html":
                    assert page.evaluate('document.fonts.check("16px \\"Report Bengali\\"", "ক্ষ")')
                found = Axe().run(page).response["violations"]
                bad = [
                    (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
                ]
                assert bad == [], f"{path.name} at {width} px, {light}"
                levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
                assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels
                context.close()


def test_the_plots_stand_beside_the_page_in_two_forms_and_come_out_the_same_again(copied):
    report.write(copied, 6)
    names = ("training_loss", "eval_results", "sessions")
    first = {name: (copied / f"report/{name}.svg").read_bytes() for name in names}
    assert all((copied / f"report/{name}.png").read_bytes()[:4] == b"\x89PNG" for name in names)
    report.write(copied, 6)
    assert first == {name: (copied / f"report/{name}.svg").read_bytes() for name in names}


def test_matplotlib_shapes_bengali():
    plt = figures._pyplot()
    from matplotlib.textpath import TextPath

    def width(text):
        path = TextPath((0, 0), text, size=100, prop=plt.matplotlib.font_manager.FontProperties(fname=figures.FONT))
        return path.get_extents().x1 if len(path.vertices) else 0.0

    assert width("ক্ষ") < 0.8 * (width("ক") + width("ষ")), "a conjunct is not one glyph"


def test_a_rendered_notebook_folds_its_code_links_its_pages_and_keeps_the_last_of_a_progress_bar(copied):
    notebook = nbformat.v4.new_notebook()
    stream = [nbformat.v4.new_output("stream", name="stderr", text=t) for t in ("  1%|\r", " 50%|\r", "100%|#| done\n")]
    hidden = nbformat.v4.new_code_cell("set_up()")
    hidden.metadata.tags = ["setup"]
    notebook.cells = [hidden, nbformat.v4.new_code_cell("steps()", outputs=stream)]
    nbformat.write(notebook, copied / "notebooks/04_infer.ipynb")
    run.render(copied / "notebooks/04_infer.ipynb", copied / "html/04_infer.html")
    html, page = (copied / "html/04_infer.html").read_text("utf-8"), read(copied / "html/04_infer.html")
    assert "100%|#| done" in html and " 50%|" not in html and "set_up()" not in html
    assert page.tags.count("details") == 1 and "script" not in page.tags
    for path in sorted((copied / "html").glob("*.html")):
        links = [one for one in read(path).addresses if one.endswith(".html")]
        assert "../report/index.html" in links and len(links) == len(env.MAIN), path.name
        assert all((path.parent / one).is_file() for one in links), path.name


def test_of_several_runs_the_better_one_wins_and_a_copy_does_not(copied, capsys):
    better, far = copied.parent / "better", copied.parent / "far"
    shutil.copytree(copied, better)
    rows = env.read_jsonl(better / "evaluate/tuned.jsonl")
    env.write_jsonl(better / "evaluate/tuned.jsonl", [{**row, "reply": row["reference"]} for row in rows])
    table = list(csv.DictReader(open(better / "evaluate/scores.csv", encoding="utf-8")))
    for row in table:
        row["tuned_nll"] = float(row["tuned_nll"]) * 0.9
    with open(better / "evaluate/scores.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    found = env.read_json(better / "evaluate/metrics.json")
    found["tuned"]["chrf"]["value"] = 100.0
    found["tuned"]["bits_per_char"]["value"] *= 0.9
    env.write_json(better / "evaluate/metrics.json", found)
    record = env.read_json(better / "run.json")
    record["stages"]["train"]["parameters"]["learning_rate"] = 0.5
    env.write_json(better / "run.json", record)
    assert report.main([str(copied), str(better)]) == 0
    said = " ".join(line.strip() for line in read(copied.parent / "comparison.html").said if line.strip())
    assert "likeliest to better, significantly. The highest chrF++ has better, significantly." in said
    assert "train.learning_rate 0.003 0.5" in said
    shutil.copytree(copied, far)
    number, pairs = compare.differences([copied, far])
    assert number == 33 and pairs[0, 1]["chrf"] == {**pairs[0, 1]["chrf"], "value": 0, "low": 0, "high": 0}
    judged = [env.read_json(one / "evaluate/metrics.json") for one in (copied, far)]
    assert compare.best_of("chrf", judged, pairs) == (0, False)
    env.write_jsonl(far / "evaluate/tuned.jsonl", [{**row, "reference": "অন্য"} for row in rows])
    assert compare.differences([copied, far]) == (0, {})
    assert report.main([str(copied), str(far)]) == 0, "rows that are not shared cannot be paired, but shown"
    (far / "evaluate/metrics.json").unlink()
    assert report.main([str(copied), str(far)]) == 2 and "far: not evaluated yet" in capsys.readouterr().err


def blocks(text, preset):
    """Returns {mark: what stands between the README's marks}."""
    found = re.findall(rf"<!-- (\w+) {preset} -->\n(.*?)\n<!-- /\1 {preset} -->", text, re.DOTALL)
    return dict(found)


def test_the_readme_shows_what_a_demo_gives_today(copied, tmp_path):
    """Another processor rounds otherwise, so a number may differ, but by less than its own interval."""
    mend = "run `make demo` and `python -m helpers.report outputs/demo --readme README.md`"
    shown = blocks((env.ROOT / "README.md").read_text("utf-8"), "demo")
    today = report.readme_blocks(copied)
    lines = {mark: [line for line in block["results"].splitlines() if line.startswith("|")]
             for mark, block in (("shown", shown), ("today", today))}  # fmt: skip
    assert [line.split("|")[1] for line in lines["shown"]] == [line.split("|")[1] for line in lines["today"]], mend
    judged = env.read_json(copied / "evaluate/metrics.json")
    for line, name in zip(lines["shown"][2:], [name for name in tables.LABELS if name in report.README_SCORES]):
        for side, cell in (("base", line.split("|")[2]), ("tuned", line.split("|")[3])):
            score = judged[side][name]
            slack = 0.5 * 10.0 ** -tables.LABELS[name][1]
            assert score["low"] - slack <= float(cell) <= score["high"] + slack, f"{name} of {side}: {mend}"
    question = today["exchange"].splitlines()[0]
    assert shown["exchange"].splitlines()[0] == question, mend
    if lines["shown"] == lines["today"]:
        replies = [tables_line for tables_line in shown["exchange"].splitlines() if tables_line.startswith("> ")]
        assert today["exchange"].splitlines()[-1] in replies, mend


def test_the_readme_is_filled_between_its_marks_only(copied, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("ক\n<!-- results demo -->\nold\n<!-- /results demo -->\nখ\n", "utf-8")
    assert report.main([str(copied), "--readme", str(readme)]) == 0
    text = readme.read_text("utf-8")
    assert text.startswith("ক\n<!-- results demo -->\n33 held-out rows") and text.endswith(
        "<!-- /results demo -->\nখ\n"
    )
    assert "old" not in text and "| chrF++ (higher is better) |" in text
    readme.write_text("nothing", "utf-8")
    assert report.main([str(copied), "--readme", str(readme)]) == 2 and readme.read_text("utf-8") == "nothing"
    assert json.dumps(report.one_line("a|b *c* <i>\n`d`")) == json.dumps(r"a\|b \*c\* \<i\> \`d\`")
