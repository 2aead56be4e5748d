"""Runs the stages of presets through papermill, preset after preset, and skips what has finished before."""

import contextlib
import datetime
import os
import shutil
import sys
import time
from dataclasses import dataclass

import yaml

from helpers.planning.checks import check_machine
from helpers.platforms.environment import prepare_packages
from helpers.platforms.errors import FAILED, FINISHED, PAUSED, Refused, about_preset, describe_error, explain_disk_error
from helpers.platforms.scrub import scrub
from helpers.preflight import check_stages
from helpers.runs.command import build_command
from helpers.runs.differences import changed_inputs, input_hashes, settings_differences
from helpers.runs.files import utc_now, write_text
from helpers.runs.mirror import hold_run, mirror_report, mirrored, remove_mirrored_checkpoints, restore_run
from helpers.runs.progress import ProgressLine
from helpers.runs.record import Run, StageRecord
from helpers.runs.run_json import FORCED
from helpers.runs.session import SESSION_START, pause_on_signal, session_start
from helpers.runs.settings import NOTEBOOKS, Settings, resolve_settings
from helpers.runs.stages import (
    MAIN_STAGES,
    OPTIONAL_INPUTS,
    STAGES,
    TRAINING_STAGES,
    sort_stages,
    stage_inputs,
)
from helpers.runs.versions import changes_since_last_session, data_version_note, record_image


@dataclass(frozen=True)
class PresetRun:
    """One preset's run, its settings checked."""

    preset: str
    settings: Settings
    run: Run
    reasons: dict[str, str]  # stage: why it runs, "" where it is skipped
    command: str  # that makes this run, and continues it; kept in run.json
    force: bool = False  # whether all its stages begin anew


def prepare_run(
    preset: str,
    run_name: str,
    outputs: str,
    sets: list[str],
    tiny: bool,
    stages: list[str],
    force: bool,
    held: contextlib.ExitStack,
) -> PresetRun:
    """Checks the settings of a preset's run, takes the run until `held` is closed, restores what an earlier session
    left of it and selects its stages.

    Raises Refused for bad settings, for a run that another runner works on and for a mirror that cannot be read, and as
    `select_stages` does.
    """
    settings = resolve_settings(preset, run_name, outputs, sets, tiny)
    place = settings["report"]
    run, mirror = Run.named(place["outputs"], place["run_name"]), settings["train"]["session"]["mirror"]
    try:
        hold_run(run, [each["session"]["mirror"] for each in settings.values() if "session" in each], runner=True)
        held.callback(run.unlock)
        for line in restore_run(run, mirror, force):
            print(f"[{run.name}] {line}")
    except (ValueError, OSError) as error:  # a new run would replace what the mirror holds
        raise Refused(str(error)) from error
    ordered = order_stages(settings, stages)
    if force and run.is_forced_with(settings, ordered):
        print(f"[{run.name}] the run with --force that was begun is continued")
        force = False
    reasons = select_stages(settings, ordered, force)
    check_stages([stage for stage, reason in reasons.items() if reason], settings)
    command = build_command(preset, run_name, outputs, sets, tiny, stages)
    return PresetRun(preset, settings, run, reasons, command, force)


def parameters_yaml(settings: Settings, stages: list[str]) -> str:
    """Returns the parameters of each stage as YAML that `papermill -f` takes."""
    documents = []
    for stage in order_stages(settings, stages):
        body = yaml.safe_dump(settings[stage], allow_unicode=True, sort_keys=False, width=1000)
        documents.append(f"# papermill notebooks/{STAGES[stage][0]}.ipynb OUT.ipynb -f THIS.yaml\n{body}")
    return "---\n".join(documents)


def run_presets(runs: list[PresetRun]) -> int:
    """Runs presets one after the other, until one pauses, and returns the exit code: that of the worst of them.

    Raises Refused when this machine lacks what one of them needs, before anything is written or downloaded.
    """
    for preset_run in runs:
        stages = [stage for stage, reason in preset_run.reasons.items() if reason]
        forced = preset_run.reasons.get("train") == "forced"
        with about_preset(preset_run.preset, len(runs) > 1):
            note = check_machine(stages, preset_run.settings, preset_run.run, from_start=forced)
        if note:
            print(f"[{preset_run.run.name}] {note}")
    os.environ.setdefault(SESSION_START, str(session_start()))
    prepare_packages()  # papermill too, on Colab
    codes, summary = [], []
    for preset_run in runs:
        began = time.monotonic()
        try:
            codes.append(run_preset(preset_run))
        except OSError as error:  # of the run's own files: a full disk, one that became read-only
            print(f"error: {explain_disk_error(describe_error(error), str(preset_run.run))}", file=sys.stderr)
            codes.append(FAILED)
        word = {FINISHED: "finished", PAUSED: "paused", FAILED: "failed"}[codes[-1]]
        summary.append(f"{word:9} {elapsed_since(began)}  {preset_run.preset}")
        if codes[-1] == PAUSED:  # the session ends: for all of them
            break
    summary += [f"{'not begun':9} {'-':7}  {preset_run.preset}" for preset_run in runs[len(codes) :]]
    if len(runs) > 1:
        print("\n".join(summary))
    return next((code for code in (FAILED, PAUSED) if code in codes), FINISHED)


# Which stages run


def order_stages(settings: Settings, stages: list[str]) -> list[str]:
    """Returns stages in the order they run: those given, or the main ones. Raises Refused for an unknown one."""
    searched = "tune/best.json" in stage_inputs("train", settings["train"])
    return sort_stages(stages or [*MAIN_STAGES, *["tune"] * searched])


def select_stages(settings: Settings, stages: list[str], force: bool) -> dict[str, str]:
    """Returns {stage: the reason to run it, "" to skip it}.

    Raises Refused when the inputs of a stage are missing, or a stage that has begun had other settings.
    """
    run = Run.named(settings["report"]["outputs"], settings["report"]["run_name"])
    records = run.record().stages
    reasons: dict[str, str] = {}
    for stage in stages:
        inputs = stage_inputs(stage, settings[stage])
        check_inputs(run, stage, inputs, stages)
        reason = "forced" if force else reason_to_run(run, stage, settings[stage], records.get(stage, StageRecord()))
        rerun = {STAGES[earlier][1] for earlier in reasons if reasons[earlier]}
        if not reason and rerun & {name.split("/")[0] for name in [*inputs, *OPTIONAL_INPUTS.get(stage, [])]}:
            reason = "an earlier stage runs again"
        reasons[stage] = reason
    return reasons


def check_inputs(run: Run, stage: str, inputs: list[str], stages: list[str]) -> None:
    """Raises Refused when a file that the stage reads is neither there nor written by one of `stages`."""
    missing = [name for name in inputs if not (run / name).is_file()] if stage != "report" else []
    folders = {name.split("/")[0] for name in missing}
    writers = [name for name, (_, folder) in STAGES.items() if folder in folders and name not in stages]
    if writers:
        raise Refused(f"{stage} of run {run.name} needs {', '.join(missing)}: add {', '.join(writers)} to --stages.")


def reason_to_run(run: Run, stage: str, parameters: dict, before: StageRecord) -> str:
    """Returns why a stage has to run, "" when it has finished with these settings and inputs.

    Raises Refused when it has begun with other settings, and for data that changed while a training is half done.
    """
    if before.status == FORCED:  # and not begun since
        return "forced"
    finished = before.status == "finished" and run.has_metrics(stage)
    damage = run.damage(stage) if finished else ""
    begun = any((run / STAGES[stage][1] / "checkpoints").glob("checkpoint-*"))
    differences = settings_differences(stage, before.parameters, parameters) if before.parameters else []
    if differences and (finished or begun):
        raise Refused(
            f"run {run.name} was made with other settings: {'; '.join(differences)}. Use another --run-name, or "
            f"--force, which replaces what the stages asked for have written."
        )
    if not finished or damage:
        return damage or (f"was {before.status}" if before.status else "new")
    changed = changed_inputs(before.inputs, input_hashes(run.folder, stage, parameters)) if before.inputs else []
    if changed and stage == "prepare_data" and has_unfinished_checkpoints(run):
        raise Refused(
            f"run {run.name} has begun to train on another version of the data set {parameters['dataset']!r}. "
            f"Resume it with the version it began with, use another --run-name, or --force to begin anew."
        )
    return f"its inputs changed: {', '.join(changed)}" if changed else ""


def has_unfinished_checkpoints(run: Run) -> bool:
    """Returns whether the run's training has begun and not finished, so that it would resume on the same data."""
    begun = any((run / "train/checkpoints").glob("checkpoint-*"))
    return begun and run.stage("train").status not in ("finished", FORCED)


# Running them


def run_preset(preset_run: PresetRun) -> int:
    """Runs the stages of a preset until one fails or the run pauses. Returns the exit code."""
    run, settings, reasons = preset_run.run, preset_run.settings, preset_run.reasons
    if any(reasons.values()):
        if changes := changes_since_last_session(run.record()):
            print(f"[{run.name}] {changes}", flush=True)
        record_image(run)
        with run.edit() as record:
            record.run_name, record.preset, record.settings = run.name, preset_run.preset, settings
            record.commands = [*(line for line in record.commands if line != preset_run.command), preset_run.command]
        if preset_run.force:
            run.force_stages([*reasons])
        run.id()  # before a mirror can hold another run
    with pause_on_signal(run):
        code = run_stages(preset_run)
        if code != FINISHED:
            write_unfinished_page(run, settings)
            return code
    if (forced := run.record().forced) and all(run.stage(stage).status == "finished" for stage in forced):
        with run.edit() as record:
            record.forced = []
    if not any(reasons.values()):
        print(f"[{run.name}] nothing to do: every stage is finished with these settings (--force runs them again).")
    if (run / "report" / "index.html").is_file():
        print(f"[{run.name}] report: {run / 'report' / 'index.html'}")
    return FINISHED


def run_stages(preset_run: PresetRun) -> int:
    """Runs the stages that have a reason; starts none once a stop was asked for. Returns the exit code."""
    run, settings, ended = preset_run.run, preset_run.settings, ""
    for stage, reason in preset_run.reasons.items():
        if not reason:
            note = data_version_note(run, settings[stage]["dataset"]) if stage == "prepare_data" else ""
            print(f"[{run.name}] {stage}  finished before, skipped{note}")
            continue
        if (run / "stop").exists():
            where = f"after {ended}" if ended else f"before {stage}"
            print(f"[{run.name}] paused {where}: stop was asked for. Run the same command again to continue.")
            return PAUSED
        print(f"[{run.name}] {stage}  starts ({reason})", flush=True)
        code = run_stage(run, stage, settings, from_start=reason == "forced")
        if code != FINISHED:
            return code
        ended = stage
    return FINISHED


def run_stage(run: Run, stage: str, settings: Settings, from_start: bool) -> int:
    """Runs one stage, says how it ended and returns the exit code; `from_start` removes its unfinished work first."""
    session = settings[stage].get("session", settings["train"]["session"])
    if from_start:
        for name in ("checkpoints", "work"):
            shutil.rmtree(run / STAGES[stage][1] / name, ignore_errors=True)
        if stage in TRAINING_STAGES:
            remove_mirrored_checkpoints(run, stage, session)
    began = time.monotonic()
    # training mirrors itself, so that the copy is complete before its session ends
    with contextlib.nullcontext() if stage in TRAINING_STAGES else mirrored(run, session):
        record = execute_stage(run, stage, settings[stage])
    print(f"[{run.name}] {stage}  {record.status} in {elapsed_since(began)}", flush=True)
    if record.status == "paused":
        at = record.paused or {}
        step = (
            f"step {at.get('step')} of {at.get('steps')}: {at.get('reason')}. Run the same command again to continue."
        )
        print(f"[{run.name}] {stage} paused: {(record.error or '').removeprefix('Paused: ') or step}")
        return PAUSED
    if record.status != "finished":
        page = run / "html" / f"{STAGES[stage][0]}.html"
        print(f"error: {stage}: {record.error}\nSee {page}", file=sys.stderr)
        return FAILED
    return FINISHED


def execute_stage(run: Run, stage: str, parameters: dict) -> StageRecord:
    """Executes a stage's notebook and returns its record; keeps the executed copy and its HTML after an error too."""
    name = STAGES[stage][0]
    executed = run / "notebooks" / f"{name}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this Python, not another one of the user's
    import papermill

    error = ""
    with ProgressLine(run.name, stage):
        try:
            papermill.execute_notebook(
                NOTEBOOKS / f"{name}.ipynb",
                executed,
                parameters=parameters,
                progress_bar=False,
                extra_arguments=["--log-level=ERROR"],
            )
        except KeyboardInterrupt:
            error = "Paused: ended at once by the second signal. Run the same command again to continue."
        except papermill.PapermillExecutionError as failure:
            error = scrub(f"{failure.ename}: {failure.evalue}")
        except Exception as failure:  # a kernel that died or did not start: nbclient's and jupyter's own errors
            error = scrub(f"{type(failure).__name__}: {failure}")
    if error:
        return note_error(run, stage, parameters, explain_disk_error(error, str(run)))
    render_stage(run, name)
    return run.stage(stage)


def render_stage(run: Run, name: str) -> None:
    """Takes secrets out of an executed notebook, where there is one, and renders it."""
    from helpers.reporting.render import render_notebook

    executed = run / "notebooks" / f"{name}.ipynb"
    if executed.is_file():
        write_text(executed, scrub(executed.read_text(encoding="utf-8")))
        render_notebook(executed, run / "html" / f"{name}.html")


def note_error(run: Run, stage: str, parameters: dict, error: str) -> StageRecord:
    """Notes that a stage paused or failed, also on a full disk, renders what it did, and returns its record."""
    status, name = "paused" if error.startswith("Paused:") else "failed", STAGES[stage][0]
    try:
        run.free_reserve()
        run.note_stage(stage, status=status, ended=utc_now(), error=error, parameters=parameters)
        run.close_session(None, error.partition("\n")[0][:200])
        render_stage(run, name)
    except (OSError, ValueError) as failure:  # no room, or a notebook that is half written
        print(f"[{run.name}] {stage}  not all of its end was noted: {describe_error(failure)}", file=sys.stderr)
    return StageRecord(status=status, error=error, paused=run.stage(stage).paused)


def write_unfinished_page(run: Run, settings: Settings) -> None:
    """Writes the report of a run that paused or failed: what is done, what is left, how to continue."""
    from helpers.reporting.report import write_report

    try:
        write_report(run, settings["report"]["samples"], settings["report"]["page_language"])
        mirror_report(run, settings["train"]["session"])
        print(f"[{run.name}] report so far: {run / 'report' / 'index.html'}")
    except Exception as error:  # whatever is half-written there: the stage's own error is what counts
        print(f"[{run.name}] no report so far: {describe_error(error)}", file=sys.stderr)


def elapsed_since(began: float) -> datetime.timedelta:
    """Returns the whole seconds since a reading of the monotonic clock; prints as h:mm:ss."""
    return datetime.timedelta(seconds=int(time.monotonic() - began))
