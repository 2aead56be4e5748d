"""What a search leaves, and how training takes it."""

import csv
import json

import pytest
from search_runs import finish_search

from helpers.planning.config import configure_training
from helpers.runs.files import read_json, write_json
from helpers.runs.settings import default_settings
from helpers.search.results import describe_search, estimate_search, setting_importance, show_trials, write_results
from helpers.search.study import open_search
from helpers.training.config import apply_search_settings


@pytest.fixture
def parameters():
    parameters = default_settings("train")
    return {**parameters, "sft": {**parameters["sft"], "settings_from": "tune"}}


def test_train_waits_for_the_search(tmp_path, parameters):
    with pytest.raises(FileNotFoundError, match="finish the stage tune"):
        apply_search_settings(tmp_path, parameters)


def test_train_takes_the_best_settings(tmp_path, parameters, capsys):
    best = {"candidate": 3, "settings": {"learning_rate": 0.5, "sft.weight_decay": 0.3, "lora.r": 4}, "val_loss": 1.25}
    write_json(tmp_path / "tune/best.json", best)
    applied = apply_search_settings(tmp_path, parameters)
    assert applied["learning_rate"] == 0.5
    assert applied["sft"]["weight_decay"] == 0.3
    assert applied["lora"]["r"] == 4
    assert "settings_from" not in applied["sft"]
    assert applied["lora"]["lora_alpha"] == parameters["lora"]["lora_alpha"]
    assert "from the search: learning_rate 0.5" in capsys.readouterr().out


def test_settings_from_elsewhere_are_refused(tmp_path, parameters):
    with pytest.raises(ValueError, match="expected 'tune', or nothing"):
        apply_search_settings(tmp_path, {**parameters, "sft": {"settings_from": "elsewhere"}})


def test_the_configuration_forgets_where_settings_are_from(parameters):
    assert "settings_from" not in configure_training(parameters).sft


def test_importance_is_the_variance_between_a_settings_values():
    table = [{"rate": r, "decay": d, "loss at rung 0": 2.0 * r + d * 0.5} for r in (1, 2) for d in (0, 1)]
    importance = setting_importance(table, ["rate", "decay"])
    assert importance["rate"] == pytest.approx(1 / 1.0625)
    assert importance["decay"] == pytest.approx(0.0625 / 1.0625)


def test_importance_needs_two_judged_candidates():
    assert setting_importance([{"rate": 1, "loss at rung 0": 2.0}, {"rate": 2}], ["rate"]) is None


def test_trials_csv_holds_the_table(make_search, two_candidates):
    run = make_search("written", **two_candidates)
    table, best = finish_search(run)
    search = open_search(run)
    metrics = write_results(search, table, best, estimate_search(search))
    rows = list(csv.DictReader((run / "tune/trials.csv").read_text("utf-8").splitlines()))
    columns = "candidate learning_rate effective_batch budget_steps steps rows_seen val_loss perplexity status reason"
    assert set(columns.split()) <= set(rows[0])
    assert [row["budget_steps"] for row in rows] == ["4", "4"]
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in table]
    assert metrics["best"] == read_json(run / "tune/best.json")


@pytest.mark.slow
def test_ref_d_runs_tiny_through_every_stage(suite, tmp_path):
    stages = "prepare_data,tune,train,evaluate,infer,report,export"
    done = suite("--preset", "ref-d-finetome-1b", "--tiny", "--outputs", tmp_path, "--stages", stages, timeout=1200)
    assert done.returncode == 0, done.output
    run = tmp_path / "ref-d-finetome-1b-tiny"
    best = json.loads((run / "tune/best.json").read_text("utf-8"))
    config = read_json(run / "train/config.json")
    assert config["learning_rate"] == best["settings"]["learning_rate"]
    assert (run / "export/merged/config.json").is_file()
    assert (run / "tune/search.svg").is_file()
    rows = list(csv.DictReader((run / "tune/trials.csv").read_text("utf-8").splitlines()))
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert "The search for settings" in page
    assert all(f">{float(row['val_loss']):.4f}<" in page for row in rows)


def test_a_search_is_shown_with_short_numbers():
    rows = show_trials([{"candidate": 0, "loss at rung 0": 7.706129, "reason": ""}, {"candidate": 1, "steps": 4}])
    assert rows[0] == {"candidate": "0", "loss at rung 0": "7.7061", "reason": "–", "steps": "–"}
    assert rows[1]["loss at rung 0"] == "–"


def test_a_search_is_summed_up_in_a_sentence():
    best = {"settings": {"learning_rate": 0.001}}
    metrics = {"best": best, "eliminated": 2, "candidates": 4, "failed": 1, "steps": 1200, "share_of_all": 0.5}
    expected = (
        "Best: learning_rate 0.001. 2 of 4 candidates were eliminated, 1 failed: 1,200 steps, 50% of training each"
    )
    assert describe_search(metrics) == f"{expected} to the end."
