"""What stands above the box to write in, once a message spoke of a crisis: what to do now, and whom to call by a tap.

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
    calls = "".join(f"<li>{_call(line, language)}</li>" for line in HELPLINES)
    return (
        f'<section aria-labelledby="now-title"><h2 id="now-title">{escape(words["title"])}</h2>'
        f'<ol class="steps">{steps}</ol><ul class="calls" aria-label="{escape(words["calls"])}">{calls}</ul></section>'
    )


def _call(line: dict[str, str], language: str) -> str:
    """Returns a helpline as a link: a telephone's number is dialled, the site of one without a number opens apart."""
    country, name, hours = (escape(line[key + "_en" * (language == "en")]) for key in ("country", "name", "hours"))
    number = latin_digits(line["number"])
    shown = escape(number if language == "en" else line["number"])
    site = f'href="https://{number}" target="_blank" rel="noopener noreferrer"'
    target = f'href="tel:{number}"' if regex.fullmatch(r"\d+", number) else site
    return f"<a {target}><b>{shown}</b> <span>{country} · {name}</span> <small>{hours}</small></a>"
