"""The check of the vocabulary: each word is found where it is planted, and plain text passes."""

import check_words
import pytest
from check_words import FUNCTIONS, NAMES, RULES

CLEAN = '''"""Returns the peak memory per GPU: 1.5 GiB per process, and the compute per useful token."""

# The model card says what the card of a run holds. Resumes from the newest valid checkpoint, and so on.
rows = [row for row in table]  # a token, a step and a row
errors = {"one": 1, "found": 2}  # a key is no variable
message = f"{len(rows)} rows per second, and a second time"
figure = draw_loss(["tokens", "a", "row"])


def estimate_hours(plan: Plan) -> float:
    """Returns the estimated hours; two of a kind go on the same page, with reference answers and a data card."""
    return plan.hours
'''


def check(folder, name, text):
    """Returns (line, word) of what the check finds in a file of this name and text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return [(finding.line, finding.word) for finding in check_words.check_file(path, name)]


def test_a_clean_source_passes(tmp_path):
    assert check(tmp_path, "clean.py", CLEAN) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.use)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("docstring.py", '"""Why.\n\n{}\n"""\n'),
        ("comment.py", "x = 1\ny = 2\nz = 3  # {}\n"),
        ("message.py", "x = 1\ny = 2\nprint(f'{{x}} {}')\n"),
        ("page.md", "# Title\n\nAbout {}.\n"),
        ("settings.yaml", "a: 1\nb: 2\n# {}\n"),
        ("page.html", "<style>\n.card {{ color: red }}</style>\n<p class='card'>{}</p>\n"),
    ],
    ids=lambda value: value if "." in value and "{" not in value else "",
)
def test_a_planted_phrase_is_found_on_its_line(tmp_path, rule, name, text):
    assert [line for line, _ in check(tmp_path, name, text.format(rule.example))] == [3], f"add to RULES: {rule}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "source",
    ["{} = 1", "for {} in []: pass", "def f({}): pass", "[0 for {} in []]", "with f() as {}: pass", "page.{} = 1"],
)
def test_a_planted_name_is_found(tmp_path, name, source):
    assert check(tmp_path, "planted.py", source.format(name) + "\n") == [(1, name)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_lacks_its_object_is_found(tmp_path, name):
    assert check(tmp_path, "planted.py", f"def {name}(): pass\n\n{name} = 1\n") == [(1, name)]


def test_a_phrase_over_two_lines_is_found(tmp_path):
    assert check(tmp_path, "planted.py", '"""Measured in tokens\n    a row."""\n') == [(1, "tokens a row")]


def test_a_phrase_over_two_comments_is_found(tmp_path):
    assert check(tmp_path, "planted.py", "# measured in tokens\n# a row\n") == [(1, "tokens a row")]


def test_a_rate_after_a_value_is_found(tmp_path):
    assert check(tmp_path, "planted.py", 'print(f"{x:.1f} s a step")\n') == [(1, "× s a step")]


def test_a_line_may_be_allowed(tmp_path):
    assert check(tmp_path, "planted.py", "found = 1  # words: ok\n") == []


def test_figures_of_a_report_are_plots(tmp_path):
    assert check(tmp_path, "report.py", "figures = []  # the figures on the page\n") == []


def test_an_exchange_is_left_as_people_wrote_it(tmp_path):
    text = "<!-- exchange demo -->\n> I cannot go on.\n<!-- /exchange demo -->\n"
    assert check(tmp_path, "page.md", text) == []


def test_the_crisis_rules_are_read_for_comments_only():
    text = "rules:\n  - (cannot|can t) (go on|live)  # what goes on\n"
    name = "src/helpers/language/care.yaml"
    assert "(go on" not in check_words.prose_of(name, text)
    assert "what goes on" in check_words.prose_of(name, text)


def test_a_rendered_page_is_read_as_it_shows(tmp_path, capsys):
    page = '<p title="a card">ok</p><div class="highlight hl"><pre>untuned</pre></div>'
    page += '<div class="gloss">I cannot go on</div>\n'
    page += "<td>3 nats a <b>token</b></td><pre>goes on</pre>\n"
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    assert check_words.main(["--rendered", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" → ")[0].split("html:")[1] for line in lines[:-1]] == [
        "1: card",
        "2: nats a token",
        "2: goes on",
    ]


def test_words_that_are_found_fail_the_check(tmp_path, capsys):
    path = tmp_path / "planted.py"
    path.write_text("found = 1\n")
    assert check_words.main([str(path)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}:1: found → ")


def test_a_clean_file_passes_the_check(tmp_path):
    path = tmp_path / "clean.py"
    path.write_text(CLEAN)
    assert check_words.main([str(path)]) == 0
