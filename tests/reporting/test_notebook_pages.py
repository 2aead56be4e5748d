"""Executed notebooks as pages: code folded, set-up hidden, linked to one another."""

import nbformat
import pytest
from page_text import PageText

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
