"""A conversation in which somebody speaks of a crisis: what the model may add, and what stands on the page."""

import socket
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import regex

from helpers.inference.chat_page import ChatPage
from helpers.inference.crisis_panel import panel_html
from helpers.inference.limits import WORDS
from helpers.inference.turns import (
    Entry,
    close_reply,
    may_be_shown,
    model_messages,
    open_turn,
    speaks_of_crisis,
    stop_reply,
    write_reply,
)
from helpers.language.bengali import bengali_share, latin_digits
from helpers.language.care import crisis_answer
from helpers.language.hotlines import HELPLINES

CRISIS = "আমি আর বাঁচতে চাই না।"  # I do not want to live any more
LATER = "আজ অফিসে অনেক কাজ ছিল।"  # There was much work at the office today
GOOD = "আপনার পাশে আছি। এখনই ৯৯৯ নম্বরে ফোন করুন।"  # I am with you. Call 999 now
KIND = "আমি শুনছি, আরও বলুন।"  # I am listening, tell me more: no referral
BAD = "সব আপনার দোষ, ডাক্তার দেখান।"  # It is all your fault, see a doctor


class Model:
    """Writes `reply` word by word, one every `pause` seconds."""

    pause = 0.0
    sides = ("tuned", "base")

    def __init__(self, reply, base_model="meta-llama/Llama-3.1-8B-Instruct"):
        self.reply, self.config, self.system = reply, {"base_model": base_model}, []
        self.run, self.asked = SimpleNamespace(name="demo"), []

    def stream(self, turns, side, **decoding):
        self.asked.append(turns)
        for end in range(1, len(words := self.reply.split()) + 1):
            time.sleep(self.pause)
            yield " ".join(words[:end])


def talk(model, *messages, speaks=True):
    """Returns all that was on the page, one list of entries per change, as the person writes the messages."""
    states = [[]]
    for message in messages:
        states.append(open_turn(states[-1], message, "tuned", "bn", True, speaks))
        states += write_reply(model, states[-1])
    return states


def test_a_crisis_gets_the_helplines_before_the_reply():
    entries = open_turn([], CRISIS, "tuned", "bn", True)
    assert [entry.kind for entry in entries] == ["", "care", "reply"]
    assert entries[1].content == crisis_answer()


def test_care_is_switched_off_by_its_setting_alone():
    entries = open_turn([], CRISIS, "tuned", "bn", False)
    assert [entry.kind for entry in entries] == ["", "reply"]
    assert not speaks_of_crisis(entries)


def test_the_model_does_not_read_the_helplines():
    entries = open_turn([], CRISIS, "tuned", "bn", True)
    assert [message["role"] for message in model_messages(entries[:-1])] == ["user"]
    answered = close_reply([*entries[:-1], Entry("assistant", "শুনছি।", "reply")])
    assert [message["role"] for message in model_messages(answered)] == ["user", "assistant"]


def test_a_reply_stopped_before_it_began_is_no_turn():
    assert model_messages(close_reply(open_turn([], CRISIS, "tuned", "bn", True))) == []


def test_no_second_message_is_taken_while_a_reply_is_written():
    entries = open_turn([], CRISIS, "tuned", "bn", True)
    assert open_turn(entries, "আরও কিছু", "tuned", "bn", True) is entries


def test_a_reply_in_a_crisis_is_shown_complete_or_not_at_all():
    *states, last = talk(Model(GOOD), CRISIS)
    assert {state[-1].content for state in states[1:]} == {""}
    assert (last[-1].content, last[-1].kind) == (GOOD, "reply")


@pytest.mark.parametrize("reply", [KIND, BAD, "৯১১ নম্বরে ফোন করুন, ডাক্তার দেখান।", " "])
def test_a_reply_that_fails_in_a_crisis_is_never_shown(reply):
    states = talk(Model(reply), CRISIS)
    assert reply not in [entry.content for state in states for entry in state]
    assert (states[-1][-1].content, states[-1][-1].kind) == (WORDS["bn"]["held"], "care")


def test_later_replies_need_no_referral():
    assert talk(Model(KIND), CRISIS, LATER)[-1][-1].content == KIND


def test_later_replies_are_held_back_until_they_are_safe():
    states = talk(Model(BAD), CRISIS, LATER)
    assert BAD not in [entry.content for state in states for entry in state]
    assert states[-1][-1].content == WORDS["bn"]["held"]


def test_without_a_crisis_a_reply_grows():
    assert [state[-1].content for state in talk(Model("এক দুই"), LATER)[2:]] == ["এক", "এক দুই", "এক দুই"]


def test_a_long_conversation_does_not_forget_the_crisis():
    entries = talk(Model(KIND), CRISIS, *[LATER] * 40)[-1]
    assert all(entry.content != CRISIS for entry in entries)
    assert speaks_of_crisis(entries)


def test_the_embedded_model_never_speaks_after_a_crisis():
    model = Model(GOOD, "embedded")
    entries = talk(model, CRISIS, LATER, CRISIS, speaks=ChatPage(model).speaks)[-1]
    assert model.asked == []
    contents = [entry.content for entry in entries if entry.role == "assistant"]
    assert contents == [crisis_answer(), WORDS["bn"]["silent"], crisis_answer()]


def test_messages_without_a_reply_between_are_one():
    """Some chat templates raise an error for two messages of a person in a row."""
    model = Model(KIND)
    talk(model, CRISIS, LATER)
    assert model.asked[-1] == [{"role": "user", "content": f"{CRISIS}\n{LATER}"}]


def test_a_reply_stopped_in_a_crisis_leaves_the_fixed_message():
    entries = open_turn([], CRISIS, "tuned", "bn", True)
    stopped = stop_reply(entries, "bn")
    assert [entry.content for entry in stopped] == [CRISIS, crisis_answer()]
    assert open_turn(stopped, LATER, "tuned", "bn", True)[-1].writing, "the conversation is closed"


def test_a_later_reply_that_is_stopped_ends_in_the_fixed_message():
    entries = open_turn(talk(Model(GOOD), CRISIS)[-1], LATER, "tuned", "bn", True)
    stopped = stop_reply(entries, "en")
    assert [entry.content for entry in stopped[-2:]] == [LATER, crisis_answer("en")]
    assert speaks_of_crisis(stopped)
    assert model_messages(stopped)[-1]["content"] == LATER


def test_a_reply_stopped_without_a_crisis_is_kept():
    entries = open_turn([], LATER, "tuned", "bn", True)
    started = [*entries[:-1], replace(entries[-1], content="এক")]
    assert stop_reply(started, "bn")[-1].content == "এক"
    assert stop_reply([], "bn") == []


@pytest.mark.parametrize("language", ["bn", "en"])
@pytest.mark.parametrize("kind", ["calls", "sites"])
def test_a_tap_calls_a_number_or_opens_a_site(language, kind):
    panel = regex.search(rf'<ul class="{kind}".*?</ul>', panel_html(language)).group()
    numbers = [number for line in HELPLINES if (number := latin_digits(line["number"])).isdigit() == (kind == "calls")]
    assert numbers
    prefix = "tel:" if kind == "calls" else "https://"
    assert regex.findall(r'href="([^"]*)"', panel) == [prefix + number for number in numbers]
    assert f'<h3 id="now-{kind}">{WORDS[language]["now"][kind]}</h3>' in panel_html(language)


@pytest.mark.parametrize("line", HELPLINES, ids=lambda line: line["name_en"])
def test_each_helpline_on_the_panel_says_when_it_answers(line):
    assert line["hours"] in panel_html("bn")
    assert line["hours_en"] in panel_html("en")


def test_the_panel_is_in_the_language_of_the_page():
    text = regex.sub(r"<[^>]*>", "", panel_html("bn"))
    assert bengali_share(text) > 0.9
    assert bengali_share(panel_html("en")) == 0


@pytest.fixture(scope="module")
def served():
    """Serves the page of a model that writes what its `reply` says; yields both, the page with its `address`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = ChatPage(Model(GOOD))
    page.address = page.serve("127.0.0.1", port, block=False)
    yield page
    page.blocks.close()


@pytest.fixture
def phone(page, served):
    """Returns the page, opened on a phone's width; afterwards no error may have been on its console."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(served.address)
    page.wait_for_selector("#message textarea")
    yield page
    assert page.errors == []


def write(page, message, replies):
    """Sends a message and waits until the page has so many messages of the assistant, the last one complete."""
    page.fill("#message textarea", message)
    page.click("#send")
    done = "number => { const bots = [...document.querySelectorAll('#talk [data-testid=bot]')];"
    done += " return bots.length === number && !['', '…'].includes(bots.at(-1).innerText.trim()) }"
    page.wait_for_function(done, arg=replies)
    page.wait_for_timeout(500)


@pytest.mark.browser
def test_a_crisis_on_a_phone_shows_what_to_do_now(phone, served):
    served.model.reply = GOOD
    assert phone.locator("#now section").count() == 0
    write(phone, CRISIS, 2)
    assert phone.is_visible("#now .steps")
    assert phone.is_visible('#now a[href="tel:999"]')
    assert GOOD in phone.inner_text("#talk")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways"
    heights = phone.evaluate("[...document.querySelectorAll('#now a')].map(link => link.offsetHeight)")
    assert min(heights) >= 44, "too small for a thumb"
    phone.click("text=English")
    phone.wait_for_function("document.querySelector('#now').innerText.includes('What you can do now')")


@pytest.mark.browser
def test_a_bad_reply_in_a_crisis_is_not_on_the_page(phone, served):
    served.model.reply = BAD
    write(phone, CRISIS, 2)
    assert "দোষ" not in phone.inner_text("#talk")
    assert WORDS["bn"]["held"] in phone.inner_text("#talk")
    write(phone, LATER, 3)
    assert "দোষ" not in phone.inner_text("#talk")
    assert phone.is_visible("#now .steps"), "the helplines are gone while the conversation is open"
    phone.click("#clear")
    phone.wait_for_selector("#now section", state="detached")


@pytest.mark.browser
def test_a_stopped_reply_in_a_crisis_shows_no_dots(phone, served, monkeypatch):
    monkeypatch.setattr(served.model, "pause", 0.2, raising=False)
    served.model.reply = "শুনছি " * 60
    phone.fill("#message textarea", CRISIS)
    phone.click("#send")
    phone.wait_for_function("document.querySelector('#talk').innerText.includes('…')")
    phone.wait_for_timeout(600)
    phone.click("#stop")
    phone.wait_for_function("!document.querySelector('#talk').innerText.includes('…')")
    phone.wait_for_timeout(1500)
    last = phone.locator("#talk [data-testid=bot]").last.inner_text()
    assert last.split() == crisis_answer().split()
    assert phone.is_visible("#now .steps"), "the helplines are gone"
    monkeypatch.setattr(served.model, "pause", 0.0)
    served.model.reply = KIND
    write(phone, LATER, 2)
    assert KIND in phone.inner_text("#talk")


@pytest.mark.browser
def test_the_panel_is_accessible(phone, served):
    from axe_playwright_python.sync_playwright import Axe

    served.model.reply = GOOD
    write(phone, CRISIS, 2)
    violations = Axe().run(phone, context="#now").response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in violations] == []


@pytest.mark.parametrize("care", ["crisis", "after"])
@pytest.mark.parametrize(
    "reply",
    [
        "মরে যাওয়াই ভালো, বেঁচে থেকে লাভ নেই। ডাক্তার কিছু করতে পারবে না।",
        "ছাদ থেকে লাফ দিয়ে মরে যান। পুলিশ জানবে না।",
        "You should kill yourself, call 999.",
        "ডাক্তারের কাছে যাওয়ার কোনো দরকার নেই, বরং সব শেষ করে",
        "",
    ],
)
def test_a_referral_alone_lets_no_bad_reply_through(reply, care):
    """Encouragement, another language, and what was cut in the middle of a sentence."""
    assert not may_be_shown(reply, care)


@pytest.mark.parametrize("care", ["crisis", "after"])
def test_a_kind_reply_with_a_referral_may_be_shown(care):
    assert may_be_shown("আপনি একা নন। আপনার কথা শুনছি। এখনই ৯৯৯ নম্বরে ফোন করুন।", care)
