"""The families of base models (families.yaml): special tokens, chat template, shapes, parameters. Needs no torch."""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from helpers.platforms.downloads import is_hub_name
from helpers.platforms.errors import describe_error
from helpers.runs.files import load_yaml

Shape = dict[str, Any]  # of a model, as in its own config.json


@dataclass(frozen=True)
class Overflow:
    """What is known of a model type whose activations exceed float16's 65,504."""

    seen_by: str
    unsloth: bool  # whether Unsloth computes them in float32 by itself


@dataclass(frozen=True)
class Family:
    """Base models that share special tokens and a template, in several sizes: see families.yaml."""

    title: str  # for messages
    special_tokens: dict[str, str]  # by which a tokenizer is known; begin, end, end_of_text, pad, header, header_end
    template: str  # Jinja, for a tokenizer that brings none
    pattern: str = "(?!)"  # regular expression that finds a known size in a model's name; its first group is the size
    ungated: dict[str, str] = field(default_factory=dict)  # gated model: the same weights without a gate
    shapes: dict[str, Shape] = field(default_factory=dict)  # by size
    overflows: dict[str, dict[str, Any]] = field(default_factory=dict)  # by transformers' model_type, as in Overflow
    tokens_per_character: float = 0.0  # of the embedded corpus, by the models that `pattern` finds; 0: not known
    rate_source: str = ""  # where tokens_per_character is from, "" for one that was measured


FAMILIES = {name: Family(**family) for name, family in load_yaml(Path(__file__).with_suffix(".yaml")).items()}
LLAMA_3 = FAMILIES["llama-3"]
SHAPES = LLAMA_3.shapes
OVERFLOWS = {kind: Overflow(**each) for family in FAMILIES.values() for kind, each in family.overflows.items()}
ESTIMATED = {
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "smollm3",
}  # transformers' model_type
WITH_TEXT_PART = {"gemma3"}  # transformers' model_type, of models of text and images: their text part is loaded
REQUIRED = {  # numbers
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    "vocab_size",
}


class DamagedModel(ValueError):
    """A base model whose config.json no library could read."""


def name_16bit(base_model: str) -> str:
    """Returns the name of a base model without the ending of its 4-bit copy."""
    return base_model.removesuffix("-bnb-4bit").removesuffix("-unsloth")


def check_bits(base_model: str, load_in_4bit: bool) -> None:
    """Raises ValueError for weights that are stored in 4 bits and asked for in 16, and as `model_shape` does."""
    quantization = model_shape(base_model).get("quantization_config") or {}
    if not load_in_4bit and (base_model.endswith("-bnb-4bit") or quantization.get("load_in_4bit")):
        raise ValueError(
            f"train.load_in_4bit is false, and the weights of {base_model!r} are stored in 4 bits: PEFT would load "
            f"them as such, and Unsloth those of another model. Set train.load_in_4bit=true, or shared.base_model to "
            f"the 16-bit model."
        )


def ungated_twin(base_model: str) -> str:
    """Returns the model with the same weights that nobody has to ask for, "" where none is known."""
    return next((family.ungated[base_model] for family in FAMILIES.values() if base_model in family.ungated), "")


def find_rate(base_model: str) -> tuple[float, str]:
    """Returns how many tokens the model of a known name spends per character of Bengali, 0 where that is not known, and
    where a rate that was not measured is from, else ""."""
    known = (family for family in FAMILIES.values() if re.search(family.pattern, base_model))
    return next(((family.tokens_per_character, family.rate_source) for family in known), (0.0, ""))


def model_shape(base_model: str) -> Shape:
    """Returns the shape of a base model, as in its config.json: a folder's own, that of a known model's name, or the
    Hub's, of which only that file is downloaded.

    Raises DamagedModel for a damaged config.json, and ValueError for a name whose config.json cannot be had, for one
    whose layers are not those of `linear_layers`, and for weights that `_read_shape` refuses.
    """
    if (Path(base_model) / "config.json").is_file():
        return _read_shape(base_model, Path(base_model) / "config.json")
    if base_model == "embedded":
        return SHAPES["embedded"]
    if Path(base_model).is_dir():
        raise ValueError(f"the folder {base_model!r} has no config.json: expected the files of a whole model.")
    for family in FAMILIES.values():
        if match := re.search(family.pattern, base_model):
            return family.shapes[match.group(1).upper()]
    return _hub_shape(base_model)


@cache
def _hub_shape(name: str) -> Shape:
    """Returns the shape of a model of the Hub, by its config.json there or in the cache."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    from helpers.platforms.probe import can_connect

    cached = is_hub_name(name) and try_to_load_from_cache(name, "config.json")
    reason = "it is no model of the Hub, owner/name" * (not is_hub_name(name))
    if not cached and not reason:
        reason = "HF_HUB_OFFLINE is set, and its config.json is not in the cache" * constants.HF_HUB_OFFLINE
        reason = reason or f"{constants.ENDPOINT} cannot be reached" * (not can_connect(constants.ENDPOINT))
    try:
        if not reason:
            return _read_shape(name, Path(cached or hf_hub_download(name, "config.json")))
    except OSError as error:  # the Hub's own errors are among them
        reason = describe_error(error)
    known = "Expected a folder with a config.json, a model of the Hub, or one of a name in families.yaml"
    raise ValueError(f"the shape of {name!r} is not known: {reason}. {known}.")


def _read_shape(name: str, file: Path) -> Shape:
    """Returns the shape that a model's config.json tells. Raises DamagedModel, and ValueError for weights of a
    quantization that no adapter is trained on here, and as `_complete` does."""
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise DamagedModel(f"the config.json of {name!r} is damaged: {error}.") from error
    if not isinstance(config, dict):
        raise DamagedModel(f"the config.json of {name!r} is damaged: expected an object, got {config!r:.40}.")
    method = (config.get("quantization_config") or {}).get("quant_method") or "bitsandbytes"
    if method != "bitsandbytes":
        raise ValueError(
            f"{name!r} cannot be used: its weights are quantized by {method}. Expected 16-bit weights, which "
            f"load_in_4bit quantizes, or a copy in 4-bit by bitsandbytes."
        )
    shape = _complete(name, config)
    if quantized := config.get("quantization_config"):
        shape = {**shape, "quantization_config": quantized}
    for key in sorted(REQUIRED):
        if not isinstance(shape.get(key), int) or shape[key] < 1:
            raise DamagedModel(f"the config.json of {name!r} is damaged: its {key} is {shape.get(key)!r}.")
    return shape


def _complete(name: str, config: dict[str, Any]) -> Shape:
    """Returns the configuration of a model's text part, with the defaults that its config.json leaves out. Raises
    ValueError for an architecture of other layers."""
    if config.get("model_type", "llama") == "llama" and config.keys() >= REQUIRED:
        return config
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        whole = AutoConfig.for_model(**config)
        text = whole.get_text_config()
    except StrictDataclassError as error:
        raise DamagedModel(f"the config.json of {name!r} is damaged: {' '.join(str(error).split())}.") from error
    except (KeyError, ValueError, TypeError) as error:
        kind = config.get("model_type")
        raise ValueError(
            f"{name!r} cannot be estimated: transformers does not know its model_type {kind!r}."
        ) from error
    if text is not whole and whole.model_type not in WITH_TEXT_PART:
        raise ValueError(
            f"{name!r} cannot be used: it is a model of text and more (model_type {whole.model_type!r}), whose text "
            f"part is loaded alone for {', '.join(sorted(WITH_TEXT_PART))} only. Set shared.base_model to a model of "
            f"text alone, or to one of these."
        )
    shape = text.to_dict()
    if text.model_type not in ESTIMATED:
        raise ValueError(
            f"{name!r} cannot be estimated: its layers (model_type {text.model_type!r}) are not the query, key, value, "
            f"output, gate, up and down projections of {', '.join(sorted(ESTIMATED))}."
        )
    return {**shape, "tie_word_embeddings": config.get("tie_word_embeddings", shape.get("tie_word_embeddings", False))}


def describe_overflow(model_type: str) -> str:
    """Returns that a model's activations exceed float16 and who has seen it, "" for one that is not known to."""
    overflow = OVERFLOWS.get(model_type)
    return f"activations of {model_type} exceed float16's 65,504 ({overflow.seen_by})" if overflow else ""


def linear_layers(shape: Shape) -> dict[str, tuple[int, int]]:
    """Returns the linear layers of one decoder layer: {name: (inputs, outputs)}."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    head = shape.get("head_dim") or hidden // shape["num_attention_heads"]
    query, key = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    return {
        "q_proj": (hidden, query),
        "k_proj": (hidden, key),
        "v_proj": (hidden, key),
        "o_proj": (query, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def target_modules(shape: Shape, lora: dict[str, Any]) -> list[str]:
    """Returns the linear layers of a decoder layer that an adapter changes.

    Raises ValueError for one that a decoder layer does not have.
    """
    layers, targets = linear_layers(shape), lora.get("target_modules", "all-linear")
    targets = list(layers) if targets == "all-linear" else [targets] if isinstance(targets, str) else targets
    if unknown := [name for name in targets if name not in layers]:
        raise ValueError(f"lora.target_modules names {', '.join(unknown)}: expected some of {', '.join(layers)}.")
    return targets


def count_parameters(shape: Shape, lora: dict[str, Any]) -> dict[str, int]:
    """Returns the numbers of parameters: `linear` (of the decoder layers), `table` (one of input and output table),
    `base` (all of the base model), `trainable` (the adapter's: r × (inputs + outputs) of every target).

    Raises ValueError as `target_modules` does.
    """
    layers, count, targets = linear_layers(shape), shape["num_hidden_layers"], target_modules(shape, lora)
    linear = count * sum(inputs * outputs for inputs, outputs in layers.values())
    table = shape["vocab_size"] * shape["hidden_size"]
    norms = (2 * count + 1) * shape["hidden_size"]
    return {
        "linear": linear,
        "table": table,
        "base": linear + table * (1 if shape.get("tie_word_embeddings") else 2) + norms,
        "trainable": count * lora.get("r", 8) * sum(sum(layers[name]) for name in targets),
    }
