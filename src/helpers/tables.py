"""Rows of text from a run's numbers, for notebooks and pages, and pages in which nothing that a run wrote can act."""

import re
from pathlib import Path

from helpers import env, figures

LABELS = {  # score: (label, digits)
    "perplexity": ("perplexity of the answers", 2),
    "bits_per_char": ("bits per character", 3),
    "token_accuracy": ("token accuracy", 3),
    "chrf": ("chrF++", 2),
    "bleu": ("BLEU (intl)", 2),
    "rouge1": ("ROUGE-1", 3),
    "rouge2": ("ROUGE-2", 3),
    "rougeL": ("ROUGE-L", 3),
    "distinct1": ("distinct-1", 3),
    "distinct2": ("distinct-2", 3),
    "length_ratio": ("length, reply over reference", 2),
    "empathy": ("empathy keywords, of 100", 1),
    "graded": ("graded rubric, of 100", 1),
    "unsafe": ("unsafe replies", 3),
    "hit_cap": ("replies that hit the cap", 3),
    "echo": ("replies that echo the question", 3),
    "not_bengali": ("replies not in Bengali", 3),
}
PAGES = Path(__file__).with_name("pages")
PICTURES = {char: 0x2400 + char for char in range(32) if chr(char) not in "\t\n\r"} | {127: 0x2421}
DIRECTIONS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF]  # marks that turn text round
UNSEEN = {char: chr(shown) for char, shown in PICTURES.items()} | {char: f"[U+{char:04X}]" for char in DIRECTIONS}
UNSEEN |= {char: f"[U+{char:04X}]" for char in range(0x80, 0xA0)}


PASSWORD = re.compile(r"(://[^\s/:@<>\"']*):[^\s/@<>\"']+@")  # of a database's URL, as tune.storage may be


def visible(text: str) -> str:
    """Returns a text as a page may show it: its control and direction characters written out, a URL's password not.

    Joiners, which shape Bengali, stay.
    """
    return PASSWORD.sub(r"\1:…@", text.translate(UNSEEN))


def verdict(result: dict, name: str) -> str:
    """Returns "better", "worse" or "no clear difference" (the interval of tuned − base holds 0) for one score.

    "at the floor" instead of better: the tuned model's interval holds what shuffled references score.
    """
    tuned, delta = result["tuned"][name], result["delta"][name]
    if delta["low"] <= 0 <= delta["high"]:
        return "no clear difference"
    if delta["better"] == "near 1":
        return "better" if abs(tuned["value"] - 1) < abs(result["base"][name]["value"] - 1) else "worse"
    if (delta["value"] > 0) != (delta["better"] == "higher"):
        return "worse"
    return "better" if tuned["floor"] is None or tuned["low"] > tuned["floor"] else "at the floor"


def score_rows(result: dict) -> list[dict]:
    """Returns the base-against-tuned table as rows of text, one a score, from the content of evaluate/metrics.json."""
    rows = []
    for name, (label, digits) in LABELS.items():
        if name not in result["base"]:
            continue
        base, tuned, delta = (result[side][name] for side in ("base", "tuned", "delta"))
        rows.append(
            {
                "score": label,
                "verdict": verdict(result, name),
                "base": f"{base['value']:.{digits}f}",
                "tuned": f"{tuned['value']:.{digits}f}",
                "tuned − base": f"{delta['value']:+.{digits}f}",
                "95 % interval": f"{delta['low']:+.{digits}f} to {delta['high']:+.{digits}f}",
                "floor": "–" if tuned["floor"] is None else f"{tuned['floor']:.{digits}f}",
                "better": delta["better"],
            }
        )
    return rows


def score_table(result: dict):
    """Returns `score_rows` as a pandas table."""
    import pandas

    return pandas.DataFrame(score_rows(result)).set_index("score")


def group_rows(groups: list[dict]) -> list[dict]:
    """Returns a breakdown of evaluate/metrics.json (its `topics` or `lengths`) as rows of text, one a group."""
    rows = []
    for group in groups:
        row = {"group": group["label"], "rows": str(group["n"])}
        for name in group["delta"]:
            label, digits = LABELS[name]
            values = [group[side][name]["value"] for side in ("base", "tuned")]
            delta = group["delta"][name]
            row[f"{label}, base → tuned"] = f"{values[0]:.{digits}f} → {values[1]:.{digits}f}"
            row[f"change of {label}"] = (
                f"{delta['value']:+.{digits}f} ({delta['low']:+.{digits}f} to {delta['high']:+.{digits}f})"
            )
        rows.append(row)
    return rows


def category_rows(categories: list[dict]) -> list[dict]:
    """Returns the rubric's means for each category of fixed prompts as rows of text."""
    rows = []
    for one in categories:
        row = {"category": one["category"], "prompts": str(one["n"])}
        for name in ("graded", "empathy", "unsafe"):
            label, digits = LABELS[name]
            row[f"{label}, base → tuned"] = f"{one[f'base {name}']:.{digits}f} → {one[f'tuned {name}']:.{digits}f}"
        rows.append(row)
    return rows


def text_table(rows: list[dict] | dict):
    """Returns rows (or one dict, as name and value) as a table that shows every text whole, wrapped and escaped."""
    import pandas

    if isinstance(rows, dict):
        rows = [
            {"name": name, "value": "not measured" if value is None else str(value)} for name, value in rows.items()
        ]
    shown = pandas.DataFrame(rows).astype(str).style.format(escape="html").hide(axis="index")
    return shown.set_table_styles(
        [
            {
                "selector": "th, td",
                "props": "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere",
            },
            {"selector": "td:first-child", "props": "min-width: 8rem"},
        ]
    )


def page(name: str, folder: Path, pictures: dict[str, bytes], **content) -> str:
    """Writes a page from its template as folder/name and returns it.

    Everything that a run wrote is escaped, and its control characters are shown: text of a model or a data set stays
    text. `pictures` are SVG files by name.
    """
    import jinja2
    import markupsafe

    def shown(value):
        return type(value)(visible(value)) if isinstance(value, str | markupsafe.Markup) else value

    sheets = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=shown, loader=jinja2.FileSystemLoader(PAGES)
    )
    content |= {
        "figures": {label: figures.as_base64(picture) for label, picture in pictures.items()},
        "font": figures.as_base64(figures.FONT.read_bytes()),
        "licence": figures.FONT.with_name("OFL.txt").read_text(encoding="utf-8"),
    }
    template = "several.html" if "names" in content else "run.html"
    html = sheets.get_template(template).render(**content)
    env.write_text(folder / name, html)
    return html
