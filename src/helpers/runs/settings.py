"""Settings from the parameters cells, a preset, --tiny and --set, each over the last; checked by name and type."""

import ast
import contextlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    create_model,
)

from helpers.platforms.environment import ROOT
from helpers.platforms.errors import Refused, describe_error, suggest_name
from helpers.runs.files import expand_home, read_json
from helpers.runs.ranges import check_plain, describe_range, find_range, is_within
from helpers.runs.stages import STAGES, run_folder

NOTEBOOKS = ROOT / "notebooks"
TRAINING_ARGUMENTS = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
)
LIBRARY_CLASSES = {  # a dict setting: the dataclasses whose fields it may name, read without importing them
    "lora": [("peft", "config.py", "PeftConfig"), ("peft", "tuners/lora/config.py", "LoraConfig")],
    "sft": [*TRAINING_ARGUMENTS, ("trl", "trainer/sft_config.py", "SFTConfig")],
    "trl": [*TRAINING_ARGUMENTS, *(("trl", f"trainer/{m}_config.py", f"{m.upper()}Config") for m in ("dpo", "kto"))],
}
FURTHER_FIELDS = {  # names a dict setting takes besides: of EarlyStoppingCallback; "tune" for the search's settings
    "sft": {"early_stopping_patience": "int", "settings_from": "str"},
    "trl": {"early_stopping_patience": "int"},
    "gates": {"longer": "float", "kl": "float"},  # of a preferred model
}
ENUMS = [("transformers", "trainer_utils.py"), ("transformers", "training_args.py")]  # the choices of some fields
MOST_LISTED = 6  # choices that a message lists; of more it names the nearest
PATHS = {  # settings that may be files or folders here
    *("outputs", "dataset", "base_model", "base_16bit", "encoder", "benchmarks"),
    *("mirror", "storage", "scratch", "llama_cpp"),
}
STRICT = ConfigDict(extra="forbid", strict=True)  # a bool is no int, a text no number; an int is also a float

Settings = dict[str, dict[str, Any]]  # {stage: {parameter: value}}


def _number_from_text(value: Any, info: ValidationInfo) -> Any:
    """Reads "2e-4" as a number where the setting was typed on a command line; in a file, YAML's text stays text."""
    if isinstance(value, str) and (info.context or {}).get("from_text"):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


Number = Annotated[float, BeforeValidator(_number_from_text)]
TYPES = {"int": int, "float": Number, "str": str, "bool": bool, "list": list, "dict": dict}


def parameters_cell(stage: str) -> dict[str, tuple[Any, str]]:
    """Returns the stage's parameters, {name: (default, name of the type)}, from its notebook's "parameters" cell."""
    notebook = read_json(NOTEBOOKS / f"{STAGES[stage][0]}.ipynb")
    source = next("".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    return {
        ast.unparse(line.target): (ast.literal_eval(line.value), ast.unparse(line.annotation))
        for line in ast.parse(source).body
        if isinstance(line, ast.AnnAssign) and line.value
    }


def default_settings(stage: str) -> dict[str, Any]:
    """Returns the defaults of a stage's parameters."""
    return {name: default for name, (default, _) in parameters_cell(stage).items()}


@cache
def read_classes(package: str, file: str) -> dict[str, list[ast.stmt]]:
    """Returns {class: body} of a file of a library, without importing it; {} where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return {}
    tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def library_fields(setting: str) -> dict[str, str]:
    """Returns {field: annotation} of the library's dataclass behind a dict setting; {} where it is not installed."""
    fields = {}
    for package, file, name in LIBRARY_CLASSES.get(setting, []):
        if not (classes := read_classes(package, file)):
            return {}
        annotated = [line for line in classes[name] if isinstance(line, ast.AnnAssign)]
        fields |= {ast.unparse(line.target): ast.unparse(line.annotation) for line in annotated}
    return fields | FURTHER_FIELDS.get(setting, {})


@cache
def library_choices(annotation: str) -> list[Any]:
    """Returns the values of the library's enumeration that an annotation, such as "SchedulerType | str", names."""
    bodies = [read_classes(*file).get(name, []) for file in ENUMS for name in re.findall(r"\w+", annotation)]
    values = [line.value for body in bodies for line in body if isinstance(line, ast.Assign)]
    choices = [value.value for value in values if isinstance(value, ast.Constant)]
    return [*choices, *[False] * ("no" in choices)]  # YAML reads a bare no as false


def _library_type(annotation: str) -> Any:
    """Returns the type of a library's annotation; Any where it names a class that is not imported here."""
    known = {**TYPES, "Optional": Optional, "Union": Union, "Literal": Literal, "Any": Any}
    try:
        return Optional[eval(annotation, {"__builtins__": {}}, known)]  # noqa: S307, UP045 - of an installed library
    except NameError:
        return Any


def _ranged(kind: Any, limits: dict[str, Any]) -> Any:
    """Returns a type whose values are also within a range."""

    def check(value: Any) -> Any:
        if not is_within(value, limits):
            choices = [choice for choice in limits.get("one_of", []) if choice is not False]
            near = suggest_name(str(value), choices) if len(choices) > MOST_LISTED else ""
            raise ValueError(f".{near}" if near else f": expected {describe_range(limits)}.")
        return value

    return Annotated[kind, AfterValidator(check)] if limits else kind


def _library_range(stage: str, name: str, annotation: str) -> dict[str, Any]:
    """Returns the range of a library's field: that of ranges.yaml, else the library's own choices."""
    choices = library_choices(annotation)
    return find_range(stage, name) or ({"one_of": choices} if choices else {})


def _nested_model(stage: str, name: str, default: dict) -> Any:
    """Returns the type of a dict setting: a library's fields, the keys of its own default, or any dict ({} there)."""
    fields: dict[str, Any] = {}  # of "space" none: helpers.search checks it, its names are those of 02_train
    if name in LIBRARY_CLASSES:
        for field, text in library_fields(name).items():
            fields[field] = _ranged(_library_type(text), _library_range(stage, f"{name}.{field}", text)), None
    elif name != "space":
        for key, value in default.items():
            fields[key] = _ranged(TYPES[type(value).__name__], find_range(stage, f"{name}.{key}")), value
        for key, kind in FURTHER_FIELDS.get(name, {}).items():
            fields[key] = _ranged(TYPES[kind], find_range(stage, f"{name}.{key}")), None
    return create_model(name, __config__=STRICT, **fields) if fields else dict


@cache
def stage_model(stage: str) -> type[BaseModel]:
    """Returns the pydantic model of a stage's parameters cell: names, types, ranges; nothing else is allowed."""
    fields: dict[str, Any] = {}
    for name, (default, kind) in parameters_cell(stage).items():
        own = _nested_model(stage, name, default) if kind == "dict" else _ranged(TYPES[kind], find_range(stage, name))
        fields[name] = own, default
    return create_model(stage, __config__=STRICT, **fields)


def check_settings(section: str, stage: str, values: dict[str, Any], from_text: bool = False) -> dict[str, Any]:
    """Returns the values that were given for a stage, checked, and with the home folder in place of ~.

    `section` is how the user names the stage: itself, or "shared". Raises TypeError or ValueError that names the first
    value of a wrong type or out of its range, Refused for a secret.
    """
    check_plain(section, values)
    try:
        checked = stage_model(stage).model_validate(values, context={"from_text": from_text})
    except ValidationError as error:
        kind = ValueError if error.errors()[0]["type"] == "value_error" else TypeError
        raise kind(_explain(section, stage, error)) from None
    return expand_paths(checked.model_dump(exclude_unset=True))


def expand_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Returns settings in which `expand_home` was applied to those of PATHS, texts and lists of them."""
    expanded = dict(values)
    for name, value in values.items():
        if isinstance(value, dict):
            expanded[name] = expand_paths(value)
        elif name in PATHS and isinstance(value, str):
            expanded[name] = expand_home(value)
        elif name in PATHS and isinstance(value, list):
            expanded[name] = [expand_home(item) if isinstance(item, str) else item for item in value]
    return expanded


def read_parameters(stage: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Returns a notebook's parameters as `check_settings` does, and puts them into its globals(), `namespace`."""
    parameters = {name: namespace[name] for name in namespace["__annotations__"]}
    parameters |= check_settings(stage, stage, parameters)
    namespace.update(parameters)
    return parameters


def _explain(section: str, stage: str, error: ValidationError) -> str:
    """Returns pydantic's first error as: what, got, expected, how to mend it."""
    problem, cell = error.errors()[0], parameters_cell(stage)
    name, *key = [str(part) for part in problem["loc"][:2]]
    value, library = problem["input"], LIBRARY_CLASSES.get(name)
    own = {field: type(default).__name__ for field, default in cell[name][0].items()} if key and not library else {}
    own |= FURTHER_FIELDS.get(name, {}) if own else {}
    fields = library_fields(name) if library else own
    path = ".".join([section, name, *key])
    if problem["type"] == "extra_forbidden":
        own_folder = Path(library[-1][1]).parent if library else None  # without what the classes are derived from
        classes = [cls for _, file, cls in library or [] if Path(file).parent == own_folder and cls[0] != "_"]
        kind = f"not a setting of {' or '.join(classes)}" if library else "not a setting"
        return f"{path} is {kind}.{suggest_name(key[0], fields)}"
    if problem["type"] == "value_error":
        return f"{path} is {value!r}{problem.get('ctx', {})['error']}"
    expected = fields[key[0]] if key else cell[name][1]
    hint = ""
    if expected == "float" and isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE):
        mantissa, exponent = value.lower().split("e")
        hint = f" YAML reads {value} as text: write {mantissa}.0e{exponent}."
    if expected == "list" and isinstance(value, str):
        hint = f" Write it in brackets: [{value}]."
    return f"{path} is {value!r} ({type(value).__name__}): expected {expected}.{hint}"


def layer_settings(settings: Settings, added: dict, where: str, from_text: bool = False) -> None:
    """Lays one source of settings ({"shared" or stage: {name: value}}) over {stage: {name: value}}, checked.

    `from_text` also takes "2e-4" for a float, as people type it on a command line. Raises Refused.
    """
    cells = {stage: parameters_cell(stage) for stage in STAGES}
    for section, values in added.items():
        if section not in {"shared", *STAGES}:
            shared = f" Did you mean 'shared.{section}'?" if any(section in cell for cell in cells.values()) else ""
            raise Refused(f"{where}: no stage {section!r}.{shared or suggest_name(str(section), ['shared', *STAGES])}")
        if not isinstance(values, dict):
            raise Refused(f"{where}: {section} is {values!r}: expected settings below it, as name: value.")
        stages = [section] if section in STAGES else list(STAGES)
        known = {name for stage in stages for name in cells[stage]}
        for name in values:
            if name in ("run_name", "outputs"):  # one for all stages
                raise Refused(f"{where}: {section}.{name} is set by --{name.replace('_', '-')} alone.")
            if name not in known:
                raise Refused(f"{where}: {section}.{name} is not a setting.{suggest_name(str(name), known)}")
        for stage in stages:
            try:
                given = {name: value for name, value in values.items() if name in cells[stage]}
                checked = check_settings(section, stage, given, from_text)
            except (TypeError, ValueError) as error:
                raise Refused(f"{where}: {error}") from error
            for name, value in checked.items():
                laid_over = isinstance(value, dict) and name != "space"
                settings[stage][name] = settings[stage][name] | value if laid_over else value


class _PlainLoader(yaml.SafeLoader):
    """Reads YAML in which every key stands once, so that nothing is lost, and without aliases, which may be endless."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "an alias: write it out", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(None, None, f"the key {twice[0]!r} twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Returns what a text in YAML means. Raises ValueError with the place of a mistake."""
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none, a number too long
        raise ValueError(f"not YAML ({describe_error(error)})") from error


def list_presets() -> list[str]:
    """Returns the names of all presets."""
    return sorted(file.stem for file in (NOTEBOOKS / "presets").glob("*.yaml"))


def read_preset(name: str) -> dict:
    """Returns a preset's sections. Raises Refused with the known presets, or the line of a YAML mistake."""
    if name not in list_presets():
        raise Refused(f"no preset {name!r}.{suggest_name(name, list_presets())}")
    return read_sections(NOTEBOOKS / "presets" / f"{name}.yaml")


def read_sections(path: Path) -> dict:
    """Returns the sections of a file such as a preset. Raises Refused where it holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} cannot be read ({describe_error(error)}): expected text in UTF-8.") from error
    try:
        content = read_yaml(text) or {}
    except ValueError as error:
        raise Refused(f"{path.name} is {error}.") from error
    if not isinstance(content, dict):
        raise Refused(f"{path.name} holds {type(content).__name__}: expected sections such as 'train:'.")
    return content


def parse_assignment(text: str) -> dict:
    """Turns "train.lora.r=8" into {"train": {"lora": {"r": 8}}}. Raises Refused when it has another form."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise Refused(f"--set {text}: expected stage.parameter=value, such as train.learning_rate=1e-4.")
    try:
        nested: Any = read_yaml(value)
    except ValueError as error:
        raise Refused(f"--set {text}: the value is {error}.") from error
    nested = "" if nested is None else nested
    for key in reversed(keys):
        nested = {key: nested}
    return nested


def resolve_settings(preset: str, run_name: str, outputs: str, sets: list[str], tiny: bool) -> Settings:
    """Returns {stage: {parameter: value}}: defaults, then the preset, then --tiny, then --set.

    An empty `run_name` becomes the preset's name, with "-tiny" where `tiny` is set. Raises Refused.
    """
    run_name = run_name or preset + "-tiny" * tiny
    settings = {stage: default_settings(stage) for stage in STAGES}
    layer_settings(settings, read_preset(preset), f"preset {preset}")
    if tiny:
        layer_settings(settings, read_sections(NOTEBOOKS / "tiny.yaml"), "--tiny")
    for text in sets:
        layer_settings(settings, parse_assignment(text), f"--set {text}", from_text=True)
    place = {"run_name": run_name, "outputs": outputs}
    try:
        place = check_settings("run", "report", place)
        run_folder(**place)
    except ValueError as error:
        raise Refused(str(error)) from error
    return {stage: values | place for stage, values in settings.items()}
