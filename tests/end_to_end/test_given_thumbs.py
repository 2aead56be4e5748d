"""What people give on the chat page of a run becomes the data of its next training, unless they delete it before."""

import json
import shutil
import socket
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from in_browser import press_thumb

from helpers.inference.chat_page import ChatPage
from helpers.inference.loaded_model import LoadedModel
from helpers.preference.gather import FEWEST_PROMPTS
from helpers.runs.feedback import FeedbackStore, Thumb
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run

RATHER = "কী হয়েছিল সেদিন, একটু খুলে বলবেন? আমি মন দিয়ে শুনছি।"  # What happened that day? I am listening.
WITHDRAWN = "ওই কথাটা শুনে আপনার নিশ্চয়ই খুব খারাপ লেগেছে, আমি বুঝতে পারছি।"  # It must have hurt to hear that.
QUESTION = "ছোটবেলার বন্ধুটা হঠাৎ দূরের শহরে চলে গেল, আমার বিকেলগুলো খালি হয়ে গেছে।"  # A friend has moved away.
OTHER_QUESTION = "অফিসের সবার সামনে আমাকে নিয়ে হাসাহাসি হলো, কাল আবার যেতে ইচ্ছে করছে না।"  # They laughed at me.


@contextmanager
def served(run, store):
    """Serves the chat page of a run's models and gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = ChatPage(LoadedModel(run), store=store)
    try:
        yield page.serve("127.0.0.1", port, block=False)
    finally:
        page.blocks.close()


def give(page, address, question, rather):
    """Asks the page, dislikes its reply, agrees, writes what one would rather have read; returns reply and code."""
    page.goto(address)
    page.fill("#message textarea", question)
    page.click("#send")
    press_thumb(page, "Dislike")
    page.click("#agree")
    page.fill("#rewritten textarea", rather)
    page.click("#give")
    page.wait_for_selector("#rewritten textarea", state="hidden")
    page.click("#given > button")
    return page.locator('#talk [data-testid="bot"]').last.inner_text(), page.input_value("#code textarea")


def shown(text):
    """Returns what a browser shows of a reply: nothing for a broken character of a model this small."""
    return text.replace("\ufffd", "").strip()


def delete(page):
    page.click("#delete")
    page.wait_for_function("document.querySelector('#code textarea').value === ''")


def plant_thumbs(store, run):
    """Keeps thumbs of as many people as a training asks for at least, and a few more."""
    for row in read_jsonl(run / "data/train.jsonl")[: FEWEST_PROMPTS + 8]:
        *turns, answer = row["messages"]
        first = answer["content"].split("।")[0].strip() + "।"
        rewritten = answer["content"] + " আর কী হয়েছিল, একটু বলবেন?"
        reply = {"role": "assistant", "content": first}
        store.keep(Thumb(run.name, "tuned", [*turns, reply], False, {}, rewritten), f"person of {row['id']}")


def files_with(folder, text):
    """Returns the files below a folder that hold a text, as it is or as JSON escapes it."""
    forms = [text.encode(), json.dumps(text)[1:-1].encode()]
    return [file for file in Path(folder).rglob("*") if file.is_file() and any(f in file.read_bytes() for f in forms)]


@pytest.mark.slow
@pytest.mark.browser
def test_a_thumb_is_trained_on_unless_it_was_deleted(demo, suite, browser, tmp_path):
    run, store = Run(tmp_path / "demo"), FeedbackStore(tmp_path / "experiments.db")
    shutil.copytree(demo.run, run.folder)
    plant_thumbs(store, run)
    with served(run, store) as address:
        with closing(browser.new_context()) as context:
            reply, code = give(context.new_page(), address, QUESTION, RATHER)
        with closing(browser.new_context()) as context:
            page = context.new_page()
            _, other_code = give(page, address, OTHER_QUESTION, WITHDRAWN)
            assert files_with(tmp_path, WITHDRAWN) == [store.database], "it was not kept: its deletion shows nothing"
            delete(page)
    done = suite("--preset", "demo", "--outputs", tmp_path, "--stages", "prefer")
    assert done.returncode == 0, done.output
    (row,) = [row for row in read_jsonl(run / "prefer/pairs.jsonl") if row["prompt"][-1]["content"] == QUESTION]
    assert (row["chosen"], row["source"]) == (RATHER, "thumbs")
    assert shown(row["rejected"]) == shown(reply)
    facts = run.metrics("prefer")
    assert facts["status"] == "finished"
    assert facts["train"] + facts["val"] == facts["rows_out"] == FEWEST_PROMPTS + 9
    assert files_with(tmp_path, OTHER_QUESTION) == files_with(tmp_path, WITHDRAWN) == []
    assert files_with(tmp_path, other_code) == []
    assert files_with(run.folder, code) == [], "a person's code stands in the run"
