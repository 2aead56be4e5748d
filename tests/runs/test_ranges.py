"""The ranges of the settings, one set for every command and notebook; and settings that were made up."""

import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.__main__ import main
from helpers.planning.checks import start_stage
from helpers.platforms.errors import Refused
from helpers.preflight import check_stages
from helpers.runner import select_stages
from helpers.runs.differences import input_hashes
from helpers.runs.files import write_json
from helpers.runs.ranges import RANGES
from helpers.runs.record import Run
from helpers.runs.settings import (
    FURTHER_FIELDS,
    check_settings,
    default_settings,
    layer_settings,
    library_fields,
    parameters_cell,
    parse_assignment,
    read_sections,
    resolve_settings,
)
from helpers.runs.stages import MAIN_STAGES, STAGES
from helpers.search.candidates import draw_points

NAMES = sorted({f"{stage}.{name}" for stage in STAGES for name in parameters_cell(stage)} - {"train.outputs"})
NAMES += [f"train.sft.{name}" for name in library_fields("sft")] + [
    f"train.lora.{name}" for name in library_fields("lora")
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3)
)
ASSIGNMENTS = st.one_of(
    st.builds("{}={}".format, st.sampled_from(NAMES), SCALARS | st.text(string.printable, max_size=30)),
    st.text(max_size=40),
)
PARAMETERS = st.sampled_from([name.split(".")[1] for name in NAMES])
SECTION = st.dictionaries(PARAMETERS, VALUES, max_size=3)
SECTIONS = st.one_of(st.dictionaries(st.sampled_from(["shared", *STAGES]), SECTION, max_size=3), VALUES)
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": [*HealthCheck]}


def try_assignments(assignments):
    """Returns why settings with these assignments are refused, by themselves or before a run, else "accepted"."""
    try:
        check_stages(MAIN_STAGES, resolve_settings("demo", "", "outputs", assignments, False))
    except Refused as refusal:
        return str(refusal)
    return "accepted"


def try_sections(content, folder):
    """Returns why a preset's file with this content is refused, else "accepted"."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "mine.yaml").write_text(text, "utf-8")
    defaults = {stage: default_settings(stage) for stage in STAGES}
    try:
        layer_settings(defaults, read_sections(folder / "mine.yaml"), "preset mine")
    except Refused as refusal:
        return str(refusal)
    return "accepted"


@settings(max_examples=100, **QUIET)
@given(st.lists(ASSIGNMENTS, max_size=2))
def test_no_assignment_is_an_uncaught_error(assignments):
    assert try_assignments(assignments)


@settings(max_examples=50, **QUIET)
@given(SECTIONS)
def test_no_preset_is_an_uncaught_error(tmp_path_factory, content):
    assert try_sections(content, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=5000, **QUIET)
@given(st.lists(ASSIGNMENTS, max_size=2))
def test_none_of_many_assignments_is_an_uncaught_error(assignments):
    assert try_assignments(assignments)


@pytest.mark.slow
@settings(max_examples=5000, **QUIET)
@given(SECTIONS | st.text(max_size=60))
def test_none_of_many_presets_is_an_uncaught_error(tmp_path_factory, content):
    assert try_sections(content, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("stage", RANGES)
def test_a_range_is_that_of_a_setting(stage):
    stages = STAGES if stage == "every stage" else [stage]
    fields = {"train": {f"{name}.{field}" for name in ("sft", "lora") for field in library_fields(name)}}
    fields["prefer"] = {f"trl.{field}" for field in library_fields("trl")}
    fields["evaluate"] = {f"gates.{field}" for field in FURTHER_FIELDS["gates"]}
    known = {name for each in stages for name in parameters_cell(each)} | fields.get(stage, set())
    known |= {
        f"{name}.{key}"
        for each in stages
        for name, (default, kind) in parameters_cell(each).items()
        for key in (default if kind == "dict" else [])
    }
    assert not set(RANGES[stage]) - known, "no setting has this name: mend it in ranges.yaml"


def test_the_gates_of_a_preferred_model_are_settings():
    assert check_settings("evaluate", "evaluate", {"gates": {"longer": 0.5}}) == {"gates": {"longer": 0.5}}
    with pytest.raises(ValueError, match="evaluate.gates.kl is -1.0: expected 0 or more"):
        check_settings("evaluate", "evaluate", {"gates": {"kl": -1.0}})
    with pytest.raises(TypeError, match="evaluate.gates.long is not a setting. Did you mean 'longer'"):
        check_settings("evaluate", "evaluate", {"gates": {"long": 0.5}})
    assert "kl" not in default_settings("evaluate")["gates"], "runs of before would have had other settings"


@pytest.mark.parametrize("stage", STAGES)
def test_every_number_of_a_notebook_has_a_range(stage):
    numbers = {name for name, (_, kind) in parameters_cell(stage).items() if kind in ("int", "float")}
    assert not numbers - {*RANGES.get(stage, {}), *RANGES["every stage"]}, "give it one in ranges.yaml"


@pytest.mark.parametrize("stage", STAGES)
def test_a_default_is_within_its_range(stage):
    check_settings(stage, stage, {name: default for name, (default, _) in parameters_cell(stage).items()})


WRONG = ("learning_rate", -1.0, "learning_rate is -1.0: expected more than 0 and at most 10.")


def test_a_range_holds_in_a_run_and_a_plan(tmp_path, capsys):
    for command in ("run", "plan"):
        arguments = ["--preset", "demo", "--outputs", str(tmp_path / "out"), "--set", f"train.{WRONG[0]}={WRONG[1]}"]
        assert main([command, *arguments]) == 2
        assert WRONG[2] in capsys.readouterr().err


def test_a_range_holds_in_a_search():
    with pytest.raises(ValueError, match=f"tune.space.{WRONG[2]}"):
        draw_points({WRONG[0]: [1e-4, WRONG[1]]}, 0, 1)


def test_a_range_holds_in_a_notebook(tmp_path):
    cell = {"run_name": "r", "outputs": str(tmp_path / "out"), WRONG[0]: WRONG[1]}
    with pytest.raises(ValueError, match=f"train.{WRONG[2]}"):
        start_stage("train", {"__annotations__": dict.fromkeys(cell), **cell})
    assert not (tmp_path / "out").exists()


def test_a_bare_no_in_yaml_is_a_strategy():
    value = parse_assignment("train.sft.save_strategy=no")["train"]["sft"]
    assert check_settings("train", "train", {"sft": value}) == {"sft": {"save_strategy": False}}


def test_a_renamed_run_has_the_same_settings(tmp_path):
    settings_before = resolve_settings("demo", "before", str(tmp_path), [], False)
    run = Run(tmp_path / "after")
    write_json(run / "data/metrics.json", {})
    stage = {"status": "finished", "parameters": settings_before["prepare_data"]}
    stage["inputs"] = input_hashes(run.folder, "prepare_data", stage["parameters"])
    write_json(run / "run.json", {"stages": {"prepare_data": stage}})
    now = resolve_settings("demo", "after", str(tmp_path), [], False)
    assert select_stages(now, ["prepare_data"], False) == {"prepare_data": ""}
