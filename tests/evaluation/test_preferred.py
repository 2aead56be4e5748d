"""A third model: it alone is asked, it changes nothing of the other two, and rows it was trained on are left out."""

import dataclasses
import shutil
import time

import numpy
import pytest
from preferred_runs import evaluate_three, write_preferred

from helpers.evaluation.answers import EvaluationSettings, answer_rows, keep_for_later
from helpers.evaluation.drift import measure_drift
from helpers.evaluation.preferred import AS_PAIR, AS_PREFERRED, pair_metrics, rename_sides
from helpers.evaluation.raters import TUNED_SHEET, read_both_ratings
from helpers.evaluation.rating_files import read_table
from helpers.evaluation.sheet import SHOWN_FIELDS, blind_pair, sheet_id, tuned_is_first
from helpers.evaluation.sheet_rows import SHEET
from helpers.runs.differences import changed_inputs, input_hashes
from helpers.runs.files import read_jsonl, utc_now, write_csv
from helpers.runs.record import Run

SMALL = {"max_rows": 6, "max_prompts": 2, "max_probes": 1, "max_new_tokens": 6, "batch_size": 4}


def settings_of(demo, **changes):
    return EvaluationSettings(**demo.run.stage("evaluate").parameters | SMALL | changes)


def copy_run(demo, folder):
    """Returns a copy of the demo's run before its evaluation, without checkpoints."""
    for name in ("data", "train"):
        shutil.copytree(demo.run / name, folder / name, ignore=shutil.ignore_patterns("checkpoints"))
    return Run(folder)


def wait_for_later(answers):
    """Waits until what is written now has a later second than any of these answers."""
    while utc_now() <= max(when(answers)):
        time.sleep(0.05)


def finish(run, settings):
    """Ends an evaluation as its notebook does."""
    keep_for_later(run, settings)
    shutil.rmtree(run / "evaluate/work")


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
    return copy_run(demo, tmp_path_factory.mktemp("preferred") / "demo")


@pytest.fixture(scope="module")
def before(demo, run):
    """Returns the answers of a run without the stage prefer, and the hashes of what it has read."""
    answers = answer_rows(run, settings_of(demo))
    finish(run, settings_of(demo))
    return answers, input_hashes(run.folder, "evaluate", demo.run.stage("evaluate").parameters)


@pytest.fixture(scope="module")
def three(demo, run, before):
    """Returns the answers of the evaluation after the stage prefer."""
    write_preferred(run)
    wait_for_later(before[0]["base"])
    answers = answer_rows(run, settings_of(demo))
    finish(run, settings_of(demo))
    return answers


def when(answers):
    """Returns when each reply was written."""
    return [reply["at"] for reply in (*answers.replies, *answers.prompts)]


def test_a_second_evaluation_asks_the_preferred_model_alone(before, three):
    assert list(three) == ["base", "tuned", "preferred"]
    for side in ("base", "tuned"):
        assert dataclasses.replace(three[side], drift=[]) == before[0][side], f"{side} was asked again"
    assert when(three["preferred"]) > when(before[0]["base"])


def test_the_preferred_model_answers_with_its_own_adapter(three):
    likelihoods = [[row["nll"] for row in own.likelihood] for own in three.values()]
    assert len({tuple(own) for own in likelihoods}) == 3


def test_its_replies_are_scored_by_both_models(three):
    replies, drift = three["preferred"].replies, three["preferred"].drift
    assert [row["tokens"] for row in drift] == [row["tokens"] for row in three["tuned"].drift]
    assert [row["nll"] for row in drift] != [row["nll"] for row in three["tuned"].drift]
    assert all(row["tokens"] <= reply["new_tokens"] for row, reply in zip(drift, replies)), (
        "the end of a cut reply counts"
    )
    assert not three["base"].drift


def test_other_settings_ask_every_model_again(demo, run, three, before):
    wait_for_later(three["preferred"])
    anew = answer_rows(run, settings_of(demo, batch_size=3))
    shutil.rmtree(run / "evaluate/work")
    for side, answers in anew.items():
        assert min(when(answers)) > max(when(three["preferred"])), f"{side} was not asked again"
    for side, answers in before[0].items():
        likelihoods = [[row["nll"] for row in own.likelihood] for own in (answers, anew[side])]
        numpy.testing.assert_allclose(*likelihoods, rtol=1e-5, err_msg="a third adapter changes the others")


@pytest.mark.slow
def test_two_processes_score_the_preferred_replies_too(demo, run, three, tmp_path):
    """Each process computes a share of the replies, and scores them only when all are there."""
    other = Run(tmp_path / "demo")
    shutil.copytree(run.folder, other.folder, ignore=shutil.ignore_patterns("evaluate"))
    both = answer_rows(other, settings_of(demo, num_gpus=2))
    for side, answers in three.items():
        assert both[side].drift == answers.drift, side
        assert [reply["reply"] for reply in both[side].replies] == [reply["reply"] for reply in answers.replies]
    assert (other / "evaluate/work/preferred_drift-1.jsonl").is_file(), "the second process scored nothing"


def test_another_tuned_adapter_asks_the_base_model_no_more(demo, run, three, tmp_path):
    other = Run(tmp_path / "demo")
    shutil.copytree(run.folder, other.folder)
    write_preferred(run, 0.5)
    shutil.copy(run / "prefer/adapter/adapter_model.safetensors", other / "train/adapter")
    write_preferred(run)
    answers = answer_rows(other, settings_of(demo))
    assert when(answers["base"]) == when(three["base"])
    assert min(when(answers["tuned"])) > max(when(three["tuned"]))


def test_a_preferred_adapter_is_a_changed_input(demo, run, before, three):
    now = input_hashes(run.folder, "evaluate", demo.run.stage("evaluate").parameters)
    assert changed_inputs(before[1], now) == ["prefer/adapter/adapter_model.safetensors"]
    (run / "prefer/metrics.json").rename(run / "prefer/away.json")
    half_done = input_hashes(run.folder, "evaluate", demo.run.stage("evaluate").parameters)
    (run / "prefer/away.json").rename(run / "prefer/metrics.json")
    assert half_done == before[1], "a stage that has not finished has no model"


@pytest.fixture(scope="module")
def written(demo, tmp_path_factory):
    """Returns a run whose preferred replies are the tuned ones twice, without the first four rows, and its results."""
    folder = tmp_path_factory.mktemp("written") / "demo"
    weights = ("checkpoints", "adapter", "model")
    shutil.copytree(demo.run, folder, ignore=lambda _, names: [name for name in names if name in weights])
    shutil.rmtree(folder / "evaluate/ratings", ignore_errors=True)
    return Run(folder), *evaluate_three(Run(folder), left_out=4)


def test_rows_that_were_trained_on_are_left_out(written):
    run, evaluated, preferred = written
    rows, left_out = read_jsonl(run / "evaluate/preferred.jsonl"), 4
    assert len(evaluated.held_out.rows) == len(rows)
    assert (preferred["preference"]["n"], preferred["preference"]["left_out"]) == (len(rows) - left_out, left_out)
    assert {score["n"] for score in preferred["delta_preferred"].values()} == {len(rows) - left_out}
    assert [row["id"] for row in evaluated.preferred.replies["tuned"]] == [row["id"] for row in rows[left_out:]]
    assert [row["id"] for row in evaluated.preferred.held_out.rows] == [row["id"] for row in rows[left_out:]]


def test_replies_twice_as_long_fail_the_gate_of_length(written):
    preferred = written[2]
    change = preferred["preference"]["drift"]["characters"]["change"]
    assert change["low"] > 0.9
    outcomes = {check["name"]: check["outcome"] for check in preferred["preferred_verdict"]["checks"]}
    assert (outcomes["length"], outcomes["kl"]) == ("failed", "passed")
    assert preferred["preferred_verdict"]["verdict"] == "do not ship"


def test_the_file_is_read_back_as_a_pair(written):
    run, evaluated, preferred = written
    pair = pair_metrics(run.metrics("evaluate"))
    assert pair["tuned"] == preferred["preferred"]
    assert pair["base"] == preferred["preference"]["tuned"]
    assert "tuned unsafe" in pair["prompts"]["categories"][0]
    assert rename_sides(rename_sides(pair["prompts"], AS_PREFERRED), AS_PAIR) == pair["prompts"]


def test_the_sheet_has_tuned_and_preferred_replies(written):
    run, evaluated, _ = written
    sheet = {row["id"]: row for row in read_table(run / "evaluate" / SHEET, SHOWN_FIELDS)}
    seed = run.metrics("evaluate")["seed"]
    replies = [row for row in evaluated.preferred.replies["tuned"] if row["id"] in sheet]
    assert len(replies) > 5
    for row in replies:
        place = 1 if tuned_is_first(row["id"], seed) else 2
        assert sheet[row["id"]][f"reply_{place}"] == row["reply"]


def test_a_sheet_given_out_before_is_read_against_its_own(demo, written):
    """Three people send back: of the earlier sheet by its id, of the earlier one by its replies, and of the new one."""
    run, evaluated, _ = written
    seed, folder = run.metrics("evaluate")["seed"], run / "evaluate/ratings"
    folder.mkdir()
    assert (run / "evaluate" / TUNED_SHEET).read_bytes() == (demo.run / "evaluate" / SHEET).read_bytes()
    sheets = {name: read_table(run / "evaluate" / name, SHOWN_FIELDS) for name in (TUNED_SHEET, SHEET)}
    sides = {side: read_jsonl(run / f"evaluate/{side}.jsonl") for side in ("base", "tuned", "preferred")}
    rows = {both[0]["id"]: both for both in zip(sides["base"], sides["tuned"])}
    pairs = [blind_pair(*rows[row["id"]], seed) for row in sheets[TUNED_SHEET] if row["id"] in rows]
    rows = pairs[:5]
    import pandas

    by_id = [{"id": row["id"], "choice": 1, "sheet": sheet_id(pairs), "rater": "a"} for row in rows]
    write_csv(folder / "a.csv", pandas.DataFrame(by_id))
    write_csv(folder / "b.csv", pandas.DataFrame([row | {"choice": 1} for row in rows]))
    write_csv(folder / "c.csv", pandas.DataFrame([row | {"choice": 2} for row in sheets[SHEET][5:9]]))
    earlier, newer = read_both_ratings(run / "evaluate", *sides.values(), seed)
    assert {own["rater"] for own in earlier.choices} == {"a", "b"}
    assert {own["rater"] for own in newer.choices} == {"c"}
    assert (earlier.skipped, newer.skipped) == ([], [])


def drift_of(tuned_nll, preferred_nll, tokens=10, factor=1.0):
    """Returns the drift of 40 rows, each its own group, whose replies are `factor` as long."""
    replies = {"tuned": ["ক" * 20] * 40, "preferred": ["ক" * int(20 * factor)] * 40}
    rows = {side: [{"reply": text, "new_tokens": tokens} for text in own] for side, own in replies.items()}
    nll = {"tuned": tuned_nll, "preferred": preferred_nll}
    scores = {side: [{"nll": value, "tokens": tokens}] * 40 for side, value in nll.items()}
    return measure_drift(rows, scores, scores, [str(row) for row in range(40)], 200, 1)


def test_the_divergence_is_the_mean_log_ratio():
    drift = drift_of(tuned_nll=15.0, preferred_nll=12.0)
    assert drift.replies.per_text.value == pytest.approx(3.0)
    assert drift.replies.per_token.value == pytest.approx(0.3)
    assert drift.references.per_token.n == 40


def test_the_same_replies_have_not_become_longer():
    drift = drift_of(12.0, 12.0)
    assert (drift.characters.change.value, drift.replies.per_token.high) == (0.0, 0.0)
    assert drift_of(12.0, 12.0, factor=1.5).characters.change.low == pytest.approx(0.5)


def test_plain_texts_have_no_drift():
    empty = {"tuned": [], "preferred": []}
    assert measure_drift(empty, empty, empty, [], 10, 1) is None
