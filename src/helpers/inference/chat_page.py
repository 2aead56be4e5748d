"""The chat page.

One model answers one message after the other; further messages wait in a queue and pages load meanwhile. A message that
speaks of self-harm or violence is answered with local crisis helplines first, unless care is switched off; turns.py has
what the model may add. Whatever comes from a caller passes helpers.inference.limits before the model is started.
"""

import contextlib
import html
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio
from gradio.events import api
from gradio.themes import Default

from helpers.inference.crisis_panel import panel_html
from helpers.inference.feedback_panel import FeedbackPanel
from helpers.inference.limits import (
    KEPT_ENTRIES,
    MESSAGE_CHARACTERS,
    RANGES,
    REPLY_SECONDS,
    WAITING,
    WORDS,
    RateLimit,
    Unacceptable,
    check_decoding,
    check_message,
    refusal,
)
from helpers.inference.loaded_model import LoadedModel
from helpers.inference.turns import (
    Entry,
    fixed_answer,
    open_turn,
    speaks_of_crisis,
    stop_reply,
    write_reply,
)
from helpers.language.bengali import latin_digits
from helpers.language.care import crisis_answer, detect_crisis
from helpers.language.hotlines import HELPLINES
from helpers.models.chat import TooLong
from helpers.runs.feedback import FeedbackStore

CSS = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
# The ink, paper and link of the report's pages, light and dark
LOOK = {
    "body_background_fill": "#ffffff",
    "body_background_fill_dark": "#16181a",
    "body_text_color": "#1b1b1b",
    "body_text_color_dark": "#e8e8e8",
    "background_fill_primary": "#ffffff",
    "background_fill_primary_dark": "#16181a",
    "block_background_fill": "#ffffff",
    "block_background_fill_dark": "#16181a",
    "button_primary_background_fill": "#0058a3",
    "button_primary_background_fill_dark": "#0058a3",
    "button_primary_background_fill_hover": "#00437d",
    "button_primary_background_fill_hover_dark": "#00437d",
    "button_primary_text_color": "#ffffff",
    "input_placeholder_color": "#6b6b6b",
    "input_placeholder_color_dark": "#a8a8a8",
    "block_info_text_color": "#595959",
    "block_info_text_color_dark": "#b8b8b8",
    "color_accent": "#0058a3",
    "color_accent_soft": "#eaf2fa",
    "color_accent_soft_dark": "#22384d",
    "border_color_accent_subdued": "#bcd6ee",
    "border_color_accent_subdued_dark": "#3a5a78",
}
logger = logging.getLogger(__name__)

Options = dict[str, Any]  # of a gradio component or event


def _choice(choices: list[tuple[str, str]], **options: Any) -> gradio.Radio:
    """Returns a choice that refuses any other value, and none, in one line instead of a traceback in the log."""
    radio, known = gradio.Radio(choices, **options), [value for _, value in choices]

    def check(payload: Any) -> str:
        if payload not in known:
            reason = f"{options['elem_id']} is {str(payload)[:40]!r}: expected one of {', '.join(known)}."
            raise gradio.Error(reason, print_exception=False)
        return payload

    radio.preprocess = check  # of a subclass gradio would write a .pyi beside this file
    return radio


class ChatPage:
    """The page of a run's model. `store` keeps the thumbs of those who agree; without it there are none."""

    def __init__(self, model: LoadedModel, with_care: bool = True, store: FeedbackStore | None = None) -> None:
        self.model, self.with_care, self.store = model, with_care, store
        self.feedback = FeedbackPanel(store, model.run.name, model.system, with_care) if store else None
        self.speaks = model.config["base_model"] != "embedded"  # in a crisis
        self.stopped: set[str] = set()  # ids of replies that were stopped: what they still write comes too late
        with gradio.Blocks(title="Sahanubhuti · সহানুভূতি", analytics_enabled=False, fill_height=True) as self.blocks:
            self._lay_out("bn")
            self._connect_events()
        self.rate = RateLimit()
        self.blocks.queue(max_size=WAITING, api_open=False)  # no way to the model but the queue

    def serve(self, host: str, port: int, block: bool = True) -> str:
        """Serves the page and returns its address; fonts are the reader's own, nothing is loaded from elsewhere."""
        if self.store:
            self.store.delete_daily()
        fonts = ["system-ui", "Noto Sans", "Noto Sans Bengali", "sans-serif"]
        theme = Default(font=fonts, font_mono=["monospace"]).set(**LOOK)
        waiting: Options = {"quiet": not block, "prevent_thread_lock": not block}
        look: Options = {"theme": theme, "css": CSS, "footer_links": [], "ssr_mode": False, "max_file_size": 1}
        return self.blocks.launch(server_name=host, server_port=port, **look, **waiting)[1]

    def _lay_out(self, language: str) -> None:
        words = WORDS[language]
        languages = [("বাংলা", "bn"), ("English", "en")]
        with gradio.Row(elem_id="top"):
            self.title = gradio.Markdown(f"# {words['title']}")
            self.language = _choice(languages, value=language, show_label=False, container=False, elem_id="language")
        with gradio.Accordion(_urgent(language), open=False, elem_id="help") as self.help:
            self.helplines = gradio.Markdown(_helplines(language))
        self.entries = gradio.State([])
        with gradio.Row(elem_id="page"):
            with gradio.Column(scale=3, min_width=320, elem_id="conversation"):
                self._lay_out_conversation(words)
            with gradio.Column(scale=1, min_width=260, elem_id="aside"):
                self._lay_out_settings(words)

    def _lay_out_conversation(self, words: dict[str, Any]) -> None:
        as_text: Options = {
            "render_markdown": False,
            "sanitize_html": True,
            "allow_tags": False,
            "latex_delimiters": [],
        }
        look: Options = {"show_label": False, "height": None, "buttons": ["copy"], "group_consecutive_messages": False}
        self.chat = gradio.Chatbot(elem_id="talk", placeholder=words["empty"], **look, **as_text)
        if self.feedback:
            self.feedback.lay_out("bn")
        self.now = gradio.HTML(panel_html("bn"), visible=False, padding=False, elem_id="now")
        look = {"label": words["message"], "show_label": False, "placeholder": words["message"], "container": False}
        with gradio.Row(elem_id="write"):
            self.message = gradio.Textbox(elem_id="message", scale=4, max_length=MESSAGE_CHARACTERS, **look)
            self.send = gradio.Button(words["send"], variant="primary", elem_id="send", scale=0, min_width=88)
        with gradio.Row(elem_id="acts"):
            self.stop = gradio.Button(words["stop"], elem_id="stop", size="sm")
            self.clear = gradio.Button(words["clear"], elem_id="clear", size="sm")

    def _lay_out_settings(self, words: dict[str, Any]) -> None:
        self.about = gradio.Markdown(self._about("bn"), elem_id="about")
        self.side = _choice(_sides(words, self.model), value=self.model.sides[0], label=words["model"], elem_id="side")
        with gradio.Accordion(words["settings"], open=False, elem_id="settings") as self.settings:
            self.decoding = [
                gradio.Slider(0, 2, 0.7, step=0.05, label=words["temperature"], elem_id="temperature"),
                gradio.Slider(0.05, 1, 0.9, step=0.05, label=words["top_p"]),
                gradio.Slider(16, RANGES["max_new_tokens"][1], 256, step=16, label=words["length"], elem_id="length"),
                gradio.Number(3407, label=words["seed"], precision=0),
            ]
        if self.feedback:
            self.feedback.lay_out_aside("bn")

    def _connect_events(self) -> None:
        shown = [self.chat, self.entries]
        one_reply: Options = {"concurrency_limit": 1, "concurrency_id": "model"}
        hidden: Options = {"show_progress": "hidden", "api_visibility": "private"}
        sent, inputs = [self.send.click, self.message.submit], [self.message, self.entries, self.side, self.language]
        # outside the queue: a person who waits for a reply has the helplines already
        opening = gradio.on(sent, self._on_send, inputs, [*shown, self.now, self.message], queue=False, **hidden)
        inputs = [self.entries, self.language, *self.decoding]
        writing = opening.then(self._on_opened, inputs, shown, **hidden | one_reply)
        api(self.reply, api_name="reply", **one_reply)
        at_once: Options = {"queue": False, "api_visibility": "private"}
        stopped: Options = {"inputs": [self.entries, self.language], "outputs": shown}
        self.stop.click(self._on_stop, **stopped, cancels=[writing], **at_once)
        self.clear.click(self._on_clear, self.entries, [*shown, self.now], cancels=[writing], **at_once)
        self.chat.clear(self._on_clear, self.entries, [*shown, self.now], cancels=[writing], **at_once)
        named = [
            self.title,
            self.help,
            self.helplines,
            self.now,
            self.chat,
            self.message,
            self.send,
            self.stop,
            self.clear,
        ]
        named += [self.about, self.settings, self.side, *self.decoding]
        if self.feedback:
            self.feedback.connect(self.chat, self.entries, self.language, self.now, self.decoding)
            named += self.feedback.named()
        self.language.change(self._on_language, self.language, named, **at_once)

    def _on_send(self, message: str, entries: list[Entry], side: str, language: str, request: gradio.Request) -> tuple:
        message = message or ""
        if self.with_care and entries and entries[-1].writing and detect_crisis(message):
            self.stopped.add(entries[-1].id)  # the helplines do not wait for a reply that is being written
        if entries and entries[-1].id in self.stopped:
            entries = stop_reply(entries, language)
        try:
            if message.strip():
                check_message(message, side, self.model.sides)
                self.rate.count(_caller(request))
            opened = open_turn(entries, message, side, language, self.with_care, self.speaks)
            left = message if opened is entries else ""
        except Unacceptable as error:  # the helplines are shown all the same
            fixed = fixed_answer(message[:MESSAGE_CHARACTERS], language) if self.with_care else []
            care = "after" if speaks_of_crisis(entries) else ""  # kept, however many are refused
            refused = Entry("assistant", f"— {error.explain(language)}", "care", care=care)
            opened, left = [*entries[-KEPT_ENTRIES:], *fixed, refused], message
        return _as_shown(opened), opened, gradio.update(visible=speaks_of_crisis(opened)), left

    def _on_opened(self, entries: list[Entry], language: str, *decoding: float) -> Iterator[tuple]:
        problem = ""
        yield gradio.skip(), gradio.skip()  # gradio empties the page for a generator without any value
        try:
            for written in write_reply(self.model, entries, language, seconds=REPLY_SECONDS, **_decoding(*decoding)):
                if written[-1].id in self.stopped:
                    return
                # a reply that is held back changes nothing, also when it comes after a stop
                yield (gradio.skip(), gradio.skip()) if written is entries else (_as_shown(written), written)
        except TooLong:
            problem = refusal("prompt", language)
        except Unacceptable as error:
            problem = error.explain(language)
        except Exception:
            logger.exception("no reply could be written")
            problem = WORDS[language]["failed"]
        if problem:
            gradio.Warning(problem, title=WORDS[language]["notice"])
            closed = [*entries[:-1], replace(entries[-1], content=f"— {problem}", kind="care", writing=False)]
            yield _as_shown(closed), closed

    def _on_stop(self, entries: list[Entry], language: str) -> tuple:
        self.stopped.update(entry.id for entry in entries[-1:] if entry.id)
        closed = stop_reply(entries, language)
        return _as_shown(closed), closed

    def _on_clear(self, entries: list[Entry]) -> tuple:
        self.stopped.update(entry.id for entry in entries[-1:] if entry.id)
        return [], [], gradio.update(visible=False)

    def _on_language(self, language: str) -> list:
        words = WORDS[language]
        return [
            f"# {words['title']}",
            gradio.update(label=_urgent(language)),
            _helplines(language),
            gradio.update(value=panel_html(language)),
            gradio.update(placeholder=words["empty"]),
            gradio.update(placeholder=words["message"], label=words["message"]),
            *(gradio.update(value=words[name]) for name in ("send", "stop", "clear")),
            self._about(language),
            gradio.update(label=words["settings"]),
            gradio.update(label=words["model"], choices=_sides(words, self.model)),
            *(gradio.update(label=words[name]) for name in ("temperature", "top_p", "length", "seed")),
            *(self.feedback.translate(language) if self.feedback else []),
        ]

    def reply(
        self,
        message: str,
        side: str,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        request: gradio.Request,
    ) -> Iterator[str]:
        """Answers one message, for programs, and yields the reply as it grows: a caller who leaves ends it. A message
        in a crisis gets the fixed message alone."""
        with _explained():
            message = check_message(message, side, self.model.sides)
            decoding = _decoding(temperature, top_p, max_new_tokens, seed)
            if self.with_care and detect_crisis(message):
                yield crisis_answer()
                return
            self.rate.count(_caller(request))
            messages = [{"role": "user", "content": message}]
            yield from self.model.stream(messages, side, seconds=REPLY_SECONDS, **decoding)

    def _about(self, language: str) -> str:
        words = WORDS[language]
        note = f"**{words['embedded']}**\n\n" if self.model.config["base_model"] == "embedded" else ""
        misses = f"\n\n{words['misses']}" if self.with_care else ""
        keeps = self.feedback.describe(language) if self.feedback else words["keeps_nothing"]
        return f"{note}{words['about']} {keeps}{misses}"


def _urgent(language: str) -> str:
    """Returns the emergency number of each country in one line: what stands above the conversation."""
    first: dict[str, str] = {}
    for line in HELPLINES:
        number = latin_digits(line["number"]) if language == "en" else line["number"]
        first.setdefault(line["country" + "_en" * (language == "en")], number)
    return f"{WORDS[language]['help']}: {' · '.join(f'{country} {number}' for country, number in first.items())}"


def _helplines(language: str) -> str:
    return crisis_answer(language).partition("\n\n")[2].replace("\n", "  \n")


def _sides(words: dict[str, str], model: LoadedModel) -> list[tuple[str, str]]:
    return [(words[side], side) for side in model.sides]


def _as_shown(entries: list[Entry]) -> list[dict]:
    """Returns gradio's messages. Its page takes a content for HTML, so that text is escaped here; bytes of a reply that
    are no character are left out."""
    empty = {True: "…", False: "—"}  # a reply that is being written, or was stopped before its first word
    texts = [html.escape(entry.content.replace("\ufffd", "")) or empty[entry.writing] for entry in entries]
    return [{"role": entry.role, "content": text} for entry, text in zip(entries, texts)]


def _decoding(temperature: float, top_p: float, max_new_tokens: float, seed: float) -> dict[str, Any]:
    """Returns the page's controls as settings of `stream_reply`. Raises Unacceptable."""
    return check_decoding(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Tells a caller what was refused, and why, without a traceback in the log."""
    try:
        yield
    except (Unacceptable, TooLong) as error:
        raise gradio.Error(str(error), print_exception=False) from error


def _caller(request: gradio.Request) -> str:
    """Returns whose message it is: the address; behind a proxy all may have the proxy's."""
    return request.client.host if request.client else ""
