"""Changes one place of a module at a time and runs its tests: a change that no test notices is a survivor.

python tools/mutants.py               the modules of tools/mutants.yaml, then docs/mutants.md
python tools/mutants.py chat steps    these modules, then docs/mutants.md
python tools/mutants.py --again       the survivors once more, after new tests
python tools/mutants.py --page        docs/mutants.md alone, from the results there are

The changes are cosmic-ray's, and so is the database that keeps each result as soon as it is known: a run that was
stopped is continued. For speed, one process imports the libraries that the tests need, and each mutant is a fork of
it. A test that starts a process of its own does not see the mutant, so it is of no use here.
"""

import argparse
import contextlib
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from cosmic_ray.commands.init import init
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult
from mutant_changes import mutate, reason_to_leave_out
from mutant_modules import ROOT, TIMED_OUT, Module, drawn, read_modules
from mutants_page import write_page

MEMORY = 24 * 2**30  # bytes of addresses that a mutant may take: some ask for arrays without bounds
CPU_TIMES, CPU_SECONDS = 3, 5  # a mutant may take three times what the module itself takes, and five seconds


class Outcome(NamedTuple):
    """What became of the tests in a fork."""

    code: int | None  # pytest's exit code, None where the process died
    failed: str  # the first test that failed, or how the process died
    seconds: float  # CPU time
    modules: tuple[str, ...] = ()  # that the tests had imported


# ---- a mutant's process


class MutantFinder(importlib.machinery.SourceFileLoader):
    """Imports one module from another source; without a source, the module cannot be imported."""

    def __init__(self, module: Module, source: str | None) -> None:
        super().__init__(module.import_name, str(module.path))
        self.mutated = source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        if self.mutated is None:
            raise ImportError(f"{fullname} is imported by each mutant for itself")
        return compile(self.mutated, self.path, "exec")


class FirstFailure:
    """A plugin of pytest that keeps the first test that failed, or the file that could not be imported."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._note(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def run_tests(module: Module, source: str, folder: str) -> dict[str, Any]:
    """Runs a module's tests on a source of it in this process, which should have been made for that alone."""
    import pytest

    sys.meta_path.insert(0, MutantFinder(module, source))
    plugin = FirstFailure()
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--basetemp", f"{folder}/tmp"]
    code = int(pytest.main([*arguments, *module.tests], plugins=[plugin]))
    return {"code": code, "failed": plugin.failed, "modules": [*sys.modules]}


def call_in_fork(function: Callable[[str], dict], cpu_seconds: float) -> Outcome:
    """Calls a function with a folder of its own in a fork of this process, and returns what it gave."""
    folder = tempfile.mkdtemp(prefix="mutant-")
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 9))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for number in (1, 2):
                os.dup2(os.open(f"{folder}/output", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            Path(folder, "outcome.json").write_text(json.dumps(function(folder)))
            code = 0
        finally:
            os._exit(code)
    try:
        return _wait(child, Path(folder), cpu_seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(child: int, folder: Path, cpu_seconds: float) -> Outcome:
    """Waits for a fork, and ends it and what it started when it takes four times its CPU time by the clock."""
    ends = time.monotonic() + 4 * cpu_seconds + 30
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what the tests may have left
    seconds = usage.ru_utime + usage.ru_stime
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return Outcome(None, TIMED_OUT if late else f"died of signal {os.WTERMSIG(status)}", seconds)
    if not (folder / "outcome.json").is_file():
        return Outcome(None, f"ended early: {(folder / 'output').read_text(errors='replace')[-2000:]}", seconds)
    outcome = json.loads((folder / "outcome.json").read_text())
    return Outcome(outcome["code"], outcome["failed"], seconds, tuple(outcome["modules"]))


# ---- a module's mutants


def preload(module: Module, names: Iterable[str]) -> None:
    """Imports what a mutant's tests will: the libraries, and those files of the project that do not import the module.

    No tensor is computed here, so that no thread of torch's is lost in a fork.
    """
    blocked = MutantFinder(module, None)
    sys.meta_path.insert(0, blocked)
    for name in names:
        own = name.split(".")[0] in ("conftest", "__main__") or name.split(".")[-1].startswith("test_")
        if name in sys.modules or own or (ROOT / "tests/support" / f"{name}.py").is_file():
            continue
        with contextlib.suppress(Exception):  # some only work where the library itself imports them
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("tables").embedded_table()  # most tests read it, and it takes half of their time
    sys.meta_path.remove(blocked)
    gc.collect()
    gc.freeze()


def run_module(module: Module, again: bool = False) -> None:
    """Runs the mutants of a module that have no result, and with `again` those that had survived.

    Raises RuntimeError when the tests fail on the module as it is.
    """
    module.results.parent.mkdir(parents=True, exist_ok=True)
    with use_db(module.results, WorkDB.Mode.create) as db:
        if not db.num_work_items:
            init([module.path], db, {})
        results: dict[Any, WorkResult] = dict(db.results)
        for item in db.work_items:
            if item.job_id not in results and (reason := reason_to_leave_out(module.source, item.mutations[0])):
                db.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED, output=reason))
        items = [item for item in drawn(db, module) if is_open(results.get(item.job_id), again)]
        if not items:
            return
        seconds = prepare(module)
        print(f"{module.name}: {len(items)} mutants, {seconds:.1f} s of CPU time for the tests that pass", flush=True)
        began, source = time.monotonic(), module.source
        for number, item in enumerate(items, 1):
            mutated = mutate(source, item.mutations[0])
            outcome = call_in_fork(
                lambda folder, mutated=mutated: run_tests(module, mutated, folder), CPU_TIMES * seconds + CPU_SECONDS
            )
            db.set_result(item.job_id, to_result(outcome))
            if number % 20 == 0 or number == len(items):
                print(f"  {number} of {len(items)} in {time.monotonic() - began:.0f} s", flush=True)


def prepare(module: Module) -> float:
    """Preloads what a module's tests import, runs them on the module as it is, and returns their CPU seconds."""
    known = module.results.with_name(f"{module.name}.json")  # what they imported the last time
    if not known.is_file():
        known.write_text(json.dumps(run_unchanged(module).modules))
    preload(module, json.loads(known.read_text()))
    return run_unchanged(module).seconds


def run_unchanged(module: Module) -> Outcome:
    """Runs the tests on the module as it is. Raises RuntimeError when they fail."""
    outcome = call_in_fork(lambda folder: run_tests(module, module.source, folder), 600)
    if outcome.code != 0:
        raise RuntimeError(f"{module.name}: the tests fail on the module as it is: {outcome.failed}")
    return outcome


def is_open(result: WorkResult | None, again: bool) -> bool:
    """Returns whether a mutant is to be run: it has no result, or it had survived and is run again."""
    return result is None or (again and result.test_outcome == TestOutcome.SURVIVED)


def to_result(outcome: Outcome) -> WorkResult:
    """Returns what the database keeps of a mutant's tests. Raises RuntimeError when pytest ran none."""
    if outcome.code == 5:
        raise RuntimeError("pytest ran no test: look at tools/mutants.yaml")
    survived = outcome.code == 0
    worker = WorkerOutcome.ABNORMAL if outcome.code is None else WorkerOutcome.NORMAL
    return WorkResult(
        worker, output=outcome.failed, test_outcome=TestOutcome.SURVIVED if survived else TestOutcome.KILLED
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the mutants asked for and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    modules = read_modules()
    parser.add_argument("names", nargs="*", metavar="MODULE", help=f"of {', '.join(modules)}; all of them by default")
    parser.add_argument("--again", action="store_true", help="runs the survivors once more")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--page", action="store_true", help="writes the page alone")
    only.add_argument("--no-page", action="store_true", help="leaves the page as it is")
    options = parser.parse_args(arguments)
    if unknown := {*options.names} - {*modules}:
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(modules)}")
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a plugin takes time in each mutant
    sys.dont_write_bytecode = False  # else each mutant compiles its tests anew
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests/support"))
    warnings.simplefilter("ignore", SyntaxWarning)  # many a mutant compares with `is`
    for name in [] if options.page else options.names or modules:
        run_module(modules[name], options.again)
    if not options.no_page:
        write_page(modules.values())
    return 0


if __name__ == "__main__":
    sys.exit(main())
