"""Runs the stages of one or more presets through papermill; finished stages with the same settings are skipped.

Settings are checked by name and type against the notebooks' parameters cells before anything starts.
Exit codes: 0 finished, 75 paused by the session budget, 1 a stage failed, 2 bad settings and nothing started.
"""

import argparse
import ast
import contextlib
import difflib
import importlib.util
import json
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

from helpers import env

NOTEBOOKS = env.ROOT / "notebooks"
TINY = NOTEBOOKS / "tiny.yaml"
FINISHED, FAILED, REFUSED, PAUSED = 0, 1, 2, 75
LIBRARY_CLASSES = {  # a dict setting: the dataclasses whose fields it may name, found without importing them
    "lora": [("peft", "config.py", "PeftConfig"), ("peft", "tuners/lora/config.py", "LoraConfig")],
    "sft": [
        ("transformers", "training_args.py", "TrainingArguments"),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("trl", "trainer/sft_config.py", "SFTConfig"),
    ],
}


class Refused(Exception):
    """Bad settings: the message is for the user, the exit code is 2, and nothing was started."""


# Settings


def parameters_cell(stage: str) -> dict[str, tuple[object, type]]:
    """Returns the stage's parameters, {name: (default, type)}, from its notebook's cell tagged "parameters"."""
    notebook = env.read_json(NOTEBOOKS / f"{env.STAGES[stage][0]}.ipynb")
    source = next("".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    types = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}
    return {
        line.target.id: (ast.literal_eval(line.value), types[line.annotation.id])
        for line in ast.parse(source).body
        if isinstance(line, ast.AnnAssign)
    }


def library_fields(setting: str) -> dict[str, str]:
    """Returns {field: annotation} of the library's dataclass behind a dict setting; {} where it is not installed."""
    fields = {}
    for package, file, name in LIBRARY_CLASSES.get(setting, []):
        found = importlib.util.find_spec(package)
        if found is None:
            return {}
        tree = ast.parse((Path(found.origin).parent / file).read_text(encoding="utf-8"))
        body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
        for line in body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                fields[line.target.id] = ast.unparse(line.annotation)
    return fields


def nearest(name: str, known) -> str:
    """Returns " Did you mean 'x'?" for the closest known name, else the list of all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(sorted(known))}."


def check_library_setting(where: str, setting: str, values: dict) -> None:
    """Raises Refused for a name that the library's dataclass lacks, or a value of a type it does not take."""
    fields = library_fields(setting)
    for name, value in values.items() if fields else []:
        if name not in fields:
            raise Refused(f"{where}.{name} is no setting of {LIBRARY_CLASSES[setting][-1][2]}.{nearest(name, fields)}")
        annotation = fields[name]
        words = set(re.findall(r"\w+", annotation))
        simple = words & {"int", "float", "str", "bool", "list", "dict"}
        accepted = simple | ({"int"} if "float" in simple else set()) | {"NoneType"}
        if words <= simple | {"None", "Optional", "Union"} and type(value).__name__ not in accepted:
            raise Refused(f"{where}.{name} is {value!r} ({type(value).__name__}): expected {annotation}.")


def layer(settings: dict, added: dict, where: str, from_text: bool = False) -> None:
    """Lays one source of settings ({"shared" or stage: {name: value}}) over {stage: {name: value}}, checked.

    `from_text` also takes "2e-4" for a float, as people type it on a command line.
    """
    cells = {stage: parameters_cell(stage) for stage in env.STAGES}
    for section, values in added.items():
        if section not in {"shared", *env.STAGES}:
            raise Refused(f"{where}: no notebook {section!r}.{nearest(section, ['shared', *env.STAGES])}")
        if not isinstance(values, dict):
            raise Refused(f"{where}: {section} is {values!r}: expected settings below it, as name: value.")
        stages = [section] if section in env.STAGES else list(env.STAGES)
        for name, value in values.items():
            holders = [stage for stage in stages if name in cells[stage]]
            if not holders:
                known = {known for stage in stages for known in cells[stage]}
                raise Refused(f"{where}: {section}.{name} is no setting.{nearest(str(name), known)}")
            for stage in holders:
                expected = cells[stage][name][1]
                if from_text and expected is float and isinstance(value, str):
                    with contextlib.suppress(ValueError):
                        value = float(value)
                try:
                    env.check_type(f"{section}.{name}", value, expected)
                except TypeError as error:
                    raise Refused(f"{where}: {error}") from error
                if expected is dict:
                    check_library_setting(f"{where}: {section}.{name}", name, value)
                    value = {**settings[stage][name], **value}
                settings[stage][name] = value


def read_preset(path: Path) -> dict:
    """Returns a preset's sections; Refused with the known presets, or the line of a YAML mistake."""
    if not path.is_file():
        known = sorted(found.stem for found in (NOTEBOOKS / "presets").glob("*.yaml"))
        raise Refused(f"no preset {path.stem!r}.{nearest(path.stem, known)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise Refused(f"{path.name} is not YAML ({env.brief(error)}).") from error
    if not isinstance(content, dict):
        raise Refused(f"{path.name} holds {type(content).__name__}: expected sections such as 'train:'.")
    return content


def parse_set(text: str) -> dict:
    """Turns "train.lora.r=8" into {"train": {"lora": {"r": 8}}}; Refused when it has another form."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise Refused(f"--set {text}: expected stage.parameter=value, such as train.learning_rate=1e-4.")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise Refused(f"--set {text}: the value is not YAML ({env.brief(error)}).") from error
    found = "" if found is None else found
    for key in reversed(keys):
        found = {key: found}
    return found


def resolve(preset: str, run_name: str, outputs: str, sets: list[str], tiny: bool) -> dict[str, dict]:
    """Returns {stage: {parameter: value}}: defaults, then the preset, then --tiny, then --set. Raises Refused."""
    settings = {stage: {n: default for n, (default, _) in parameters_cell(stage).items()} for stage in env.STAGES}
    layer(settings, read_preset(NOTEBOOKS / "presets" / f"{preset}.yaml"), f"preset {preset}")
    if tiny:
        layer(settings, read_preset(TINY), "--tiny")
    for text in sets:
        layer(settings, parse_set(text), f"--set {text}", from_text=True)
    layer(settings, {"shared": {"run_name": run_name, "outputs": outputs}}, "--run-name")
    try:
        env.run_folder(outputs, run_name)
    except ValueError as error:
        raise Refused(str(error)) from error
    return settings


def plan(settings: dict[str, dict], stages: list[str], force: bool) -> dict[str, str]:
    """Returns {stage: reason to run it, "" to skip it}; Refused when a finished stage has other settings."""
    run = env.run_folder(settings["report"]["outputs"], settings["report"]["run_name"])
    record = env.read_json(run / "run.json")["stages"] if (run / "run.json").is_file() else {}
    reasons, changed = {}, set()
    for stage in stages:
        folder = env.STAGES[stage][1]
        before = record.get(stage, {})
        unmade = [name for name in env.INPUTS[stage] if not (run / name).is_file()] if stage != "report" else []
        made_in = {name.split("/")[0] for name in unmade}
        makers = [maker for maker, (_, made) in env.STAGES.items() if made in made_in and maker not in stages]
        if makers:
            raise Refused(f"{stage} of run {run.name} needs {', '.join(unmade)}: add {', '.join(makers)} to --stages.")
        if force:
            reasons[stage] = "forced"
        elif before.get("status") != "finished" or not (run / folder / "metrics.json").is_file():
            reasons[stage] = f"was {before['status']}" if before else "new"
        else:
            differing = [
                f"{stage}.{name} was {before['parameters'].get(name)!r}, now {value!r}"
                for name, value in settings[stage].items()
                if name != "outputs" and before["parameters"].get(name) != value
            ]
            if differing:
                raise Refused(
                    f"run {run.name} was made with other settings: {'; '.join(differing)}. Use another --run-name, or "
                    f"--force to replace it."
                )
            reasons[stage] = ""
            if before["inputs"] != env.input_hashes(run, stage, settings[stage]):
                reasons[stage] = "its inputs changed"
            elif any(name.split("/")[0] in changed for name in env.INPUTS[stage]):
                reasons[stage] = "an earlier stage runs again"
        if reasons[stage]:
            changed.add(folder)
    return reasons


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
    """Writes an executed notebook as one HTML page that loads nothing from elsewhere."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import TagRemovePreprocessor

    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", language_code="en", embed_images=True)
    exporter.register_preprocessor(TagRemovePreprocessor(remove_cell_tags={"setup"}), enabled=True)
    html, _ = exporter.from_notebook_node(nbformat.read(executed, as_version=4))
    env.write_text(page, html)


def run_stage(stage: str, parameters: dict, preset: str) -> str:
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
        error = None
        try:
            papermill.execute_notebook(
                NOTEBOOKS / f"{name}.ipynb",
                executed,
                parameters=parameters,
                progress_bar=False,
                cwd=os.getcwd(),
                extra_arguments=["--log-level=ERROR"],
            )
        except KeyboardInterrupt:
            error = "interrupted"
        except papermill.PapermillExecutionError as failure:
            error = f"{failure.ename}: {failure.evalue}"
        except Exception as failure:  # a kernel that died or did not start: nbclient's and jupyter's own errors
            error = f"{type(failure).__name__}: {failure}"
        finally:
            progress.stop()
            del os.environ["SAHANUBHUTI_PROGRESS"]
    if error is not None:
        env.note_stage(run, stage, status="failed", ended=env.now(), error=error, parameters=parameters)
    record = env.read_json(run / "run.json")
    env.write_json(run / "run.json", {"run_name": run.name, "preset": preset, **record})
    if executed.is_file():
        render(executed, page)
    return record["stages"][stage]["status"]


def run_preset(preset: str, settings: dict[str, dict], reasons: dict[str, str]) -> int:
    """Runs the stages that have a reason, in order, until one fails or pauses. Returns the exit code."""
    run = env.run_folder(settings["report"]["outputs"], settings["report"]["run_name"])
    for stage, reason in reasons.items():
        if not reason:
            print(f"[{run.name}] {stage}  finished before, skipped")
            continue
        print(f"[{run.name}] {stage}  starts ({reason})", flush=True)
        began = time.monotonic()
        status = run_stage(stage, settings[stage], preset)
        print(f"[{run.name}] {stage}  {status} in {clock(time.monotonic() - began)}", flush=True)
        if status == "paused":
            print(f"[{run.name}] the session's time is up: run the same command again to go on.")
            return PAUSED
        if status != "finished":
            error = env.read_json(run / "run.json")["stages"][stage]["error"]
            print(f"error: {stage}: {error}\nSee {run / 'html' / (env.STAGES[stage][0] + '.html')}", file=sys.stderr)
            return FAILED
    if not any(reasons.values()):
        print(f"[{run.name}] nothing to do: every stage is finished with these settings (--force runs them again).")
    if (run / "report" / "index.html").is_file():
        print(f"[{run.name}] report: {run / 'report' / 'index.html'}")
    return FINISHED


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.run", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", nargs="+", required=True, metavar="NAME", help="one or more of notebooks/presets")
    parser.add_argument("--run-name", help="folder under outputs; default: the preset's name")
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="folder of all runs (default: outputs)")
    parser.add_argument("--stages", default=",".join(env.STAGES), help="comma-separated (default: all)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="STAGE.PARAM=VALUE", dest="sets")
    parser.add_argument("--tiny", action="store_true", help="embedded model, a slice of data, a few steps: on a CPU")
    parser.add_argument("--force", action="store_true", help="run finished stages again")
    parser.add_argument("--dry-run", action="store_true", help="print each stage's parameters as YAML and stop")
    options = parser.parse_args(arguments)
    try:
        stages = options.stages.split(",")
        for stage in stages:
            if stage not in env.STAGES:
                raise Refused(f"--stages: no stage {stage!r}.{nearest(stage, env.STAGES)}")
        stages = [stage for stage in env.STAGES if stage in stages]
        if options.run_name and len(options.preset) > 1:
            raise Refused(f"--run-name names one run, but {len(options.preset)} presets are asked for: leave it out.")
        jobs = []
        for preset in options.preset:
            run_name = options.run_name or preset + "-tiny" * options.tiny
            settings = resolve(preset, run_name, options.outputs, options.sets, options.tiny)
            jobs.append((preset, settings, {} if options.dry_run else plan(settings, stages, options.force)))
        if options.dry_run:
            print("---\n".join(as_yaml(stage, settings[stage]) for _, settings, _ in jobs for stage in stages), end="")
            return FINISHED
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    results = []
    for preset, settings, reasons in jobs:
        began = time.monotonic()
        results.append((preset, settings, run_preset(preset, settings, reasons), time.monotonic() - began))
    if len(results) > 1:
        words = {FINISHED: "finished", PAUSED: "paused", FAILED: "failed"}
        print("\n".join(f"{words[code]:9} {clock(took):>8}  {preset}" for preset, _, code, took in results))
    codes = [code for _, _, code, _ in results]
    return next((code for code in (FAILED, PAUSED) if code in codes), FINISHED)


def as_yaml(stage: str, parameters: dict) -> str:
    """Returns a stage's parameters as YAML that `papermill -f` takes; floats keep their point."""
    body = yaml.safe_dump(parameters, allow_unicode=True, sort_keys=False, width=1000)
    return f"# papermill notebooks/{env.STAGES[stage][0]}.ipynb OUT.ipynb -f THIS.yaml\n{body}"


if __name__ == "__main__":
    raise SystemExit(main())
