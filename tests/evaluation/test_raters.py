"""The blind sheet, filled in by a browser, and the ratings read back."""

import re

import numpy
import pytest
from axe_playwright_python.sync_playwright import Axe

from helpers.evaluation.raters import (
    blind_pair,
    read_ratings,
    sheet_id,
    summarise_ratings,
    tuned_is_first,
    write_sheet,
)

SEED = 3407
REPLIES = {
    "base": "ঠিক আছে।",
    "tuned": "আপনার কষ্টটা বুঝতে পারছি। <img src=x onerror=alert(1)> </script><script>alert(2)</script> পাশে আছি।",
}


@pytest.fixture
def pairs():
    rows = [{"id": f"r{n}", "prompt": f"মন খারাপ, ক্ষ{n} “উদ্ধৃতি”"} for n in range(6)]
    return [blind_pair({**row, "reply": REPLIES["base"]}, {**row, "reply": REPLIES["tuned"]}, SEED) for row in rows]


def fill(page, file, rater, mark):
    """Marks every reply on the sheet as `mark` (section, scale, place) says, and saves."""
    page.goto(file.as_uri())
    page.fill("#rater", rater)
    for section in page.query_selector_all("section"):
        for radio in section.query_selector_all("input[type=radio]"):
            scale, place = radio.get_attribute("data-field").rsplit("_", 1)
            if radio.get_attribute("value") == str(mark(section.get_attribute("data-id"), scale, int(place))):
                radio.check()
    return save(page)


def save(page):
    with page.expect_download() as download:
        page.click("#save")
    return download.value


@pytest.mark.browser
def test_a_sheet_filled_in_by_two_raters_is_read_back(page, browser, pairs, tmp_path):
    write_sheet(tmp_path, pairs)

    def mark(row, scale, place):  # the tuned reply is better everywhere; the second rater is stricter by one
        return (5 if tuned_is_first(row, SEED) == (place == 1) else 2) - (scale == "fluency")

    sheet = tmp_path / "human_eval.html"
    first = fill(page, sheet, "ক. খান", mark)
    assert page.text_content("#progress") == "6 of 6 complete"
    first.save_as(tmp_path / "ratings" / first.suggested_filename)
    other = browser.new_context(accept_downloads=True).new_page()
    second = fill(other, sheet, "=B", lambda *where: max(1, mark(*where) - 1))
    second.save_as(tmp_path / "ratings" / second.suggested_filename)
    other.context.close()

    ratings = read_ratings(tmp_path / "ratings", pairs, SEED).marks
    assert sorted({row["rater"] for row in ratings}) == ["B", "ক. খান"]
    assert len(ratings) == 2 * 6 * 2
    for row in ratings:
        assert row["empathy"] == {"base": 2, "tuned": 5}[row["side"]] - (row["rater"] == "B")
    scales = summarise_ratings(ratings, 200, SEED)["scales"]
    assert scales["empathy"]["delta"] == 3
    assert scales["empathy"]["low"] == 3
    assert scales["empathy"]["p"] < 0.05
    assert scales["fluency"]["base"] == 1.0
    assert scales["fluency"]["n"] == 6


@pytest.mark.browser
def test_the_sheet_brings_its_bengali_font(pairs, tmp_path):
    write_sheet(tmp_path, pairs)
    html = (tmp_path / "human_eval.html").read_text("utf-8")
    assert re.search(
        r'@font-face { font-family: "Report Bengali"; src: url\("data:font/ttf;base64,[A-Za-z0-9+/=]{1000}', html
    )
    assert 'font: 16px/1.6 "Report Bengali"' in html


def test_the_sheet_keeps_its_marks_over_a_reload(page, pairs, tmp_path):
    write_sheet(tmp_path, pairs)
    fill(page, tmp_path / "human_eval.html", "ক. খান", lambda *where: 3)
    page.reload()
    assert page.input_value("#rater") == "ক. খান"
    assert page.text_content("#progress") == "6 of 6 complete"


@pytest.mark.browser
def test_a_reply_on_the_sheet_never_becomes_markup(page, pairs, tmp_path):
    write_sheet(tmp_path, pairs)
    fill(page, tmp_path / "human_eval.html", "x", lambda *where: 3)
    assert page.errors == []
    assert [url for url in page.asked if not url.startswith(("file:", "blob:"))] == []
    assert page.locator("main img").count() == 0
    assert "onerror" in page.text_content("main")


def save_half(page, pairs, folder):
    """Marks one reply of a sheet, saves it as half.csv, and returns the marked radio button's selector."""
    marked = 'input[name="r2 empathy_1"][value="4"]'
    write_sheet(folder, pairs)
    page.goto((folder / "human_eval.html").as_uri())
    page.fill("#rater", 'র"হিম')
    page.check(marked)
    save(page).save_as(folder / "half.csv")
    return marked


@pytest.mark.browser
def test_a_sheet_without_a_name_is_not_saved(page, pairs, tmp_path):
    write_sheet(tmp_path, pairs)
    page.goto((tmp_path / "human_eval.html").as_uri())
    page.click("#save")
    assert "name" in page.text_content("#problem")


@pytest.mark.browser
def test_the_sheet_jumps_to_the_next_unrated_pair(page, pairs, tmp_path):
    write_sheet(tmp_path, pairs)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto((tmp_path / "human_eval.html").as_uri())
    for field in page.locator("section").nth(1).locator("input[value='3']").all():
        field.check()
    page.evaluate("scrollTo(0, 0)")
    tops = []
    for _ in range(3):
        page.click("#next")
        tops.append(page.evaluate("[...document.querySelectorAll('section')].indexOf(document.activeElement)"))
        assert abs(page.locator("section").nth(tops[-1]).bounding_box()["y"]) < 20
    assert tops == [0, 2, 3], "the second pair is rated"


@pytest.mark.browser
def test_the_jump_of_a_rated_sheet_says_to_save_it(page, pairs, tmp_path):
    write_sheet(tmp_path, pairs)
    fill(page, tmp_path / "human_eval.html", "x", lambda *where: 3)
    page.click("#next")
    assert "Every pair is rated" in page.text_content("#problem")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("light", ["light", "dark"])
def test_the_sheet_is_accessible_and_fits(browser, pairs, tmp_path, width, light):
    write_sheet(tmp_path, pairs)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=light)
    page = context.new_page()
    page.goto((tmp_path / "human_eval.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the sheet scrolls sideways"
    violations = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"]) for v in violations] == []
    context.close()


@pytest.mark.browser
def test_a_saved_sheet_is_continued_in_another_browser(page, pairs, tmp_path):
    marked = save_half(page, pairs, tmp_path)
    page.evaluate("localStorage.clear()")
    page.reload()
    assert page.input_value("#rater") == ""
    page.set_input_files("#load", tmp_path / "half.csv")
    page.wait_for_function("document.getElementById('rater').value !== ''")
    assert page.input_value("#rater") == 'র"হিম'
    assert page.is_checked(marked)


@pytest.mark.browser
def test_another_sheets_file_is_refused_by_the_sheet(page, pairs, tmp_path):
    marked = save_half(page, pairs, tmp_path)
    (tmp_path / "other.csv").write_text((tmp_path / "half.csv").read_text("utf-8").replace(sheet_id(pairs), "x"))
    page.set_input_files("#load", tmp_path / "other.csv")
    page.wait_for_function("document.getElementById('problem').textContent.includes('another sheet')")
    assert page.is_checked(marked), "the marks that were there are lost"


def test_the_sheet_does_not_tell_which_reply_is_whose(pairs, tmp_path):
    write_sheet(tmp_path, pairs)
    assert {pair["reply_1"] for pair in pairs} == set(REPLIES.values())
    for name in ("human_eval.html", "human_eval.csv"):
        text = (tmp_path / name).read_text("utf-8")
        assert "tuned" not in text
        assert str(SEED) not in text


def rated(marks):
    """Returns ratings of [rater][row] (base, tuned) on one scale."""
    return [
        {"rater": rater, "id": str(row), "side": side, "empathy": mark}
        for rater, rows in marks.items()
        for row, both in enumerate(rows)
        for side, mark in zip(("base", "tuned"), both)
    ]


def summarise(marks, draws=200):
    """Returns the summary of ratings of [rater][row] (base, tuned) on one scale."""
    return summarise_ratings(rated(marks), draws, 0)["scales"]["empathy"]


@pytest.fixture(scope="module")
def random_marks():
    """Returns the marks of two raters for 200 rows, drawn at random."""
    rng = numpy.random.default_rng(0)
    return [[(int(base), int(tuned)) for base, tuned in rng.integers(1, 6, (200, 2))] for _ in "ab"]


def test_equal_raters_agree_fully(random_marks):
    assert summarise({"a": random_marks[0], "b": random_marks[0]})["alpha"] == pytest.approx(1)


def test_random_raters_agree_no_more_than_by_chance(random_marks):
    assert abs(summarise(dict(zip("ab", random_marks)))["alpha"]) < 0.15


def test_random_marks_favour_no_side(random_marks):
    score = summarise(dict(zip("ab", random_marks)))
    assert score["p"] > 0.01
    assert score["low"] < 0 < score["high"]


def test_the_raters_interval_is_as_wide_as_its_95_percent(random_marks):
    delta = numpy.subtract(*numpy.array(random_marks[0]).T[::-1])
    score = summarise({"a": random_marks[0]}, 4000)
    assert score["high"] - score["low"] == pytest.approx(2 * 1.96 * delta.std() / len(delta) ** 0.5, rel=0.05)


def test_one_rater_has_no_agreement():
    assert summarise({"a": [(3, 4)] * 5})["alpha"] is None


def test_equal_replies_have_no_p():
    score = summarise({"a": [(3, 3)] * 5})
    assert score["alpha"] is None
    assert score["p"] is None
    assert score["low"] == score["delta"] == score["high"] == 0


def test_a_worse_tuned_model_gets_a_negative_difference():
    score = summarise({"a": [(5, 2), (4, 1), (5, 1), (4, 2), (5, 3), (4, 1)]})
    assert score["high"] < 0
    assert score["p"] < 0.05


def test_one_rated_row_has_its_value_as_interval():
    score = summarise({"a": [(2, 4)]})
    assert score["low"] == score["delta"] == score["high"] == 2


def test_the_interval_of_the_difference_is_the_same_each_time(random_marks):
    marks = {"a": random_marks[0][:30]}
    score = summarise(marks)
    assert score == summarise(marks)
    assert score["low"] < score["delta"] < score["high"]
