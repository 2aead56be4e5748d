"""The plots: two files each, the same again, drawn from data alone."""

import pytest

from helpers.evaluation.comparison import Score
from helpers.reporting.figures import BLUE, GREY, ORANGE, draw_loss, draw_scores, draw_topics, load_pyplot, save_figure
from helpers.reporting.report import write_report
from helpers.runs.record import Session


@pytest.fixture
def draw_once():
    """Draws every picture anew: here that is what is tested."""


def test_the_plots_of_a_page_come_out_the_same_again(run):
    names = ("training_loss", "eval_results", "sessions")
    write_report(run, 6)
    first = {name: (run / f"report/{name}.svg").read_bytes() for name in names}
    write_report(run, 6)
    assert first == {name: (run / f"report/{name}.svg").read_bytes() for name in names}


def test_the_plots_stand_beside_the_page_as_png_too(run):
    write_report(run, 6)
    for name in ("training_loss", "eval_results", "sessions"):
        assert (run / f"report/{name}.png").read_bytes()[:4] == b"\x89PNG", name


def test_a_picture_is_taken_from_another_page_if_it_is_the_same(kept_pictures, tmp_path):
    logs = [[{"epoch": 1.0, "loss": loss}] for loss in (1.0, 2.0, 1.0)]
    shown = [kept_pictures.save_figure(kept_pictures.draw_losses({"a": log}), tmp_path, "losses") for log in logs]
    assert shown[0] == shown[2] != shown[1]


@pytest.mark.parametrize("name", ["$x^2", "a_b$c$", "\\frac{1", "100 % $", "^_\\"])
def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is(name, tmp_path):
    score = {"value": 1.0, "low": 0.5, "high": 2.0, "floor": None, "better": "higher", "n": 3}
    topics = [{"label": label, "n": 3, "delta": {"chrf": score}} for label in (name, "শোক")]
    figure = draw_topics(topics)
    labels = figure.axes[0].get_yticklabels()
    assert labels[0].get_text() == f"{name} (3)"
    assert not any(label.get_parse_math() for label in labels), "a name would be read as a formula"
    assert b"<svg" in save_figure(figure, tmp_path, "topics")


def point_colours(figure):
    colours = [container.lines[0].get_color() for container in figure.axes[0].containers]
    load_pyplot().close(figure)
    return colours


def test_a_topic_has_the_colour_of_its_verdict():
    intervals = {"better": (0.5, 2.0), "worse": (-2.0, -0.5), "chance": (-1.0, 2.0)}
    delta = {"floor": None, "better": "higher", "n": 3}
    topics = [
        {"label": label, "n": 3, "delta": {"chrf": {"value": (low + high) / 2, "low": low, "high": high, **delta}}}
        for label, (low, high) in intervals.items()
    ]
    assert point_colours(draw_topics(topics)) == [BLUE, ORANGE, GREY]
    assert point_colours(draw_topics(topics, at_floor=True)) == [GREY] * 3


def test_the_panels_of_the_scores_stand_below_one_another():
    score = Score(value=2.0, low=1.0, high=3.0, floor=1.5, better="higher", n=9)
    figure = draw_scores({"base": {"chrf": score, "bleu": score}, "tuned": {"chrf": score, "bleu": score}})
    places = [axes.get_position() for axes in figure.axes]
    assert len({round(place.x0, 3) for place in places}) == 1
    assert figure.get_size_inches()[0] < 6, "too wide for a phone"
    load_pyplot().close(figure)


def test_the_loss_is_drawn_from_log_rows_alone():
    log = [{"step": step, "epoch": step / 4, "loss": 3 - step / 4, "learning_rate": 0.1} for step in range(1, 9)]
    sessions = [Session(stage="train", started="2026-01-01T00:00:00+00:00", from_step=step) for step in (0, 4)]
    figure = draw_loss([*log, {"step": 8, "epoch": 2.0, "eval_loss": 1.5}], sessions)
    above, below = figure.axes
    assert [line.get_label() for line in above.lines] == ["training", "validation", "a session resumed"]
    assert above.get_ylabel() == "loss, nats per token"
    assert list(below.lines[1].get_xdata()) == [4, 4], "the step at which the second session resumed"
    load_pyplot().close(figure)
