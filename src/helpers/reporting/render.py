"""Pages from templates and from executed notebooks, in which nothing that a run wrote can act."""

import base64
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from helpers.platforms.scrub import own_secrets, scrub
from helpers.reporting.figures import FONT
from helpers.reporting.words import Words
from helpers.runs.files import write_text
from helpers.runs.stages import STAGES

PAGES = Path(__file__).with_name("pages")

DIRECTION_MARKS = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)

UNSEEN = {
    **{char: chr(0x2400 + char) for char in range(32) if chr(char) not in "\t\n\r"},  # the control pictures
    127: "␡",
    **{char: f"[U+{char:04X}]" for char in (*range(0x80, 0xA0), *DIRECTION_MARKS)},
}


def visible_text(text: str, secrets: list[str] | None = None) -> str:
    """Returns a text as a page may show it: without secrets, its control and direction characters written out.

    Joiners, which shape Bengali, stay. `secrets` are what `scrub` takes.
    """
    return scrub(text.translate(UNSEEN), secrets)


def as_base64(content: bytes) -> str:
    """Returns bytes as text for a data URL."""
    return base64.b64encode(content).decode()


def load_template(path: Path, escape: bool = False) -> jinja2.Template:
    """Returns a template that can include those of pages/; with `escape`, one of HTML.

    Everything that a run wrote is then escaped, and its control characters are shown: text of a model or a data set
    stays text.
    """

    secrets = own_secrets()  # once: a page has thousands of values

    def make_visible(value: Any) -> Any:
        return type(value)(visible_text(value, secrets)) if isinstance(value, str | markupsafe.Markup) else value

    loader = jinja2.FileSystemLoader([path.parent, PAGES])
    templates = jinja2.Environment(
        autoescape=escape, trim_blocks=True, lstrip_blocks=True, finalize=make_visible, loader=loader
    )
    return templates.get_template(path.name)


def write_page(
    template: str, page: Path, pictures: dict[str, bytes], content: dict[str, Any], words: Words | None = None
) -> str:
    """Writes a page from a template of pages/ and its content, and returns it; `pictures` are SVG files by name."""
    html = load_template(PAGES / template, escape=True).render(
        **content,
        words=words or Words(),
        figures={name: as_base64(picture) for name, picture in pictures.items()},
        font=as_base64(FONT.read_bytes()),
        licence=FONT.with_name("OFL.txt").read_text(encoding="utf-8"),
    )
    write_text(page, html)
    return html


def render_notebook(executed: Path, page: Path) -> None:
    """Writes an executed notebook as one HTML page that loads nothing from elsewhere and runs nothing.

    Code is folded, the set-up hidden, a progress bar its last line, control characters shown; the pages of the run
    link one another.
    """
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    shown = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
    config = {
        "NbConvertBase": {"display_data_priority": shown},  # a widget or a script is its plain text
        "TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": {"setup"}},
        "CoalesceStreamsPreprocessor": {"enabled": True},  # nbconvert 6 does it unasked
    }
    exporter = HTMLExporter(
        config=Config(config), template_name="notebook", extra_template_basedirs=[str(PAGES)], embed_images=True
    )
    exporter.register_filter("as_base64", as_base64)
    html, _ = exporter.from_filename(str(executed), {"bengali": as_base64(FONT.read_bytes())})
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
