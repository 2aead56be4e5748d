"""A search over base models: each on its own tokens, for equal hours, judged by bits per character."""

import math

import pytest
from calibrations import calibration
from model_families import FAMILIES, save_family
from search_runs import finish_search

from helpers.models.chat import count_tokens
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import load_base_model, load_tokenizer
from helpers.planning.calibration import keep_calibration
from helpers.planning.checks import check_machine, find_needs
from helpers.platforms.errors import Refused
from helpers.preflight import check_stages
from helpers.reporting.figures import draw_search
from helpers.reporting.report import search_rows
from helpers.runs.files import read_json, read_jsonl, write_json
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings
from helpers.search.base_models import count_rows
from helpers.search.results import budget_hours, describe_search, estimate_search, write_results
from helpers.search.study import open_search
from helpers.training.config import apply_search_settings


@pytest.fixture(scope="module")
def other(embedded_rows, tmp_path_factory):
    """Returns the folder of a tiny Qwen, whose tokenizer spends other tokens than that of the base model."""
    texts = [message["content"] for row in embedded_rows[:60] for message in row["messages"]]
    return str(save_family(FAMILIES["Qwen 3"], texts, tmp_path_factory.mktemp("other") / "qwen"))


@pytest.fixture
def models_search(make_search, base, other):
    """Returns a function that makes a run which searches two base models; changes are to the stage's parameters."""

    def call(name, **changes):
        space = {"base_model": [str(base), other]}
        return make_search(name, **{"space": space, "budget_steps": 12, "rungs": 2, **changes})

    return call


def rows_of(run, part):
    return read_jsonl(run / f"data/{part}.jsonl")


def test_every_base_model_trains_for_equal_hours(models_search):
    search = open_search(models_search("equal", budget_steps=60))
    estimate = estimate_search(search)
    hours = estimate["hours_of_all"] / 2
    for candidate in search.candidates:
        assert budget_hours(search, candidate.config) == pytest.approx(hours, rel=0.05)
    steps = [candidate.config.sft["max_steps"] for candidate in search.candidates]
    assert steps[0] != steps[1], "both models cost the same per step: the test shows nothing"


def test_rows_count_in_each_models_own_tokens(models_search, base, other):
    search = open_search(models_search("tokens"))
    rows = rows_of(search.run, "train")
    for name in (str(base), other):
        assert search.models[name].lengths == sorted(count_tokens(load_tokenizer(name), rows))


def test_bits_per_character_are_those_of_the_evaluation(models_search, other):
    search = open_search(models_search("bits"))
    (config,) = [c.config for c in search.candidates if c.config.base_model == other]
    model, tokenizer = load_base_model(other, False, "float32", {"": "cpu"}).eval(), load_tokenizer(other)
    scores = score_likelihood(model, tokenizer, rows_of(search.run, "val"), max_tokens=2000)
    nll, tokens, characters = (sum(score[name] for score in scores) for name in ("nll", "tokens", "characters"))
    assert search.judged(config, nll / tokens) == pytest.approx(nll / characters / math.log(2))


def test_base_models_are_judged_by_bits_per_character(models_search):
    run = models_search("judged", budget_steps=6)
    search = open_search(run)
    table, best = finish_search(run)
    assert len(table) == 2
    for row in table:
        log = read_jsonl(run / f"tune/trials/{row['candidate']:03d}/train/log.jsonl")
        loss = next(line["eval_loss"] for line in reversed(log) if "eval_loss" in line)
        config = search.candidates[row["candidate"]].config
        assert row["bits_per_char"] == pytest.approx(loss * count_rows(run, config).bits_per_nat, rel=1e-5)
    metrics = write_results(search, table, best, estimate_search(search))
    assert "Judged by validation bits per character" in describe_search(metrics)
    header = (run / "tune/trials.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"bits per character at rung 0", "budget_hours"} <= {*header}
    assert not [name for name in header if "loss" in name or name == "perplexity"]


def test_training_and_plot_take_what_was_judged_by_bits(tmp_path, capsys):
    best = {"candidate": 0, "settings": {"base_model": "a/one"}, "bits_per_char": 1.25, "importance": None}
    write_json(tmp_path / "tune/best.json", best)
    assert (
        apply_search_settings(tmp_path, {"base_model": "x", "sft": {"settings_from": "tune"}})["base_model"] == "a/one"
    )
    assert "1.2500 bits per character" in capsys.readouterr().out
    trials = [{"candidate": "0", "bits per character at rung 0": "1.25", "bits_per_char": "1.25", "status": "finished"}]
    assert draw_search(trials, best).axes[0].get_ylabel() == "validation bits per character"
    assert search_rows(trials)[0]["bits per character at rung 0"] == "1.2500"


def test_a_later_calibration_changes_no_budget(models_search, monkeypatch):
    run = models_search("kept", budget_steps=60)
    before = [candidate.config.sft["max_steps"] for candidate in open_search(run).candidates]
    monkeypatch.setattr("helpers.planning.calibration.gpu_names", lambda: ["NVIDIA L4"])
    keep_calibration(run.outputs, "NVIDIA L4", calibration(2.0))
    monkeypatch.setattr("helpers.search.study.seconds_per_step", lambda run, config, lengths: float(sum(lengths)))
    assert [candidate.config.sft["max_steps"] for candidate in open_search(run).candidates] == before


def test_a_base_model_that_is_not_there_is_refused_alone(make_search, base):
    space = {"base_model": [str(base), "nobody/nothing"]}
    search = open_search(make_search("absent", space=space, budget_steps=12, rungs=2))
    assert sorted(bool(candidate.refused) for candidate in search.candidates) == [False, True]
    (refused,) = [candidate.refused for candidate in search.candidates if candidate.refused]
    assert "nobody/nothing" in refused


def test_what_a_search_loads_is_asked_for_beforehand(tmp_path):
    sets = ['tune.space={"base_model": ["a/one", "b/two"]}']
    settings = resolve_settings("demo", "x", str(tmp_path), sets, tiny=False)
    assert {"model:a/one", "model:b/two"} <= set(find_needs(["tune"], settings).questions)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ('{"base_model": ["embedded", "unsloth/Qwen3-4B-bnb-4bit"]}', "are stored in 4 bits"),
        ('{"base_model": ["embedded", "a/Qwen3-4B-bnb-4bit"], "learning_rate": [1.0e-4]}', "are stored in 4 bits"),
        ('{"base_model": ["embedded", "b/Llama-3.2-1B"], "load_in_4bit": [true, false]}', ""),
    ],
)
def test_a_base_model_in_other_bits_is_refused_at_once(space, sentence, tmp_path):
    settings = resolve_settings("demo", "x", str(tmp_path), [f"tune.space={space}"], tiny=False)
    if not sentence:
        check_stages(["tune"], settings)
        return
    with pytest.raises(Refused, match=f"tune.space.base_model: .*{sentence}"):
        check_stages(["tune"], settings)


def test_a_misspelt_folder_is_refused_by_its_setting(tmp_path):
    sets = ['tune.space={"base_model": ["embedded", "misspelt"]}']
    settings = resolve_settings("demo", "x", str(tmp_path), sets, tiny=False)
    with pytest.raises(Refused, match="tune.space.base_model 'misspelt' is not here: .* folder as tune.space.base_mod"):
        check_machine(["tune"], settings, Run(tmp_path / "x"))


def test_losses_of_another_tokenizer_are_refused(make_search, base, other):
    run = make_search("mixed", budget_steps=9)
    open_search(run)
    record = read_json(run / "run.json")
    record["settings"]["train"]["base_model"] = other
    write_json(run / "run.json", record)
    with pytest.raises(ValueError, match="they do not compare. Take another run_name or storage, or search base_model"):
        open_search(run)
