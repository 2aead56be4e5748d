"""The README's tables come from a run's files."""

import re

import pytest

from helpers.__main__ import main
from helpers.platforms.environment import ROOT
from helpers.reporting.readme import one_line, readme_blocks
from helpers.reporting.results import read_results
from helpers.reporting.tables import LABELS, SPECS

MEND = "run `make demo` and `python -m helpers report outputs/demo --readme README.md`"


@pytest.fixture(scope="module")
def shown():
    """Returns what stands between the README's marks for the demo, {mark: block}."""
    readme = (ROOT / "README.md").read_text("utf-8")
    return dict(re.findall(r"<!-- (\w+) demo -->\n(.*?)\n<!-- /\1 demo -->", readme, re.DOTALL))


def table_lines(blocks):
    return [line for line in blocks["results"].splitlines() if line.startswith("|")]


def test_the_readme_lists_the_scores_that_a_demo_has_today(run, shown):
    today = readme_blocks(read_results(run))
    headings = [[line.split("|")[1] for line in table_lines(blocks)] for blocks in (shown, today)]
    assert headings[0] == headings[1], MEND


def test_the_readme_shows_scores_within_their_intervals(run, shown):
    """Another processor rounds otherwise, so a number may differ, but by less than its own interval."""
    evaluation = run.metrics("evaluate")
    names = [name for name in LABELS if name in SPECS["readme"]]
    for line, name in zip(table_lines(shown)[2:], names):
        for side, cell in (("base", line.split("|")[2]), ("tuned", line.split("|")[3])):
            score, slack = evaluation[side][name], 0.5 * 10.0 ** -LABELS[name][1]
            assert score["low"] - slack <= float(cell) <= score["high"] + slack, f"{name} of {side}: {MEND}"


def test_the_readme_shows_the_exchange_of_a_demo_of_today(run, shown):
    today = readme_blocks(read_results(run))
    assert shown["exchange"].splitlines()[0] == today["exchange"].splitlines()[0], MEND
    if table_lines(shown) == table_lines(today):
        replies = [line for line in shown["exchange"].splitlines() if line.startswith("> ")]
        assert today["exchange"].splitlines()[-1] in replies, MEND


def test_the_readme_is_filled_between_its_marks_only(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("ক\n<!-- results demo -->\nold\n<!-- /results demo -->\nখ\n", "utf-8")
    assert main(["report", str(run), "--readme", str(readme)]) == 0
    text = readme.read_text("utf-8")
    rows = run.metrics("evaluate")["n"]
    assert text.startswith(f"ক\n<!-- results demo -->\n{rows} held-out rows")
    assert text.endswith("<!-- /results demo -->\nখ\n")
    assert "old" not in text
    assert "Floor: what the same replies score against the answers to other questions" in text
    assert "| chrF++ (higher is better) |" in text


def test_a_readme_without_marks_is_left_alone(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing", "utf-8")
    assert main(["report", str(run), "--readme", str(readme)]) == 2
    assert readme.read_text("utf-8") == "nothing"


def test_a_text_becomes_one_escaped_line_of_markdown():
    assert one_line("a|b *c* <i>\n`d`") == r"a\|b \*c\* \<i\> \`d\`"
