"""Runs made before the helpers had rooms are read, reported, compared and resumed.

earlier_runs/ holds the small files of five tiny runs of the demo as commit 898d1d2 left them. Data rows, weights and
pages are not kept; where a test needs the hash of one, it takes the one that the run recorded.
"""

import json
import shutil
from pathlib import Path

import pytest

from helpers.__main__ import main
from helpers.planning.config import configure_training
from helpers.platforms.errors import Refused
from helpers.runner import select_stages
from helpers.runs.checkpoints import fingerprint_differences, make_fingerprint
from helpers.runs.files import file_sha256, read_json, write_json
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings
from helpers.runs.stages import EMBEDDED_CORPUS, MAIN_STAGES

EARLIER = Path(__file__).with_name("earlier_runs")
NAMES = sorted(path.name for path in EARLIER.iterdir())


@pytest.fixture
def earlier(tmp_path):
    """Returns a function that copies an earlier run to an outputs folder, and returns it."""

    def copy(name):
        shutil.copytree(EARLIER / name, tmp_path / "outputs" / name)
        return Run(tmp_path / "outputs" / name)

    return copy


def report(*runs):
    """Returns the page that `python -m helpers report` writes."""
    assert main(["report", *map(str, runs)]) == 0
    page = runs[0] / "report/index.html" if len(runs) == 1 else runs[0].outputs / "comparison.html"
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_an_earlier_record_is_written_back_as_it_was(earlier, name):
    run = earlier(name)
    before = (run / "run.json").read_text(encoding="utf-8").replace('"judge": {', '"llm_judge": {')  # renamed since
    with run.edit():
        pass
    assert read_json(run / "run.json") == json.loads(before), "a key of run.json was lost: earlier runs need it"


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_an_earlier_finished_run_is_reported(earlier, side):
    run = earlier("finished")
    page = report(run)
    assert f"{run.metrics('evaluate')[side]['perplexity']['value']:.2f}" in page


def test_an_earlier_runs_command_is_shown_as_recorded(earlier):
    run = earlier("finished")
    assert run.record().commands[0] in report(run)


def test_the_top_has_the_worst_share_of_unsafe_replies(earlier):
    run = earlier("finished")
    metrics = run.metrics("evaluate")
    metrics["prompts"]["categories"][-1]["tuned unsafe"] = 1.0
    write_json(run / "evaluate/metrics.json", metrics)
    page = report(run)
    rows = metrics["prompts"]["categories"][-1]["n"]
    worst = f"{rows} of {rows} fixed prompts"
    assert worst in page.partition("<h1>")[2].partition('class="lead"')[0], "it stands beside the verdict"
    assert worst in page.partition("<h2>Limits</h2>")[2].partition("</ul>")[0]
    assert metrics["tuned"]["unsafe"]["value"] < 1, "the held-out rows alone would have hidden it"


def test_two_earlier_runs_are_compared(earlier):
    page = report(earlier("finished"), earlier("finished2"))
    assert "finished2" in page
    assert "train.seed" in page, "the setting that differs"


@pytest.mark.parametrize(
    ("name", "state"), [("paused", "train: paused"), ("failed", "evaluate: failed (ValueError: `max_new_tokens`")]
)
def test_an_earlier_unfinished_run_says_how_to_continue(earlier, name, state):
    run = earlier(name)
    page = report(run)
    assert state in page
    assert "run the same command again" in page
    assert run.record().commands[0] in page


def test_an_earlier_search_is_reported(earlier):
    run = earlier("searched")
    best = read_json(run / "tune/best.json")
    page = report(run)
    assert f"{best['val_loss']:.4f}" in page
    for name in best["settings"]:
        assert name in page


@pytest.fixture
def recorded_hashes(monkeypatch):
    """Returns a function that gives a run's files which are not kept here the hashes that the run recorded."""

    def use(run):
        recorded = {run / name: value for stage in run.record().stages.values() for name, value in stage.inputs.items()}
        monkeypatch.setattr(
            "helpers.runs.differences.file_sha256", lambda path: file_sha256(path) or recorded.get(Path(path), "")
        )

    return use


def settings_of(run, *sets):
    return resolve_settings("demo", run.name, str(run.outputs), list(sets), tiny=True)


def test_nothing_is_left_to_do_in_an_earlier_finished_run(earlier, recorded_hashes):
    run = earlier("finished")
    recorded_hashes(run)
    assert select_stages(settings_of(run), list(MAIN_STAGES), force=False) == dict.fromkeys(MAIN_STAGES, "")


@pytest.mark.parametrize("given", ["encoder=owner/name", "benchmarks=[belebele_ben_Beng]"])
def test_an_earlier_run_takes_no_new_measurement_unasked(earlier, recorded_hashes, given):
    run = earlier("finished")
    recorded_hashes(run)
    with pytest.raises(Refused, match=f"evaluate.{given.partition('=')[0]} was "):
        select_stages(settings_of(run, f"evaluate.{given}"), list(MAIN_STAGES), force=False)


def test_an_earlier_finished_run_is_not_overwritten(earlier, recorded_hashes):
    run = earlier("finished")
    recorded_hashes(run)
    with pytest.raises(Refused, match=r"train.seed was 3407, now 8"):
        select_stages(settings_of(run, "train.seed=8"), list(MAIN_STAGES), force=False)


def test_an_earlier_paused_run_continues_with_its_training(earlier, recorded_hashes):
    run = earlier("paused")
    recorded_hashes(run)
    sets = run.record().commands[0].partition("--set ")[2].split()
    reasons = select_stages(settings_of(run, *sets), list(MAIN_STAGES), force=False)
    expected = ["", "was paused", "new", "new", "new"]
    assert reasons == dict(zip(MAIN_STAGES, expected, strict=True))


def test_an_earlier_run_says_that_its_corpus_has_changed_since(earlier, recorded_hashes, capsys):
    run = earlier("finished")
    recorded_hashes(run)
    command = ["run", "--preset", "demo", "--tiny", "--run-name", run.name, "--outputs", str(run.outputs)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "its rows are another version of the embedded corpus, 5a10d169, now " in printed
    assert "nothing to do" in printed


def record_dataset(run, sha256):
    """Gives a run's prepared data the hash of a data set, as a run of today records it."""
    inputs = run.stage("prepare_data").inputs
    run.note_stage("prepare_data", inputs={**inputs, "dataset": sha256})


def test_a_finished_run_is_made_again_on_another_embedded_corpus(earlier, recorded_hashes):
    run = earlier("finished")
    record_dataset(run, "another")
    recorded_hashes(run)
    reasons = select_stages(settings_of(run), list(MAIN_STAGES), force=False)
    assert list(reasons.values()) == ["its inputs changed: the data set", *["an earlier stage runs again"] * 4]


def test_a_paused_run_keeps_its_rows_on_another_embedded_corpus(earlier, recorded_hashes):
    run = earlier("paused")
    record_dataset(run, "another")
    recorded_hashes(run)
    sets = run.record().commands[0].partition("--set ")[2].split()
    with pytest.raises(Refused, match="has begun to train on another version of the data set 'embedded'"):
        select_stages(settings_of(run, *sets), list(MAIN_STAGES), force=False)


@pytest.mark.parametrize("name", ["finished", "paused"])
def test_the_same_embedded_corpus_changes_nothing(earlier, recorded_hashes, name):
    run = earlier(name)
    record_dataset(run, file_sha256(EMBEDDED_CORPUS))
    recorded_hashes(run)
    sets = run.record().commands[0].partition("--set ")[2].split()
    assert select_stages(settings_of(run, *sets), ["prepare_data"], force=False) == {"prepare_data": ""}


@pytest.fixture
def paused_config(earlier):
    """Returns the earlier paused run, and the training configuration that the present code makes for it."""
    run = earlier("paused")
    decided = {
        "max_length": run.stage("prepare_data").parameters["max_length"],
        "embedded_model": run.metrics("prepare_data")["embedded_model"],
    }
    return run, configure_training(run.stage("train").parameters).model_copy(update=decided).to_json()


def test_an_earlier_training_configuration_stays_the_same(paused_config):
    run, config = paused_config
    assert config == run.training_config()
    assert list(config) == list(run.training_config()), "the order of the names is part of the file"


def test_an_earlier_checkpoint_would_be_resumed(paused_config):
    run, config = paused_config
    before = read_json(run / "train/checkpoints/checkpoint-5/manifest.json")["fingerprint"]
    now = make_fingerprint(run.id(), config, run.stage("train").inputs, world_size=1)
    assert fingerprint_differences(before, now) == []
    assert {**now, "versions": {}} == {**before, "versions": {}}
