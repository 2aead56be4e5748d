"""The runner's settings: what is refused before anything starts, and what a run resolves to."""

import html
import json
import re
import shlex
import shutil

import bad_inputs
import nbformat
import pytest
import yaml

from helpers.__main__ import main
from helpers.runner import ProgressLine
from helpers.runs.files import read_json, write_json, write_jsonl
from helpers.runs.record import Run, start_stage
from helpers.runs.session import report_progress
from helpers.runs.settings import NOTEBOOKS, check_settings, parameters_cell, resolve_settings
from helpers.runs.stages import MAIN_STAGES, STAGES, run_folder

PRESETS = sorted(path.stem for path in (NOTEBOOKS / "presets").glob("*.yaml"))


def resolved(*sets, preset="demo", tiny=False):
    return resolve_settings(preset, "r", "outputs", list(sets), tiny)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("train.learning_rat=1e-4", "train.learning_rat is not a setting. Did you mean 'learning_rate'?"),
        ("trian.seed=1", "no stage 'trian'. Did you mean 'train'?"),
        ("session.total_hours=6", "no stage 'session'. Did you mean 'shared.session'?"),
        ("train.seed=abc", "train.seed is 'abc' (str): expected int"),
        ("train.load_in_4bit=1", "train.load_in_4bit is 1 (int): expected bool"),
        ("train.max_tokens=true", "train.max_tokens is True (bool): expected int"),
        ("train.lora.rank=8", "lora.rank is not a setting of LoraConfig. Did you mean 'megatron"),
        ("train.lora.r=eight", "lora.r is 'eight' (str): expected int"),
        ("train.sft.warmup_step=3", "sft.warmup_step is not a setting of SFTConfig. Did you mean 'warmup_steps'?"),
        ("train.session.hour=3", "session.hour is not a setting. Did you mean 'hours'?"),
        ("shared.session.hours=long", "session.hours is 'long' (str): expected float"),
        ("train.lora=8", "train.lora is 8 (int): expected dict"),
        ("train.seed", "expected stage.parameter=value"),
        ("seed=3", "expected stage.parameter=value"),
        ("shared.no_such=1", "shared.no_such is not a setting"),
        ("train.seed=[1", "the value is not YAML"),
    ],
)
def test_a_bad_setting_is_refused_by_name(sets, message, tmp_path, capsys):
    code = main(["run", "--preset", "demo", "--outputs", str(tmp_path / "out"), "--set", sets])
    output = capsys.readouterr().err
    assert code == 2
    assert message.split(" Did you mean 'megatron")[0] in output
    assert output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "dmo"], "no preset 'dmo'. Did you mean 'demo'?"),
        (["--preset", "demo", "--stages", "train,evalute"], "no stage 'evalute'. Did you mean 'evaluate'?"),
        (["--preset", "demo", "--run-name", "../x"], "run_name is '../x'"),
        (["--preset", "demo", "kaggle-t4x2", "--run-name", "x"], "--run-name names one run, but 2 presets"),
        (["--preset", "demo", "--stages", "evaluate"], "add prepare_data, train to --stages"),
    ],
)
def test_a_bad_call_is_explained(arguments, message, tmp_path, capsys):
    assert main(["run", *arguments, "--outputs", str(tmp_path / "out")]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: {learning_rate: 2e-4}", "YAML reads 2e-4 as text: write 2.0e-4"),
        ("prefer: {dataset: own.csv}", "expected list. Write it in brackets: [own.csv]."),
        ("train: {sed: 1}", "train.sed is not a setting. Did you mean 'seed'?"),
        ("train: 3", "train is 3: expected settings below it"),
        ("- a\n- b", "holds list: expected sections"),
        ("train: {a: [", "is not YAML"),
    ],
)
def test_a_bad_preset_is_refused(content, message, tmp_path, monkeypatch, capsys):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    (tmp_path / "notebooks/presets/mine.yaml").write_text(content)
    monkeypatch.setattr("helpers.runs.settings.NOTEBOOKS", tmp_path / "notebooks")
    assert main(["run", "--preset", "mine", "--outputs", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_number_typed_on_the_command_line_may_have_no_point():
    assert resolved("train.learning_rate=1e-4")["train"]["learning_rate"] == 1e-4


def test_a_dict_setting_is_laid_over_the_default_key_by_key():
    lora = resolved("train.lora.r=8", "train.lora.lora_dropout=0.05")["train"]["lora"]
    assert lora == {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": "all-linear"}


def test_a_shared_setting_reaches_every_notebook_that_has_it():
    settings = resolved("shared.seed=5", "shared.base_model=x/y")
    assert {settings[stage]["seed"] for stage in ("prepare_data", "train", "evaluate", "infer")} == {5}
    assert settings["prepare_data"]["base_model"] == settings["train"]["base_model"] == "x/y"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("tiny", [False, True])
def test_every_preset_resolves(preset, tiny):
    settings = resolved(preset=preset, tiny=tiny)
    assert set(settings) == set(STAGES)
    if tiny:
        assert settings["train"]["base_model"] == "embedded"
        assert settings["train"]["sft"]["max_steps"] == 4


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_lists_differences_only(preset):
    content = yaml.safe_load((NOTEBOOKS / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))
    cells = {stage: parameters_cell(stage) for stage in STAGES}
    for section, values in content.items():
        for name, value in values.items():
            defaults = [
                cells[stage][name][0] for stage in cells if name in cells[stage] and section in (stage, "shared")
            ]
            assert value not in defaults, f"{preset}: {section}.{name} repeats the default {value!r}"


def test_the_flagship_is_the_flagship():
    train = resolved(preset="kaggle-t4x2")["train"]
    assert "Llama-3.1-8B" in train["base_model"]
    assert train["load_in_4bit"]
    assert train["num_gpus"] == 2
    assert train["num_train_epochs"] == 3
    assert train["backend"] == "unsloth"
    assert train["max_tokens"] > 0


def test_a_dry_run_prints_yaml_that_papermill_takes(tmp_path, capsys):
    arguments = ["--preset", "kaggle-t4x2", "--outputs", str(tmp_path / "out"), "--dry-run"]
    assert main(["run", *arguments]) == 0
    output = capsys.readouterr().out
    documents = [yaml.safe_load(part) for part in output.split("---\n")]
    settings = resolve_settings("kaggle-t4x2", "kaggle-t4x2", str(tmp_path / "out"), [], False)
    assert documents == [settings[stage] for stage in MAIN_STAGES]
    assert not (tmp_path / "out").exists()
    for document, stage in zip(documents, MAIN_STAGES):
        assert check_settings(stage, stage, document) == document


def test_types_are_checked_in_the_notebook_too(tmp_path):
    cell = {"run_name": str, "outputs": str, "learning_rate": float}
    values = {"run_name": "r", "outputs": str(tmp_path), "learning_rate": "2e-4"}
    with pytest.raises(TypeError, match=r"train.learning_rate is '2e-4' \(str\): expected float. .*write 2.0e-4"):
        start_stage("train", {"__annotations__": cell, **values})
    assert not list(tmp_path.iterdir())


def test_missing_inputs_name_the_notebook_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="data/train.jsonl is not there: finish 01_prepare_data of run r first"):
        start_stage(
            "train", {"__annotations__": {"run_name": str, "outputs": str}, "run_name": "r", "outputs": str(tmp_path)}
        )


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"শোক": 1})
    before = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "শোক" in before
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    with pytest.raises(TypeError):
        write_jsonl(tmp_path / "a.json", [{"x": 1}, {"y": object()}])
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_broken_json_file_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"a": ')
    with pytest.raises(ValueError, match="run.json is not valid JSON"):
        read_json(tmp_path / "run.json")


def test_a_kernel_that_dies_is_a_failed_stage_with_its_reason(tmp_path, monkeypatch, capsys):
    def die(*arguments, **options):
        raise RuntimeError("Kernel died")

    monkeypatch.setattr("papermill.execute_notebook", die)
    assert main(["run", "--preset", "demo", "--outputs", str(tmp_path), "--stages", "prepare_data"]) == 1
    assert "error: prepare_data: RuntimeError: Kernel died" in capsys.readouterr().err
    facts = read_json(tmp_path / "demo/run.json")["stages"]["prepare_data"]
    assert facts["status"] == "failed"
    assert facts["error"] == "RuntimeError: Kernel died"


def test_a_paused_stage_ends_the_run_with_75(tmp_path, monkeypatch):
    def pause(notebook, executed, parameters, **options):
        folder = run_folder(parameters["outputs"], parameters["run_name"])
        Run(folder).note_stage("prepare_data", status="paused", parameters=parameters)

    monkeypatch.setattr("papermill.execute_notebook", pause)
    assert main(["run", "--preset", "demo", "--outputs", str(tmp_path)]) == 75
    assert list(read_json(tmp_path / "demo/run.json")["stages"]) == ["prepare_data"]
    page = (tmp_path / "demo/report/index.html").read_text(encoding="utf-8")
    assert "prepare_data: paused" in page
    assert "python -m helpers run --preset demo" in page


def test_the_command_on_the_page_continues_the_run(tmp_path, monkeypatch):
    started = []

    def pause(notebook, executed, parameters, **options):
        started.append(parameters)
        run = Run(run_folder(parameters["outputs"], parameters["run_name"]))
        run.note_stage("prepare_data", status="paused", parameters=parameters)

    monkeypatch.setattr("papermill.execute_notebook", pause)
    arguments = ["--outputs", str(tmp_path / "my runs"), "--run-name", "mine", "--tiny", "--force"]
    assert main(["run", "--preset", "demo", *arguments, "--set", "train.seed=4", "train.lora.r=2"]) == 75
    page = (tmp_path / "my runs/mine/report/index.html").read_text(encoding="utf-8")
    command = shlex.split(
        html.unescape(re.search(r"run the same command again.*?<pre>(.*?)</pre>", page, re.DOTALL)[1])
    )
    assert command[:3] == ["python", "-m", "helpers"]
    assert "--force" not in command, "the work that was done would be lost"
    assert main(command[3:]) == 75
    assert started[0] == started[1]
    assert len(Run(tmp_path / "my runs/mine").record().commands) == 1


def test_a_secret_in_an_error_is_written_nowhere(tmp_path, monkeypatch, capsys):
    token = bad_inputs.TOKENS[0]

    def fail(notebook, executed, **options):
        cell = nbformat.v4.new_code_cell("load()", outputs=[nbformat.v4.new_output("stream", text=f"401 for {token}")])
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), executed)
        raise RuntimeError(f"401 for {token}")

    monkeypatch.setattr("papermill.execute_notebook", fail)
    assert main(["run", "--preset", "demo", "--outputs", str(tmp_path)]) == 1
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(b"401 for [secret]" in content for content in written.values())
    assert not [path for path, content in written.items() if token.encode() in content]
    printed = capsys.readouterr()
    assert token not in printed.out + printed.err


def test_progress_tells_step_and_time_left(tmp_path, monkeypatch):
    shown = ProgressLine("demo", "train")
    monkeypatch.setenv("SAHANUBHUTI_PROGRESS", str(shown.file))
    assert "left" not in shown.line()
    report_progress(1, 100, "step")
    shown.line()
    shown.bar.start_t -= 10  # ten seconds ago
    report_progress(11, 100, "step")
    assert "train  step 11/100" in shown.line()
    assert "about 01:2" in shown.line()
    assert json.loads(shown.file.read_text()) == {"done": 11, "total": 100, "what": "step"}


def test_progress_tells_the_time_left_that_a_stage_knows(tmp_path, monkeypatch):
    shown = ProgressLine("demo", "train")
    monkeypatch.setenv("SAHANUBHUTI_PROGRESS", str(shown.file))
    for step in (1, 2):
        report_progress(step, 100, "step", 3725.4)
        line = shown.line()
    assert line.endswith(", about 1:02:05 left")
