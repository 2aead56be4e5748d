"""Several runs on one page: who wins is said only where it is sure."""

import csv
import html
import re
import shutil

import pytest
from page_text import PageText

from helpers.__main__ import main
from helpers.evaluation.comparison import Score
from helpers.evaluation.verdict import VERSION
from helpers.reporting.comparison import (
    best_of,
    difference_rows,
    paired_differences,
    run_score_rows,
    tuned_scores,
    verdict_rows,
)
from helpers.reporting.decision import describe_check, read_verdict
from helpers.reporting.results import read_results
from helpers.reporting.summary import summarise_run
from helpers.reporting.words import Words
from helpers.runs.files import read_json, read_jsonl, write_json, write_jsonl
from helpers.runs.record import Run


@pytest.fixture
def twin(run):
    """Returns a copy of the run under another name."""
    shutil.copytree(run, run.outputs / "twin")
    return Run(run.outputs / "twin")


@pytest.fixture
def better(run):
    """Returns a copy of the run whose tuned model repeats the references and finds them likelier."""
    better = Run(run.outputs / "better")
    shutil.copytree(run, better)
    rows = read_jsonl(better / "evaluate/tuned.jsonl")
    write_jsonl(better / "evaluate/tuned.jsonl", [{**row, "reply": row["reference"]} for row in rows])
    with open(better / "evaluate/scores.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for row in table:
        row["tuned_nll"] = float(row["tuned_nll"]) * 0.9
    with open(better / "evaluate/scores.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    evaluation = better.metrics("evaluate")
    evaluation["tuned"]["chrf"]["value"] = 100.0
    evaluation["tuned"]["bits_per_char"]["value"] *= 0.9
    write_json(better / "evaluate/metrics.json", evaluation)
    record = read_json(better / "run.json")
    record["stages"]["train"]["parameters"]["learning_rate"] = 0.5
    write_json(better / "run.json", record)
    return better


def test_of_several_runs_the_better_one_wins(run, better):
    assert main(["report", str(run), str(better)]) == 0
    text = PageText(run.outputs / "comparison.html").text
    assert "better has the fewest bits per character; it beats every other run" in text
    assert "better has the highest chrF++; it beats every other run" in text
    assert "train.learning_rate 0.003 0.5" in text


def test_a_copy_does_not_win(run, twin):
    results = [read_results(run), read_results(twin)]
    number, pairs = paired_differences(results)
    assert number == run.metrics("evaluate")["n"]
    chrf = pairs[0, 1]["chrf"]
    assert (chrf.value, chrf.low, chrf.high) == (0, 0, 0)
    assert best_of("chrf", [tuned_scores(result) for result in results], pairs) == (0, "equal")
    assert main(["report", str(run), str(twin)]) == 0
    text = PageText(run.outputs / "comparison.html").text
    assert f"Over the {number} test rows that all runs have answered: In bits per character the runs are equal." in text
    assert "In chrF++ the runs are equal." in text
    assert "has the fewest" not in text


def test_the_comparison_is_written_in_the_language_asked_for(run, better):
    assert main(["report", str(run), str(better), "--language", "bn"]) == 0
    page = PageText(run.outputs / "comparison.html")
    assert '<html lang="bn">' in page.html
    assert "chrF++ সবচেয়ে বেশি better রানের" in page.text
    headings = re.findall(r"<h[123]>([^<]*)</h[123]>", page.html)
    headings += re.findall(r'<th scope="col"[^>]*>(?:<button[^>]*>)?([^<]+)', page.html)
    english = {heading for heading in headings if not re.search("[\u0980-\u09fe]", heading)}
    assert english <= {"demo", "better"}, english


def test_rows_that_are_not_shared_are_shown_unpaired(run, twin):
    rows = read_jsonl(twin / "evaluate/tuned.jsonl")
    write_jsonl(twin / "evaluate/tuned.jsonl", [{**row, "reference": "অন্য"} for row in rows])
    assert paired_differences([read_results(run), read_results(twin)]) == (0, {})
    assert main(["report", str(run), str(twin)]) == 0
    assert "The runs share 0 test rows" in PageText(run.outputs / "comparison.html").text


def test_a_run_without_evaluation_cannot_be_compared(run, twin, capsys):
    (twin / "evaluate/metrics.json").unlink()
    assert main(["report", str(run), str(twin)]) == 2
    assert "twin: not evaluated yet" in capsys.readouterr().err


def test_the_comparison_begins_with_each_runs_verdict(run, twin):
    metrics = read_json(twin / "evaluate/metrics.json")
    checks = [check | {"outcome": "passed"} for check in metrics["verdict"]["checks"]]
    metrics["verdict"] |= {"verdict": "ship", "checks": checks, "version": VERSION}
    write_json(twin / "evaluate/metrics.json", metrics)
    old = Run(run.outputs / "old")
    shutil.copytree(run, old)
    write_json(old / "evaluate/metrics.json", {n: v for n, v in run.metrics("evaluate").items() if n != "verdict"})
    results = [read_results(own) for own in (run, twin, old)]
    first = describe_check(read_verdict(results[0].metrics["evaluate"]).reasons[0], Words())
    rows = verdict_rows(results, Words())
    assert [[*row.values()][1] for row in rows] == ["do not ship", "ship", "do not ship"]
    assert rows[0]["first reason"] == first
    assert main(["report", str(run), str(twin)]) == 0
    main_part = PageText(run.outputs / "comparison.html").html.partition("<main>")[2]
    assert main_part.index("do not ship") < main_part.index('class="lead"')
    assert first.split(".")[0] in html.unescape(main_part.partition("</table>")[0])


def planted(value, low, high, p=None, better="higher"):
    return Score(value=value, low=low, high=high, p=p, floor=None, better=better, n=40)


def both_tables(scores, gains):
    """Returns what the two tables say of each score, by its label: which of two runs is best, and the verdict on the
    second one; `gains` are its scores minus those of the first."""
    lost = {n: gain.model_copy(update={"value": -gain.value}) for n, gain in gains.items()}
    names, pairs = ["a", "b"], {(0, 1): gains, (1, 0): lost}
    best = {row["score"]: row["best"] for row in run_score_rows(names, scores, pairs)}
    return {row["score"]: (best[row["score"]], row["verdict"]) for row in difference_rows(names, pairs)}


def test_both_tables_judge_by_the_corrected_p():
    scores = [{n: planted(2, 1, 3) for n in ("chrf", "graded", "empathy")}] * 2
    gains = {"chrf": planted(3, 1, 5, 0.01), "graded": planted(3, 1, 5, 0.2), "empathy": planted(3, -1, 7, 0.02)}
    assert both_tables(scores, gains) == {
        "chrF++": ("b", "better"),
        "graded rubric, of 100": ("no clear winner", "no clear difference"),
        "empathy keywords, of 100": ("b", "better"),
    }


def test_without_a_clear_primary_score_none_is_judged():
    scores = [{n: planted(2, 1, 3) for n in ("chrf", "empathy")}] * 2
    gains = {"chrf": planted(1, -1, 3, 0.3), "empathy": planted(3, 1, 5, 0.3)}
    assert both_tables(scores, gains) == {
        "chrF++": ("no clear winner", "no clear difference"),
        "empathy keywords, of 100": ("not judged", "exploratory"),
    }


def test_the_best_run_is_so_by_the_rows_that_all_share():
    scores = [{"chrf": planted(9, 8, 10)}, {"chrf": planted(5, 4, 6)}]  # over other rows each
    gains = {"chrf": planted(3, 1, 5, 0.01)}
    assert both_tables(scores, gains) == {"chrF++": ("b", "better")}


def test_the_comparison_judges_a_run_as_its_own_page_does(run, twin):
    metrics = run.metrics("evaluate")
    write_json(twin / "evaluate/metrics.json", {n: v for n, v in metrics.items() if n != "verdict"})
    results = [read_results(own) for own in (run, twin)]
    own = [summarise_run(result, Words()).decision for result in results]
    assert [row["decision"] for row in verdict_rows(results, Words())] == ["do not ship", "do not ship"]
    assert own == [Words().say("decision.do not ship")] * 2
