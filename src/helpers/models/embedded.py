"""The embedded model: a small Llama with Llama 3's special tokens and layout, made here in under a minute on a CPU.

It shows that the pipeline works; it says nothing about what an 8B model would answer.
"""

import hashlib
import math
import os
import shutil
from pathlib import Path
from typing import Any

from helpers.data.clean import clean_table
from helpers.data.group import link_rows
from helpers.data.load import load_table
from helpers.data.rows import make_parts
from helpers.data.split import split_corpus
from helpers.models.chat import Tokenizer, prepare_tokenizer
from helpers.models.families import LLAMA_3, SHAPES
from helpers.platforms.environment import ROOT
from helpers.runs.record import Run
from helpers.runs.session import report_progress

SHAPE = dict(SHAPES["embedded"])
VOCABULARY = SHAPE.pop("vocab_size")  # tokens
TOKENS = LLAMA_3.special_tokens
PAD, END, BEGIN, END_OF_TEXT = (TOKENS[name] for name in ("pad", "end", "begin", "end_of_text"))
SPECIAL = [TOKENS[name] for name in ("begin", "end", "pad", "header", "header_end", "end_of_text")]
STEPS, BATCH, BLOCK, LEARNING_RATE = 180, 8, 192, 2e-3  # pre-training: most steps, rows, tokens per row
TEXTS_PER_STEP = 2.8  # fewer texts get fewer steps: with more, the model would learn them by heart
DEFAULT_SPLIT: dict[str, Any] = {"near_duplicate": 0.8, "shares": (0.8, 0.1), "seed": 3407}  # the parameters cell's
PIECES = r" ?[\p{L}\p{M}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"  # whole Bengali words, vowel signs included


def cache_folder() -> Path:
    """Returns where embedded models are kept: $SAHANUBHUTI_CACHE, else outputs/.cache of the checkout.

    A checkout that cannot be written to (an attached Kaggle input) uses ~/.cache.
    """
    beside = ROOT / "outputs" if os.access(ROOT, os.W_OK) else Path.home()
    return Path(os.environ.get("SAHANUBHUTI_CACHE") or beside / ".cache")


def locate_base_model(base_model: str, run: Run) -> str:
    """Returns what the loaders take: `base_model`, or for "embedded" the copy that the run keeps with its data.

    Raises ValueError when the data were prepared for another base model.
    """
    if base_model != "embedded":
        return base_model
    if not (run / "data" / "model" / "config.json").is_file():
        raise ValueError(
            "base_model is 'embedded', and the run's data were not prepared for it: 01_prepare_data makes that model. "
            "Set shared.base_model, and run prepare_data."
        )
    return str(run / "data" / "model")


def prepare_embedded_model(base_model: str, dataset: str, train_rows: list[dict[str, Any]], run: Run) -> str:
    """Makes the embedded model, where that is the base model, keeps it in the run, and returns its name; else ""."""
    if base_model != "embedded":
        return ""
    model = embedded_model_for(dataset, train_rows)
    keep_embedded_model(model, run)
    return model.name


def keep_embedded_model(model: Path, run: Run) -> None:
    """Copies an embedded model into a run, which another session may resume."""
    shutil.rmtree(run / "data" / "model", ignore_errors=True)
    shutil.copytree(model, run / "data" / "model")


def embedded_model_for(dataset: str, train_rows: list[dict[str, Any]]) -> Path:
    """Returns the embedded model for a run: made from the embedded corpus's training part, never from a test row.

    A run on the embedded corpus passes its own training part; any other data set gets the default split's.
    """
    if dataset != "embedded":
        corpus = clean_table(load_table("embedded")[0])
        links = link_rows(corpus.kept, DEFAULT_SPLIT["near_duplicate"])
        corpus = split_corpus(corpus, links, DEFAULT_SPLIT["shares"], DEFAULT_SPLIT["seed"])
        train_rows = make_parts(corpus.kept, "", "embedded")["train"]
    texts = [row["text"] for row in train_rows if "text" in row]
    messages = (message for row in train_rows for message in row.get("messages", []))
    return embedded_model_folder(texts + [message["content"] for message in messages if message["role"] != "system"])


def embedded_model_folder(texts: list[str], steps: int = 0) -> Path:
    """Returns the folder of the embedded model for these training texts, building it when it is not cached.

    The name carries a hash of the texts and of everything above, so that another corpus or recipe gives another model.
    """
    steps = steps or min(STEPS, math.ceil(len(texts) / TEXTS_PER_STEP))
    from transformers.utils import logging

    recipe = repr((VOCABULARY, SHAPE, SPECIAL, steps, BATCH, BLOCK, LEARNING_RATE, PIECES, LLAMA_3.template, texts))
    target = cache_folder() / f"tiny-llama-{hashlib.blake2b(recipe.encode(), digest_size=6).hexdigest()}"
    if not (target / "config.json").is_file():
        beside = cache_folder() / f".{target.name}.{os.getpid()}"
        tokenizer = build_tokenizer(texts)
        logging.disable_progress_bar()  # of the one file that is written
        build_model(tokenizer, texts, steps).save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        try:
            beside.rename(target)
        except OSError:  # another process was first, with the same content
            shutil.rmtree(beside)
    return target


def build_tokenizer(texts: list[str]) -> Tokenizer:
    """Returns a byte-level BPE tokenizer trained on the texts, with Llama 3's special tokens and layout."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(  # as Llama's: BOS unless add_special_tokens=False
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, SPECIAL.index(BEGIN))]
    )
    longest = SHAPE["max_position_embeddings"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BEGIN, model_max_length=longest)
    return prepare_tokenizer(tokenizer)


def build_model(tokenizer: Tokenizer, texts: list[str], steps: int) -> Any:
    """Returns the small Llama after `steps` of next-token training on the plain texts; the same for the same input."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **SHAPE,
        )
        model = LlamaForCausalLM(config)
        end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        stream = [token for line in texts for token in [*tokenizer(line, add_special_tokens=False)["input_ids"], end]]
        stream = torch.tensor(stream * (1 + BLOCK // len(stream)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
        for step in range(steps):
            starts = torch.randint(len(stream) - BLOCK + 1, (BATCH,))
            block = torch.stack([stream[start : start + BLOCK] for start in starts])  # (rows, tokens)
            model(input_ids=block, labels=block).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            report_progress(step + 1, steps, "embedded model")
    return model.eval()
