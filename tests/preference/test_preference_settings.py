"""The settings of a training by preferences: refused before a run where they cannot be meant, and what they become."""

import pytest
from preferences import COLD, WARM, ask

from helpers.platforms.errors import Refused
from helpers.preference.config import configure_preference
from helpers.preference.prepare import prepare_preferences
from helpers.preflight import check_stages
from helpers.runs.files import read_json, read_jsonl, write_csv, write_json, write_jsonl
from helpers.runs.record import start_stage
from helpers.runs.settings import default_settings, resolve_settings

PAIRS = [{"chosen": "a", "rejected": "b"}]
SINGLES = [{"completion": "a", "label": True}]


@pytest.fixture
def check(run):
    """Returns a function that checks the settings of the stage prefer, as before a run."""

    def call(*assignments):
        check_stages(["prefer"], resolve_settings("demo", run.name, str(run.outputs), [*assignments], False))

    return call


@pytest.fixture
def configure(run):
    """Returns a function that configures a training by rows, with settings of `trl`."""
    tuned = read_json(run / "train/config.json")
    settings = {"lora": {"r": 8}, "sft": {}, "max_length": 1024, "embedded_model": "", **tuned}
    trained = {"base_model": "embedded", "backend": "peft", "load_in_4bit": False, "device_map": "", **settings}

    def call(rows, trl=(), sft=()):
        write_json(run / "train/config.json", {**trained, "sft": dict(sft)})
        parameters = default_settings("prefer")
        return configure_preference(run, {**parameters, "trl": {**parameters["trl"], **dict(trl)}}, rows)

    return call


def write_table(folder, **columns):
    """Writes a .csv file and returns the assignment that names it as the only source."""
    import pandas

    write_csv(folder / "own.csv", pandas.DataFrame(columns))
    return f"prefer.dataset=[{folder / 'own.csv'}]"


def test_a_file_with_other_columns_is_refused_before_a_run(check, tmp_path):
    named = write_table(tmp_path, prompt=["ক"], choice=["খ"], rejected=["গ"])
    with pytest.raises(Refused, match="has the columns .*Expected, by exact name, .*Add or rename chosen"):
        check(named)


def test_labels_that_nobody_knows_are_refused_before_a_run(check, tmp_path):
    with pytest.raises(Refused, match="no label is known, the first is 'maybe'"):
        check(write_table(tmp_path, prompt=["ক"], completion=["খ"], label=["maybe"]))


def test_thumbs_without_a_database_are_refused_before_a_run(check):
    with pytest.raises(Refused, match=r"names 'thumbs', and .*experiments.db is not there: give thumbs"):
        check("prefer.dataset=[thumbs]")


def test_ratings_without_an_evaluation_are_refused_first(check):
    with pytest.raises(Refused, match=r"names 'ratings', and run run has no evaluate/metrics.json"):
        check("prefer.dataset=[ratings]")


def test_too_few_prompts_are_refused_before_a_run(check, run, pairs, tmp_path):
    write_jsonl(tmp_path / "few.jsonl", [*pairs[:9], pairs[0]])
    with pytest.raises(Refused, match=r"about 9 different prompts \(1 dropped: duplicate 1\): .* out of the stages\.$"):
        check(f"prefer.dataset=[{tmp_path / 'few.jsonl'}]")
    assert not (run / "prefer").exists(), "a refused run has written something"


@pytest.mark.parametrize(("label", "kind"), [(True, "liked"), (False, "disliked")])
def test_thumbs_of_one_kind_are_refused_before_a_run(check, prompts, tmp_path, label, kind):
    write_jsonl(tmp_path / "thumbs.jsonl", [ask(prompt, WARM, label=label) for prompt in prompts])
    with pytest.raises(Refused, match=f"20 replies, all of them {kind}"):
        check(f"prefer.dataset=[{tmp_path / 'thumbs.jsonl'}]")


def test_enough_preferences_are_not_refused(check, run, pairs, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    check(f"prefer.dataset=[{tmp_path / 'pairs.jsonl'}]")
    assert not (run / "prefer").exists()


def test_a_stage_that_has_gathered_is_not_refused(check, run, pairs, tmp_path):
    write_jsonl(run / "prefer/pairs.jsonl", pairs)
    write_jsonl(tmp_path / "few.jsonl", pairs[:3])
    check(f"prefer.dataset=[{tmp_path / 'few.jsonl'}]")


@pytest.fixture
def check_anew(run, tmp_path):
    """Returns a function that checks a file of preferences before a run that prepares its rows anew."""

    def check(rows):
        write_jsonl(tmp_path / "own.jsonl", rows)
        assignment = f"prefer.dataset=[{tmp_path / 'own.jsonl'}]"
        settings = resolve_settings("demo", run.name, str(run.outputs), [assignment], False)
        check_stages(["prepare_data", "train", "prefer"], settings)

    return check


def test_rows_that_are_prepared_anew_are_not_gathered_by(check, check_anew, run, pairs, tmp_path):
    held_out = [row["messages"][-2]["content"] for row in read_jsonl(run / "data/test.jsonl")]
    rows = [*pairs[:3], *(ask(prompt, WARM, COLD) for prompt in held_out[:12])]
    check_anew(rows)
    with pytest.raises(Refused, match="question of a test row 12"):
        check(f"prefer.dataset=[{tmp_path / 'own.jsonl'}]")


def test_too_few_are_refused_before_rows_are_prepared(check_anew, pairs):
    with pytest.raises(Refused, match="about 3 different prompts: expected at least 10"):
        check_anew([*pairs[:3], *pairs[:3]])


def test_one_kind_is_refused_before_rows_are_prepared(check_anew, prompts):
    with pytest.raises(Refused, match="20 replies, all of them liked"):
        check_anew([ask(prompt, WARM, label=True) for prompt in prompts])


def test_a_training_that_has_begun_needs_its_file_no_more(check, run, tmp_path):
    (run / "prefer/checkpoints/checkpoint-1").mkdir(parents=True)
    run.note_stage("prefer", status="paused", parameters={})
    check(f"prefer.dataset=[{tmp_path / 'gone.csv'}]")
    run.note_stage("prefer", status="finished", parameters={})
    with pytest.raises(Refused, match="no such file"):
        check(f"prefer.dataset=[{tmp_path / 'gone.csv'}]")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("fp16=true", "prefer.trl.fp16 cannot be set: the dtype is that of 02_train. Remove it."),
        ("loss_type=ipo", "prefer.trl.loss_type cannot be set: pairs are trained on by DPO's own loss, single"),
        ("sync_ref_model=true", "prefer.trl.sync_ref_model cannot be set: the tuned model stays the reference."),
        ("learning_rate=1e-4", "prefer.trl.learning_rate is decided by prefer.learning_rate: set it there."),
        ("betta=1", "prefer.trl.betta is not a setting of DPOConfig or KTOConfig. Did you mean 'beta'"),
    ],
)
def test_a_setting_of_trl_that_has_no_place_is_refused(check, tmp_path, assignment, message):
    write_jsonl(tmp_path / "own.jsonl", [ask("ক", "খ", "গ")])
    with pytest.raises(Refused) as refused:
        check(f"prefer.dataset=[{tmp_path / 'own.jsonl'}]", f"prefer.trl.{assignment}")
    assert message in str(refused.value)


def test_a_setting_of_the_other_method_is_not_dropped(configure):
    with pytest.raises(ValueError, match="label_smoothing is a setting of DPO, .* trained on by KTO: remove it"):
        configure(SINGLES, {"label_smoothing": 0.1})
    with pytest.raises(ValueError, match="desirable_weight is a setting of KTO, .* trained on by DPO: remove it"):
        configure(PAIRS, {"desirable_weight": 2.0})
    assert configure(PAIRS, {"label_smoothing": 0.1}).sft["label_smoothing"] == 0.1


def test_the_dtype_that_was_set_for_training_stays(configure):
    assert configure(PAIRS, sft={"fp16": True}).sft["fp16"] is True
    assert "fp16" not in configure(PAIRS).sft


def test_a_bare_no_is_the_word_no_here_too(configure):
    assert configure(PAIRS, {"eval_strategy": False}).sft["eval_strategy"] == "no"


def test_early_stopping_names_the_settings_of_this_stage(configure):
    with pytest.raises(ValueError, match=r"prefer\.trl\.early_stopping_patience needs prefer\.trl\.load_best_model"):
        configure(PAIRS, {"early_stopping_patience": 2})


def test_what_was_deleted_leaves_the_copy_too(run, pairs, tmp_path):
    write_json(run / "train/config.json", {"base_model": "embedded", "backend": "peft"})
    write_jsonl(run / "prefer/pairs.jsonl", pairs)
    write_jsonl(tmp_path / "left.jsonl", pairs[:3])
    with pytest.raises(ValueError, match="about 3 different prompts"):
        prepare_preferences(run, [str(tmp_path / "left.jsonl")], 0.2, 1)
    assert not (run / "prefer/pairs.jsonl").exists()


def begin(run, file):
    """Begins the stage prefer of a run by the preferences of a file, as its notebook does, and returns its record."""
    cell = {**default_settings("prefer"), "outputs": str(run.outputs), "run_name": run.name, "dataset": [str(file)]}
    start_stage("prefer", {**cell, "__annotations__": dict.fromkeys(cell)})
    run.unlock()
    return run.stage("prefer")


@pytest.fixture
def trained(run):
    """Returns the run with all that the stage prefer reads, as if it had finished its training."""
    (run / "train/adapter").mkdir()
    (run / "train/adapter/adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("data/metrics.json", "train/metrics.json", "train/adapter/adapter_config.json"):
        write_json(run / name, {})
    return run


@pytest.mark.parametrize("gone", [False, True])
def test_preferences_given_during_a_pause_run_it_again(trained, tmp_path, pairs, gone):
    file = tmp_path / "own.jsonl"
    write_jsonl(file, pairs[:10])
    began = begin(trained, file).inputs
    (trained / "prefer/checkpoints/checkpoint-1").mkdir(parents=True)
    trained.note_stage("prefer", status="paused")
    file.unlink() if gone else write_jsonl(file, pairs)
    assert begin(trained, file).inputs == began
    trained.note_stage("prefer", status="finished")
    assert begin(trained, file).inputs != began
