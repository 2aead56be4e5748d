"""Several runs on one page: settings that differ, curves, scores with intervals, which is best and how sure that is."""

import itertools
import os
from pathlib import Path
from typing import Any

import numpy

from helpers.evaluation.comparison import Score, compare_models
from helpers.evaluation.metrics import score_sums
from helpers.reporting.decision import describe_check, judge_run
from helpers.reporting.figures import draw_losses, draw_scores, save_figure
from helpers.reporting.render import write_page
from helpers.reporting.results import Results, read_results
from helpers.reporting.tables import LABELS, SPECS, build_facts, build_table, differing_settings, is_unjudged
from helpers.reporting.tokens import PER_TOKEN, common_rows, describe_tokens, share_tokens
from helpers.reporting.words import Words
from helpers.runs.record import RECORDS, Run

Scores = dict[str, Score]  # of one model

Pairs = dict[tuple[int, int], Scores]  # (run, other run): the scores of other − run


def check_target(target: Path) -> None:
    """Raises ValueError where a page may not be written: in place of a folder, another kind of file, a run's file."""
    if target.is_dir():
        raise ValueError(f"--to {target} is a folder: name a file in it, such as {target / 'comparison.html'}.")
    if target.suffix.lower() != ".html":
        raise ValueError(f"--to {target} ends in {target.suffix!r}: the page needs a name that ends in .html.")
    for folder in target.parents:
        if any((folder / name).is_file() for name in RECORDS):
            hint = f"choose a place such as {folder.parent / target.name}"
            raise ValueError(f"--to {target} is among the files of run {folder.name}: {hint}.")


def write_comparison(runs: list[Run], target: Path, language: str = "en") -> Path:
    """Writes several runs on one page in a language, its figures beside it, and returns the page's path.

    Raises ValueError when a run has not been evaluated, when two have one name, and as `check_target` does.
    """
    check_target(target)
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two runs are called {', '.join(twice)}.")
    results, words = [read_results(run) for run in runs], Words(language, runs=frozenset(names))
    figures = {"several_scores": draw_scores(dict(zip(names, shared_scores(results))), words)}
    logs = {result.run.name: result.log for result in results if result.log}
    if logs and share_tokens(results):  # a loss is per token
        figures["several_losses"] = draw_losses(logs, words)
    folder = target.parent / f"{target.stem}_figures"
    pictures = {name: save_figure(figure, folder, name) for name, figure in figures.items()}
    write_page("comparison.html", target, pictures, comparison_content(results, target.parent, words), words)
    return target


def comparison_content(results: list[Results], folder: Path, words: Words) -> dict[str, Any]:
    """Returns what the template comparison.html shows on a page in this folder, tables as rows of text."""
    names, scores = [result.run.name for result in results], shared_scores(results)
    rows, pairs = paired_differences(results)
    parameters = [{stage: facts.parameters for stage, facts in result.record.stages.items()} for result in results]
    settings = differing_settings(dict(zip(names, parameters)), ("run_name", "outputs"))
    trainings = [result.metrics.get("train", {}) for result in results]
    times = [training | {"time": words.duration(training.get("hours"))} for training in trainings]
    trained = build_facts("trainings", dict(zip(names, times))) if all(trainings) else []
    tokens = [] if share_tokens(results) else describe_tokens(results, words)
    pages = [(result.run.name, result.run / "report" / "index.html") for result in results]
    return {
        "names": names,
        "pages": [(n, Path(os.path.relpath(page, folder)).as_posix()) for n, page in pages if page.is_file()],
        "rows": rows,
        "leads": [
            lead for name in ("bits_per_char", "chrf") if (lead := describe_best(name, names, scores, pairs, words))
        ],
        "pairs": pairs,
        "tokens": tokens,
        "tables": {
            "verdicts": verdict_rows(results, words),
            "settings": sorted(settings, key=lambda row: row["setting"]),
            "scores": run_score_rows(names, scores, pairs),
            "differences": difference_rows(names, pairs),
            "training": [row for row in trained if not tokens or row["what"] not in SPECS["per token"]],
        },
    }


def verdict_rows(results: list[Results], words: Words) -> list[dict[str, str]]:
    """Returns each run's verdict, people's choices counted in, with its first reason, as rows of text."""
    rows = []
    for result in results:
        verdict = judge_run(result)
        reason = " ".join(describe_check(check, words) for check in verdict.reasons[:1])
        decided = words.say(f"decided.{verdict.verdict}")
        rows.append({"run": result.run.name, "decision": decided, "first reason": reason})
    return rows


def tuned_scores(result: Results) -> Scores:
    """Returns the scores of a run's tuned model. Raises ValueError when it has not been evaluated."""
    if result.scores is None:
        raise ValueError(f"{result.run.name}: not evaluated yet. Finish stage evaluate first, or leave it out.")
    return result.scores.tuned


def shared_scores(results: list[Results]) -> list[Scores]:
    """Returns each run's `tuned_scores`, without similarity of meaning where the runs' encoders differ, without the
    share of unsafe replies where the versions of the rubric do, and without PER_TOKEN where their tokens do."""
    scores, evaluated = [tuned_scores(result) for result in results], [run.metrics["evaluate"] for run in results]
    differ: tuple[str, ...] = ()
    if len({metrics.get("meaning", {}).get("encoder") for metrics in evaluated}) > 1:
        differ += ("similarity_",)
    if len({metrics.get("rubric_version") for metrics in evaluated}) > 1:
        differ += ("unsafe",)
    if not share_tokens(results):
        differ += PER_TOKEN
    return [{name: score for name, score in own.items() if not name.startswith(differ)} for own in scores]


def tuned_sums(result: Results, ids: list[str]) -> dict[str, numpy.ndarray]:
    """Returns `score_sums` of a run's tuned model over these test rows, by their ids."""
    rows = {row["id"]: row for row in result.tuned}
    columns = {"nll": "tuned_nll", "tokens": "tokens", "characters": "characters", "correct": "tuned_correct"}
    lines, likelihoods = [result.row_scores[row_id] for row_id in ids], None
    if all(column in lines[0] for column in columns.values()):
        likelihoods = [{name: float(line[column]) for name, column in columns.items()} for line in lines]
    return score_sums([rows[row_id] for row_id in ids if row_id in rows], likelihoods)


def paired_differences(results: list[Results], draws: int = 1000) -> tuple[int, Pairs]:
    """Returns the number of common test rows, and {(run, other): scores of other − run} over them, paired.

    The intervals are corrected for the number of other runs (Bonferroni). PER_TOKEN are left out where the runs' tokens
    differ.
    """
    ids = common_rows(results)
    if len(ids) < 2:
        return len(ids), {}
    sums = [tuned_sums(result, ids) for result in results]
    if not share_tokens(results):
        sums = [{name: values for name, values in run.items() if name not in PER_TOKEN} for run in sums]
    level = 100 - 5 / (len(results) - 1)
    groups = [results[0].row_scores[row].get("group") or row for row in ids]
    return len(ids), {
        (run, other): _correct(compare_models(sums[run], sums[other], {}, draws, 0, level, groups).delta, len(sums) - 1)
        for run, other in itertools.permutations(range(len(results)), 2)
    }


def _correct(deltas: Scores, comparisons: int) -> Scores:
    """Returns differences whose p-values are corrected for so many comparisons too (Bonferroni)."""
    return {n: delta.model_copy(update={"p": min(1.0, (delta.p or 0.0) * comparisons)}) for n, delta in deltas.items()}


def best_of(name: str, scores: list[Scores], pairs: Pairs) -> tuple[int, str] | None:
    """Returns which run has the best value of a score over the rows that all share, and how sure that is: "best" where
    every other one is worse by its corrected p, "equal" where all differences are 0, "not judged" where no primary
    score is clear, else "unclear". None where no best can be named."""
    undirected = ("near 1", "neither")
    if not pairs or any(name not in run or run[name].better in undirected for run in [*scores, *pairs.values()]):
        return None
    sign = 1 if scores[0][name].better == "higher" else -1
    gains = [0.0, *(pairs[0, other][name].value for other in range(1, len(scores)))]  # over the first run
    best = max(range(len(scores)), key=lambda run: sign * gains[run])
    if not any(gains):
        return best, "equal"
    verdicts = {difference_verdict(name, pairs[other, best]) for other in range(len(scores)) if other != best}
    unsure = "not judged" if "exploratory" in verdicts else "unclear"
    return best, "best" if verdicts == {"better"} else unsure


def difference_verdict(name: str, delta: Scores) -> str:
    """Returns the verdict on a score of one run against another, by the rule of a single run's page."""
    return "exploratory" if is_unjudged(name, delta) else delta[name].change


def describe_best(name: str, names: list[str], scores: list[Scores], pairs: Pairs, words: Words) -> str:
    """Returns in a sentence which run is best by a score and how sure that is; "" where no best can be named."""
    best = best_of(name, scores, pairs)
    return words.say(f"compare.{best[1]}_{name}", run=names[best[0]]) if best else ""


def run_score_rows(names: list[str], scores: list[Scores], pairs: Pairs) -> list[dict[str, str]]:
    """Returns the tuned models' scores as rows of text, a column per run."""
    value = "{runs[%d].value:.{digits}f} ({runs[%d].low:.{digits}f} to {runs[%d].high:.{digits}f})"
    cells = {name: value % (place, place, place) for place, name in enumerate(names)}
    rows = []
    for name in [name for name in LABELS if all(name in run for run in scores)]:
        (label, digits), winner = LABELS[name], None
        if leader := best_of(name, scores, pairs):
            best, kind = leader
            winner = {"best": names[best], "unclear": "no clear winner"}.get(kind, kind)
            winner = "none above the floor" if scores[best][name].is_at_floor else winner
        rows.append({"label": label, "digits": digits, "runs": [run[name] for run in scores], "best": winner})
    return build_table({"score": "{label}", "aim": "{runs[0].better}", **cells, "best": "{best}"}, rows)


def difference_rows(names: list[str], pairs: Pairs) -> list[dict[str, str]]:
    """Returns the differences to the first run as rows of text."""
    rows = []
    for other, name in [(other, name) for (first, other), deltas in pairs.items() if first == 0 for name in deltas]:
        (label, digits), delta = LABELS[name], pairs[0, other][name]
        words = {"run": names[other], "label": label, "verdict": difference_verdict(name, pairs[0, other])}
        rows.append({**words, "digits": digits, "delta": delta})
    return build_table("differences between runs", rows)
