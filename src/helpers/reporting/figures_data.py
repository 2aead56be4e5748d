"""The pictures of 01_prepare_data: what each rule took, lengths, topics, groups, leaks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from helpers.reporting.figures import BLACK, BLUE, GREY, ORANGE, SKY, create_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.data.clean import FunnelStep
    from helpers.data.leaks import LeakCheck

WIDTH = 5.6  # inches: a phone shows it at two thirds, a notebook on a screen larger than life
GROUP_SIZES = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, 19), (20, 10**9))  # rows of a group, from and to
PERCENTILES = (50, 95, 99)


def draw_bars(names: Sequence[str], values: Sequence[float], texts: Sequence[str], unit: str, colour: str) -> "Figure":
    """Returns horizontal bars, the first on top, each with its value as a text behind it."""
    figure, axes = create_axes(figsize=(WIDTH, 0.7 + 0.27 * max(2, len(names))))
    axes.barh(range(len(names)), values, color=colour)
    write_behind_bars(axes, values, texts)
    label_bars(axes, names, unit)
    return figure


def label_bars(axes: "Axes", names: Sequence[str], unit: str) -> None:
    """Names the rows of a chart with horizontal bars, and its unit; says so where there are no rows."""
    axes.set_yticks(range(len(names)), [name[:48] for name in names])
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    axes.set_xlabel(unit)
    if not names:
        note_empty(axes)


def write_behind_bars(axes: "Axes", values: Sequence[float], texts: Sequence[str]) -> None:
    """Writes a text behind the end of each bar, and leaves room for it."""
    longest = max([*values, 0]) or 1
    for place, (value, text) in enumerate(zip(values, texts)):
        axes.text(value + 0.01 * longest, place, text, va="center", fontsize=8)
    axes.set_xlim(0, 1.22 * longest)


def note_empty(axes: "Axes") -> None:
    """Says in an empty chart that it is empty."""
    axes.text(0.5, 0.5, "nothing to show", ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_funnel(steps: "Sequence[FunnelStep]") -> "Figure":
    """Returns a bar per cleaning rule: the rows that it dropped, or changed."""
    values = [step.dropped or step.changed for step in steps]
    texts = [f"{step.dropped:,} dropped" if step.dropped else f"{step.changed:,} changed" for step in steps]
    texts = [text if value else "0" for text, value in zip(texts, values)]
    figure = draw_bars([step.rule for step in steps], values, texts, "rows", ORANGE)
    for bar, step in zip(figure.axes[0].patches, steps):
        bar.set_color(ORANGE if step.dropped else SKY)
    listed = ", ".join(f"{step.rule} {text}" for step, text in zip(steps, texts) if text != "0")
    figure.set_label(f"Bars: rows per cleaning rule: {listed or 'none was dropped or changed'}.")
    return figure


def describe_funnel(steps: "Sequence[FunnelStep]") -> str:
    """Returns in a sentence how many rows were dropped, and which rule took most."""
    rows, dropped = steps[0].rows_in if steps else 0, sum(step.dropped for step in steps)
    if not dropped:
        return f"None of the {rows:,} rows was dropped."
    most = max(step.dropped for step in steps)
    *others, last = [repr(step.rule) for step in steps if step.dropped == most]
    rules = f"the rules {', '.join(others)} and {last} each" if others else f"the rule {last}"
    ending = f"most, {most:,}, by {rules}"
    return f"{dropped:,} of {rows:,} rows were dropped ({dropped / rows:.1%}); {ending}."


def draw_topic_counts(counts: Mapping[str, int], most: int = 12) -> "Figure":
    """Returns a bar per topic, those with the most rows first; `counts` are rows by topic, in that order."""
    shown = [(topic or "none given", int(rows)) for topic, rows in counts.items()][:most]
    names, values = [topic for topic, _ in shown], [rows for _, rows in shown]
    figure = draw_bars(names, values, [f"{rows:,}" for rows in values], "rows", BLUE)
    listed = ", ".join(f"{topic} {rows:,}" for topic, rows in shown)
    figure.set_label(f"Bars: rows of the largest topics: {listed or 'none'}.")
    return figure


def draw_token_lengths(lengths: Sequence[int], max_length: int) -> "Figure":
    """Returns the histogram of the rows' lengths in tokens, with their percentiles and the cap."""
    import numpy

    values = numpy.asarray(lengths)
    figure, axes = create_axes(figsize=(WIDTH, 3))
    if not len(values):
        note_empty(axes)
        figure.set_label("Histogram of lengths: no rows.")
        return figure
    edges = numpy.geomspace(max(1, values.min()), max(values.max(), max_length) + 1, 45)
    axes.hist(values, bins=edges, color=BLUE, alpha=0.75)
    marks = {share: float(numpy.percentile(values, share)) for share in PERCENTILES}
    for place, (share, tokens) in enumerate(marks.items()):
        label = f"{share} % of the rows have at most {tokens:,.0f}"
        axes.axvline(tokens, color=BLACK, linestyle=("solid", "dashed", "dotted")[place], label=label)
    axes.axvline(max_length, color=ORANGE, linewidth=2, label=f"the cap: {max_length:,}")
    axes.set(xscale="log", xlabel="tokens per row", ylabel="rows")
    axes.set_axisbelow(True)
    ticks = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if edges[0] <= tick <= edges[-1]])
    axes.xaxis.set_major_formatter("{x:,.0f}")  # the default one writes powers as formulas, which the style leaves off
    axes.xaxis.set_minor_formatter("")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    alt = ", ".join(f"{share} % have at most {tokens:,.0f}" for share, tokens in marks.items())
    figure.set_label(f"Histogram of the rows' lengths in tokens: {alt}; the cap is {max_length:,}.")
    return figure


def describe_lengths(lengths: Sequence[int], max_length: int) -> str:
    """Returns in a sentence how many rows are over the cap, and how long the typical row is."""
    import numpy

    values = numpy.asarray(lengths)
    over = int((values > max_length).sum())
    if not len(values):
        return "There are no rows."
    typical = f"the median row has {numpy.median(values):,.0f} tokens, the longest {values.max():,}"
    return f"{over:,} of {len(values):,} rows are over the cap of {max_length:,} tokens; {typical}."


def draw_group_sizes(sizes: Sequence[int]) -> "Figure":
    """Returns a bar per size of group: the rows that stand in groups of so many rows."""
    names, values, texts = [], [], []
    for low, high in GROUP_SIZES:
        own = [size for size in sizes if low <= size <= high]
        if own or not names:
            size = f"{low}" if low == high else f"{low} or more" if high > 999 else f"{low}–{high}"
            names.append(f"{size} row{'s' * (high > 1)}")
            values.append(sum(own))
            texts.append(f"{sum(own):,} in {len(own):,} group{'s' * (len(own) != 1)}")
    figure = draw_bars(names, values, texts, "rows in groups of this size", BLUE)
    figure.set_label(f"Bars: rows by the size of their group: {'; '.join(map(': '.join, zip(names, texts)))}.")
    return figure


def draw_leaks(grouped: "LeakCheck", row_wise: "LeakCheck") -> "Figure":
    """Returns the share of held-out rows with a twin in another part, by kind of twin: by group, and row by row."""
    names = ["any of them", *row_wise.reasons]
    figure, axes = create_axes(figsize=(WIDTH, 1 + 0.55 * len(names)))
    shares = {}
    for label, check in (("split row by row", row_wise), ("split by group", grouped)):
        counts = [check.leaked, *(check.reasons.get(reason, 0) for reason in row_wise.reasons)]
        shares[label] = [100 * count / max(1, check.held_out) for count in counts]
    longest = max(max(values) for values in shares.values()) or 1
    for offset, colour, (label, values) in zip((-0.2, 0.2), (GREY, BLUE), shares.items()):
        places = [place + offset for place in range(len(names))]
        axes.barh(places, values, height=0.38, color=colour, label=label)
        for place, value in zip(places, values):
            axes.text(value + 0.01 * longest, place, f"{value:.1f} %", va="center", fontsize=8)
    label_bars(axes, names, "% of the held-out rows with a twin in another part")
    axes.set_xlim(0, 1.15 * longest)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35 if len(names) < 4 else -0.2), ncols=2)
    alt = [f"{label} {values[0]:.1f} %" for label, values in shares.items()]
    figure.set_label(f"Bars: held-out rows with a twin in another part: {', '.join(alt)}; and by kind of twin.")
    return figure


def draw_sizes(sizes: Mapping[str, int]) -> "Figure":
    """Returns a bar per thing that was written: its megabytes."""
    values = [size / 1e6 for size in sizes.values()]
    texts = [f"{value:,.1f} MB" for value in values]
    figure = draw_bars(list(sizes), values, texts, "MB", BLUE)
    figure.set_label(f"Bars: what was written: {', '.join(map(' '.join, zip(sizes, texts))) or 'nothing'}.")
    return figure
