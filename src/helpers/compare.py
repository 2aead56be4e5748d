"""Several runs on one page: settings that differ, curves, scores with intervals, who wins and how sure that is."""

import os
from pathlib import Path

from helpers import env, figures, metrics
from helpers.tables import LABELS, page


def tuned_statistics(run: Path, ids: list[str]) -> dict:
    """Returns `metrics.statistics` of a run's tuned model over these test rows, by their ids."""
    import pandas

    table = pandas.read_csv(run / "evaluate" / "scores.csv", dtype={"id": str}).drop_duplicates("id").set_index("id")
    rows = {row["id"]: row for row in env.read_jsonl(run / "evaluate" / "tuned.jsonl")}
    likelihoods = None
    if {"tokens", "characters", "tuned_correct"} <= set(table):
        names = {"nll": "tuned_nll", "tokens": "tokens", "characters": "characters", "correct": "tuned_correct"}
        likelihoods = [{name: table.at[one, column] for name, column in names.items()} for one in ids]
    return metrics.statistics([rows[one] for one in ids if one in rows], likelihoods)


def common_rows(runs: list[Path]) -> list[str]:
    """Returns the ids of the test rows that every run has answered, with the same reference."""
    import pandas

    held = []
    for run in runs:
        texts = {row["id"]: row["reference"] for row in env.read_jsonl(run / "evaluate" / "tuned.jsonl")}
        ids = pandas.read_csv(run / "evaluate" / "scores.csv", dtype={"id": str}).id
        held.append({one: texts.get(one) for one in ids})
    return [one for one, said in held[0].items() if all(other.get(one, 0) == said for other in held[1:])]


def differences(runs: list[Path], draws: int = 1000) -> tuple[int, dict]:
    """Returns the number of common test rows, and {(one, other): scores of other − one} over them, paired.

    The intervals are corrected for the number of other runs (Bonferroni). Perplexity and token accuracy are left out
    where the runs' tokens differ.
    """
    ids = common_rows(runs)
    if len(ids) < 2:
        return len(ids), {}
    found = [tuned_statistics(run, ids) for run in runs]
    if any("perplexity" in one and (one["perplexity"][:, 1] != found[0]["perplexity"][:, 1]).any() for one in found):
        found = [{n: v for n, v in one.items() if n not in ("perplexity", "token_accuracy")} for one in found]
    level = 100 - 5 / (len(runs) - 1)
    return len(ids), {
        (at, other): metrics.compare(found[at], found[other], {}, draws, 0, level)["delta"]
        for at in range(len(runs))
        for other in range(len(runs))
        if at != other
    }


def best_of(name: str, judged: list[dict], pairs: dict) -> tuple[int, bool] | None:
    """Returns which run has the best value of a score, and whether it beats every other one significantly; None where
    no best can be named."""
    better = judged[0]["tuned"][name]["better"]
    if better == "near 1" or not pairs or any(name not in found for found in pairs.values()):
        return None
    sign = 1 if better == "higher" else -1
    first = max(range(len(judged)), key=lambda at: sign * judged[at]["tuned"][name]["value"])
    gains = [pairs[other, first][name] for other in range(len(judged)) if other != first]
    sure = all((gain["low"] if sign > 0 else -gain["high"]) > 0 for gain in gains)
    return first, sure


def write(runs: list[Path], target: Path) -> Path:
    """Writes several runs on one page: settings that differ, scores and who wins, curves. Returns the page's path.

    Raises ValueError when a run has not been evaluated, or when two have one name.
    """
    unjudged = [run.name for run in runs if not (run / "evaluate" / "metrics.json").is_file()]
    if unjudged:
        raise ValueError(f"{', '.join(unjudged)}: not evaluated yet. Finish stage evaluate first, or leave them out.")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"two runs are called {', '.join(sorted({n for n in names if names.count(n) > 1}))}.")
    judged = [env.read_json(run / "evaluate" / "metrics.json") for run in runs]
    number, pairs = differences(runs)
    shared = [name for name in LABELS if all(name in one["tuned"] for one in judged)]
    rows, versus = [], []
    for name in shared:
        label, digits = LABELS[name]
        row = {"score": label, "better": judged[0]["tuned"][name]["better"]}
        for run, one in zip(runs, judged):
            score = one["tuned"][name]
            row[run.name] = f"{score['value']:.{digits}f} ({score['low']:.{digits}f} to {score['high']:.{digits}f})"
        found = best_of(name, judged, pairs)
        row["best"] = "–" if found is None else names[found[0]] if found[1] else "no clear winner"
        rows.append(row)
    for other in range(1, len(runs)):
        for name in [name for name in shared if (0, other) in pairs and name in pairs[0, other]]:
            label, digits = LABELS[name]
            delta = pairs[0, other][name]
            versus.append(
                {
                    "run": names[other],
                    "score": label,
                    "better": delta["better"],
                    f"minus {names[0]}": f"{delta['value']:+.{digits}f}",
                    "interval": f"{delta['low']:+.{digits}f} to {delta['high']:+.{digits}f}",
                    "verdict": verdict_of(delta),
                }
            )
    pictures = {}
    with_log = [run for run in runs if (run / "train" / "log.jsonl").is_file()]
    folder = target.parent / f"{target.stem}_figures"
    if with_log:
        pictures["several_losses"] = figures.save(figures.overlaid(with_log), folder, "several_losses")
    bars = {run.name: one["tuned"] for run, one in zip(runs, judged)}
    pictures["several_scores"] = figures.save(figures.scores(bars, LABELS), folder, "several_scores")
    page(
        target.name,
        target.parent,
        pictures,
        names=names,
        pages=[
            (run.name, Path(os.path.relpath(run / "report" / "index.html", target.parent)).as_posix())
            for run in runs
            if (run / "report" / "index.html").is_file()
        ],
        headline=several_headline(names, judged, pairs, number),
        settings=differing(runs),
        scores=rows,
        pairs=versus,
        pairs_note=f"Over the {number} test rows that all have answered, the same rows drawn for both.",
        facts=fact_rows(runs),
    )
    return target


def verdict_of(delta: dict) -> str:
    """Returns "better", "worse" or "no clear difference" for one difference between two runs."""
    if delta["better"] == "near 1":
        return "–"
    if delta["low"] <= 0 <= delta["high"]:
        return "no clear difference"
    return "better" if (delta["value"] > 0) == (delta["better"] == "higher") else "worse"


def several_headline(names: list[str], judged: list[dict], pairs: dict, number: int) -> str:
    """Returns who finds the held-out answers likeliest, and who comes closest to them, and how sure that is."""
    if not pairs:
        return f"The runs share {number} test rows: their scores stand beside one another, but nobody wins."
    said = []
    for name, what in (("bits_per_char", "The held-out answers are likeliest to"), ("chrf", "The highest chrF++ has")):
        found = best_of(name, judged, pairs) if all(name in one["tuned"] for one in judged) else None
        if found:
            sure = "significantly" if found[1] else "but no clear winner"
            said.append(f"{what} {names[found[0]]}, {sure}.")
    return " ".join(said) or "No score is common to the runs."


def differing(runs: list[Path]) -> list[dict]:
    """Returns the settings in which the runs differ, as rows of text, a column a run."""
    told = []
    for run in runs:
        flat = {}
        for stage, facts in env.read_json(run / "run.json")["stages"].items():
            for name, value in facts.get("parameters", {}).items():
                parts = value if isinstance(value, dict) else {"": value}
                flat |= {f"{stage}.{name}{'.' * bool(key)}{key}": str(part)[:300] for key, part in parts.items()}
        told.append(flat)
    names = sorted({name for flat in told for name in flat})
    skipped = ("run_name", "outputs")
    return [
        {"setting": name, **{run.name: flat.get(name, "–") for run, flat in zip(runs, told)}}
        for name in names
        if len({flat.get(name, "–") for flat in told}) > 1 and name.rpartition(".")[2] not in skipped
    ]


def fact_rows(runs: list[Path]) -> list[dict]:
    """Returns what the runs' trainings took, as rows of text, a column a run."""
    trained = [env.read_json(run / "train" / "metrics.json") for run in runs if (run / "train/metrics.json").is_file()]
    if len(trained) < len(runs):
        return []
    wanted = {
        "train_loss": ".4f",
        "val_loss": ".4f",
        "trainable_parameters": ",",
        "optimizer_steps": ",",
        "effective_batch": "g",
        "tokens_seen": ",",
        "tokens_per_second": ",.0f",
        "peak_memory_gib": ".2f",
        "hours": ".3f",
        "sessions": "d",
    }
    return [
        {"what": name, **{run.name: "not measured" if one[name] is None else format(one[name], form)
                          for run, one in zip(runs, trained)}}
        for name, form in wanted.items()
    ]  # fmt: skip
