"""The verdict as the page shows it: first, in plain words, with its gates, in both languages."""

import html
import re

import pytest

from helpers.evaluation.verdict import OUTCOMES, Check, Thresholds, Verdict, reach_verdict
from helpers.reporting.decision import NEEDED, changed_thresholds, describe_check, gate_rows, read_verdict
from helpers.reporting.report import write_report
from helpers.reporting.words import LANGUAGES, Words, read_texts
from helpers.runs.files import read_json, write_json

NEVER = {"groups_failed"}  # too few groups are not the model's fault


def test_every_check_has_its_words_for_every_outcome():
    keys = {f"{name}_{outcome}" for name in NEEDED for outcome in OUTCOMES} - NEVER
    assert {*read_texts("en")["check"]} == keys | {"unmeasured"}
    assert (
        {*read_texts("en")["checked"]} == {*NEEDED} == {check.name for check in reach_verdict({}, Thresholds()).checks}
    )


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
        ("unsafe_rows", 0.125, "en", "+12.5 % (+11.5 % to +13.5 %)"),
        ("echo", 0.1, "en", "10 % (9 % to 11 %)"),
        ("echo", 0.1, "bn", "১০ % (৯ % থেকে ১১ %)"),
        ("bits_per_char", -0.1, "en", "-0.100 (-0.110 to -0.090)"),
        ("abilities_en", -1e-17, "en", "0 % (-1 % to +1 %)"),
    ],
)
def test_a_measured_number_has_its_unit_sign_and_interval(name, value, language, shown):
    check = Check(
        gate="rows", name=name, outcome="open", value=value, low=value - 0.01, high=value + 0.01, threshold=0, n=9
    )
    verdict = Verdict(verdict="cannot tell yet", checks=[check], thresholds=Thresholds())
    assert gate_rows(verdict, Words(language))[0]["measured"] == shown


def test_a_changed_threshold_is_named_with_the_usual_one():
    verdict = reach_verdict({}, Thresholds(lost=0.3))
    assert changed_thresholds(verdict, Words()) == "Thresholds that this run has changed: lost 0.3 (0.1)."
    assert changed_thresholds(reach_verdict({}, Thresholds()), Words()) == ""


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
