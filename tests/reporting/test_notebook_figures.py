"""The notebooks' pictures, from small data: Bengali topics, names that look like formulas, one row, none."""

import math

import pytest

from helpers.data.clean import FunnelStep
from helpers.data.leaks import LeakCheck
from helpers.evaluation.comparison import Comparison
from helpers.models.families import SHAPES, count_parameters
from helpers.reporting.figures import BLACK, BLUE, GREY
from helpers.reporting.figures_data import (
    describe_funnel,
    describe_lengths,
    draw_funnel,
    draw_group_sizes,
    draw_leaks,
    draw_sizes,
    draw_token_lengths,
    draw_topic_counts,
)
from helpers.reporting.figures_scores import (
    chrf_changes,
    describe_breakdown,
    describe_row_changes,
    describe_verdict,
    draw_breakdown,
    draw_forest,
    draw_row_changes,
    forest_points,
    group_verdicts,
)
from helpers.reporting.figures_training import (
    adapter_parameters,
    compare_plan,
    describe_plan,
    describe_training,
    draw_adapter_share,
    draw_plan,
    draw_training,
)
from helpers.reporting.notebook_parts import picture

NAMES = ["স্মৃতিকাতরতা", "$x^2_a$", "a_b\\frac{1", "অপরাধবোধ ও ক্ষমা"]
STEPS = [FunnelStep("markup", 12, changed=3), FunnelStep("url", 12, dropped=2), FunnelStep("too short", 10, dropped=4)]
TWINS = {"the same question": 3, "a near-duplicate answer": 1}
T4S = ["Tesla T4", "Tesla T4"]
LOG = [{"step": step, "loss": 3 - step / 4, "learning_rate": 0.1, "grad_norm": 1.0} for step in range(1, 9)]


def make_score(value, low=None, high=None, floor=None, better="higher", n=9):
    bounds = {"low": value if low is None else low, "high": value if high is None else high}
    return {"value": value, **bounds, "floor": floor, "better": better, "n": n}


def make_comparison(**deltas):
    """Returns a comparison whose base scores are 10, from {score: (difference, low, high, tuned model's floor)}."""
    sides = {"base": {}, "tuned": {}, "delta": {}}
    for name, (value, low, high, floor) in deltas.items():
        better = "lower" if name == "perplexity" else "higher"
        sides["base"][name] = make_score(10.0, better=better)
        sides["tuned"][name] = make_score(10.0 + value, 10 + low, 10 + high, floor, better)
        sides["delta"][name] = make_score(value, low, high, None, better)
    return Comparison(**sides)


SCORES = make_comparison(
    perplexity=(-4, -5, -3, None), chrf=(2, 1, 3, 11.5), bleu=(1, -1, 2, 10.0), graded=(-2, -3, -1, None)
)


def make_group(label, chrf=(1, 0.5, 2), perplexity=(-3, -4, -2), n=5):
    delta = {"chrf": make_score(*chrf), "perplexity": make_score(*perplexity, better="lower")}
    return {"label": label, "n": n, "delta": delta}


FIGURES = {
    "funnel": lambda: draw_funnel(STEPS),
    "funnel of nothing": lambda: draw_funnel([]),
    "funnel without a hit": lambda: draw_funnel([FunnelStep("url", 3)]),
    "topics": lambda: draw_topic_counts(dict.fromkeys([*NAMES, ""], 3)),
    "no topics": lambda: draw_topic_counts({}),
    "one topic": lambda: draw_topic_counts({"শোক": 1}),
    "lengths": lambda: draw_token_lengths([10, 100, 2000], 1024),
    "no lengths": lambda: draw_token_lengths([], 1024),
    "one length": lambda: draw_token_lengths([7], 1024),
    "groups": lambda: draw_group_sizes([1, 1, 2, 3, 30]),
    "no groups": lambda: draw_group_sizes([]),
    "leaks": lambda: draw_leaks(LeakCheck(10, 0, dict.fromkeys(TWINS, 0)), LeakCheck(10, 4, TWINS)),
    "no leaks": lambda: draw_leaks(LeakCheck(0, 0, {}), LeakCheck(0, 0, {})),
    "sizes": lambda: draw_sizes({"adapter": 3_000_000, "gguf q4_k_m": 1}),
    "no sizes": lambda: draw_sizes({}),
    "adapter": lambda: draw_adapter_share(SHAPES["embedded"], {"r": 8, "target_modules": ["q_proj", "v_proj"]}),
    "training": lambda: draw_training([*LOG, {"step": 8, "eval_loss": 1.5}]),
    "training of one step": lambda: draw_training(LOG[:1]),
    "no training": lambda: draw_training([]),
    "plan": lambda: draw_plan([{"what": "hours", "planned": "1", "measured": "2", "ratio": 2.0}]),
    "no plan": lambda: draw_plan(compare_plan({}, {}, [])),
    "forest": lambda: draw_forest(SCORES),
    "no scores": lambda: draw_forest(Comparison(base={}, tuned={}, delta={})),
    "breakdown": lambda: draw_breakdown([make_group(name) for name in NAMES]),
    "breakdown of one group": lambda: draw_breakdown([make_group("$", n=1)]),
    "no breakdown": lambda: draw_breakdown([]),
    "rows": lambda: draw_row_changes([1.5, -2.0, 0.0]),
    "one row": lambda: draw_row_changes([0.0]),
    "no rows": lambda: draw_row_changes([]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_each_picture_says_what_it_shows(name):
    figure = FIGURES[name]()
    about = figure.get_label()
    assert about.endswith("."), f"{name}: a picture needs a text for those who cannot see it: {about!r}"
    shown = picture(figure, "A sentence.").html
    assert "data:image/svg+xml;base64," in shown
    assert ">A sentence.</figcaption>" in shown


def test_a_topic_is_drawn_as_it_is_written():
    figure = draw_topic_counts(dict.fromkeys(NAMES, 2))
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == NAMES
    assert not any(label.get_parse_math() for label in labels), "a name would be read as a formula"


def test_a_conjunct_in_a_picture_is_shaped():
    """Shaped, the five letters of ক্ষমা's first half are one outline: the same picture without the virama differs."""
    from matplotlib.font_manager import FontProperties, findfont

    from helpers.reporting.bengali_text import shape_line

    figure = draw_topic_counts({"ক্ষ": 1})
    font = FontProperties(family=figure.axes[0].get_yticklabels()[0].get_fontfamily())
    assert len(shape_line("ক্ষ", str(findfont(font)))[0]) == 1
    assert type(figure).__name__ == "BengaliFigure"
    picture(figure)


def test_a_plan_is_held_against_the_gpu_it_was_calibrated_on():
    plan = {"hours": {"train": 2.0}, "speed_from": "calibration.json, NVIDIA L4, 2026-11-30"}
    rows = compare_plan(plan, {"hours": 2.2}, ["NVIDIA L4"])
    assert "was right" in describe_plan(rows, ["NVIDIA L4"])
    elsewhere = compare_plan(plan, {"hours": 2.2}, ["NVIDIA L40S"])
    assert "cannot be told here" in describe_plan(elsewhere, ["NVIDIA L40S"])


def test_the_funnel_names_the_rule_that_took_most():
    assert describe_funnel(STEPS) == "6 of 12 rows were dropped (50.0%); most, 4, by the rule 'too short'."
    tied = [*STEPS, FunnelStep("signature", 6, dropped=4), FunnelStep("list cell", 2, dropped=4)]
    assert describe_funnel(tied).endswith("most, 4, by the rules 'too short', 'signature' and 'list cell' each.")
    assert describe_funnel([FunnelStep("url", 3)]) == "None of the 3 rows was dropped."


def test_a_bar_of_the_funnel_is_as_long_as_its_rows():
    figure = draw_funnel(STEPS)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [3, 2, 4]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["3 changed", "2 dropped", "4 dropped"]
    picture(figure)


def test_the_lengths_are_marked_at_percentiles_and_cap():
    figure = draw_token_lengths([*range(1, 101), 5000], 1024)
    lines = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines}
    assert lines["50 % of the rows have at most 51"] == 51
    assert lines["the cap: 1,024"] == 1024
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert "1,000" in ticks
    assert not any("$" in tick for tick in ticks)
    assert describe_lengths([1, 5000], 1024).startswith("1 of 2 rows are over the cap of 1,024 tokens")
    picture(figure)


def test_the_leak_of_both_splits_stands_side_by_side():
    figure = draw_leaks(LeakCheck(10, 0, dict.fromkeys(TWINS, 0)), LeakCheck(10, 4, TWINS))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [40.0, 30.0, 10.0, 0.0, 0.0, 0.0]
    picture(figure)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_the_adapters_parameters_by_matrix_add_up(targets):
    lora = {"r": 16, "target_modules": targets}
    parts = adapter_parameters(SHAPES["embedded"], lora)
    assert sum(parts.values()) == count_parameters(SHAPES["embedded"], lora)["trainable"]


def test_the_course_of_a_training_has_three_panels():
    figure = draw_training([*LOG, {"step": 8, "eval_loss": 1.5}])
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss, nats per token", "learning\nrate", "gradient\nnorm"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["training", "validation"]
    picture(figure)


def test_a_training_by_preferences_shows_its_margin():
    figure = draw_training([*({**entry, "rewards/margins": 0.1} for entry in LOG), {"step": 8, "eval_margin": 0.2}])
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["loss", "margin of\nrewards", "learning\nrate", "gradient\nnorm"]
    assert [line.get_label() for line in figure.axes[1].lines] == ["training", "validation"]
    picture(figure)


@pytest.mark.parametrize(
    ("losses", "ending"),
    [
        ((1.5, 1.25, 1.5), "it had risen again when the training stopped."),
        ((1.255, 1.25, 1.2505), "hardly helped on held-out rows."),
        ((2.0, 1.5, 1.25), "still improving when it stopped."),
        ((2.0, 1.25, 1.25), "no longer improving when it stopped."),
        ((2.0,), "whether it would have improved further cannot be told."),
    ],
)
def test_the_course_of_the_validation_loss_is_said(losses, ending):
    log = [*LOG, *({"step": 2 + 3 * place, "eval_loss": loss} for place, loss in enumerate(losses))]
    assert describe_training(log).endswith(ending)


def test_the_best_validation_is_named_with_its_step():
    log = [*LOG, *({"step": step, "eval_loss": loss} for step, loss in ((2, 5.689), (5, 5.65469), (8, 5.65523)))]
    assert "5.689 at first (step 2), 5.655 at best (step 5) and 5.655 at the end (step 8)" in describe_training(log)


def test_the_training_loss_is_a_mean_of_several_steps():
    log = [{"step": step, "epoch": step / 4, "loss": float(step)} for step in range(1, 13)]
    assert describe_training(log).startswith(
        "The training loss went from 3.000 (mean of the first 5 logged steps) to 10.500 nats per token (mean of the "
    )


def test_the_last_validation_is_told_once():
    log = [*LOG, {"step": 4, "eval_loss": 1.5}, *[{"step": 8, "eval_loss": 1.25}] * 2]
    figure = draw_training(log)
    assert "validation loss 1.500, 1.250;" in figure.get_label()
    picture(figure)


def test_what_was_not_measured_has_no_ratio():
    plan = {"hours": {"train": 2.0}, "tokens_per_second": 100.0, "peak_memory_gib": None, "optimizer_steps": 4}
    rows = {row["what"]: row for row in compare_plan(plan, {"hours": 3.0, "tokens_per_second": math.inf}, T4S)}
    assert rows["hours of training"]["ratio"] == 1.5
    assert rows["tokens per second"]["ratio"] is None
    assert rows["peak memory per GPU, GiB"]["measured"] == "not known"


@pytest.mark.parametrize(("hours", "verdict"), [(2.2, "right"), (4.0, "too low"), (1.0, "too high")])
def test_the_estimate_is_judged_on_the_gpus_that_it_is_for(hours, verdict):
    rows = compare_plan({"hours": {"train": 2.0}}, {"hours": hours}, T4S)
    assert describe_plan(rows, T4S) == (
        f"The estimate was {verdict}: the training took {hours / 2:.2f} times the planned hours."
    )


@pytest.mark.parametrize("gpus", [[], ["NVIDIA H200"]])
def test_an_estimate_for_t4s_is_not_judged_elsewhere(gpus):
    rows = compare_plan({"hours": {"train": 2.0}, "optimizer_steps": 4}, {"hours": 3.0, "optimizer_steps": 4}, gpus)
    assert "hours of training" not in {row["what"] for row in rows}
    assert describe_plan(rows, gpus).startswith("It cannot be told here: the estimate is for T4s")


def test_better_is_to_the_right_whatever_the_direction():
    low, value, high, _ = forest_points(SCORES, "perplexity")
    assert (low, value, high) == (0.6, 0.8, 1.0)
    assert forest_points(SCORES, "graded")[1] < 0


def test_the_floor_stands_where_shuffled_references_score():
    _, value, high, floor = forest_points(SCORES, "chrf")
    assert (value, high) == (2 / 3, 1.0)
    assert floor == pytest.approx(1.5 / 3)


def test_the_verdict_counts_each_score_once():
    verdicts = group_verdicts(SCORES)
    assert verdicts == {
        "better": ["perplexity of the answers"],
        "worse": ["graded rubric"],
        "at the floor": ["chrF++"],
        "no clear difference": ["BLEU (intl)"],
    }
    assert describe_verdict(SCORES).startswith("Of 4 scores on 9 rows, tuned against base: 1 better, 1 worse, 1 at the")


def test_a_group_that_got_worse_is_named():
    groups = [make_group("শোক"), make_group("ভয়", chrf=(-2, -3, -1)), make_group("রাগ", chrf=(0, -1, 1))]
    expected = (
        "By chrF++ the tuned model is clearly better in 1 of 3 groups, clearly worse in 1; least gain: ভয়, -2.00."
    )
    assert describe_breakdown(groups) == expected


def test_a_group_is_not_better_by_a_score_at_its_floor():
    groups = [make_group("শোক"), make_group("ভয়", chrf=(-1, -2, 0.5))]
    assert describe_breakdown(groups, at_floor=True) == (
        "chrF++ rose in 1 of 2 groups, but as a whole its interval reaches down to its floor: this shows nothing."
    )
    figure = draw_breakdown(groups, at_floor=True)
    colours = [{line.get_color() for line in axes.lines} - {BLACK} for axes in figure.axes]
    assert colours == [{GREY}, {BLUE}], "chrF++ shows nothing, perplexity has no floor"
    picture(figure)


def test_the_rows_that_lost_are_counted():
    rows = {"a": {"base_chrf": "3.0", "tuned_chrf": "1.0"}, "b": {"base_chrf": "1.0", "tuned_chrf": "4.0"}, "c": {}}
    changes = chrf_changes(rows)
    assert changes == [-2.0, 3.0]
    assert (
        describe_row_changes(changes) == "The tuned reply scores below the base model's on 1 of 2 rows; by 2.0 at most."
    )
    figure = draw_row_changes(changes)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [-2.0, 3.0]
    picture(figure)
