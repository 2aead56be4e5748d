"""What a browser must find on every page of a run."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

# Colours depend on the light alone and places on the width alone: each once, the other pairs in make test-slow
WIDTHS_AND_LIGHTS = [
    (390, "dark"),
    (1280, "light"),
    *(pytest.param(*other, marks=pytest.mark.slow) for other in ((390, "light"), (1280, "dark"))),
]


def find_violations(page):
    """Returns what axe finds that is serious or critical on a page: the rule, and the first element."""
    response = Axe().run(page, options={"resultTypes": ["violations"]}).response  # what passes is not listed: faster
    violations = [each for each in response["violations"] if each["impact"] in ("serious", "critical")]
    return [(each["id"], each["nodes"][0]["html"]) for each in violations]


def press_thumb(page, name):
    """Presses "Like" or "Dislike" below the last reply of the chat page until it is complete and takes a thumb."""
    for _ in range(20):
        page.locator(f'#talk button[title="{name}"], #talk button[aria-label="{name}"]').last.click()
        page.wait_for_timeout(700)
        if page.is_visible(".asked"):
            return
    raise AssertionError("the page takes no thumb")


def check_in_browser(browser, path, width, light, act=None):
    """Asserts that a page of this width and light loads nothing, fits, shows Bengali, and is accessible, all open.

    `act(page)` is done first, if given.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=light)
    page, messages, requests = context.new_page(), [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    if act:
        act(page)
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    fonts = page.evaluate("document.fonts.ready.then(fonts => [...fonts].map(font => font.status))")
    bengali = re.search("[\u0980-\u09fe]", page.inner_text("body")) is not None
    assert fonts == ["loaded" if bengali else "unloaded"], "Bengali is not set in the page's own font"
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert find_violations(page) == [], f"{path.name} at {width} px, {light}"
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1, levels
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels
    context.close()
