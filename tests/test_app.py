"""The chat page in a browser: streaming, stopping, settings, both models, thumbs, care, and many pages at once."""

import concurrent.futures
import re
import time

import pytest

from helpers import app, care, chat, env, experiments, generate


@pytest.fixture(scope="module")
def talker(demo):
    return app.Talker(demo.run)


@pytest.fixture(scope="module")
def address(talker, demo):
    """Serves the page and returns its address."""
    log = demo.outputs / "chat.db"
    log.unlink(missing_ok=True)
    page = app.build(talker, log=log)
    _, url, _ = app.serve(page, "127.0.0.1", 0 or _free_port(), block=False)
    yield url
    page.close()


def _free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(page, message):
    page.fill("#message textarea", message)
    page.click("#send")


def replies(page):
    return [one.inner_text() for one in page.query_selector_all('#talk [data-testid="bot"]')]


def until(page, is_so, seconds=40):
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends, f"still not so: {page.inner_text('#talk')[-500:]}"
        page.wait_for_timeout(40)


def choose(page, setting, value):
    page.fill(f"#{setting} input[type=number]", str(value))
    page.press(f"#{setting} input[type=number]", "Tab")


def test_a_conversation_in_a_browser(page, address, demo):
    page.goto(address)
    page.wait_for_selector("#message textarea")
    assert "থেরাপিস্ট" in page.inner_text("body") and "৯৯৯" in page.inner_text("body")
    page.click("#settings button")
    choose(page, "temperature", 2)  # a random reply does not end by itself
    choose(page, "length", 1024)
    say(page, "আজ মন খুব খারাপ।")
    seen = set()
    until(page, lambda: seen.update(map(len, replies(page))) or len(seen) > 3)  # it grows as it is written
    page.click("#stop")
    page.wait_for_timeout(1500)
    stopped = replies(page)
    page.wait_for_timeout(1000)
    assert replies(page) == stopped and len(stopped) == 1 and len(stopped[0]) > 3, "stop did not stop it"

    choose(page, "length", 16)
    choose(page, "temperature", 0)
    say(page, "চাকরিটা চলে গেছে। <img src=x onerror=alert(1)> ক্ষমা কোরো।")
    until(page, lambda: len(replies(page)) == 2 and len(replies(page)[1]) > 3)
    page.wait_for_timeout(1500)
    assert page.locator("#talk .message img").count() == 0 and "<img src=x" in page.inner_text("#talk")
    page.click("#side input[value=base]")
    say(page, "চাকরিটা চলে গেছে।")
    until(page, lambda: len(replies(page)) == 3 and replies(page)[2] not in ("", "…"))
    page.wait_for_timeout(1500)

    page.locator('#talk button[aria-label="Like"], #talk button[title="Like"]').last.click()
    page.wait_for_timeout(800)
    liked = experiments.liked_rows(demo.outputs / "chat.db")
    assert len(liked) == 1 and liked[0]["messages"][-1]["content"] == replies(page)[2]
    assert [one["role"] for one in liked[0]["messages"][-2:]] == ["user", "assistant"]

    page.click("text=English")
    page.wait_for_function("document.body.innerText.includes('no therapist')")
    page.screenshot(path=str(demo.outputs / "chat.png"), full_page=True)
    page.reload()
    page.wait_for_selector("#message textarea")
    assert replies(page) == []
    assert page.said == [], page.said
    elsewhere = [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == [], f"the page asks for {elsewhere}"


def test_a_crisis_is_met_with_the_numbers_before_any_reply_even_while_another_reply_is_written(page, address, browser):
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#message textarea")
    page.goto(address)
    page.wait_for_selector("#message textarea")
    say(other, "একটা লম্বা উত্তর চাই।")
    until(other, lambda: replies(other) and len(replies(other)[0]) > 3)
    began = time.monotonic()
    say(page, "আমি আর বাঁচতে চাই না।")
    until(page, lambda: replies(page) and "১৪৪১৬" in replies(page)[0])
    assert time.monotonic() - began < 3, "the numbers waited for another person's reply"
    assert "৯৯৯" in replies(page)[0] and "কম্পিউটার প্রোগ্রাম" in replies(page)[0]
    other.click("#stop")
    until(page, lambda: len(replies(page)) == 2 and len(replies(page)[1]) > 3)
    page.click("#stop")
    page.wait_for_timeout(1000)
    other.close()
    assert page.said == []


def test_twenty_pages_at_once_get_each_its_own_reply(address, talker):
    """Each says something else; greedy replies must be those that the model gives to that message alone."""
    from gradio_client import Client

    asked = [f"{number} নম্বর মানুষ আমি, মন খারাপ। {'খুব ' * (number % 5)}" for number in range(20)]
    alone = generate.replies(
        talker.model,
        talker.tokenizer,
        [[*talker.system, {"role": "user", "content": one.strip()}] for one in asked],
        8,
        4,
    )
    clients = [Client(address, verbose=False) for _ in asked]

    def talk(pair):
        client, message = pair
        return client.predict(message, "tuned", 0.0, 1.0, 8, 1, api_name="/reply")

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        began = time.monotonic()
        waiting = [pool.submit(talk, pair) for pair in zip(clients, asked)]
        import urllib.request

        loads = []
        while not all(one.done() for one in waiting):
            start = time.monotonic()
            assert urllib.request.urlopen(address, timeout=10).status == 200
            loads.append(time.monotonic() - start)
            time.sleep(0.3)
        found = [one.result() for one in waiting]
    assert found == [one["reply"] for one in alone], "a reply belongs to another conversation"
    assert max(loads, default=0) < 5 and time.monotonic() - began < 120


def test_streaming_and_one_by_one_and_batched_give_the_same_greedy_reply(talker):
    asked = [
        [*talker.system, {"role": "user", "content": one}] for one in ("মন খারাপ।", "পরীক্ষায় ফেল করেছি।", "ঘুম আসে না।")
    ]
    batched = [one["reply"] for one in generate.replies(talker.model, talker.tokenizer, asked, 32, 3)]
    alone = [generate.replies(talker.model, talker.tokenizer, [one], 32, 1)[0]["reply"] for one in asked]
    streamed = [list(generate.stream(talker.model, talker.tokenizer, one, 32)) for one in asked]
    assert batched == alone == [parts[-1] for parts in streamed]
    assert all(len(parts) > 3 for parts in streamed)
    for parts in streamed:
        assert all(after.startswith(before.rstrip("\ufffd")) for before, after in zip(parts, parts[1:]))


def test_a_stream_ends_when_it_is_closed_and_raises_what_the_model_raises(talker, monkeypatch):
    stream = generate.stream(talker.model, talker.tokenizer, "মন", 400)
    next(stream)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 5

    def broken(**_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(talker.model, "generate", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        list(generate.stream(talker.model, talker.tokenizer, "মন", 8))
    shown = app.opened([], "মন খারাপ", "tuned", "bn", True)
    with pytest.raises(RuntimeError):
        list(app.written(talker, shown, max_new_tokens=8))
    monkeypatch.undo()
    assert list(app.written(talker, shown, max_new_tokens=8))[-1][-1]["writing"] is False, "the model stayed locked"


def test_old_turns_are_dropped_whole_and_a_message_that_is_too_long_is_refused(tokenizer):
    system = [{"role": "system", "content": "সহানুভূতি"}]
    turns = [{"role": role, "content": f"{n} কথা " * 10} for n in range(6) for role in ("user", "assistant")]
    messages = [*system, *turns, {"role": "user", "content": "শেষ কথা"}]
    whole = len(chat.encode_prompt(tokenizer, messages))
    assert chat.fit(tokenizer, messages, whole) == messages
    fitted = chat.fit(tokenizer, messages, whole // 2)
    assert len(chat.encode_prompt(tokenizer, fitted)) <= whole // 2
    assert fitted[0] == system[0] and fitted[1]["role"] == "user" and fitted[-1] == messages[-1]
    assert messages[-len(fitted) + 1 :] == fitted[1:]
    with pytest.raises(ValueError, match="tokens, at most 20 fit"):
        chat.fit(tokenizer, messages, 20)


def test_care_can_be_switched_off_only_by_the_explicit_setting_and_its_words_are_not_read_by_the_model():
    said = app.opened([], "আমি আর বাঁচতে চাই না।", "tuned", "bn", True)
    assert [one["kind"] for one in said] == ["", "care", "reply"] and said[1]["content"] == care.answer()
    assert [one["role"] for one in app.turns_of(said[:-1])] == ["user"]
    assert [one["kind"] for one in app.opened([], "আমি আর বাঁচতে চাই না।", "tuned", "bn", False)] == ["", "reply"]
    assert app.opened(said, "আরও কিছু", "tuned", "bn", True) is said, "a second message while a reply is written"
    done = app.closed([*said[:-1], {**said[-1], "content": "শুনছি।"}])
    assert [one["role"] for one in app.turns_of(done)] == ["user", "assistant"]
    assert app.turns_of(app.closed(said)) == [], "a reply that was stopped before it began is no turn"


def test_the_page_says_what_is_missing(tmp_path, capsys):
    assert app.main(["--run", str(tmp_path / "none")]) == 2
    assert re.search(r"none/train/config.json is not there", capsys.readouterr().err)
    assert env.platform() == "local"
