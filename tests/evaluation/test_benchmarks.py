"""Public benchmarks: the numbers that lm-eval computes by itself, and why a task is skipped."""

import json
import math
import os
import shutil
import sys
import weakref
from pathlib import Path

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from helpers.evaluation import benchmarks as module
from helpers.evaluation.answers import EvaluationSettings, answer_rows
from helpers.evaluation.benchmarks import (
    check_benchmarks,
    compare_benchmarks,
    describe_benchmarks,
    list_tasks,
    read_rows,
    run_benchmarks,
    run_task,
)
from helpers.evaluation.meaning import free_memory
from helpers.inference.loaded_model import LoadedModel
from helpers.models.embedded import locate_base_model
from helpers.platforms.errors import Paused
from helpers.runs.files import read_journal
from helpers.runs.record import Run

FOLDER = Path(__file__).with_name("lm_eval_tasks")
TASKS = ["bengali_choices", "bengali_choices_shown"]


@pytest.fixture(scope="module", autouse=True)
def here():
    """lm-eval finds a task's files from the current folder, and describes the machine for 15 seconds a call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        yield


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
    """Returns a copy of the demo's run before its evaluation, without checkpoints."""
    folder = tmp_path_factory.mktemp("benchmarks") / "demo"
    for name in ("data", "train"):
        shutil.copytree(demo.run.folder.resolve() / name, folder / name, ignore=shutil.ignore_patterns("checkpoints"))
    return Run(folder)


def evaluation_settings(demo, **changes):
    small = {"max_rows": 2, "max_prompts": 1, "max_probes": 2, "max_new_tokens": 2, "batch_size": 4, "num_gpus": 1}
    parameters = demo.run.stage("evaluate").parameters | small | {"benchmarks": [f"{FOLDER}/"]}
    return EvaluationSettings(**parameters | changes)


@pytest.fixture(scope="module")
def ours(run):
    """Returns both models' entries for the tasks of the folder."""
    model, entries = LoadedModel(run), {}
    for side in ("tuned", "base"):
        with model.side(side):
            entries[side] = run_benchmarks(model.network, None, [f"{FOLDER}/"], 4, 0)
    return entries


def lm_eval_alone(run, adapter):
    """Returns what lm-eval prints of a model that it loads itself: {(task, metric): (value, standard error)}."""
    arguments = {"pretrained": locate_base_model(run.training_config()["base_model"], run), "dtype": "float32"}
    arguments |= {"peft": str(run / "train/adapter")} if adapter else {}
    tasks = TaskManager(include_path=str(FOLDER), include_defaults=False)
    results = lm_eval.simple_evaluate("hf", arguments, TASKS, batch_size=1, device="cpu", task_manager=tasks)
    return {
        (task, metric): (f"{own[f'{metric},none']:.4f}", f"{own[f'{metric}_stderr,none']:.4f}")
        for task, own in results["results"].items()
        for metric in ("acc", "acc_norm")
    }


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_the_numbers_are_lm_evals_own(run, ours, side):
    """To the four digits that lm-eval prints."""
    rows = [row for entry in ours[side] for row in entry["rows"]]
    own = {(row["task"], row["metric"]): (f"{row['value']:.4f}", f"{row['stderr']:.4f}") for row in rows}
    assert own == lm_eval_alone(run, adapter=side == "tuned")


def test_both_models_are_measured_and_not_one_twice(ours):
    values = {side: [row["value"] for entry in own for row in entry["rows"]] for side, own in ours.items()}
    assert values["base"] != values["tuned"]


def test_a_row_says_what_makes_it_comparable(ours):
    rows = {row["task"]: row for entry in ours["tuned"] for row in entry["rows"]}
    assert {task: (row["shots"], row["version"], row["n"]) for task, row in rows.items()} == {
        "bengali_choices": (0, 1.0, 36),
        "bengali_choices_shown": (2, 2.0, 36),
    }
    assert {row["lm_eval"] for row in rows.values()} == {lm_eval.__version__}
    assert {row["better"] for row in rows.values()} == {"higher"}


def test_the_differences_have_a_standard_error(ours):
    benchmarks = compare_benchmarks(ours, 0)
    assert len(benchmarks["tasks"]) == 4
    for row in benchmarks["tasks"]:
        assert row["delta"] == pytest.approx(row["tuned"] - row["base"])
        assert row["delta_stderr"] == pytest.approx(math.sqrt(row["base_stderr"] ** 2 + row["tuned_stderr"] ** 2))
    assert describe_benchmarks(benchmarks) == f"lm-eval {lm_eval.__version__}: 2 tasks, all items of each."
    json.dumps(benchmarks, allow_nan=False)


def test_a_limit_takes_the_first_items(run):
    entry = run_task(LoadedModel(run).network, TASKS[0], str(FOLDER), 4, 5)
    assert {row["n"] for row in entry["rows"]} == {5}


@pytest.fixture
def computed(run, monkeypatch):
    """Returns the tasks that are computed from now on, each with a weak reference to the model."""
    asked = []

    def run_one(network, task, *rest):
        asked.append((task, weakref.ref(network.get_base_model())))
        return run_task(network, task, *rest)

    monkeypatch.setattr(module, "run_task", run_one)
    return asked


def test_an_evaluation_that_was_interrupted_computes_a_task_once(demo, run, computed):
    work = run / "evaluate/work"
    shutil.rmtree(work, ignore_errors=True)
    first = answer_rows(run, evaluation_settings(demo))
    assert [task for task, _ in computed] == TASKS * 2
    assert {row["n"] for own in first.values() for entry in own.benchmarks for row in entry["rows"]} == {2}
    journal = work / "base_benchmarks-0.jsonl"
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text(lines[0] + lines[1][:50], encoding="utf-8")
    again = answer_rows(run, evaluation_settings(demo))
    assert [task for task, _ in computed[4:]] == [TASKS[1]], "the one whose line is incomplete"
    assert {side: own.benchmarks for side, own in again.items()} == {s: own.benchmarks for s, own in first.items()}


def test_a_stop_is_looked_for_between_two_tasks(run, monkeypatch, tmp_path):
    own = Run(tmp_path / "stopped")

    def compute(*_):
        (own / "stop").touch()
        return {"task": "a", "rows": [], "skipped": ""}

    (own / "evaluate/work").mkdir(parents=True)
    monkeypatch.setattr(module, "run_task", compute)
    keep = own / "evaluate/work/tuned_benchmarks.jsonl"
    with pytest.raises(Paused, match="tuned benchmarks 1 of 2: stop was asked for"):
        run_benchmarks(None, None, ["a", "b"], 4, 0, keep=keep, what="tuned benchmarks")


def test_no_model_is_in_memory_after_the_answers(demo, run, computed):
    """The encoder of similarity needs its place on the GPU."""
    shutil.rmtree(run / "evaluate/work", ignore_errors=True)
    answer_rows(run, evaluation_settings(demo))
    free_memory()
    assert [model() for _, model in computed] == [None] * 4


@pytest.mark.slow
def test_two_processes_share_the_tasks(demo, run):
    """lm-eval returns results in the process of local rank 0 alone."""
    shutil.rmtree(run / "evaluate/work", ignore_errors=True)
    answers = answer_rows(run, evaluation_settings(demo, num_gpus=2))
    files = sorted((run / "evaluate/work").glob("base_benchmarks-*.jsonl"))
    assert [[entry["items"] for entry in read_journal(file)] for file in files] == [[[0]], [[1]]]
    for side in ("base", "tuned"):
        assert [len(entry["rows"]) for entry in answers[side].benchmarks] == [2, 2], answers[side].benchmarks


def test_the_local_rank_is_put_back(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with module.only_process():
        assert os.environ["LOCAL_RANK"] == "0"
    assert os.environ["LOCAL_RANK"] == "1"
    monkeypatch.delenv("LOCAL_RANK")
    with module.only_process():
        pass
    assert "LOCAL_RANK" not in os.environ


def test_a_task_that_is_not_known_is_skipped(run):
    entry = run_task(LoadedModel(run).network, "bengali_choise", str(FOLDER), 4, 0)
    assert entry["rows"] == []
    assert entry["skipped"].endswith("has no task of this name, the nearest is bengali_choices")


def test_a_task_that_has_to_be_downloaded_is_skipped_offline(run, tmp_path):
    (tmp_path / "far.yaml").write_text(
        "task: far\ndataset_path: nobody/no-such-set\noutput_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: answer\n',
        encoding="utf-8",
    )
    entries = run_benchmarks(LoadedModel(run).network, None, [str(tmp_path)], 4, 0)
    assert [entry["task"] for entry in entries] == ["far"]
    assert "nobody/no-such-set" in entries[0]["skipped"]


def test_without_lm_eval_a_benchmark_is_skipped(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    module.task_manager.cache_clear()
    entries = run_benchmarks(None, None, ["belebele_ben_Beng", str(FOLDER)], 4, 0)
    assert [entry["task"] for entry in entries] == ["belebele_ben_Beng", f"{FOLDER}"]
    assert {entry["skipped"] for entry in entries} == {module.MISSING}
    assert f"lm_eval=={lm_eval.__version__}" in module.MISSING, "the version that the tests are run with"


def test_a_folder_without_tasks_says_so(tmp_path):
    assert list_tasks([str(tmp_path)]) == [("", str(tmp_path))]
    assert run_task(None, "", str(tmp_path), 4, 0)["skipped"] == "the folder defines no task"


def test_a_benchmark_that_one_model_lacks_is_not_compared(ours):
    failed = {"task": TASKS[0], "rows": [], "skipped": "no network"}
    benchmarks = compare_benchmarks({"base": [failed, ours["base"][1]], "tuned": ours["tuned"]}, 20)
    assert {row["task"] for row in benchmarks["tasks"]} == {TASKS[1]}
    assert benchmarks["skipped"] == [{"task": TASKS[0], "why": "no network"}]
    assert describe_benchmarks(benchmarks).endswith(
        "1 task, at most 20 items of each. bengali_choices is skipped: no network."
    )


def test_no_benchmarks_are_no_key_of_the_metrics():
    assert compare_benchmarks({"base": [], "tuned": []}, 0) == {}
    assert "No public benchmark is asked for" in describe_benchmarks({})


RESULTS = {
    "results": {
        "school": {"alias": "school", "acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 30},
        "school_1": {"alias": " - 1", "acc,none": 0.4, "acc_stderr,none": 0.1, "f1,strict": math.nan},
        "loose": {"alias": " "},
        "loose_1": {"perplexity,none": 7.0, "perplexity_stderr,none": 0.5},
    },
    "higher_is_better": {"school": {"acc": True}, "loose_1": {"perplexity": False}},
    "n-samples": {"school_1": {"original": 30, "effective": 30}, "loose_1": {"original": 9, "effective": 3}},
    "n-shot": {"school": 5, "loose_1": 0},
    "versions": {"school": 1},
}


def test_of_a_group_its_mean_is_read():
    (row,) = read_rows("school", RESULTS, "1")
    assert (row["task"], row["value"], row["stderr"], row["n"]) == ("school", 0.5, None, 30)


def test_of_a_group_without_a_mean_its_tasks_are_read():
    rows = [row for row in read_rows("loose", RESULTS, "1") if row["task"] == "loose_1"]
    assert [(row["metric"], row["better"], row["n"], row["shots"]) for row in rows] == [("perplexity", "lower", 3, 0)]


def test_a_number_that_is_none_is_left_out():
    rows = read_rows("school_1", RESULTS, "1")
    assert [row["metric"] for row in rows] == ["acc"]
    assert rows[0]["better"] == "neither", "lm-eval does not say"


def test_a_folder_that_is_not_here_is_refused(tmp_path):
    check_benchmarks(["belebele_ben_Beng", str(FOLDER)])
    with pytest.raises(FileNotFoundError, match=r"evaluate\.benchmarks holds '.*absent': no such folder"):
        check_benchmarks([str(tmp_path / "absent")])
    with pytest.raises(TypeError, match=r"holds \['a'\] \(list\): expected names of tasks"):
        check_benchmarks([["a"]])


def test_the_first_items_are_of_the_file(ours):
    with open(FOLDER / "asked.jsonl", encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    assert len(items) == 36
    assert all(len(set(item["choices"])) == 4 for item in items)
