"""What a notebook's cells show: pictures with their text, coloured tokens, chat bubbles, documents, a page.

A part is HTML with its styles in place, so that Jupyter, Kaggle, Colab and the rendered notebook show it alike, and
colours that are readable on dark and on light. Every text in it is escaped.
"""

import html
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.reporting.figures import load_pyplot
from helpers.reporting.render import as_base64, visible_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helpers.models.chat import TokenPiece

WIDTH = "min(100%, 44rem)"
BUBBLE = "border-radius: .6rem; margin: .3rem 0; overflow-wrap: anywhere; padding: .5rem .8rem; white-space: pre-wrap; "
SPEAKERS = {  # who: the style of the bubble
    "person": "background: #8883; margin-left: auto; max-width: 85%; width: fit-content",
    "base model": "border: 1px solid #888; border-left: 5px solid #888",
    "tuned model": "border: 1px solid #0072b2; border-left: 5px solid #0072b2",
    "preferred model": "border: 1px solid #009e73; border-left: 5px solid #009e73",
}
SHADES = ("#0072b22e", "#0072b25c")  # of neighbouring tokens that are trained on


@dataclass(frozen=True)
class Part:
    """What a cell shows when it is its last expression: HTML, and a text for where that is not shown."""

    html: str
    text: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


Show = Callable[[Part], Callable[[Part], None]]  # shows a part, and returns what replaces it


def escape(text: str) -> str:
    """Returns a text for HTML: escaped, its control characters written out."""
    return html.escape(visible_text(text))


def picture(figure: "Figure", sentence: str = "") -> Part:
    """Returns a figure with its text for those who cannot see it (`figure.get_label()`), and a sentence below it.

    The figure is closed: no notebook shows it a second time.
    """
    about, svg = escape(str(figure.get_label())), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    load_pyplot().close(figure)
    source = f"data:image/svg+xml;base64,{as_base64(svg.getvalue())}"
    style = f"background: #fff; border-radius: 4px; height: auto; width: {WIDTH}"
    caption = f'<figcaption style="margin-top: .4rem; max-width: 44rem">{escape(sentence)}</figcaption>'
    shown = f'<img alt="{about}" src="{source}" style="{style}">{caption if sentence else ""}'
    figure_html = f'<figure class="part" style="margin: .4rem 0">{shown}</figure>'
    return Part(figure_html, sentence or str(figure.get_label()))


def show_trained_tokens(pieces: "Sequence[TokenPiece]") -> Part:
    """Returns an example as the model reads it: what is trained on is coloured, in a shade of its own per token.

    Tokens that share a letter are one piece: no conjunct is torn.
    """
    trained = sum(piece.tokens for piece in pieces if piece.trained)
    spans, shade = [], 0
    for piece in pieces:
        text = escape(piece.text)
        if piece.trained:
            style = f"background: {SHADES[shade]}; border-bottom: 2px solid #0072b2"
            text, shade = f'<span class="trained" style="{style}">{text}</span>', 1 - shade
        spans.append(text)
    total = sum(piece.tokens for piece in pieces)
    sentence = f"{trained:,} of {total:,} tokens are trained on, underlined in blue; the others are only read."
    body = f'<div lang="bn" style="{BUBBLE}border: 1px solid #888; line-height: 1.9">{"".join(spans)}</div>'
    return Part(f'<div class="part" style="max-width: 60rem">{body}<p>{sentence}</p></div>', sentence)


def show_conversations(replies: Iterable[dict[str, Any]]) -> Part:
    """Returns conversations as chat bubbles: each message, with the models' replies side by side.

    `replies` are the rows of infer/replies.jsonl, `conversation`, `prompt`, `base`, `tuned` and, where there is such a
    model, `preferred`, in their order.
    """
    blocks, lines, current = [], [], None
    for row in replies:
        if row["conversation"] != current:
            current = row["conversation"]
            blocks.append(f"<h3>Conversation {current}</h3>")
        note = "cut at the limit" if row.get("hit_cap") else ""
        pair = [show_bubble("base model", row["base"]), show_bubble("tuned model", row["tuned"], note)]
        if "preferred" in row:
            pair.append(show_bubble("preferred model", row["preferred"]))
        grid = "display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr))"
        blocks.append(f'{show_bubble("person", row["prompt"])}<div style="{grid}">{"".join(pair)}</div>')
        lines += [row["prompt"], f"  base: {row['base']}", f"  tuned{note and f', {note}'}: {row['tuned']}"]
        lines += [f"  preferred: {row['preferred']}"] if "preferred" in row else []
    return Part(f'<div class="part" style="max-width: 60rem">{"".join(blocks)}</div>', "\n".join(lines))


def show_bubble(who: str, text: str, note: str = "") -> str:
    """Returns a bubble as HTML, with a note beside the speaker; a reply without a letter says so."""
    content = escape(text) if text.strip() else '<i lang="en">an empty reply</i>'
    name = f'<div lang="en" style="font-size: .85em; font-weight: 600">{who}{note and f" · {note}"}</div>'
    return f'<div lang="bn" style="{BUBBLE}{SPEAKERS[who]}">{name}{content}</div>'


def display_part(part: Part) -> Callable[[Part], None]:
    """Shows a part in the cell that runs, and returns what replaces it there. A part without HTML is its text."""
    from IPython.display import display

    def bundle(part: Part) -> dict[str, str]:
        return {"text/html": part.html, "text/plain": part.text} if part.html else {"text/plain": part.text}

    handle: Any = display(bundle(part), raw=True, display_id=True)
    return lambda part: handle.update(bundle(part), raw=True)


def show_stream(message: str, show: Show | None = None) -> Callable[[str], None]:
    """Shows a message, and returns what shows a reply below it that grows, given all of it so far."""

    def bubbles(reply: str) -> Part:
        shown = show_bubble("person", message) + show_bubble("tuned model", reply or "…")
        return Part(f'<div class="part" style="max-width: 60rem">{shown}</div>', f"{message}\n→ {reply}")

    replace = (show or display_part)(bubbles(""))
    return lambda reply: replace(bubbles(reply))


def show_document(markdown: str, title: str, folded: bool = False) -> Part:
    """Returns a document in Markdown as it reads, its front matter as it is; its own HTML stays text."""
    from markdown_it import MarkdownIt

    head, body = "", markdown
    if markdown.startswith("---\n"):
        head, _, body = markdown.removeprefix("---\n").partition("\n---\n")
    rendered = MarkdownIt("js-default", {"html": False}).render(visible_text(body))
    for level in range(4, 0, -1):  # below the notebook's own headings
        rendered = rendered.replace(f"<h{level}>", f"<h{level + 2}>").replace(f"</h{level}>", f"</h{level + 2}>")
    front = f'<details><summary>front matter</summary><pre style="white-space: pre-wrap">{escape(head)}</pre></details>'
    box = "border: 1px solid #888; border-radius: .6rem; max-width: 60rem; overflow-wrap: anywhere; padding: .2rem 1rem"
    opened = "" if folded else " open"
    content = f"<summary>{escape(title)}</summary>{front if head else ''}{rendered}"
    return Part(f'<details{opened} class="part" style="{box}">{content}</details>', markdown)


def show_page(page: str, title: str) -> Part:
    """Returns a whole page of this suite in a frame, in which nothing runs."""
    style = "border: 1px solid #888; box-sizing: border-box; height: 46rem; width: 100%"
    attributes = f'class="part" sandbox="" style="{style}" title="{escape(title)}"'
    return Part(
        f'<iframe {attributes} srcdoc="{html.escape(page)}"></iframe>', f"{title}: the page is shown where HTML is."
    )
