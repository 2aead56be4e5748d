"""Estimate against actual: each cause that a run has recorded is named where it is the likeliest, and none without."""

import copy
import re
from types import SimpleNamespace

import pytest
from page_text import PageText, unknown_numbers

from helpers.reporting import estimates
from helpers.reporting.estimates import (
    compare_estimates,
    describe_estimates,
    describe_kept_promise,
    estimate_facts,
    plan_rows,
)
from helpers.reporting.report import write_report
from helpers.reporting.words import LANGUAGES, Words
from helpers.runs.files import read_json, write_json
from helpers.runs.run_json import RunRecord, Session, StageRecord

HOURS = {"train": 7.0, "validate": 0.1, "evaluate": 2.5, "checkpoints": 0.1, "total": 9.7}
PLAN = {
    "hours": HOURS,
    "events": {"validations": 3.0, "checkpoints": 16.0, "micro_batches": 13000, "gpus": 2},
    "micro_batch_seconds": 0.25,
    "world_size": 2,
    "useful_token_fraction": 0.99,
    "arithmetic_per_useful_token": 0.68,
    "optimizer_steps": 1600,
    "tokens_per_second": 960.0,
    "replies_per_second": 0.5,
    "writing_share": 0.9,
    "peak_memory_gib": 13.0,
    "speed_from": "a T4's constants",
}
TRAINING = {
    **{name: PLAN[name] for name in ("useful_token_fraction", "arithmetic_per_useful_token", "optimizer_steps")},
    "seconds": {"train": 7 * 3600, "validate": 360, "checkpoints": 360, "load": 60},
    "events": {"validations": 3, "checkpoints": 16},
    "micro_batches": 13000,
    "micro_batch_limit": None,
    "tokens_per_second": 960.0,
    "peak_memory_gib": 13.0,
    "hours": 7.2 + 1 / 60,
    "plan": PLAN,
}
EVALUATION = {
    "seconds": {"likelihood": 1700, "replies": 16000, "load": 200, "benchmarks": 0},
    "processes": 2,
    "replies_per_second": {"base": 0.5, "tuned": 0.5},
    "max_new_tokens": 256,
}


def make_results(changes, train_hours=None, evaluation_hours=2.5, new_tokens=250, gpu="Tesla T4", loads=1):
    """Returns the results of a run as planned, but for `changes` by their way in its two metrics.json."""
    metrics = copy.deepcopy({"train": TRAINING, "evaluate": EVALUATION})
    for way, value in changes.items():
        *folders, name = way.split(".")
        place = metrics
        for folder in folders:
            place = place[folder]
        place[name] = value
    hours = {"train": train_hours or metrics["train"].get("hours", 0.0), "evaluate": evaluation_hours}
    sessions = [
        Session(
            stage=stage,
            started="2026-11-01T00:00:00+00:00",
            ended=f"2026-11-01T{int(h):02}:{round(h % 1 * 60):02}:00+00:00",
        )
        for stage, whole in hours.items()
        for h in [whole / loads] * loads
    ]
    last = {session.stage: session for session in sessions}
    stages = {
        stage: StageRecord(gpu=[gpu] if gpu else [], started=last[stage].started, ended=last[stage].ended)
        for stage in metrics
    }
    rows = [{"new_tokens": new_tokens}] * 4
    record = RunRecord(stages=stages, sessions=sessions)
    return SimpleNamespace(metrics=metrics, record=record, sessions=sessions, base=rows, tuned=rows, prefer={})


PREFERRED = {
    "seconds": {"train": 3600, "load": 60},
    "optimizer_steps": 30,
    "peak_memory_gib": 9.0,
    "plan": {
        "hours": {"reference": 0.1, "train": 1.0, "evaluate": 1.5, "total": 2.6},
        "optimizer_steps": 30,
        "peak_memory_gib": 9.5,
    },
}


def with_preferred(gpu="Tesla T4", **changes):
    """Returns the results of a run as planned whose preferred model was evaluated in 1.5 hours more."""
    results = make_results({"evaluate.preferred": {"chrf": 20}}, evaluation_hours=4.0)
    results.prefer, results.record.stages["prefer"] = PREFERRED | changes, StageRecord(gpu=[gpu] if gpu else [])
    return results


def test_a_third_model_is_in_the_estimate_of_the_evaluation():
    results = with_preferred()
    assert causes_of(results) == {}
    rows = {row["what"]: row for row in plan_rows(results, Words())}
    assert (rows[EVALUATED]["planned"], rows[EVALUATED]["ratio"]) == ("4.00 hours", "1.00")
    assert rows["time in all"]["planned"] == "11.20 hours"


def test_the_training_by_preferences_has_its_rows():
    rows = {row["what"]: row for row in plan_rows(with_preferred(), Words())}
    own = rows[estimates.PREFER_TIME]
    assert (own["planned"], own["actual"], own["ratio"]) == ("1.00 hours", "1.00 hours", "1.00")
    own = rows[estimates.PREFER_MEMORY]
    assert (own["planned"], own["actual"], own["ratio"]) == ("9.50", "9.00", "0.95")


def test_a_run_without_preferences_has_no_such_rows():
    labels = {row["what"] for row in plan_rows(make_results({}), Words())}
    assert not labels & {estimates.PREFER_TIME, estimates.PREFER_MEMORY}
    assert not {row["what"] for row in plan_rows(with_preferred(gpu=""), Words())} & {estimates.PREFER_TIME}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"seconds": {"train": 7200}}, "gpu"),
        ({"seconds": {"train": 7200}, "optimizer_steps": 60}, "steps"),
        ({"gpu": "NVIDIA L4", "seconds": {"train": 7200}}, "other_gpu"),
    ],
)
def test_a_training_by_preferences_that_took_longer_says_why(changes, cause):
    assert causes_of(with_preferred(**changes)) == {estimates.PREFER_TIME: cause}


def causes_of(results):
    return {facts["what"]: facts["cause"] for facts in estimate_facts(results) if "cause" in facts}


def slower(seconds):
    """Returns changes that make the steps take so many seconds, all else as planned."""
    return {
        "train.seconds.train": seconds,
        "train.hours": (seconds + 780) / 3600,
        "train.tokens_per_second": 960 * 25200 / seconds,
    }


@pytest.mark.parametrize("ratio", [0.85, 1.0, 1.15])
def test_within_a_fifth_of_the_estimate_no_cause_is_named(ratio):
    results = make_results(slower(25200 * ratio), evaluation_hours=2.5 * ratio)
    assert causes_of(results) == {}
    assert compare_estimates(results)[-1].ratio == pytest.approx(ratio, abs=0.02)


STEPS, TOKENS, EVALUATED = "time of training", "tokens per second", "time of evaluation"
PLANTED = [  # what is planted in the run's records, in which line it shows, and what it must be named
    ({**slower(36000), "train.useful_token_fraction": 0.70}, {}, (STEPS, TOKENS), "padding"),
    ({**slower(36000), "train.arithmetic_per_useful_token": 0.97}, {}, (STEPS, TOKENS), "recomputed"),
    ({**slower(36000), "train.micro_batches": 99000}, {}, (STEPS, TOKENS), "micro_batches"),
    ({"train.seconds.train": 12600, "train.hours": 3.8, "train.optimizer_steps": 800}, {}, (STEPS,), "steps"),
    (slower(40000), {}, (STEPS, TOKENS), "gpu"),
    (slower(40000), {"gpu": "NVIDIA L4"}, (STEPS, TOKENS), "other_gpu"),
    ({"train.seconds.validate": 3600, "train.events.validations": 30}, {}, ("time of validation",), "validations"),
    ({"train.seconds.validate": 3600}, {}, ("time of validation",), "unknown"),
    ({**slower(40000), "train.seconds.validate": 3600}, {}, ("time of validation",), "gpu"),
    ({**slower(16000), "train.seconds.validate": 3600}, {}, ("time of validation",), "unknown"),
    ({"train.seconds.validate": 10800, "train.hours": 10.2}, {}, ("time in all",), "part"),
    ({"train.seconds.checkpoints": 3600, "train.events.checkpoints": 160}, {}, ("time of checkpoints",), "checkpoints"),
    ({"train.seconds.checkpoints": 3600}, {}, ("time of checkpoints",), "disk"),
    ({}, {"evaluation_hours": 1.2, "new_tokens": 100}, (EVALUATED,), "replies"),
    ({"evaluate.processes": 1}, {"evaluation_hours": 5.0}, (EVALUATED,), "gpus"),
    ({"evaluate.seconds.load": 7200}, {"evaluation_hours": 3.4}, (EVALUATED,), "load"),
    ({"evaluate.seconds.benchmarks": 9000}, {"evaluation_hours": 3.7}, (EVALUATED,), "benchmarks"),
    ({}, {"evaluation_hours": 4.0}, (EVALUATED,), "scores"),
    ({"evaluate.seconds.replies": 28000}, {"evaluation_hours": 4.1}, (EVALUATED,), "gpu"),
    (
        {"evaluate.replies_per_second": {"base": 1.3, "tuned": 1.2}},
        {"new_tokens": 100},
        (estimates.REPLIES,),
        "replies",
    ),
    ({"train.seconds.load": 12000, "train.hours": 10.5}, {}, ("time in all",), "load"),
    ({}, {"train_hours": 11.0}, ("time in all",), "outside"),
    ({"train.peak_memory_gib": 9.0, "train.micro_batch_limit": 1024}, {}, ("peak memory per GPU, GiB",), "memory"),
    ({"train.peak_memory_gib": 9.0}, {}, ("peak memory per GPU, GiB",), "unknown"),
]


@pytest.mark.parametrize(
    ("changes", "run", "lines", "cause"), PLANTED, ids=[f"{own[2][0]} {own[3]}" for own in PLANTED]
)
def test_the_planted_cause_is_named(changes, run, lines, cause):
    named = causes_of(make_results(changes, **run))
    assert {line: named.get(line) for line in lines} == dict.fromkeys(lines, cause)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("changes", "run", "lines", "cause"), PLANTED, ids=[f"{own[2][0]} {own[3]}" for own in PLANTED]
)
def test_every_cause_is_a_sentence(changes, run, lines, cause, language):
    results = make_results(changes, **run)
    sentences = describe_estimates(results, Words(language))
    assert len(sentences) == len(causes_of(results)) >= len(lines)
    assert not [sentence for sentence in sentences if "None" in sentence or "{" in sentence]


def test_a_sentence_says_how_far_off_and_why():
    results = make_results({}, evaluation_hours=1.2, new_tokens=100)
    (sentence,) = describe_estimates(results, Words())
    assert sentence == (
        "time of evaluation: 0.48 times the estimate. Likeliest cause: the length of the replies, on average 39.1 % of "
        "the limit; the estimate takes every one to the limit."
    )


def test_what_explains_less_than_half_is_not_named():
    results = make_results({**slower(40000), "train.useful_token_fraction": 0.88})
    (steps,) = (facts for facts in estimate_facts(results) if facts["what"] == STEPS)
    assert (steps["cause"], steps["rate"]) == ("gpu", pytest.approx(0.63))


def test_all_hours_are_off_by_the_gpu_of_the_stage_that_is():
    results = make_results({"evaluate.seconds.replies": 50000}, evaluation_hours=7.0)
    total = estimate_facts(results)[-1]
    assert (total["what"], total["cause"], total["rate"]) == ("time in all", "gpu", pytest.approx(2.5 / 7))


def test_a_gpu_as_fast_as_planned_is_not_blamed():
    results = make_results({"train.seconds.validate": 10800, "train.hours": 10.2})
    assert describe_estimates(results, Words()) == [
        "time of validation: 30.00 times the estimate. Nothing that was recorded explains half of the difference.",
        "time in all: 1.31 times the estimate. Likeliest cause: the time of validation, which was 2.90 hours off its "
        "estimate.",
    ]


def test_resumes_are_counted_where_loading_is_the_cause():
    results = make_results({"evaluate.seconds.load": 7200}, evaluation_hours=3.4, loads=2)
    assert "(sessions: 2)" in describe_estimates(results, Words())[-1]


def test_an_earlier_runs_parts_are_not_measured():
    earlier = {"train": {"useful_token_fraction": 0.99, "hours": 12.0, "tokens_per_second": 600.0, "plan": PLAN}}
    results = make_results({})
    results.metrics["train"] = earlier["train"] | {"arithmetic_per_useful_token": 0.68, "plan": {"hours": HOURS}}
    results.metrics["evaluate"] = {"max_new_tokens": 256}
    rows = {row["what"]: row for row in plan_rows(results, Words())}
    for what in ("time of training", "time of validation", "time of checkpoints", estimates.REPLIES):
        assert (rows[what]["actual"], rows[what]["ratio"]) == ("not measured", "–"), what
    assert rows["time in all"]["actual"] == "14.50 hours"


def test_a_run_on_a_cpu_has_no_estimate():
    results = make_results(slower(90000), gpu="")
    assert compare_estimates(results) == []
    assert all("ratio" not in row and "time" not in row["what"] for row in plan_rows(results, Words()))


def test_the_table_has_estimate_actual_and_ratio():
    rows = {row["what"]: row for row in plan_rows(make_results(slower(40000)), Words())}
    assert rows["time of training"] == {
        "what": "time of training",
        "planned": "7.00 hours",
        "actual": "11.11 hours",
        "ratio": "1.59",
    }
    assert rows["tokens per second"]["ratio"] == "0.63"
    assert rows["peak memory per GPU, GiB"]["ratio"] == "1.00"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_of_a_gpu_has_ratios_and_causes(run, language):
    record, training = read_json(run / "run.json"), run.metrics("train")
    for stage in ("train", "evaluate"):
        record["stages"][stage]["gpu"] = ["Tesla T4"]
    training["plan"] |= {"hours": {name: 0.001 * hours for name, hours in HOURS.items()}, "tokens_per_second": 4000.0}
    write_json(run / "run.json", record)
    write_json(run / "train/metrics.json", training)
    write_json(run / "report/metrics.json", write_report(run, 6, language))
    page = PageText(run / "report/index.html")
    named = [facts for facts in read_json(run / "report/metrics.json")["estimates"] if "cause" in facts]
    assert (
        len(re.findall({"en": " times the estimate", "bn": "অনুমানের [০-৯.,]+ গুণ"}[language], page.text))
        == len(named)
        > 3
    )
    assert {"en": "ratio", "bn": "অনুপাত"}[language] in page.text
    table = (
        (run / "report/index.html")
        .read_text("utf-8")
        .partition(f"<h3>{Words(language).say('page.plan')}</h3>")[2]
        .partition("</table>")[0]
    )
    assert set(re.findall(r'<td[^>]* class="([^"]*)"[^>]*>[0-9০-৯]', table)) == {"n"}  # aligned as its column
    assert unknown_numbers(page, run.folder) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("hours", "killed", "sentence"),
    [(10.0, False, "kept"), (9.5, False, "broken"), (10.0, True, "unknown"), (9.5, True, "broken"), (0.0, False, "")],
)
def test_a_promise_of_hours_is_said_to_be_kept(hours, killed, sentence, language):
    results = make_results({"train.plan.promise": {"hours": hours} if hours else None})
    for facts in results.record.stages.values():
        facts.status = "finished"
    if killed:
        results.sessions.append(Session(stage="train", started="2026-11-01T00:00:00+00:00", ended="unknown"))
    words = Words(language)
    expected = words.say(f"page.promise_{sentence}", time=words.duration(9.7 + 1 / 60)) if sentence else ""
    assert describe_kept_promise(results, words) == expected


def test_a_promise_is_not_judged_before_the_end():
    results = make_results({"train.plan.promise": {"hours": 10.0}})
    results.record.stages["train"].status = "finished"
    results.record.stages["evaluate"].status = "paused"
    assert describe_kept_promise(results, Words()) == ""
