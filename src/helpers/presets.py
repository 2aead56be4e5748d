"""Settings from the parameters cells, a preset, --tiny and --set, each over the last; checked by name and type."""

import ast
import contextlib
import difflib
import importlib.util
import re
from pathlib import Path

import yaml

from helpers import env

NOTEBOOKS = env.ROOT / "notebooks"
TINY = NOTEBOOKS / "tiny.yaml"
LIBRARY_CLASSES = {  # a dict setting: the dataclasses whose fields it may name, found without importing them
    "lora": [("peft", "config.py", "PeftConfig"), ("peft", "tuners/lora/config.py", "LoraConfig")],
    "sft": [
        ("transformers", "training_args.py", "TrainingArguments"),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("trl", "trainer/sft_config.py", "SFTConfig"),
    ],
}


FURTHER = {  # names a dict setting takes besides: of EarlyStoppingCallback; "tune" for the settings that were found
    "sft": {"early_stopping_patience": "int", "settings_from": "str"}
}
FREE = ("space",)  # dict settings whose names are the user's


class Refused(Exception):
    """Bad settings: the message is for the user, the exit code is 2, and nothing was started."""


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
    return fields | FURTHER.get(setting, {})


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
                if expected is dict and name in FREE:
                    pass  # helpers.tune checks it
                elif expected is dict and name not in LIBRARY_CLASSES:  # one of our own: the cell has all its names
                    own = cells[stage][name][0]
                    for key, part in value.items():
                        if key not in own:
                            raise Refused(f"{where}: {section}.{name}.{key} is no setting.{nearest(str(key), own)}")
                        try:
                            env.check_type(f"{section}.{name}.{key}", part, type(own[key]))
                        except TypeError as error:
                            raise Refused(f"{where}: {error}") from error
                    value = {**settings[stage][name], **value}
                elif expected is dict:
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
