"""What Kaggle says of a job's sessions; calls are repeated where it is throttled or does not answer properly."""

import contextlib
import datetime
import io
import json
import logging
import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity

from helpers.kaggle.job import Job
from helpers.platforms.errors import Refused
from helpers.runs.files import read_json
from helpers.runs.record import RECORDS, RunRecord, StageRecord, parse_record
from helpers.runs.stages import MAIN_STAGES

CALL_ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = 20.0, 600.0  # seconds between two attempts; the first wait doubles with each


@dataclass(frozen=True)
class KaggleSession:
    """One session of a job: a private notebook on Kaggle."""

    number: int  # from 1
    kernel: str  # OWNER/SLUG
    status: str  # in Kaggle's words
    message: str = ""  # why it failed

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ("QUEUED", "RUNNING", "CANCEL_REQUESTED", "NEW_SCRIPT")


def connect() -> Any:
    """Returns the official package's client, signed in. Raises Refused without the package or credentials."""
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi
    except ImportError as error:
        raise Refused("the package `kaggle` is not installed: pip install kaggle") from error
    api = KaggleApi()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            api.authenticate()
    except SystemExit as error:
        raise Refused(
            "no Kaggle credentials: make an API token in your Kaggle settings, and put it into ~/.kaggle/access_token "
            "or the environment's KAGGLE_API_TOKEN."
        ) from error
    return api


def status_code(error: BaseException) -> int:
    """Returns the HTTP status that a call failed with, 0 where it got no answer."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def is_temporary(error: BaseException) -> bool:
    """Returns whether a call that failed so may succeed later: throttled, lost, or answered with an error page."""
    import requests

    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
        return True
    if not isinstance(error, requests.exceptions.RequestException | ValueError):
        return False
    code = status_code(error)
    return code == 429 or code >= 500 or "JSON" in f"{type(error).__name__} {error}"


def call_with_retries(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Returns what a call returns; repeats it after temporary errors, says so in the log, and raises the last one."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_temporary),
        stop=tenacity.stop_after_attempt(CALL_ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        before_sleep=tenacity.before_sleep_log(logging.getLogger(__name__), logging.WARNING),
        reraise=True,
    )
    return retrying(call, *arguments, **options)


def read_status(api: Any, kernel: str) -> tuple[str, str]:
    """Returns a notebook's status in Kaggle's words and its failure message; ("", "") where there is none."""
    import requests

    try:
        answer = call_with_retries(api.kernels_status, kernel)
    except (requests.exceptions.HTTPError, ValueError) as error:  # ValueError: the package's own words for 401 and 403
        if status_code(error) in (401, 403, 404) or "Cannot access kernel" in str(error):
            return "", ""
        raise
    return answer.status.name, answer.failure_message or ""


def list_sessions(api: Any, job: Job) -> list[KaggleSession]:
    """Returns the job's sessions in order."""
    sessions = []
    while True:
        number = len(sessions) + 1
        status, message = read_status(api, job.kernel(number))
        if not status:
            return sessions
        sessions.append(KaggleSession(number, job.kernel(number), status, message))


def read_dataset_status(api: Any, dataset: str) -> str:
    """Returns how far Kaggle is with a data set, "ready" at the end; "" where there is none.

    Before its first version is processed, Kaggle answers as if there were none.
    """
    import requests

    try:
        return call_with_retries(api.dataset_status, dataset)
    except requests.exceptions.HTTPError as error:
        if status_code(error) in (403, 404):
            return ""
        raise


def quota_hours(api: Any) -> tuple[float, str]:
    """Returns the GPU hours left this week, infinity where Kaggle does not tell, and when they are renewed."""
    answer = call_with_retries(api.quota_view)
    gpu = answer.gpu_quota
    if gpu is None or gpu.total_time_allowed is None:
        return math.inf, ""
    spent = sum(filter(None, (gpu.time_used, gpu.time_reserved)), datetime.timedelta())
    renewed = answer.quota_refresh_time.isoformat(" ", "minutes") if answer.quota_refresh_time else "not told"
    return (gpu.total_time_allowed - spent).total_seconds() / 3600, renewed


def download_output(api: Any, kernel: str, pattern: str, folder: Path) -> list[Path]:
    """Downloads a session's output files whose path matches; returns those that Kaggle sent."""
    answer = call_with_retries(api.kernels_output, kernel, str(folder), file_pattern=pattern, force=True)
    return [path for path in map(Path, answer[0]) if path.is_file()]


def read_output(api: Any, job: Job, kernel: str, name: str) -> str:
    """Returns the text of a file of the run that a session left, "" where there is none."""
    pattern = rf"^outputs/{re.escape(job.run.name)}/{re.escape(name)}$"
    with tempfile.TemporaryDirectory() as scratch:
        files = download_output(api, kernel, pattern, Path(scratch))
        return files[0].read_text(encoding="utf-8") if files else ""


def read_record(api: Any, job: Job, kernel: str) -> RunRecord | None:
    """Returns the run.json that a session left, None where there is none."""

    def read() -> RunRecord | None:
        text = read_output(api, job, kernel, "run.json")
        record = (parse_record(text) or parse_record(read_output(api, job, kernel, RECORDS[1]))) if text else None
        if text and record is None:
            json.loads(text)  # an error page in its place is asked for again
        return record

    return call_with_retries(read)


def read_image(api: Any, kernel: str) -> str:
    """Returns the docker image that a session's notebook has on Kaggle, "" where Kaggle does not tell."""
    import requests

    with tempfile.TemporaryDirectory() as scratch:
        try:
            call_with_retries(api.kernels_pull, kernel, scratch, metadata=True)
        except requests.exceptions.HTTPError as error:
            if is_temporary(error):
                raise
            return ""
        return read_json(Path(scratch) / "kernel-metadata.json").get("docker_image") or ""


def last_output(api: Any, job: Job, sessions: list[KaggleSession]) -> tuple[KaggleSession | None, RunRecord]:
    """Returns the newest ended session that left a run.json, and that; None and an empty record without one."""
    for session in reversed(sessions):
        if not session.is_live and (record := read_record(api, job, session.kernel)):
            return session, record
    return None, RunRecord()


# What a run.json says


def stage_statuses(record: RunRecord) -> dict[str, str]:
    """Returns the status of every main stage, "" for one that has not begun."""
    return {stage: record.stages.get(stage, StageRecord()).status for stage in MAIN_STAGES}


def stage_line(record: RunRecord) -> str:
    """Returns the main stages in words."""
    return ", ".join(f"{stage} {status or 'not begun'}" for stage, status in stage_statuses(record).items())


def is_finished(record: RunRecord) -> bool:
    """Returns whether all main stages have finished."""
    return set(stage_statuses(record).values()) == {"finished"}


def progress_marks(record: RunRecord) -> tuple:
    """Returns what differs between two sessions' run.json when the later session got further."""
    step = max((session.to_step or session.from_step or 0 for session in record.sessions), default=0)
    return stage_statuses(record), step, [stage.error for stage in record.stages.values()]
