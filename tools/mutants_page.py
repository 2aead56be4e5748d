"""docs/mutants.md: what became of the mutants, each survivor with its reason from tools/mutants.yaml."""

import subprocess
import textwrap
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import yaml
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem
from mutant_changes import mutate
from mutant_modules import MODULES, ROOT, SEED, TIMED_OUT, Module, drawn

PAGE = ROOT / "docs/mutants.md"
INTRODUCTION = """# Mutants

`make mutants` changes one place of a module, runs the module's tests, and does so for every place: an operator becomes
another, a number one more or one less, a condition its opposite, a loop empty. A change that no test notices is a
survivor. This page is written by `tools/mutants.py` from the results and from the reasons in `tools/mutants.yaml`. The
run is no part of `make test`; it takes about a second of CPU time for each mutant.

The changes are those of [cosmic-ray](https://cosmic-ray.readthedocs.io). Not counted are mutants that do not compile,
that are the same program, that change an annotation or the text of an error alone, and `==` that becomes `is`. A test
that starts a process of its own does not see the mutant and is left out, and so are the slowest; the files and the
names are in `tools/mutants.yaml`. A mutant that takes more than three times the CPU time of the module as it is, and
five seconds, has timed out: it counts as noticed. One that was noticed once is not run again after new tests.
"""


class Survivor(NamedTuple):
    """A mutant that no test noticed."""

    module: str
    operator: str
    line: str  # as it stands, without its indentation
    mutated: str  # the same line, changed
    change: str  # "`==` → `<`"
    number: int  # of the line: for the order alone


class Reason(NamedTuple):
    """Why some survivors need no test: those of a line, made by these operators, whose changed line has this text."""

    line: str
    reason: str
    operators: tuple[str, ...] = ("*",)
    becomes: tuple[str, ...] = ("",)

    def fits(self, survivor: Survivor) -> bool:
        named = any(fnmatchcase(survivor.operator, pattern) for pattern in self.operators)
        return named and survivor.line == self.line and any(text in survivor.mutated for text in self.becomes)


class Tally(NamedTuple):
    """A module's results."""

    module: Module
    counts: Counter  # mutants, killed, timed out, survived, not run, not counted
    survivors: list[Survivor]


def read_reasons(path: Path = MODULES) -> dict[str, list[Reason]]:
    """Returns the reasons of the YAML file by module."""
    listed = yaml.safe_load(path.read_text(encoding="utf-8"))["reasons"]
    return {name: [read_reason(entry) for entry in entries] for name, entries in listed.items()}


def read_reason(entry: dict) -> Reason:
    """Returns a reason of the YAML file; what may be a list may be one text."""
    lists = {
        name: tuple([entry[name]] if isinstance(entry[name], str) else entry[name])
        for name in entry.keys() - {"line", "reason"}
    }
    return Reason(entry["line"], entry["reason"], **lists)


def describe(module: Module, spec: MutationSpec) -> Survivor:
    """Returns a mutant as the page names it."""
    row, start = spec.start_pos
    before, after = (text.splitlines() for text in (module.source, mutate(module.source, spec)))
    line, mutated = before[row - 1], after[row - 1] if len(after) == len(before) else ""
    same_end = len(line) - (spec.end_pos[1] if spec.end_pos[0] == row else len(line))
    new = mutated[start : len(mutated) - same_end].strip() if mutated else ""
    change = f"`{line[start : len(line) - same_end].strip()}` → `{new or 'nothing'}`"
    operator = spec.operator_name.partition("/")[2]
    return Survivor(module.name, operator, line.strip(), mutated.strip(), change, row)


def tally(module: Module) -> Tally:
    """Returns the results of a module's source as it stands."""
    counts, survivors = Counter(), []
    if not module.results.is_file():
        return Tally(module, counts, survivors)
    with use_db(module.results, WorkDB.Mode.open) as db:
        items, results = drawn(db, module), dict(db.results)
        counts["not counted"] = sum(result.worker_outcome == WorkerOutcome.SKIPPED for result in results.values())
        counts["of"] = db.num_work_items - counts["not counted"]
        for item in items:
            kind = outcome_of(item, results)
            counts[kind] += 1
            if kind == "survived":
                survivors.append(describe(module, item.mutations[0]))
    counts["mutants"] = len(items)
    return Tally(module, counts, sorted(survivors, key=lambda survivor: (survivor.number, survivor.operator)))


def outcome_of(item: WorkItem, results: dict) -> str:
    """Returns "killed", "timed out", "survived" or "not run"."""
    if item.job_id not in results:
        return "not run"
    result = results[item.job_id]
    if result.test_outcome == TestOutcome.SURVIVED:
        return "survived"
    return TIMED_OUT if result.output == TIMED_OUT else "killed"


def split_survivors(survivors: Iterable[Survivor], reasons: list[Reason]) -> tuple[dict, list[Survivor]]:
    """Returns the survivors by their reason, {(line, reason): survivors}, and those without one."""
    justified: dict[tuple[str, str], list[Survivor]] = {}
    left = []
    for survivor in survivors:
        reason = next((reason for reason in reasons if reason.fits(survivor)), None)
        if reason:
            justified.setdefault((survivor.line, reason.reason), []).append(survivor)
        else:
            left.append(survivor)
    return justified, left


def write_page(modules: Iterable[Module], path: Path = PAGE) -> None:
    """Writes the page, and prints the survivors without a reason and the reasons without a survivor."""
    tallies, reasons = [tally(module) for module in modules], read_reasons()
    rows, sections, totals = [], [], Counter()
    for module, counts, survivors in tallies:
        own = reasons.get(module.name, [])
        justified, left = split_survivors(survivors, own)
        counts |= Counter({"justified": len(survivors) - len(left), "unjustified": len(left)})
        totals += counts
        rows.append(table_row(f"`{module.path.relative_to(ROOT / 'src')}`", counts, bool(module.sample)))
        sections.append(survivors_section(module, justified, left))
        for survivor in left:
            print(f"{module.name}:{survivor.number}: no reason: {survivor.line}")
            print(f"    {survivor.operator}: {survivor.mutated}")
        for reason in own:
            if not any(reason.fits(survivor) for survivor in survivors):
                print(f"{module.name}: no survivor: {reason.line}: {reason.reason}")
    text = "\n".join(
        [INTRODUCTION, summary(tallies, totals), *HEADER, *rows, table_row("all", totals, False), "", *sections]
    )
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


COLUMNS = ("mutants", "killed", TIMED_OUT, "survived", "justified", "unjustified")
HEADER = (f"| module | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}")


def table_row(name: str, counts: Counter, sampled: bool) -> str:
    """Returns a module's row of the table."""
    mutants = f"{counts['mutants']} of {counts['of']}" if sampled else str(counts["mutants"])
    return f"| {name} | {mutants} | {' | '.join(str(counts[column]) for column in COLUMNS[1:])} |"


def summary(tallies: list[Tally], totals: Counter) -> str:
    """Returns the sentences above the table."""
    commit = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", "src", "tests"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    sampled = [module.name for module, _, _ in tallies if module.sample]
    survived = f"{totals['survived']} of {totals['mutants']} mutants survived"
    lines = [
        f"`make mutants`, on the sources and tests of commit {commit}: {survived}, "
        f"{totals['unjustified']} without a reason."
    ]
    if sampled:
        lines.append(
            f"Of {', '.join(sampled)} a sample was run, drawn with seed {SEED} (`sample` in `tools/mutants.yaml`)."
        )
    if totals["not run"]:
        lines.append(f"{totals['not run']} mutants have not been run yet.")
    lines.append(f"{totals['not counted']} more are not counted.")
    return "## Results\n\n" + textwrap.fill(" ".join(lines), 118) + "\n"


def survivors_section(module: Module, justified: dict, left: list[Survivor]) -> str:
    """Returns a module's survivors with their reasons."""
    entries = [(key[0], key[1], survivors) for key, survivors in justified.items()]
    entries += [(survivor.line, "**none**", [survivor]) for survivor in left]
    if not entries:
        return f"## {module.name}\n\nNo survivor.\n"
    lines = [f"## {module.name}\n", "| line | change | why no test notices |", "|---|---|---|"]
    for line, reason, survivors in entries:
        changes = ", ".join(dict.fromkeys(survivor.change for survivor in survivors))
        lines.append(" | ".join(("|", cell(f"`{line}`"), cell(changes), f"{cell(reason)} |")).replace("| |", "|", 1))
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Returns a text as a table's cell has it."""
    return text.replace("|", "\\|")
