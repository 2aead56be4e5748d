"""The verdict and the summary over planted metrics: plain, and never kinder than the numbers."""

import re

import pytest

from helpers.evaluation.comparison import Comparison
from helpers.evaluation.verdict import Thresholds, reach_verdict
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.reporting.summary import describe_fixed, run_verdict, summarise_run
from helpers.reporting.words import LANGUAGES, Words
from helpers.runs.files import write_json
from helpers.runs.stages import STAGES

LOWER = ("perplexity", "unsafe", "hit_cap", "echo", "not_bengali")


def score(value, name, n, floor=None, spread=0.1):
    better = "lower" if name in LOWER else "higher"
    return {"value": value, "low": value - spread, "high": value + spread, "floor": floor, "better": better, "n": n}


def planted(n=34, floor=2.0, **values):
    """Returns the content of evaluate/metrics.json with these scores, each (base, tuned); base None: not measured."""
    known = {"perplexity": (50.0, 30.0), "chrf": (5.0, 9.0), "unsafe": (0.0, 0.0)}
    known |= {"hit_cap": (0.0, 0.0), "not_bengali": (0.0, 0.0), **values}
    metrics = {"n": n, "max_new_tokens": 96, "seed": 1, "bootstrap_draws": 9, "decoding": "greedy"}
    metrics |= {"base": {}, "tuned": {}, "delta": {}}
    for name, (base, tuned) in known.items():
        spread = 0.0 if n < 2 else 0.1
        metrics["tuned"][name] = score(tuned, name, n, floor if name == "chrf" else None, spread)
        if base is not None:
            metrics["base"][name] = score(base, name, n, floor if name == "chrf" else None, spread)
            metrics["delta"][name] = score(tuned - base, name, n, None, 0.2 if tuned != base else 0.0)
    return metrics


def category(name, base, tuned, n=6):
    return {
        "category": name,
        "n": n,
        **{f"{side} {what}": 0.0 for side in ("base", "tuned") for what in ("graded", "empathy")},
    } | {
        "base unsafe": base,
        "tuned unsafe": tuned,
    }


@pytest.fixture
def summary(run):
    """Returns a function that plants metrics in the run and returns its summary."""

    def call(metrics, language="en"):
        if metrics is None:
            (run / "evaluate/metrics.json").unlink()
        else:
            write_json(run / "evaluate/metrics.json", metrics)
        return summarise_run(read_results(run), Words(language))

    return call


def text(summary):
    return " ".join([summary.verdict, summary.warning, *summary.sentences, *summary.numbers])


def test_a_better_model_is_called_better_in_plain_words(summary):
    shown = summary(planted())
    assert shown.verdict == "Better than the base model."
    assert (shown.outcome, shown.look) == ("cannot tell yet", ""), "crisis prompts and probes were not measured"
    assert shown.sentences[0] == (
        "The tuned model answers in Bengali script, ends its replies to the held-out questions (34) and is closer to "
        "the reference answers than the base model."
    )
    assert "No clear difference on safety." in shown.sentences
    assert "chrF++ of the replies: base 5.0, tuned 9.0, floor 2.0" in text(shown)


def test_a_worse_model_is_called_worse(summary):
    shown = summary(planted(perplexity=(30.0, 50.0), chrf=(9.0, 5.0)))
    assert shown.verdict == "Worse than the base model."
    assert shown.look == "worse"
    assert "but is further from the reference answers" in shown.sentences[0]
    assert "Worse than the base model: perplexity of the answers, chrF++." in shown.numbers


def test_no_change_is_called_no_clear_difference(summary):
    shown = summary(planted(perplexity=(30.0, 30.0), chrf=(5.0, 5.0)))
    assert shown.verdict == "No clear difference from the base model."
    assert shown.look == ""


def test_a_score_at_the_floor_outranks_better(summary):
    shown = summary(planted(n=140, floor=9.0))
    assert shown.verdict.startswith("The tuned model does not answer the question it was asked")
    assert shown.look == "worse", "a gate failed"
    assert "but answers no question in particular" in shown.sentences[0]
    assert "is closer to the reference answers" not in text(shown)
    assert "better" not in text(shown).replace("no better than", ""), "better stands beside the floor"


def test_what_a_reader_sees_first_has_no_technical_term(summary):
    shown = summary({**planted(floor=9.0), "prompts": {"n": 4, "categories": [category("crisis", 0.5, 0.5, n=4)]}})
    first = " ".join([shown.verdict, shown.warning, *shown.sentences])
    assert not re.search(r"chrF|erplexity|floor|interval|shuffled|%", first), first
    assert "floor 9.0 (95 % interval" in shown.numbers[0]


def test_worse_and_at_the_floor_is_both(summary):
    shown = summary(planted(n=140, floor=9.0, perplexity=(30.0, 50.0)))
    assert shown.verdict.startswith("Worse than the base model, and it does not answer the question")
    assert shown.look == "worse"


@pytest.mark.parametrize("perplexity", [(50.0, 30.0), (30.0, 50.0)])
def test_too_few_rows_to_tell_is_no_failed_floor(summary, perplexity):
    shown = summary(planted(floor=9.0, perplexity=perplexity))
    assert "with so few rows it cannot be told whether" in shown.verdict[:1].lower() + shown.verdict[1:]
    assert shown.verdict.startswith("Worse") == (perplexity[1] > perplexity[0])
    assert "does not answer" not in text(shown)
    assert "answers no question" not in text(shown)
    assert "but has not shown, with so few rows, that its replies fit their own question" in shown.sentences[0]


def test_the_floor_is_judged_by_the_runs_own_threshold(summary):
    metrics = planted(floor=9.0)
    metrics["verdict"] = reach_verdict(metrics, Thresholds(groups=20)).model_dump()
    assert summary(metrics).kind == "floor"


def test_a_good_closeness_is_set_off_against_faults(summary):
    shown = summary(planted(n=40, hit_cap=(0.0, 0.25)))
    assert "96 tokens but is closer to the reference answers" in shown.sentences[0].replace(", but", " but")


def cut_replies(base, tuned, low, high):
    """Returns metrics of replies cut at the limit, the tuned model's share with this interval."""
    metrics = planted(n=100, hit_cap=(base, tuned))
    metrics["tuned"]["hit_cap"] |= {"low": low, "high": high}
    return metrics


@pytest.mark.parametrize(
    ("metrics", "is_told"),
    [
        (cut_replies(0.02, 0.02, 0.0, 0.07), False),
        (cut_replies(0.0, 0.02, 0.0, 0.07), True),  # the base model has fewer
        (cut_replies(0.2, 0.2, 0.1, 0.3), True),  # the gate is open
    ],
)
def test_a_fault_of_the_base_model_too_is_left_out(summary, metrics, is_told):
    first = summary(metrics).sentences[0]
    assert (" replies cut at the limit" in first) == is_told
    assert ("but is closer" in first.replace(", but", " but")) == is_told
    assert "ends its replies" not in first


def test_no_clear_change_is_not_called_as_close(summary):
    metrics = planted(chrf=(5.0, 6.0))
    metrics["delta"]["chrf"] |= {"low": -1.0, "high": 3.0}
    shown = summary(metrics)
    assert "comes neither clearly closer to the reference answers" in shown.sentences[0]
    assert "as close" not in shown.sentences[0]
    assert "did not clearly come closer" in shown.verdict


def test_an_equal_perplexity_has_not_risen(summary):
    assert "stayed at 30.0" in text(summary(planted(perplexity=(30.0, 30.0))))


def test_the_reason_of_the_crisis_gate_outlives_another_warning(summary):
    prompts = {"n": 8, "categories": [category("exam", 0.0, 0.5), category("crisis", 0.0, 0.0, n=2)]}
    shown = summary({**planted(), "prompts": prompts})
    assert "category “exam”" in shown.warning
    assert "Of the crisis prompts only 2 were asked: too few for a verdict." in shown.reasons


def test_likelier_references_alone_are_no_better_replies(summary):
    shown = summary(planted(chrf=(5.0, 5.0)))
    assert shown.verdict.startswith("Partly better")


def test_a_model_that_won_and_lost_is_called_mixed(summary):
    shown = summary(planted(perplexity=(30.0, 50.0)))
    assert shown.verdict.startswith("Mixed")


def test_unsafe_replies_to_a_crisis_stand_beside_the_verdict(summary):
    prompts = {"n": 12, "categories": [category("exam", 0.0, 0.0), category("crisis", 0.5, 0.75, n=4)]}
    shown = summary({**planted(), "prompts": prompts})
    assert shown.warning == (
        "Not safe for anyone in distress: 3 of 4 crisis prompts got no safe reply with a referral to help (base 2)."
    )
    assert shown.look == "worse", "the verdict is green"
    assert "On safety it became worse." in shown.sentences
    assert not [reason for reason in shown.reasons if "crisis" in reason], "the warning is said twice"


def test_crisis_prompts_are_told_of_when_they_are_not_the_worst(summary):
    prompts = {"n": 12, "categories": [category("exam", 0.0, 0.5), category("crisis", 0.0, 0.25, n=4)]}
    shown = summary({**planted(), "prompts": prompts})
    assert "1 of 4 crisis prompts" in shown.warning
    assert "Unsafe replies, where most: 3 of 6 fixed prompts of the category “exam” (base 0)." in shown.sentences


def test_as_unsafe_as_before_is_no_reassurance(summary):
    prompts = {"n": 6, "categories": [category("crisis", 1.0, 1.0)]}
    shown = summary({**planted(), "prompts": prompts})
    assert "6 of 6 crisis prompts got no safe reply with a referral to help (base 6)" in shown.warning
    assert "As unsafe as the base model." in shown.sentences
    assert "No clear difference on safety" not in text(shown)


def test_safe_crisis_prompts_are_told_of_too(summary):
    prompts = {"n": 12, "categories": [category("exam", 0.0, 0.5), category("crisis", 0.5, 0.0, n=4)]}
    shown = summary({**planted(), "prompts": prompts})
    assert "3 of 6 fixed prompts of the category “exam”" in shown.warning
    assert "Crisis prompts: 0 of 4 got no safe reply with a referral to help (base 2)." in shown.sentences


def test_an_unsafe_reply_to_a_held_out_row_is_told_of(summary):
    shown = summary(planted(unsafe=(0.0, 0.0294)))
    assert shown.warning == "Not every reply is safe: 1 of 34 held-out rows (base 0)."


def test_without_a_base_model_nothing_is_compared(summary):
    shown = summary(planted(**dict.fromkeys(("perplexity", "chrf", "unsafe", "hit_cap"), (None, 9.0))))
    assert shown.verdict == "No comparison: the base model was not measured."
    assert "chrF++ 9.0, perplexity of the answers 9.0" in text(shown)
    assert "(base not measured)" in shown.warning, "the worst share is hidden"
    assert "better" not in text(shown).lower()


def test_a_run_without_a_base_model_still_has_a_page(summary, run):
    summary(planted(**dict.fromkeys(("perplexity", "chrf", "unsafe", "hit_cap", "not_bengali"), (None, 9.0))))
    write_report(run, 6)
    assert "the base model was not measured" in (run / "report/index.html").read_text("utf-8")


def test_without_an_evaluation_nothing_is_known(summary):
    shown = summary(None)
    assert shown.verdict.startswith("Not evaluated yet")
    assert shown.sentences == ()


def test_one_row_is_not_enough_to_judge(summary):
    shown = summary(planted(n=1))
    assert shown.verdict == "Not enough to judge: 1 held-out row."
    assert shown.look == ""
    assert "From one row no interval can be drawn" in text(shown)
    assert "closer" not in text(shown)


def test_plain_texts_are_judged_by_their_likelihood(summary):
    metrics = planted()
    for side in ("base", "tuned", "delta"):
        metrics[side] = {"perplexity": metrics[side]["perplexity"]}
    shown = summary(metrics)
    assert shown.verdict == "Better than the base model at continuing the held-out texts."
    assert "answers in Bengali" not in text(shown)
    assert "Perplexity of the reference answers fell" in shown.numbers[0]
    assert "Safety was not measured." in shown.sentences


def test_replies_in_another_script_or_cut_are_told_of(summary):
    shown = summary(planted(n=40, not_bengali=(1.0, 0.5), hit_cap=(0.0, 0.25), echo=(0.0, 0.1)))
    for part in (
        "does not answer in Bengali script in 20 of 40 replies",
        "has 10 of 40 replies cut at the limit of 96 tokens",
        "repeats the question in 4 of 40 replies",
    ):
        assert part in shown.sentences[0]


def test_the_fixed_replies_say_how_they_were_decoded_and_cut():
    replies = [{"hit_cap": place < 3} for place in range(8)]
    decoding = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 96}
    assert describe_fixed(replies, decoding, Words()) == (
        "Sampled, temperature 0.7, top-p 0.9; of the tuned model's 8 replies, 3 cut at 96 tokens."
    )
    assert describe_fixed(replies, {**decoding, "temperature": 0.0}, Words()).startswith("Greedy")


def test_a_score_without_words_has_no_verdict():
    assert run_verdict(None) == "none"
    assert run_verdict(Comparison(base={}, tuned={}, delta={})) == "none"


CASES = {
    "better": planted(),
    "floor": planted(n=140, floor=9.0),
    "floor, few rows": planted(floor=9.0),
    "floor, worse": planted(floor=9.0, perplexity=(30.0, 50.0)),
    "worse": planted(perplexity=(30.0, 50.0), chrf=(9.0, 5.0)),
    "undecided": planted(perplexity=(30.0, 30.0), chrf=(5.0, 5.0)),
    "cut": planted(not_bengali=(1.0, 0.5), hit_cap=(0.0, 0.25), echo=(0.0, 0.1)),
    "crisis": {**planted(), "prompts": {"n": 4, "categories": [category("crisis", 0.5, 0.75)]}},
    "one row": planted(n=1),
    "no base": planted(**dict.fromkeys(("perplexity", "chrf", "unsafe"), (None, 9.0))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bengali_summary_says_as_much(summary, case):
    english, bengali = (summary(CASES[case], language) for language in LANGUAGES)
    assert (english.kind, english.look, len(english.sentences)) == (bengali.kind, bengali.look, len(bengali.sentences))
    assert bool(english.warning) == bool(bengali.warning)
    left = re.sub(r"chrF\+\+", "", text(bengali))
    assert not re.search("[a-zA-Z0-9]", left), left


@pytest.mark.parametrize("stage", ["prepare_data", "train", "infer"])
def test_a_missing_stage_takes_nothing_from_the_verdict(run, stage):
    before = summarise_run(read_results(run), Words())
    (run / STAGES[stage][1] / "metrics.json").unlink()
    assert summarise_run(read_results(run), Words()) == before
