"""Trainings with several seeds: a run of each, and the spread between them on the page."""

import shutil
import statistics
from argparse import Namespace

import pytest

from helpers.__main__ import main, seeded_calls
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.reporting.tables import seed_rows
from helpers.runs.differences import input_hashes
from helpers.runs.files import read_json, write_json
from helpers.runs.settings import resolve_settings


def options(seeds, sets=(), run_name=""):
    return Namespace(seeds=seeds, run_name=run_name, outputs="outputs", sets=[*sets], tiny=True)


def test_each_further_seed_is_a_run_before_the_plain_one():
    calls = seeded_calls("demo", options(3, ["train.lora.r=8"]))
    settings = [resolve_settings(*call) for call in calls]
    assert [each["train"]["run_name"] for each in settings] == [
        "demo-tiny-seed-3408",
        "demo-tiny-seed-3409",
        "demo-tiny",
    ]
    assert [each["train"]["seed"] for each in settings] == [3408, 3409, 3407]
    assert {each["train"]["lora"]["r"] for each in settings} == {8}


def test_all_but_the_training_keep_their_seed():
    settings = [resolve_settings(*call) for call in seeded_calls("demo", options(2))]
    for stage in ("prepare_data", "evaluate", "infer"):
        assert {each[stage]["seed"] for each in settings} == {3407}


def test_the_first_seed_is_the_run_s_own():
    calls = seeded_calls("demo", options(2, ["train.seed=5"], "mine"))
    assert [(call[1], call[3][-1]) for call in calls] == [("mine-seed-6", "train.seed=6"), ("mine", "train.seed=5")]


@pytest.mark.parametrize("seeds", ["0", "101", "two"])
def test_a_number_of_trainings_that_makes_no_sense_is_refused(seeds, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--preset", "demo", "--seeds", seeds, "--dry-run"])
    assert "--seeds" in capsys.readouterr().err


@pytest.fixture
def seeded(run):
    """Returns a finished run with two more beside it, whose tuned chrF++ is one and two higher."""
    for place, seed in enumerate((3408, 3409), 1):
        folder = run.outputs / f"{run.name}-seed-{seed}/evaluate"
        shutil.copytree(run / "evaluate", folder)
        metrics = read_json(folder / "metrics.json")
        metrics["tuned"]["chrf"]["value"] += place
        write_json(folder / "metrics.json", metrics)
    return run


def row(run, label):
    results = read_results(run)
    return next(row for row in seed_rows(results.scores, results.other_seeds) if row["score"] == label)


def test_the_spread_between_trainings_is_beside_that_of_rows(seeded):
    own = read_results(seeded).scores.tuned["chrf"]
    shown = row(seeded, "chrF++")
    assert shown["trainings"] == "3"
    assert shown["mean"] == f"{own.value + 1:.2f}"
    assert shown["spread between trainings"] == f"{statistics.stdev([0, 1, 2]):.2f}"
    assert shown["spread between rows"] == f"{(own.high - own.low) / 3.92:.2f}"


def test_the_page_has_a_table_of_seeds(seeded):
    write_report(seeded, 2)
    page = (seeded / "report/index.html").read_text(encoding="utf-8")
    assert "3 trainings that differ in their seed alone" in page
    assert "one training with seed" not in page


def test_another_protocol_is_no_further_seed(seeded):
    file = seeded.outputs / f"{seeded.name}-seed-3409/evaluate/metrics.json"
    write_json(file, read_json(file) | {"max_new_tokens": 7})
    assert row(seeded, "chrF++")["trainings"] == "2"


def test_another_run_with_a_like_name_is_no_further_seed(seeded):
    shutil.copytree(seeded / "evaluate", seeded.outputs / f"{seeded.name}-seed-3410-longer/evaluate")
    assert row(seeded, "chrF++")["trainings"] == "3"


def test_a_further_seed_makes_the_page_be_written_again(seeded):
    before = input_hashes(seeded.folder, "report", {})
    file = seeded.outputs / f"{seeded.name}-seed-3409/evaluate/metrics.json"
    write_json(file, read_json(file) | {"n": 5})
    after = input_hashes(seeded.folder, "report", {})
    assert [name for name in after if after[name] != before[name]] == ["seed 3409"]


@pytest.mark.slow
def test_two_seeds_train_two_adapters(suite, tmp_path):
    done = suite("--preset", "demo", "--tiny", "--seeds", "2", "--outputs", tmp_path)
    assert done.returncode == 0, done.output
    weights = [
        (folder / "train/adapter/adapter_model.safetensors").read_bytes() for folder in tmp_path.glob("demo-tiny*")
    ]
    assert len({*weights}) == 2
    assert "2 trainings that differ" in (tmp_path / "demo-tiny/report/index.html").read_text(encoding="utf-8")
