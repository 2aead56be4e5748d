"""The base model and its adapter, for both backends."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.models.attention import use_capped_attention, use_grouped_attention
from helpers.models.chat import Tokenizer, prepare_tokenizer
from helpers.models.float32_activations import (
    check_unsloth,
    keep_activations_in_float32,
    overflows_float16,
)
from helpers.models.text_part import load_causal_model, text_part_options, without_report
from helpers.platforms.downloads import check_tokenizer_files, fetch_model
from helpers.platforms.errors import describe_error

BACKENDS = ("unsloth", "peft")
ADAPTERS = {"tuned": Path("train/adapter"), "preferred": Path("prefer/adapter")}  # model: its adapter below the run

Network = Any  # transformers.PreTrainedModel, or peft.PeftModel around one, which passes its attributes on


def start_backend(backend: str) -> None:
    """Imports Unsloth when it is the backend: it must come before transformers and trl.

    Raises ValueError for an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"train.backend is {backend!r}: expected one of {', '.join(BACKENDS)}.")
    _set_allocator()
    if backend == "unsloth":
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        os.environ.setdefault("UNSLOTH_LOGPROB_CHUNK_GB", "0.5")  # of logits at a time; its 2.0 costs a T4 1.5 GiB
        import unsloth  # noqa: F401


def load_tokenizer(base_model: str) -> Tokenizer:
    """Returns the base model's tokenizer with pad token, end token and template set.

    Raises OSError, with what to do, for a model that cannot be loaded.
    """
    from transformers import AutoTokenizer

    check_tokenizer_files(base_model)
    with _explain_load_errors(base_model):
        fetch_model(base_model, weights=False)
        return prepare_tokenizer(AutoTokenizer.from_pretrained(base_model))


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Returns 16 hex digits of a SHA-256 over all that decides how a text is cut into tokens, and nothing else: not the
    chat template, not how rows are padded. Two models of the same digest have the same tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = json.loads(backend.to_str()) if backend else {"model": tokenizer.get_vocab()}
    parts = {name: whole.get(name) for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def load_for_training(config: Any, dtype: str) -> Network:
    """Returns the base model with a fresh LoRA adapter, on this process's GPU or the CPU.

    `config` is a TrainingConfig (of planning, which this room does not import). Gradient checkpointing is prepared, not
    switched on. The adapter's B matrices start at zero, so the first loss is the base model's.
    """
    import torch

    device_map = _set_up_devices(config.device_map)
    if config.backend == "peft":
        from peft import LoraConfig, get_peft_model

        model = load_base_model(config.base_model_path, config.load_in_4bit, dtype, device_map)
        torch.manual_seed(config.seed)
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config.lora))
    from transformers.utils import logging
    from unsloth import FastLanguageModel

    logging.disable_progress_bar()
    checkpointing = "unsloth" if torch.cuda.is_available() else True  # "unsloth": activations wait in the RAM
    shared = {"max_seq_length": config.max_length, "use_gradient_checkpointing": checkpointing}
    weights = {"dtype": getattr(torch, dtype), "load_in_4bit": config.load_in_4bit, "device_map": device_map}
    with _explain_load_errors(config.base_model_path):
        if options := text_part_options(config.base_model_path):
            weights |= {"text_only": True} if torch.cuda.is_available() else options
        with without_report() if options else contextlib.nullcontext():
            model, _ = FastLanguageModel.from_pretrained(config.base_model_path, **weights, **shared)
    if options and model.config.get_text_config() is not model.config:
        raise ValueError(
            f"Unsloth has loaded the whole of {config.base_model!r}, and not its text part alone. Expected "
            f"train.backend=peft, which does."
        )
    check_unsloth(model, dtype)
    return FastLanguageModel.get_peft_model(model, random_state=config.seed, **shared, **config.lora)


def load_for_inference(
    base_model: str,
    adapter: Path,
    load_in_4bit: bool,
    dtype: str,
    device_map: str = "",
    further: Mapping[str, Path] | None = None,
) -> Network:
    """Returns the base model with a trained adapter on it, in plain PEFT whatever the backend that trained it.

    `further` are adapters by name that `set_adapter` switches to; the first one is called "default".

    `with model.disable_adapter():` it is the base model. Its generation_config is the library's: what the model's own
    file asks for (Llama 3.1's: to sample at temperature 0.6) would silently fill every setting that is not given.
    """
    from transformers import GenerationConfig

    base = load_base_model(base_model, load_in_4bit, dtype, _set_up_devices(device_map))
    own = base.generation_config
    if (own.repetition_penalty or 1) > 1.05 or own.no_repeat_ngram_size:
        print(
            f"not applied: the model's own repetition_penalty {own.repetition_penalty}, no_repeat_ngram_size "
            f"{own.no_repeat_ngram_size}. Fluent byte-level Bengali repeats short token runs, and they forbid it."
        )
    base.generation_config = GenerationConfig()
    model = put_on_adapters(base, {"default": adapter, **(further or {})})
    model.eval()
    if overflows_float16(base):
        return model  # its adapter in float32, as training computes with it
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(base.dtype)  # as training computes with it; in float32 all is cast twice
    return model


def put_on_adapters(base: Network, adapters: Mapping[str, Path]) -> Network:
    """Returns a base model with trained adapters on it, by name; the first one is active. Raises ValueError for one
    that leaves layers of its own without weights, where PEFT would only warn."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    model: Any = None
    for name, folder in adapters.items():
        if model is None:
            model = PeftModel.from_pretrained(base, str(folder), adapter_name=name)
        else:
            model.load_adapter(str(folder), adapter_name=name)
        needed = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys()
        if missing := sorted(needed - load_peft_weights(str(folder), device="cpu").keys()):
            raise ValueError(
                f"the adapter in {folder} does not fit this base model: it has no weights for {missing[0]} and "
                f"{len(missing) - 1} more. Expected one trained on this model, or, where that takes images too, on its "
                f"text part alone: train it again."
            )
    return model


def load_base_model(base_model: str, load_in_4bit: bool, dtype: str, device_map: str | dict[str, Any]) -> Network:
    """Returns the base model without an adapter, by transformers alone; in NF4 with `load_in_4bit`."""
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    _set_allocator()
    quantization = None
    if load_in_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    with _explain_load_errors(base_model):
        fetch_model(base_model)
        model = load_causal_model(
            base_model, dtype=getattr(torch, dtype), quantization_config=quantization, device_map=device_map
        )
    _set_compute_dtype(model, getattr(torch, dtype))
    use_capped_attention(model)
    if model.device.type == "cuda":
        use_grouped_attention(model)
    keep_activations_in_float32(model)
    return model


def _set_compute_dtype(model: Network, dtype: Any) -> None:
    """Makes 4-bit layers multiply in this dtype: those stored in 4 bits bring the dtype they were saved with, mostly
    bfloat16, which a T4 only emulates. Unsloth's loader sets both by itself."""
    for module in model.modules():
        if state := getattr(getattr(module, "weight", None), "quant_state", None):
            module.compute_dtype = state.dtype = dtype


def _set_up_devices(device_map: str) -> str | dict[str, Any]:
    """Returns the device map, "" being this process's GPU; the CPU without one. Switches cuDNN's attention off."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every shape, and here most shapes are new
    if not torch.cuda.is_available():
        return {"": "cpu"}
    return device_map or {"": int(os.environ.get("LOCAL_RANK", 0))}


def _set_allocator() -> None:
    """Lets CUDA's allocator grow its segments; set before the first tensor is on a GPU.

    Micro-batches of many shapes otherwise leave gaps: 7.6 GiB held for 4.7 in use were seen.
    """
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


@contextlib.contextmanager
def _explain_load_errors(base_model: str) -> Iterator[None]:
    """Turns "cannot be loaded" of the hub libraries into one OSError that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        unreachable = isinstance(error, OSError) or "No config file found" in str(error)  # the latter is Unsloth's
        if Path(base_model).is_dir() or not unreachable:
            raise
        raise OSError(
            f"base_model {base_model!r} could not be loaded ({describe_error(error)}). Check the name, switch the "
            f"internet on (Kaggle: Settings, Internet; unset HF_HUB_OFFLINE), or attach the model and pass its folder."
        ) from error
