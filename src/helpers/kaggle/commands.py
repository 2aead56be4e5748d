"""Drives a run on Kaggle: push starts one session, chain as many as it takes.

A session's notebook holds the whole suite; session N is OWNER/sahanubhuti-RUN-N and reads the output of the last one
that left any. What was pushed is asked of Kaggle, so that this can be stopped and started again anywhere.
"""

import contextlib
import itertools
import re
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from helpers.kaggle import client
from helpers.kaggle.job import Job
from helpers.kaggle.notebook import LISTING, kernel_metadata, session_notebook
from helpers.kaggle.quota import limit_hours
from helpers.platforms.environment import ROOT
from helpers.platforms.errors import FAILED, FINISHED, Refused, describe_error
from helpers.runs.checkpoints import FileFacts, compare_files
from helpers.runs.differences import settings_differences
from helpers.runs.files import write_folder, write_json, write_text
from helpers.runs.lock import RunLock
from helpers.runs.record import Run, RunRecord, StageRecord
from helpers.runs.stages import MAIN_STAGES, WRITTEN_BY_PEOPLE
from helpers.runs.versions import IMAGE_FILE, compare_image

FREEZE = ROOT / "tests" / "platforms" / "images" / "kaggle.txt"  # the packages of the image that was tested
NOT_LISTED = "is not known: the session left no list of its packages"

MOST_SILENT = 1800.0  # seconds for which a chain waits for Kaggle
MAX_FAILURES = 3  # sessions in a row that fail before a chain ends


class ImageRefused(Exception):
    """Kaggle does not take the docker image that a notebook is to run on."""


def run_action(action: str, job: Job, owner: str, with_checkpoints: bool, seconds: float) -> int:
    """Signs in, and pushes, pulls, chains or prints the status of a job; returns the exit code.

    `owner` is a Kaggle account ("": that of the credentials), `seconds` the time between two looks of a chain.
    Raises Refused, also when another process works on the same job, and Paused without GPU hours or where Kaggle
    cannot be asked.
    """
    with client.explained_errors():
        api = client.connect()
        return _act(action, job, owner or api.config_values["username"], api, with_checkpoints, seconds)


def _act(action: str, job: Job, owner: str, api: Any, with_checkpoints: bool, seconds: float) -> int:
    job = replace(job, owner=owner)
    if action == "status":
        return print_status(api, job)
    lock = RunLock(job.run.folder.with_name(f"{job.run.name}.kaggle"), what=f"run {job.run.name} on Kaggle")
    lock.hold(patience=0)
    with contextlib.ExitStack() as held:
        held.callback(lock.release)
        if action == "pull":
            return pull_run(api, job, with_checkpoints)
        if action == "chain":
            return run_chain(api, job, seconds)
        push_session(api, job, client.list_sessions(api, job))
    return FINISHED


def push_session(api: Any, job: Job, sessions: list[client.KaggleSession]) -> None:
    """Starts the session after `sessions`. Raises Refused for settings other than the run's, for a session that still
    runs, and for inputs that Kaggle does not know; Paused when the week's GPU hours are used up."""
    for session in sessions:
        if session.is_live:
            raise Refused(f"{session.kernel} is {session.status}: a run has one session at a time.")
    source, record = client.last_output(api, job, sessions)
    check_trained(job, record)
    for stage, before in record.settings.items():
        if stage not in MAIN_STAGES and stage not in record.stages:  # it may still have any
            continue
        if differences := settings_differences(stage, before, job.settings[stage]):
            raise Refused(f"run {job.run.name} began with other settings: {'; '.join(differences)}.")
    hours = limit_hours(api, job, record) if job.gpu else 0.0
    number, resumes_from = len(sessions) + 1, source.kernel if source else ""
    image = client.read_image(api, resumes_from) if source else ""
    if source and not image:
        warn_of_image(number, f"Kaggle does not tell the image of {resumes_from}")
    with tempfile.TemporaryDirectory() as scratch:
        write_text(Path(scratch) / f"{job.slug(number)}.ipynb", session_notebook(job, number, hours))
        try:
            push_notebook(api, Path(scratch), kernel_metadata(job, number, resumes_from, image))
        except ImageRefused as refusal:
            warn_of_image(number, f"Kaggle does not take the image of {resumes_from} ({refusal})")
            push_notebook(api, Path(scratch), kernel_metadata(job, number, resumes_from, ""))
    print(
        f"session {number}: {job.kernel(number)} pushed" + f", resumes from {resumes_from}" * bool(source), flush=True
    )


def check_trained(job: Job, record: RunRecord) -> None:
    """Raises Refused where the stages that are asked for need a training that no session has finished."""
    if "train" not in job.stages and record.stages.get("train", StageRecord()).status != "finished":
        asked = ",".join(job.stages)
        raise Refused(
            f"run {job.run.name} has no finished training on Kaggle, which --stages {asked} needs: leave --stages out "
            f"until that has finished."
        )


def push_notebook(api: Any, folder: Path, metadata: dict) -> None:
    """Pushes the notebook in a folder once, whatever becomes of the answers.

    Raises ImageRefused for the image that the metadata name, and Refused for the rest of what Kaggle does not take.
    """
    import requests

    attempts = itertools.count()

    def push() -> Any:
        """Pushes the notebook; None where an attempt arrived although its answer was lost."""
        is_repeated = next(attempts) > 0
        return None if is_repeated and client.read_status(api, metadata["id"])[0] else api.kernels_push(str(folder))

    write_json(folder / "kernel-metadata.json", metadata)
    try:
        answer = client.call_with_retries(push)
    except requests.exceptions.HTTPError as error:
        if client.is_temporary(error) or "docker_image" not in metadata:
            raise
        raise ImageRefused(f"HTTP {client.status_code(error)}") from error  # of an image it says no more than that
    if answer is None:
        return
    if "docker_image" in metadata and "image" in answer.error.lower():
        raise ImageRefused(answer.error)
    errors = [answer.error] if answer.error else []
    for kind in ("dataset", "kernel", "model"):
        errors += [f"no {kind} {name}" for name in getattr(answer, f"invalid_{kind}_sources")]
    if errors:
        raise Refused(f"Kaggle did not take {metadata['id']}: {'; '.join(errors)}.")


def warn_of_image(number: int, reason: str) -> None:
    """Says that a session may run on another image than the ones before."""
    print(f"{reason}: session {number} may run on another, and resume is then no longer bit for bit.", flush=True)


def print_status(api: Any, job: Job) -> int:
    """Prints the sessions, and the stages as the last output has them."""
    sessions = client.list_sessions(api, job)
    for session in sessions:
        print(f"session {session.number}  {session.kernel}  {session.status}  {session.message}".rstrip())
    source, record = client.last_output(api, job, sessions)
    if source:
        print(f"after session {source.number}: {client.stage_line(record)}")
        print_image(client.read_output(api, job, source.kernel, IMAGE_FILE), record)
    if not sessions:
        print(f"run {job.run.name} has no session yet")
    return FINISHED


def print_image(image: str, record: RunRecord) -> None:
    """Prints how the last session's image differs from the one that the suite was tested on, and from earlier ones."""
    if len(record.images) > 1:
        print(f"the sessions ran on {len(record.images)} images, not bit for bit: {', '.join(record.images)}")
    if FREEZE.is_file():
        sentence = compare_image(FREEZE.read_text(encoding="utf-8"), image) if image else NOT_LISTED
        print(f"Kaggle's image {sentence}")


def pull_run(api: Any, job: Job, with_checkpoints: bool = False) -> int:
    """Downloads the last output in place of an earlier pull, if every file is as the session listed it."""
    source, record = client.last_output(api, job, client.list_sessions(api, job))
    if source is None:
        print(f"error: run {job.run.name} has left no output yet", file=sys.stderr)
        return FAILED
    run, wanted = job.run, "" if with_checkpoints else "(?!train/checkpoints/)"  # a pattern of files' names
    if run.folder.exists() and not (run / LISTING).is_file():
        raise Refused(f"{run} was made here, not pulled: use another --outputs.")
    run.lock(runner=True)
    with contextlib.ExitStack() as held:
        held.callback(run.unlock)
        scratch = held.enter_context(tempfile.TemporaryDirectory(dir=run.outputs))
        client.download_output(api, source.kernel, rf"^outputs/{re.escape(run.name)}/{wanted}", Path(scratch))
        pulled = Path(scratch) / "outputs" / run.name
        if (pulled / LISTING).is_file():
            if problem := compare_listing(pulled, wanted):
                print(f"error: {source.kernel}: {problem}. Nothing here was changed; pull again.", file=sys.stderr)
                return FAILED
        else:
            write_json(pulled / LISTING, {})
            print(f"{source.kernel} did not end by itself: its files cannot be compared with a list")
        keep_written(run, pulled)
        with write_folder(run.folder) as folder:
            pulled.rename(folder)
    print(f"{run}: output of session {source.number} ({client.stage_line(record)})")
    return FINISHED


def keep_written(run: Run, pulled: Path) -> None:
    """Copies what people wrote for the run that is here into the pulled one, unless that has it too."""
    for file in [file for pattern in WRITTEN_BY_PEOPLE for file in run.folder.glob(pattern)]:
        copy = pulled / file.relative_to(run.folder)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)


def compare_listing(pulled: Path, wanted: str) -> str:
    """Returns "" when a pulled run holds the listed files whose names match a pattern, else what is wrong with it."""
    try:
        listed = TypeAdapter(dict[str, FileFacts]).validate_json((pulled / LISTING).read_bytes())
    except ValueError as error:
        return f"{LISTING} cannot be read ({describe_error(error)})"
    return compare_files(pulled, {name: file.model_dump() for name, file in listed.items() if re.match(wanted, name)})


def run_chain(api: Any, job: Job, seconds: float) -> int:
    """Pushes session after session until the run has finished, then pulls. Returns the exit code.

    A session that fails, or leaves nothing, is repeated from the last output, MAX_FAILURES times in a row.
    """
    failures, before, answered = 0, None, time.monotonic()
    while True:
        try:
            with client.explained_errors():
                sessions = client.list_sessions(api, job)
                is_live = any(session.is_live for session in sessions)
                source, record = (None, RunRecord()) if is_live else client.last_output(api, job, sessions)
        except client.Unavailable as trouble:
            if time.monotonic() - answered > MOST_SILENT:
                raise
            print(str(trouble).removeprefix("error: "), file=sys.stderr, flush=True)
            time.sleep(seconds)
            continue
        answered = time.monotonic()
        if is_live:
            time.sleep(seconds)
            continue
        if source and client.is_finished(record, job.stages):
            return pull_run(api, job)
        if sessions:
            last, now = sessions[-1], client.progress_marks(record)
            problem = session_problem(last, record, source is last, now == before)
            failures, before = (failures + 1 if problem else 0), now
            outcome = f"failed: {problem}" if problem else "ended"
            print(f"session {last.number} {outcome} ({client.stage_line(record)})", flush=True)
            if failures == MAX_FAILURES:
                print(f"error: {failures} sessions in a row failed. See {last.kernel} on Kaggle.", file=sys.stderr)
                return FAILED
        push_session(api, job, sessions)
        time.sleep(min(seconds, 10.0))


def session_problem(session: client.KaggleSession, record: RunRecord, left_output: bool, same_progress: bool) -> str:
    """Returns why a session counts as failed, "" when it got further; `record` is the last run.json there is."""
    if not left_output:
        return session.message or f"{session.status}, without output"
    failed = [f"{name}: {stage.error}" for name, stage in record.stages.items() if stage.status == "failed"]
    return "; ".join(failed) or ("it got no further" if same_progress else "")
