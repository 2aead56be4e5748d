"""What a run's files hold, read once: the data that tables, figures and pages are made of."""

import csv
import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel

from helpers.evaluation.comparison import Comparison
from helpers.evaluation.llm_judge import llm_choices, llm_marks
from helpers.evaluation.meta_evaluation import (
    MetaEvaluation,
    evaluate_scores,
    mark_values,
    score_by_reply,
    tabulate_ratings,
)
from helpers.evaluation.raters import TUNED_SHEET, Ratings, read_both_ratings, read_run_ratings, summarise_run_ratings
from helpers.evaluation.rating_files import read_table
from helpers.evaluation.sheet_rows import SHEET, SheetSample, read_sample
from helpers.platforms.errors import Refused
from helpers.reporting import shapes
from helpers.runs.damage import MEND, reading
from helpers.runs.files import read_journal, read_json
from helpers.runs.record import Run, RunRecord, Session
from helpers.runs.run_json import session_times
from helpers.runs.stages import PREFERRED, STAGES, other_seeds

JUDGE_SCORE = "language model's mark for empathy"  # as a score of its own, held against people


@dataclass(frozen=True)
class Sample:
    """A held-out question with its reference and the replies to it, and why it is shown."""

    why: str  # "seeded", "lost" or "gained": against base, most or least of the rows
    change: float  # of chrF++ against base
    id: str
    prompt: str
    reference: str
    base: str
    tuned: str
    gloss: dict[str, str]  # what people wrote of prompt, reference, base or tuned in another language
    preferred: str | None = None  # where there is such a model


@dataclass(frozen=True)
class Results:
    """What a run's files hold; where a file is not there, its part is empty."""

    run: Run
    record: RunRecord
    metrics: dict[str, dict]  # stage: its metrics.json, but the report's
    log: list[dict]
    base: list[dict]
    tuned: list[dict]
    preferred: list[dict]  # of a run with a preferred model
    replies: list[dict]
    row_scores: dict[str, dict[str, str]]  # row id: its line of evaluate/scores.csv
    glosses: dict[str, dict[str, str]]  # row id: its line of evaluate/gloss.csv, written by people
    gloss_problem: str  # why that file could not be read
    judged: list[dict]  # evaluate/judge.jsonl: a language model's ratings
    prefer: dict  # prefer/metrics.json
    trials: list[dict[str, str]]  # tune/trials.csv
    best_trial: dict  # tune/best.json

    @cached_property
    def rated(self) -> Ratings | None:
        """The ratings of base and tuned replies in evaluate/ratings/, read when asked for; None without any file."""
        if self.preferred:
            return self.both_rated[0]
        metrics = self.metrics.get("evaluate")
        return read_run_ratings(self.run / "evaluate", self.base, self.tuned, metrics["seed"]) if metrics else None

    @cached_property
    def both_rated(self) -> tuple[Ratings | None, Ratings | None]:
        """The ratings of base and tuned replies, and those of tuned and preferred ones: see `read_both_ratings`."""
        replies, seed = (self.base, self.tuned, self.preferred), self.metrics["evaluate"]["seed"]
        return read_both_ratings(self.run / "evaluate", *replies, seed)

    @property
    def groups(self) -> dict[str, str]:
        """The group of each held-out row by its id; rows of runs of earlier versions are not there."""
        return {row: line["group"] for row, line in self.row_scores.items() if line.get("group")}

    @cached_property
    def sample(self) -> SheetSample | None:
        """How the rows on the sheet of base and tuned replies were chosen; None for an earlier version's first rows."""
        return read_sample(self.run / "evaluate", TUNED_SHEET if self.preferred else SHEET)

    @cached_property
    def ratings(self) -> dict:
        """What `summarise_run_ratings` makes of evaluate/ratings/; {} without any file."""
        if not self.rated:
            return {}
        options = _resampling(self.metrics.get("evaluate", {}))
        return summarise_run_ratings(self.rated, self.groups, **options, sample=self.sample)

    @cached_property
    def meta_evaluations(self) -> dict[str, MetaEvaluation]:
        """How every score agrees with the ratings of `people`, and with those of the language model that rated
        (`judge`), by these names; one without ratings is not there, and none before the evaluation has finished."""
        if "evaluate" not in self.metrics:
            return {}
        judged = [] if self.preferred else self.judged  # else of tuned and preferred replies
        opinions = {"judge": (llm_marks(judged), llm_choices(judged))}
        if self.rated:
            opinions["people"] = (self.rated.marks, self.rated.choices)
        rated = {own["id"] for given in opinions.values() for own in itertools.chain(*given)}
        base, tuned = ([row for row in rows if row["id"] in rated] for rows in (self.base, self.tuned))
        if not base:
            return {}
        ids = [row["id"] for row in base]
        tables = {kind: tabulate_ratings(ids, *given, self.groups) for kind, given in opinions.items()}
        values = score_by_reply(base, tuned, self.row_scores)
        scores = {"judge": values, "people": values | mark_values(ids, tables["judge"])}
        options, sample = _resampling(self.metrics["evaluate"]), self.sample
        held = {kind: evaluate_scores(scores[kind], ids, own, **options, sample=sample) for kind, own in tables.items()}
        return {kind: own for kind, own in held.items() if own}

    @property
    def unread(self) -> list[str]:
        """A line for each file written by people that could not be read: its name, and why."""
        return [*self.ratings.get("skipped", []), *filter(None, [self.gloss_problem])]

    @cached_property
    def scores(self) -> Comparison | None:
        """The scores of both models; None before the evaluation has finished."""
        return Comparison(**self.metrics["evaluate"]) if "evaluate" in self.metrics else None

    @cached_property
    def other_seeds(self) -> dict[int, Comparison]:
        """The scores of the trainings with other seeds, on the same rows by the same settings; {} without any."""
        scored = {}
        for seed, file in other_seeds(self.run.folder).items():
            with reading(file):
                scored[seed] = shapes.EvaluationFacts.model_validate(read_json(file))
        own, same = self.metrics.get("evaluate", {}), ("n", "decoding", "max_new_tokens")
        return {seed: facts for seed, facts in scored.items() if all(getattr(facts, n) == own.get(n) for n in same)}

    @property
    def sessions(self) -> list[Session]:
        """The sessions of all stages, the oldest first, without one that is still running."""
        return [session for session in self.record.sessions if session.reason != "running"]

    def samples(self, count: int, worst: int) -> list[Sample]:
        """Returns the first `count` questions in the evaluation's seeded order, then the `worst` of the other rows:
        those whose tuned reply lost most chrF++ to the base one, or gained least."""

        def change(row: dict) -> float:
            return float(self.row_scores[row["id"]]["tuned_chrf"]) - float(self.row_scores[row["id"]]["base_chrf"])

        replies = zip(self.base, self.tuned, strict=True)
        rows = [row | {"base": row["reply"], "tuned": tuned["reply"]} for row, tuned in replies]
        questions: dict[str, dict] = {}
        for row in rows:
            questions.setdefault(row["prompt"], row)  # one row of each
        first = list(questions.values())[:count]
        lost = sorted((row for row in rows if row not in first), key=change)[:worst]
        chosen = [("seeded", row) for row in first]
        chosen += [("lost" if change(row) < 0 else "gained", row) for row in lost]
        names = ("id", "prompt", "reference", "base", "tuned")
        third = {row["id"]: row["reply"] for row in self.preferred}
        return [
            Sample(
                why,
                change(row),
                gloss=self.glosses.get(row["id"], {}),
                preferred=third.get(row["id"]),
                **{name: row[name] for name in names},
            )
            for why, row in chosen
        ]


def _resampling(metrics: dict) -> dict[str, int]:
    """Returns the evaluation's own `draws` and `seed`, from its metrics.json."""
    return {"draws": metrics["bootstrap_draws"], "seed": metrics["seed"]}


def read_results(run: Run) -> Results:
    """Reads a run's files, each once.

    Raises FileNotFoundError when the folder is not that of a run, Refused that names the file and the field of it which
    no page could show.
    """
    if not run.exists():
        raise FileNotFoundError(f"{run / 'run.json'} is not there: {run} is not the folder of a run.")
    glosses, gloss_problem = _read_glosses(run / "evaluate" / "gloss.csv")
    with reading(run / "run.json", "Take it from a copy of the run."):
        record = run.record()
        for session in record.sessions:
            session_times(session)
    metrics = {stage: _read_metrics(run, stage) for stage in STAGES if stage != "report" and run.has_metrics(stage)}
    sides = ["base", "tuned", *["preferred"] * ("preferred" in metrics.get("evaluate", {}))]
    answers = {side: _read_lines(run / "evaluate" / f"{side}.jsonl", shapes.AnsweredRow) for side in sides}
    results = Results(
        run=run,
        record=record,
        metrics=metrics,
        log=_read_lines(run / "train" / "log.jsonl", shapes.LogEntry),
        base=answers["base"],
        tuned=answers["tuned"],
        preferred=answers.get("preferred", []),
        replies=_read_lines(run / "infer" / "replies.jsonl", shapes.Reply),
        row_scores=_read_by_id(run / "evaluate" / "scores.csv"),
        glosses=glosses,
        gloss_problem=gloss_problem,
        judged=_read_lines(run / "evaluate" / "judge.jsonl", shapes.JudgedRow),
        prefer=_read_prefer(run / PREFERRED[0]),
        trials=_read_trials(run / "tune" / "trials.csv"),
        best_trial=_read_best(run / "tune" / "best.json") if "tune" in metrics else {},
    )
    if "evaluate" in metrics:
        check_answers(results)
    return results


def check_answers(results: Results) -> None:
    """Raises Refused where the rows of the evaluation's files are not the same ones."""
    folder = results.run / "evaluate"
    ids = [row["id"] for row in results.base]
    for side, rows in (("tuned", results.tuned), ("preferred", results.preferred or results.tuned)):
        if ids != [row["id"] for row in rows]:
            counts = f"{len(rows)} rows, {folder / 'base.jsonl'} {len(ids)}"
            raise Refused(f"{folder / side}.jsonl has {counts}, or others: expected the same rows in both. {MEND}")
    for row_id in ids:
        with reading(folder / "scores.csv"):
            shapes.RowScores.model_validate(results.row_scores[row_id])


def _read_metrics(run: Run, stage: str) -> dict:
    with reading(run / STAGES[stage][1] / "metrics.json"):
        return _checked(shapes.METRICS.get(stage, shapes.Facts), run.metrics(stage))


def _read_prefer(path: Path) -> dict:
    with reading(path):
        return _checked(shapes.PreferFacts, read_json(path)) if path.is_file() else {}


def _read_best(path: Path) -> dict:
    with reading(path):
        return _checked(shapes.BestFacts, read_json(path))


def _read_lines(path: Path, shape: type[BaseModel]) -> list[dict]:
    with reading(path):
        return [_checked(shape, line) for line in read_journal(path, repair=False)]


def _checked(shape: type[BaseModel], facts: dict) -> dict:
    """Returns facts as they are, when they have a shape; raises ValidationError when they do not."""
    shape.model_validate(facts)
    return facts


def _read_trials(path: Path) -> list[dict[str, str]]:
    with reading(path):
        rows = _read_table(path)
        for row in rows:
            shapes.Trial.model_validate(row)
            _ = [float(value) for name, value in row.items() if value and is_measure(name)]
        return rows


def is_measure(name: str) -> bool:
    """Returns whether a column of tune/trials.csv is what candidates were judged by, at a rung or in the end."""
    return " at rung " in name or name in ("val_loss", "bits_per_char", "perplexity")


def _read_table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with reading(path), open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _read_by_id(path: Path) -> dict[str, dict[str, str]]:
    """Returns {id: row} of a CSV file, in its order. Refused where it has no ids."""
    with reading(path):
        return {row["id"]: row for row in _read_table(path)}


def _read_glosses(path: Path) -> tuple[dict[str, dict[str, str]], str]:
    """Returns {id: row} of gloss.csv, of two rows with one id the first, and why it could not be read."""
    try:
        rows = read_table(path, ["id"]) if path.is_file() else []
    except ValueError as error:
        return {}, f"{path.name}: {error}"
    return {row["id"]: row for row in reversed(rows)}, ""
