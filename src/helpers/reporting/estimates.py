"""The estimate against what it was, stage by stage, and the likeliest cause of a difference, from what was measured."""

import contextlib
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from helpers.planning.calibration import is_plan_for
from helpers.platforms.machine import count_gpus
from helpers.reporting import tables
from helpers.reporting.results import Results
from helpers.reporting.words import Words
from helpers.runs.record import StageRecord
from helpers.runs.run_json import Session, session_times, stage_hours

TOLERANCE = 0.2  # of the estimate: a ratio within it needs no cause
SMALL = 0.01  # of the estimated total: a difference of fewer seconds gets none
EXPLAINED = 0.5  # of a difference, at least, for what was measured to be named as its cause
RESIDUAL = ("gpu", "other_gpu", "disk", "unknown")  # causes that are named where nothing else explains enough
PROMISED = ("prepare_data", "tune", "train", "evaluate", "infer")  # stages whose hours a promise is of
REPLIES = "replies per second and GPU"
PREFER_MEMORY, PREFER_TIME = "peak memory per GPU by preferences, GiB", "time of training by preferences"
TIMES = {  # of a plan's hours: the line of the table
    "train": "time of training",
    "validate": "time of validation",
    "checkpoints": "time of checkpoints",
    "evaluate": "time of evaluation",
    "total": "time in all",
}


class Cause(NamedTuple):
    """What may have made a difference: a key of `cause` in words_en.yaml, with what that says."""

    name: str
    seconds: float = 0.0  # of the difference that it explains, below 0 where it took less than planned
    facts: dict[str, Any] = {}


UNKNOWN = Cause("unknown")


class Line(NamedTuple):
    """A line of the table: planned and actual, and in seconds what a cause has to explain."""

    what: str  # as in tables.yaml
    planned: float | None
    actual: float | None
    seconds: tuple[float, float] | None  # planned and actual
    causes: list[Cause]
    residual: Cause  # named where none of them explains enough

    @property
    def difference(self) -> float:
        """The seconds that it took longer than planned."""
        return self.seconds[1] - self.seconds[0] if self.seconds else 0.0

    @property
    def ratio(self) -> float | None:
        """The actual over the planned; None where one is not known."""
        return self.actual / self.planned if self.planned and self.actual is not None else None

    def find_cause(self, total: float) -> Cause | None:
        """Returns the likeliest cause of a ratio outside the tolerance, None for a smaller one: what explains most of
        the difference, and half of it at least; else the residual. `total` are the estimated seconds of the run."""
        if self.ratio is None or abs(self.ratio - 1) <= TOLERANCE:
            return None
        gap = self.difference
        if self.seconds and abs(gap) < SMALL * total:
            return None
        enough = [cause for cause in self.causes if gap and cause.seconds / gap >= EXPLAINED]
        return max(enough, key=lambda cause: cause.seconds / gap, default=self.residual)


@dataclass(frozen=True)
class Measured:
    """What a run on a GPU has recorded of its time, beside its plan; what an earlier version did not is not there."""

    results: Results
    plan: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def planned(self) -> dict[str, float]:
        """The plan's seconds: train, validate, evaluate, checkpoints, total; with those of a third model's evaluation,
        where it was evaluated and has a plan."""
        third = planned_hours(self.results.prefer).get("evaluate", 0.0) if self.evaluation.get("preferred") else 0.0
        more = {"evaluate": third, "total": third}
        return {name: 3600 * (hours + more.get(name, 0.0)) for name, hours in self.plan["hours"].items()}

    @property
    def actual(self) -> dict[str, float]:
        """The same as measured; `evaluate` and `total` are the time of whole stages, and `stage` that of training."""
        hours, record = stage_hours(self.results.sessions), self.results.record.stages["train"]
        seconds = {name: value for name, value in self.training.get("seconds", {}).items() if name in TIMES}
        earlier = [session for session in self.results.sessions if session.stage == "train"][:-1]
        whole = self.training.get("hours", 0.0)
        with contextlib.suppress(ValueError, TypeError):  # times that cannot be read are shown as they are
            last = Session(stage="train", started=record.started or "", ended=record.ended)  # with loading and copies
            whole = max(whole, stage_hours([*earlier, last]).get("train", 0.0))
        seconds["stage"] = 3600 * whole
        if self.evaluation and "evaluate" in hours:
            seconds |= {"evaluate": 3600 * hours["evaluate"], "total": seconds["stage"] + 3600 * hours["evaluate"]}
        return seconds

    def changed(self, name: str, stage: str, before: float | None, now: float | None) -> list[Cause]:
        """Returns the cause that there was more or less of something, to which a stage's time is proportional."""
        if not before or now is None:
            return []
        return [Cause(name, self.planned.get(stage, 0.0) * (now / before - 1), {"planned": before, "actual": now})]

    def training_causes(self) -> list[Cause]:
        """Returns what may have changed the time of the steps."""
        plan, training, causes = self.plan, self.training, []
        sides = [side for side in (plan, training) if side.get("useful_token_fraction")]
        passes = [3 * own["useful_token_fraction"] * own.get("arithmetic_per_useful_token", 0.0) for own in sides]
        if len(sides) == 2:
            useful = [side["useful_token_fraction"] for side in sides]
            shift = self.planned["train"] * (useful[0] / useful[1] - 1)
            causes.append(Cause("padding", shift, {"planned": useful[0], "actual": useful[1]}))
            causes += self.changed("recomputed", "train", *passes)
        planned, actual = plan.get("events", {}).get("micro_batches"), training.get("micro_batches")
        if planned and actual:
            seconds = (actual - planned) * plan["micro_batch_seconds"] / plan["world_size"]
            causes.append(Cause("micro_batches", seconds, {"planned": planned, "actual": actual}))
        return causes

    def event_causes(self, name: str, stage: str) -> list[Cause]:
        """Returns that a training had more or fewer validations or checkpoints."""
        return self.changed(name, stage, *(side.get("events", {}).get(name) for side in (self.plan, self.training)))

    def reply_causes(self) -> list[Cause]:
        """Returns that replies ended before the cap, to which the plan takes every one."""
        lengths = [row["new_tokens"] for row in (*self.results.base, *self.results.tuned) if "new_tokens" in row]
        if not lengths or not self.evaluation.get("max_new_tokens"):
            return []
        share = fmean(lengths) / self.evaluation["max_new_tokens"]
        seconds = self.planned["evaluate"] * self.plan.get("writing_share", 1.0) * (share - 1)
        return [Cause("replies", seconds, {"part": share})]

    def evaluation_causes(self) -> list[Cause]:
        """Returns what may have changed the time of the evaluation."""
        causes, seconds = self.reply_causes(), self.evaluation.get("seconds", {})
        processes = self.evaluation.get("processes", 0)
        if not seconds or not processes or "evaluate" not in self.actual:
            return causes
        gpus = self.plan.get("events", {}).get("gpus", processes)
        fewer = self.planned["evaluate"] * (gpus / processes - 1)
        own = {kind: value / processes for kind, value in seconds.items()}
        return [
            *causes,
            Cause("gpus", fewer, {"planned": gpus, "actual": processes}),
            _timed("load", own.get("load", 0.0), sessions=self.count_sessions("evaluate")),
            _timed("benchmarks", own.get("benchmarks", 0.0)),
            _timed("scores", self.actual["evaluate"] - sum(own.values())),
        ]

    def count_sessions(self, stage: str) -> int:
        """Returns in how many sessions a stage ran."""
        return sum(session.stage == stage for session in self.results.sessions)

    def outside_causes(self) -> list[Cause]:
        """Returns what the stage of the training took besides its steps, validations and checkpoints."""
        seconds = self.training.get("seconds")
        if not seconds:
            return []
        left = self.actual["stage"] - sum(seconds.values())
        return [_timed("load", seconds["load"], sessions=self.count_sessions("train")), _timed("outside", left)]

    def gpu_cause(self, stage: str, rate: float) -> Cause:
        """Returns what is named where nothing else explains enough: the GPU, and how fast it was."""
        gpu = self.results.record.stages.get(stage, StageRecord()).gpu
        if not is_plan_for(self.plan, gpu):
            return Cause("other_gpu", facts={"gpu": count_gpus(gpu), "rate": rate})
        return Cause("gpu", facts={"rate": rate})


def _timed(name: str, seconds: float, **facts: Any) -> Cause:
    return Cause(name, seconds, {**facts, "seconds": seconds})


def compare_estimates(results: Results) -> list[Line]:
    """Returns the estimates of a run that trained on a GPU beside what was measured; [] without a plan or a GPU."""
    training, evaluation = (results.metrics.get(stage, {}) for stage in ("train", "evaluate"))
    if not training.get("plan") or not results.record.stages["train"].gpu:
        return []
    run = Measured(results, training["plan"], training, evaluation)
    return [_memory_line(run), _tokens_line(run), _replies_line(run), *_prefer_lines(results), *_time_lines(run)]


def planned_hours(prefer: dict[str, Any]) -> dict[str, float]:
    """Returns the hours of the plan in prefer/metrics.json; {} without one."""
    return (prefer.get("plan") or {}).get("hours", {})


def _memory_line(run: Measured, what: str = "peak memory per GPU, GiB") -> Line:
    limit = run.training.get("micro_batch_limit")
    cause = Cause("memory", facts={"limit": limit}) if limit else UNKNOWN
    peaks = (side.get("peak_memory_gib") for side in (run.plan, run.training))
    return Line(what, *peaks, seconds=None, causes=[], residual=cause)


def _prefer_lines(results: Results) -> list[Line]:
    """Returns the lines of the training by preferences; [] where it has no plan, or ran on no GPU."""
    prefer, stage = results.prefer, results.record.stages.get("prefer", StageRecord())
    if not planned_hours(prefer) or not stage.gpu:
        return []
    run = Measured(results, prefer["plan"], prefer, {})
    planned, actual = run.planned.get("train"), prefer.get("seconds", {}).get("train")
    seconds = (planned, actual) if planned and actual else None
    steps = run.changed("steps", "train", *(side.get("optimizer_steps") for side in (run.plan, prefer)))
    gpu = run.gpu_cause("prefer", planned / actual if planned and actual else 0.0)
    hours = (None if value is None else value / 3600 for value in (planned, actual))
    return [_memory_line(run, PREFER_MEMORY), Line(PREFER_TIME, *hours, seconds=seconds, causes=steps, residual=gpu)]


def _rate_line(run: Measured, what: str, rates: tuple, planned: float, causes: list[Cause], stage: str) -> Line:
    """Returns a line of something per second, of which a stage was to do as much as takes `planned` seconds."""
    before, now = rates
    seconds = (planned, planned * before / now) if before and now else None
    return Line(what, before, now, seconds, causes, run.gpu_cause(stage, now / before if before and now else 0.0))


def _tokens_line(run: Measured) -> Line:
    rates = run.plan.get("tokens_per_second"), run.training.get("tokens_per_second")
    return _rate_line(run, "tokens per second", rates, run.planned["train"], run.training_causes(), "train")


def _replies_line(run: Measured) -> Line:
    measured = [rate for rate in run.evaluation.get("replies_per_second", {}).values() if rate]
    actual = len(measured) / sum(1 / rate for rate in measured) if measured else None
    planned = run.planned["evaluate"] * run.plan.get("writing_share", 1.0)
    rates = run.plan.get("replies_per_second"), actual
    return _rate_line(run, REPLIES, rates, planned, run.reply_causes(), "evaluate")


def _time_lines(run: Measured) -> list[Line]:
    """Returns the lines of the hours: the parts of training, the stage of evaluation, and both stages in all."""
    steps = run.changed("steps", "train", *(side.get("optimizer_steps") for side in (run.plan, run.training)))
    causes = {
        "train": [*run.training_causes(), *steps],
        "validate": run.event_causes("validations", "validate"),
        "checkpoints": run.event_causes("checkpoints", "checkpoints"),
        "evaluate": run.evaluation_causes(),
    }
    causes["total"] = [*sum(causes.values(), []), *run.outside_causes()]
    lines: list[Line] = []
    for name, what in TIMES.items():
        planned, actual = run.planned.get(name), run.actual.get(name)
        seconds = (planned, actual) if planned and actual else None
        rate = planned / actual if planned and actual else 0.0
        residual = run.gpu_cause("evaluate" if name == "evaluate" else "train", rate)
        residual = Cause("disk", facts={"rate": rate}) if name == "checkpoints" else residual
        if name == "validate" and not _is_as_far_off(rate, lines[0].ratio):  # the same GPU, in the same stage
            residual = UNKNOWN
        if name == "total" and seconds:
            residual = _residual_of_all(lines, seconds[1] - seconds[0])
        hours = (None if value is None else value / 3600 for value in (planned, actual))
        lines.append(Line(what, *hours, seconds=seconds, causes=causes[name], residual=residual))
    return lines


def _is_as_far_off(rate: float, steps: float | None) -> bool:
    """Returns whether steps that took `steps` times their estimate are outside the tolerance to the same side as a
    validation at `rate`, so that both may be the GPU's."""
    return steps is not None and abs(steps - 1) > TOLERANCE and (steps > 1) == (rate < 1)


def _residual_of_all(lines: list[Line], gap: float) -> Cause:
    """Returns the residual of the part that differs most; that part itself where its cause is not known, and it makes
    half of the difference in all."""
    most = max(lines, key=lambda line: line.difference * gap)
    if most.residual != UNKNOWN or not gap or most.difference / gap < EXPLAINED:
        return most.residual
    return _timed("part", abs(most.difference), line=most.what)


def estimate_facts(results: Results) -> list[dict[str, Any]]:
    """Returns the lines with their ratios and likeliest causes, as report/metrics.json has them."""
    facts = []
    for line in (lines := compare_estimates(results)):
        cause = line.find_cause(3600 * (lines[-1].planned or 0.0))
        named = {"cause": cause.name, **cause.facts} if cause else {}
        facts.append({"what": line.what, "estimate": line.planned, "was": line.actual, "ratio": line.ratio, **named})
    return facts


def describe_estimates(results: Results, words: Words) -> list[str]:
    """Returns a sentence for each line whose ratio is outside the tolerance: the ratio, and its likeliest cause."""
    sentences = []
    for facts in [facts for facts in estimate_facts(results) if "cause" in facts]:
        shown = facts | {name: words.share(facts[name]) for name in ("rate", "part") if name in facts}
        if "line" in facts:
            shown["line"] = words.name(facts["line"])
        if "seconds" in facts:
            shown["time"] = words.duration(facts["seconds"] / 3600)
        parts = [words.say("page.off_by", what=words.name(facts["what"]), ratio=facts["ratio"])]
        if facts["cause"] in RESIDUAL:
            parts.append(words.say("page.unexplained"))
        if facts["cause"] != UNKNOWN.name:
            parts.append(words.say("page.likeliest", cause=words.say(f"cause.{facts['cause']}", **shown)))
        sentences.append(" ".join(parts))
    return sentences


def describe_kept_promise(results: Results, words: Words) -> str:
    """Returns in a sentence whether a run ended in the hours it was promised in, by its own sessions; "" without a
    promise, and before its stages have finished."""
    promise = (results.metrics.get("train", {}).get("plan") or {}).get("promise")
    stages = {name: facts for name, facts in results.record.stages.items() if name in PROMISED}
    if not promise or "evaluate" not in stages or any(facts.status != "finished" for facts in stages.values()):
        return ""
    sessions = [session for session in results.sessions if session.stage in PROMISED]
    hours, is_whole = sum(stage_hours(sessions).values()), all(session_times(session)[1] for session in sessions)
    kind = "broken" if hours > promise["hours"] else "kept" if is_whole else "unknown"
    return words.say(f"page.promise_{kind}", time=words.duration(hours))


def plan_rows(results: Results, words: Words) -> list[dict[str, str]]:
    """Returns the plan in train/metrics.json beside what was measured, as rows of text; without a GPU, what depends on
    one is left out."""
    training = results.metrics.get("train", {})
    if "plan" not in training:
        return []
    lines = {line.what: line for line in compare_estimates(results)}
    known = {name: value for name, value in training["plan"].items() if value is not None}
    known["times"] = {name: words.duration(hours) for name, hours in training["plan"]["hours"].items()}
    known["times"] |= {name: words.duration(lines[TIMES[name]].planned) for name in ("evaluate", "total") if lines}
    measured = {name: lines[what].actual for name, what in TIMES.items() if lines}
    actual = training | {"times": {name: words.duration(hours) for name, hours in measured.items()}}
    actual |= {"replies_per_second": lines[REPLIES].actual} if lines else {}
    if PREFER_TIME in lines:
        for own, value in ((known, "planned"), (actual, "actual")):
            own["prefer_memory"], hours = (getattr(lines[what], value) for what in (PREFER_MEMORY, PREFER_TIME))
            own["times"]["prefer"] = words.duration(hours)
    rows = tables.build_facts("plan", {"planned": defaultdict(lambda: "–", known), "actual": actual})
    rows = [row for row in rows if row["what"] not in (PREFER_MEMORY, PREFER_TIME) or row["what"] in lines]
    if not lines:
        return [row for row in rows if row["what"] not in tables.SPECS["of the GPU"]]
    ratios = {what: line.ratio for what, line in lines.items() if line.ratio is not None}
    return [{**row, "ratio": f"{ratios[row['what']]:.2f}" if row["what"] in ratios else "–"} for row in rows]
