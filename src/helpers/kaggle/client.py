"""What Kaggle says of a job's sessions; calls are repeated where it is throttled or does not answer properly."""

import contextlib
import functools
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity

from helpers.kaggle.job import Job
from helpers.platforms.errors import Paused, Refused, describe_error
from helpers.runs.files import read_json
from helpers.runs.record import RECORDS, RunRecord, StageRecord, parse_record
from helpers.runs.stages import MAIN_STAGES, OPTIONAL_INPUTS, STAGES

FIRST_WAIT, LONGEST_WAIT = 2.0, 16.0  # seconds between two attempts; the first wait doubles with each
MOST_WAITED = 40.0  # seconds for which a call is repeated
ANSWER_SECONDS = 15.0  # without a byte, after which a connection counts as lost
TOKEN = "a new API token in your Kaggle settings, and put it into ~/.kaggle/access_token or KAGGLE_API_TOKEN"


class Unavailable(Paused):
    """Kaggle throttles, cannot be reached or answers with an error page: the same command may work later."""


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
    limit_waiting()
    with contextlib.redirect_stdout(io.StringIO()):  # of the package's own words, at its import too
        try:
            from kaggle.api.kaggle_api_extended import KaggleApi
            from kagglesdk.kaggle_env import get_access_token_from_env
        except ImportError as error:
            raise Refused("the package `kaggle` is not installed: pip install kaggle") from error
        api = KaggleApi()
        try:
            api.authenticate()
        except (SystemExit, TypeError, AttributeError) as error:  # the latter of a kaggle.json that is no object
            _, source = get_access_token_from_env()
            if source:
                raise Refused(f"Kaggle does not accept the token in {source}: make {TOKEN}.") from error
            raise Refused(f"{describe_credentials(Path(api.config))}: make {TOKEN}.") from error
        except OSError as error:
            if error.filename is None:  # not of a file: the network's
                raise
            problem = f"{error.filename} cannot be read ({describe_error(error)}), and a token is looked for there"
            raise Refused(f"{problem}: remove it, then make {TOKEN}.") from error
    return api


def describe_credentials(file: Path) -> str:
    """Returns why the credentials in a kaggle.json are none, "no Kaggle credentials" where there is no such file."""
    if not file.exists():
        return "no Kaggle credentials"
    try:
        names = set(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return f"{file} cannot be read ({type(error).__name__}; expected Kaggle's JSON with username and key)"
    lacking = " and ".join(name for name in ("username", "key") if name not in names)
    return f"{file} has no {lacking}" if lacking else f"{file} is not taken by Kaggle's package"


@functools.cache
def limit_waiting() -> None:
    """Ends every call of `requests` without an own limit after ANSWER_SECONDS: Kaggle's package sets none."""
    import requests

    send = requests.Session.send

    def send_with_limit(self: requests.Session, request: Any, **options: Any) -> requests.Response:
        return send(self, request, **{**options, "timeout": options.get("timeout") or ANSWER_SECONDS})

    requests.Session.send = send_with_limit


@contextlib.contextmanager
def explained_errors() -> Iterator[None]:
    """Raises what Kaggle answers with as Refused, or as Unavailable where the same command may work later."""
    import requests

    try:
        yield
    except (requests.exceptions.RequestException, ValueError) as error:
        code = status_code(error)
        if not code and not is_temporary(error):
            raise
        refusals = {
            401: f"Kaggle does not accept the credentials (401): make {TOKEN}",
            403: "Kaggle denies this account what was asked (403): check --owner, and that the account is verified",
            404: "Kaggle does not know what was asked for (404): check --owner and the name of the run",
        }
        if code in refusals:
            raise Refused(f"{refusals[code]}.") from error
        if not is_temporary(error):
            raise Refused(f"Kaggle refuses what was asked ({describe_error(error)}).") from error
        late = "Kaggle throttles this account (429)" if code == 429 else "Kaggle does not answer properly"
        late = late if code or isinstance(error, ValueError) else "Kaggle cannot be reached: check the connection"
        raise Unavailable(f"error: {late}. Run the same command again later ({describe_call_error(error)}).") from error


def describe_call_error(error: Exception) -> str:
    """Returns why a call failed in one line; of a lost connection the system's own words, which stand innermost."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return describe_error(reason if isinstance(reason, Exception) else error)


def status_code(error: BaseException) -> int:
    """Returns the HTTP status that a call failed with, 0 where it got no answer."""
    for cause in (error, error.__cause__, error.__context__):  # the package hides some behind words of its own
        if code := getattr(getattr(cause, "response", None), "status_code", 0):
            return code
    return 0


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
    """Returns what a call returns; repeats it after temporary errors, says so, and raises the last one."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_temporary),
        stop=tenacity.stop_before_delay(MOST_WAITED),
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        before_sleep=_say_why,
        reraise=True,
    )
    return retrying(call, *arguments, **options)


def _say_why(state: tenacity.RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    wait = state.next_action.sleep if state.next_action else 0.0
    if isinstance(error, Exception):
        print(f"Kaggle is asked again in {wait:.2g} seconds: {describe_call_error(error)}", file=sys.stderr, flush=True)


def read_status(api: Any, kernel: str) -> tuple[str, str]:
    """Returns a notebook's status in Kaggle's words and its failure message; ("", "") where there is none.

    Of an account's own notebook that is not there Kaggle says 404, or 403. Raises HTTPError and ValueError for the
    rest, so for another account's that this one may not see.
    """
    import requests

    own = kernel.partition("/")[0] == api.config_values["username"]
    try:
        answer = call_with_retries(api.kernels_status, kernel)
    except (requests.exceptions.HTTPError, ValueError) as error:  # ValueError: the package's own words for 401 and 403
        if status_code(error) == 404 or (status_code(error) == 403 and own):
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
    """Returns the status of every main stage, "" for one that has not begun, and of others that have."""
    shown = [stage for stage in STAGES if stage in MAIN_STAGES or stage in record.stages]
    return {stage: record.stages.get(stage, StageRecord()).status for stage in shown}


def stage_line(record: RunRecord) -> str:
    """Returns the stages in words."""
    return ", ".join(f"{stage} {status or 'not begun'}" for stage, status in stage_statuses(record).items())


def is_finished(record: RunRecord, stages: Iterable[str] = MAIN_STAGES) -> bool:
    """Returns whether stages, the main ones unless others are named, have finished, and none of those that read a
    preferred model before that was trained."""
    facts = {stage: record.stages.get(stage, StageRecord()) for stage in stages}
    trained = facts["prefer"].ended or "" if "prefer" in facts else ""
    later = [own for stage, own in facts.items() if stage in OPTIONAL_INPUTS]
    return all(own.status == "finished" for own in facts.values()) and all(
        (own.started or "") >= trained for own in later
    )


def progress_marks(record: RunRecord) -> tuple:
    """Returns what differs between two sessions' run.json when the later session got further."""
    step = max((session.to_step or session.from_step or 0 for session in record.sessions), default=0)
    return stage_statuses(record), step, [stage.error for stage in record.stages.values()]
