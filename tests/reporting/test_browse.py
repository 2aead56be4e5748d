"""The page to read the rows on: every row as it is, nothing that acts, found by Bengali as people type it."""

import base64
import gzip
import json
import random
import re

import pandas
import pytest
from in_browser import WIDTHS_AND_LIGHTS, check_in_browser
from page_text import PageText
from tables import bengali_words, cleaned

from helpers.data.clean import Corpus, make_id
from helpers.data.dialogues import Order
from helpers.reporting import browse
from helpers.reporting.browse import write_browse_page
from helpers.reporting.report import write_report

HOSTILE = "<script>alert(1)</script> </script><!-- <b onclick='x'> javascript:alert(2) ${x} {{ y }}"
TWICE = "ভাই সমুদ্রে মাছ ধরতে গেছে, ঝড়ের সংকেত দিয়েছে।"
ROWS = [
    {"Topics": "ভয়", "Question-Title": "ঝড়ের সংকেত", "Questions": TWICE, "Answers": "ট্রলারের কোনো খবর পেয়েছেন?"},
    {"Topics": "আশা", "Questions": TWICE.replace("গেছে,", "গেছে, এদিকে"), "Answers": "৩ নম্বর সংকেতে ওরা ফিরে আসবে।"},
    {"Topics": "ভয়", "Questions": "র‍্যাগিং নিয়ে ভয়ে আছি খুব।", "Answers": "উদ্‌যাপনের দিনেও ভয়, বুঝতে পারছি।"},
    {"Questions": "লিংকটা দেখুন তো একবার।", "Answers": "এখানে আছে www.example.org সব কথা।"},
    {"Questions": f"{HOSTILE} এই লেখাটা দেখে ভয় পেলাম আমি", "Answers": f"{HOSTILE} এটা শুধু লেখা, ভয়ের কিছু নেই এতে"},
]


def make_corpus(*rows):
    """Returns the rows cleaned and split by hand, the first two as one group."""
    corpus = cleaned(*rows, skip_rules=["markup", "not Bengali"])
    kept = corpus.kept
    groups, parts = [kept.id[0], kept.id[0], *kept.id[2:]], ["train", "train", "val", "test"]
    return corpus._replace(kept=kept.assign(group=groups[: len(kept)], part=parts[: len(kept)]))


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(*ROWS)


@pytest.fixture(scope="module")
def path(corpus, tmp_path_factory):
    tokens = pandas.Series({row_id: 60 + 10 * place for place, row_id in enumerate(corpus.kept.id)})
    return write_browse_page(tmp_path_factory.mktemp("browse") / "mine", corpus, tokens)


@pytest.fixture
def reader(page, path):
    """Returns the page in a browser, once its rows are there."""
    page.goto(path.as_uri())
    page.wait_for_selector("#reader:not([hidden])")
    return page


@pytest.fixture(scope="module")
def searched(browser, path):
    """Returns the page in a browser, for one search after another."""
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("#reader:not([hidden])")
    yield page
    page.close()


def numbers(page):
    """Returns the numbers of the rows shown."""
    return [int(text.split()[1]) for text in page.locator("#list h2").all_inner_texts()]


def search(page, query):
    page.fill("#search", query)
    page.wait_for_timeout(300)
    return numbers(page)


def packed_rows(path):
    return base64.b64decode(re.search(r'type="application/gzip;base64">([^<]*)<', path.read_text("utf-8"))[1])


def unpack(path):
    """Returns the rows that a page holds."""
    return json.loads(gzip.decompress(packed_rows(path)))


def test_the_page_holds_every_row_in_the_files_order(path):
    rows = unpack(path)
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["part"] for row in rows] == ["train", "train", "val", "dropped", "test"]
    assert [row["rule"] for row in rows] == ["", "", "", "url", ""]
    assert [row["tokens"] for row in rows] == [60, 70, 80, None, 90]


def test_a_dropped_duplicate_is_in_the_group_of_the_kept_row(tmp_path):
    rows = unpack(write_browse_page(tmp_path / "x", make_corpus(ROWS[0], ROWS[1], ROWS[1]), pandas.Series(dtype=int)))
    assert [row["rule"] for row in rows] == ["", "", "exact duplicate"]
    assert rows[2]["group"] == rows[1]["group"] == rows[0]["id"]


def test_a_conversation_keeps_its_turns(tmp_path, corpus):
    turns = [{"role": role, "content": "মন ভালো নেই"} for role in ("system", "user", "assistant", "user", "assistant")]
    kept = corpus.kept.assign(messages=[turns] * len(corpus.kept))
    rows = unpack(write_browse_page(tmp_path / "x", corpus._replace(kept=kept), pandas.Series(dtype=int)))
    assert [role for role, _ in rows[0]["turns"]] == ["system", "user", "assistant", "user", "assistant"]
    assert [role for role, _ in rows[3]["turns"]] == ["user", "assistant"], "a dropped row has no messages of its own"


def test_plain_text_is_one_turn(tmp_path, corpus):
    kept = corpus.kept.assign(plain=True)
    rows = unpack(write_browse_page(tmp_path / "x", corpus._replace(kept=kept), pandas.Series(dtype=int)))
    assert rows[0]["turns"] == [["text", corpus.kept.answer[0]]]


def test_the_same_rows_give_the_same_page(corpus, tmp_path):
    pages = [write_browse_page(tmp_path / name / "x", corpus, pandas.Series(dtype=int)) for name in "ab"]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert packed_rows(pages[0])[4:8] == bytes(4), "gzip's header has the time: pass mtime=0"


def test_hostile_rows_are_not_in_the_page_as_text(path):
    html, page = path.read_text("utf-8"), PageText(path)
    assert "alert(1)" not in html
    assert page.tags.count("script") == html.count("</script>") == 2
    assert not [address for address in page.addresses if not re.match(r"(\.\./|[\w.]+$)", address)]


def test_control_characters_of_a_row_are_shown(tmp_path, corpus):
    marks = corpus.kept.assign(topic="\u202eউল্টো\x07")
    rows = unpack(write_browse_page(tmp_path / "x", corpus._replace(kept=marks), pandas.Series(dtype=int)))
    assert rows[0]["topic"] == "[U+202E]উল্টো␇"


def test_only_the_pages_own_script_may_run(path):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', path.read_text("utf-8"))[1]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='$", policy), "no other script, inline or from elsewhere"


def test_a_large_file_is_sampled_by_whole_groups(corpus, tmp_path, monkeypatch):
    many = pandas.concat([corpus.kept] * 40, ignore_index=True)
    ids = [make_id(str(place)) for place in many.index]
    many = many.assign(number=many.index + 1, id=ids, group=[ids[place - place % 4] for place in many.index])
    monkeypatch.setattr(browse, "PAGE_CHARACTERS", 3000)
    many = corpus._replace(kept=many, dropped=corpus.dropped[:0], funnel=[])
    path = write_browse_page(tmp_path / "x", many, pandas.Series(dtype=int))
    rows = unpack(path)
    assert sum(len(text) for row in rows for _, text in row["turns"]) <= 3000
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)
    sizes = pandas.Series([row["group"] for row in rows]).value_counts()
    assert (sizes < 4).sum() <= 1, "a group is cut"
    assert f"A sample: {len(rows)} of 160 rows" in PageText(path).text


def test_a_row_that_was_not_sampled_keeps_its_group(corpus, tmp_path):
    sampled = corpus.drop("not sampled", [corpus.kept.id[1]])
    rows = unpack(write_browse_page(tmp_path / "x", sampled, pandas.Series(dtype=int)))
    assert [row["rule"] for row in rows[:2]] == ["", "not sampled"]
    assert rows[1]["group"] == rows[0]["group"] != rows[1]["id"]


@pytest.mark.slow
def test_a_page_of_many_long_rows_stays_below_15_mb(tmp_path):
    rng, pool = random.Random(0), bengali_words()
    texts = pandas.Series([" ".join(rng.choices(pool, k=40)) for _ in range(110_000)])
    kept = pandas.DataFrame({"number": texts.index + 1, "topic": "", "title": "", "question": texts[::-1].values})
    kept = kept.assign(answer=texts, plain=False, part="train", id=texts.map(make_id)).drop_duplicates("id")
    kept["group"] = kept.id
    corpus = Corpus(kept, kept[:0].assign(rule=""), [], Order(0.0, 0.0, 1, 0))
    path = write_browse_page(tmp_path / "x", corpus, pandas.Series(dtype=int))
    assert 8e6 < path.stat().st_size < 15e6


def test_the_report_links_the_page(run):
    write_report(run, 6)
    assert PageText(run / "report/index.html").addresses.count("../data/browse.html") == 2
    assert (run / "data/browse.html").is_file()


def test_the_report_of_a_run_without_the_page_does_not_link_it(run):
    (run / "data/browse.html").unlink()
    write_report(run, 6)
    assert "../data/browse.html" not in PageText(run / "report/index.html").addresses


@pytest.mark.browser
def test_a_browser_reads_the_rows_without_a_network(reader, path):
    assert numbers(reader) == [1, 2, 3, 4, 5]
    assert reader.errors == []
    assert [url for url in reader.asked if not url.startswith("data:")] == [path.as_uri()]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ঝড়ের", [1, 2]),  # ড + nukta
        ("ঝ\u09dcের", [1, 2]),  # one letter
        ("র্যাগিং", [3]),  # without the joiner
        ("র\u200d্যাগিং", [3]),
        ("উদ্যাপন", [3]),
        ("উদ্\u200cযাপন", [3]),
        ("3 নম্বর", [2]),
        ("৩  নম্বর", [2]),
        ("WWW.Example", [4]),
        ("<script>", [5]),
        ("ঝ.*র", []),  # a query is no pattern
        ("নেই এমন কথা", []),
    ],
)
def test_a_search_normalises_as_the_corpus_is(searched, query, expected):
    assert search(searched, query) == expected
    assert (searched.locator("#list mark").count() > 0) == bool(expected), "what was looked for is not marked"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("control", "value", "expected"),
    [
        ("part", "val", [3]),
        ("part", "dropped", [4]),
        ("rule", "url", [4]),
        ("least", "70", [2, 3, 5]),
        ("most", "70", [1, 2]),
        ("order", "tokens", [5, 3, 2, 1, 4]),
    ],
)
def test_rows_are_filtered_by_each_control(reader, control, value, expected):
    act = reader.select_option if control in ("part", "rule", "order") else reader.fill
    act(f"#{control}", value)
    reader.wait_for_timeout(300)
    assert numbers(reader) == expected
    reader.click("button[type=reset]")
    reader.wait_for_timeout(100)
    assert numbers(reader) == [1, 2, 3, 4, 5]


@pytest.mark.browser
def test_rows_are_filtered_by_their_group(reader, corpus):
    reader.fill("#group", corpus.kept.group[0][:6].upper())
    reader.wait_for_timeout(300)
    assert numbers(reader) == [1, 2]
    reader.fill("#group", "")
    reader.check("#several")
    reader.wait_for_timeout(300)
    assert numbers(reader) == [1, 2]


@pytest.mark.browser
def test_rows_of_one_group_stand_side_by_side(reader):
    reader.locator("#list button").first.press("Enter")
    cards = reader.locator("#rows article")
    assert cards.count() == 2
    assert "in common: user 0.89, assistant 0.00" in cards.nth(1).inner_text()
    assert reader.locator("#rows article:nth-child(2) dd").first.locator("mark").all_inner_texts() == ["এদিকে"]
    assert reader.evaluate("document.activeElement.id") == "close"
    reader.keyboard.press("Escape")
    assert not reader.locator("#side").is_visible()
    assert reader.evaluate("document.activeElement.textContent").startswith("Side by side")


@pytest.mark.browser
def test_hostile_rows_stay_text_in_a_browser(reader):
    reader.on("dialog", lambda dialog: pytest.fail(f"a row has acted: {dialog.message}"))
    assert search(reader, "alert(1)") == [5]
    assert HOSTILE in reader.locator("#list dd").first.inner_text()
    assert reader.locator("#list script, #list b, #list a").count() == 0
    assert reader.errors == []


@pytest.mark.browser
def test_many_rows_come_page_by_page(page, corpus, tmp_path):
    many = pandas.concat([corpus.kept] * 15, ignore_index=True)
    many = many.assign(number=many.index + 1, id=[make_id(str(place)) for place in many.index])
    many = corpus._replace(kept=many, dropped=corpus.dropped[:0], funnel=[])
    path = write_browse_page(tmp_path / "x", many, pandas.Series(dtype=int))
    page.goto(path.as_uri())
    page.wait_for_selector("#list h2")
    assert page.inner_text("#shown") == "1–25 of 60 rows, page 1 of 3"
    assert page.locator("#before").is_disabled()
    page.click("#after")
    assert numbers(page)[0] == 26
    page.fill("#page", "99")
    page.press("#page", "Enter")
    assert page.inner_text("#shown") == "51–60 of 60 rows, page 3 of 3"
    assert page.locator("#after").is_disabled()


@pytest.mark.browser
def test_a_browser_that_cannot_unpack_names_the_files(page, path):
    page.add_init_script("delete window.DecompressionStream")
    page.goto(path.as_uri())
    page.wait_for_selector("#plain:not([hidden])")
    assert "The same rows are in train.jsonl" in page.inner_text("#plain")
    assert not page.locator("#reader").is_visible()


@pytest.mark.browser
def test_without_javascript_the_page_names_the_files(browser, path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert "dropped.csv" in page.inner_text("noscript, main")
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "light"), WIDTHS_AND_LIGHTS)
def test_a_browser_finds_nothing_wrong_with_the_rows(browser, path, width, light):
    check_in_browser(browser, path, width, light, lambda page: page.wait_for_selector("#list h2"))

    def open_side(page):
        page.locator("#list button").first.click()

    check_in_browser(browser, path, width, light, open_side)
