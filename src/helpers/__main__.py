"""The command line, python -m helpers COMMAND: commands.yaml describes it, each command calls the room that does it."""

import signal
import sys

INTERRUPTED_LINE = "interrupted: the same command continues"


def end_at_once(*_: object) -> None:
    """Ends the process on Ctrl-C while it imports the rest; afterwards main() explains it."""
    print(INTERRUPTED_LINE, file=sys.stderr)
    raise SystemExit(130)


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_at_once)

import contextlib
import json
import traceback
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from helpers.options import build_parser
from helpers.platforms.errors import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    PAUSED,
    REFUSED,
    Paused,
    Refused,
    about_preset,
    describe_error,
)
from helpers.platforms.scrub import scrub


def run(options: Namespace) -> int:
    """Runs presets, or prints their parameters."""
    from helpers.planning.checks import note_promise
    from helpers.preflight import check_stages
    from helpers.runner import order_stages, parameters_yaml, prepare_run, run_presets
    from helpers.runs.record import Run
    from helpers.runs.settings import resolve_settings

    stages = options.stages.split(",") if options.stages else []
    several = len(options.preset) > 1
    calls: list[tuple[str, str, str, list[str], bool]] = []
    for preset in options.preset:
        with about_preset(preset, several):
            calls += seeded_calls(preset, options)
    if options.dry_run:
        settings = [resolve_settings(*call) for call in calls]
        for preset, each in zip([call[0] for call in calls], settings):
            with about_preset(preset, several):
                check_stages(order_stages(each, stages), each)
                if note := note_promise(each, Run.named(each["report"]["outputs"], each["report"]["run_name"])):
                    print(f"# {note}")
        print("---\n".join(parameters_yaml(each, stages) for each in settings), end="")
        return FINISHED
    with contextlib.ExitStack() as held:
        runs = []
        for call in calls:
            with about_preset(call[0], several):
                runs.append(prepare_run(*call, stages, options.force, held))
        return run_presets(runs)


def seeded_calls(preset: str, options: Namespace) -> list[tuple[str, str, str, list[str], bool]]:
    """Returns what `resolve_settings` takes for a preset's run, and with `--seeds` for one more run per further seed of
    the training; the run without a seed in its name is the last, so that its page shows them all."""
    from helpers.runs.settings import resolve_settings

    call = (preset, options.run_name, options.outputs, options.sets, options.tiny)
    settings = resolve_settings(*call)
    name, first = settings["report"]["run_name"], settings["train"]["seed"]
    further = [
        (preset, f"{name}-seed-{seed}", options.outputs, [*options.sets, f"train.seed={seed}"], options.tiny)
        for seed in range(first + 1, first + options.seeds)
    ]
    return [*further, call]


def plan(options: Namespace) -> None:  # words: ok - the name of the command
    """Prints the plans of presets, as tables or as JSON."""
    from helpers.planning.memory import T4_GIB
    from helpers.planning.plan import plan_preset, plan_table
    from helpers.planning.precision import check_planned_activations
    from helpers.preflight import check_shares, check_training
    from helpers.runner import order_stages
    from helpers.runs.record import Run
    from helpers.runs.settings import resolve_settings

    stages = options.stages.split(",") if options.stages else []
    if options.base_model and stages:
        raise Refused("--base-model compares whole runs: leave --stages out, or --base-model.")
    if options.base_model:
        return compare_base_models(options)
    objects, tables = [], []
    for preset in options.preset:
        with about_preset(preset, len(options.preset) > 1):
            settings = resolve_settings(preset, options.run_name, options.outputs, options.sets, options.tiny)
            run = Run.named(settings["report"]["outputs"], settings["report"]["run_name"])
            check_shares(settings["prepare_data"])
            check_training(settings["train"])
            check_planned_activations(settings["train"])
            estimate = plan_preset(settings, run, options.memory or T4_GIB, options.session_hours)
            objects.append({"preset": preset, **asdict(estimate)})
            tables.append({"preset": preset, **plan_table(estimate)})
            if "prefer" in order_stages(settings, stages):
                from helpers.preference.plan import estimate_preference, plan_lines

                preferred = estimate_preference(settings, run, options.memory or T4_GIB)
                objects[-1]["prefer"] = preferred
                tables[-1] |= {f"prefer: {what}": text for what, text in plan_lines(preferred).items()}
    if options.json:
        print(json.dumps(objects if len(objects) > 1 else objects[0], indent=1))
    else:
        print("\n".join(f"{label:28}{value}" for table in tables for label, value in table.items()))


def compare_base_models(options: Namespace) -> None:
    """Prints what each of several base models costs in one preset's run, as a table or as JSON."""
    from helpers.planning.candidates import compare_models, describe_comparison
    from helpers.planning.memory import T4_GIB

    preset = only_preset(options.preset, "--base-model compares models for")
    call = (preset, options.run_name, options.outputs, options.sets, options.tiny)
    with contextlib.redirect_stdout(sys.stderr):  # what is downloaded
        candidates = compare_models(call, options.base_model, options.memory or T4_GIB, options.session_hours)
    print(
        json.dumps([asdict(each) for each in candidates], indent=1) if options.json else describe_comparison(candidates)
    )


def calibrate(options: Namespace) -> None:  # words: ok - the name of the command
    """Measures the GPU that is here, for the plans that follow."""
    from helpers.platforms.environment import prepare_packages
    from helpers.preflight import check_training
    from helpers.runs.settings import resolve_settings

    preset = only_preset(options.preset, "calibrate measures the model of")
    settings = resolve_settings(preset, options.run_name, options.outputs, options.sets, options.tiny)
    check_training(settings["train"])
    prepare_packages()
    from helpers.calibrate import calibrate as measure
    from helpers.planning.calibration import FILE
    from helpers.planning.config import configure_training

    outputs = Path(settings["report"]["outputs"])
    measured = measure(configure_training(settings["train"]), outputs)
    print(f"measured in {measured.seconds or 0:.0f} seconds")
    if measured.models:
        print(f"written to {outputs / FILE}: `plan` and 02_train take their hours from it on this GPU")


def tune(options: Namespace) -> None:
    """Works on a search beside the processes that are there."""
    from helpers.platforms.environment import prepare_packages
    from helpers.search.trials import join_search

    prepare_packages()
    join_search(options.run)


def report(options: Namespace) -> None:
    """Writes the page of one run or of several, or fills a README."""
    from helpers.reporting.comparison import write_comparison
    from helpers.reporting.readme import fill_readme
    from helpers.reporting.report import write_report

    runs = options.runs
    if options.to and (options.readme or len(runs) == 1):
        pages = f"a run's own page is {runs[0] / 'report' / 'index.html'}, and --readme writes none"
        raise Refused(f"--to {options.to} is for a page of several runs: {pages}. Name more runs, or leave --to out.")
    if options.readme:
        print(f"{options.readme}: {', '.join(mark for run in runs for mark in fill_readme(run, options.readme))}")
    elif len(runs) > 1:
        print(write_comparison(runs, (options.to or runs[0].outputs / "comparison.html").resolve(), options.language))
    else:
        write_report(runs[0], options.samples, options.language)
        print(runs[0] / "report" / "index.html")


def chat(options: Namespace) -> None:
    """Serves the chat page."""
    from helpers.inference.serve import serve_chat
    from helpers.planning.config import TrainingConfig
    from helpers.platforms.environment import prepare_packages
    from helpers.runs.damage import reading

    if bool(options.run) == bool(options.run_option):
        raise Refused("chat takes the folder of one run, such as: python -m helpers chat outputs/demo")
    run = options.run or options.run_option
    if (run / "train" / "config.json").is_file():
        with reading(run / "train" / "config.json"):
            TrainingConfig.of_run(run)
    prepare_packages()
    serve_chat(run, options.host, options.port, not options.no_care, options.keep_days)


def verify(options: Namespace) -> int:
    """Prints whether a checkpoint is valid."""
    from helpers.runs.checkpoints import verify_checkpoint

    problem = verify_checkpoint(options.checkpoint)
    if problem:
        print(f"error: {options.checkpoint}: {problem}", file=sys.stderr)
        return FAILED
    print(f"{options.checkpoint}: valid")
    return FINISHED


def experiments(options: Namespace) -> None:
    """Writes the logs as CSV files, without what a person gave whose thumbs are to be deleted."""
    from helpers.runs.experiments import export_logs
    from helpers.runs.feedback import FeedbackStore, read_person

    files = export_logs(options.database)
    if options.delete_person:
        deleted = FeedbackStore(options.database).delete_person(read_person(options.delete_person))
        if not deleted:
            raise Refused(f"no thumb of {options.delete_person} is in {options.database}: expected a person's code.")
        print(f"thumbs deleted: {deleted:,}")
    print("\n".join(map(str, files)))


def kaggle(options: Namespace) -> int:
    """Runs a preset on Kaggle."""
    from helpers.kaggle.commands import run_action
    from helpers.kaggle.job import make_job
    from helpers.kaggle.upload import upload_file, upload_suite

    if options.action == "upload":
        return upload_file(options.owner, options.file) if options.file else upload_suite(options.owner)
    preset = only_preset(options.preset, "Kaggle runs")
    stages = options.stages.split(",") if options.stages else []
    job = make_job(preset, options.run_name, options.outputs, options.sets, options.tiny, stages)
    return run_action(options.action, job, options.owner, options.checkpoints, options.every)


def only_preset(presets: list[str], does: str) -> str:
    """Returns the preset of a command that takes one. Raises Refused for none and for several; `does` says what for."""
    if len(presets) != 1:
        asked = f"{len(presets)} are asked for" + f" ({', '.join(presets)})" * bool(presets)
        raise Refused(f"{does} one preset at a time, --preset NAME, but {asked}.")
    return presets[0]


COMMANDS = {
    command.__name__: command for command in (run, plan, calibrate, tune, report, chat, verify, experiments, kaggle)
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code: see helpers.platforms.errors."""
    try:
        parser = build_parser()
        options = parser.parse_args(arguments)
        if options.command is None:
            parser.print_help()
            return FINISHED
        check_presets(options)
        add_hours(options)
        return COMMANDS[options.command](options) or FINISHED  # a command that returns nothing has finished
    except Paused as pause:
        print(pause)
        return PAUSED
    except KeyboardInterrupt:
        print(INTERRUPTED_LINE, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        return explain_error(error, "--verbose" in (sys.argv if arguments is None else arguments))


def add_hours(options: Namespace) -> None:
    """Puts --hours into the run's settings, so that the command that continues it has them. Raises Refused where they
    are given twice, by a second --hours or by a --set."""
    if not (hours := getattr(options, "hours", None)):
        return
    given = [f"--hours {each:g}" for each in hours]
    given += [f"--set {text}" for text in options.sets if "session" in text and "total_hours" in text]
    if len(given) > 1:
        raise Refused(f"{given[0]} and {given[1]} both say how long the run may take: leave one out.")
    options.sets = [*options.sets, f"shared.session.total_hours={hours[0]:g}"]


def check_presets(options: Namespace) -> None:
    """Raises Refused for a preset that is named twice, and for one name for the runs of several."""
    presets = getattr(options, "preset", [])
    if twice := next((preset for preset in presets if presets.count(preset) > 1), None):
        raise Refused(f"--preset {twice} is named twice: a run has one folder. Leave one out.")
    if len(presets) > 1 and options.run_name:
        raise Refused(f"--run-name names one run, but {len(presets)} presets are asked for: leave it out.")


def explain_error(error: Exception, verbose: bool) -> int:
    """Prints an error in a line, and with `verbose` where it was raised; returns the exit code."""
    if verbose:
        print(scrub("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    expected = isinstance(error, Refused | ValueError | OSError | ImportError)
    reason = str(error) if expected and str(error) else f"{describe_error(error)} (--verbose shows where)"
    print(f"error: {scrub(reason)}", file=sys.stderr)
    return REFUSED if expected else FAILED


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    raise SystemExit(main())
