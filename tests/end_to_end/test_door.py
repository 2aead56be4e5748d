"""The command line: every command explains itself, starts quickly, and has replaced the commands of before."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.__main__ import COMMANDS, main
from helpers.options import WORDS, build_parser
from helpers.runs.files import write_json

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    example
    for command in yaml.safe_load(WORDS.read_text(encoding="utf-8"))["commands"].values()
    for example in command["examples"]
]
FLAT_MODULES = (  # before the rooms
    "app|care|chat|checkpoints|compare|corpus|env|experiments|export|figures"  # words: ok
    "|generate|judge|metrics|model|people|plan|presets|report|rubric|run|tables|text|tiny|train|tune"
)


def help_of(capsys, *arguments):
    """Returns what a command prints when it is asked for help."""
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_commands_are_those_of_the_design():
    assert list(COMMANDS) == ["run", "plan", "calibrate", "tune", "report", "chat", "verify", "experiments", "kaggle"]


def test_without_a_command_each_is_shown_in_one_line(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command in COMMANDS:
        assert sum(line.strip().startswith(f"{command} ") for line in lines) == 1, command
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_ends_with_an_example(command, capsys):
    text = help_of(capsys, command)
    assert f"python -m helpers {command} " in text.partition("examples:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_explained(command):
    commands = next(action for action in build_parser()._actions if action.dest == "command")
    for action in commands.choices[command]._actions:
        assert action.help, f"{command} {action.dest} has no help: give it one in commands.yaml"


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_understood(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in shlex.split(example):
        if word.startswith("outputs/"):  # a run that the example takes for granted
            write_json(tmp_path / word / "run.json", {})
    assert build_parser().parse_args(shlex.split(example)).command == example.split()[0]


@pytest.mark.parametrize("arguments", [["rum"], ["run"], ["kaggle", "--preset", "demo"], ["verify"]])
def test_a_wrong_command_line_exits_two(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: python -m helpers" in capsys.readouterr().err


def test_the_shared_options_mean_the_same_everywhere(capsys):
    shared = yaml.safe_load(WORDS.read_text(encoding="utf-8"))["preset_options"]
    for command in ("run", "plan", "kaggle"):
        text = " ".join(help_of(capsys, command).split())
        for option, details in shared.items():
            assert option in text, f"{command} lacks {option}"
            assert details["help"] in text, f"{command} explains {option} differently"


def test_help_needs_no_torch():
    code = (
        "import sys, time; began = time.process_time(); from helpers.__main__ import build_parser; "
        "build_parser().format_help(); print(time.process_time() - began); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0, "move slow imports into the command that needs them"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "is not the folder of a run"),
        (["experiments", "nowhere.db"], "nowhere.db"),
        (["chat", "nowhere"], "is not the folder of a run"),
        (["chat", "--run", "nowhere"], "is not the folder of a run"),
        (["chat"], "chat takes the folder of one run"),
        (["tune", "nowhere"], "is not the folder of a run"),
        (["plan", "--preset", "dmo"], "Did you mean 'demo'?"),
        (["run", "--preset", "demo", "colab-t4", "--run-name", "x"], "--run-name names one run"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing may be started"


@pytest.mark.parametrize("words", [["RUN"], ["--run", "RUN"], ["--run", "RUN", "--port", "1"], ["--port", "1", "RUN"]])
def test_chat_takes_its_run_bare_or_as_an_option(words, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr("helpers.inference.serve.serve_chat", lambda run, *options: served.append(run.folder))
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "RUN/run.json", {})
    assert main(["chat", *words]) == 0
    assert served == [tmp_path / "RUN"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_verbose(command, capsys):
    assert "--verbose" in help_of(capsys, command)


def test_verbose_shows_where_an_error_was_raised(tmp_path, capsys):
    (tmp_path / "experiments.db").write_text("none")
    arguments = ["experiments", str(tmp_path / "experiments.db")]
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main([*arguments, "--verbose"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("error: ")


def test_an_error_that_nobody_foresaw_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "plan", lambda options: {}["stages"])
    assert main(["plan", "--preset", "demo"]) == 1
    assert capsys.readouterr().err == "error: KeyError: 'stages' (--verbose shows where)\n"


def test_verify_exits_one_for_an_invalid_checkpoint(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "checkpoint-1")]) == 1
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("presets", [["demo"], ["demo", "colab-t4"]])
def test_plans_are_printed_as_json(presets, tmp_path, capsys):
    assert main(["plan", "--preset", *presets, "--outputs", str(tmp_path), "--json"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    plans = printed if isinstance(printed, list) else [printed]
    assert [plan["preset"] for plan in plans] == presets


def test_a_tiny_plan_is_of_the_tiny_run(tmp_path, capsys):
    assert main(["plan", "--preset", "kaggle-t4x2", "--tiny", "--outputs", str(tmp_path), "--json"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["optimizer_steps"] == 4


def texts():
    """Returns the files whose words a user or a contributor reads or runs."""
    folders = ["src", "notebooks", "docs", "tests", "tools"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "outputs/README.md"]
    kinds = {".py", ".md", ".yaml", ".ipynb", ".html", ".j2", ".toml", ""}
    own = {Path(__file__).resolve(), ROOT / "tests/benchmarks/RESULTS.md"}  # whose commands are of their commits
    return [path for path in files if path.suffix in kinds and path not in own and "earlier_runs" not in path.parts]


@pytest.mark.parametrize(
    "pattern", [r"python3? -m helpers\.", rf"helpers[./](?:{FLAT_MODULES})(?:\.py|\.yaml)?(?![\w./-])"]
)
def test_the_commands_of_before_are_gone(pattern):
    uses = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not uses, "write `python -m helpers COMMAND`, and a room's name before a module's:\n" + "\n".join(uses)


def test_a_run_without_a_search_cannot_be_tuned(tmp_path, capsys):
    write_json(tmp_path / "run/run.json", {"stages": {}})
    assert main(["tune", str(tmp_path / "run")]) == 2
    assert "has no search: run its stage tune first" in capsys.readouterr().err
