"""The blind sheet: its layout, filled in by a browser on a phone, interrupted and resumed."""

import csv
import io
import re

import pytest
from in_browser import WIDTHS_AND_LIGHTS, find_violations

from helpers.evaluation.raters import read_ratings, summarise_ratings
from helpers.evaluation.sheet import (
    ANSWER_FIELDS,
    QUESTIONS,
    attention_checks,
    blind_pair,
    lay_out_sheet,
    raters_helplines,
    reading_seconds,
    sheet_id,
    tuned_is_first,
    write_sheet,
)

SEED = 3407
PHONE = {"width": 390, "height": 844}
REPLIES = {
    "base": "ঠিক আছে।",
    "tuned": "আপনার কষ্টটা বুঝতে পারছি। <img src=x onerror=alert(1)> </script><script>alert(2)</script> পাশে আছি।",
}
CHECKS = {check.pair["id"]: check.answer for check in attention_checks(SEED)}


def make_pairs(count, length=1):
    """Returns blind pairs whose replies are so many times as long."""
    rows = [{"id": f"r{n}", "prompt": f"মন খারাপ, ক্ষ{n} “উদ্ধৃতি”, হৃদয়\u200d"} for n in range(count)]
    sides = ({**row, **{"reply": REPLIES[side] * length}} for row in rows for side in ("base", "tuned"))
    return [blind_pair(base, tuned, SEED) for base, tuned in zip(sides, sides)]


@pytest.fixture
def pairs():
    return make_pairs(6)


@pytest.fixture
def sheet(pairs, tmp_path):
    """Returns the address of the sheet of six pairs and three attention checks, all of one sitting."""
    assert write_sheet(tmp_path, pairs, SEED).sitting == 9
    return (tmp_path / "human_eval.html").as_uri()


@pytest.fixture
def phone(browser):
    """Returns the context of a browser on a phone."""
    context = browser.new_context(viewport=PHONE, accept_downloads=True, has_touch=True)
    yield context
    context.close()


def open_sheet(context, sheet):
    """Returns a new page with the sheet; `page.errors` collects what goes wrong on it."""
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(sheet)
    return page


def start(context, sheet, code="শালিক ২৭"):
    """Returns a page on which a rater has begun."""
    page = open_sheet(context, sheet)
    page.fill("#rater", code)
    page.click("#start")
    return page


def shown_pair(page):
    return page.locator(".pair:not([hidden])")


def press(page, field, value):
    """Presses an answer of the pair that is shown, as a finger does: its label, not the hidden button."""
    shown_pair(page).locator(f'label:has([data-field="{field}"][value="{value}"])').click()


def choose(row, prefers="tuned"):
    """Returns the choice of whoever passes the attention checks and prefers one model."""
    if row in CHECKS:
        return CHECKS[row]
    return 1 if tuned_is_first(row, SEED) == (prefers == "tuned") else 2


def answers_of(row, choice, mark):
    """Returns {field: answer} of a pair; `mark(row, scale, place)` is the mark of a reply."""
    parts = {field: field.partition("_") for field in ANSWER_FIELDS}
    return {name: choice(row) if name == "choice" else mark(row, own[0], int(own[2])) for name, own in parts.items()}


def fill_pairs(page, count, choice=choose, mark=lambda row, scale, place: 3):
    """Answers so many pairs from within the page, which takes a tenth of the time that a finger takes."""
    for _ in range(count):
        answers = answers_of(shown_pair(page).get_attribute("data-id"), choice, mark)
        shown_pair(page).evaluate(
            """(pair, answers) => Object.entries(answers).forEach(([field, value]) =>
                pair.querySelector(`label:has([data-field="${field}"][value="${value}"])`).click())""",
            answers,
        )
        page.click("#next")


def fill_pair(page, choice=choose, mark=lambda row, scale, place: 3):
    """Answers the pair that is shown as a finger does, and goes to the next one."""
    for field, answer in answers_of(shown_pair(page).get_attribute("data-id"), choice, mark).items():
        press(page, field, answer)
    page.click("#next")


def save(page, folder):
    """Saves the sheet into a folder, as the file that the page names, and returns it."""
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(folder / download.value.suggested_filename)
    return folder / download.value.suggested_filename


@pytest.mark.browser
def test_an_interrupted_sheet_resumes_at_its_row(phone, sheet):
    page = start(phone, sheet)
    fill_pairs(page, 3)
    row = shown_pair(page).get_attribute("data-id")
    press(page, "choice", 0)
    press(page, "empathy_2", 4)
    page.close()

    again = open_sheet(phone, sheet)
    assert shown_pair(again).get_attribute("data-id") == row
    assert again.input_value("#rater") == "শালিক ২৭"
    assert shown_pair(again).locator(":checked").count() == 2
    assert "যেখানে থেমেছিলেন" in again.text_content("#note")


@pytest.mark.browser
def test_a_resumed_sheet_is_saved_with_all_its_answers(phone, sheet, pairs, tmp_path):
    def mark(row, scale, place):  # the tuned reply is better everywhere but in fluency, by one mark less
        return (5 if tuned_is_first(row, SEED) == (place == 1) else 2) - (scale == "fluency")

    page = start(phone, sheet)
    fill_pair(page, mark=mark)
    fill_pairs(page, 3, mark=mark)
    page.close()
    page = open_sheet(phone, sheet)
    fill_pairs(page, 5, mark=mark)
    assert "সব হয়ে গেছে" in page.text_content("#finish-title")
    file = save(page, tmp_path / "ratings")

    assert file.name == f"ratings-{sheet_id(pairs)}-শালিক-২৭.csv"
    ratings = read_ratings(tmp_path / "ratings", pairs, SEED)
    assert ratings.skipped == []
    assert ratings.attention == []
    assert [choice["tuned"] for choice in ratings.choices] == [1] * 6
    scales = summarise_ratings(ratings.marks, 200, SEED)["scales"]
    assert scales["empathy"]["n"] == 6
    assert scales["empathy"]["delta"] == 3
    assert scales["fluency"]["base"] == 1.0
    assert page.errors == []


@pytest.mark.browser
def test_whoever_presses_the_same_button_is_left_out(phone, sheet, pairs, tmp_path):
    page = start(phone, sheet, "তাড়া")
    fill_pairs(page, 9, choice=lambda row: 1)
    save(page, tmp_path / "ratings")
    ratings = read_ratings(tmp_path / "ratings", pairs, SEED)
    assert ratings.attention == [{"rater": "তাড়া", "failed": 2, "checks": 3, "left_out": True}]
    assert ratings.marks == ratings.choices == []


@pytest.mark.browser
def test_a_missing_answer_is_asked_for_once(phone, sheet):
    page = start(phone, sheet)
    first = shown_pair(page).get_attribute("data-id")
    press(page, "choice", 1)
    page.click("#next")
    assert shown_pair(page).get_attribute("data-id") == first
    assert "১০টি" in page.text_content("#problem")
    page.click("#next")
    assert shown_pair(page).get_attribute("data-id") != first


@pytest.mark.browser
def test_a_sheet_without_a_code_does_not_start(phone, sheet):
    page = open_sheet(phone, sheet)
    page.click("#start")
    assert "কোড" in page.text_content("#problem")
    assert shown_pair(page).count() == 0


@pytest.mark.browser
def test_the_sheet_speaks_english_when_asked(phone, sheet):
    page = start(phone, sheet)
    assert shown_pair(page).get_by_text("Which reply would you rather get?").is_hidden()
    page.click("#language")
    assert shown_pair(page).get_by_text("Which reply would you rather get?").is_visible()
    assert page.inner_text("#progress").startswith("1 / 9 · about ")


@pytest.mark.browser
def test_a_long_sheet_is_enough_after_one_sitting(phone, tmp_path):
    layout = write_sheet(tmp_path, make_pairs(12, length=20), SEED)
    assert layout.sitting < len(layout.pairs)
    page = start(phone, (tmp_path / "human_eval.html").as_uri())
    fill_pairs(page, layout.sitting)
    assert "যথেষ্ট" in page.text_content("#finish-title")
    page.click("#more")
    assert shown_pair(page).get_attribute("data-id") == layout.pairs[layout.sitting]["id"]


@pytest.mark.browser
def test_no_target_on_a_phone_is_under_44_pixels(phone, sheet):
    page = start(phone, sheet)
    sizes = page.evaluate(
        "[...document.querySelectorAll('button, label.tap, #rater')].filter(e => e.offsetParent)"
        ".map(e => [e.offsetWidth, e.offsetHeight, e.outerHTML])"
    )
    assert len(sizes) > 50
    assert [size for size in sizes if min(size[:2]) < 44] == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "light"), WIDTHS_AND_LIGHTS)
def test_every_screen_of_the_sheet_is_accessible(browser, sheet, width, light):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=light)
    page = open_sheet(context, sheet)
    page.fill("#rater", "x")
    for button in ("#start", "#next", "#stop", None):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the sheet scrolls sideways"
        assert find_violations(page) == [], f"before {button}"
        if button:
            page.click(button)
    context.close()


@pytest.mark.browser
def test_the_sheet_is_filled_in_by_the_keyboard_alone(phone, sheet):
    page = open_sheet(phone, sheet)
    page.focus("#rater")
    page.keyboard.type("x")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for key in ("Tab", "Space", "Tab", "ArrowRight"):
        page.keyboard.press(key)
    answers = shown_pair(page).locator(":checked").evaluate_all("all => all.map(e => [e.dataset.field, e.value])")
    assert answers == [["choice", "1"], ["relevance_1", "2"]]


@pytest.mark.browser
def test_a_reply_on_the_sheet_never_becomes_markup(page, sheet):
    page.goto(sheet)
    page.fill("#rater", "=x")
    page.click("#start")
    assert page.errors == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert page.locator("main img").count() == 0
    assert "onerror" in page.text_content("main")


@pytest.mark.browser
def test_a_saved_sheet_is_continued_in_another_browser(page, phone, sheet, tmp_path):
    own = start(phone, sheet, 'র"হিম')
    fill_pair(own)
    press(own, "empathy_1", 4)
    own.click("#stop")
    file = save(own, tmp_path)
    page.goto(sheet)
    page.set_input_files("#load", file)
    page.wait_for_function("document.getElementById('rater').value !== ''")
    assert page.input_value("#rater") == 'র"হিম'
    assert shown_pair(page).locator(":checked").get_attribute("data-field") == "empathy_1"


@pytest.mark.browser
def test_a_file_of_an_earlier_sheet_is_continued(page, sheet, pairs, tmp_path):
    lines = [
        '"sheet","rater","id","fluency_1","correctness_1"',
        *(f'"{sheet_id(pairs)}","ক","{pair["id"]}","4","2"' for pair in pairs),
    ]
    (tmp_path / "old.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    page.goto(sheet)
    page.set_input_files("#load", tmp_path / "old.csv")
    page.wait_for_function("document.getElementById('rater').value === 'ক'")
    checked = page.locator(":checked").evaluate_all("all => all.map(e => e.dataset.field)")
    assert checked == ["fluency_1"] * 6


@pytest.mark.browser
@pytest.mark.parametrize(
    ("separator", "line_end", "encoding"),
    [(",", "\n", "utf-8"), (";", "\r\n", "utf-8-sig"), ("\t", "\r\n", "utf-16"), (";", "\n", "utf-16")],
)
def test_a_file_that_a_spreadsheet_saved_is_continued(page, sheet, pairs, tmp_path, separator, line_end, encoding):
    """Without quotes where none are needed, marks as decimals or in Bengali digits, empty cells at the end left out."""
    lines = [["sheet", "rater", "id", "choice", "empathy_1", "fluency_2"]]
    lines += [[sheet_id(pairs), '"ক, খ"', pair["id"], "1.0", "৪"] for pair in pairs]
    file = tmp_path / "again.csv"
    file.write_bytes("".join(separator.join(line) + line_end for line in lines).encode(encoding))
    page.goto(sheet)
    page.set_input_files("#load", file)
    page.wait_for_function("document.getElementById('rater').value === 'ক, খ'")
    assert page.text_content("#problem") == ""
    checked = page.locator(":checked").evaluate_all("all => all.map(e => e.dataset.field + ' ' + e.value)")
    assert checked == ["choice 1", "empathy_1 4"] * 6


@pytest.mark.browser
@pytest.mark.parametrize(("cell", "row"), [("1.23457E+11", "123456789012"), ("12345", "000000012345")])
def test_an_id_taken_for_a_number_is_restored_by_the_sheet(page, tmp_path, cell, row):
    pairs = [{**pair, "id": row} if place == 1 else pair for place, pair in enumerate(make_pairs(3))]
    write_sheet(tmp_path, pairs, SEED)
    (tmp_path / "own.csv").write_text(f"sheet,rater,id,choice\n{sheet_id(pairs)},x,{cell},2\n", encoding="utf-8")
    page.goto((tmp_path / "human_eval.html").as_uri())
    page.set_input_files("#load", tmp_path / "own.csv")
    page.wait_for_function("document.getElementById('rater').value === 'x'")
    assert page.locator(f'[data-id="{row}"] :checked').get_attribute("value") == "2"


REFUSED_FILES = [
    ("not a table", ["bad.csv", "not a table", "sheet, rater, id", "CSV"]),
    ("sheet,rater,id\nffff,x,r0", ["bad.csv", "ffff", "{sheet}", "অন্য একটি পাতার"]),
    ("sheet,rater,id\n{sheet},x,r0\n{sheet},x,r99", ["bad.csv", "৩ নম্বর", "r99", "আসল ফাইলটি"]),
    ("", ["bad.csv", "sheet, rater, id"]),
]


@pytest.mark.browser
@pytest.mark.parametrize(("content", "words"), REFUSED_FILES)
def test_a_refused_file_is_told_what_is_wrong_with_it(page, sheet, pairs, tmp_path, content, words):
    (tmp_path / "bad.csv").write_text(content.replace("{sheet}", sheet_id(pairs)), encoding="utf-8")
    page.goto(sheet)
    page.set_input_files("#load", tmp_path / "bad.csv")
    page.wait_for_function("document.getElementById('problem').textContent !== ''")
    problem = page.text_content("#problem")
    assert [word for word in words if word.replace("{sheet}", sheet_id(pairs)) not in problem] == []


@pytest.mark.browser
def test_the_file_chooser_speaks_the_sheets_language(phone, sheet, tmp_path):
    (tmp_path / "bad.csv").write_text("x", encoding="utf-8")
    page = open_sheet(phone, sheet)
    label = page.locator("label:has(#load)")
    assert label.inner_text() == "ফাইল বাছুন"
    assert page.inner_text("#chosen") == "কোনো ফাইল বাছা হয়নি"
    assert page.evaluate("getComputedStyle(document.getElementById('load')).opacity") == "0"
    assert page.evaluate("document.querySelector('label:has(#load)').offsetHeight") >= 44
    page.set_input_files("#load", tmp_path / "bad.csv")
    page.wait_for_function("document.getElementById('chosen').innerText === 'bad.csv'")
    page.click("#language")
    assert label.inner_text() == "Choose a file"
    assert page.inner_text("#chosen") == "bad.csv"


@pytest.mark.browser
@pytest.mark.parametrize("language", ["bn", "en"])
def test_a_rater_always_finds_whom_to_talk_to(phone, sheet, language):
    page = open_sheet(phone, sheet)
    if language == "en":
        page.click("#language")
    lines = raters_helplines(["৯৯৯", "kaanpeteroi.org", "১১২", "১৪৪১৬"])
    for place in ("#intro", "#finish"):
        shown = page.inner_text(f"{place} .support")
        for line in lines:
            assert line["name_en" if language == "en" else "name"] in shown
        visible = page.locator(f"{place} .support a").evaluate_all(
            "all => all.filter(e => e.offsetParent).map(e => e.getAttribute('href'))"
        )
        assert visible == ["tel:999", "tel:112", "tel:14416"]
        if place == "#intro":
            page.fill("#rater", "x")
            page.click("#start")
            page.click("#stop")


@pytest.mark.browser
def test_another_sheets_file_is_refused_by_the_sheet(page, sheet, tmp_path):
    (tmp_path / "other.csv").write_text('"sheet","rater","id","choice"\r\n"x","y","r0","1"\r\n', encoding="utf-8")
    page.goto(sheet)
    page.set_input_files("#load", tmp_path / "other.csv")
    page.wait_for_function("document.getElementById('problem').textContent !== ''")
    assert "অন্য একটি পাতার" in page.text_content("#problem")
    assert page.locator(":checked").count() == 0


@pytest.mark.browser
def test_answers_are_deleted_from_the_browser_when_asked(phone, sheet):
    page = start(phone, sheet)
    fill_pair(page)
    page.click("#stop")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#forget")
    page.reload()
    assert page.input_value("#rater") == ""
    assert page.locator(":checked").count() == 0


@pytest.mark.browser
def test_a_phone_that_can_share_offers_to_send_the_file(phone, sheet):
    phone.add_init_script("navigator.canShare = () => true;")
    phone.add_init_script("navigator.share = async data => { window.sent = await data.files[0].text(); };")
    page = start(phone, sheet)
    press(page, "choice", 2)
    page.click("#stop")
    page.click("#share")
    page.wait_for_function("window.sent")
    rows = list(csv.DictReader(io.StringIO(page.evaluate("window.sent").lstrip("\ufeff"))))
    assert [row["choice"] for row in rows] == ["2", *[""] * 8]


def write_answers(folder, pairs, lines, code="x", head="sheet,rater,id,choice,empathy_1", encoding="utf-8"):
    """Writes own.csv, a file of this sheet with these lines of row, choice and one mark, and returns it."""
    table = [head, *(f"{sheet_id(pairs)},{code},{line}" for line in lines)]
    (folder / "own.csv").write_bytes(("\n".join(table) + "\n").encode(encoding, errors="replace"))
    return folder / "own.csv"


def load_file(page, file):
    """Loads a file into the sheet, and returns what the sheet asked: cancelled, unless `page.accepts` is set."""
    asked = []

    def answer(dialog):
        asked.append(dialog.message)
        dialog.accept() if getattr(page, "accepts", False) else dialog.dismiss()

    page.on("dialog", answer)
    page.set_input_files("#load", file)
    page.wait_for_function("document.getElementById('load').value === ''")
    page.remove_listener("dialog", answer)
    return asked


def checked_answers(page):
    """Returns the answers on a sheet: {row: {field: value}}, rows without any left out."""
    checked = page.locator(".pair :checked").evaluate_all(
        "all => all.map(e => [e.closest('.pair').dataset.id, e.dataset.field, e.value])"
    )
    return {row: {field: value for own, field, value in checked if own == row} for row, _, _ in checked}


@pytest.mark.browser
def test_a_loaded_file_adds_to_the_answers_on_the_page(phone, sheet, pairs, tmp_path):
    page = start(phone, sheet, "x")
    press(page, "choice", 1)
    press(page, "empathy_1", 4)
    page.click("#back")
    assert load_file(page, write_answers(tmp_path, pairs, ["r0,1,", "r1,2,3"])) == []
    both = {"r0": {"choice": "1", "empathy_1": "4"}, "r1": {"choice": "2", "empathy_1": "3"}}
    assert checked_answers(page) == both
    page.reload()
    assert checked_answers(page) == both


@pytest.mark.browser
@pytest.mark.parametrize(("accepts", "kept"), [(False, ("1", "4")), (True, ("2", "5"))])
def test_a_file_that_differs_is_asked_about_once(phone, sheet, pairs, tmp_path, accepts, kept):
    page = start(phone, sheet, "x")
    press(page, "choice", 1)
    press(page, "empathy_1", 4)
    press(page, "safety_1", 2)
    page.click("#back")
    page.accepts = accepts
    (asked,) = load_file(page, write_answers(tmp_path, pairs, ["r0,2,5", "r1,0,"]))
    assert "own.csv" in asked
    assert "২টি" in asked
    assert "কোড" not in asked
    row = dict(zip(("choice", "empathy_1"), kept), safety_1="2")
    assert checked_answers(page) == {"r0": row, "r1": {"choice": "0"}}


@pytest.mark.browser
@pytest.mark.parametrize(("accepts", "code"), [(False, "শালিক ২৭"), (True, "দোয়েল ৩")])
def test_another_code_in_a_file_is_asked_about(phone, sheet, pairs, tmp_path, accepts, code):
    page = open_sheet(phone, sheet)
    page.fill("#rater", "শালিক ২৭")
    page.accepts = accepts
    (asked,) = load_file(page, write_answers(tmp_path, pairs, ["r0,2,5"], code="দোয়েল ৩"))
    assert "শালিক ২৭" in asked
    assert "দোয়েল ৩" in asked
    assert page.input_value("#rater") == code


@pytest.mark.browser
def test_the_last_tab_to_save_keeps_the_others_answers(phone, sheet):
    phone.add_init_script("addEventListener('storage', event => event.stopImmediatePropagation(), true);")
    first, second = start(phone, sheet), open_sheet(phone, sheet)
    press(first, "choice", 1)
    press(first, "empathy_1", 4)
    press(second, "empathy_1", 2)
    press(second, "fluency_2", 5)
    assert checked_answers(second) == {"r0": {"choice": "1", "empathy_1": "2", "fluency_2": "5"}}
    press(first, "safety_1", 3)
    first.reload()
    assert checked_answers(first) == {"r0": {"choice": "1", "empathy_1": "2", "fluency_2": "5", "safety_1": "3"}}
    assert first.errors == second.errors == []


@pytest.mark.browser
def test_an_answer_in_one_tab_appears_in_the_other(phone, sheet):
    first, second = start(phone, sheet), open_sheet(phone, sheet)
    press(first, "choice", 1)
    second.wait_for_function("document.querySelector('.pair :checked')", timeout=5000)
    assert checked_answers(second) == {"r0": {"choice": "1"}}


@pytest.mark.browser
def test_two_tabs_that_save_at_once_keep_both_answers(phone, sheet):
    page = start(phone, sheet)
    press(page, "choice", 1)
    page.evaluate(
        """() => {
            const newValue = JSON.stringify({ marks: { r0: { empathy_1: "4" }, other: { choice: "2" } } });
            localStorage.setItem(kept, newValue);
            dispatchEvent(new StorageEvent("storage", { key: kept, newValue }));
        }"""
    )
    stored = page.evaluate("JSON.parse(localStorage.getItem(kept)).marks")
    assert {row: marks for row, marks in stored.items() if marks} == {
        "r0": {"choice": "1", "empathy_1": "4"},
        "other": {"choice": "2"},
    }


@pytest.mark.browser
def test_deleted_answers_are_gone_from_every_tab(phone, sheet):
    first = start(phone, sheet)
    press(first, "choice", 1)
    second = open_sheet(phone, sheet)
    first.click("#stop")
    first.on("dialog", lambda dialog: dialog.accept())
    first.click("#forget")
    second.wait_for_function("!document.querySelector('.pair :checked')", timeout=5000)
    assert second.input_value("#rater") == ""
    assert first.evaluate("Object.keys(localStorage).filter(key => !key.endsWith('language'))") == []


@pytest.mark.browser
def test_bad_marks_in_a_file_are_named_and_the_rest_kept(page, sheet, pairs, tmp_path):
    page.goto(sheet)
    load_file(page, write_answers(tmp_path, pairs, ["r0,1,9", "r1,7,9", "r2,0,4", "r3,,zz", "r2,1,4"]))
    assert checked_answers(page) == {"r0": {"choice": "1"}, "r2": {"choice": "0", "empathy_1": "4"}}
    problem = page.text_content("#problem")
    words = [
        "own.csv",
        "৫টি",
        "২ নম্বর সারি, empathy_1: আছে “9”, দরকার 1–5",
        "৩ নম্বর সারি, choice: আছে “7”, দরকার 0–2",
        "…",
    ]
    assert [each for each in words if each not in problem] == []


@pytest.mark.browser
def test_a_long_warning_hides_no_answer_on_a_phone(phone, sheet, pairs, tmp_path):
    page = open_sheet(phone, sheet)
    load_file(page, write_answers(tmp_path, pairs, [f"r{n},1,9" for n in range(5)]))
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    bottom = shown_pair(page).evaluate("pair => pair.getBoundingClientRect().bottom")
    assert bottom <= page.evaluate("document.querySelector('.bar').getBoundingClientRect().top")


@pytest.mark.browser
def test_a_pair_twice_in_a_file_is_not_taken_silently(page, sheet, pairs, tmp_path):
    page.goto(sheet)
    load_file(page, write_answers(tmp_path, pairs, ["r0,1,", "r0,2,5"]))
    assert checked_answers(page) == {"r0": {"choice": "1", "empathy_1": "5"}}
    assert "৩ নম্বর সারি, choice: আছে “2”, দরকার প্রতি জোড়ার একটিই সারি" in page.text_content("#problem")


@pytest.mark.browser
def test_a_code_lost_to_a_spreadsheet_is_kept_by_the_page(page, sheet, pairs, tmp_path):
    page.goto(sheet)
    page.fill("#rater", "শালিক ২৭")
    asked = load_file(page, write_answers(tmp_path, pairs, ["r0,1,3"], code="শালিক ২৭", encoding="cp1252"))
    assert asked == []
    assert page.input_value("#rater") == "শালিক ২৭"
    assert checked_answers(page) == {"r0": {"choice": "1", "empathy_1": "3"}}


@pytest.mark.browser
@pytest.mark.parametrize("code", [b"????? ??", b"", b"Ren\xe9"])
def test_a_code_that_a_file_lost_is_asked_for(page, sheet, pairs, tmp_path, code):
    file = write_answers(tmp_path, pairs, ["r0,1,3"], code="CODE")
    file.write_bytes(file.read_bytes().replace(b"CODE", code))
    page.goto(sheet)
    load_file(page, file)
    assert page.input_value("#rater") == ""
    assert "কোডটি আবার লিখুন" in page.text_content("#problem")
    assert page.evaluate("document.activeElement.id") == "rater"
    page.fill("#rater", "শালিক ২৭")
    page.click("#start")
    assert page.text_content("#problem") == ""
    assert checked_answers(page) == {"r0": {"choice": "1", "empathy_1": "3"}}


@pytest.mark.browser
@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("bn", "“own.csv” থেকে ৩টি উত্তর পড়া হয়েছে। এই পাতায় এখন ৪টি।"),
        ("en", "Answers read from “own.csv”: 3. On this page now: 4."),
    ],
)
def test_a_loaded_file_is_confirmed_with_its_answers(phone, sheet, pairs, tmp_path, language, words):
    page = start(phone, sheet, "x")
    press(page, "safety_1", 4)
    page.click("#back")
    if language == "en":
        page.click("#language")
    load_file(page, write_answers(tmp_path, pairs, ["r0,1,3", "r1,2,"]))
    assert page.inner_text("#note") == words


@pytest.mark.browser
def test_a_loaded_file_leaves_a_skipped_pair_skipped(page, sheet, pairs, tmp_path):
    rows = [pair["id"] for pair in lay_out_sheet(pairs, SEED).pairs]
    head = ",".join(["sheet", "rater", "id", *ANSWER_FIELDS])
    answered = ",".join([rows[2], "1", *["3"] * (len(ANSWER_FIELDS) - 1)])
    page.goto(sheet)
    load_file(page, write_answers(tmp_path, pairs, [f"{rows[0]},1", answered], head=head))
    assert shown_pair(page).get_attribute("data-id") == rows[3]
    page.click("#stop")
    assert page.locator("#continue").is_visible()


@pytest.mark.browser
def test_a_files_column_names_may_be_in_capitals(page, sheet, pairs, tmp_path):
    page.goto(sheet)
    load_file(page, write_answers(tmp_path, pairs, ["r0,1,3"], head="Sheet,RATER,Id,Choice,Empathy_1"))
    assert page.text_content("#problem") == ""
    assert checked_answers(page) == {"r0": {"choice": "1", "empathy_1": "3"}}


def test_the_sheet_loads_nothing_from_elsewhere(pairs, tmp_path):
    write_sheet(tmp_path, pairs, SEED)
    html = (tmp_path / "human_eval.html").read_text("utf-8")
    assert re.search(r'src: url\("data:font/ttf;base64,[A-Za-z0-9+/=]{1000}', html)
    assert not re.search(r'(?:src|href)="(?!data:|tel:)|@import|https?://', html)


def test_the_sheet_does_not_tell_which_reply_is_whose(pairs, tmp_path):
    write_sheet(tmp_path, pairs, SEED)
    assert {pair["reply_1"] for pair in pairs} == set(REPLIES.values())
    for name in ("human_eval.html", "human_eval.csv"):
        text = (tmp_path / name).read_text("utf-8")
        assert "tuned" not in text
        assert str(SEED) not in text


def test_the_spreadsheet_has_the_attention_checks_too(pairs, tmp_path):
    write_sheet(tmp_path, pairs, SEED)
    with open(tmp_path / "human_eval.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "prompt", "reply_1", "reply_2", *ANSWER_FIELDS]
    assert {row["id"] for row in rows} == {pair["id"] for pair in pairs} | CHECKS.keys()
    assert all(row[field] == "" for row in rows for field in ANSWER_FIELDS)


@pytest.mark.parametrize(("count", "checks"), [(1, 0), (2, 1), (5, 2), (6, 3), (50, 3)])
def test_every_third_of_a_sitting_has_one_check(count, checks):
    layout = lay_out_sheet(make_pairs(count), SEED)
    places = [place for place, pair in enumerate(layout.pairs[: layout.sitting]) if pair["id"] in CHECKS]
    assert len(places) == layout.checks == checks
    assert len(layout.pairs) == count + checks
    assert 0 not in places, "the first pair would be a check"


def test_a_sitting_takes_twenty_minutes_at_most():
    layout = lay_out_sheet(make_pairs(60, length=4), SEED)
    seconds = sum(map(reading_seconds, layout.pairs[: layout.sitting]))
    one_more = seconds + reading_seconds(layout.pairs[layout.sitting])
    assert seconds <= 20 * 60 < one_more


def test_a_pair_takes_its_words_and_eleven_answers():
    pair = {"prompt": "এক দুই।", "reply_1": "তিন চার", "reply_2": "পাঁচ-ছয়"}
    pace = QUESTIONS["pace"]
    assert (pace["words_per_minute"], pace["seconds_per_answer"]) == (120, 3)
    assert reading_seconds(pair) == 6 * 0.5 + 11 * 3


@pytest.mark.parametrize("button", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_one_button_passes_one_check_of_three(seed, button):
    assert sum(check.answer == button for check in attention_checks(seed)) == 1


def test_a_checks_id_looks_like_a_rows():
    assert len(CHECKS) == len(QUESTIONS["attention"])
    assert all(re.fullmatch("[0-9a-f]{12}", row) for row in CHECKS)
    assert CHECKS.keys() != {check.pair["id"] for check in attention_checks(SEED + 1)}


def test_a_sheets_length_is_told_in_a_sentence():
    assert lay_out_sheet(make_pairs(6), SEED).describe() == (
        "9 screens on the sheet: the first 9 take about 7 minutes, 3 of them attention checks."
    )
