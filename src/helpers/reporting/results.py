"""What a run's files hold, read once: the data that tables, figures and pages are made of."""

import csv
import datetime
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from helpers.evaluation.comparison import Comparison
from helpers.evaluation.raters import run_ratings
from helpers.evaluation.rating_files import read_table
from helpers.runs.files import read_journal, read_json
from helpers.runs.record import Run, RunRecord, Session
from helpers.runs.stages import STAGES


@dataclass(frozen=True)
class Sample:
    """A held-out question with its reference and both replies, and why it is shown."""

    why: str
    id: str
    prompt: str
    reference: str
    base: str
    tuned: str
    gloss: dict[str, str]  # what people wrote of prompt, reference, base or tuned in another language


@dataclass(frozen=True)
class Results:
    """What a run's files hold; where a file is not there, its part is empty."""

    run: Run
    record: RunRecord
    metrics: dict[str, dict]  # stage: its metrics.json, but the report's
    log: list[dict]
    base: list[dict]
    tuned: list[dict]
    replies: list[dict]
    row_scores: dict[str, dict[str, str]]  # row id: its line of evaluate/scores.csv
    glosses: dict[str, dict[str, str]]  # row id: its line of evaluate/gloss.csv, written by people
    gloss_problem: str  # why that file could not be read
    trials: list[dict[str, str]]  # tune/trials.csv
    best_trial: dict  # tune/best.json

    @cached_property
    def ratings(self) -> dict:
        """What `run_ratings` makes of evaluate/ratings/; read when asked for."""
        metrics = self.metrics.get("evaluate")
        return run_ratings(self.run / "evaluate", self.base, self.tuned, metrics) if metrics else {}

    @property
    def unread(self) -> list[str]:
        """A line for each file written by people that could not be read: its name, and why."""
        return [*self.ratings.get("skipped", []), *filter(None, [self.gloss_problem])]

    @cached_property
    def scores(self) -> Comparison | None:
        """The scores of both models; None before the evaluation has finished."""
        return Comparison(**self.metrics["evaluate"]) if "evaluate" in self.metrics else None

    @property
    def sessions(self) -> list[Session]:
        """The sessions of all stages, the oldest first, without one that is still running."""
        return [session for session in self.record.sessions if session.reason != "running"]

    def samples(self, count: int, worst: int) -> list[Sample]:
        """Returns the first `count` rows in the evaluation's seeded order, then the `worst` of the others: those whose
        tuned reply lost most chrF++ to the base one."""

        def change(row: dict) -> float:
            return float(self.row_scores[row["id"]]["tuned_chrf"]) - float(self.row_scores[row["id"]]["base_chrf"])

        replies = zip(self.base, self.tuned, strict=True)
        rows = [row | {"base": row["reply"], "tuned": tuned["reply"]} for row, tuned in replies]
        lost = sorted(rows[count:], key=change)[:worst]
        chosen = [("seeded", row) for row in rows[:count]]
        chosen += [(f"among the worst: chrF++ {change(row):+.1f} against base", row) for row in lost]
        names = ("id", "prompt", "reference", "base", "tuned")
        return [
            Sample(why=why, gloss=self.glosses.get(row["id"], {}), **{name: row[name] for name in names})
            for why, row in chosen
        ]


def read_results(run: Run) -> Results:
    """Reads a run's files, each once. Raises FileNotFoundError when the folder is not that of a run."""
    if not run.exists():
        raise FileNotFoundError(f"{run / 'run.json'} is not there: {run} is not the folder of a run.")
    glosses, gloss_problem = _read_glosses(run / "evaluate" / "gloss.csv")
    metrics = {stage: run.metrics(stage) for stage in STAGES if stage != "report" and run.has_metrics(stage)}
    return Results(
        run=run,
        record=run.record(),
        metrics=metrics,
        log=read_journal(run / "train" / "log.jsonl", repair=False),
        base=read_journal(run / "evaluate" / "base.jsonl", repair=False),
        tuned=read_journal(run / "evaluate" / "tuned.jsonl", repair=False),
        replies=read_journal(run / "infer" / "replies.jsonl", repair=False),
        row_scores={row["id"]: row for row in _read_table(run / "evaluate" / "scores.csv")},
        glosses=glosses,
        gloss_problem=gloss_problem,
        trials=_read_table(run / "tune" / "trials.csv"),
        best_trial=read_json(run / "tune" / "best.json") if "tune" in metrics else {},
    )


def _read_table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _read_glosses(path: Path) -> tuple[dict[str, dict[str, str]], str]:
    """Returns {id: row} of gloss.csv, of two rows with one id the first, and why it could not be read."""
    try:
        rows = read_table(path, ["id"]) if path.is_file() else []
    except ValueError as error:
        return {}, f"{path.name}: {error}"
    return {row["id"]: row for row in reversed(rows)}, ""


def session_times(session: Session) -> tuple[datetime.datetime, datetime.datetime | None]:
    """Returns a session's start and end; None for the end of one that was killed or is running."""
    start = datetime.datetime.fromisoformat(session.started)
    return start, None if session.ended in (None, "unknown") else datetime.datetime.fromisoformat(session.ended)


def stage_hours(sessions: list[Session]) -> dict[str, float]:
    """Returns the hours of each stage over its sessions, of those whose end is known."""
    hours: dict[str, float] = {}
    for session in sessions:
        start, end = session_times(session)
        if end:
            hours[session.stage] = hours.get(session.stage, 0.0) + (end - start).total_seconds() / 3600
    return hours
