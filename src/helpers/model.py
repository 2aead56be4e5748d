"""The base model and its adapter, for both backends, and how likely a model finds given answers."""

import contextlib
import math
import os
from pathlib import Path

from helpers import chat, env, plan


def _keep_memory_whole() -> None:
    """Lets CUDA's allocator grow its segments; set before the first tensor is on a card.

    Micro-batches of many shapes otherwise leave gaps: 7.6 GiB held for 4.7 in use were seen.
    """
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


def _plain_attention() -> None:
    """Leaves cuDNN's attention out: it plans anew for every shape, and here most shapes are new."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def start_backend(backend: str) -> None:
    """Imports Unsloth when it is the backend: it must come before transformers and trl. ValueError for another name."""
    if backend not in plan.BACKENDS:
        raise ValueError(f"train.backend is {backend!r}: expected one of {', '.join(plan.BACKENDS)}.")
    _keep_memory_whole()
    if backend == "unsloth":
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        os.environ.setdefault("UNSLOTH_LOGPROB_CHUNK_GB", "0.5")  # of logits at a time; its 2.0 costs a T4 1.5 GiB
        import unsloth  # noqa: F401


def load_tokenizer(base_model: str):
    """Returns the base model's tokenizer with pad, end token and template set; OSError with the way out."""
    from transformers import AutoTokenizer

    with _explained(base_model):
        return chat.prepare_tokenizer(AutoTokenizer.from_pretrained(base_model))


def load_for_training(config: dict, dtype: str):
    """Returns the base model with a fresh LoRA adapter, on this process's GPU or the CPU.

    `config` holds base_model_path, backend, load_in_4bit, device_map, max_length, seed and lora. Gradient
    checkpointing is made ready, not switched on. The adapter's B matrices start at zero, so the first loss is the base
    model's.
    """
    import torch

    _plain_attention()
    here = {"": int(os.environ.get("LOCAL_RANK", 0))} if torch.cuda.is_available() else {"": "cpu"}
    if torch.cuda.is_available() and config["device_map"]:
        here = config["device_map"]
    checkpointing = "unsloth" if torch.cuda.is_available() else True  # "unsloth": activations wait in the RAM
    if config["backend"] == "unsloth":
        from transformers.utils import logging
        from unsloth import FastLanguageModel

        logging.disable_progress_bar()

        with _explained(config["base_model_path"]):
            model, _ = FastLanguageModel.from_pretrained(
                config["base_model_path"],
                max_seq_length=config["max_length"],
                dtype=getattr(torch, dtype),
                load_in_4bit=config["load_in_4bit"],
                device_map=here,
                use_gradient_checkpointing=checkpointing,
            )
        return FastLanguageModel.get_peft_model(
            model,
            random_state=config["seed"],
            use_gradient_checkpointing=checkpointing,
            max_seq_length=config["max_length"],
            **config["lora"],
        )
    from peft import LoraConfig, get_peft_model

    model = _load_plain(config["base_model_path"], config["load_in_4bit"], dtype, here)
    torch.manual_seed(config["seed"])
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config["lora"]))


def load_for_inference(base_model: str, adapter: Path, load_in_4bit: bool, dtype: str, device_map: str = ""):
    """Returns the base model with a trained adapter on it, in plain PEFT whatever the backend that trained it.

    `with model.disable_adapter():` it is the base model. Its generation_config is the library's: what the model's own
    file asks for (Llama 3.1's: to sample at temperature 0.6) would silently fill every setting that is not given.
    """
    import torch
    from peft import PeftModel
    from transformers import GenerationConfig

    _plain_attention()
    here = (device_map or {"": 0}) if torch.cuda.is_available() else {"": "cpu"}
    base = _load_plain(base_model, load_in_4bit, dtype, here)
    own = base.generation_config
    if (own.repetition_penalty or 1) > 1.05 or own.no_repeat_ngram_size:
        print(
            f"not applied: the model's own repetition_penalty {own.repetition_penalty}, no_repeat_ngram_size "
            f"{own.no_repeat_ngram_size}. Fluent byte-level Bengali repeats short token runs, and they forbid it."
        )
    base.generation_config = GenerationConfig()
    return PeftModel.from_pretrained(base, str(adapter)).eval()


def _load_plain(base_model: str, load_in_4bit: bool, dtype: str, device_map: dict):
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    _keep_memory_whole()
    quantization = None
    if load_in_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    with _explained(base_model):
        return AutoModelForCausalLM.from_pretrained(
            base_model, dtype=getattr(torch, dtype), quantization_config=quantization, device_map=device_map
        )


@contextlib.contextmanager
def _explained(base_model: str):
    """Turns "cannot be loaded" of the hub libraries into one OSError that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        unreachable = isinstance(error, OSError) or "No config file found" in str(error)  # the latter is Unsloth's
        if Path(base_model).is_dir() or not unreachable:
            raise
        raise OSError(
            f"base_model {base_model!r} could not be loaded ({env.brief(error)}). Check the name, switch the internet "
            f"on (Kaggle: Settings, Internet; unset HF_HUB_OFFLINE), or attach the model and pass its folder."
        ) from error


def likelihood(
    model,
    tokenizer,
    rows: list[dict],
    batch_size: int = 0,
    max_tokens: int = 0,
    **keeping,
) -> list[dict]:
    """Scores the given answers: for each data row `nll` (nats, summed), `tokens`, `correct` and `characters`.

    Only the assistant's tokens count, its <|eot_id|> included; padding and prompt do not. Full logits never exist:
    hidden states of answer tokens pass through the output layer plan.POSITIONS at a time, in float32. Rows are batched
    by length, at most `batch_size` rows or `max_tokens` tokens at a time; the results come in the rows' order.
    `keeping` is what `env.resumable` takes.
    """
    import torch

    examples = [chat.encode(tokenizer, row) for row in rows]
    collate = chat.collator(tokenizer)
    lengths = [len(example["input_ids"]) for example in examples]
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model

    def score(chosen: list[int]) -> list[dict]:
        with torch.no_grad():  # not inference_mode: a model in training caches tensors here that it trains with
            batch = collate([examples[index] for index in chosen]).to(model.device)
            hidden = causal.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
            targets = batch["labels"][:, 1:].to(hidden.device)  # t predicts t + 1; a split model ends on another card
            row_of, at = (targets != chat.IGNORED).nonzero(as_tuple=True)
            nll, correct = [], []
            for piece in range(0, len(at), plan.POSITIONS):
                here = slice(piece, piece + plan.POSITIONS)
                logits = causal.lm_head(hidden[row_of[here], at[here]]).float()  # (positions, vocabulary)
                target = targets[row_of[here], at[here]].to(logits.device)
                nll.append(torch.nn.functional.cross_entropy(logits, target, reduction="none"))
                correct.append(logits.argmax(-1) == target)
            nll, correct, row_of = torch.cat(nll).double().cpu(), torch.cat(correct).cpu(), row_of.cpu()
        results = []
        for place, index in enumerate(chosen):
            mine = row_of == place
            found = {"nll": float(nll[mine].sum()), "tokens": int(mine.sum()), "correct": int(correct[mine].sum())}
            if not math.isfinite(found["nll"]):
                raise FloatingPointError(f"the loss of row {rows[index]['id']} is not finite: adapter or dtype.")
            results.append({**found, "characters": len(chat.supervised(rows[index]))})
        return results

    return env.resumable(plan.cut(order, lengths, batch_size, max_tokens), score, **keeping)
