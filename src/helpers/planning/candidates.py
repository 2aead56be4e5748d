"""Base models side by side: what each one costs on the rows that a run is for. Needs their tokenizers and config.json,
no weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.data.load import load_table
from helpers.language.bengali import split_words
from helpers.models.chat import count_tokens
from helpers.models.embedded import locate_base_model
from helpers.models.loading import load_tokenizer
from helpers.planning.lengths import find_corpus, keep_lengths, spread_lengths
from helpers.planning.plan import plan_preset
from helpers.platforms.downloads import is_hub_name
from helpers.platforms.errors import Refused, describe_error
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import Settings, resolve_settings

CARD_SECONDS = 10.0  # that the Hub may take to tell of a model
COLUMNS = {
    "base model": "{base_model}",
    "hours": "{hours:.1f}",
    "sessions": "{sessions}",
    "GiB per GPU": "{peak_memory_gib:.1f}",
    "tokens per word": "{tokens_per_word:.2f}",
    "per character": "{tokens_per_character:.3f}",
    "per epoch": "{tokens_per_epoch:,}",
    "rows too long": "{rows_over_length:,}",
    "licence": "{licence}",
    "gated": "{gated}",
}
PARTS = ("data/train.jsonl", "data/val.jsonl", "data/test.jsonl")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Candidate:
    """A base model's costs in a run. Numbers that could not be told are None, with the reason in `problem`."""

    base_model: str
    licence: str  # as its model card states it
    gated: str
    problem: str = ""  # why it has no plan
    tokens_per_character: float | None = None  # of what people and assistant write
    tokens_per_word: float | None = None
    tokens_per_epoch: int | None = None  # the template's included
    rows_over_length: int | None = None  # that have more tokens than shared.max_length, and are dropped
    total_parameters: int | None = None
    peak_memory_gib: float | None = None  # per GPU
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
    settings = {
        name: resolve_settings(preset, run_name, outputs, [*sets, f"shared.base_model={name}"], tiny) for name in names
    }
    first = next(iter(settings.values()))
    run = Run.named(first["report"]["outputs"], first["report"]["run_name"])
    rows, own = read_rows(first["prepare_data"], run)
    candidates = [describe_model(name, each, run, rows, own, gpu_gib, session_hours) for name, each in settings.items()]
    return sorted(candidates, key=lambda each: (each.hours is None, each.hours))


def read_rows(data: dict[str, Any], run: Run) -> tuple[Rows, str]:
    """Returns data rows to count tokens of, and where they are from: the run's own, or those of a file that is here;
    else the embedded corpus's, and "", where the data set would have to be downloaded."""
    if run.has_metrics("prepare_data") and run.metrics("prepare_data")["dataset"] == data["dataset"]:
        return [row for part in PARTS for row in read_jsonl(run / part)], str(run / "data")
    here = data["dataset"] if data["dataset"] == "embedded" or Path(data["dataset"]).is_file() else ""
    table, source = load_table(here or "embedded", data["dataset_format"] if here else "auto")
    system = [{"role": "system", "content": data["system_prompt"]}] if data["system_prompt"] else []
    rows: Rows = []
    for number, row in enumerate(table.to_dict("records")):
        turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        text = {"text": row["answer"]} if row.get("plain") else {"messages": [*system, *turns]}
        rows.append({"id": str(number), **text})
    return rows, source.source if here else ""


def texts_of(rows: Rows) -> Iterable[str]:
    """Returns what people and assistant write."""
    for row in rows:
        messages = row.get("messages", [])
        yield from [row["text"]] if "text" in row else [m["content"] for m in messages if m["role"] != "system"]


def describe_model(
    name: str, settings: Settings, run: Run, rows: Rows, own: str, gpu_gib: float, session_hours: float
) -> Candidate:
    """Returns one base model's costs; `own` says where `rows` are from, "" for rows of another data set."""
    licence, gated = read_card(name)
    try:
        tokenizer = load_tokenizer(locate_base_model(name, run))
        counted = count_tokens(tokenizer, rows)
    except (OSError, ValueError) as error:
        return Candidate(name, licence, gated, str(error) if isinstance(error, ValueError) else describe_error(error))
    texts = [*texts_of(rows)]
    tokens = sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]))
    rates: dict[str, Any] = {
        "tokens_per_character": tokens / sum(map(len, texts)),
        "tokens_per_word": tokens / max(1, sum(len(split_words(text)) for text in texts)),
    }
    data = settings["prepare_data"]
    try:
        lengths, source = (counted, own) if own else scale_lengths(data["dataset"], rates["tokens_per_character"])
        lengths, over = sorted(lengths), sum(length > data["max_length"] for length in lengths)
        plan = plan_preset(settings, run, gpu_gib, session_hours, known=(keep_lengths(lengths, data), source))
    except (ValueError, Refused) as error:
        return Candidate(name, licence, gated, str(error), **rates)
    costs: dict[str, Any] = {
        key: getattr(plan, key) for key in ("tokens_per_epoch", "total_parameters", "peak_memory_gib", "sessions")
    }
    about: dict[str, Any] = {
        "hours": plan.hours["total"],
        "lengths_from": plan.lengths_from,
        "speed_from": plan.speed_from,
    }
    return Candidate(name, licence, gated, rows_over_length=over, **rates, **costs, **about)


def scale_lengths(dataset: str, tokens_per_character: float) -> tuple[list[int], str]:
    """Returns the known lengths of a data set's rows by a tokenizer with so many tokens per character of Bengali, and
    where they are from. Raises ValueError where nothing is known."""
    known = find_corpus(dataset)
    lengths, source, template = (
        spread_lengths(known["quantiles"], known["rows"]),
        known["source"],
        known.get("template", 0),
    )
    if "tokens_per_character" not in known:
        return lengths, f"{source}, the same for every tokenizer"
    share = tokens_per_character / known["tokens_per_character"]
    scaled = [round(template + max(0, length - template) * share) for length in lengths]
    return scaled, f"{source}; text times {share:.2f}, by the embedded corpus"


def read_card(name: str) -> tuple[str, str]:
    """Returns the licence that a model card states, and whether its files have to be asked for, in words."""
    from huggingface_hub import HfApi, ModelCard, constants

    if name == "embedded":
        return "CC0-1.0", "no"
    try:
        if not is_hub_name(name):
            file = Path(name) / "README.md"
            data = ModelCard.load(file).data.to_dict() if file.is_file() else {}
            return str(data.get("license") or "not stated"), "no"
        if constants.HF_HUB_OFFLINE:
            return "not asked: HF_HUB_OFFLINE is set", "not asked"
        info = HfApi().model_info(name, timeout=CARD_SECONDS)
    except (OSError, ValueError) as error:
        return f"not known: {describe_error(error)}", "not known"
    data = info.card_data.to_dict() if info.card_data else {}
    return str(data.get("license_name") or data.get("license") or "not stated"), "yes" if info.gated else "no"


def describe_comparison(candidates: list[Candidate]) -> str:
    """Returns the candidates as a table to print, "–" where there is no number, and the reasons below it."""

    def cell(text: str, candidate: Candidate) -> str:
        value = getattr(candidate, text[1:-1].partition(":")[0])
        return "–" if value is None else text.format(**vars(candidate))

    lines = [[*COLUMNS], *([cell(text, each) for text in COLUMNS.values()] for each in candidates)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    problems = [f"{each.base_model}: {each.problem}" for each in candidates if each.problem]
    sources = {f"lengths: {each.lengths_from}. Speed: {each.speed_from}.": 0 for each in candidates if each.hours}
    return "\n".join([*table, *problems, *sources])
