"""The chat page in a browser: streaming, stopping, settings, both models, thumbs, care, and many pages at once."""

import concurrent.futures
import contextlib
import socket
import sys
import time
import urllib.request

import pytest
from in_browser import press_thumb

from helpers.inference.chat_page import ChatPage
from helpers.inference.generate import generate_replies
from helpers.inference.loaded_model import LoadedModel
from helpers.inference.serve import serve_chat
from helpers.inference.turns import open_turn, write_reply
from helpers.platforms.errors import Refused
from helpers.runs.experiments import liked_rows
from helpers.runs.feedback import FeedbackStore
from helpers.runs.record import Run

CRISIS = "আমি আর বাঁচতে চাই না।"  # I do not want to live any more


@pytest.fixture(scope="module")
def model(demo):
    return LoadedModel(demo.run)


@pytest.fixture(scope="module")
def store(demo):
    """Returns what keeps the page's thumbs: nothing yet."""
    file = demo.outputs / "chat.db"
    file.unlink(missing_ok=True)
    return FeedbackStore(file)


@pytest.fixture(scope="module")
def address(model, store):
    """Serves the page and returns its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = ChatPage(model, store=store)
    yield page.serve("127.0.0.1", port, block=False)
    page.blocks.close()


@pytest.fixture
def chat(page, address):
    """Returns the page, opened; afterwards no error may have been on its console."""
    page.goto(address)
    page.wait_for_selector("#message textarea")
    yield page
    assert page.errors == []


def send(page, message):
    page.fill("#message textarea", message)
    page.click("#send")


def replies(page):
    return [reply.inner_text() for reply in page.query_selector_all('#talk [data-testid="bot"]')]


def wait_until(page, condition, seconds=40):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"still not so: {page.inner_text('#talk')[-500:]}"
        page.wait_for_timeout(40)


def wait_for_reply(page, number):
    """Waits until the page has so many replies, the last of them complete."""
    wait_until(page, lambda: len(replies(page)) == number and replies(page)[-1] not in ("", "…"))
    page.wait_for_timeout(1500)


def choose(page, setting, value):
    if not page.is_visible(f"#{setting} input[type=number]"):
        page.click("#settings button")
    page.fill(f"#{setting} input[type=number]", str(value))
    page.press(f"#{setting} input[type=number]", "Tab")


def choose_short_replies(page):
    choose(page, "length", 16)
    choose(page, "temperature", 0)


@pytest.mark.browser
def test_the_page_opens_with_the_helplines(chat):
    assert "থেরাপিস্ট" in chat.inner_text("body")
    assert "৯৯৯" in chat.inner_text("body")


@pytest.mark.browser
def test_a_reply_grows_until_it_is_stopped(chat):
    choose(chat, "temperature", 2)  # a random reply seldom ends by itself
    choose(chat, "length", 1024)
    lengths, sent = set(), 0
    while len(lengths) <= 3:
        lengths, sent = set(), sent + 1
        assert sent < 5, "no reply was seen to grow"
        send(chat, "আজ মন খুব খারাপ।")
        with contextlib.suppress(AssertionError):  # it has ended
            wait_until(chat, lambda seen=lengths: seen.update(map(len, replies(chat)[-1:])) or len(seen) > 3, 20)
    chat.click("#stop")
    chat.wait_for_timeout(1500)
    stopped = replies(chat)
    chat.wait_for_timeout(1000)
    assert replies(chat) == stopped, "the reply grows after it was stopped"
    assert len(stopped) == sent
    assert len(stopped[-1]) > 3
    choose_short_replies(chat)
    send(chat, "চাকরিটা চলে গেছে।")
    wait_for_reply(chat, sent + 1)


@pytest.mark.browser
def test_markup_in_a_message_stays_text(chat):
    choose_short_replies(chat)
    send(chat, "চাকরিটা চলে গেছে। <img src=x onerror=alert(1)> ক্ষমা কোরো।")
    wait_for_reply(chat, 1)
    assert chat.locator("#talk .message img").count() == 0
    assert "<img src=x" in chat.inner_text("#talk")


@pytest.mark.browser
def test_a_thumb_keeps_the_base_models_conversation(chat, store):
    choose_short_replies(chat)
    chat.click("#side input[value=base]")
    send(chat, "চাকরিটা চলে গেছে।")
    wait_for_reply(chat, 1)
    press_thumb(chat, "Like")
    chat.click("#agree")
    chat.wait_for_selector("#rewritten textarea")
    (liked,) = liked_rows(store.database)
    assert liked["messages"][-1]["content"] == replies(chat)[0]
    assert [message["role"] for message in liked["messages"][-2:]] == ["user", "assistant"]


@pytest.mark.browser
def test_the_page_speaks_english_too(chat, demo):
    chat.click("text=English")
    chat.wait_for_function("document.body.innerText.includes('no therapist')")
    chat.screenshot(path=str(demo.outputs / "chat.png"), full_page=True)


@pytest.mark.browser
def test_a_reload_forgets_the_conversation(chat, address):
    choose_short_replies(chat)
    send(chat, "চাকরিটা চলে গেছে।")
    wait_for_reply(chat, 1)
    assert chat.errors == []
    chat.goto("about:blank")  # aborts what the page still waits for, whose errors nobody sees
    chat.errors.clear()
    chat.goto(address)
    chat.wait_for_selector("#message textarea")
    assert replies(chat) == []


@pytest.mark.browser
def test_the_page_loads_nothing_from_elsewhere(chat, address):
    chat.wait_for_timeout(1000)
    assert [url for url in chat.asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.browser
def test_the_helplines_do_not_wait_for_another_reply(chat, address, browser, model):
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#message textarea")
    send(other, "একটা লম্বা উত্তর চাই।")
    wait_until(other, lambda: replies(other) and len(replies(other)[0]) > 3)
    began = time.monotonic()
    send(chat, CRISIS)
    wait_until(chat, lambda: replies(chat) and "১৪৪১৬" in replies(chat)[0])
    is_written = model.lock.locked()  # the other reply, which on a slow machine shows more than the seconds do
    assert is_written or time.monotonic() - began < 3, "the helplines waited for another person's reply"
    assert "৯৯৯" in replies(chat)[0]
    assert "কম্পিউটার প্রোগ্রাম" in replies(chat)[0]
    other.click("#stop")
    other.wait_for_timeout(1000)
    other.close()
    assert len(replies(chat)) == 1, "the embedded model speaks in a crisis"


def test_twenty_pages_at_once_get_each_its_own_reply(address, model):
    """Each says something else; greedy replies must be those that the model gives to that message alone."""
    from gradio_client import Client

    asked = [f"{number} নম্বর মানুষ আমি, মন খারাপ। {'খুব ' * (number % 5)}" for number in range(20)]
    conversations = [[*model.system, {"role": "user", "content": message.strip()}] for message in asked]
    alone = generate_replies(model.network, model.tokenizer, conversations, 8, 4)
    clients = [Client(address, verbose=False) for _ in asked]

    def talk(pair):
        client, message = pair
        return client.predict(message, "tuned", 0.0, 1.0, 8, 1, api_name="/reply")

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        began, loads = time.monotonic(), []
        waiting = [pool.submit(talk, pair) for pair in zip(clients, asked)]
        while not all(reply.done() for reply in waiting):
            start = time.monotonic()
            assert urllib.request.urlopen(address, timeout=10).status == 200
            loads.append(time.monotonic() - start)
            time.sleep(0.3)
        answers = [reply.result() for reply in waiting]
    assert answers == [reply["reply"] for reply in alone], "a reply belongs to another conversation"
    assert max(loads, default=0) < 5
    assert time.monotonic() - began < 120


def test_a_model_that_fails_does_not_stay_locked(model, monkeypatch):
    def broken(**_):
        raise RuntimeError("no such kernel")

    entries = open_turn([], "মন খারাপ", "tuned", "bn", True)
    monkeypatch.setattr(model.network, "generate", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        list(write_reply(model, entries, max_new_tokens=8))
    monkeypatch.undo()
    assert list(write_reply(model, entries, max_new_tokens=8))[-1][-1].writing is False


def test_a_run_that_is_not_trained_is_refused(tmp_path):
    with pytest.raises(Refused, match="none/train/config.json is not there"):
        serve_chat(Run(tmp_path / "none"))


def test_a_missing_gradio_is_named(monkeypatch, demo):
    monkeypatch.delitem(sys.modules, "helpers.inference.chat_page")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(Refused, match="pip install 'gradio"):
        serve_chat(demo.run)
