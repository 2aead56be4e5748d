"""The rows of every step, and what a run will cost."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import env, plan, presets

RNG = random.Random(5)
LENGTHS = [RNG.randint(20, 900) for _ in range(5000)] + [2048, 2047]


def config(**changes):
    """Returns a configuration's part that decides batches."""
    sft = {"gradient_checkpointing": True, **plan.DEFAULTS, **changes.pop("sft", {})}
    return {"max_tokens": 0, "num_train_epochs": 2.0, "seed": 3, **changes, "sft": sft}


def flat(epoch):
    return [row for step in epoch for share in step for batch in share for row in batch]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("changes", [{"max_tokens": 1792}, {}, {"sft": {"train_sampling_strategy": "random"}}])
def test_every_row_comes_once_an_epoch_and_every_rank_gets_as_many_micro_batches(world, changes):
    epochs = plan.schedule(LENGTHS, plan.batch_settings(config(**changes)), world)
    assert len(epochs) == 2 and epochs[0] != epochs[1]
    assert len({len(epoch) for epoch in epochs}) == 1, "the library counts steps by the first epoch"
    for epoch in epochs:
        assert sorted(flat(epoch)) == list(range(len(LENGTHS)))
        assert all(len(step) == world and len({len(share) for share in step}) == 1 for step in epoch)
        assert all(len(step[0]) == 8 for step in epoch[:-1])


def test_the_rows_of_a_step_depend_on_ranks_times_accumulation_alone():
    rows = []
    for world, accumulation in ((1, 6), (2, 3), (3, 2)):
        settings = plan.batch_settings(config(max_tokens=1792, sft={"gradient_accumulation_steps": accumulation}))
        rows.append([[sorted(flat([step])) for step in epoch] for epoch in plan.schedule(LENGTHS, settings, world)])
    assert rows[0] == rows[1] == rows[2]


def test_a_budget_holds_but_for_rows_above_it_and_wastes_little():
    epochs = plan.schedule(LENGTHS, plan.batch_settings(config(max_tokens=1792)), 2)
    batches = [batch for step in epochs[0] for share in step for batch in share]
    over = [batch for batch in batches if plan.padded(batch, LENGTHS) > 1792]
    assert sorted(LENGTHS[row] for batch in over for row in batch) == [2047, 2048]
    assert sum(LENGTHS) / sum(plan.padded(batch, LENGTHS) for batch in batches) > 0.97
    unsorted = plan.cut(range(len(LENGTHS)), LENGTHS, max_tokens=1792)
    assert sum(LENGTHS) / sum(plan.padded(batch, LENGTHS) for batch in unsorted) < 0.8


def test_the_order_is_the_seed_s():
    first, again, other = (
        plan.schedule(LENGTHS, plan.batch_settings(config(max_tokens=1792, seed=seed)), 1) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_ranks_of_a_step_have_about_the_same_to_do():
    epochs = plan.schedule(LENGTHS, plan.batch_settings(config(max_tokens=1792)), 2)
    loads = [[sum(plan.padded(batch, LENGTHS) for batch in share) for share in step] for step in epochs[0]]
    assert sum(max(pair) for pair in loads) / sum(sum(pair) / 2 for pair in loads) < 1.01


def test_fewer_rows_than_ranks_leave_a_rank_without_rows_but_in_step():
    epochs = plan.schedule([9, 8, 7], plan.batch_settings(config(max_tokens=64)), 4)
    assert all(len(step) == 4 for step in epochs[0]) and sorted(flat(epochs[0])) == [0, 1, 2]


def test_steps_beyond_the_epochs_come_from_further_epochs():
    found = plan.schedule(LENGTHS[:20], plan.batch_settings(config(sft={"max_steps": 9})), 1)
    assert len(found) * len(found[0]) >= 9 and len({tuple(flat(epoch)) for epoch in found}) == len(found)


def test_only_micro_batches_over_the_budget_compute_their_activations_twice():
    budget, rows = config(max_tokens=1792), config()
    assert [plan.checkpointed(tokens, budget) for tokens in (1792, 1793)] == [False, True]
    assert [plan.checkpointed(tokens, budget, limit=896) for tokens in (896, 897)] == [False, True]
    assert plan.checkpointed(1, rows) and not plan.checkpointed(1, config(sft={"gradient_checkpointing": False}))
    assert plan.checkpointed(500, config(sft={"gradient_checkpointing": False}), limit=400)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "usloth"}, "train.backend is 'usloth': expected one of 'unsloth', 'peft'"),
        ({"sft": {"max_length": 9}}, "sft.max_length is decided by shared.max_length"),
        ({"sft": {"report_to": "mlflow"}}, "sft.report_to is 'mlflow'"),
        ({"sft": {"gradient_accumulation_steps": 0}}, "sft.gradient_accumulation_steps is 0: expected more than 0"),
        ({"learning_rate": 0.0}, "train.learning_rate is 0.0"),
        ({"max_tokens": -1}, "train.max_tokens is -1"),
        ({"device_map": "balanced", "num_gpus": 2}, "num_gpus is 2, set 1"),
        ({"device_map": "auto"}, "train.device_map is 'auto'"),
        ({"sft": {"early_stopping_patience": 3}}, "needs sft.load_best_model_at_end"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(changes, message):
    parameters = {name: value for name, (value, _) in presets.parameters_cell("train").items()}
    plan.configure(parameters)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        plan.configure({**parameters, **changes})


def test_yaml_s_bare_no_is_the_library_s_no():
    settings = presets.resolve("demo", "r", "outputs", ["train.sft.save_strategy=no"], False)
    assert plan.configure(settings["train"])["sft"]["save_strategy"] == "no"


QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.mark.parametrize(
    ("size", "r", "targets", "trainable"),
    [
        ("8B", 8, ["q_proj", "v_proj"], 3_407_872),
        ("8B", 8, QKVO, 6_815_744),
        ("8B", 16, QKVO, 13_631_488),
        ("8B", 16, "all-linear", 41_943_040),
        ("8B", 64, "all-linear", 167_772_160),
        ("1B", 8, QKVO, 1_703_936),
        ("1B", 16, "all-linear", 11_272_192),
    ],
)
def test_trainable_parameters_are_those_the_libraries_count(size, r, targets, trainable):
    found = plan.parameters(plan.SHAPES[size], {"r": r, "target_modules": targets})
    assert found["trainable"] == trainable
    assert found["base"] == {"8B": 8_030_261_248, "1B": 1_235_814_400}[size]


def test_a_trained_demo_has_the_parameters_of_its_plan(demo):
    trained = env.read_json(demo.run / "train/metrics.json")
    for name in ("trainable_parameters", "total_parameters", "effective_batch", "optimizer_steps", "world_size"):
        assert trained["plan"][name] == trained[name], name
    assert trained["plan"]["useful_token_fraction"] == pytest.approx(trained["useful_token_fraction"], abs=0.02)


def test_predicted_memory_is_what_was_measured():
    results = Path(__file__).parent / "benchmarks/RESULTS.md"
    rows = re.findall(r"^\| `.*?\| ([\d.]+) \| ([\d.]+) \| [+−\d]", results.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 10
    assert all(abs(float(predicted) / float(measured) - 1) < 0.08 for measured, predicted in rows)
    flagship = plan.configure(presets.resolve("kaggle-t4x2", "r", "outputs", [], False)["train"])
    assert plan.memory(flagship, plan.SHAPES["8B"], {2048})["peak"] == pytest.approx(float(rows[0][1]), abs=0.01)
    rows = {**flagship, "max_tokens": 0, "backend": "peft"}
    assert plan.memory(rows, plan.SHAPES["8B"], {2178})["peak"] == pytest.approx(7.10, abs=0.01)
    of_presets = re.findall(
        r"^\| `(ref-[\w-]+)`.*\| ([\d.]+) \| ([\d.]+) \|$", results.read_text("utf-8"), re.MULTILINE
    )
    assert len(of_presets) == 4
    for name, measured, predicted in of_presets:  # by the plan their peak is the validation's
        config = plan.configure(presets.resolve(name, "r", "outputs", [], False)["train"])
        found = plan.memory(config, plan.SHAPES["1B" if name.endswith("1b") else "8B"], {972})["peak"]
        assert found == pytest.approx(float(predicted), abs=0.01)
        assert abs(found / float(measured) - 1) < 0.05


@pytest.mark.parametrize("preset", sorted(path.stem for path in (presets.NOTEBOOKS / "presets").glob("*.yaml")))
def test_every_preset_has_a_plan_without_torch_in_under_five_seconds(preset, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from helpers import plan; raise SystemExit(plan.main(sys.argv[1:]))"
    )
    began = time.monotonic()
    command = [sys.executable, "-c", code, "--preset", preset, "--outputs", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and time.monotonic() - began < 5, done.stderr
    found = json.loads(done.stdout)
    wanted = "preset trainable_parameters total_parameters world_size effective_batch optimizer_steps warmup_share"
    wanted += " tokens_per_epoch useful_token_fraction peak_memory_gib hours sessions"
    assert set(wanted.split()) <= set(found)
    parts = [found["hours"][name] for name in ("train", "validate", "evaluate", "checkpoints")]
    assert sum(parts) == pytest.approx(found["hours"]["total"], abs=0.01)
    if preset == "kaggle-t4x2":
        assert found["hours"]["total"] < 11 and found["sessions"] == 1 and found["world_size"] == 2
        assert found["useful_token_fraction"] > 0.97 and found["arithmetic_per_useful_token"] < 0.7
    if preset == "ref-a-bengali-8b-fp16":
        assert found["effective_batch"] == 16 and found["world_size"] == 1, "a model split over cards is one process"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.max_tokens=8192"], r"predicted peak 3\d\.\d GiB a card .*train.max_tokens=\d+ would fit"),
        (["train.load_in_4bit=false"], "a smaller base_model or load_in_4bit would help"),
        (["shared.base_model=someone/Mistral-7B"], "the shape of 'someone/Mistral-7B' is not known"),
        (["prepare_data.dataset=kaggle:a/b"], "nothing is known about 'kaggle:a/b' yet"),
        (["train.lora.target_modules=[query]"], "lora.target_modules names query"),
        (["train.no_such=1"], "train.no_such is no setting"),
    ],
)
def test_a_plan_that_cannot_hold_is_refused_with_what_would(sets, message, tmp_path, capsys):
    assert plan.main(["--preset", "kaggle-t4x2", "--outputs", str(tmp_path), "--set", *sets]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    offered = re.search(r"train.max_tokens=\d+", said)
    if offered:
        assert plan.main(["--preset", "kaggle-t4x2", "--outputs", str(tmp_path), "--set", offered.group()]) == 0


def test_quantiles_come_back_as_lengths():
    lengths = plan.spread([(0.0, 70), (0.5, 219), (0.95, 555), (0.99, 1145), (1.0, 2048)], 10_000)
    assert lengths == sorted(lengths) and 70 <= lengths[0] and lengths[-1] <= 2048
    assert lengths[5000] == pytest.approx(219, abs=1) and lengths[9500] == pytest.approx(555, abs=2)


def test_an_evaluation_is_shared_by_the_cards_that_there_are(tmp_path):
    hours = {}
    for cards in (1, 2):
        sets = [f"evaluate.num_gpus={cards}", "prepare_data.max_rows=2000"]
        settings = presets.resolve("kaggle-t4x2", "x", str(tmp_path), sets, tiny=False)
        hours[cards] = plan.make(settings, tmp_path / "x")["hours"]["evaluate"]
    assert hours[1] == pytest.approx(2 * hours[2], rel=0.02)
