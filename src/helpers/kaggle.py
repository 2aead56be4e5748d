"""A run on Kaggle, driven from here: session after session, each one private notebook, until the run has finished.

python -m helpers.kaggle push|status|pull|chain --preset NAME [--run-name R] [--set stage.param=value …]

push starts one session, chain as many as it takes. A session's notebook holds the whole suite; session N is
OWNER/sahanubhuti-RUN-N and reads the output of the last one that left any. What was pushed is asked of Kaggle, so that
this can be stopped and started again anywhere. Needs the official `kaggle` package and its credentials.
Exit codes: 0 done, 75 the week's GPU hours are used up, 1 the run failed, 2 bad settings and nothing pushed.
"""

import argparse
import base64
import contextlib
import datetime
import io
import re
import shutil
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from helpers import checkpoints, env, plan, presets

DONE, FAILED, REFUSED, NO_QUOTA = 0, 1, 2, 75
LISTING = "files.json"  # a session's last file: size and SHA-256 of all others of the run
LEAST_HOURS = 0.5  # of GPU quota, for a session to be worth its start
PATIENCE = 8  # tries of one call, the wait between them doubling
FIRST_WAIT, LONGEST_WAIT = 20.0, 600.0  # seconds
LIVE = ("QUEUED", "RUNNING", "CANCEL_REQUESTED", "NEW_SCRIPT")
SUITE = ("src/helpers", "notebooks", "requirements.txt", "requirements-unsloth.txt", "pyproject.toml")


class OutOfQuota(Exception):
    """The week's GPU hours do not allow another session."""


@dataclass
class Job:
    """A run to be driven: its preset and settings, and where its output is put here."""

    preset: str
    run_name: str
    outputs: str
    settings: dict[str, dict]
    arguments: list[str]  # of helpers.run on Kaggle
    owner: str = ""

    @property
    def gpu(self) -> bool:
        """Whether a session needs the T4s: the embedded model does not."""
        return self.settings["train"]["base_model"] != "embedded"

    def kernel(self, number: int) -> str:
        """Returns the name of a session's notebook, OWNER/SLUG."""
        return f"{self.owner}/{self.slug(number)}"

    def slug(self, number: int) -> str:
        """Returns the part after the owner; Kaggle takes 50 characters."""
        return f"sahanubhuti-{re.sub('[^a-z0-9]+', '-', self.run_name.lower()).strip('-')}-{number}"


def make_job(preset: str, run_name: str, outputs: str, sets: list[str], tiny: bool) -> Job:
    """Returns the job after everything that can be checked here was. Raises presets.Refused."""
    run_name = run_name or preset + "-tiny" * tiny
    settings = presets.resolve(preset, run_name, "outputs", sets, tiny)
    arguments = ["--preset", preset, "--run-name", run_name, *["--tiny"] * tiny, *(["--set", *sets] if sets else [])]
    job = Job(preset, run_name, outputs, settings, arguments)
    if len(job.slug(99)) > 50:
        raise presets.Refused(f"--run-name {run_name!r} makes a notebook's name longer than Kaggle's 50 characters.")
    dataset = settings["prepare_data"]["dataset"]
    if dataset != "embedded" and not dataset.startswith(("kaggle:", "hf:")):
        raise presets.Refused(
            f"prepare_data.dataset is {dataset!r}, a file of this machine: make it a Kaggle data set and pass "
            f"'kaggle:owner/name'."
        )
    try:
        plan.configure(settings["train"])
        if job.gpu:
            plan.make(settings, Path(outputs) / run_name)
    except ValueError as error:
        raise presets.Refused(str(error)) from error
    return job


# The notebook of a session


def suite() -> bytes:
    """Returns the suite as a tar.xz, the same for the same files. Raises presets.Refused outside a checkout."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w:xz") as tar:
        for name in SUITE:
            if not (env.ROOT / name).exists():
                raise presets.Refused(f"{env.ROOT / name} is not there: start in a checkout of the suite.")
            files = [path for path in (env.ROOT / name, *(env.ROOT / name).rglob("*")) if path.is_file()]
            for path in sorted(path for path in files if "__pycache__" not in path.parts):
                entry = tarfile.TarInfo(str(path.relative_to(env.ROOT)))
                entry.size = path.stat().st_size
                tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return found.getvalue()


UNPACK = """import base64, io, os, sys, tarfile, tempfile

folder = tempfile.mkdtemp()
with tarfile.open(fileobj=io.BytesIO(base64.b64decode(SUITE))) as tar:
    tar.extractall(folder, filter="data")
sys.path.insert(0, f"{folder}/src")
from helpers import env

env.set_up()
os.environ[env.SESSION_START] = str(env.session_start())"""
RUN = """from helpers import kaggle

kaggle.run_session(ARGUMENTS, RUN_NAME)"""


def notebook(job: Job, number: int, hours: float) -> str:
    """Returns the .ipynb text of session `number`: the suite, and the command; `hours` (0: Kaggle's) may be shorter."""
    import nbformat

    sets = [f"shared.session.hours={hours:.2f}"] if hours else []
    arguments = [*job.arguments, *(["--set", *sets] if sets else [])]
    title = f"# Sahanubhuti: {job.run_name}, session {number}\n\n`python -m helpers.run {' '.join(arguments)}`"
    text = base64.b64encode(suite()).decode()
    lines = "\n".join(f'    "{text[at : at + 110]}"' for at in range(0, len(text), 110))
    cells = [
        nbformat.v4.new_markdown_cell(title, id="title"),
        nbformat.v4.new_code_cell(f"SUITE = (\n{lines}\n)\n{UNPACK}", id="suite"),
        nbformat.v4.new_code_cell(
            RUN.replace("ARGUMENTS", repr(arguments)).replace("RUN_NAME", repr(job.run_name)), id="run"
        ),
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=kernel)) + "\n"


def metadata(job: Job, number: int, source: str) -> dict:
    """Returns kernel-metadata.json for session `number`; `source` is the notebook whose output it goes on from."""
    dataset = job.settings["prepare_data"]["dataset"]
    return {
        "id": job.kernel(number),
        "title": job.slug(number).replace("-", " "),
        "code_file": f"{job.slug(number)}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": job.gpu,
        "enable_tpu": False,
        "enable_internet": True,
        "machine_shape": "NvidiaTeslaT4" if job.gpu else "",
        "dataset_sources": [dataset.split(":", 1)[1]] if dataset.startswith("kaggle:") else [],
        "competition_sources": [],
        "kernel_sources": [source] if source else [],
        "model_sources": [],
    }


def run_session(arguments: list[str], run_name: str) -> None:
    """What a session's notebook calls: runs the suite in the working folder and lists what it left.

    A failed stage ends the session without an error, for Kaggle to keep the output: run.json tells. Raises
    RuntimeError when there is nothing to keep.
    """
    code = env.stream([sys.executable, "-m", "helpers.run", *arguments])
    run = env.run_folder("outputs", run_name)
    if code == REFUSED or not (run / "run.json").is_file():
        raise RuntimeError(f"nothing was run (exit code {code}): the reason stands above.")
    found = checkpoints.listing(run)
    found.pop(LISTING, None)  # of an earlier session
    env.write_json(run / LISTING, found)


# Kaggle's answers


def connect():
    """Returns the official package's client, signed in. Raises presets.Refused without package or credentials."""
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi
    except ImportError as error:
        raise presets.Refused("the package `kaggle` is not installed: pip install kaggle") from error
    api = KaggleApi()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            api.authenticate()
    except SystemExit as error:
        raise presets.Refused(
            "no Kaggle credentials: make an API token in your Kaggle settings, and put it into ~/.kaggle/access_token "
            "or the environment's KAGGLE_API_TOKEN."
        ) from error
    return api


def patiently(call, what: str, accepted=None):
    """Returns what a call to Kaggle returns, after waiting where it is throttled or does not answer properly.

    `accepted` is asked before a repetition whether the last try arrived all the same. Raises the last error.
    """
    import requests

    for attempt in range(PATIENCE):
        try:
            return call()
        except (requests.exceptions.RequestException, ValueError) as error:
            answer = getattr(error, "response", None)
            code = answer.status_code if answer is not None else 0
            lost = isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout)
            garbled = "JSON" in f"{type(error).__name__} {error}"  # an error page where an answer should be
            if attempt == PATIENCE - 1 or not (lost or garbled or code == 429 or code >= 500):
                raise
            pause = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
            print(f"{what}: {env.brief(error)}; again in {pause:.0f} s", flush=True)
            time.sleep(pause)
            if accepted and accepted():
                return None


def state(api, kernel: str) -> tuple[str, str]:
    """Returns a notebook's status in Kaggle's words and its failure message; ("", "") where there is none."""
    import requests

    try:
        found = patiently(lambda: api.kernels_status(kernel), f"status of {kernel}")
    except requests.exceptions.HTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403, 404):
            return "", ""
        raise
    except ValueError as error:  # the package's own words for 401 and 403
        if "Cannot access kernel" in str(error):
            return "", ""
        raise
    return found.status.name, found.failure_message or ""


def sessions(api, job: Job) -> list[dict]:
    """Returns the job's sessions in order: number, kernel, status, message."""
    found = []
    while True:
        kernel = job.kernel(len(found) + 1)
        status, message = state(api, kernel)
        if not status:
            return found
        found.append({"number": len(found) + 1, "kernel": kernel, "status": status, "message": message})


def quota_hours(api) -> tuple[float, str]:
    """Returns the GPU hours left this week, infinity where Kaggle does not tell, and when they come back."""
    found = patiently(api.quota_view, "quota")
    if found.gpu_quota is None or found.gpu_quota.total_time_allowed is None:
        return float("inf"), ""
    gpu = found.gpu_quota
    spent = sum((part for part in (gpu.time_used, gpu.time_reserved) if part), datetime.timedelta())
    again = found.quota_refresh_time.isoformat(" ", "minutes") if found.quota_refresh_time else "not told"
    return (gpu.total_time_allowed - spent).total_seconds() / 3600, again


def fetch(api, kernel: str, pattern: str, folder: Path) -> list[Path]:
    """Downloads a session's output files that match; those that Kaggle did not send are left out."""
    answer = patiently(
        lambda: api.kernels_output(kernel, str(folder), file_pattern=pattern, force=True), f"output of {kernel}"
    )
    return [path for path in map(Path, answer[0]) if path.is_file()]


def record_of(api, job: Job, session: dict) -> dict | None:
    """Returns the run.json that a session left, None where there is none."""
    pattern = rf"^outputs/{re.escape(job.run_name)}/run\.json$"

    def read():
        with tempfile.TemporaryDirectory() as scratch:
            found = fetch(api, session["kernel"], pattern, Path(scratch))
            return next((env.read_json(path) for path in found if path.name == "run.json"), None)

    return patiently(read, f"run.json of {session['kernel']}")


def last_output(api, job: Job, found: list[dict]) -> tuple[dict | None, dict]:
    """Returns the newest ended session that left a run.json, and that; (None, {}) without one."""
    for session in reversed(found):
        if session["status"] not in LIVE:
            record = record_of(api, job, session)
            if record:
                return session, record
    return None, {}


def stages_of(record: dict, only: str = "") -> dict[str, str]:
    """Returns the status of every stage in a run.json, "" for one that has not begun; of those `only` with one."""
    stages = {stage: record.get("stages", {}).get(stage, {}).get("status", "") for stage in env.MAIN}
    return {stage: status for stage, status in stages.items() if status == only or not only}


def told(record: dict) -> str:
    """Returns the stages of a run.json in words."""
    return ", ".join(f"{stage} {status or 'not begun'}" for stage, status in stages_of(record).items())


def finished(record: dict) -> bool:
    """Returns whether all stages of a run.json have finished."""
    return stages_of(record) == dict.fromkeys(env.MAIN, "finished")


def progress_of(record: dict) -> list:
    """Returns what differs between two sessions' run.json when the later one got further."""
    step = max((session["to"] or session["from"] or 0 for session in record.get("sessions", [])), default=0)
    return [stages_of(record), step, [facts.get("error") for facts in record.get("stages", {}).values()]]


# The commands


def push(api, job: Job, found: list[dict] | None = None) -> dict:
    """Starts the next session and returns it. Raises presets.Refused for settings that are not the run's, for a
    session that is still at work, and for inputs that Kaggle does not know; OutOfQuota without hours."""
    found = sessions(api, job) if found is None else found
    for session in found:
        if session["status"] in LIVE:
            raise presets.Refused(f"{session['kernel']} is {session['status']}: a run has one session at a time.")
    source, record = last_output(api, job, found)
    for stage, before in record.get("settings", {}).items():
        now = env.settings_of(job.settings[stage])
        differing = [f"{stage}.{n} was {before.get(n)!r}, now {v!r}" for n, v in now.items() if before.get(n) != v]
        if differing:
            raise presets.Refused(f"run {job.run_name} began with other settings: {'; '.join(differing)}.")
    hours = 0.0
    if job.gpu:
        left, again = quota_hours(api)
        print(f"GPU hours left this week: {left:.1f}", flush=True)
        if left < LEAST_HOURS:
            raise OutOfQuota(f"{left:.1f} GPU hours are left this week, until {again}. Run this again then.")
        asked = job.settings["train"]["session"]["hours"] or env.SESSION_HOURS["kaggle"]
        hours = left if left < asked else 0.0
    number = len(found) + 1
    kernel, goes_on_from = job.kernel(number), source["kernel"] if source else ""
    with tempfile.TemporaryDirectory() as scratch:
        env.write_text(Path(scratch) / f"{job.slug(number)}.ipynb", notebook(job, number, hours))
        env.write_json(Path(scratch) / "kernel-metadata.json", metadata(job, number, goes_on_from))
        answer = patiently(
            lambda: api.kernels_push(scratch), f"push of {kernel}", accepted=lambda: bool(state(api, kernel)[0])
        )
    if answer is not None:
        wrong = [answer.error] if answer.error else []
        for kind in ("dataset", "kernel", "model"):
            wrong += [f"no {kind} {name}" for name in getattr(answer, f"invalid_{kind}_sources")]
        if wrong:
            raise presets.Refused(f"Kaggle did not take {kernel}: {'; '.join(wrong)}.")
    print(f"session {number}: {kernel} pushed" + f", goes on from {goes_on_from}" * bool(source), flush=True)
    return {"number": number, "kernel": kernel, "status": "QUEUED", "message": ""}


def status(api, job: Job) -> int:
    """Prints the sessions, and the stages as the last output tells them."""
    found = sessions(api, job)
    for session in found:
        print(f"session {session['number']}  {session['kernel']}  {session['status']}  {session['message']}".rstrip())
    source, record = last_output(api, job, found)
    if source:
        print(f"after session {source['number']}: {told(record)}")
    if not found:
        print(f"run {job.run_name} has no session yet")
    return DONE


def pull(api, job: Job, with_checkpoints: bool = False) -> int:
    """Brings the last output here, each file compared with what the session listed; an earlier pull is replaced."""
    source, record = last_output(api, job, sessions(api, job))
    if source is None:
        print(f"error: run {job.run_name} has left no output yet", file=sys.stderr)
        return FAILED
    run = env.run_folder(job.outputs, job.run_name)
    if run.exists() and not (run / LISTING).is_file():
        raise presets.Refused(f"{run} was made here, not pulled: use another --outputs.")
    beside = run.with_name(f".{run.name}.pulled")
    shutil.rmtree(beside, ignore_errors=True)
    skip = "" if with_checkpoints else "(?!train/checkpoints/)"
    fetch(api, source["kernel"], rf"^outputs/{re.escape(job.run_name)}/{skip}", beside)
    here = beside / "outputs" / job.run_name
    if (here / LISTING).is_file():
        expected = env.read_json(here / LISTING)
        wanted = {n: f for n, f in expected.items() if with_checkpoints or not n.startswith("train/checkpoints/")}
        wrong = checkpoints.compare(here, wanted)
        if wrong:
            print(f"error: {source['kernel']}: {wrong}. Nothing here was changed; pull again.", file=sys.stderr)
            shutil.rmtree(beside)
            return FAILED
    else:
        env.write_json(here / LISTING, {})
        print(f"{source['kernel']} did not end by itself: its files cannot be compared with a list")
    old = run.with_name(f".{run.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if run.exists():
        run.rename(old)
    run.parent.mkdir(parents=True, exist_ok=True)
    here.rename(run)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(beside)
    print(f"{run}: output of session {source['number']} ({told(record)})")
    return DONE


def chain(api, job: Job, every: float = 120.0, retries: int = 2) -> int:
    """Pushes session after session until the run has finished, then pulls. Returns the exit code.

    A session that fails, or leaves nothing, is repeated from the last output, `retries` times in a row.
    """
    failures, before = 0, None
    while True:
        found = sessions(api, job)
        if any(session["status"] in LIVE for session in found):
            time.sleep(every)
            continue
        source, record = last_output(api, job, found)
        if source and finished(record):
            return pull(api, job)
        if found:
            last, now = found[-1], progress_of(record)
            problem = "; ".join(f"{stage}: {record['stages'][stage]['error']}" for stage in stages_of(record, "failed"))
            if source is not last:
                problem = last["message"] or f"{last['status']}, without output"
            elif now == before:
                problem = problem or "it got no further"
            how = f"failed: {problem}" if problem else "ended"
            print(f"session {last['number']} {how} ({told(record)})", flush=True)
            failures, before = (failures + 1 if problem else 0), now
            if failures > retries:
                print(f"error: {failures} sessions in a row failed. See {last['kernel']} on Kaggle.", file=sys.stderr)
                return FAILED
        push(api, job, found)
        time.sleep(min(every, 10.0))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.kaggle", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["push", "status", "pull", "chain"])
    parser.add_argument("--preset", required=True)
    parser.add_argument("--run-name", default="", help="default: the preset's name")
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="where a pulled run is put")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="STAGE.PARAM=VALUE", dest="sets")
    parser.add_argument("--tiny", action="store_true", help="embedded model, a slice of data, a few steps")
    parser.add_argument("--owner", default="", help="Kaggle account; default: that of the credentials")
    parser.add_argument("--checkpoints", action="store_true", help="pull: the checkpoints too")
    parser.add_argument("--every", type=float, default=120.0, help="chain: seconds between two looks")
    options = parser.parse_args(arguments)
    try:
        job = make_job(options.preset, options.run_name, options.outputs, options.sets, options.tiny)
        api = connect()
        job.owner = options.owner or api.config_values["username"]
        if options.command == "status":
            return status(api, job)
        env.lock_run(Path(options.outputs) / f".kaggle-{job.run_name}", patience=0)
        if options.command == "pull":
            return pull(api, job, options.checkpoints)
        if options.command == "chain":
            return chain(api, job, options.every)
        push(api, job)
        return DONE
    except OutOfQuota as error:
        print(error)
        return NO_QUOTA
    except (presets.Refused, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED


if __name__ == "__main__":
    raise SystemExit(main())
