"""The verdict as the page shows it: first, in plain words, with its gates, in both languages."""

import html
import re

import pytest

from helpers.evaluation.verdict import OUTCOMES, PEOPLE, VERSION, Check, Thresholds, Verdict, reach_verdict
from helpers.reporting.decision import NEEDED, changed_thresholds, describe_check, gate_rows, read_verdict
from helpers.reporting.report import write_report
from helpers.reporting.words import LANGUAGES, Words, read_texts
from helpers.runs.files import read_json, write_json

NEVER = {"groups_failed"}  # too few groups are not the model's fault


def test_every_check_has_its_words_for_every_outcome():
    keys = {f"{name}_{outcome}" for name in NEEDED for outcome in OUTCOMES} - NEVER
    assert {*read_texts("en")["check"]} == keys | {"unmeasured", "bits_per_char_worse"}
    computed = {check.name for check in reach_verdict({}, Thresholds()).checks}
    assert {*read_texts("en")["checked"]} == {*NEEDED} == computed | {PEOPLE}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_reason_is_a_sentence_without_technical_terms(language, name, outcome):
    if f"{name}_{outcome}" in NEVER:
        return
    check = Check(
        gate="replies", name=name, outcome=outcome, value=0.25, low=0.2, high=0.3, threshold=0.1, base=0, n=40
    )
    text = describe_check(check, Words(language))
    assert not re.search(r"[{}]|chrF|bits|interval|p-value|ব্যবধান", text)
    assert text.endswith("।" if language == "bn" else ".")


@pytest.mark.parametrize(
    ("name", "value", "language", "shown"),
    [
        ("unsafe_rows", 0.125, "en", "+12.5 percentage points (+11.5 to +13.5)"),
        ("unsafe_rows", -0.125, "bn", "-১২.৫ শতাংশ বিন্দু (-১৩.৫ থেকে -১১.৫)"),
        ("text_en", 0.05, "en", "+5 % (+4 % to +6 %)"),
        ("echo", 0.1, "en", "10 % (9 % to 11 %)"),
        ("echo", 0.1, "bn", "১০ % (৯ % থেকে ১১ %)"),
        ("bits_per_char", -0.1, "en", "-0.100 (-0.110 to -0.090)"),
        ("abilities_en", -1e-17, "en", "0 percentage points (-1 to +1)"),
    ],
)
def test_a_measured_number_has_its_unit_sign_and_interval(name, value, language, shown):
    check = Check(
        gate="rows", name=name, outcome="open", value=value, low=value - 0.01, high=value + 0.01, threshold=0, n=9
    )
    verdict = Verdict(verdict="cannot tell yet", checks=[check], thresholds=Thresholds())
    assert gate_rows(verdict, Words(language))[0]["measured"] == shown


def test_a_changed_threshold_is_named_with_the_usual_one():
    changed = changed_thresholds(reach_verdict({}, Thresholds(gain=0.02, faults=0.25)), Words())
    assert changed == [
        ("smallest gain in bits per character 0.020 instead of 0.010", "gain"),
        ("replies that are cut, repeat the question or are not in Bengali, at most 25 % instead of 10 %", "faults"),
    ]
    assert changed_thresholds(reach_verdict({}, Thresholds()), Words()) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_threshold_that_can_change_has_its_words(language):
    other = Thresholds(groups=7, gain=0.7, faults=0.7, distinct2=0.7, unsafe=0.7, lost=0.7)
    changed = changed_thresholds(reach_verdict({}, other), Words(language))
    assert [key for _, key in changed] == [*Thresholds.model_fields]
    assert len({text for text, _ in changed}) == len(changed)


def test_the_page_has_a_thresholds_key_in_code_type_only(run):
    metrics = read_json(run / "evaluate/metrics.json")
    metrics["verdict"]["thresholds"]["lost"] = 0.3
    write_json(run / "evaluate/metrics.json", metrics)
    write_report(run, 2)
    box = (run / "report/index.html").read_text(encoding="utf-8").partition('<div class="verdict')[2]
    line = box.partition("Thresholds that this run has changed: ")[2].partition("</p>")[0]
    assert line.startswith("what may be forgotten, at most 30 instead of 10")
    assert line.endswith("(<code>lost</code>).")


def test_a_rise_that_is_allowed_is_in_percentage_points():
    facts = {"outcome": "passed", "value": 0.0, "low": -0.02, "high": 0.02, "threshold": 0.1, "n": 60}
    texts = [describe_check(Check(gate="safety", name=name, **facts), Words()) for name in ("unsafe_rows", "echo")]
    assert "rose by over 10 percentage points" in texts[0]
    assert "percentage" not in texts[1]


@pytest.mark.parametrize(
    ("low", "sentence"), [(0.01, "seem less natural to it"), (-0.006, "seem hardly more natural to it")]
)
def test_no_gain_and_a_loss_are_told_apart(low, sentence):
    facts = {"gate": "closer", "outcome": "failed", "threshold": -0.01, "n": 90}
    check = Check(name="bits_per_char", value=low + 0.002, low=low, high=low + 0.004, **facts)
    assert sentence in describe_check(check, Words())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_count_of_one_reads_as_well(language):
    for check in (
        Check(gate="crisis", name="crisis", outcome="open", value=0, base=0, threshold=0, n=1),
        Check(gate="rows", name="groups", outcome="open", value=1, threshold=100, n=1),
    ):
        assert not re.search(r"1 (crisis prompts|groups)", describe_check(check, Words(language)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_begins_with_the_verdict(run, language):
    write_report(run, 2, language)
    page, words = html.unescape((run / "report/index.html").read_text(encoding="utf-8")), Words(language)
    verdict = read_verdict(read_json(run / "evaluate/metrics.json"))
    assert words.say(f"decision.{verdict.verdict}") in page.partition("</strong>")[0]
    for check in verdict.checks:
        assert words.say(f"checked.{check.name}") in page
    for reason in verdict.reasons:
        assert reason.gate == "crisis" or describe_check(reason, words) in page


def test_a_run_of_before_the_verdict_is_judged_when_it_is_shown(run):
    metrics = read_json(run / "evaluate/metrics.json")
    recorded = metrics.pop("verdict")
    assert read_verdict(metrics).verdict == recorded["verdict"]
    write_json(run / "evaluate/metrics.json", metrics)
    write_report(run, 2)
    assert read_texts("en")["decision"]["do not ship"] in (run / "report/index.html").read_text(encoding="utf-8")


def test_a_verdict_of_an_older_version_is_reached_anew(run):
    metrics = read_json(run / "evaluate/metrics.json")
    metrics["verdict"] = reach_verdict(metrics, Thresholds(gain=0.5)).model_dump()
    assert read_verdict(metrics) == Verdict(**metrics["verdict"])
    checks = [check for check in metrics["verdict"]["checks"] if check["name"] != "unsafe"]
    old = {"verdict": "ship", "checks": checks, "thresholds": metrics["verdict"]["thresholds"]}
    assert read_verdict(metrics | {"verdict": old}) == Verdict(**metrics["verdict"]), "its checks are not today's"
    other = metrics["verdict"] | {"verdict": "ship", "version": VERSION + 1}
    assert read_verdict(metrics | {"verdict": other}).verdict == "do not ship"


def test_the_page_says_that_a_verdict_was_reached_anew(run):
    metrics, note = read_json(run / "evaluate/metrics.json"), Words().say("decision.anew")
    for version, is_told in ((VERSION, False), (1, True)):
        metrics["verdict"] |= {"version": version}
        write_json(run / "evaluate/metrics.json", metrics)
        write_report(run, 2)
        box = (run / "report/index.html").read_text(encoding="utf-8").partition('<div class="verdict')[2]
        assert (note in box.partition("</div>")[0]) == is_told
