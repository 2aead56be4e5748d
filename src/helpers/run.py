"""Runs the stages of one or more presets through papermill; finished stages with the same settings are skipped.

Settings are checked by name and type against the notebooks' parameters cells before anything starts.
Exit codes: 0 finished, 75 paused by the session budget, 1 a stage failed, 2 bad settings and nothing started.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

from helpers import checkpoints, env, figures, presets, report, tables

FINISHED, FAILED, REFUSED, PAUSED = 0, 1, 2, 75


def plan(settings: dict[str, dict], stages: list[str], force: bool) -> dict[str, str]:
    """Returns {stage: reason to run it, "" to skip it}; Refused when a finished stage has other settings."""
    run = env.run_folder(settings["report"]["outputs"], settings["report"]["run_name"])
    record = env.read_json(run / "run.json")["stages"] if (run / "run.json").is_file() else {}
    reasons, changed = {}, set()
    for stage in stages:
        folder = env.STAGES[stage][1]
        before = record.get(stage, {})
        needed = [*env.INPUTS[stage], *reads(settings, stage)]
        unmade = [name for name in needed if not (run / name).is_file()] if stage != "report" else []
        made_in = {name.split("/")[0] for name in unmade}
        makers = [maker for maker, (_, made) in env.STAGES.items() if made in made_in and maker not in stages]
        if makers:
            raise presets.Refused(
                f"{stage} of run {run.name} needs {', '.join(unmade)}: add {', '.join(makers)} to --stages."
            )
        finished = before.get("status") == "finished" and (run / folder / "metrics.json").is_file()
        begun = any((run / folder / "checkpoints").glob("checkpoint-*"))
        differing = [
            f"{stage}.{name} was {before['parameters'].get(name)!r}, now {value!r}"
            for name, value in settings[stage].items()
            if before.get("parameters") and env.settings_of({name: value}) and before["parameters"].get(name) != value
        ]
        if force:
            reasons[stage] = "forced"
        elif differing and (finished or begun):
            raise presets.Refused(
                f"run {run.name} was made with other settings: {'; '.join(differing)}. Use another --run-name, or "
                f"--force to replace it."
            )
        elif not finished:
            reasons[stage] = f"was {before['status']}" if before else "new"
        else:
            reasons[stage] = ""
            if before["inputs"] != env.input_hashes(run, stage, settings[stage]):
                reasons[stage] = "its inputs changed"
            elif any(name.split("/")[0] in changed for name in needed):
                reasons[stage] = "an earlier stage runs again"
        if reasons[stage]:
            changed.add(folder)
    return reasons


def reads(settings: dict[str, dict], stage: str) -> list[str]:
    """Returns what a stage reads besides its INPUTS, as its settings ask for it."""
    return ["tune/best.json"] if stage == "train" and settings["train"]["sft"].get("settings_from") == "tune" else []


# Execution


class Progress(threading.Thread):
    """Prints what the running stage tells about itself: in place on a terminal, else a line every ten seconds."""

    def __init__(self, run_name: str, stage: str, file: Path):
        super().__init__(daemon=True)
        self.label, self.file, self.over = f"[{run_name}] {stage}", file, threading.Event()
        self.began = time.monotonic()

    def run(self):
        every, shown = (0.5, "") if sys.stderr.isatty() else (10.0, "")
        while not self.over.wait(every):
            line = self.line()
            if sys.stderr.isatty():
                print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
            elif line != shown:
                print(line, file=sys.stderr, flush=True)
            shown = line

    def line(self) -> str:
        """Returns one line: stage, step of steps, time so far and, once two steps are known, time left."""
        elapsed = time.monotonic() - self.began
        try:
            told = json.loads(self.file.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return f"{self.label}  {clock(elapsed)}"
        if getattr(self, "what", None) != told["what"]:  # a new piece of work: its rate starts here
            self.what, self.first, self.since = told["what"], told["done"], time.monotonic()
        left = ""
        if told["done"] > self.first:
            left_s = (time.monotonic() - self.since) / (told["done"] - self.first) * (told["total"] - told["done"])
            left = f", about {clock(left_s)} left"
        return f"{self.label}  {told['what']} {told['done']}/{told['total']}  {clock(elapsed)}{left}"

    def stop(self):
        self.over.set()
        self.join()
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Returns seconds as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def render(executed: Path, page: Path) -> None:
    """Writes an executed notebook as one HTML page that loads nothing from elsewhere and runs nothing.

    Code is folded, the set-up hidden, a progress bar its last line, control characters shown; the pages of the run
    link one another.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor

    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(tables.PAGES)],
        require_js_url="",
        jquery_url="",
        language_code="en",
        embed_images=True,
    )
    exporter.register_preprocessor(TagRemovePreprocessor(remove_cell_tags={"setup"}), enabled=True)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    notebook = nbformat.read(executed, as_version=4)
    given = {"metadata": {"name": executed.stem}, "bengali": figures.as_base64(figures.FONT.read_bytes())}
    html, _ = exporter.from_notebook_node(notebook, given)
    env.write_text(page, tables.visible(html))
    link(page.parent)


def link(folder: Path) -> None:
    """Puts into every rendered notebook of a folder links to the report page and to the others."""
    names = [name for name, _ in env.STAGES.values() if (folder / f"{name}.html").is_file()]
    for name in names:
        links = ["<a href='../report/index.html'>report</a>"]
        links += [f"<a href='{other}.html'>{other}</a>" if other != name else f"<b>{name}</b>" for other in names]
        items = "".join(f"<li>{one}</li>" for one in links)
        before, _, rest = (folder / f"{name}.html").read_text(encoding="utf-8").partition("<!-- pages -->")
        after = rest.partition("<!-- /pages -->")[2]
        nav = f"<nav class='pages' aria-label='The pages of this run'><ul>{items}</ul></nav>"
        env.write_text(folder / f"{name}.html", f"{before}<!-- pages -->{nav}<!-- /pages -->{after}")


def run_stage(stage: str, parameters: dict) -> str:
    """Executes one stage's notebook and returns its status; the executed copy and its HTML are kept in any case."""
    run = env.run_folder(parameters["outputs"], parameters["run_name"])
    name = env.STAGES[stage][0]
    executed, page = run / "notebooks" / f"{name}.ipynb", run / "html" / f"{name}.html"
    executed.parent.mkdir(parents=True, exist_ok=True)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this Python, not a user's other one
    import papermill

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SAHANUBHUTI_PROGRESS"] = str(Path(scratch) / "progress.json")
        progress = Progress(run.name, stage, Path(os.environ["SAHANUBHUTI_PROGRESS"]))
        progress.start()
        error, paused = None, False
        try:
            papermill.execute_notebook(
                presets.NOTEBOOKS / f"{name}.ipynb",
                executed,
                parameters=parameters,
                progress_bar=False,
                cwd=os.getcwd(),
                extra_arguments=["--log-level=ERROR"],
            )
        except KeyboardInterrupt:
            error = "interrupted"
        except papermill.PapermillExecutionError as failure:
            error, paused = f"{failure.ename}: {failure.evalue}", failure.ename == "Paused"
        except Exception as failure:  # a kernel that died or did not start: nbclient's and jupyter's own errors
            error = f"{type(failure).__name__}: {failure}"
        finally:
            progress.stop()
            del os.environ["SAHANUBHUTI_PROGRESS"]
    if error is not None:
        status = "paused" if paused else "failed"
        env.note_stage(run, stage, status=status, ended=env.now(), error=error, parameters=parameters)
        env.close_session(run, None, error.partition("\n")[0][:200])
    if executed.is_file():
        render(executed, page)
    return env.read_json(run / "run.json")["stages"][stage]["status"]


@contextlib.contextmanager
def stopping(run: Path):
    """While it lasts, the first SIGTERM or Ctrl-C asks the running stage to pause, a second one ends it at once."""
    (run / "stop").unlink(missing_ok=True)

    def ask(number, frame):
        if (run / "stop").exists():
            raise KeyboardInterrupt
        (run / "stop").touch()
        print("pausing after this step; the same again ends it at once", file=sys.stderr, flush=True)

    before = {name: signal.signal(name, ask) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        (run / "stop").unlink(missing_ok=True)


def stand_page(run: Path, settings: dict) -> None:
    """Writes the report page of a run that paused or failed: what is done, what is left, how to go on."""
    try:
        report.write(run, settings["report"]["samples"])
        print(f"[{run.name}] how it stands: {run / 'report' / 'index.html'}")
    except Exception as error:  # whatever is half-written there: the stage's own error is what counts
        print(f"[{run.name}] no page of how it stands: {env.brief(error)}", file=sys.stderr)


def run_preset(preset: str, settings: dict[str, dict], reasons: dict[str, str], command: str) -> int:
    """Runs the stages that have a reason, in order, until one fails or pauses. Returns the exit code.

    `command` is what run.json says made it.
    """
    run = env.run_folder(settings["report"]["outputs"], settings["report"]["run_name"])
    if any(reasons.values()):
        record = env.read_json(run / "run.json") if (run / "run.json").is_file() else {"stages": {}}
        commands = [one for one in record.get("commands", []) if one != command] + [command]
        about = {"run_name": run.name, "preset": preset, "settings": settings, "commands": commands}
        env.write_json(run / "run.json", {**record, **about})
    for stage, reason in reasons.items():
        if not reason:
            print(f"[{run.name}] {stage}  finished before, skipped")
            continue
        print(f"[{run.name}] {stage}  starts ({reason})", flush=True)
        if reason == "forced":  # from the beginning
            for name in ("checkpoints", "work"):
                shutil.rmtree(run / env.STAGES[stage][1] / name, ignore_errors=True)
            if stage == "train":
                checkpoints.forget(run, settings["train"]["session"])
        began = time.monotonic()
        session = settings[stage].get("session", settings["train"]["session"])
        with stopping(run), contextlib.nullcontext() if stage == "train" else checkpoints.mirrored(run, session):
            status = run_stage(stage, settings[stage])
        print(f"[{run.name}] {stage}  {status} in {clock(time.monotonic() - began)}", flush=True)
        if status == "paused":
            note = env.read_json(run / "run.json")["stages"][stage]
            at = note.get("paused") or {}
            why = note.get("error") or f"step {at.get('step')} of {at.get('steps')}: {at.get('reason')}"
            print(f"[{run.name}] {stage} paused ({why}). Run the same command again to go on.")
            stand_page(run, settings)
            return PAUSED
        if status != "finished":
            error = env.read_json(run / "run.json")["stages"][stage]["error"]
            print(f"error: {stage}: {error}\nSee {run / 'html' / (env.STAGES[stage][0] + '.html')}", file=sys.stderr)
            stand_page(run, settings)
            return FAILED
    if not any(reasons.values()):
        print(f"[{run.name}] nothing to do: every stage is finished with these settings (--force runs them again).")
    if (run / "report" / "index.html").is_file():
        print(f"[{run.name}] report: {run / 'report' / 'index.html'}")
    return FINISHED


def bring(run: Path, session: dict, force: bool) -> None:
    """Brings a run here that an earlier session left elsewhere, unless it is to begin anew.

    Raises presets.Refused when its mirror cannot be read: to begin anew would replace what that holds.
    """
    try:
        if force and session["mirror"]:
            checkpoints.place_of(session["mirror"], run.name)
        for line in [] if force else checkpoints.restore(run, session["mirror"]):
            print(f"[{run.name}] {line}")
    except (ValueError, OSError) as error:
        raise presets.Refused(str(error)) from error


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.run", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", nargs="+", required=True, metavar="NAME", help="one or more of notebooks/presets")
    parser.add_argument("--run-name", help="folder under outputs; default: the preset's name")
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="folder of all runs (default: outputs)")
    parser.add_argument("--stages", help="comma-separated (default: all but export, and tune where train asks for it)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="STAGE.PARAM=VALUE", dest="sets")
    parser.add_argument("--tiny", action="store_true", help="embedded model, a slice of data, a few steps: on a CPU")
    parser.add_argument("--force", action="store_true", help="run finished stages again")
    parser.add_argument("--dry-run", action="store_true", help="print each stage's parameters as YAML and stop")
    options = parser.parse_args(arguments)
    os.environ.setdefault(env.SESSION_START, str(env.session_start()))
    try:
        asked = options.stages.split(",") if options.stages else []
        for stage in asked:
            if stage not in env.STAGES:
                raise presets.Refused(f"--stages: no stage {stage!r}.{presets.nearest(stage, env.STAGES)}")
        if options.run_name and len(options.preset) > 1:
            raise presets.Refused(
                f"--run-name names one run, but {len(options.preset)} presets are asked for: leave it out."
            )
        jobs = []
        for preset in options.preset:
            run_name = options.run_name or preset + "-tiny" * options.tiny
            settings = presets.resolve(preset, run_name, options.outputs, options.sets, options.tiny)
            if not options.dry_run:
                bring(env.run_folder(options.outputs, run_name), settings["train"]["session"], options.force)
            searched = ["tune"] if reads(settings, "train") else []
            stages = [stage for stage in env.STAGES if stage in (asked or [*env.MAIN, *searched])]
            reasons = dict.fromkeys(stages) if options.dry_run else plan(settings, stages, options.force)
            jobs.append((preset, settings, reasons))
        if options.dry_run:
            print("---\n".join(as_yaml(stage, job[1][stage]) for job in jobs for stage in job[2]), end="")
            return FINISHED
    except presets.Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    if env.platform() != "local":
        env.install_missing()  # papermill, on Colab
    results = []
    for preset, settings, reasons in jobs:
        began = time.monotonic()
        code = run_preset(preset, settings, reasons, command_of(preset, options))
        results.append((preset, settings, code, time.monotonic() - began))
    if len(results) > 1:
        words = {FINISHED: "finished", PAUSED: "paused", FAILED: "failed"}
        print("\n".join(f"{words[code]:9} {clock(took):>8}  {preset}" for preset, _, code, took in results))
    codes = [code for _, _, code, _ in results]
    return next((code for code in (FAILED, PAUSED) if code in codes), FINISHED)


def command_of(preset: str, options: argparse.Namespace) -> str:
    """Returns the command that makes one preset's run again, whatever else was asked for beside it."""
    words = ["python", "-m", "helpers.run", "--preset", preset]
    words += ["--run-name", options.run_name] if options.run_name else []
    words += ["--stages", options.stages] if options.stages else []
    words += ["--tiny"] if options.tiny else []
    words += ["--set", *options.sets] if options.sets else []
    return shlex.join(words)


def as_yaml(stage: str, parameters: dict) -> str:
    """Returns a stage's parameters as YAML that `papermill -f` takes; floats keep their point."""
    body = yaml.safe_dump(parameters, allow_unicode=True, sort_keys=False, width=1000)
    return f"# papermill notebooks/{env.STAGES[stage][0]}.ipynb OUT.ipynb -f THIS.yaml\n{body}"


if __name__ == "__main__":
    raise SystemExit(main())
