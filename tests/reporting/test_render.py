"""What stands on a page: no secret, and no character that cannot be seen."""

import bad_inputs
import pytest

from helpers.platforms.scrub import HIDDEN
from helpers.reporting.render import load_template, visible_text


@pytest.mark.parametrize("token", bad_inputs.TOKENS)
def test_a_page_shows_no_token(tmp_path, token):
    assert visible_text(f"401 for {token}") == f"401 for {HIDDEN}"
    (tmp_path / "page.html").write_text("<p>{{ error }}</p>")
    assert (
        load_template(tmp_path / "page.html", escape=True).render(error=f"401 for {token}")
        == f"<p>401 for {HIDDEN}</p>"
    )


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[0m", "a␛[0m"), ("a\u202eb", "a[U+202E]b"), ("ক্\u200dষ\n", "ক্\u200dষ\n")]
)
def test_a_page_writes_out_what_cannot_be_seen(text, shown):
    assert visible_text(text) == shown
