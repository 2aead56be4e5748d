"""Texts as vectors of an encoder, with transformers alone; loaded from a folder or the Hub.

What a sentence-transformers folder says of pooling, a layer after it and the longest text is honoured. No instruction
is put before a text, whatever the encoder was trained with.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from helpers.language.bengali import normalise
from helpers.models.batching import cut_batches
from helpers.platforms.downloads import fetch_files
from helpers.runs.files import read_json
from helpers.runs.session import report_progress

ENCODER_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # names
ENCODER_BATCH, ENCODER_TOKENS = 64, 16_384  # texts and tokens of a batch, pads included
POOLINGS = ("mean", "cls", "lasttoken")


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder, and how its tokens' vectors become one."""

    tokenizer: Any
    network: Any
    pooling: str  # one of POOLINGS
    layers: tuple[Any, ...]  # torch modules after the pooling
    max_tokens: int  # of a text; what is longer is cut
    device: str


def is_folder_name(name: str) -> bool:
    """Returns whether a setting names a folder here and not something of the Hub, "name" or "owner/name"."""
    return Path(name).is_dir() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)


def check_encoder(name: str) -> None:
    """Raises FileNotFoundError for a folder that is not here; a name of the Hub is not looked up."""
    if name and is_folder_name(name) and not Path(name).is_dir():
        raise FileNotFoundError(
            f"evaluate.encoder is {name!r}: no such folder in {Path.cwd()}. Expected a folder with an encoder, or a "
            f"name of the Hub such as sentence-transformers/LaBSE."
        )


def pick_device() -> str:
    """Returns the GPU with the most free memory, "cpu" where there is none."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())]
    return f"cuda:{free.index(max(free))}"


def load_encoder(name: str, device: str) -> Encoder:
    """Returns an encoder by its name on the Hub or its folder, in float32.

    Raises ValueError for a model that is no encoder or whose pooling is not known here, and the libraries' own errors
    for one that cannot be read.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(name) if is_folder_name(name) else download_encoder(name)
    config = AutoConfig.from_pretrained(folder)
    modules = folder / "modules.json"
    _check_kind(name, config, modules.is_file())
    pooling, layers = _read_modules(folder, read_json(modules)) if modules.is_file() else ("mean", ())
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    network, loading = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(f"{name} lacks weights of an encoder, {len(missing)} in all, such as {missing[0]}")
    layers = tuple(layer.to(device).eval() for layer in layers)
    longest = _longest_text(tokenizer, network, folder)
    return Encoder(tokenizer, network.to(device).eval(), pooling, layers, longest, device)


def download_encoder(name: str) -> Path:
    """Returns the folder of a Hub model in the cache, after downloading what is missing of it. Raises the Hub's errors;
    offline, FileNotFoundError where it is not there."""
    from huggingface_hub import snapshot_download

    fetch_files(name, "model", ENCODER_FILES)
    folder = Path(snapshot_download(name, allow_patterns=ENCODER_FILES, local_files_only=True))
    if not any(folder.glob("*.safetensors")):
        fetch_files(name, "model", ["pytorch_model*.bin"])
    return folder


def _check_kind(name: str, config: Any, has_modules: bool) -> None:
    """Raises ValueError for a model that reads no text both ways, unless it was made for sentence-transformers."""
    if config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder with a decoder ({config.model_type}): expected an encoder alone")
    causal = [kind for kind in config.architectures or [] if kind.endswith("ForCausalLM")]
    if causal and not has_modules:
        raise ValueError(f"{name} is a language model ({causal[0]}): expected an encoder")


def _read_modules(folder: Path, modules: list[dict[str, Any]]) -> tuple[str, tuple[Any, ...]]:
    """Returns the pooling and the layers after it, as the files of a sentence-transformers folder say."""
    pooling, layers = "mean", []
    for module in modules:
        kind, own = module["type"].rsplit(".", 1)[-1], folder / module["path"]
        if kind == "Pooling":
            pooling = _read_pooling(read_json(own / "config.json"))
        elif kind == "Dense":
            layers += _load_dense(own)
        elif kind not in ("Transformer", "Normalize"):
            raise ValueError(f"its modules.json names {kind}, which is not known here")
    return pooling, tuple(layers)


def _read_pooling(config: dict[str, Any]) -> str:
    """Returns the one pooling of a sentence-transformers file, in its older or newer form."""
    modes = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "lasttoken"}
    chosen = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "mode_" in key]
    names = [modes.get(mode, mode) for mode in chosen] or [config.get("pooling_mode", "mean")]
    if len(names) != 1 or names[0] not in POOLINGS:
        raise ValueError(f"its pooling is {' and '.join(map(str, names))}: expected one of {', '.join(POOLINGS)}")
    return names[0]


def _load_dense(folder: Path) -> list[Any]:
    """Returns a Dense layer of sentence-transformers and its activation."""
    import torch
    from safetensors.torch import load_file

    config = read_json(folder / "config.json")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh").rsplit(".", 1)[-1]
    if activation not in ("Tanh", "Identity", "ReLU", "GELU"):
        raise ValueError(f"its Dense layer's activation is {activation}, which is not known here")
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights = load_file(folder / "model.safetensors")
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
    return [linear, getattr(torch.nn, activation)()]


def _longest_text(tokenizer: Any, network: Any, folder: Path) -> int:
    """Returns the tokens that a text may have: the least of what tokenizer, model and sentence-transformers say.

    Models such as XLM-R number positions from behind their pad's: of 514 they have 512.
    """
    positions = getattr(network.config, "max_position_embeddings", 0)
    tables = [module for name, module in network.named_modules() if name.endswith("position_embeddings")]
    first = next((table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None), 0)
    file = folder / "sentence_bert_config.json"
    own = read_json(file).get("max_seq_length") if file.is_file() else None
    return min(limit for limit in (tokenizer.model_max_length, positions - first, own) if limit and limit > 0)


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> tuple[numpy.ndarray, int]:
    """Returns the texts' vectors, (texts, width) of length 1, and how many texts were cut.

    An empty text has no meaning: its vector is all zeros. Raises ValueError for numbers that are not finite.
    """
    texts = [normalise(text) for text in texts]
    lengths = [len(tokens) for tokens in encoder.tokenizer(texts, verbose=False)["input_ids"]] if texts else []
    sizes = [min(length, encoder.max_tokens) for length in lengths]
    vectors: dict[int, numpy.ndarray] = {}
    for batch in cut_batches(sorted(range(len(texts)), key=sizes.__getitem__), sizes, ENCODER_BATCH, ENCODER_TOKENS):
        vectors.update(zip(batch, _embed_batch(encoder, [texts[place] for place in batch])))
        report_progress(len(vectors), len(texts), "embedded text")
    rows = numpy.array([vectors[place] * bool(texts[place]) for place in range(len(texts))], dtype=float)
    if not numpy.isfinite(rows).all():
        raise ValueError("its vectors are not finite")
    return rows, sum(length > encoder.max_tokens for length in lengths)


def _embed_batch(encoder: Encoder, texts: list[str]) -> numpy.ndarray:
    """Returns the vectors (texts, width) of a batch, of length 1."""
    import torch

    options: Any = {"truncation": True, "max_length": encoder.max_tokens, "padding": True, "return_tensors": "pt"}
    inputs = encoder.tokenizer(texts, **options).to(encoder.device)
    with torch.inference_mode():
        hidden = encoder.network(**inputs)[0]  # (texts, tokens, width)
        mask = inputs["attention_mask"]
        if encoder.pooling == "cls":
            pooled = hidden[:, 0]
        elif encoder.pooling == "lasttoken":
            pooled = hidden[torch.arange(len(texts)), mask.sum(dim=1) - 1]
        else:
            pooled = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        for layer in encoder.layers:
            pooled = layer(pooled)
        return torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
