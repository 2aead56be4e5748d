"""The chat page: python -m helpers.app --run outputs/NAME [--host HOST] [--port PORT] [--no-care].

One model answers one message after the other; further messages wait in a queue and pages load meanwhile. A message that
speaks of self-harm or violence is met with people's numbers first (helpers.care), unless --no-care says otherwise.
"""

import argparse
import contextlib
import html
import sys
import threading
import uuid
from pathlib import Path

from helpers import care, chat, env, experiments, generate, model, tiny

PROMPT_TOKENS = 1024  # of the conversation so far; older turns are left out
WORDS = {  # of the page, in both languages
    "bn": {
        "title": "সহানুভূতি",
        "about": "এটি একটি ভাষা মডেল, বাংলায় সহানুভূতির সঙ্গে উত্তর দিতে শেখানো। এটি থেরাপিস্ট বা চিকিৎসক নয়, "
        "ভুল বলতে পারে, আর কিছু মনে রাখে না। বুড়ো আঙুলের চিহ্ন দিলে সেই কথোপকথনটি এই যন্ত্রে জমা থাকে।",
        "embedded": "এখানে ছোট্ট একটি নমুনা মডেল চলছে: এটি কেবল ধাপগুলো দেখায়, উত্তরের মান নয়।",
        "help": "জরুরি সাহায্য",
        "message": "আপনার কথা লিখুন",
        "send": "পাঠান",
        "stop": "থামুন",
        "clear": "নতুন কথোপকথন",
        "settings": "সেটিংস",
        "model": "মডেল",
        "tuned": "প্রশিক্ষিত",
        "base": "মূল",
        "long": "বার্তাটি খুব বড়: ছোট করে লিখুন।",
        "failed": "উত্তর দেওয়া গেল না",
    },
    "en": {
        "title": "Sahanubhuti",
        "about": "A language model, trained to answer with empathy in Bengali. It is no therapist and no doctor, it "
        "can be wrong, and it remembers nothing. A thumb keeps that conversation on this machine.",
        "embedded": "A small sample model runs here: it shows the pipeline, not the quality of its replies.",
        "help": "Urgent help",
        "message": "Write what is on your mind",
        "send": "Send",
        "stop": "Stop",
        "clear": "New conversation",
        "settings": "Settings",
        "model": "Model",
        "tuned": "tuned",
        "base": "base",
        "long": "The message is too long: make it shorter.",
        "failed": "No reply could be written",
    },
}
CSS = ".message { white-space: pre-wrap; overflow-wrap: anywhere; } footer { display: none !important; }"


class Talker:
    """A run's model, loaded once: base and tuned, one reply at a time."""

    def __init__(self, run: Path):
        config = env.read_json(run / "train" / "config.json")
        base = tiny.locate(config["base_model"], run)
        self.run, self.embedded = run, config["base_model"] == "embedded"
        self.tokenizer = model.load_tokenizer(base)
        dtype, reason = env.pick_dtype()
        print(f"dtype {dtype}: {reason}")
        adapter = run / "train" / "adapter"
        self.model = model.load_for_inference(base, adapter, config["load_in_4bit"], dtype, config["device_map"])
        self.system = generate.system_of(run)
        self.free = threading.Lock()

    def reply(self, turns: list[dict], side: str, **decoding):
        """Yields the reply to a conversation as it grows. Raises ValueError for a message that is too long."""
        limit = min(PROMPT_TOKENS, self.model.config.max_position_embeddings - decoding["max_new_tokens"])
        messages = chat.fit(self.tokenizer, [*self.system, *turns], limit)
        with self.free, self.model.disable_adapter() if side == "base" else contextlib.nullcontext():
            yield from generate.stream(self.model, self.tokenizer, messages, **decoding)


def turns_of(shown: list[dict]) -> list[dict]:
    """Returns what the model reads of the messages shown: all but the fixed ones, and nothing that was left empty."""
    kept = [entry for entry in shown if entry["kind"] != "care"]
    turns = []
    for entry in kept:
        if entry["role"] == "assistant" and not entry["content"]:
            turns = turns[:-1]  # a reply that was stopped before it began, and what it was to answer
        else:
            turns.append({"role": entry["role"], "content": entry["content"]})
    return turns


def opened(shown: list[dict], message: str, side: str, language: str, with_care: bool) -> list[dict]:
    """Returns the messages shown with the person's, the fixed message where it is due, and an empty reply to be
    written; unchanged for an empty message or while a reply is being written."""
    message = message.strip()
    if not message or (shown and shown[-1]["writing"]):
        return shown
    new = [{"role": "user", "content": message, "kind": "", "side": "", "writing": False}]
    if with_care and care.crisis(message):
        new.append(
            {"role": "assistant", "content": care.answer(language), "kind": "care", "side": "", "writing": False}
        )
    reply = {"role": "assistant", "content": "", "kind": "reply", "side": side, "writing": True}
    return [*shown, *new, {**reply, "id": uuid.uuid4().hex}]


def written(talker, shown: list[dict], **decoding):
    """Yields the messages shown while the last of them, a reply opened before, is written."""
    if not shown or not shown[-1]["writing"]:
        return
    last = shown[-1]
    for said in talker.reply(turns_of(shown[:-1]), last["side"], **decoding):
        last = {**last, "content": said}
        yield [*shown[:-1], last]
    yield [*shown[:-1], {**last, "writing": False}]


def closed(shown: list[dict]) -> list[dict]:
    """Returns the messages shown with no reply being written any more."""
    return [*shown[:-1], {**shown[-1], "writing": False}] if shown else shown


def build(talker, with_care: bool = True, log: Path | None = None):
    """Returns the page as gradio.Blocks, its queue set up. `log` is the SQLite file that thumbs are kept in."""
    import gradio

    def shown_as(entries: list[dict]) -> list[dict]:
        """Returns gradio's messages. Its page takes a content for HTML, so that text is escaped here."""
        return [{"role": entry["role"], "content": html.escape(entry["content"]) or "…"} for entry in entries]

    def decoded(temperature, top_p, max_new_tokens, seed) -> dict:
        """Returns what the page's controls say as settings of generate.stream: a number field gives floats."""
        return {"temperature": temperature, "top_p": top_p, "max_new_tokens": int(max_new_tokens), "seed": int(seed)}

    halted = set()  # ids of replies that were stopped: what they still say comes too late

    def open_turn(message, entries, side, language):
        if entries and entries[-1].get("id") in halted:
            entries = closed(entries)
        now = opened(entries, message, side, language, with_care)
        return shown_as(now), now, message if now is entries else ""

    def write(entries, language, temperature, top_p, max_new_tokens, seed):
        decoding = decoded(temperature, top_p, max_new_tokens, seed)
        problem = ""
        try:
            for now in written(talker, entries, **decoding):
                if now[-1]["id"] in halted:
                    return
                yield shown_as(now), now
        except chat.TooLong as error:
            problem = f"{WORDS[language]['long']} ({error})"
        except Exception as error:
            print(env.brief(error), file=sys.stderr)
            problem = f"{WORDS[language]['failed']} ({type(error).__name__})"
        if problem:
            gradio.Warning(problem)
            now = [*entries[:-1], {**entries[-1], "content": f"— {problem}", "kind": "care", "writing": False}]
            yield shown_as(now), now

    def halting(entries):
        halted.update(one["id"] for one in entries[-1:] if "id" in one)
        return closed(entries)

    def emptied(entries):
        halting(entries)
        return [], []

    def answer(message: str, side: str, temperature: float, top_p: float, max_new_tokens: int, seed: int) -> str:
        """Answers one message, for programs; a crisis is met with the fixed message alone."""
        if with_care and care.crisis(message):
            return care.answer()
        decoding = decoded(temperature, top_p, max_new_tokens, seed)
        return [*talker.reply([{"role": "user", "content": message.strip()}], side, **decoding)][-1]

    def thumb(entries, temperature, top_p, max_new_tokens, seed, event: gradio.LikeData):
        place = event.index if isinstance(event.index, int) else event.index[0]
        if not log or not 0 <= place < len(entries) or entries[place]["kind"] != "reply" or event.liked == "":
            return
        turns = [*talker.system, *turns_of(entries[: place + 1])]
        decoding = decoded(temperature, top_p, max_new_tokens, seed)
        experiments.log_thumb(log, talker.run.name, entries[place]["side"], turns, bool(event.liked), decoding)

    def about(language):
        words = WORDS[language]
        note = f"\n\n**{words['embedded']}**" if talker.embedded else ""
        return f"# {words['title']}\n\n{words['about']}{note}"

    def relabel(language):
        words = WORDS[language]
        return [
            about(language),
            gradio.update(label=words["help"]),
            care.answer(language).partition("\n\n")[2].replace("\n", "  \n"),
            gradio.update(placeholder=words["message"], label=words["message"]),
            *(gradio.update(value=words[name]) for name in ("send", "stop", "clear")),
            gradio.update(label=words["settings"]),
            gradio.update(label=words["model"], choices=[(words["tuned"], "tuned"), (words["base"], "base")]),
        ]

    words = WORDS["bn"]
    with gradio.Blocks(title="Sahanubhuti · সহানুভূতি", analytics_enabled=False, fill_height=True) as page:
        language = gradio.Radio([("বাংলা", "bn"), ("English", "en")], value="bn", show_label=False, container=False)
        header = gradio.Markdown(about("bn"))
        with gradio.Accordion(words["help"], open=True) as urgent:
            numbers = gradio.Markdown(care.answer().partition("\n\n")[2].replace("\n", "  \n"))
        entries = gradio.State([])
        shown = gradio.Chatbot(
            show_label=False,
            render_markdown=False,
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=[],
            height=420,
            elem_id="talk",
            buttons=["copy"],
            group_consecutive_messages=False,
        )
        message = gradio.Textbox(
            label=words["message"], show_label=False, placeholder=words["message"], elem_id="message", max_length=20_000
        )
        with gradio.Row():
            go = gradio.Button(words["send"], variant="primary", elem_id="send")
            halt = gradio.Button(words["stop"], elem_id="stop")
            clear = gradio.Button(words["clear"], elem_id="clear")
        with gradio.Accordion(words["settings"], open=False, elem_id="settings") as panel:
            sides = [(words["tuned"], "tuned"), (words["base"], "base")]
            side = gradio.Radio(sides, value="tuned", label=words["model"], elem_id="side")
            temperature = gradio.Slider(0, 2, 0.7, step=0.05, label="temperature (0: greedy)", elem_id="temperature")
            top_p = gradio.Slider(0.05, 1, 0.9, step=0.05, label="top_p")
            length = gradio.Slider(16, 1024, 256, step=16, label="max_new_tokens", elem_id="length")
            seed = gradio.Number(3407, label="seed", precision=0)
        decoding = [temperature, top_p, length, seed]
        opening = gradio.on(
            [go.click, message.submit],
            open_turn,
            [message, entries, side, language],
            [shown, entries, message],
            concurrency_limit=None,  # whoever waits for a reply has seen the numbers already
            show_progress="hidden",
            api_visibility="private",
        )
        writing = opening.then(
            write,
            [entries, language, *decoding],
            [shown, entries],
            concurrency_limit=1,
            concurrency_id="model",
            show_progress="hidden",
            api_visibility="private",
        )
        gradio.api(answer, api_name="reply", concurrency_limit=1, concurrency_id="model")
        private = {"queue": False, "api_visibility": "private"}
        halt.click(halting, entries, entries, cancels=[writing], **private)
        clear.click(emptied, entries, [shown, entries], cancels=[writing], **private)
        shown.clear(emptied, entries, [shown, entries], cancels=[writing], **private)
        shown.like(thumb, [entries, *decoding], None, **private)
        language.change(
            relabel,
            language,
            [header, urgent, numbers, message, go, halt, clear, panel, side],
            **private,
        )
    page.queue(max_size=256)
    return page


def serve(page, host: str, port: int, block: bool = True):
    """Serves the page; fonts are the reader's own, nothing is loaded from elsewhere."""
    import gradio

    theme = gradio.themes.Default(font=["system-ui", "Noto Sans Bengali", "sans-serif"], font_mono=["monospace"])
    return page.launch(
        server_name=host,
        server_port=port,
        theme=theme,
        css=CSS,
        ssr_mode=False,
        quiet=not block,
        prevent_thread_lock=not block,
        footer_links=[],
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 when the run cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m helpers.app", description=__doc__.split(":")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run's folder, trained")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 serves other machines too")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--no-care", action="store_true", help="no fixed message in a crisis: for experiments only")
    options = parser.parse_args(arguments)
    for needed in ("train/config.json", "train/adapter/adapter_config.json"):
        if not (options.run / needed).is_file():
            print(
                f"error: {options.run / needed} is not there: expected a run that 02_train has finished.",
                file=sys.stderr,
            )
            return 2
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError:
        print("error: the chat page needs gradio: pip install 'gradio==6.31.0'", file=sys.stderr)
        return 2
    env.set_up()
    page = build(Talker(options.run), not options.no_care, options.run.resolve().parent / "experiments.db")
    serve(page, options.host, options.port)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
