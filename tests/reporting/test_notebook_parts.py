"""What the notebooks' cells show besides pictures: coloured tokens, bubbles, documents; and the live view."""

import html
import re
import threading
from contextlib import nullcontext

import pytest
from model_families import FAMILIES, build_tokenizer

from helpers.models.chat import (
    IGNORED,
    TokenPiece,
    decode_labels,
    encode_row,
    prepare_tokenizer,
    split_into_pieces,
)
from helpers.reporting import live
from helpers.reporting.live import NOTHING, PLOT_SECONDS, LiveView, show_progress
from helpers.reporting.notebook_parts import (
    show_conversations,
    show_document,
    show_page,
    show_stream,
    show_trained_tokens,
)
from helpers.runs.files import append_journal
from helpers.runs.record import Run
from helpers.runs.session import PROGRESS_FILE, report_progress

ENTRY = {"step": 1, "loss": 2.0, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def examples(tokenizer, embedded_rows):
    """Returns rows as the trainer sees them, a conversation's later turns among them."""
    turns = embedded_rows[0]["messages"] + embedded_rows[1]["messages"][1:]
    rows = [*embedded_rows[:40], {**embedded_rows[0], "messages": turns}, {"id": "x", "text": "ক্ষমা স্ত্রী উৎকণ্ঠা"}]
    return [encode_row(tokenizer, row) for row in rows]


def test_the_coloured_tokens_are_those_of_the_labels(tokenizer, examples):
    for example in examples:
        pieces = split_into_pieces(tokenizer, example)
        trained = [piece for piece in pieces if piece.trained]
        assert sum(piece.tokens for piece in trained) == sum(label != IGNORED for label in example["labels"])
        assert "".join(piece.text for piece in trained) == decode_labels(tokenizer, example)


def test_the_pieces_are_the_whole_example(tokenizer, examples):
    for example in examples:
        pieces = split_into_pieces(tokenizer, example)
        assert "".join(piece.text for piece in pieces) == tokenizer.decode(example["input_ids"])
        assert sum(piece.tokens for piece in pieces) == len(example["input_ids"])


def test_sentencepiece_keeps_the_spaces_between_words(embedded_rows):
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    tokenizer = prepare_tokenizer(build_tokenizer(FAMILIES["Mistral"], texts))
    example = encode_row(tokenizer, embedded_rows[0])
    pieces = split_into_pieces(tokenizer, example)
    assert "".join(piece.text for piece in pieces) == tokenizer.decode(example["input_ids"])


class Bytes:
    """A tokenizer with a token per byte: every Bengali letter is three."""

    def decode(self, tokens, skip_special_tokens):
        return bytes(tokens).decode("utf-8", errors="replace")


def test_no_piece_tears_a_conjunct():
    text = "ক্ষমা, স্ত্রী কি"
    tokens = list(text.encode())
    pieces = split_into_pieces(Bytes(), {"input_ids": tokens, "labels": tokens})
    assert [piece.text for piece in pieces] == ["ক্ষ", "মা", ",", " ", "স্ত্রী", " ", "কি"]
    assert [piece.tokens for piece in pieces][:2] == [9, 6]


def test_a_piece_ends_where_the_labels_begin():
    tokens = list("কখ".encode())
    pieces = split_into_pieces(Bytes(), {"input_ids": tokens, "labels": [IGNORED] * 3 + tokens[3:]})
    assert pieces == [TokenPiece("ক", False, 3), TokenPiece("খ", True, 3)]


def test_only_what_is_trained_on_is_coloured():
    pieces = [TokenPiece("<|x|>", False, 1), TokenPiece("ক্ষ", True, 2), TokenPiece("<b>", True, 1)]
    part = show_trained_tokens(pieces)
    spans = re.findall(r'<span class="trained"[^>]*>(.*?)</span>', part.html)
    assert [html.unescape(span) for span in spans] == ["ক্ষ", "<b>"]
    assert "&lt;|x|&gt;" in part.html
    assert part.text.startswith("3 of 4 tokens are trained on")


REPLIES = [
    {"conversation": 1, "prompt": "<b>কেমন</b> আছ?", "base": "", "tuned": "ভালো\u202e"},
    {"conversation": 1, "prompt": "আর?", "base": "a", "tuned": "b"},
    {"conversation": 2, "prompt": "ক", "base": "খ", "tuned": "গ"},
]


def test_a_conversation_is_bubbles_in_order():
    part = show_conversations(REPLIES)
    assert re.findall(r"<h3>(.*?)</h3>", part.html) == ["Conversation 1", "Conversation 2"]
    speakers = re.findall(r"600\">(person|base model|tuned model)<", part.html)
    assert speakers == ["person", "base model", "tuned model"] * 3


def test_a_reply_that_was_cut_says_so():
    part = show_conversations([{**REPLIES[1], "hit_cap": True}, REPLIES[2]])
    assert part.html.count("tuned model · cut at the limit") == 1
    assert "  tuned, cut at the limit: b" in part.text


def test_nothing_in_a_bubble_is_read_as_html():
    part = show_conversations(REPLIES)
    assert "<b>" not in part.html
    assert "[U+202E]" in part.html
    assert "an empty reply" in part.html


def test_a_reply_grows_in_its_bubble():
    shown = []
    grow = show_stream("কেমন আছ?", lambda part: shown.append(part) or shown.append)
    grow("ভা")
    grow("ভালো")
    assert [part.text for part in shown] == ["কেমন আছ?\n→ ", "কেমন আছ?\n→ ভা", "কেমন আছ?\n→ ভালো"]


def test_a_document_keeps_its_own_html_as_text():
    part = show_document(
        "---\nlicense: mit\n---\n# A\n\n<script>x</script>\n\n| a |\n|---|\n| ক্ষ |\n", "The model card"
    )
    assert "<script>" not in part.html
    assert "<h3>A</h3>" in part.html
    assert "<td>ক্ষ</td>" in part.html
    assert "license: mit" in part.html


def test_a_page_in_a_frame_cannot_run_anything():
    part = show_page('<p title="x">ক্ষ</p><script>x()</script>', "The page")
    assert 'sandbox=""' in part.html
    assert html.unescape(re.search('srcdoc="(.*?)"', part.html)[1]).startswith('<p title="x">')


class Display:
    """A notebook's display: what is shown in each place, and every replacement."""

    def __init__(self):
        self.places, self.changes = [], []

    def __call__(self, part):
        place = len(self.places)
        self.places.append(part)

        def replace(part):
            self.places[place] = part
            self.changes.append((place, part))

        return replace

    @property
    def plots(self):
        return [part for place, part in self.changes if place == 1 and part is not NOTHING]


@pytest.fixture
def log(tmp_path):
    append_journal(tmp_path / "train/log.jsonl", ENTRY)
    return tmp_path / "train/log.jsonl"


@pytest.fixture
def view(log, monkeypatch):
    """Returns a live view that updates when the test says so, and the display it shows itself on."""
    monkeypatch.delenv(PROGRESS_FILE, raising=False)
    monkeypatch.setattr(LiveView, "run", lambda self: None)
    display = Display()
    with LiveView("mine", "train", log, display) as view:
        yield view, display


def test_the_loss_is_drawn_at_most_every_thirty_seconds(view, log):
    view, display = view
    for second in range(0, 95, 5):
        append_journal(log, {**ENTRY, "step": 2 + second})
        view.update(1000.0 + second)
    assert len(display.plots) == 1 + 90 // PLOT_SECONDS


def test_a_log_that_does_not_grow_is_not_drawn_again(view):
    view, display = view
    view.update(0.0)
    view.update(10 * PLOT_SECONDS)
    assert len(display.plots) == 1


def test_a_half_written_line_of_the_log_is_left_out(view, log):
    view, display = view
    with open(log, "a") as file:
        file.write('{"step": 2, "lo')
    view.update(0.0)
    assert "over 1 logged steps" in display.plots[0].html


def test_the_line_says_how_much_time_is_left(view):
    view, display = view
    report_progress(2, 10, "step")
    view.update(0.0)
    report_progress(5, 10, "step")
    view.update(1.0)
    assert re.fullmatch(r"\[mine\] train  step 5/10  \d\d:\d\d, about \d\d:\d\d left", display.places[0].text)


def test_two_places_are_replaced_however_long_it_takes(view, log):
    view, display = view
    for second in range(0, 600, 30):
        append_journal(log, ENTRY)
        view.update(float(second))
    assert len(display.places) == 2


def test_the_plot_makes_way_for_the_finished_one(log, monkeypatch):
    monkeypatch.setattr(live, "LINE_SECONDS", 0.01)
    monkeypatch.delenv(PROGRESS_FILE, raising=False)
    display, drawn = Display(), threading.Event()
    monkeypatch.setattr(live, "picture", lambda figure: drawn.set() or live.Part("a plot", ""))
    with LiveView("mine", "train", log, display):
        assert drawn.wait(20), "the view draws nothing while the block runs"
    assert display.places[1] is NOTHING
    assert re.fullmatch(r"\[mine\] train  done after 0:00:\d\d", display.places[0].text)


@pytest.mark.parametrize("stage", ["train", "prefer", "evaluate"])
def test_each_training_is_drawn_from_its_own_log(stage, tmp_path, monkeypatch):
    monkeypatch.delenv(PROGRESS_FILE, raising=False)
    logs = []
    monkeypatch.setattr(live, "LiveView", lambda name, stage, log, show: logs.append(log) or nullcontext())
    with show_progress(Run(tmp_path / "mine"), stage):
        assert logs == [tmp_path / "mine" / stage / "log.jsonl" if stage != "evaluate" else None]


def test_under_the_runner_nothing_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "progress.json"))
    monkeypatch.setattr(live, "display_part", lambda part: pytest.fail("something is shown"))
    with show_progress(Run(tmp_path / "mine"), "train"):
        report_progress(1, 2, "step")


def test_the_view_ends_with_its_block(tmp_path, monkeypatch):
    import os

    monkeypatch.delenv(PROGRESS_FILE, raising=False)
    monkeypatch.setattr(live, "display_part", Display())
    with pytest.raises(KeyError), show_progress(Run(tmp_path / "mine"), "evaluate"):
        raise KeyError
    assert PROGRESS_FILE not in os.environ
