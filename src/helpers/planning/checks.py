"""The machine, checked before a run writes or downloads anything: each thing that is missing, with what mends it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.models.families import count_parameters, model_shape, name_16bit, ungated_twin
from helpers.planning.config import Promise, TrainingConfig, configure_training, fit_gpus
from helpers.planning.memory import GIB, T4_GIB, weight_bytes
from helpers.planning.plan import plan_preset
from helpers.planning.precision import check_planned_activations
from helpers.planning.promise import describe_promise
from helpers.platforms import probe
from helpers.platforms.downloads import is_hub_name
from helpers.platforms.errors import Refused
from helpers.platforms.machine import Gpu, attached_folders, count_gpus, gpu_gib, list_gpus, platform
from helpers.platforms.secrets import export_secrets
from helpers.runs import record
from helpers.runs.checkpoints import begun_processes
from helpers.runs.files import load_yaml
from helpers.runs.mirror import hold_run
from helpers.runs.record import Run
from helpers.runs.session import PROGRESS_FILE
from helpers.runs.settings import Settings, default_settings, read_parameters
from helpers.runs.stages import STAGES

CLICKS: dict[str, dict[str, str]] = load_yaml(Path(__file__).with_suffix(".yaml"))
LOADING_STAGES = {"tune", "train", "prefer", "evaluate", "infer"}  # they compute with the base model
CPU_PARAMETERS = 200e6  # with more, an epoch of the published corpus takes a CPU of 100 GFLOP/s over a day


@dataclass(frozen=True)
class Needs:
    """What stages need of the machine."""

    gpu_for: str = ""  # the base model that is too large for a CPU
    split: bool = False  # over two GPUs
    absent: tuple[str, ...] = ()  # base models that are folders, and are not here
    searched: tuple[str, ...] = ()  # base models of tune.space
    questions: tuple[str, ...] = ()  # for helpers.platforms.probe: what may have to be downloaded


@dataclass(frozen=True)
class MachineFacts:
    """What is known of the machine."""

    platform: str
    gpus: list[Gpu]  # by nvidia-smi
    answers: dict[str, dict[str, Any]]  # of helpers.platforms.probe; a question that is missing was not answered

    @property
    def gpu_count(self) -> int | None:
        """The GPUs that torch can use; None where it is not known."""
        if "torch" in self.answers:
            return self.answers["torch"]["gpus"]
        return len(self.gpus) if self.gpus or self.platform != "local" else None

    def click(self, what: str) -> str:
        """Returns what to do on this platform about something that is missing."""
        return CLICKS[self.platform][what]


def start_stage(stage: str, namespace: dict[str, Any]) -> Run:
    """Checks a stage's settings and the machine, then begins it as `helpers.runs.record.start_stage` does.

    Raises Refused, before anything is written, when something is missing, when another works on the run, and in a
    notebook that would replace what has finished.
    """
    parameters = read_parameters(stage, namespace)
    run = Run.named(parameters["outputs"], parameters["run_name"])
    hold_run(run, [parameters.get("session", {}).get("mirror", "")])
    before = run.record()
    if PROGRESS_FILE not in os.environ:  # no runner, which asks for --force
        refuse_finished(run, stage, before.stages.get(stage))
    prepared = before.stages["prepare_data"].parameters if "prepare_data" in before.stages else {}
    trained = run.training_config() if (run / "train" / "config.json").is_file() else {}
    settings = {"train": trained or before.settings.get("train") or prepared, stage: parameters}
    try:
        check_machine([stage], settings, run)
    except BaseException:
        run.unlock()
        raise
    return record.start_stage(stage, namespace)


def refuse_finished(run: Run, stage: str, facts: record.StageRecord | None) -> None:
    """Raises Refused where a stage of a run has finished; the report may be written again, from the same files."""
    if facts and facts.status == "finished" and run.has_metrics(stage) and stage != "report":
        folder = run / STAGES[stage][1]
        raise Refused(
            f"run {run.name} has finished {stage} ({facts.ended}), and nothing was changed. Set run_name to another "
            f"name in the parameters cell, or remove {folder} first to make it again."
        )


def check_machine(stages: Iterable[str], settings: Settings, run: Run, from_start: bool = False) -> str:
    """Checks that this machine has what stages need; returns what will be done otherwise than planned, "" for nothing.

    `from_start` leaves the run's checkpoints out of account. Raises Refused with all that is missing. A run of the
    embedded model on the embedded corpus needs nothing, and nothing is asked.
    """
    stages = [*stages]
    needs = find_needs(stages, settings)
    facts = read_facts(needs)
    problems = find_problems(needs, facts)
    fitted, note = None, ""
    if "train" in stages and needs.gpu_for and facts.gpu_count and not needs.split:
        begun = 0 if from_start else begun_processes(run / "train" / "checkpoints", run.record().id)
        try:
            fitted, note = fit_gpus(configure_training(settings["train"]), facts.gpu_count, begun)
        except ValueError as error:
            problems.append(f"{error} {facts.click('gpu')}. --force starts the training again.")
    if facts.gpus:
        bases = [settings["train"]["base_model"]] if "train" in stages else []
        for base in [*bases, *needs.searched]:
            problems += find_activation_problems({**default_settings("train"), **settings["train"], "base_model": base})
    if problems:
        raise Refused("\n".join(problems))
    lines = [f"{note}.", compare_estimates(settings, run, fitted)] if fitted and note else []
    if "train" in stages and "prepare_data" in settings:  # not in a notebook, which reads its rows next
        lines.append(note_promise(settings, run, fitted.num_gpus if fitted else 0, from_start))
    return " ".join(filter(None, lines))


def find_needs(stages: list[str], settings: Settings) -> Needs:
    """Returns what stages with these settings need; nothing of what is here already: folders, attached data sets."""
    train = settings.get("train", {})
    base, models, tokenizers, data = train.get("base_model", "embedded"), [], [], []
    searched = searched_models(settings) if "tune" in stages else []
    loads = bool(LOADING_STAGES & {*stages})
    if loads:
        models.append(base)
    models += searched
    if "export" in stages:
        export = settings["export"]
        merges = {"merged", "gguf"} & {*export["forms"]}
        models += [export["base_16bit"] or name_16bit(base)] if merges else []
        tokenizers.append(base)
    if "prepare_data" in stages:
        tokenizers.append(settings["prepare_data"]["base_model"])
        kind, _, name = settings["prepare_data"]["dataset"].partition(":")
        if (kind == "hf" and name) or (kind == "kaggle" and name and not attached_folders(name)):
            data.append(f"{kind}:{name}")
    bases = [name for name in [*models, *tokenizers] if name != "embedded" and not is_hub_name(name)]
    absent = [name for name in bases if not Path(name).is_dir()]
    questions = [f"model:{name}" for name in models if is_hub_name(name)]
    questions += [f"tokenizer:{name}" for name in tokenizers if is_hub_name(name) and name not in models]
    gpu_for = base if loads and count_base_parameters(base) > CPU_PARAMETERS else ""
    questions = tuple(dict.fromkeys([*questions, *data]))
    return Needs(gpu_for, bool(train.get("device_map")), tuple(dict.fromkeys(absent)), tuple(searched), questions)


def searched_models(settings: Settings) -> list[str]:
    """Returns the base models that a search is over, [] for one over other settings."""
    bases = settings["tune"]["space"].get("base_model", [])
    return [*map(str, bases)] if isinstance(bases, list) else []


def count_base_parameters(base_model: str) -> int:
    """Returns the parameters of a base model, 0 where they are not known."""
    try:
        return count_parameters(model_shape(base_model), {"target_modules": []})["base"]
    except ValueError:
        return 0


def read_facts(needs: Needs) -> MachineFacts:
    """Returns what is known of this machine for these needs; asks nothing that they do not need."""
    where, gpus = platform(), list_gpus() if needs.gpu_for else []
    torch = ["torch"] if needs.gpu_for and (gpus or where == "local") else []
    if needs.questions:
        export_secrets()
    return MachineFacts(where, gpus, probe.run_probe([*torch, *needs.questions]))


def find_problems(needs: Needs, facts: MachineFacts) -> list[str]:
    """Returns a sentence for each thing that is missing, with what mends it."""
    lines = [describe_gpu_problem(needs, facts)] if needs.gpu_for else []
    forms = "Expected 'embedded', a folder here, or a name of the Hub, owner/name"
    for name in needs.absent:
        setting = "tune.space.base_model" if name in needs.searched else "shared.base_model"
        way = facts.click("model").replace("shared.base_model", setting)
        lines.append(f"{setting.removeprefix('shared.')} {name!r} is not here: {way}. {forms}.")
    models = {}
    for question in needs.questions:
        kind, _, name = question.partition(":")
        if answer := facts.answers.get(question):
            lines.append(describe_download_problem(kind, name, answer, facts))
            models |= {name: answer} if kind == "model" else {}
    lines.append(describe_disk_problem(models, facts))
    return list(dict.fromkeys(filter(None, lines)))


def describe_gpu_problem(needs: Needs, facts: MachineFacts) -> str:
    """Returns why the GPUs here do not do, "" when they do or are not known."""
    count, torch = facts.gpu_count, facts.answers.get("torch", {})
    if count == 0 and facts.gpus:
        names = count_gpus(gpu.name for gpu in facts.gpus)
        return f"torch {torch['version']} cannot use the GPUs here ({names}). {facts.click('torch')}."
    if count == 0:
        size = f"{count_base_parameters(needs.gpu_for) / 1e9:.1f} billion parameters"
        return f"This machine has no GPU, and {needs.gpu_for} with {size} needs one. {facts.click('gpu')}."
    for gpu in facts.gpus:
        if gpu.capability and torch.get("architectures") and not has_kernels(gpu.capability, torch["architectures"]):
            kernels = f"torch {torch['version']} has kernels for {', '.join(torch['architectures'])} only"
            return f"{gpu.name} has compute capability {gpu.capability}, and {kernels}. {facts.click('gpu')}."
    if needs.split and count == 1:
        return f"train.device_map splits the model over two GPUs, and this machine has 1. {facts.click('gpu')}."
    return ""


def find_activation_problems(train: dict[str, Any]) -> list[str]:
    """Returns why a base model cannot be trained in the dtype that the GPUs here compute in, [] when it can."""
    try:
        check_planned_activations(train)
    except ValueError as error:
        return [str(error)]
    return []


def has_kernels(capability: str, architectures: list[str]) -> bool:
    """Returns whether a torch with kernels for these architectures ("sm_75") runs on a compute capability ("7.5").

    Compiled kernels run on their own major version from their minor one on, PTX ("compute_90") on all later ones.
    """
    own = tuple(map(int, capability.split(".")))
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        digits = number.rstrip("af")
        built = int(digits[:-1]), int(digits[-1])
        if built <= own and (kind == "compute" or built[0] == own[0]):
            return True
    return False


def describe_download_problem(kind: str, name: str, answer: dict[str, Any], facts: MachineFacts) -> str:
    """Returns why something that is not here cannot be downloaded, "" when it can."""
    state, host = answer["state"], answer.get("host", "")
    if kind == "kaggle":
        reasons = {
            probe.UNREACHABLE: f"{host} cannot be reached",
            probe.DENIED: "Kaggle does not give it without credentials that may read it",
        }
        offline = state == probe.UNREACHABLE and facts.platform != "kaggle"
        ending = f"is not attached, and {reasons.get(state)}. {facts.click('internet' if offline else 'data')}."
        return f"Kaggle data set {name!r} {ending}" if state in reasons else ""
    what = f"Data set {name!r}" if kind == "hf" else f"base_model {name!r}"
    secret = f"secret HF_TOKEN ({facts.click('secret')})"
    instead = "" if kind == "hf" else f", or {facts.click('model')}"
    twin = ungated_twin(name)
    ungated = f", or use the same weights without a gate: --set shared.base_model={twin}" if twin else ""
    page = f"{host}/datasets/{name}" if kind == "hf" else f"{host}/{name}"
    sentences = {
        probe.OFFLINE: f"has to be downloaded, and HF_HUB_OFFLINE is set. Unset it{instead}",
        probe.UNREACHABLE: f"has to be downloaded, and {host} cannot be reached. {facts.click('internet')}{instead}",
        probe.GATED: f"is gated. Accept its terms at {page} and put a token with access into the {secret}{ungated}",
        probe.MISSING: f"is not at {host}, or it is private. Check the name; a private one needs the {secret}",
        probe.BAD_TOKEN: f"cannot be read: {host} does not accept the token. Renew or remove the {secret}",
    }
    return f"{what} {sentences[state]}." if state in sentences else ""


def describe_disk_problem(models: dict[str, dict[str, Any]], facts: MachineFacts) -> str:
    """Returns why the disk is too small for the models that have to be downloaded, "" when it is not."""
    needed, about = 0.0, ""
    coming = {name: answer for name, answer in models.items() if answer["state"] == probe.READY}
    for name, answer in coming.items():
        if answer["bytes"] is None and count_base_parameters(name):
            needed, about = needed + weight_bytes(model_shape(name), name.endswith("-bnb-4bit")), "about "
        needed += answer["bytes"] or 0
    free, folder = next(((each["free"], each["cache"]) for each in coming.values()), (0, ""))
    if needed <= free:
        return ""
    sizes = f"{about}{needed / GIB:.1f} GiB, and {folder} has {free / GIB:.1f} GiB free"
    return f"base_model {', '.join(map(repr, coming))} takes {sizes}. {facts.click('disk')}."


def compare_estimates(settings: Settings, run: Run, fitted: TrainingConfig) -> str:
    """Returns the estimated hours with a fitted configuration and as planned, "" where nothing is known of the data,
    and for a run with a promise of hours."""
    if fitted.session.get("total_hours"):
        return ""
    try:
        now = plan_preset(settings, run, min(gpu_gib(), default=T4_GIB), gpus=fitted.num_gpus)
        planned = plan_preset(settings, run)
    except ValueError:
        return ""
    sessions = f"{now.sessions} session{'s' * (now.sessions > 1)} of 12 hours"
    hours = f"{now.hours['total']:.1f} hours, {sessions}, in place of {planned.hours['total']:.1f}"
    return f"Estimated by {now.speed_from}: {hours}."


def note_promise(settings: Settings, run: Run, gpus: int = 0, anew: bool = False) -> str:
    """Returns what a run gives up to end in the hours it was promised in, "" without such a promise.

    `gpus` and `anew` are as in `plan_preset`. Raises Refused where even the least does not fit.
    """
    if not settings["train"]["session"]["total_hours"]:
        return ""
    try:
        plan = plan_preset(settings, run, min(gpu_gib(), default=T4_GIB), gpus=gpus, anew=anew)
    except ValueError as error:
        return f"02_train decides what is given up for session.total_hours, once it can be estimated: {error}"
    on_cpu = settings["train"]["base_model"] == "embedded" and not gpu_gib()
    slower = " No GPU is here, and a CPU is slower than the estimate: the hours may not be kept." if on_cpu else ""
    return describe_promise(Promise(**plan.promise or {})) + slower
