"""The page tells what the run's files say: worse is worse, in words and in colour."""

import re
import shutil

import pandas
import pytest

from helpers import env, experiments, metrics, people, report


@pytest.fixture
def run(demo, tmp_path):
    """Returns a copy of the demo's run without its weights."""
    shutil.copytree(
        demo.run,
        tmp_path / "demo",
        ignore=lambda folder, names: [
            n for n in names if n in ("checkpoints", "adapter", "model", "html", "notebooks")
        ],
    )
    return tmp_path / "demo"


def page_of(run):
    report.write(run, 6)
    return (run / "report/index.html").read_text("utf-8")


def score(run, base, tuned):
    """Writes an evaluation of these replies over the run's own, and returns its metrics."""
    rows = {side: env.read_jsonl(run / f"evaluate/{side}.jsonl") for side in ("base", "tuned")}
    for side, replies in (("base", base), ("tuned", tuned)):
        rows[side] = [{**row, "reply": reply(row)} for row, reply in zip(rows[side], [replies] * len(rows[side]))]
        env.write_jsonl(run / f"evaluate/{side}.jsonl", rows[side])
    found = {side: metrics.statistics(rows[side]) for side in rows}
    moved = metrics.shuffled([row["reference"] for row in rows["base"]], 0)
    floors = {side: metrics.overlap_statistics([r["reply"] for r in rows[side]], moved) for side in rows}
    before = env.read_json(run / "evaluate/metrics.json")
    result = {**before, **metrics.compare(**found, floors=floors, draws=200, seed=0)}
    for side in ("base", "tuned", "delta"):  # the likelihoods change sides too
        other = {"base": "tuned", "tuned": "base"}.get(side, "delta")
        for name in ("perplexity", "bits_per_char", "token_accuracy"):
            one = before[other][name]
            if side == "delta":
                one = {**one, "value": -one["value"], "low": -one["high"], "high": -one["low"]}
            result[side][name] = one
    labels = ["দুঃখ" if at % 3 else "বন্ধুত্ব" for at in range(len(rows["base"]))]
    result["topics"] = metrics.breakdown(**found, labels=labels, draws=100, seed=0)
    env.write_json(run / "evaluate/metrics.json", result)
    return result


def verdicts(page):
    """Returns {score: (class of its verdict, verdict)} of the page's first table."""
    table = page.split("<table>")[1].split("</table>")[0]
    cells = re.findall(r'<tr><th scope="row">([^<]+)</th><td class="([^"]*)">([^<]*)</td>', table)
    return {name: (kind, said) for name, kind, said in cells}


def test_a_worse_tuned_model_is_reported_as_worse_in_words_and_colour(run):
    result = score(run, lambda row: row["reference"], lambda row: "কী জানি, বলতে পারছি না।")
    assert result["tuned"]["chrf"]["value"] < result["base"]["chrf"]["value"] == 100
    page = page_of(run)
    assert "worse, not better" in page and "Perplexity of the reference answers rose" in page
    found = verdicts(page)
    for name in ("chrF++", "ROUGE-L", "BLEU (intl)", "perplexity of the answers", "token accuracy"):
        assert found[name] == ("worse", "worse"), f"{name}: {found[name]}"
    good, bad = (re.search(rf"--{name}: (#[0-9a-f]+)", page).group(1) for name in ("good", "bad"))
    assert good != bad and ".worse { color: var(--bad)" in page and ".better { color: var(--good)" in page
    assert all(group["delta"]["chrf"]["value"] < 0 for group in result["topics"]) and "বন্ধুত্ব" in page


def test_a_copy_of_the_reference_is_better_everywhere_and_a_model_against_itself_nowhere(run):
    found = score(run, lambda row: "কী জানি।", lambda row: row["reference"])["tuned"]
    assert [round(found[name]["value"], 6) for name in metrics.OVERLAP] == [100, 100, 1, 1, 1]
    assert verdicts(page_of(run))["chrF++"] == ("better", "better")
    score(run, lambda row: "মন খারাপ?", lambda row: "মন খারাপ?")
    assert verdicts(page_of(run))["chrF++"][1] == "no clear difference"


def test_shuffled_references_as_replies_are_at_the_floor(run):
    rows = env.read_jsonl(run / "evaluate/tuned.jsonl")
    moved = dict(zip([row["id"] for row in rows], metrics.shuffled([row["reference"] for row in rows], 5)))
    score(run, lambda row: "ঢ়", lambda row: moved[row["id"]])
    assert verdicts(page_of(run))["chrF++"][1] == "at the floor"


def test_the_worst_rows_are_shown_with_what_they_lost_and_room_for_a_gloss(run):
    shown = report.samples(run, 6, 3)
    scores = pandas.read_csv(run / "evaluate/scores.csv").set_index("id")
    change = scores.tuned_chrf - scores.base_chrf
    rest = [row["id"] for row in env.read_jsonl(run / "evaluate/base.jsonl")[6:]]
    assert [row["id"] for _, row in shown[6:]] == list(change[rest].sort_values(kind="stable").index[:3])
    page = page_of(run)
    assert page.count("among the worst: chrF++") == 3 and page.count(">gloss:</div>") == 9 * 4
    first = shown[0][1]["id"]
    (run / "evaluate/gloss.csv").write_text(f"id,prompt,tuned\n{first},I feel <b>low</b>.,\n", encoding="utf-8")
    page = page_of(run)
    assert "I feel &lt;b&gt;low&lt;/b&gt;." in page and page.count(">gloss:</div>") == 9 * 4 - 1


def test_the_ratings_that_people_send_back_are_folded_in_and_run_the_report_again(run, demo):
    seed = env.read_json(run / "evaluate/metrics.json")["seed"]
    sheet = pandas.read_csv(run / "evaluate/human_eval.csv", dtype=str, keep_default_na=False)
    assert people.of_run(run) == {} and "Krippendorff" not in page_of(run)
    before = env.input_hashes(run, "report", {})
    for rater in ("ক", "খ"):
        marks = sheet.copy()
        for at, row in sheet.iterrows():
            for field in people.FIELDS:
                place = int(field[-1])
                tuned = people.tuned_is_first(row["id"], seed) == (place == 1)
                marks.loc[at, field] = str((4 if tuned else 2) + (at % 2))
        env.write_csv(run / f"evaluate/ratings/{rater}.csv", marks)
    found = people.of_run(run)
    assert found["raters"] == ["ক", "খ"] and found["pairs"] == len(sheet)
    assert found["scales"]["empathy"]["delta"] == 2 and found["scales"]["empathy"]["alpha"] == pytest.approx(1)
    page = page_of(run)
    assert "2 raters" in page and "+2.00 to +2.00" in page
    assert env.input_hashes(run, "report", {}) != before, "05_report would not run again"


def test_the_logs_are_written_as_csv_with_the_time_of_each_reply(demo, tmp_path):
    shutil.copy(demo.outputs / "experiments.db", tmp_path)
    files = experiments.export(tmp_path / "experiments.db")
    assert [file.name for file in files] == [
        "LLAMAExperiments.csv",
        "GeneratedResponses.csv",
        "Feedback.csv",
        "feedback.jsonl",
    ]
    replies = pandas.read_csv(files[1], keep_default_na=False)
    tuned = env.read_jsonl(demo.run / "evaluate/tuned.jsonl")
    stage = env.read_json(demo.run / "run.json")["stages"]["evaluate"]
    assert replies.timestamp[: len(tuned)].between(stage["started"], stage["ended"]).all() and len(tuned) > 20
    with pytest.raises(FileNotFoundError, match="expected the experiments.db"):
        experiments.export(tmp_path / "none.db")
