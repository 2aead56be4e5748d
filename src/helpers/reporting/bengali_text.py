"""Bengali in plots: conjuncts, vowel signs left of their letter, and joiners, by HarfBuzz and as outlines.

matplotlib shapes text from 3.11 on; Kaggle and Colab have 3.10. Every version draws Bengali from here, so that a plot
is the same on all of them. A line without Bengali is left to matplotlib.
"""

import re
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy
import uharfbuzz
from fontTools.pens.recordingPen import RecordingPen
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox

harfbuzz: Any = uharfbuzz  # compiled: type checkers know none of its names

LETTER = re.compile("[\u0980-\u09fe]")

# What the Bengali font draws: a joiner or a danda from another font would tear a word apart.
PART = re.compile("([\u0951\u0952\u0964\u0965\u0980-\u09fe\u1cd0-\u1cf2\u200c\u200d\u25cc]+)")

CODES = {
    "moveTo": Path.MOVETO,
    "lineTo": Path.LINETO,
    "qCurveTo": Path.CURVE3,
    "curveTo": Path.CURVE4,
    "closePath": Path.CLOSEPOLY,
}


class Glyph(NamedTuple):
    """A glyph of a font file, and where its origin stands on the line, in ems."""

    font: str
    glyph_id: int
    x: float
    y: float


@cache
def load_font(file: str) -> Any:
    """Returns the font of a file; its lengths are in units of which `face.upem` make an em."""
    return harfbuzz.Font(harfbuzz.Face(harfbuzz.Blob.from_file_path(file)))


def shape_line(line: str, other_font: str) -> tuple[list[Glyph], float]:
    """Returns the glyphs of a line from left to right, Bengali in its own font, and the width of the line in ems.

    `other_font` is the file of the font that all else is set in.
    """
    glyphs, width = [], 0.0
    for place, part in enumerate(PART.split(line)):
        file = str(findfont("Noto Sans Bengali", fallback_to_default=False)) if place % 2 else other_font
        font, buffer = load_font(file), harfbuzz.Buffer()
        buffer.add_str(part)
        buffer.guess_segment_properties()
        harfbuzz.shape(font, buffer)
        em = font.face.upem
        for info, position in zip(buffer.glyph_infos, buffer.glyph_positions or []):  # None without text
            x, y = width + position.x_offset / em, position.y_offset / em
            glyphs.append(Glyph(file, info.codepoint, x, y))
            width += position.x_advance / em
    return glyphs, width


@lru_cache(maxsize=1024)
def outline_glyph(file: str, glyph_id: int) -> Path:
    """Returns the outline of a glyph, in ems from its origin; of a space it is empty."""
    font, pen = load_font(file), RecordingPen()
    font.draw_glyph_with_pen(glyph_id, pen)
    points = [point for _, ends in pen.value for point in ends or [(0, 0)]]
    codes = [CODES[name] for name, ends in pen.value for _ in ends or [()]]
    return Path(numpy.reshape(points, (-1, 2)) / font.face.upem, codes)


@lru_cache(maxsize=1024)
def outline_line(line: str, other_font: str) -> tuple[Path, float, Bbox]:
    """Returns the outline of a shaped line, in ems from the left end of its baseline, its width, and the outline's box;
    a layout asks for each many times. `other_font` is as in `shape_line`."""
    glyphs, width = shape_line(line, other_font)
    paths = [
        outline_glyph(glyph.font, glyph.glyph_id).transformed(Affine2D().translate(glyph.x, glyph.y))
        for glyph in glyphs
    ]
    path = Path.make_compound_path(*paths)
    return path, width, path.get_extents()


class BengaliRenderer:
    """A renderer of matplotlib that measures and draws lines with Bengali by their outlines, and all else as it is.

    A line with Bengali is never taken for a formula: its dollars are dollars.
    """

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)

    def get_text_width_height_descent(
        self, s: str, prop: FontProperties, ismath: bool | str
    ) -> tuple[float, float, float]:
        """Returns the width and height of a line, and how far it reaches below its baseline, in pixels."""
        if not LETTER.search(s):
            return self._renderer.get_text_width_height_descent(s, prop, ismath)
        _, width, ink = outline_line(s, str(findfont(prop)))
        size = self._renderer.points_to_pixels(prop.get_size_in_points())
        return size * max(width, ink.x1), size * ink.height, size * -ink.y0

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: FontProperties, angle: float, **options: Any
    ) -> None:
        """Draws a line; x and y are the left end of its baseline in pixels, the angle is in degrees."""
        if not LETTER.search(s):
            return self._renderer.draw_text(gc, x, y, s, prop, angle, **options)
        path, *_ = outline_line(s, str(findfont(prop)))
        size = self._renderer.points_to_pixels(prop.get_size_in_points())
        height = self._renderer.get_canvas_width_height()[1]
        place = Affine2D().scale(size).rotate_deg(angle).translate(x, height - y if self._renderer.flipy() else y)
        gc.set_linewidth(0)
        self._renderer.draw_path(gc, path, place, gc.get_rgb())


class BengaliFigure(Figure):
    """A figure in which every text is shaped: titles, labels, ticks and legends, shown or saved, in any format."""

    def draw(self, renderer: Any) -> None:
        """Draws the figure."""
        shaping: Any = BengaliRenderer(renderer)
        super().draw(shaping)

    def get_tightbbox(self, renderer: Any = None, **options: Any) -> Bbox:
        """Returns the box of all that is drawn, in inches: a notebook shows no more than this."""
        shaping: Any = BengaliRenderer(renderer or self._get_renderer())
        return super().get_tightbbox(shaping, **options)

    def _get_renderer(self) -> BengaliRenderer:  # the layout measures texts with it
        figure: Any = super()
        return BengaliRenderer(figure._get_renderer())
