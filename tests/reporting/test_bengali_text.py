"""Bengali in plots: shaped, in its own font, wherever a figure has text, with whichever matplotlib there is."""

import io

import numpy
import pytest

from helpers.evaluation.comparison import Score
from helpers.reporting.bengali_text import BengaliFigure, outline_line, shape_line
from helpers.reporting.figures import FONT, create_axes, draw_topics, load_pyplot, save_figure

MIXED = "মানসিক স্বাস্থ্য (mental health) ২৫%"


@pytest.fixture
def other_font():
    """Returns the file of the font of a plot's labels."""
    load_pyplot()
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties()))


@pytest.fixture
def labelled():
    """Returns a figure with the same Bengali line in each kind of text, two of them made only when it is drawn."""
    figure, axes = create_axes(figsize=(5, 4))
    axes.plot([0, 1], [0, 1], label=f"নাম {MIXED}")
    axes.set(title=f"শিরোনাম {MIXED}", xlabel=f"অক্ষ {MIXED}", ylabel=f"মান {MIXED}")
    axes.xaxis.set_major_formatter(lambda value, place: f"কি {value:.1f}")
    axes.yaxis.set_major_formatter(lambda value, place: f"স্ত্রী {value:.1f}")
    axes.legend()
    axes.annotate(f"টীকা {MIXED}", (0.2, 0.8), rotation=30)
    yield figure
    load_pyplot().close(figure)


def draw_line(line, **style):
    """Returns the pixels, (rows, columns, red green blue), of a figure with a line in the middle of it."""
    figure = load_pyplot().figure(figsize=(4, 2), FigureClass=BengaliFigure)
    figure.text(0.5, 0.5, line, size=40, ha="center", va="center", **style)
    figure.canvas.draw()
    pixels = numpy.array(figure.canvas.buffer_rgba())[..., :3]
    load_pyplot().close(figure)
    return pixels


def measure_ink(line, **style):
    """Returns the width and height in pixels of what a figure draws for a line."""
    dark = draw_line(line, **style)[..., 0] < 128
    return numpy.ptp(numpy.flatnonzero(dark.any(0))) + 1, numpy.ptp(numpy.flatnonzero(dark.any(1))) + 1


@pytest.mark.parametrize(("word", "glyphs"), [("ক্ষ", 1), ("স্ত্রী", 2), ("ন্ধু", 2), ("র্ক", 2)])
def test_a_conjunct_has_fewer_glyphs_than_code_points(other_font, word, glyphs):
    assert len(shape_line(word, other_font)[0]) <= glyphs < len(word)


@pytest.mark.parametrize("word", ["কি", "কে", "কৈ"])
def test_a_vowel_sign_stands_left_of_its_letter(other_font, word):
    letter = shape_line("ক", other_font)[0][0]
    sign, last = shape_line(word, other_font)[0]
    assert last.glyph_id == letter.glyph_id
    assert sign.x == 0 < last.x


@pytest.mark.parametrize("word", ["কো", "কৌ"])
def test_a_vowel_sign_of_two_parts_stands_on_both_sides(other_font, word):
    letter = shape_line("ক", other_font)[0][0]
    left, middle, right = shape_line(word, other_font)[0]
    assert middle.glyph_id == letter.glyph_id
    assert left.x < middle.x < right.x


@pytest.mark.parametrize(("composed", "decomposed"), [("\u09dc", "\u09a1\u09bc"), ("\u09df", "\u09af\u09bc")])
def test_a_nukta_letter_looks_alike_in_both_spellings(other_font, composed, decomposed):
    assert shape_line(composed, other_font) == shape_line(decomposed, other_font)


def test_a_joiner_keeps_the_ra_of_a_loanword_whole(other_font):
    letter = shape_line("র", other_font)[0][0]
    assert shape_line("র\u200d্যাব", other_font)[0][0].glyph_id == letter.glyph_id
    assert shape_line("র্যাব", other_font)[0][0].glyph_id != letter.glyph_id


def test_a_non_joiner_keeps_a_conjunct_apart(other_font):
    assert len(shape_line("ক্\u200cষ", other_font)[0]) > len(shape_line("ক্ষ", other_font)[0])


@pytest.mark.parametrize("word", ["র\u200d্যাব", "ক্\u200cষ", "দুঃখ।"])
def test_a_word_is_in_one_font_with_its_joiners(other_font, word):
    assert {glyph.font for glyph in shape_line(word, other_font)[0]} == {str(FONT)}


def test_each_part_of_a_mixed_line_is_in_its_font(other_font):
    glyphs, width = shape_line(MIXED, other_font)
    bengali = [glyph.font == str(FONT) for glyph in glyphs]
    assert bengali.count(False) == len(" (mental health) %") + 1, "Latin letters, signs and spaces"
    assert bengali[0]
    assert bengali[-2:] == [True, False], "৫%"
    assert all(glyph.glyph_id for glyph in glyphs), "glyph 0 is the box of a font that lacks a letter"
    assert [glyph.x for glyph in glyphs] == sorted(glyph.x for glyph in glyphs)
    assert glyphs[-1].x < width


def test_a_conjunct_is_drawn_narrower_than_its_letters():
    assert measure_ink("ক্ষ")[0] < 0.8 * (measure_ink("ক")[0] + measure_ink("ষ")[0])


def test_a_line_is_drawn_with_the_size_of_its_outline(other_font):
    extent = outline_line(MIXED[:5], other_font)[2]
    pixels = 40 * load_pyplot().rcParams["figure.dpi"] / 72
    assert measure_ink(MIXED[:5]) == pytest.approx((extent.width * pixels, extent.height * pixels), abs=2)


def test_a_rotated_line_is_as_high_as_it_was_wide():
    wide, high = measure_ink("মানসি")
    assert measure_ink("মানসি", rotation=90) == pytest.approx((high, wide), abs=2)


def test_a_line_has_the_colour_of_its_text():
    pixels = draw_line("স্ত্রী", color="#d55e00").reshape(-1, 3)
    assert tuple(pixels[pixels[:, 1].argmin()]) == (0xD5, 0x5E, 0x00)


def test_the_dollars_of_a_bengali_line_are_no_formula(other_font):
    width = outline_line("৳1=$2^$", other_font)[2].width
    assert measure_ink("৳1=$2^$")[0] == pytest.approx(width * 40 * load_pyplot().rcParams["figure.dpi"] / 72, abs=2)


def record_own_text(monkeypatch):
    """Returns the list of lines that matplotlib itself will have drawn, as PNG or SVG."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.backends.backend_svg import RendererSVG

    lines = []
    for renderer in (RendererAgg, RendererSVG):
        draw = renderer.draw_text

        def draw_and_note(self, gc, x, y, s, *args, draw=draw, **options):
            lines.append(s)
            draw(self, gc, x, y, s, *args, **options)

        monkeypatch.setattr(renderer, "draw_text", draw_and_note)
    return lines


def test_no_bengali_of_a_saved_figure_is_left_unshaped(labelled, monkeypatch, tmp_path):
    lines = record_own_text(monkeypatch)
    save_figure(labelled, tmp_path, "labelled", close=False)
    assert lines == []


def test_no_bengali_of_a_shown_figure_is_left_unshaped(labelled, monkeypatch):
    lines = record_own_text(monkeypatch)
    labelled.canvas.print_figure(io.BytesIO(), format="png", bbox_inches="tight")  # as a notebook shows it
    assert lines == []


def test_a_line_without_bengali_is_drawn_by_matplotlib(monkeypatch):
    lines = record_own_text(monkeypatch)
    measure_ink("mental health 25 %")
    assert lines == ["mental health 25 %"]


def test_a_shown_figure_ends_where_its_bengali_ends():
    figure = load_pyplot().figure(figsize=(2, 2), dpi=100, FigureClass=BengaliFigure)
    figure.text(0.9, 0.5, "স্ত্রী স্বাস্থ্য " * 3 + "স্ত্রী")
    picture = io.BytesIO()
    figure.canvas.print_figure(picture, format="png", bbox_inches="tight", pad_inches=0.1)
    load_pyplot().close(figure)
    picture.seek(0)
    columns = (load_pyplot().imread(picture)[..., 0] < 0.5).any(0)
    assert 7 <= numpy.argmax(columns[::-1]) <= 13, "the margin is a tenth of an inch, 10 pixels"


def test_the_labels_of_topics_just_fit_beside_the_axes():
    delta = Score(value=1.0, low=0.5, high=1.5, floor=None, better="higher", n=5).model_dump()
    labels = ("স্ত্রী স্বাস্থ্য স্ত্রী স্বাস্থ্য", "দুঃখ, বন্ধুত্ব", "grief")
    figure = draw_topics([{"label": label, "n": 5, "delta": {"chrf": delta}} for label in labels])
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert 0 < min(box.x0 for box in boxes) < 10, "pixels: what the layout leaves at the edge"
    assert all(box.x1 < axes.bbox.x0 for box in boxes)
    load_pyplot().close(figure)
