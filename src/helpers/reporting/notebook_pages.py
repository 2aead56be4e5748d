"""Executed notebooks as HTML pages that load nothing from elsewhere."""

from pathlib import Path

from helpers.reporting.figures import FONT
from helpers.reporting.render import PAGES, as_base64, visible_text
from helpers.runs.files import write_text
from helpers.runs.stages import STAGES


def render_notebook(executed: Path, page: Path) -> None:
    """Writes an executed notebook as one HTML page that loads nothing from elsewhere and runs nothing.

    Code is folded, the set-up hidden, a progress bar its last line, control characters shown; the pages of the run
    link one another.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor

    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(PAGES)],
        require_js_url="",
        jquery_url="",
        language_code="en",
        embed_images=True,
    )
    exporter.register_preprocessor(TagRemovePreprocessor(remove_cell_tags={"setup"}), enabled=True)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    notebook = nbformat.read(executed, as_version=4)
    given = {"metadata": {"name": executed.stem}, "bengali": as_base64(FONT.read_bytes())}
    html, _ = exporter.from_notebook_node(notebook, given)
    write_text(page, visible_text(html))
    link_pages(page.parent)


def link_pages(folder: Path) -> None:
    """Puts into every rendered notebook of a folder links to the report page and to the others."""
    names = [name for name, _ in STAGES.values() if (folder / f"{name}.html").is_file()]
    for name in names:
        links = ["<a href='../report/index.html'>report</a>"]
        links += [f"<a href='{other}.html'>{other}</a>" if other != name else f"<b>{name}</b>" for other in names]
        items = "".join(f"<li>{link}</li>" for link in links)
        nav = f"<nav class='pages' aria-label='The pages of this run'><ul>{items}</ul></nav>"
        page = folder / f"{name}.html"
        before, _, rest = page.read_text(encoding="utf-8").partition("<!-- pages -->")
        after = rest.partition("<!-- /pages -->")[2]
        write_text(page, f"{before}<!-- pages -->{nav}<!-- /pages -->{after}")
