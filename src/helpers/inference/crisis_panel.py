"""What stands above the box to write in, once a message spoke of a crisis: what to do now, and whom to reach by a tap.

Fixed texts of chat_page.yaml and helplines.yaml, so that their HTML can be trusted.
"""

from html import escape

import regex

from helpers.inference.limits import WORDS
from helpers.language.bengali import latin_digits
from helpers.language.hotlines import HELPLINES


def panel_html(language: str) -> str:
    """Returns the panel in Bengali ("bn") or English ("en")."""
    words = WORDS[language]["now"]
    steps = "".join(f"<li>{escape(step)}</li>" for step in words["steps"])
    calls = [line for line in HELPLINES if _is_telephone(line)]
    sites = [line for line in HELPLINES if not _is_telephone(line)]
    return (
        f'<section aria-labelledby="now-title"><h2 id="now-title">{escape(words["title"])}</h2>'
        f'<ol class="steps">{steps}</ol>'
        f"{_links('calls', calls, language)}{_links('sites', sites, language)}</section>"
    )


def _is_telephone(line: dict[str, str]) -> bool:
    return regex.fullmatch(r"\d+", latin_digits(line["number"])) is not None


def _links(kind: str, lines: list[dict[str, str]], language: str) -> str:
    """Returns helplines as a list of links under a heading of what a tap does; "" without any."""
    items = "".join(f"<li>{_link(line, language)}</li>" for line in lines)
    heading = f'<h3 id="now-{kind}">{escape(WORDS[language]["now"][kind])}</h3>'
    return f'{heading}<ul class="{kind}" aria-labelledby="now-{kind}">{items}</ul>' if items else ""


def _link(line: dict[str, str], language: str) -> str:
    """Returns a helpline as a link: a telephone's number is dialled, the site of one without a number opens apart."""
    country, name, hours = (escape(line[key + "_en" * (language == "en")]) for key in ("country", "name", "hours"))
    number = latin_digits(line["number"])
    shown = escape(number if language == "en" else line["number"])
    site = f'href="https://{number}" target="_blank" rel="noopener noreferrer"'
    target = f'href="tel:{number}"' if _is_telephone(line) else site
    return f"<a {target}><b>{shown}</b> <span>{country} · {name}</span> <small>{hours}</small></a>"
