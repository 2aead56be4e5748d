"""Executed notebooks as pages: code folded, set-up hidden, linked to one another, whatever they show."""

import base64

import nbformat
import pytest
from in_browser import WIDTHS_AND_LIGHTS, check_in_browser
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from page_text import PageText

from helpers.models.chat import TokenPiece
from helpers.reporting.figures_data import draw_topic_counts
from helpers.reporting.notebook_parts import (
    picture,
    show_conversations,
    show_document,
    show_page,
    show_trained_tokens,
)
from helpers.reporting.render import render_notebook
from helpers.runs.stages import MAIN_STAGES


@pytest.fixture
def page(run):
    """Renders a notebook with a hidden set-up cell and a progress bar in place of the run's 04_infer."""
    notebook = nbformat.v4.new_notebook()
    bars = ("  1%|\r", " 50%|\r", "100%|#| done\n")
    stream = [nbformat.v4.new_output("stream", name="stderr", text=text) for text in bars]
    hidden = nbformat.v4.new_code_cell("set_up()")
    hidden.metadata.tags = ["setup"]
    notebook.cells = [hidden, nbformat.v4.new_code_cell("steps()", outputs=stream)]
    nbformat.write(notebook, run / "notebooks/04_infer.ipynb")
    render_notebook(run / "notebooks/04_infer.ipynb", run / "html/04_infer.html")
    return run / "html/04_infer.html"


def test_of_a_progress_bar_only_its_last_line_is_kept(page):
    html = page.read_text("utf-8")
    assert "100%|#| done" in html
    assert " 50%|" not in html


def test_code_is_folded_but_the_setup_is_not_there(page):
    assert "set_up()" not in page.read_text("utf-8")
    assert PageText(page).tags.count("details") == 1
    assert "script" not in PageText(page).tags


def test_the_pages_of_a_run_link_one_another(page):
    for path in sorted(page.parent.glob("*.html")):
        links = [address for address in PageText(path).addresses if address.endswith(".html")]
        assert "../report/index.html" in links, path.name
        assert len(links) == len(MAIN_STAGES), path.name
        assert all((path.parent / link).is_file() for link in links), path.name


@pytest.fixture
def full_page(tmp_path):
    """Renders a notebook with every kind of output, each longer or wider than the page, and widgets in its metadata."""
    pixel = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    table = f"<table><tr>{'<th>column</th>' * 40}</tr>{('<tr>' + '<td>ক্ষ 1.25</td>' * 40 + '</tr>') * 60}</table>"
    shown = [
        {"image/png": pixel, "text/plain": "a figure"},
        {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"},
        {"text/html": table},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "abc"}, "text/plain": "100% 3/3"},
        {"application/javascript": "alert(1)", "text/plain": "a script"},
    ]
    outputs = [new_output("display_data", data=data) for data in shown]
    outputs.append(new_output("stream", text="স্ত্রী\n" * 200))
    outputs.append(new_output("error", ename="ValueError", evalue="x", traceback=["\x1b[0;31mValueError\x1b[0m: x"]))
    code = "import re  # a comment\nx = 1 if 'কি' in 'কি' else None"
    notebook = nbformat.v4.new_notebook(cells=[new_code_cell(code, outputs=outputs)])
    notebook.cells.insert(0, new_markdown_cell("# Title\n\nText, a [link](https://example.org), `code`.\n\n## ক্ষ\n"))
    state = {"state": {"abc": {"model_name": "HTMLModel"}}, "version_major": 2, "version_minor": 0}
    notebook.metadata |= {"title": "<script>alert(1)</script>", "language_info": {"name": "python"}}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    nbformat.write(notebook, tmp_path / "02_train.ipynb")
    render_notebook(tmp_path / "02_train.ipynb", tmp_path / "html/02_train.html")
    return tmp_path / "html/02_train.html"


def test_nothing_on_a_page_of_a_notebook_can_run(full_page):
    assert "script" not in PageText(full_page).tags


def test_a_widget_is_shown_as_its_text(full_page):
    html = full_page.read_text("utf-8")
    assert "100% 3/3" in html
    assert "a script" in html


def test_every_picture_of_a_notebook_is_embedded(full_page):
    pictures = [address for address in PageText(full_page).addresses if address.startswith("data:")]
    assert [address.partition(";")[0] for address in pictures] == ["data:image/png", "data:image/svg+xml"]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "light"), WIDTHS_AND_LIGHTS)
def test_a_browser_finds_nothing_wrong_on_a_notebooks_page(full_page, browser, width, light):
    check_in_browser(browser, full_page, width, light)


@pytest.fixture
def story(tmp_path):
    """Renders a notebook with every part that a cell can show."""
    pieces = [TokenPiece("<|x|>", False, 1), TokenPiece("ক্ষমা", True, 2), TokenPiece(" স্ত্রী", True, 1)]
    reply = {"conversation": 1, "prompt": "কেমন আছ?", "base": "", "tuned": "ভালো আছি। " * 60}
    card = "---\nlicense: mit\n---\n# A model card\n\n## Data\n\n" + "| ক্ষ | b |\n|---|---|\n| 1 | 2 |\n" * 30
    parts = [
        picture(draw_topic_counts({f"স্মৃতি {n}": n for n in range(1, 13)}), "12 topics."),
        show_trained_tokens(pieces),
        show_conversations([reply] * 9),
        show_document(card, "The model card"),
        show_page("<!doctype html><html lang='en'><title>x</title><main><h1>A</h1></main></html>", "The report page"),
    ]
    outputs = [new_output("display_data", data=part._repr_mimebundle_()) for part in parts]
    cells = [new_markdown_cell("# Title\n\n## Section"), new_code_cell("picture()", outputs=outputs)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_prepare_data.ipynb")
    render_notebook(tmp_path / "01_prepare_data.ipynb", tmp_path / "html/01_prepare_data.html")
    return tmp_path / "html/01_prepare_data.html"


def test_a_picture_keeps_its_own_text_on_the_page(story):
    assert 'alt="Bars: rows of the largest topics: স্মৃতি 1 1, স্মৃতি 2 2' in story.read_text("utf-8")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "light"), WIDTHS_AND_LIGHTS)
def test_a_browser_finds_nothing_wrong_in_what_cells_show(story, browser, width, light):
    check_in_browser(browser, story, width, light)


@pytest.mark.browser
@pytest.mark.parametrize("light", ["light", "dark"])
def test_what_cells_show_does_not_scroll_on_its_own(story, browser, light):
    page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme=light)
    page.goto(story.as_uri())
    heights = page.evaluate(
        "[...document.querySelectorAll('.jp-OutputArea-output')].map(o => [o.clientHeight, o.scrollHeight])"
    )
    assert len(heights) == 5
    assert all(whole - seen < 3 for seen, whole in heights), heights
    page.close()


@pytest.mark.browser
def test_a_long_output_scrolls_on_its_own(full_page, browser):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(full_page.as_uri())
    for size in ("Height", "Width"):
        outputs = f"[...document.querySelectorAll('.jp-OutputArea-output')].map(o => [o.client{size}, o.scroll{size}])"
        assert any(seen < whole for seen, whole in page.evaluate(outputs)), size
        assert min(seen for seen, whole in page.evaluate(outputs) if seen < whole) <= 640, size
    page.close()


@pytest.mark.browser
def test_a_table_shows_all_of_its_rows(full_page, browser):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(full_page.as_uri())
    table = "document.querySelector('.jp-OutputArea-output:has(table)')"
    assert page.evaluate(f"{table}.scrollHeight - {table}.clientHeight") < 3
    assert "swipe" in page.evaluate(f"getComputedStyle({table}, '::after').content")
    page.close()
