"""Base models side by side: what each one costs on the rows that a run is for. Needs their tokenizers and config.json,
no weights."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx import HTTPError

from helpers.data.load import load_table
from helpers.data.rows import data_rows
from helpers.language.bengali import split_words
from helpers.models.chat import answers_of, count_tokens
from helpers.models.embedded import locate_base_model
from helpers.models.families import DamagedModel, model_shape
from helpers.models.loading import load_tokenizer
from helpers.planning.checks import MachineFacts, describe_download_problem
from helpers.planning.config import Promise, configure_training
from helpers.planning.lengths import PlannedRows, keep_lengths, scale_lengths
from helpers.planning.memory import DoesNotFit
from helpers.planning.plan import Plan, plan_preset, split_lengths
from helpers.planning.precision import check_planned_activations
from helpers.planning.promise import describe_promise
from helpers.platforms.downloads import is_hub_name
from helpers.platforms.errors import Refused, describe_error
from helpers.platforms.machine import platform
from helpers.platforms.probe import ask_model, can_connect
from helpers.platforms.scrub import scrub
from helpers.platforms.secrets import export_secrets
from helpers.runs.damage import reading
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import Settings, resolve_settings

CARD_SECONDS = 10.0  # that the Hub may take to tell of a model
COLUMNS = {
    "base model": "{base_model}",
    "hours": "{hours:.1f}",
    "sessions": "{sessions}",
    "GiB": "{peak_memory_gib:.1f}",
    "per word": "{tokens_per_word:.2f}",
    "per epoch": "{tokens_per_epoch:,}",
    "too long": "{rows_over_length:,}",
    "licence": "{licence}",
    "gated": "{gated}",
}
LEGEND = (
    "GiB: the peak per GPU. Tokens per word: of what people and assistant write; per epoch: with the chat template. "
    "Too long: rows over shared.max_length, which are dropped."
)
PARTS = ("train", "val", "test")  # of prepared data

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Candidate:
    """A base model's costs in a run. Numbers that could not be told are None, with the reason in `problem`."""

    base_model: str
    licence: str  # as its model card states it
    gated: str
    card_problem: str = ""  # why licence and gate are not known
    problem: str = ""  # why it has no plan
    tokens_per_character: float | None = None  # of what people and assistant write
    tokens_per_word: float | None = None
    tokens_per_epoch: int | None = None  # the template's included
    rows_over_length: int | None = None  # that have more tokens than shared.max_length, and are dropped
    total_parameters: int | None = None
    peak_memory_gib: float | None = None  # per GPU
    rows_per_step: float | None = None  # of an optimizer step, their mean where micro-batches are cut by tokens
    max_tokens: int | None = None  # that it fits with, where the micro-batches of the settings do not
    too_large: str = ""  # the micro-batches of the settings, where they do not fit
    promise: str = ""  # what is given up to end in promised hours
    hours: float | None = None
    sessions: int | None = None
    lengths_from: str = ""
    speed_from: str = ""


def compare_models(
    call: tuple[str, str, str, list[str], bool], names: Iterable[str], gpu_gib: float, session_hours: float
) -> list[Candidate]:
    """Returns a candidate per base model, those with the fewest hours first and those without a plan last.

    `call` is what `resolve_settings` takes. Raises Refused and ValueError for settings that are none and rows that
    cannot be read.
    """
    preset, run_name, outputs, sets, tiny = call
    export_secrets()
    settings = {
        name: resolve_settings(preset, run_name, outputs, [*sets, f"shared.base_model={name}"], tiny) for name in names
    }
    first = next(iter(settings.values()))
    run = Run.named(first["report"]["outputs"], first["report"]["run_name"])
    rows, own = read_rows(first["prepare_data"], run)
    candidates = [describe_model(name, each, run, rows, own, gpu_gib, session_hours) for name, each in settings.items()]
    return sorted(candidates, key=lambda each: (each.hours is None, each.hours))


def read_rows(data: dict[str, Any], run: Run) -> tuple[Rows, str]:
    """Returns data rows to count tokens of, and where they are from: the run's own with their `part`, or those of a
    file that is here; else the embedded corpus's, and "", where the data set would have to be downloaded."""
    if run.has_metrics("prepare_data"):
        with reading(run / "data" / "metrics.json"):
            is_own = run.metrics("prepare_data")["dataset"] == data["dataset"]
        if is_own:
            return [row | {"part": part} for part in PARTS for row in read_jsonl(run / f"data/{part}.jsonl")], str(
                run / "data"
            )
    here = data["dataset"] if data["dataset"] == "embedded" or Path(data["dataset"]).is_file() else ""
    table, source = load_table(here or "embedded", data["dataset_format"] if here else "auto")
    table = table.assign(id=[*map(str, range(len(table)))], group="")
    rows = [row for row in data_rows(table, data["system_prompt"], "") if "text" in row or answers_of(row)]
    return rows, f"{source.source}, before cleaning" if here else ""


def planned_parts(rows: Rows, lengths: list[int], max_length: int, source: str, seed: int) -> PlannedRows:
    """Returns prepared rows by their own parts, without those that are too long; their tokens are `lengths`. Raises
    ValueError where none is left to train on."""
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for row, length in zip(rows, lengths, strict=True):
        if length <= max_length:
            parts[row["part"]].append(length)
    train, val, test = parts.values()
    if not train:
        raise ValueError(f"all rows to train on have more than {max_length} tokens. Raise max_length.")
    return PlannedRows(random.Random(seed).sample(train, len(train)), len(val), max(1, len(test)), source)


def texts_of(rows: Rows) -> Iterable[str]:
    """Returns what people and assistant write."""
    for row in rows:
        messages = row.get("messages", [])
        yield from [row["text"]] if "text" in row else [m["content"] for m in messages if m["role"] != "system"]


def describe_model(
    name: str, settings: Settings, run: Run, rows: Rows, own: str, gpu_gib: float, session_hours: float
) -> Candidate:
    """Returns one base model's costs; `own` says where `rows` are from, "" for rows of another data set."""
    if name != "embedded" and not Path(name).is_dir() and not is_hub_name(name):
        return Candidate(name, "?", "?", problem=find_absence(name))
    card, unusable = read_card(name), ""
    try:
        if problem := find_absence(name):
            raise ValueError(problem)
        unusable = find_unusable(name)
        tokenizer = load_tokenizer(locate_base_model(name, run))
        counted = count_tokens(tokenizer, rows)
    except (OSError, ValueError, HTTPError) as error:
        return Candidate(name, *card, unusable or scrub(" ".join(str(error).split())))
    texts = [*texts_of(rows)]
    tokens = sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]))
    rates: dict[str, Any] = {
        "tokens_per_character": tokens / sum(map(len, texts)),
        "tokens_per_word": tokens / max(1, sum(len(split_words(text)) for text in texts)),
    }
    data = settings["prepare_data"]
    try:
        lengths, source = (counted, own) if own else scale_lengths(data["dataset"], rates["tokens_per_character"])
        over, seed = sum(length > data["max_length"] for length in lengths), settings["train"]["seed"]
        if "part" in rows[0]:
            known = planned_parts(rows, lengths, data["max_length"], source, seed)
        else:
            known = split_lengths(keep_lengths(sorted(lengths), data), source, data, seed)
        check_planned_activations(settings["train"])
        plan, smaller = plan_to_fit(settings, run, gpu_gib, session_hours, known)
    except (ValueError, Refused) as error:
        return Candidate(name, *card, str(error), **rates)
    costs: dict[str, Any] = {
        key: getattr(plan, key) for key in ("tokens_per_epoch", "total_parameters", "peak_memory_gib", "sessions")
    }
    about: dict[str, Any] = {
        "hours": plan.hours["total"],
        "lengths_from": plan.lengths_from,
        "speed_from": plan.speed_from,
        "rows_per_step": plan.effective_batch,
        "promise": describe_promise(Promise(**plan.promise)) if plan.promise else "",
    }
    if smaller:
        about |= {"max_tokens": smaller, "too_large": describe_micro_batch(settings["train"])}
    return Candidate(name, *card, rows_over_length=over, **rates, **costs, **about)


def describe_micro_batch(train: dict[str, Any]) -> str:
    """Returns the size of a micro-batch by the settings of 02_train, in words."""
    config = configure_training(train)
    tokens, rows = config.max_tokens, config.sft["per_device_train_batch_size"]
    return f"{tokens:,} tokens" if tokens else f"{rows} row{'s' * (rows != 1)}"


def plan_to_fit(
    settings: Settings, run: Run, gpu_gib: float, session_hours: float, known: PlannedRows
) -> tuple[Plan, int | None]:
    """Returns a plan, with the largest max_tokens that fits where the settings' do not, and that number, else None.
    Raises as `plan_preset` where none fits."""
    try:
        return plan_preset(settings, run, gpu_gib, session_hours, known=known), None
    except DoesNotFit as error:
        if not error.max_tokens:
            raise
        smaller = {**settings, "train": {**settings["train"], "max_tokens": error.max_tokens}}
        return plan_preset(smaller, run, gpu_gib, session_hours, known=known), error.max_tokens


def find_absence(name: str) -> str:
    """Returns why the files of a base model cannot be had, "" where they are here or may be downloaded."""
    if name == "embedded" or Path(name).is_dir():
        return ""
    if not is_hub_name(name):
        return "it is neither a folder here nor a name of the Hub, owner/name."
    return describe_download_problem(
        "tokenizer", name, ask_model(name, weights=False), MachineFacts(platform(), [], {})
    )


def find_unusable(name: str) -> str:
    """Returns why a base model's config.json gives no estimate, "" where it does. Raises DamagedModel."""
    try:
        model_shape(name)
    except DamagedModel:
        raise
    except ValueError as error:
        return str(error)
    return ""


def read_card(name: str) -> tuple[str, str, str]:
    """Returns the licence that a model card states, whether its files have to be asked for, in words, and why either is
    not known."""
    from huggingface_hub import HfApi, ModelCard, constants

    if name == "embedded":
        return "CC0-1.0", "no", ""
    try:
        if not is_hub_name(name):
            file = Path(name) / "README.md"
            data = ModelCard.load(file).data.to_dict() if file.is_file() else {}
            return str(data.get("license") or "not stated"), "no", ""
        if constants.HF_HUB_OFFLINE:
            return "?", "?", "HF_HUB_OFFLINE is set"
        if not can_connect(constants.ENDPOINT):
            return "?", "?", f"{constants.ENDPOINT} cannot be reached"
        info = HfApi().model_info(name, timeout=CARD_SECONDS)
    except (OSError, ValueError, HTTPError) as error:
        return "?", "?", f"{name}: {describe_error(error)}"
    data = info.card_data.to_dict() if info.card_data else {}
    return str(data.get("license_name") or data.get("license") or "not stated"), "yes" if info.gated else "no", ""


def describe_comparison(candidates: list[Candidate]) -> str:
    """Returns the candidates as a table to print, "–" where there is no number, and the reasons below it."""

    def cell(text: str, candidate: Candidate) -> str:
        value = getattr(candidate, text[1:-1].partition(":")[0])
        return "–" if value is None else text.format(**vars(candidate))

    lines = [[*COLUMNS], *([cell(text, each) for text in COLUMNS.values()] for each in candidates)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    problems = [f"{each.base_model}: {each.problem}" for each in candidates if each.problem]
    cards = {f"licence and gate not known: {each.card_problem}." for each in candidates if each.card_problem}
    sources: dict[str, list[str]] = {}
    for each in candidates:
        if each.lengths_from:
            source = f"lengths: {each.lengths_from}. Speed: {each.speed_from}."
            sources.setdefault(source, []).append(each.base_model)
    speeds = [f"{', '.join(names)}: " * (len(sources) > 1) + source for source, names in sources.items()]
    smaller = [
        f"{each.base_model}: micro-batches of {each.too_large} do not fit a GPU. Planned with train.max_tokens="
        f"{each.max_tokens}, the most that fits: {each.rows_per_step:g} rows per optimizer step."
        for each in candidates
        if each.max_tokens
    ]
    promises = [f"{each.base_model}: {each.promise}" for each in candidates if each.promise]
    legend = [LEGEND] if any(each.tokens_per_word for each in candidates) else []
    return "\n".join([*table, *problems, *smaller, *promises, *sorted(cards), *legend, *speeds])
