"""Thumbs on the chat page: consent before anything is kept, a better reply after one, and what one gave.

A person is a random code that the page makes with the consent and shows. It is kept in no cookie: on a computer that
several people use, the next one must not find it.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio

from helpers.inference.limits import (
    MESSAGE_CHARACTERS,
    WORDS,
    RateLimit,
    Unacceptable,
    check_decoding,
    check_rewritten,
    in_digits,
)
from helpers.inference.turns import Entry, model_messages
from helpers.language.care import detect_crisis
from helpers.runs.feedback import FeedbackStore, Thumb, new_person, read_person

# Saves a text as a file in the browser: the server keeps no copy
DOWNLOAD = """(text) => {
  if (!text) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "sahanubhuti-feedback.json";
  link.click();
  URL.revokeObjectURL(link.href);
}"""
logger = logging.getLogger(__name__)


class FeedbackPanel:
    """What stands between the conversation and the box to write in once a thumb was given, and, aside, what one gave.

    `run` is the run's name and `system` its system message, [] without one.
    """

    def __init__(self, store: FeedbackStore, run: str, system: list[dict], with_care: bool) -> None:
        self.store, self.run, self.system, self.with_care = store, run, system, with_care
        self.rate = RateLimit()

    def lay_out(self, language: str) -> None:
        """Adds what a thumb opens, hidden."""
        words = WORDS[language]["feedback"]
        self.person, self.thumb = gradio.State(""), gradio.State(None)
        with gradio.Column(visible=False, elem_id="consent", elem_classes="asked") as self.consent:
            self.question = gradio.Markdown(self._say("question", language))
            with gradio.Row():
                self.agree = gradio.Button(words["agree"], variant="primary", size="sm", elem_id="agree")
                self.decline = gradio.Button(words["decline"], size="sm", elem_id="decline")
        with gradio.Column(visible=False, elem_id="better", elem_classes="asked") as self.better:
            label: dict[str, Any] = {"label": words["rather"], "info": words["kept"]}
            self.rewritten = gradio.Textbox(lines=2, max_length=MESSAGE_CHARACTERS, elem_id="rewritten", **label)
            with gradio.Row():
                self.give = gradio.Button(words["give"], variant="primary", size="sm", elem_id="give")
                self.skip = gradio.Button(words["skip"], size="sm", elem_id="skip")

    def lay_out_aside(self, language: str) -> None:
        """Adds what one gave."""
        words = WORDS[language]["feedback"]
        with gradio.Accordion(words["given"], open=False, elem_id="given") as self.given:
            self.terms = gradio.Markdown(self._say("terms", language))
            self.code = gradio.Textbox(label=words["code"], max_length=40, elem_id="code", buttons=["copy"])
            with gradio.Row():
                self.export = gradio.Button(words["export"], size="sm", elem_id="export")
                self.delete = gradio.Button(words["delete"], size="sm", elem_id="delete")
            self.result = gradio.Markdown("", elem_id="result")
            self.file = gradio.Textbox(visible="hidden", show_label=False)

    def connect(
        self, chat: gradio.Chatbot, entries: gradio.State, language: gradio.Radio, now: gradio.HTML, decoding: list
    ) -> None:
        """Connects the thumbs of a conversation. `now` is what to do in a crisis: it is shown to whoever writes of one
        here."""
        at_once: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
        opened = [self.thumb, self.consent, self.better, self.rewritten]
        chat.like(self._on_like, [entries, self.person, language, *decoding], opened, **at_once)
        inputs = [self.thumb, self.person]
        self.agree.click(self._on_agree, inputs, [self.person, self.code, self.consent, self.better], **at_once)
        self.decline.click(self._on_leave, None, opened, **at_once)
        self.skip.click(self._on_leave, None, opened, **at_once)
        inputs = [self.rewritten, self.thumb, self.person, language]
        self.give.click(self._on_give, inputs, [*opened, now], **at_once)
        written = self.export.click(self._on_export, [self.code, language], [self.file, self.result], **at_once)
        written.then(None, self.file, self.file, js=DOWNLOAD, **at_once)
        inputs, outputs = [self.code, self.person, language], [self.person, self.code, self.result, *opened]
        self.delete.click(self._on_delete, inputs, outputs, **at_once)

    def named(self) -> list[Any]:
        """Returns the components whose words `translate` gives in another language."""
        named = [self.question, self.agree, self.decline, self.rewritten, self.give, self.skip, self.given]
        return [*named, self.terms, self.code, self.export, self.delete, self.result]

    def translate(self, language: str) -> list[Any]:
        """Returns the words of the components that `named` returns."""
        words = WORDS[language]["feedback"]
        return [
            self._say("question", language),
            *(gradio.update(value=words[name]) for name in ("agree", "decline")),
            gradio.update(label=words["rather"], info=words["kept"]),
            *(gradio.update(value=words[name]) for name in ("give", "skip")),
            gradio.update(label=words["given"]),
            self._say("terms", language),
            gradio.update(label=words["code"]),
            *(gradio.update(value=words[name]) for name in ("export", "delete")),
            "",
        ]

    def describe(self, language: str) -> str:
        """Returns in a sentence what the page keeps."""
        return self._say("keeps", language)

    def _say(self, text: str, language: str, **facts: Any) -> str:
        words = WORDS[language]["feedback"]
        place = words["hub" if self.store.push else "here"]
        return in_digits(words[text], language, days=self.store.keep_days, place=place, **facts)

    def _on_like(
        self,
        entries: list[Entry],
        person: str,
        language: str,
        temperature: float,
        top_p: float,
        length: float,
        seed: float,
        event: gradio.LikeData,
        request: gradio.Request,
    ) -> tuple:
        place = event.index if isinstance(event.index, int) else event.index[0]
        if not 0 <= place < len(entries) or entries[place].kind != "reply":
            return (gradio.skip(),) * 4
        if entries[place].writing:  # what is written next takes the thumb off the page
            gradio.Info(WORDS[language]["feedback"]["writing"], title=WORDS[language]["feedback"]["given"])
            return (gradio.skip(),) * 4
        messages = [*self.system, *model_messages(entries[: place + 1])]
        with self._explained(request, language):
            settings = check_decoding(temperature=temperature, top_p=top_p, max_new_tokens=length, seed=seed)
            thumb = Thumb(self.run, entries[place].side, messages, event.liked is True, settings)
            if event.liked == "":  # taken back
                if person:
                    self.store.withdraw(thumb, person)
                return self._on_leave()
            if person:
                self.store.keep(thumb, person)
        return thumb, gradio.update(visible=not person), gradio.update(visible=bool(person)), ""

    def _on_agree(self, thumb: Thumb | None, person: str) -> tuple:
        """Keeps the thumb that was waiting for it."""
        person = person or new_person()
        if thumb:
            self.store.keep(thumb, person)
        return person, person, gradio.update(visible=False), gradio.update(visible=thumb is not None)

    def _on_leave(self) -> tuple:
        return None, gradio.update(visible=False), gradio.update(visible=False), ""

    def _on_give(self, text: str, thumb: Thumb | None, person: str, language: str, request: gradio.Request) -> tuple:
        words, seen = WORDS[language]["feedback"], gradio.skip()
        if not thumb or not person:
            return *self._on_leave(), seen
        if self.with_care and detect_crisis(str(text)):  # of the person, rather than a reply
            gradio.Warning(words["crisis"], title=words["given"])
            return *(gradio.skip(),) * 4, gradio.update(visible=True)
        with self._explained(request, language):
            rewritten = check_rewritten(text, thumb.conversation[-1]["content"])
            self.store.keep(replace(thumb, rewritten=rewritten), person)
        gradio.Info(words["thanks"], title=words["given"])
        return *self._on_leave(), seen

    def _on_export(self, code: str, language: str, request: gradio.Request) -> tuple[str, str]:
        asked = read_person(code)
        with self._explained(request, language):
            rows = self.store.rows(asked) if asked else []
        if not rows:
            return "", self._say("nothing", language)
        return json.dumps(rows, ensure_ascii=False, indent=1), self._say("exported", language, number=len(rows))

    def _on_delete(self, code: str, person: str, language: str, request: gradio.Request) -> tuple:
        """Deletes what stands under a code; whoever deletes their own has to agree anew."""
        unchanged = (gradio.skip(),) * 4
        asked = read_person(code)
        if not asked:
            return person, code, self._say("nothing", language), *unchanged
        with self._explained(request, language):
            try:
                deleted = self.store.delete_person(asked)
            except (OSError, ValueError) as error:  # the copy cannot be reached
                logger.warning("the copy of the feedback could not be changed: %s", error)
                return person, code, self._say("half_deleted", language), *unchanged
        result = self._say("deleted" if deleted else "nothing", language, number=deleted)
        return "" if asked == person else person, "", result, *self._on_leave()

    @contextlib.contextmanager
    def _explained(self, request: gradio.Request, language: str) -> Iterator[None]:
        """Counts a caller's act, and tells a caller what was refused, and why, without a traceback in the log."""
        try:
            self.rate.count(request.client.host if request.client else "")
            yield
        except Unacceptable as error:
            raise gradio.Error(error.explain(language), print_exception=False) from error
