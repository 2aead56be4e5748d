"""Inputs that no command can work on: command lines, settings, presets, damaged files of runs."""

import contextlib
import itertools
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

EARLIER = Path(__file__).parents[1] / "end_to_end/earlier_runs"
HEX_KEY = "0123456789abcdef" * 2
TOKENS = ["hf" + "_" + "Ab3" * 12, "KGAT" + "_" + "9f" * 16, "sk" + "-" + "Zz9" * 8, "gh" + "p_" + "Q7" * 18, HEX_KEY]


@dataclass(frozen=True)
class Case:
    """A command line, what is done to the folder before it, and what it must say and exit with."""

    name: str
    arguments: list[str]  # OUT stands for the folder of all runs
    says: str  # in what is printed
    codes: tuple[int, ...] = (2,)
    damage: Callable[[Path], None] = field(default=lambda folder: None)  # to the folder of all runs
    hides: str = ""  # what may be printed nowhere


def setting_cases():
    """Yields cases of settings, each for two of the commands that read them."""
    numbers = {
        "train.learning_rate": ["0", "-1", ".nan", ".inf", "fast", "11", "[1]"],
        "train.num_train_epochs": ["0", "-2", ".nan", "1e9"],
        "train.num_gpus": ["-1", "1.5", "true", "100000000000000000000"],
        "train.max_tokens": ["-1", "2.5"],
        "train.eval_rows": ["-5"],
        "train.backend": ["usloth", "''"],
        "train.device_map": ["auto", "balanced_low"],
        "train.lora.r": ["0", "-8", "100000000000000000000", "8.5"],
        "train.lora.lora_alpha": ["0"],
        "train.lora.lora_dropout": ["7", "1", "-0.1", ".nan"],
        "train.lora.target_modules": ["[no_proj]", "nothing"],
        "train.sft.per_device_train_batch_size": ["0"],
        "train.sft.gradient_accumulation_steps": ["0", "-3"],
        "train.sft.max_steps": ["-7", "1000000000"],
        "train.sft.optim": ["adam"],
        "train.sft.lr_scheduler_type": ["cosin"],
        "train.sft.save_strategy": ["sometimes"],
        "train.sft.weight_decay": ["-1"],
        "train.sft.max_length": ["512"],
        "train.sft.report_to": ["mlflow"],
        "train.sft.early_stopping_patience": ["3"],
        "prepare_data.max_rows": ["-1", "2.5"],
        "prepare_data.max_length": ["0", "-3"],
        "prepare_data.min_bengali_share": ["7", "-1", ".nan"],
        "prepare_data.train_share": ["0", "1.5", "0.95"],
        "prepare_data.val_share": ["1", "0.5"],
        "prepare_data.dataset": ["''"],
        "prepare_data.dataset_format": ["csv"],
        "evaluate.batch_size": ["0"],
        "evaluate.max_new_tokens": ["0", "-1"],
        "evaluate.temperature": ["-1", ".inf"],
        "evaluate.top_p": ["0", "1.01"],
        "evaluate.bootstrap_draws": ["0"],
        "evaluate.encoder": ["./no-such-folder", "/no/such/folder", "[x]"],
        "evaluate.benchmarks": ["tasks/none", "[[a]]", "[5]", "['']", "[./no-such-folder]"],
        "infer.prompts": ["[1]", "['']", "[[]]"],
        "tune.eta": ["1"],
        "tune.rungs": ["0"],
        "report.samples": ["-1"],
        "export.forms": ["[zip]"],
        "export.gguf_types": ["[q9]"],
        "shared.seed": ["-1", "4294967296", "2026-13-45", "2026-11-29"],
        "shared.session.hours": ["-1", ".inf"],
        "shared.session.total_hours": ["-1", ".nan", "long"],
        "shared.session.keep": ["0"],
        "shared.run_name": ["x"],
        "train.outputs": ["elsewhere"],
        "shared.no_such": ["1"],
        "trian.seed": ["1"],
        "seed": ["1"],
        "train.seed": ["[1", "*a", "{a: 1, a: 2}", "!!python/object/apply:os.system [ls]", "[" * 2000],
    }
    for (name, values), command in itertools.product(numbers.items(), ("run", "plan")):
        for value in values:
            says = name.rpartition(".")[2] if "." in name else "stage.parameter=value"
            says = {"target_modules": "target_modules", "trian.seed": "Did you mean 'train'?"}.get(name, says)
            says = {"1000000000": "epochs of", "0.95": "leave no test part", "0.5": "leave no"}.get(value, says)
            if command == "run" and value == "1000000000":
                continue  # the plan refuses it, in the notebook
            arguments = [command, "--preset", "demo", "--outputs", "OUT", "--set", f"{name}={value}"]
            yield Case(f"{command} {name}={value[:30]}", arguments, says)


def secret_cases():
    """Yields cases of secrets that stand where settings do."""
    url = f"postgresql://me:{'pass' + 'word9'}@host/db"
    places = ["evaluate.llm_judge.secret", "train.sft.hub_token", "shared.base_model", "tune.storage"]
    places += ["evaluate.llm_judge.options.api_key", "prepare_data.system_prompt", "train.sft.run_name"]
    for place, token in itertools.product(places, TOKENS[:4]):
        arguments = ["run", "--preset", "demo", "--outputs", "OUT", "--set", f"{place}={token}"]
        yield Case(f"{place} {token[:3]}", arguments, "secret", hides=token)
    for place, value in [
        ("train.sft.hub_token", "hunter2word"),
        ("evaluate.llm_judge.options.api_key", "hunter3word"),
        ("tune.storage", url),
        ("shared.base_model", HEX_KEY),
        ("evaluate.llm_judge.secret", "hunter 2"),
    ]:
        arguments = ["plan", "--preset", "demo", "--outputs", "OUT", "--set", f"{place}={value}"]
        yield Case(f"{place} {value[:4]}", arguments, "secret", hides=value.partition("@")[0].rpartition(":")[2])


def option_cases():  # noqa: C901 - a list in loops
    """Yields cases of options and names."""
    plan, run = (["--preset", "demo", "--outputs", "OUT"] for _ in range(2))
    lines = {
        "--session-hours": ["0", "-1", "nan", "inf", "soon"],
        "--memory": ["0", "-1", "nan", "much"],
    }
    for option, values in lines.items():
        for value in values:
            yield Case(f"plan {option} {value}", ["plan", *plan, f"{option}={value}"], f"argument {option}")
    for value in ("-1", "1.5", "many"):
        yield Case(f"report --samples {value}", ["report", "OUT/finished", f"--samples={value}"], "argument --samples")
    for value in ("-1", "70000", "http"):
        yield Case(f"chat --port {value}", ["chat", "OUT/finished", f"--port={value}"], "argument --port")
    for value in ("0", "nan", "-3"):
        yield Case(f"kaggle --every {value}", ["kaggle", "chain", *run, f"--every={value}"], "argument --every")
    for command in ("run", "plan"):
        for preset in ("dmo", "../tiny", "demo.yaml", "", "/etc/passwd"):
            yield Case(f"{command} preset {preset}", [command, "--preset", preset, "--outputs", "OUT"], "no preset")
        for name in ("../x", "a b", "x" * 101, ".x", TOKENS[0]):
            says = "secret" if name == TOKENS[0] else "run_name is"
            yield Case(f"{command} name {name[:9]}", [command, *run, "--run-name", name], says)
        yield Case(f"{command} twice", [command, "--preset", "demo", "demo", "--outputs", "OUT"], "named twice")
        again = [command, "--preset", "demo", "--preset", "demo", "--outputs", "OUT"]
        yield Case(f"{command} twice by two options", again, "named twice")
        yield Case(f"{command} nowhere", [command, "--preset", "demo", "--outputs", ""], "outputs is ''")
    several = ["--preset", "demo", "colab-t4", "--outputs", "OUT", "--set", "train.sft.max_steps=-7"]
    arguments = [*several[:-1], "train.lora.r=8192"]
    for command, ending in itertools.product(("run", "plan"), (several, arguments)):
        yield Case(f"{command} of two presets {ending[-1]}", [command, *ending], "preset ")
    bengali = [*run, "--run-name", "সহানুভূতি"]
    yield Case("run name in Bengali", ["run", *bengali], "expected Latin letters (a to z)")
    for owner in ("a/b c", "me/mine", "সখী"):
        yield Case(f"kaggle --owner {owner}", ["kaggle", "push", *run, "--owner", owner], "kaggle.com/NAME")
    for stages in ("trian", "train,,evaluate", "train evaluate"):
        yield Case(f"stages {stages}", ["run", *run, "--stages", stages], "no stage")
    for dataset in ("nope.csv", "OUT/finished/run.json", "OUT", "kaggle:", "kaggle:x", "hf:", "OUT/empty.csv"):
        arguments = ["run", *run, "--set", f"prepare_data.dataset={dataset}"]
        yield Case(f"dataset {dataset}", arguments, "", damage=lambda folder: (folder / "empty.csv").write_text(""))
    for space in ("{}", "{learning_rat: [1.0]}", "{learning_rate: []}", "{learning_rate: [fast]}", "{seed: [1, 1]}"):
        yield Case(
            f"space {space}", ["run", *run, "--stages", "tune,prepare_data", "--set", f"tune.space={space}"], "tune"
        )
    wide = {f"sft.{name}": [*range(1, 40)] for name in ("gradient_accumulation_steps", "per_device_train_batch_size")}
    wide = {**wide, "lora.r": [*range(1, 90)]}
    arguments = ["run", *run, "--stages", "tune,prepare_data", "--set", f"tune.space={json.dumps(wide)}"]
    yield Case("space too large", arguments, "combinations")
    yield Case("few steps", [*arguments[:-1], "tune.budget_steps=2"], "budget_steps")
    yield Case("half a judge", ["run", *run, "--set", "evaluate.llm_judge.model=x"], "llm_judge")
    yield Case("no base model", ["run", *run, "--set", "shared.base_model=embeded"], "base_model 'embeded' is not here")


BROKEN = {
    "empty": b"",
    "cut": None,  # half of the file
    "a list": b'["a"]\n',
    "a number": b"5\n",
    "null": b"null\n",
    "no JSON": b"{a: 1}\n",
    "UTF-16": '{"a": 1}\n'.encode("utf-16"),
    "binary": bytes(range(256)),
    "an object": b'{"a": 5}\n',
    "deep": b"[" * 100_000,
}


def break_file(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Returns what damages a file below the folder of all runs."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)

    return damage


def file_cases():  # noqa: C901 - a list in loops
    """Yields cases of damaged files of a run."""
    files = {
        "finished/data/metrics.json": ["report", "OUT/finished"],
        "finished/train/metrics.json": ["report", "OUT/finished"],
        "finished/evaluate/metrics.json": ["report", "OUT/finished", "OUT/finished2"],
        "finished/evaluate/tuned.jsonl": ["report", "OUT/finished"],
        "finished/evaluate/base.jsonl": ["report", "OUT/finished", "OUT/finished2"],
        "finished/evaluate/scores.csv": ["report", "OUT/finished"],
        "searched/tune/metrics.json": ["report", "OUT/searched"],
        "searched/tune/best.json": ["report", "OUT/searched"],
        "searched/data/metrics.json": ["tune", "OUT/searched"],
    }
    for (name, arguments), (kind, content) in itertools.product(files.items(), BROKEN.items()):
        says = name.rpartition("/")[2] if ".jsonl" not in name else ".jsonl"
        yield Case(f"{arguments[0]} {name} {kind}", arguments, says, damage=break_file(name, content))
    plan = ["plan", "--preset", "demo", "--outputs", "OUT", "--run-name", "finished"]
    for kind, content in BROKEN.items():
        if kind != "an object":
            damage = break_file("finished/data/metrics.json", content)
            yield Case(f"plan data/metrics.json {kind}", plan, "metrics.json", damage=damage)
    for kind, content in BROKEN.items():
        if kind != "an object":  # a record without what is known of it is an empty one
            for command in (
                ["report"],
                ["tune"],
                ["chat"],
                ["run", "--preset", "demo", "--outputs", "OUT", "--run-name"],
            ):
                arguments = [*command, "finished" if command[0] == "run" else "OUT/finished"]
                damage = break_file("finished/run.json", content)
                yield Case(f"{command[0]} run.json {kind}", arguments, "run.json", (0, 2), damage)
    for kind in ("a list", "no JSON", "empty", "cut", "UTF-16", "null"):
        damage = break_file("finished/train/config.json", BROKEN[kind])
        adapter = {"adapter/adapter_config.json": b"{}"}

        def prepare(folder: Path, damage=damage, adapter=adapter) -> None:
            damage(folder)
            for name, content in adapter.items():
                (folder / "finished/train" / name).parent.mkdir(exist_ok=True)
                (folder / "finished/train" / name).write_bytes(content)

        yield Case(f"chat config.json {kind}", ["chat", "OUT/finished"], "config.json", damage=prepare)
    for kind, content in BROKEN.items():

        def fill(folder: Path, content=content) -> None:
            (folder / "experiments.db").write_bytes(b"SQLite format 3\0half" if content is None else content)

        yield Case(f"experiments {kind}", ["experiments", "OUT/experiments.db"], "experiments.db", damage=fill)

    def make_other(folder: Path) -> None:
        with contextlib.closing(sqlite3.connect(folder / "experiments.db")) as connection:
            connection.execute("CREATE TABLE bookmarks (id INTEGER)")

    says = "it has no table LLAMAExperiments"
    yield Case("experiments of another program", ["experiments", "OUT/experiments.db"], says, damage=make_other)
    for command in ("report", "tune", "chat", "experiments"):
        for place in ("OUT/nowhere", "OUT", "OUT/finished/train"):
            yield Case(f"{command} {place}", [command, place], place.rpartition("/")[2].replace("OUT", "is "))
    several = ["report", "OUT/finished", "OUT/finished2", "--to"]
    yield Case("a page in place of a record", [*several, "OUT/finished/run.json"], "ends in .html")
    yield Case("a page in place of a text", [*several, "OUT/finished2/README"], "ends in .html")
    for place in ("OUT/finished/report/other.html", "OUT/paused/data/new.html"):
        yield Case(f"a page at {place}", [*several, place], "is among the files of run")
    yield Case("a page in place of a folder", [*several, "OUT"], "is a folder")
    yield Case("a page of one run elsewhere", ["report", "OUT/finished", "--to", "OUT/a.html"], "several runs")
    arguments = ["report", "OUT/finished", "OUT/finished2", "--to", "OUT/a.html", "--readme", "OUT/no.md"]
    yield Case("a page and a readme", arguments, "--to")
    yield Case("experiments of a folder", ["experiments", "OUT"], "is a folder: name the database in it")
    yield Case("readme nowhere", ["report", "OUT/finished", "--readme", "OUT/no.md"], "no.md")
    yield Case("readme without marks", ["report", "OUT/finished", "--readme", "OUT/finished/run.json"], "has no mark")
    yield Case("not evaluated", ["report", "OUT/finished", "OUT/paused"], "not evaluated yet")
    yield Case("one run twice", ["report", "OUT/finished", "OUT/finished"], "two runs are called finished")
    yield Case("no search", ["tune", "OUT/finished"], "has no search")
    yield Case("not trained", ["chat", "OUT/paused"], "config.json is not there")
    yield Case("no checkpoint", ["verify", "OUT/checkpoint-1"], "no such folder", (1,))


def preset_cases():
    """Yields cases of a preset named "mine" with each content."""
    contents = {
        "a number": b"5",
        "a list": b"- a",
        "half": b"train: {a: [",
        "twice": b"train: {seed: 1}\ntrain: {seed: 2}",
        "alias": b"train: &a {seed: 1}\ninfer: *a",
        "bomb": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]",
        "tag": b"train: !!python/object:os.system {}",
        "UTF-16": "train: {seed: 1}".encode("utf-16"),
        "binary": bytes(range(128, 256)),
        "no section": b"trian: {seed: 1}",
        "number as text": b"train: {learning_rate: 2e-4}",
        "number as key": b"train: {3: 1}",
        "number as section": b"3: {seed: 1}",
        "deep": b"train: " + b"[" * 5000,
        "date": b"train: {seed: 2026-02-31}",
        "secret": f"train: {{sft: {{hub_token: {TOKENS[0]}}}}}".encode(),
    }
    for (kind, content), command in itertools.product(contents.items(), ("run", "plan")):
        arguments = [command, "--preset", "mine", "--outputs", "OUT"]
        hides = TOKENS[0] if kind == "secret" else ""
        says = "hub_token" if hides else "mine"
        damage = lambda folder, content=content: (folder / "mine.yaml").write_bytes(content)  # noqa: E731
        yield Case(f"{command} preset {kind}", arguments, says, damage=damage, hides=hides)


def all_cases() -> list[Case]:
    """Returns every case that needs no server."""
    return [*setting_cases(), *secret_cases(), *option_cases(), *file_cases(), *preset_cases()]


def copy_runs(folder: Path) -> None:
    """Puts the runs that the cases damage into a folder."""
    shutil.copytree(EARLIER, folder)
