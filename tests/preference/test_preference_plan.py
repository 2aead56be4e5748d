"""What a training by preferences is estimated to take, before its run and without a model."""

import json

import pytest
from preferences import ask, give_thumb

from helpers.__main__ import main
from helpers.models.families import FAMILIES
from helpers.planning.plan import plan_preset
from helpers.preference.plan import byte_rate, estimate_preference, plan_lines, row_sizes
from helpers.runs.files import write_json, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import resolve_settings

PRESET = "kaggle-t4x2"


def settings_of(run, *sets):
    return resolve_settings(PRESET, run.name, str(run.outputs), [*sets], False)


@pytest.fixture
def estimate(run):
    """Returns a function that estimates the stage prefer of the run, with settings."""
    return lambda *sets: estimate_preference(settings_of(run, *sets), run)


@pytest.fixture
def file(pairs, tmp_path):
    """Returns the assignment that names a file of 20 pairs."""
    write_jsonl(tmp_path / "own.jsonl", pairs)
    return f"prefer.dataset=[{tmp_path / 'own.jsonl'}]"


def test_preferences_that_are_there_are_counted(estimate, file):
    plan = estimate(file)
    assert plan["rows_from"].startswith("20 preferences gathered now")
    assert "20 preferences about 20 prompts: 20 pairs" in plan["gathered"]
    assert "465 are missing" in plan["gathered"]
    assert (plan["method"], plan["optimizer_steps"]) == ("dpo", 1)  # 16 pairs to train on, 2 × 8 of them in a step


@pytest.mark.parametrize(
    ("base_model", "family", "words"),
    [
        ("sarvamai/sarvam-1", "text", "at Llama 3's rate, scaled by this model's, 0.374: not measured"),
        ("unsloth/gemma-3-4b-it", "gemma", "at Llama 3's rate, scaled by this model's, on the embedded corpus"),
        ("unsloth/Qwen3-4B", "chatml", "at Llama 3's rate, scaled by this model's, on the embedded corpus"),
    ],
)
def test_their_tokens_are_counted_at_the_models_own_rate(base_model, family, words, estimate, file):
    own, llama = estimate(file, f"shared.base_model={base_model}"), estimate(file)
    share = FAMILIES[family].tokens_per_character / FAMILIES["llama-3"].tokens_per_character
    assert own["tokens_per_epoch"] == pytest.approx(llama["tokens_per_epoch"] * share, rel=0.03)
    assert f"their tokens by their bytes {words}" in own["rows_from"]
    assert llama["rows_from"].endswith(" at Llama 3's rate")


def test_a_model_of_no_known_rate_is_counted_at_llamas():
    assert byte_rate("a/b") == (byte_rate("a/Llama-3.1-8B")[0], "Llama 3's rate: that of 'a/b' is not known")


def test_single_replies_are_planned_for_kto(estimate, run, prompts):
    for number, prompt in enumerate(prompts):
        give_thumb(run, prompt, f"আমি আপনার পাশে আছি, কী হয়েছে বলুন তো আমাকে। ({number})", number % 2 == 0)
    assert estimate()["method"] == "kto"


def test_nothing_is_written_by_an_estimate(estimate, run, file):
    estimate(file)
    assert not (run / "prefer").exists()


@pytest.mark.parametrize(
    ("sets", "reason"),
    [([], "give thumbs on the chat page"), (["prefer.dataset=[nowhere.csv]"], "'nowhere.csv': no such file in")],
)
def test_without_sources_as_many_as_are_needed_are_assumed(estimate, sets, reason):
    plan = estimate(*sets)
    assert plan["rows_from"].startswith("485 pairs are assumed, as many as an effect worth having needs")
    assert reason in plan["not_gathered"]
    assert reason in plan_lines(plan)["not gathered"]


@pytest.mark.parametrize("sources", ["[]", "[thumbs,thumbs]", "[kaggle:me]", "[thumb]"])
def test_what_is_no_list_of_sources_is_not_planned_with(estimate, sources):
    with pytest.raises(ValueError, match=r"prefer\.dataset (is|names) "):
        estimate(f"prefer.dataset={sources}")


def test_too_few_to_train_on_are_not_planned_with(estimate, pairs, tmp_path):
    write_jsonl(tmp_path / "few.jsonl", pairs[:3])
    plan = estimate(f"prefer.dataset=[{tmp_path / 'few.jsonl'}]")
    assert "485 pairs" in plan["rows_from"]
    assert "gives preferences about 3 different prompts: expected at least 10" in plan["not_gathered"]


def test_before_there_is_a_run_there_is_an_estimate(tmp_path):
    run = Run(tmp_path / "new")
    plan = estimate_preference(settings_of(run), run)
    assert plan["peak_memory_gib"] > 5
    parts = [plan["hours"][name] for name in ("reference", "train", "evaluate")]
    assert plan["hours"]["total"] == pytest.approx(sum(parts), abs=0.001)


def test_a_third_model_takes_about_half_of_what_two_take(tmp_path):
    run = Run(tmp_path / "new")
    two, third = plan_preset(settings_of(run), run).hours["evaluate"], estimate_preference(settings_of(run), run)
    assert 0.5 * two < third["hours"]["evaluate"] < 0.75 * two


def test_longer_preferences_take_longer(estimate, prompts, tmp_path):
    hours = []
    for times in (1, 4):
        file = tmp_path / f"{times}.jsonl"
        long = "আপনার কথাগুলো শুনে মনটা ভারী হয়ে গেল, আমি সত্যিই আপনার পাশে আছি আজ। "
        write_jsonl(file, [ask(prompt, long * times + prompt, "এসব নিয়ে এত ভাবার কিছু নেই তো আর।") for prompt in prompts])
        hours.append(estimate(f"prefer.dataset=[{file}]")["hours"]["train"])
    assert hours[1] > 1.5 * hours[0]


def test_memory_that_is_too_small_is_refused(run, file):
    with pytest.raises(ValueError, match="a GPU has 4.00 GiB"):
        estimate_preference(settings_of(run, file), run, gpu_gib=4.0)


def test_activations_in_float32_are_counted(run, tmp_path):
    write_json(tmp_path / "gemma" / "config.json", FAMILIES["gemma"].shapes["4B"])
    settings = settings_of(run, f"shared.base_model={tmp_path / 'gemma'}", "train.max_tokens=1024")
    gpus = ("Tesla T4", "NVIDIA A100-SXM4-40GB")
    on_t4, with_bfloat16 = (estimate_preference(settings, run, 40.0, gpu)["peak_memory_gib"] for gpu in gpus)
    assert on_t4 > with_bfloat16 + 0.5


def test_a_pair_takes_two_rows_of_its_longer_reply():
    assert row_sizes([(10, 30), (20, 5)], "dpo") == ([60, 40], [40, 25])
    assert row_sizes([(10, 30), (20, 5)], "kto") == ([10, 20], [10, 20])


@pytest.mark.parametrize(("stages", "is_planned"), [([], False), (["--stages", "prefer,evaluate,report"], True)])
def test_the_command_plans_it_when_it_is_asked_for(stages, is_planned, tmp_path, capsys):
    command = ["plan", "--preset", PRESET, "--outputs", str(tmp_path), *stages]
    assert main([*command, "--json"]) == 0
    assert ("prefer" in json.loads(capsys.readouterr().out)) == is_planned
    assert main(command) == 0
    assert ("prefer: training" in capsys.readouterr().out) == is_planned


def test_stages_do_not_go_with_a_comparison_of_models(tmp_path, capsys):
    command = ["plan", "--preset", PRESET, "--outputs", str(tmp_path), "--stages", "prefer"]
    assert main([*command, "--base-model", "some/model", "other/model"]) == 2
    assert "leave --stages out" in capsys.readouterr().err


def test_a_stage_that_is_none_is_refused(tmp_path, capsys):
    assert main(["plan", "--preset", PRESET, "--outputs", str(tmp_path), "--stages", "preferred"]) == 2
    assert "no stage 'preferred'" in capsys.readouterr().err
