"""What the chat page's public endpoints let a caller ask, with a model that writes until it is stopped."""

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import gradio
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from helpers.inference import limits
from helpers.inference.chat_page import ChatPage, _as_shown
from helpers.inference.feedback_panel import FeedbackPanel
from helpers.inference.limits import RateLimit, Unacceptable, check_decoding, check_message
from helpers.inference.turns import Entry, close_reply, model_messages, open_turn
from helpers.language.care import crisis_answer
from helpers.models.chat import TooLong
from helpers.runs.feedback import FeedbackStore

CRISIS = "আমি আর বাঁচতে চাই না।"  # I do not want to live any more
GOOD = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 1}


class EndlessModel:
    """Writes a word every 20 ms to whoever asks for more than 100 tokens, else one."""

    def __init__(self):
        self.config, self.system, self.run = {"base_model": "embedded"}, [], SimpleNamespace(name="demo")
        self.sides = ("tuned", "base")
        self.asked, self.writing, self.most, self.lock = [], 0, 0, threading.Lock()

    def stream(self, turns, side, **decoding):
        with self.lock:
            self.asked.append((turns, side, decoding))
            self.writing += 1
            self.most = max(self.most, self.writing)
        try:
            for words in range(1, 10_000 if decoding["max_new_tokens"] > 100 else 2):
                time.sleep(0.02)
                yield "শুনছি " * words
        finally:
            with self.lock:
                self.writing -= 1


@pytest.fixture(scope="module")
def served():
    """Serves the page of an endless model, as `address`, and yields it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = ChatPage(EndlessModel())
    served.address = served.serve("127.0.0.1", port, block=False).rstrip("/")
    yield served
    served.blocks.close()


@pytest.fixture
def model(served):
    """Returns the endless model, which nobody has asked yet."""
    wait_until(lambda: not served.model.writing)
    served.model.asked.clear()
    served.model.most = 0
    served.rate = RateLimit()
    return served.model


@pytest.fixture
def address(served, model):
    return served.address


@pytest.fixture
def client(address):
    return Client(address, verbose=False)


def ask(client, message="মন খারাপ", side="tuned", **changes):
    return client.predict(message, side, *(GOOD | changes).values(), api_name="/reply")


def wait_until(condition, seconds=8):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "the model still writes for nobody"
        time.sleep(0.05)


OUT_OF_RANGE = [
    ("max_new_tokens", 10**9),
    ("max_new_tokens", 0),
    ("max_new_tokens", 2.5e3),
    ("temperature", -1),
    ("temperature", float("nan")),
    ("temperature", "hot"),
    ("temperature", None),
    ("top_p", 0),
    ("top_p", 1.1),
    ("seed", 1e300),
    ("seed", []),
]


@pytest.mark.parametrize(("value", "shown"), [("0.7", "'0.7'"), (True, "True"), (None, "None"), ([1], "[1]")])
def test_what_is_no_number_is_called_that(value, shown):
    with pytest.raises(Unacceptable) as refused:
        check_decoding(**GOOD | {"temperature": value})
    assert str(refused.value) == f"temperature is {shown}, which is no number: expected 0.0 to 2.0."


@pytest.mark.parametrize("name", GOOD)
def test_a_truth_value_is_no_setting(name):
    with pytest.raises(Unacceptable, match=f"{name} is True, which is no number"):
        check_decoding(**GOOD | {name: True})


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(Unacceptable, match=f"{name} is .*: expected "):
        check_decoding(**GOOD | {name: value})


def test_settings_in_range_are_passed_on():
    assert check_decoding(**GOOD | {"max_new_tokens": 1024.0}) == GOOD | {"max_new_tokens": 1024}


@pytest.mark.parametrize("message", ["", " \n", None, 5, "ক" * (limits.MESSAGE_CHARACTERS + 1)])
def test_a_message_that_no_prompt_holds_is_refused(message):
    with pytest.raises(Unacceptable, match="the message"):
        check_message(message)


def test_a_caller_may_write_so_often_a_minute(monkeypatch):
    now, rate = [0.0], RateLimit(3)
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for second in (0, 1, 2):
        now[0] = second
        rate.count("a")
    with pytest.raises(Unacceptable, match="3 messages within a minute"):
        rate.count("a")
    rate.count("b")
    now[0] = 60.5
    rate.count("a")


def test_callers_are_forgotten_beyond_a_number(monkeypatch):
    monkeypatch.setattr(limits, "CALLERS", 5)
    rate = RateLimit()
    for number in range(50):
        rate.count(str(number))
    assert list(rate.times) == ["45", "46", "47", "48", "49"]


def test_a_long_conversation_keeps_its_last_messages():
    entries = [Entry(("user", "assistant")[n % 2], f"{n}") for n in range(1000)]
    opened = open_turn(entries, "শেষ কথা", "tuned", "bn", True)
    assert len(opened) == limits.KEPT_ENTRIES + 2
    assert [entry.content for entry in opened[-3:]] == ["999", "শেষ কথা", ""]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 10**9}, "max_new_tokens is 1000000000: expected 1 to 1024"),
        ({"side": "other"}, "side is 'other': expected one of tuned, base"),
        ({"message": "ক" * 10_000}, "the message has 10000 characters, at most 8000 fit"),
        ({"message": ""}, "the message is empty"),
    ],
)
def test_the_endpoint_refuses_without_starting_the_model(client, model, changes, message):
    with pytest.raises(AppError, match=message):
        ask(client, **changes)
    assert model.asked == []


def test_a_reply_has_a_limit_of_tokens_and_of_seconds(client, model):
    assert ask(client).strip() == "শুনছি"
    ((_, _, decoding),) = model.asked
    assert decoding == GOOD | {"seconds": limits.REPLY_SECONDS}


def test_a_caller_who_asks_too_often_waits(client, served, model):
    served.rate = RateLimit(2)
    assert [ask(client).strip() for _ in range(2)] == ["শুনছি"] * 2
    with pytest.raises(AppError, match="2 messages within a minute: wait a little"):
        ask(client)
    assert len(model.asked) == 2
    assert ask(client, CRISIS) == crisis_answer(), "the helplines are for whoever asks"


def test_nobody_reaches_the_model_past_the_queue(address, model):
    for path in ("/gradio_api/run/reply", "/gradio_api/api/reply"):
        data = json.dumps({"data": ["মন খারাপ", "tuned", *GOOD.values()]}).encode()
        request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 404
    assert model.asked == []


def ask_privately(address, page, name, data):
    """Calls an event of the page past its client, and returns the error that it answers with."""
    number = next(number for number, fn in page.blocks.fns.items() if fn.name == name)
    body = json.dumps({"data": data, "fn_index": number, "session_hash": "x" * 10}).encode()
    request = urllib.request.Request(f"{address}/gradio_api/run/predict", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    return json.load(refused.value)["error"]


@pytest.mark.parametrize("language", ["fr", None, ["bn"]])
def test_an_unknown_language_is_refused_in_one_line(served, model, capfd, language):
    error = ask_privately(served.address, served, "_on_send", [CRISIS, None, "tuned", language])
    assert error == f"language is {str(language)!r}: expected one of bn, en."
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_queue_that_is_full_takes_nobody(address, client, served, model, monkeypatch):
    assert served.blocks._queue.max_size == limits.WAITING
    monkeypatch.setattr(served.blocks._queue, "max_size", 2)
    first = client.submit("মন খারাপ", "tuned", *(GOOD | {"max_new_tokens": 1024}).values(), api_name="/reply")
    wait_until(lambda: model.writing)
    waiting = [client.submit("মন খারাপ", "tuned", *GOOD.values(), api_name="/reply") for _ in range(4)]
    wait_until(lambda: sum(job.done() for job in waiting) == 2)
    assert all("Queue is full" in str(job.exception()) for job in waiting if job.done())
    assert model.most == 1, "two replies are written at a time"
    first.cancel()
    wait_until(lambda: all(job.done() for job in waiting), 30)


def test_a_caller_who_leaves_frees_the_model(address, client, model):
    body = json.dumps({"data": ["মন খারাপ", "tuned", *(GOOD | {"max_new_tokens": 1024}).values()]}).encode()
    request = urllib.request.Request(f"{address}/gradio_api/call/reply", body, {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request, timeout=10))["event_id"]
    with urllib.request.urlopen(f"{address}/gradio_api/call/reply/{event}", timeout=10) as stream:
        assert b"event" in stream.readline()
        wait_until(lambda: model.writing)
    wait_until(lambda: not model.writing)
    assert ask(client).strip() == "শুনছি"


def test_a_file_cannot_be_left_on_the_server(address):
    boundary = "x" * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
    body = head.encode() + b"0" * 100_000 + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/upload", body, kind), timeout=10)
    assert refused.value.code == 413


def write(page, message):
    page.fill("#message textarea", message)
    page.click("#send")


@pytest.fixture
def opened(page, address):
    """Returns the page, in English, set to replies that do not end."""
    page.goto(address)
    page.wait_for_selector("#message textarea")
    page.click("#settings button")
    page.fill("#length input[type=number]", "1024")
    page.press("#length input[type=number]", "Tab")
    return page


@pytest.mark.browser
@pytest.mark.parametrize(
    "how", ["stop", "leave", *(pytest.param(how, marks=pytest.mark.slow) for how in ("clear", "reload"))]
)
def test_a_page_that_is_stopped_or_left_frees_the_model(opened, client, model, how):
    write(opened, "মন খারাপ")
    wait_until(lambda: model.writing)
    opened.wait_for_timeout(300)
    if how == "leave":
        opened.close()
    elif how == "reload":
        opened.reload()
    else:
        opened.click(f"#{how}")
    wait_until(lambda: not model.writing)
    assert ask(client).strip() == "শুনছি"


@pytest.mark.parametrize("message", [CRISIS, CRISIS + "ক" * limits.MESSAGE_CHARACTERS])
def test_the_helplines_are_shown_to_whom_the_model_refuses(served, model, message):
    served.rate = RateLimit(0)
    caller = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"))
    shown, entries, panel, left = served._on_send(message, [], "tuned", "en", caller)
    assert [entry.content for entry in entries][:-1] == [crisis_answer("en")]
    assert entries[-1].content.startswith("— ")
    assert len(shown) == 2
    assert panel["visible"], "what to do now is hidden"
    assert left == message, "what was written is lost"


REFUSALS = [
    (lambda: check_message(""), "বার্তা ফাঁকা"),
    (lambda: check_message("ক" * 9000), "৯০০০ অক্ষর: ৮০০০ অক্ষরের মধ্যে"),
    (lambda: check_message("মন", "other"), "নামে কোনো মডেল নেই"),
    (lambda: check_decoding(temperature=5), "মান 5 চলে না: 0.0 থেকে 2.0-এর মধ্যে"),
    (lambda: RateLimit(0).count("a"), "এক মিনিটে ০টির বেশি বার্তা"),
]


@pytest.mark.parametrize(("act", "words"), REFUSALS)
def test_what_is_refused_is_explained_in_bengali(act, words):
    with pytest.raises(Unacceptable) as refused:
        act()
    assert words in refused.value.explain("bn")
    assert not re.search("expected|message|wait", refused.value.explain("bn"))


def test_the_bengali_page_refuses_in_bengali(served, model):
    caller = SimpleNamespace(client=None)
    served.rate = RateLimit(0)
    _, often, _, _ = served._on_send("মন খারাপ", [], "tuned", "bn", caller)
    _, long, _, _ = served._on_send("ক" * 9000, [], "tuned", "bn", caller)
    for entries in (often, long):
        assert not re.search("[a-zA-Z]", entries[-1].content), entries[-1].content


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), TooLong("900 tokens, at most 20 fit")])
def test_a_failure_on_the_bengali_page_is_in_bengali(served, model, monkeypatch, error):
    def fail(*_, **__):
        raise error
        yield

    notices = []
    monkeypatch.setattr(model, "stream", fail)
    monkeypatch.setattr("gradio.Warning", lambda text, title: notices.extend([text, title]))
    opened = open_turn([], "মন খারাপ", "tuned", "bn", True)
    *_, (_, entries) = served._on_opened(opened, "bn", 0.0, 1.0, 8, 1)
    for text in (*notices, entries[-1].content):
        assert not re.search("[a-zA-Z]", text), text
    assert len(notices) == 2


@pytest.mark.parametrize("entries", [[], open_turn([], CRISIS, "tuned", "bn", True, speaks=False)])
def test_a_turn_that_opens_no_reply_leaves_the_page_as_it_is(served, entries):
    """Gradio empties the page, helplines and all, when nothing is yielded."""
    shown = [*served._on_opened(entries, "bn", 0.0, 1.0, 8, 1)]
    assert shown == [(gradio.skip(), gradio.skip())]


def test_a_crisis_message_does_not_wait_for_a_reply_in_writing(served):
    """Neither while it is written nor while it waits for its turn; what it still writes comes too late."""
    waiting = open_turn([], "মন খারাপ", "tuned", "bn", True)
    caller = SimpleNamespace(client=None)
    shown, entries, panel, left = served._on_send(CRISIS, waiting, "tuned", "bn", caller)
    assert crisis_answer("bn").partition("\n")[0] in shown[-1]["content"] + shown[-2]["content"]
    assert (panel["visible"], left) == (True, "")
    assert [*served._on_opened(waiting, "bn", 0.0, 1.0, 8, 1)] == [(gradio.skip(), gradio.skip())]


def test_refused_messages_do_not_end_the_care_of_a_conversation(served):
    caller = SimpleNamespace(client=None)
    entries = served._on_send(CRISIS, [], "tuned", "bn", caller)[1]
    served.rate = RateLimit(0)
    for _ in range(2 * limits.KEPT_ENTRIES):
        _, entries, panel, _ = served._on_send("মন খারাপ", close_reply(entries), "tuned", "bn", caller)
    assert panel["visible"] is True


def test_both_languages_of_the_page_have_the_same_keys():
    def shape(words):
        parts = {key: text if isinstance(text, dict) else {"": text} for key, text in words.items()}
        return {
            (a, b, *sorted(re.findall("{.*?}", str(text)))) for a, texts in parts.items() for b, text in texts.items()
        }

    assert shape(limits.WORDS["bn"]) == shape(limits.WORDS["en"])


@pytest.mark.parametrize(("writing", "shown"), [(True, "…"), (False, "—")])
def test_only_a_reply_that_is_written_has_dots(writing, shown):
    assert _as_shown([Entry("assistant", "", "reply", writing=writing)])[0]["content"] == shown


def test_bytes_that_are_no_character_are_not_shown(served, model):
    shown = _as_shown([Entry("assistant", "শুনছি \ufffdআমি", "reply")])
    assert shown[0]["content"] == "শুনছি আমি"


@pytest.mark.parametrize("kept", [True, False])
def test_the_page_says_in_one_sentence_what_it_keeps(served, kept, tmp_path):
    page = ChatPage.__new__(ChatPage)
    page.model, page.with_care = served.model, True
    page.feedback = FeedbackPanel(FeedbackStore(tmp_path / "none.db"), "demo", [], True) if kept else None
    assert ("only a thumb keeps that conversation, once you agree" in page._about("en")) == kept
    assert ("keeps nothing" in page._about("en")) != kept


@pytest.mark.browser
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)])
def test_the_first_screen_has_the_talk_and_the_box(page, address, model, size):
    page.set_viewport_size(dict(zip(("width", "height"), size)))
    page.goto(address)
    page.wait_for_selector("#message textarea")
    write(page, "মন খারাপ")
    page.wait_for_selector('#talk [data-testid="bot"]')
    for part in ("#talk", "#message textarea", "#send", "#stop"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= size[1], f"{part} is below the first screen"
        assert box["x"] + box["width"] <= size[0], part
    assert page.locator("#help > button").bounding_box()["height"] < 60, "the helplines take more than one line"
    assert not page.locator("#help").get_by_text("১৪৪১৬").is_visible()
    page.click("#help > button")
    page.wait_for_timeout(600)
    assert page.locator("#help").get_by_text("১৪৪১৬").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390])
def test_the_title_is_not_cut_on_a_phone(page, address, width):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(address)
    page.wait_for_selector("#top h1")
    page.evaluate("document.querySelector('#top h1').textContent += ' সহানুভূতি'")
    parts = "[document.querySelector('#top h1'), document.querySelector('#top').firstElementChild]"
    assert page.evaluate(f"{parts}.map(e => e.scrollWidth - e.clientWidth)") == [0, 0], "the title is cut"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_an_empty_conversation_leaves_no_gap_on_a_phone(page, address):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    page.wait_for_selector("#message textarea")
    page.wait_for_selector("#talk .placeholder")
    assert page.locator("#talk").bounding_box()["height"] < 200
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_refused_message_is_no_turn(served, model):
    served.rate = RateLimit(0)
    caller = SimpleNamespace(client=None)
    shown, entries, _, _ = served._on_send("মন খারাপ", [], "tuned", "en", caller)
    assert shown[0]["content"] == "— 0 messages within a minute: wait a little."
    assert model_messages(entries) == []
