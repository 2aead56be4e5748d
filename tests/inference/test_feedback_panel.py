"""Thumbs on the chat page: nothing without consent, a better reply, what one gave, in a browser and without."""

import json
import socket
from types import SimpleNamespace

import gradio
import pytest
from in_browser import find_violations, press_thumb

from helpers.inference.chat_page import ChatPage
from helpers.inference.feedback_panel import FeedbackPanel
from helpers.inference.limits import MESSAGE_CHARACTERS, WORDS, RateLimit
from helpers.inference.turns import Entry
from helpers.preference.sources import read_sources
from helpers.runs.feedback import FeedbackStore
from helpers.runs.files import write_json, write_jsonl
from helpers.runs.record import Run

CALLER = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"))
TALK = [Entry("user", "মন খারাপ।"), Entry("assistant", "শুনছি।", "reply", "base")]
DECODING = (0.7, 0.9, 256, 1)
CRISIS = "আমি আর বাঁচতে চাই না।"  # I do not want to live any more


class OneReply:
    """A model that always says the same."""

    config, system, run = {"base_model": "embedded"}, [], SimpleNamespace(name="demo")
    sides = ("tuned", "base")

    def stream(self, turns, side, **decoding):
        yield "শুনছি।"


@pytest.fixture
def store(tmp_path):
    return FeedbackStore(tmp_path / "experiments.db", keep_days=90)


@pytest.fixture
def panel(store):
    return FeedbackPanel(store, "demo", [{"role": "system", "content": "S"}], with_care=True)


def like(panel, person="", liked=True, entries=TALK, place=1, language="en"):
    """Gives a thumb, and returns what the page keeps of it in its own memory, and which panels are shown."""
    event = SimpleNamespace(index=place, liked=liked)
    thumb, consent, better, _ = panel._on_like(entries, person, language, *DECODING, event, CALLER)
    return thumb, [update.get("visible") for update in (consent, better)]


def test_a_thumb_without_consent_keeps_nothing(panel, store):
    thumb, shown = like(panel)
    assert shown == [True, False]
    assert store.rows() == []
    assert not store.database.exists()
    panel._on_leave()
    assert not store.database.exists(), "kept although it was declined"


def test_consent_keeps_the_thumb_that_was_waiting(panel, store):
    thumb, _ = like(panel, liked=False)
    person, code, _, better = panel._on_agree(thumb, "")
    (row,) = store.rows()
    assert (row["person"], row["liked"], row["side"], row["run"]) == (person, False, "base", "demo")
    assert row["conversation"] == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "মন খারাপ।"},
        {"role": "assistant", "content": "শুনছি।"},
    ]
    assert code == person
    assert better["visible"]


def test_after_consent_later_thumbs_do_not_ask(panel, store):
    assert like(panel, "a")[1] == [False, True]
    assert len(store.rows("a")) == 1


def test_a_thumb_that_is_pressed_again_is_taken_back(panel, store):
    like(panel, "a")
    assert like(panel, "a", liked="") == (None, [False, False])
    assert store.rows() == []


@pytest.mark.parametrize("kind", ["care", ""])
def test_a_fixed_message_takes_no_thumb(panel, store, kind):
    entries = [TALK[0], Entry("assistant", "৯৯৯", kind, care="crisis")]
    assert like(panel, "a", entries=entries)[1] == [None, None]
    assert store.rows() == []


def test_a_reply_that_is_being_written_takes_no_thumb(panel, store):
    entries = [TALK[0], Entry("assistant", "শুন", "reply", "base", writing=True)]
    assert like(panel, "a", entries=entries)[1] == [None, None]
    assert store.rows() == []


@pytest.mark.parametrize("place", [-1, 2, 10**6])
def test_a_thumb_on_no_message_keeps_nothing(panel, store, place):
    like(panel, "a", place=place)
    assert store.rows() == []


def test_a_better_reply_makes_a_pair_with_the_one_given(panel, store):
    thumb, _ = like(panel, "a", liked=False)
    panel._on_give("  কী হয়েছে, বলবেন?\n", thumb, "a", "en", CALLER)
    (row,) = store.rows("a")
    assert row["rewritten"] == "কী হয়েছে, বলবেন?"
    assert row["conversation"][-1]["content"] == "শুনছি।"
    assert not row["liked"]


REFUSED = [("", "ফাঁকা"), ("ক" * (MESSAGE_CHARACTERS + 1), "৮০০০"), ("শুনছি। ", "মডেলের উত্তরটিই"), (None, "ফাঁকা")]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_a_better_reply_passes_the_limits_of_a_message(panel, store, text, reason):
    thumb, _ = like(panel, "a")
    with pytest.raises(gradio.Error, match=reason):
        panel._on_give(text, thumb, "a", "bn", CALLER)
    assert store.rows()[0]["rewritten"] == ""


def test_a_better_reply_without_consent_is_not_kept(panel, store):
    thumb, _ = like(panel)
    panel._on_give("কী হয়েছে?", thumb, "", "bn", CALLER)
    assert store.rows() == []


def test_a_crisis_in_the_field_is_met_with_help(panel, store):
    thumb, _ = like(panel, "a")
    *_, now = panel._on_give(CRISIS, thumb, "a", "bn", CALLER)
    assert now["visible"]
    assert store.rows()[0]["rewritten"] == ""


def test_acts_count_against_a_callers_limit(panel, store):
    panel.rate = RateLimit(0)
    with pytest.raises(gradio.Error, match="0 messages within a minute"):
        like(panel, "a")
    with pytest.raises(gradio.Error, match="0 messages"):
        panel._on_export("a", "en", CALLER)
    with pytest.raises(gradio.Error, match="0 messages"):
        panel._on_delete("a", "a", "en", CALLER)


def test_a_setting_out_of_range_keeps_no_thumb(panel, store):
    with pytest.raises(gradio.Error, match="temperature is 9"):
        panel._on_like(TALK, "a", "en", 9, 1, 8, 1, SimpleNamespace(index=1, liked=True), CALLER)
    assert store.rows() == []


def test_a_deletion_asks_for_consent_anew(panel, store):
    like(panel, "a")
    person, code, result, *_ = panel._on_delete(" A ", "a", "bn", CALLER)
    assert (person, code) == ("", "")
    assert result == "১টি চিহ্ন মুছে ফেলা হলো।"
    assert store.rows() == []


def test_an_earlier_code_does_not_end_the_consent_of_now(panel, store):
    like(panel, "earlier")
    like(panel, "now")
    person, *_ = panel._on_delete("earlier", "now", "en", CALLER)
    assert person == "now"
    assert [row["person"] for row in store.rows()] == ["now"]


@pytest.mark.parametrize("code", ["", "other", None])
def test_a_code_of_nobody_does_nothing(panel, store, code):
    like(panel, "a")
    like(panel, "")
    assert panel._on_export(code, "en", CALLER) == ("", "Nothing is kept under this code.")
    assert panel._on_delete(code, "a", "en", CALLER)[2] == "Nothing is kept under this code."
    assert len(store.rows()) == 1


def test_a_copy_that_cannot_be_reached_is_no_deletion(panel, store):
    def fail():
        raise ValueError("no network")

    like(panel, "a")
    store.push = fail
    person, code, result, *_ = panel._on_delete("a", "a", "en", CALLER)
    assert (person, code) == ("a", "a"), "it cannot be tried again"
    assert "could not be reached yet" in result


def test_both_languages_name_the_limit_and_the_place(panel):
    for language, days in (("bn", "৯০ দিন"), ("en", "90 days")):
        for name in ("question", "terms", "keeps"):
            text = panel._say(name, language)
            assert days in text
            assert WORDS[language]["feedback"]["here"] in text


def test_a_copy_elsewhere_is_named_in_the_question(panel, store):
    store.push = lambda: None
    for language in ("bn", "en"):
        assert WORDS[language]["feedback"]["hub"] in panel._say("question", language)


def keys(words):
    return {name: keys(value) if isinstance(value, dict) else None for name, value in words.items()}


def test_both_languages_have_the_same_words():
    assert keys(WORDS["bn"]) == keys(WORDS["en"])


@pytest.fixture
def address(store):
    """Serves the page of a model that always says the same, and returns its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = ChatPage(OneReply(), store=store)
    yield page.serve("127.0.0.1", port, block=False)
    page.blocks.close()


@pytest.fixture
def demo_run(tmp_path):
    """Returns a trained run beside the database."""
    run = Run(tmp_path / "demo")
    write_json(run / "train/config.json", {"base_model": "embedded"})
    write_jsonl(run / "data/train.jsonl", [{"messages": [{"role": "user", "content": "ভালো?"}]}])
    return run


@pytest.mark.browser
@pytest.mark.parametrize(
    ("language", "light", "width"),
    [("bn", "light", 390), pytest.param("en", "dark", 1280, marks=pytest.mark.slow)],
)
def test_what_a_person_gives_can_be_deleted(browser, address, store, demo_run, language, light, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=light)
    page, errors = context.new_page(), []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(address)
    page.wait_for_selector("#message textarea")
    if language == "en":
        page.click("text=English")
        page.wait_for_selector("text=What I gave")
    page.fill("#message textarea", "মন খারাপ।")
    page.click("#send")
    page.wait_for_selector("text=শুনছি।")
    press_thumb(page, "Dislike")
    assert store.rows() == []
    check(page, width)
    page.click("#agree")
    page.wait_for_selector("#rewritten textarea")
    assert [row["rewritten"] for row in store.rows()] == [""]
    check(page, width)
    page.fill("#rewritten textarea", "কী হয়েছে, বলবেন?")
    page.click("#give")
    page.wait_for_selector("#rewritten textarea", state="hidden")
    (row,) = store.rows()
    assert (row["rewritten"], row["liked"]) == ("কী হয়েছে, বলবেন?", False)
    (preference,) = read_sources(demo_run, ["thumbs"]).items  # what the next training by preferences reads
    assert (preference.chosen, preference.rejected) == ("কী হয়েছে, বলবেন?", "শুনছি।")
    page.click("#given > button")
    page.wait_for_selector("#code textarea")
    assert page.input_value("#code textarea") == row["person"]
    with page.expect_download() as download:
        page.click("#export")
    with open(download.value.path(), encoding="utf-8") as file:
        assert json.load(file) == [row]
    check(page, width)
    page.click("#delete")
    page.wait_for_function("document.querySelector('#code textarea').value === ''")
    assert store.rows() == []
    with pytest.raises(ValueError, match="holds none"):
        read_sources(demo_run, ["thumbs"])
    assert errors == []
    context.close()


def check(page, width):
    """Asserts that the page is accessible and fits its width, once its panels have opened."""
    page.wait_for_timeout(400)
    assert find_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
