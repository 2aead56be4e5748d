"""The embedded model: a small Llama with Llama 3's special tokens and layout, made here in under a minute on a CPU.

It shows that the pipeline works; it says nothing about what an 8B model would answer.
"""

import hashlib
import math
import os
import shutil
from pathlib import Path

from helpers import chat, corpus, env, plan

VOCABULARY = plan.SHAPES["embedded"]["vocab_size"]
SHAPE = {name: value for name, value in plan.SHAPES["embedded"].items() if name != "vocab_size"}
SPECIAL = [chat.BEGIN, chat.END, chat.PAD, chat.HEADER, chat.HEADER_END, chat.END_OF_TEXT]
STEPS, BATCH, BLOCK, LEARNING_RATE = 180, 8, 192, 2e-3  # pre-training: most steps, rows, tokens a row
TEXTS_A_STEP = 2.8  # fewer texts get fewer steps: more would learn them by heart
DEFAULT_SPLIT = 0.8, 0.8, 0.1, 3407  # near_duplicate, train share, val share, seed: the parameters cell's
PIECES = r" ?[\p{L}\p{M}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"  # whole Bengali words, vowel signs included


def cache() -> Path:
    """Returns where embedded models are kept: $SAHANUBHUTI_CACHE, else outputs/.cache of the checkout.

    A checkout that cannot be written to (an attached Kaggle input) uses ~/.cache.
    """
    beside = env.ROOT / "outputs" if os.access(env.ROOT, os.W_OK) else Path.home()
    return Path(os.environ.get("SAHANUBHUTI_CACHE") or beside / ".cache")


def locate(base_model: str, run: Path) -> str:
    """Returns what the loaders take: `base_model`, or for "embedded" the copy that the run keeps with its data.

    Raises ValueError when the data were prepared for another base model.
    """
    if base_model != "embedded":
        return base_model
    if not (run / "data" / "model" / "config.json").is_file():
        raise ValueError("base_model is 'embedded', but the data were prepared for another. Set shared.base_model.")
    return str(run / "data" / "model")


def folder(texts: list[str], steps: int = 0) -> Path:
    """Returns the folder of the embedded model for these training texts, building it when it is not cached.

    The name carries a hash of the texts and of everything above, so that another corpus or recipe gives another model.
    """
    steps = steps or min(STEPS, math.ceil(len(texts) / TEXTS_A_STEP))
    recipe = repr((VOCABULARY, SHAPE, SPECIAL, steps, BATCH, BLOCK, LEARNING_RATE, PIECES, chat.TEMPLATE, texts))
    target = cache() / f"tiny-llama-{hashlib.blake2b(recipe.encode(), digest_size=6).hexdigest()}"
    if not (target / "config.json").is_file():
        beside = cache() / f".{target.name}.{os.getpid()}"
        tokenizer = build_tokenizer(texts)
        build_model(tokenizer, texts, steps).save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        try:
            beside.rename(target)
        except OSError:  # another process was first, with the same content
            shutil.rmtree(beside)
    return target


def keep(model: Path, run: Path) -> None:
    """Copies an embedded model to a run, which another session may go on with."""
    shutil.rmtree(run / "data" / "model", ignore_errors=True)
    shutil.copytree(model, run / "data" / "model")


def folder_for(dataset: str, train_rows: list[dict]) -> Path:
    """Returns the embedded model for a run: made from the embedded corpus's training part, never from a test row.

    A run on the embedded corpus passes its own training part; any other data set gets the default split's.
    """
    if dataset != "embedded":
        table = corpus.clean(corpus.load("embedded")[0])[0]
        near_duplicate, *shares, seed = DEFAULT_SPLIT
        pairs = [pair for found in corpus.links(table, near_duplicate).values() for pair in found]
        table["group"], table["part"] = corpus.divide(table, pairs, shares, seed, near_duplicate)
        train_rows = corpus.data_rows(table[table.part == "train"], "", "embedded")
    plain = [row["text"] for row in train_rows if "text" in row]
    spoken = (message for row in train_rows for message in row.get("messages", []) if message["role"] != "system")
    return folder(plain + [message["content"] for message in spoken])


def build_tokenizer(texts: list[str]):
    """Returns a byte-level BPE tokenizer trained on the texts, with Llama 3's special tokens and layout."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(  # as Llama's: BOS unless add_special_tokens=False
        single=f"{chat.BEGIN} $A", special_tokens=[(chat.BEGIN, SPECIAL.index(chat.BEGIN))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=chat.BEGIN, model_max_length=SHAPE["max_position_embeddings"]
    )
    return chat.prepare_tokenizer(tokenizer)


def build_model(tokenizer, texts: list[str], steps: int):
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
        end = tokenizer.convert_tokens_to_ids(chat.END_OF_TEXT)
        stream = [token for line in texts for token in [*tokenizer(line, add_special_tokens=False)["input_ids"], end]]
        stream = torch.tensor(stream * (1 + BLOCK // len(stream)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
        model.train()
        for step in range(steps):
            starts = torch.randint(len(stream) - BLOCK + 1, (BATCH,))
            block = torch.stack([stream[start : start + BLOCK] for start in starts])  # (rows, tokens)
            loss = model(input_ids=block, labels=block).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            env.progress(step + 1, steps, "embedded model")
    return model.eval()
