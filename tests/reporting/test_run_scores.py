"""The page says what the run's files say: worse is worse, in words and in colour."""

import re
import shutil

import pandas
import pytest

from helpers.evaluation.comparison import breakdown, compare_models
from helpers.evaluation.metrics import floor_sums, score_sums
from helpers.evaluation.sheet import MARK_FIELDS, tuned_is_first
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.runs.differences import input_hashes
from helpers.runs.experiments import export_logs
from helpers.runs.files import read_jsonl, write_csv, write_json, write_jsonl, write_text

LIKELIHOODS = ("perplexity", "bits_per_char", "token_accuracy")


def read_page(run):
    """Writes a run's page anew, and returns its HTML."""
    write_report(run, 6)
    return page_of(run)


def page_of(run):
    """Returns the page that a run has."""
    return (run / "report/index.html").read_text("utf-8")


def score_replies(run, base, tuned):
    """Writes an evaluation of these replies over the run's own, with the likelihoods of base and tuned exchanged.

    `base` and `tuned` make a reply from a row. Returns the metrics.
    """
    rows = {side: read_jsonl(run / f"evaluate/{side}.jsonl") for side in ("base", "tuned")}
    for side, reply in (("base", base), ("tuned", tuned)):
        rows[side] = [{**row, "reply": reply(row)} for row in rows[side]]
        write_jsonl(run / f"evaluate/{side}.jsonl", rows[side])
    sums = {side: score_sums(rows[side]) for side in rows}
    groups = [row["id"] for row in rows["base"]]
    floors = floor_sums(rows, groups, 0)
    before = run.metrics("evaluate")
    after = {**before, **compare_models(**sums, floors=floors, draws=200, seed=0, groups=groups).model_dump()}
    for name in LIKELIHOODS:
        delta = before["delta"][name]
        turned = {"value": -delta["value"], "low": -delta["high"], "high": -delta["low"], "p": 0.001}
        after["base"][name], after["tuned"][name] = before["tuned"][name], before["base"][name]
        after["delta"][name] = {**delta, **turned}
    labels = ["দুঃখ" if place % 3 else "বন্ধুত্ব" for place in range(len(rows["base"]))]
    after["topics"] = breakdown(**sums, labels=labels, draws=100, seed=0)
    write_json(run / "evaluate/metrics.json", after)
    return after


def verdicts(page):
    """Returns {score: (class of its verdict, verdict)} of the page's table of scores, which follows that of gates."""
    table = page.split('<table class="stacked"')[2].split("</table>")[0]
    cells = re.findall(
        r'<th scope="row"[^>]*>(?:<button[^>]*>)?([^<]+)<.*?<td[^>]* class="([^"]*)">([^<]*)</td>', table
    )
    return {name: (kind, verdict) for name, kind, verdict in cells}


@pytest.fixture(scope="module")
def worse(copied, tmp_path_factory):
    """Returns the metrics and the page of a run whose base model repeats the references."""
    run = copied(tmp_path_factory.mktemp("worse"))
    metrics = score_replies(run, lambda row: row["reference"], lambda row: "কী জানি, বলতে পারছি না।")
    return metrics, read_page(run)


def test_a_worse_tuned_model_is_reported_as_worse_in_words(worse):
    metrics, page = worse
    assert metrics["tuned"]["chrf"]["value"] < metrics["base"]["chrf"]["value"] == 100
    assert "worse, not better" in page
    assert "Worse than the base model; and with so few rows it cannot be told whether it answers" in page
    assert "of the reference answers rose" in page


def test_a_worse_score_has_the_colour_of_worse(worse):
    _, page = worse
    table = verdicts(page)
    for name in ("chrF++", "ROUGE-L", "BLEU (intl)", "perplexity of the answers", "token accuracy"):
        assert table[name] == ("worse", "worse"), f"{name}: {table[name]}"
    good, bad = (re.search(rf"--{name}: (#[0-9a-f]+)", page).group(1) for name in ("good", "bad"))
    assert good != bad
    assert ".worse { color: var(--bad)" in page
    assert ".better { color: var(--good)" in page


def test_a_worse_topic_is_shown_by_its_name(worse):
    metrics, page = worse
    assert all(group["delta"]["chrf"]["value"] < 0 for group in metrics["topics"])
    assert "বন্ধুত্ব" in page


def test_a_copy_of_the_reference_is_better_everywhere(run):
    tuned = score_replies(run, lambda row: "কী জানি।", lambda row: row["reference"])["tuned"]
    scores = [round(tuned[name]["value"], 6) for name in ("chrf", "bleu", "rouge1", "rouge2", "rougeL")]
    assert scores == [100, 100, 1, 1, 1]
    assert verdicts(read_page(run))["chrF++"] == ("better", "better")


def test_a_model_against_itself_shows_no_difference(run):
    score_replies(run, lambda row: "মন খারাপ?", lambda row: "মন খারাপ?")
    assert verdicts(read_page(run))["chrF++"][1] == "no clear difference"


def test_shuffled_references_as_replies_are_at_the_floor(run):
    rows = read_jsonl(run / "evaluate/tuned.jsonl")
    references = [row["reference"] for row in rows]
    moved = dict(zip([row["id"] for row in rows], references[5:] + references[:5]))
    score_replies(run, lambda row: "ঢ়", lambda row: moved[row["id"]])
    assert verdicts(read_page(run))["chrF++"][1] == "at the floor"


def test_the_rows_that_lost_most_are_shown_with_what_they_lost(shown):
    run = shown("en")
    samples = read_results(run).samples(6, 3)
    scores = pandas.read_csv(run / "evaluate/scores.csv").set_index("id")
    change = scores.tuned_chrf - scores.base_chrf
    seeded = {sample.id for sample in samples[:6]}
    rest = [row["id"] for row in read_jsonl(run / "evaluate/base.jsonl") if row["id"] not in seeded]
    assert [sample.id for sample in samples[6:]] == list(change[rest].sort_values(kind="stable").index[:3])
    page = page_of(run)
    assert len(re.findall(r"among those that (?:lost most|gained least): chrF\+\+ [-+]", page)) == 3


def test_a_question_takes_one_place_among_the_samples(run):
    for side in ("base", "tuned"):
        rows = read_jsonl(run / f"evaluate/{side}.jsonl")
        write_jsonl(run / f"evaluate/{side}.jsonl", [rows[0], {**rows[1], "prompt": rows[0]["prompt"]}, *rows[2:]])
    samples = read_results(run).samples(6, 0)
    assert samples[0].id == rows[0]["id"], "the order by seed is lost"
    assert len({sample.prompt for sample in samples}) == 6


def test_a_row_that_gained_is_not_called_a_loss(shown):
    run = shown("en")
    samples = read_results(run).samples(6, 3)[6:]
    assert [sample.why for sample in samples] == ["lost" if sample.change < 0 else "gained" for sample in samples]
    page = page_of(run)
    assert not re.search(r"lost most: chrF\+\+ \+", page)
    assert not re.search(r"gained least: chrF\+\+ -[1-9]", page)


def test_a_gloss_without_ids_is_skipped_with_its_reason(run):
    (run / "evaluate/gloss.csv").write_text("prompt,tuned\nI feel low.,\n", encoding="utf-8")
    assert "gloss.csv: it has no column id" in read_page(run)


def test_a_gloss_written_by_people_is_shown_in_its_place(run):
    assert 'class="gloss"' not in read_page(run), "a line is kept for a gloss that nobody wrote"
    first = read_results(run).samples(6, 3)[0].id
    (run / "evaluate/gloss.csv").write_text(f"id,prompt,tuned\n{first},I feel <b>low</b>.,\n", encoding="utf-8")
    page = read_page(run)
    assert "I feel &lt;b&gt;low&lt;/b&gt;." in page
    assert page.count('class="gloss"') == 1


@pytest.fixture
def rated(run):
    """Puts the ratings of two people into the run: the tuned reply two marks above the base one. Returns the run."""
    seed = run.metrics("evaluate")["seed"]
    sheet = pandas.read_csv(run / "evaluate/human_eval.csv", dtype=str, keep_default_na=False)
    for rater in ("ক", "খ"):
        marks = sheet.copy()
        for place, row in sheet.iterrows():
            for field in MARK_FIELDS:
                is_tuned = tuned_is_first(row["id"], seed) == (field[-1] == "1")
                marks.loc[place, field] = str((4 if is_tuned else 2) + (place % 2))
        write_csv(run / f"evaluate/ratings/{rater}.csv", marks)
    return run


def test_a_run_without_ratings_shows_none(shown):
    run = shown("en")
    assert read_results(run).ratings == {}
    assert "Krippendorff" not in page_of(run)


def test_the_ratings_that_people_send_back_are_on_the_page(rated):
    ratings = read_results(rated).ratings
    assert ratings["raters"] == ["ক", "খ"]
    assert ratings["pairs"] == len(read_results(rated).base), "the attention checks are no pairs"
    assert ratings["scales"]["empathy"]["delta"] == 2
    assert ratings["scales"]["empathy"]["alpha"] == pytest.approx(1)
    page = read_page(rated)
    assert "2 raters" in page
    assert "+2.00 to +2.00" in page


def test_a_bad_file_of_ratings_is_skipped_on_the_page(rated):
    folder = rated / "evaluate/ratings"
    (folder / "empty.csv").touch()
    (folder / "<b>letter.docx").write_bytes(b"PK")
    page = read_page(rated)
    assert "empty.csv: it is empty" in page
    assert "&lt;b&gt;letter.docx: it is no .csv and no .xlsx" in page
    assert "2 raters" in page, "the other files are read"


def test_bad_files_alone_are_no_ratings(run):
    write_text(run / "evaluate/ratings/a.csv", "id;x\n")
    page = read_page(run)
    assert "a.csv: it is empty" in page
    assert "No person has rated these replies" in page


def test_ratings_of_a_lost_sheet_are_skipped(rated):
    (rated / "evaluate/human_eval.csv").unlink()
    assert "all of them, since human_eval.csv is gone" in read_page(rated)


def test_ratings_make_the_report_run_again(run, request):
    before = input_hashes(run.folder, "report", {})
    request.getfixturevalue("rated")
    assert input_hashes(run.folder, "report", {}) != before, "05_report would not run again"


def test_the_logs_are_written_as_csv_with_the_time_of_each_reply(demo, tmp_path):
    shutil.copy(demo.outputs / "experiments.db", tmp_path)
    files = export_logs(tmp_path / "experiments.db")
    names = ["LLAMAExperiments.csv", "GeneratedResponses.csv", "Feedback.csv", "feedback.jsonl", "preferences.jsonl"]
    assert [file.name for file in files] == names
    times = pandas.read_csv(files[1], keep_default_na=False).timestamp
    tuned, stage = read_jsonl(demo.run / "evaluate/tuned.jsonl"), demo.run.stage("evaluate")
    assert len(tuned) > 20
    assert times[: len(tuned)].between(stage.started, stage.ended).all()


def test_logs_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the experiments\.db"):
        export_logs(tmp_path / "none.db")
