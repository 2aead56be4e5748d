"""The mutation run: what it counts, runs and calls justified, on a module of one line."""

import json
import subprocess
import sys
from pathlib import Path

import mutant_changes
import mutants
import mutants_page
import pytest
from cosmic_ray import work_item

TOOLS = Path(mutants.__file__).parent
RUN = """
import json, sys
from pathlib import Path
import mutant_modules, mutants, mutants_page
root = Path(sys.argv[1])
mutant_modules.RESULTS = root / "results"
module = mutant_modules.Module("tiny", root / "src/tiny.py", (str(root / "test_tiny.py"),))
mutants.run_module(module)
tally = mutants_page.tally(module)
print("TALLY", json.dumps([tally.counts, tally.survivors]))
"""


def run_tiny(folder, test):
    """Runs the mutants of a module that doubles a number, and returns what is printed."""
    (folder / "src").mkdir()
    (folder / "src/tiny.py").write_text("def double(number: int) -> int:\n    return number + number\n")
    (folder / "test_tiny.py").write_text(f"from tiny import double\n\ndef test_it():\n    assert {test}\n")
    command = [sys.executable, "-c", RUN, folder]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(TOOLS)})


def test_a_mutant_survives_where_no_test_sees_it(tmp_path):
    """2 + 2 is 2 * 2 and 2 ** 2, and nothing else that two twos make."""
    done = run_tiny(tmp_path, "double(2) == 4")
    assert "TALLY" in done.stdout, done.stderr
    counts, survivors = json.loads(done.stdout.partition("TALLY ")[2])
    assert counts == {"mutants": 11, "of": 11, "killed": 9, "survived": 2, "not counted": 0}
    assert [survivor[4] for survivor in survivors] == ["`+` → `*`", "`+` → `**`"]
    assert {survivor[2] for survivor in survivors} == {"return number + number"}


def test_tests_that_fail_without_a_mutant_end_the_run(tmp_path):
    done = run_tiny(tmp_path, "double(2) == 5")
    assert "tiny: the tests fail on the module as it is: test_tiny.py::test_it" in done.stderr


def test_a_fork_that_runs_without_end_times_out():
    def spin(_):
        while True:
            pass

    assert mutants.call_in_fork(spin, 0.5).failed == mutants.TIMED_OUT


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (mutants.Outcome(0, "", 1.0), (work_item.WorkerOutcome.NORMAL, work_item.TestOutcome.SURVIVED)),
        (mutants.Outcome(1, "test_x", 1.0), (work_item.WorkerOutcome.NORMAL, work_item.TestOutcome.KILLED)),
        (
            mutants.Outcome(None, mutants.TIMED_OUT, 1.0),
            (work_item.WorkerOutcome.ABNORMAL, work_item.TestOutcome.KILLED),
        ),
    ],
)
def test_only_tests_that_pass_let_a_mutant_survive(outcome, expected):
    result = mutants.to_result(outcome)
    assert (result.worker_outcome, result.test_outcome) == expected


def test_a_module_without_a_test_is_an_error():
    with pytest.raises(RuntimeError, match="ran no test"):
        mutants.to_result(mutants.Outcome(5, "", 1.0))


SOURCE = """
def f(number: int | None, *others):
    if number > 3:
        raise ValueError(f"{number + 1} of {len(others)}")
    print(f"{number - 1}")
    return number + 1
"""


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("+ 1\n", "- 1\n", ""),
        ("> 3", ">= 3", ""),
        ("int | None", "int & None", "an annotation or the text of an error"),
        ("number + 1}", "number - 1}", "an annotation or the text of an error"),
        ("number - 1}", "number + 1}", "an annotation or the text of an error"),
        ("*others", "/others", "does not compile"),
        ("+ 1\n", "+  1\n", "the same program"),
    ],
)
def test_what_no_test_should_notice_is_not_counted(before, after, reason):
    assert before in SOURCE
    assert mutant_changes.compare_programs(SOURCE, SOURCE.replace(before, after)) == reason


SURVIVOR = mutants_page.Survivor("m", "ReplaceComparisonOperator_Gt_GtE", "if a > b:", "if a >= b:", "`>` → `>=`", 3)


@pytest.mark.parametrize(
    ("reason", "fits"),
    [
        ({"line": "if a > b:"}, True),
        ({"line": "if a > c:"}, False),
        ({"line": "if a > b:", "operators": ["*_Lt", "*_Gt_*"]}, True),
        ({"line": "if a > b:", "operators": "NumberReplacer"}, False),
        ({"line": "if a > b:", "becomes": "a >= b"}, True),
        ({"line": "if a > b:", "becomes": ["a < b", "a == b"]}, False),
    ],
)
def test_a_reason_is_of_a_line_an_operator_and_a_change(reason, fits):
    justified, left = mutants_page.split_survivors([SURVIVOR], [mutants_page.read_reason({**reason, "reason": "why"})])
    assert justified == ({("if a > b:", "why"): [SURVIVOR]} if fits else {})
    assert left == ([] if fits else [SURVIVOR])


def test_every_module_and_test_of_the_run_is_there():
    for module in mutants.read_modules().values():
        assert module.path.is_file()
        files = [argument for argument in module.tests if argument.startswith("tests/")]
        assert files
        assert all((mutants.ROOT / file).is_file() for file in files)


def test_every_reason_is_of_a_line_that_is_there():
    """A line that has changed since is run and judged again: make mutants."""
    modules = mutants.read_modules()
    for name, reasons in mutants_page.read_reasons().items():
        lines = {line.strip() for line in modules[name].source.splitlines()}
        assert {reason.line for reason in reasons} <= lines, f"reasons of {name} for lines that are no longer there"
