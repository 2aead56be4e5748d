"""The place a run happens in: platform, GPU, number format, run folders, and files written whole or not at all."""

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
import warnings
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STAGES = {  # stage: (notebook, folder)
    "prepare_data": ("01_prepare_data", "data"),
    "tune": ("tune", "tune"),
    "train": ("02_train", "train"),
    "evaluate": ("03_evaluate", "evaluate"),
    "infer": ("04_infer", "infer"),
    "report": ("05_report", "report"),
    "export": ("export", "export"),
}
MAIN = ("prepare_data", "train", "evaluate", "infer", "report")  # what a run does unless asked for more
INPUTS = {  # stage: the files of the run that it reads; their content decides whether a finished stage still holds
    "prepare_data": [],
    "tune": ["data/train.jsonl", "data/val.jsonl"],
    "train": ["data/train.jsonl", "data/val.jsonl"],
    "evaluate": ["data/test.jsonl", "train/config.json", "train/adapter/adapter_model.safetensors"],
    "infer": ["train/config.json", "train/adapter/adapter_model.safetensors"],
    "report": ["data/metrics.json", "train/metrics.json", "evaluate/metrics.json", "infer/metrics.json"],
    "export": ["data/test.jsonl", "train/config.json", "train/adapter/adapter_model.safetensors"],
}
PACKAGES = "torch transformers trl peft accelerate datasets unsloth bitsandbytes evaluate rouge_score sacrebleu".split()
ROOT = Path(__file__).resolve().parents[2]  # the checkout, where there is one
THREADS = {
    "MKL_CBWR": "AUTO,STRICT",  # the same bits in every process of a CPU
    "MKL_DYNAMIC": "FALSE",
    "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits leaves its core to another process
}
KAGGLE = Path(os.environ.get("SAHANUBHUTI_KAGGLE", "/kaggle"))  # where Kaggle's input and working folders are


def platform() -> str:
    """Returns "kaggle", "colab" or "local". Kaggle is asked first: its images set COLAB_* variables too."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ and (KAGGLE / "working").is_dir():
        return "kaggle"
    return "colab" if "COLAB_RELEASE_TAG" in os.environ else "local"


def set_up() -> None:
    """Makes a notebook's Python ready: installs what the platform lacks, silences notes that are no user's concern."""
    install_missing()
    set_threads()
    warnings.filterwarnings("ignore", message="IProgress not found")
    for name in ("torch.utils._pytree", "torchao", "torchao.kernel.intmm", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)


def set_threads() -> None:
    """Sets how a CPU's threads compute and wait; read when torch is imported, so before that."""
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)


def install_missing() -> None:
    """Installs the pinned packages that are missing or differ, on Kaggle and Colab.

    Elsewhere nothing is installed: a missing package raises ModuleNotFoundError with the command, another version
    than the pinned one is said.
    """
    from packaging.requirements import Requirement

    for name, options in (("requirements.txt", []), ("requirements-unsloth.txt", ["--no-deps"])):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines() if (ROOT / name).is_file() else []
        missing, differing = [], []
        for line in filter(None, (line.split("#")[0].strip() for line in lines)):
            wanted = Requirement(line)
            try:
                if not wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True):
                    differing.append(line)
            except importlib.metadata.PackageNotFoundError:
                missing.append(line)
        command = [sys.executable, "-m", "pip", "install", "-q", *options, *missing, *differing]
        if platform() == "local":
            if missing:
                raise ModuleNotFoundError(
                    f"this Python lacks {', '.join(missing)}. Run `make setup` and use .venv, or: {' '.join(command)}"
                )
            if differing:
                print(f"another version is installed than the one tried: {', '.join(differing)} was")
        elif missing or differing:
            print("installing", *missing, *differing)
            subprocess.run(command, check=True)
            importlib.invalidate_caches()


def stream(command: list[str], **environment: str) -> int:
    """Runs a command that finds these helpers, prints what it says as it says it, and returns its exit code.

    Ctrl-C reaches the command too, which ends as it sees fit: it is waited for.
    """
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, bufsize=1
    )
    while process.poll() is None:
        with contextlib.suppress(KeyboardInterrupt):
            for line in process.stdout:
                print(line, end="", flush=True)
            process.wait()
    return process.returncode


def pick_dtype(forced: str = "") -> tuple[str, str]:
    """Returns the training number format and the reason for it.

    bfloat16 is emulated and far slower below compute capability 8.0 (a T4 is 7.5), so float16 is
    used there. A CPU computes in float32. `forced` names a format that the settings ask for.
    """
    import torch

    if not torch.cuda.is_available():
        return "float32", "no GPU: a CPU computes in float32"
    major, minor = torch.cuda.get_device_capability()
    name = f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}"
    if forced == "bfloat16" and major < 8:
        raise ValueError(f"sft.bf16 is set, but {name}: bfloat16 needs 8.0. Remove it, and float16 is used.")
    if forced:
        return forced, f"asked for by the settings ({name})"
    return ("bfloat16", f"{name}, at least 8.0") if major >= 8 else ("float16", f"{name}, below 8.0: no bfloat16")


def gpu_names() -> list[str]:
    """Returns the names of the GPUs here, [] without any."""
    return _ask_gpus("name")


def gpu_gib() -> list[float]:
    """Returns the GiB that torch can use of each GPU here, [] without any. Of a T4's 15.00 it is 14.56."""
    return [float(mib) / 1024 * 14.56 / 15 for mib in _ask_gpus("memory.total")]


def _ask_gpus(what: str) -> list[str]:
    """Asks nvidia-smi, so that torch is not needed and no GPU memory is taken."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()] if answer.returncode == 0 else []


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a run's numbers."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def git_sha() -> str:
    """Returns the checkout's commit, "" outside a checkout."""
    try:
        answer = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def now() -> str:
    """Returns the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def brief(error: Exception) -> str:
    """Returns an error as one line: its type and the first 200 characters of what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


# Files


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: beside it first, then renamed over it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value) -> None:
    """Writes JSON with Bengali as itself. NaN and infinity are no JSON: they are refused with ValueError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path):
    """Reads one JSON file; a broken one raises ValueError with its name."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not whole JSON ({error}). Remove it and run its stage again.") from error


def write_csv(path: Path, rows) -> None:
    """Writes a pandas table; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    inert = rows.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell)
    write_text(path, inert.to_csv(index=False))


def write_jsonl(path: Path, rows) -> None:
    """Writes one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict]:
    """Reads one JSON object a line."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def sha256(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal, "" where there is no such file."""
    if not Path(path).is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_journal(path: Path, mend: bool = True) -> list[dict]:
    """Reads the whole lines of a JSONL file that a process may have been killed in, or (not `mend`) now writes to.

    A half last line is no line; with `mend` it is cut off.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if mend and len(whole) < len(content):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.decode("utf-8").splitlines()]


def append_journal(path: Path, entry: dict) -> None:
    """Adds one line to a JSONL file, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


# Runs


def run_folder(outputs: str, run_name: str) -> Path:
    """Returns outputs/<run_name>; in a notebook opened in notebooks/, the checkout's outputs are meant.

    A name that is no plain folder name raises ValueError.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_name):
        raise ValueError(
            f"run_name is {run_name!r}: expected letters, digits, '.', '_' and '-', starting with a letter or digit."
        )
    return Path(".." if Path.cwd() == ROOT / "notebooks" else "") / outputs / run_name


def check_type(name: str, value, expected: type) -> None:
    """Raises TypeError unless the value has the annotated type. A whole number is also a float; a bool is no number."""
    accepted = (int, float) if expected is float else (expected,)
    if isinstance(value, accepted) and not (isinstance(value, bool) and expected is not bool):
        return
    hint = ""
    if expected is float and isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE):
        mantissa, exponent = value.lower().split("e")
        hint = f" YAML reads {value} as text: write {mantissa}.0e{exponent}."
    raise TypeError(f"{name} is {value!r} ({type(value).__name__}): expected {expected.__name__}.{hint}")


def input_hashes(run: Path, stage: str, parameters: dict) -> dict[str, str]:
    """Returns the SHA-256 of everything a stage reads: files of the run, and a data set that is a file here."""
    found = {name: sha256(run / name) for name in INPUTS[stage]}
    if stage == "prepare_data":
        found["dataset"] = sha256(Path(parameters["dataset"]))
    if stage == "train" and parameters["sft"].get("settings_from"):
        found["tune/best.json"] = sha256(run / "tune" / "best.json")
    if stage == "report":  # what people add after an evaluation
        written = [*(run / "evaluate").glob("ratings/*.csv"), *(run / "evaluate").glob("gloss.csv")]
        found |= {str(file.relative_to(run)): sha256(file) for file in sorted(written)}
    return found


_LOCKS = {}  # run folder: the open file whose lock this process holds


def lock_run(run: Path, patience: float = 15.0) -> None:
    """Takes the run for this process, so that no two write to it; the system frees it when the process ends.

    Raises RuntimeError when another process still has it after `patience` seconds (a killed runner's kernel ends within
    a few).
    """
    if run.resolve() in _LOCKS or fcntl is None:
        return
    run.mkdir(parents=True, exist_ok=True)
    file = open(run / ".lock", "a+")
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise RuntimeError(
                    f"another process works on run {run.name}: wait for it, or restart the other notebook's kernel."
                ) from None
            time.sleep(0.2)
        except OSError:  # a file system without locks, such as a mounted Drive
            break
    _LOCKS[run.resolve()] = file


def unlock_run(run: Path) -> None:
    """Gives the run free for other processes."""
    file = _LOCKS.pop(run.resolve(), None)
    if file:
        file.close()


def settings_of(parameters: dict) -> dict:
    """Returns the parameters that decide a stage's results: not where it is kept, nor how long a session may last."""
    return {name: value for name, value in parameters.items() if name not in ("outputs", "session")}


def start_stage(stage: str, namespace: dict) -> Path:
    """Begins a stage from its notebook: checks the parameters' types and the inputs, and notes the start in run.json.

    `namespace` is the notebook's globals(); its annotated names are the parameters. Returns the run's folder.
    Raises TypeError for a wrong type and FileNotFoundError when an earlier stage has not finished.
    """
    parameters = {name: namespace[name] for name in namespace["__annotations__"]}
    for name, expected in namespace["__annotations__"].items():
        check_type(f"{stage}.{name}", parameters[name], expected)
    run = run_folder(parameters["outputs"], parameters["run_name"])
    for needed in INPUTS[stage] if stage != "report" else []:
        maker = next(name for name, (_, folder) in STAGES.items() if folder == needed.split("/")[0])
        folder = run / STAGES[maker][1]
        if not (folder / "metrics.json").is_file() or not (run / needed).is_file():
            raise FileNotFoundError(f"{run / needed} is not there: finish {STAGES[maker][0]} of run {run.name} first.")
    lock_run(run)
    own = run / STAGES[stage][1]
    own.mkdir(parents=True, exist_ok=True)
    inputs = input_hashes(run, stage, parameters)
    before = read_json(run / "run.json")["stages"].get(stage, {}) if (run / "run.json").is_file() else {}
    if before.get("inputs") != inputs or settings_of(before.get("parameters", {})) != settings_of(parameters):
        shutil.rmtree(own / "work", ignore_errors=True)  # half-done work of other inputs or settings
        if before.get("status") == "finished":  # replaced by this run; a half-done one is refused by its checkpoints
            shutil.rmtree(own / "checkpoints", ignore_errors=True)
    (own / "metrics.json").unlink(missing_ok=True)  # its existence means "finished"
    note_stage(
        run,
        stage,
        status="running",
        parameters=parameters,
        inputs=inputs,
        started=now(),
        ended=None,
        error=None,
        platform=platform(),
        versions=versions(),
        gpu=gpu_names(),
        git_sha=git_sha(),
    )
    if stage != "train":  # which notes its steps itself
        open_session(run, stage, None)
    return run


def note_stage(run: Path, stage: str, **facts) -> None:
    """Writes facts about a stage into run.json, keeping those not named."""
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {"run_name": run.name, "stages": {}}
    record["stages"].setdefault(stage, {}).update(facts)
    write_json(run / "run.json", record)


def finish_stage(run: Path, stage: str, metrics: dict) -> None:
    """Ends a stage: metrics.json last of its files, then "finished" in run.json.

    Metrics whose `status` is "paused" leave no metrics.json: the stage goes on another time.
    """
    if metrics.get("status") == "paused":
        note_stage(run, stage, status="paused", ended=now(), paused=metrics)
        unlock_run(run)
        return
    own = run / STAGES[stage][1]
    write_json(own / "metrics.json", metrics)
    note_stage(run, stage, status="finished", ended=now())
    if stage != "train":
        close_session(run, None, "finished")
    shutil.rmtree(own / "work", ignore_errors=True)
    unlock_run(run)


def secret(name: str) -> str:
    """Returns a token from the environment, else from Kaggle's or Colab's secrets. Raises ValueError without one."""
    if os.environ.get(name):
        return os.environ[name]
    try:
        if platform() == "kaggle":
            from kaggle_secrets import UserSecretsClient

            return UserSecretsClient().get_secret(name)
        if platform() == "colab":
            from google.colab import userdata

            return userdata.get(name)
    except Exception as error:  # each platform has its own
        raise ValueError(f"the secret {name} could not be read ({brief(error)}): add it under Secrets.") from error
    raise ValueError(f"{name} is not set: put the token into the environment.")


# Sessions


SESSION_HOURS = {"kaggle": 12.0, "colab": 12.0}  # a platform's limit; elsewhere there is none
SESSION_START = "SAHANUBHUTI_SESSION_START"  # seconds of the boot clock, set by the runner


def boot_clock() -> float:
    """Returns seconds since the machine started, the same in every process; setting the time does not move it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME if hasattr(time, "CLOCK_BOOTTIME") else time.CLOCK_MONOTONIC)


def process_start(pid: str) -> float:
    """Returns when a process started, by the boot clock; now, where the system does not tell."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return boot_clock()
    return min(ticks / os.sysconf("SC_CLK_TCK"), boot_clock())


def session_start() -> float:
    """Returns when this session began, by the boot clock: as the runner says, else the machine's start on Kaggle and
    Colab (its first process), else this process's."""
    if SESSION_START in os.environ:
        return float(os.environ[SESSION_START])
    return process_start("1" if platform() in SESSION_HOURS else "self")


def session_left(hours: float = 0.0) -> float:
    """Returns the seconds left of the session, of `hours` or (0) of the platform's limit; infinity without one."""
    hours = hours or SESSION_HOURS.get(platform(), math.inf)
    return session_start() + hours * 3600 - boot_clock()


class Paused(Exception):
    """The session ends before the work does: what is done is kept, and the same command goes on with it."""


def resumable(
    batches: list[list[int]],
    compute,
    keep: Path | None = None,
    hours: float = 0.0,
    what: str = "row",
    rank: int = 0,
    world: int = 1,
) -> list:
    """Computes every batch of items and returns the results in the items' order.

    `compute` takes a list of item numbers and returns as many results. With `keep`, a file below a run's stage folder,
    each batch's results are on the disk before the next begins, and a later call goes on from them; before the
    session's end, or when a file `stop` lies in the run's folder, Paused is raised. Of `world` processes each computes
    its share and keeps it in a file of its own; what is not done yet is None in the result.
    """
    number, found, slowest = sum(map(len, batches)), {}, 0.0
    own = keep.with_name(f"{keep.stem}-{rank}.jsonl") if keep else None
    for journal in sorted(keep.parent.glob(f"{keep.stem}-*.jsonl")) if keep else []:
        for entry in read_journal(journal, mend=journal == own):
            found.update(zip(entry["items"], entry["results"]))
    if found:
        print(f"{what}: {len(found)} of {number} were done before")
    for batch in batches[rank::world]:
        if all(item in found for item in batch):
            continue
        if keep:
            reason = "stop was asked for" if (keep.parents[2] / "stop").exists() else ""
            reason = reason or ("the session's time is nearly up" if session_left(hours) < 30 + 2 * slowest else "")
            if reason:
                if world == 1:
                    close_session(keep.parents[2], None, f"{reason} ({what} {len(found)} of {number})")
                raise Paused(f"{what} {len(found)} of {number}: {reason}. Run it again to go on.")
        began = boot_clock()
        results = compute(batch)
        slowest = max(slowest, boot_clock() - began)
        found.update(zip(batch, results, strict=True))
        if keep:
            append_journal(own, {"items": batch, "results": results})
        progress(len(found), number, what)
    return [found.get(item) for item in range(number)]


def run_id(run: Path) -> str:
    """Returns what tells a run from every other, whatever its folder is called; made and kept in run.json at first."""
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {"run_name": run.name, "stages": {}}
    if "id" not in record:
        record["id"] = uuid.uuid4().hex
        write_json(run / "run.json", record)
    return record["id"]


def open_session(run: Path, stage: str, step: int | None) -> None:
    """Notes in run.json that a stage starts or goes on from a step; an earlier one without an end was killed."""
    run_id(run)  # before anything of the run can be copied elsewhere
    record = read_json(run / "run.json")
    known = record.setdefault("sessions", [])
    for session in known:
        if session["ended"] is None:
            session |= {"ended": "unknown", "reason": "killed"}
    known.append({"stage": stage, "started": now(), "from": step, "ended": None, "to": None, "reason": "running"})
    write_json(run / "run.json", record)


def close_session(run: Path, step: int | None, reason: str) -> None:
    """Notes in run.json at which step the session's stage ended, and why; nothing where none is open."""
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    if record.get("sessions") and record["sessions"][-1]["ended"] is None:
        record["sessions"][-1] |= {"ended": now(), "to": step, "reason": reason}
        write_json(run / "run.json", record)


def sessions(run: Path, stage: str) -> list[dict]:
    """Returns the sessions of a stage as run.json has them."""
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    return [session for session in record.get("sessions", []) if session["stage"] == stage]


def progress(done: int, total: int, what: str = "") -> None:
    """Tells the runner, where one listens, how far the stage is; anywhere else does nothing."""
    target = os.environ.get("SAHANUBHUTI_PROGRESS")
    if target:
        beside = Path(f"{target}.tmp")
        beside.write_text(json.dumps({"done": done, "total": total, "what": what}), encoding="utf-8")
        os.replace(beside, target)
