"""Kaggle's GPU hours of a week, and whether what remains of a run fits into them.

An hour of a session counts once, also with two T4s: as the plan's hours do.
"""

import datetime
import math
from dataclasses import dataclass
from typing import Any

from helpers.kaggle.client import call_with_retries
from helpers.kaggle.job import Job
from helpers.platforms.errors import Paused
from helpers.runs.record import RunRecord, StageRecord
from helpers.runs.session import SESSION_HOURS

LEAST_HOURS = 0.5  # of GPU quota, for a session to be worth its start


@dataclass(frozen=True)
class Quota:
    """The GPU hours of an account."""

    left: float = math.inf  # this week; infinity where Kaggle does not tell
    weekly: float = math.inf
    renewed: str = ""  # when the next week's begin


def read_quota(api: Any) -> Quota:
    """Returns the GPU hours of the account that is signed in."""
    answer = call_with_retries(api.quota_view)
    gpu = answer.gpu_quota
    if gpu is None or gpu.total_time_allowed is None:
        return Quota()
    spent = sum(filter(None, (gpu.time_used, gpu.time_reserved)), datetime.timedelta())
    renewed = answer.quota_refresh_time.isoformat(" ", "minutes") if answer.quota_refresh_time else "not told"
    weekly = gpu.total_time_allowed.total_seconds() / 3600
    return Quota(max(0.0, weekly - spent.total_seconds() / 3600), weekly, renewed)


def limit_hours(api: Any, job: Job, record: RunRecord) -> float:
    """Prints whether what remains of a run fits into the week; returns the hours after which a session has to pause for
    want of quota, 0 where its own limit comes first. `record` is the newest run.json that a session left.

    Raises Paused when too few hours are left for a session.
    """
    quota, session = read_quota(api), job.settings["train"]["session"]["hours"] or SESSION_HOURS["kaggle"]
    print(describe_need(*remaining_hours(job, record), session, quota), flush=True)
    if quota.left < LEAST_HOURS:
        raise Paused(f"{quota.left:.1f} GPU hours are left this week, until {quota.renewed}. Run this again then.")
    return quota.left if quota.left < session else 0.0


def remaining_hours(job: Job, record: RunRecord) -> tuple[float, str]:
    """Returns the GPU hours that a run still needs, and by what: its plan, and for a training that has paused the rate
    at which it trained."""
    if job.plan is None:
        return 0.0, ""
    planned, train = job.plan.hours, record.stages.get("train", StageRecord())
    evaluation = record.stages.get("evaluate", StageRecord())
    measured = (train.paused or {}).get("hours_left")
    if train.status == "finished":
        training, source = 0.0, job.plan.speed_from
    elif measured is not None:
        training, source = measured, "the rate measured so far"
    else:
        training, source = planned["total"] - planned["evaluate"], job.plan.speed_from
    preferred = record.stages.get("prefer", StageRecord()).status == "finished"
    hours = training + planned["evaluate"] * (evaluation.status != "finished")
    return hours + job.prefer_hours * (not preferred), source


def describe_need(hours: float, source: str, session: float, quota: Quota) -> str:
    """Returns in one or two sentences how many hours a run needs, how many are left and whether that will do."""
    if quota.left == math.inf:
        return f"About {hours:.1f} GPU hours remain (by {source}). Kaggle does not tell how many are left this week."
    count = count_sessions(hours, session, quota)
    sessions = f"{count} session{'s' * (count != 1)}"
    need = f"About {hours:.1f} GPU hours remain (by {source}), and {quota.left:.1f} are left this week: {sessions}."
    if hours <= quota.left:
        return need
    return f"{need} {hours - quota.left:.1f} of them need the quota of a later week, from {quota.renewed} on."


def count_sessions(hours: float, session: float, quota: Quota) -> int:
    """Returns how many sessions of at most `session` hours so many hours take, 1 at least; a used-up quota also ends
    one."""
    count, left = 0, quota.left
    while hours > 0 or not count:
        left = left if left >= LEAST_HOURS else max(quota.weekly, LEAST_HOURS)
        spent = min(hours, session, left)
        count, hours, left = count + 1, hours - spent, left - spent
    return count
