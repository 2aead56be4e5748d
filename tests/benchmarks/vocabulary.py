"""Does it pay to add Bengali tokens to Llama 3's vocabulary? A tiny base, fine-tuned with and without them.

PYTHONPATH=src:tests/support python tests/benchmarks/vocabulary.py --tokenizer FOLDER|llama3 --base-text FILE …
    --rows FILE … [--arms lora rows 256 1000 4000] [--seeds 0 1 2] [--base-steps N] [--marks 0 50 100] [--work DIR]

The base is a Llama of a million parameters, pretrained here on the lines of `--base-text` in those of the tokenizer's
own tokens that occur. It is then fine-tuned on the embedded corpus and the lines of `--rows`, a tenth of which is held
out, in steps of equally many tokens: the 8B shape computes them in the same time, whatever the vocabulary. Arms:
`lora`; `rows`, which also trains the rows of all old tokens; N, which adds N tokens that are learned from the training
rows alone: their rows start as the mean of the pieces that they replace, trained by PEFT's trainable_token_indices.
Every arm has the learning rate, of `--rates`, that is best for it on validation rows with the first seed. Scores are
bits per character of held-out rows, intervals a bootstrap over rows of the seeds' mean. What has been computed is kept
in `--work`: several processes can share the arms (`--compute`).
"""

import argparse
import itertools
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import llama3
import numpy
import torch
from new_tokens import Corpus, Rows, Vocabulary, describe_vocabularies, read_corpus
from peft import LoraConfig, get_peft_model
from transformers import BatchEncoding, LlamaConfig, LlamaForCausalLM

from helpers.evaluation.resampling import weighted_interval
from helpers.models.batching import cut_batches
from helpers.models.chat import IGNORED, answers_of
from helpers.models.likelihood import score_tokens
from helpers.reporting.tables import markdown_table
from helpers.runs.files import write_json

SHAPE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "rope_theta": 500000.0}
BLOCK, BLOCKS = 256, 2  # tokens of a text in pretraining, texts of a step
STEP_TOKENS = 1024  # of a step of fine-tuning, pads included
SCORED_TOKENS = 4096  # of a batch that is scored
BASE_RATE = 2.0e-3
WARMUP_STEPS = 10
DRAWS, LEVEL = 2000, 95.0

Example = dict[str, list[int]]


class Run(NamedTuple):
    """A training of an arm."""

    arm: str
    seed: int
    rate: float


def compact(example: Example, places: dict[int, int]) -> Example:
    """Returns an example in the places that its ids have in the tiny model's tables."""
    labels = [label if label == IGNORED else places[label] for label in example["labels"]]
    return {"input_ids": [places[number] for number in example["input_ids"]], "labels": labels}


def collate(examples: list[Example]) -> BatchEncoding:
    """Returns the batch, padded at the end."""
    width = max(len(example["input_ids"]) for example in examples)

    def pad(key: str, value: int) -> torch.Tensor:
        return torch.tensor([example[key] + [value] * (width - len(example[key])) for example in examples])

    mask = [[1] * len(e["input_ids"]) + [0] * (width - len(e["input_ids"])) for e in examples]
    data = {"input_ids": pad("input_ids", 0), "labels": pad("labels", IGNORED), "attention_mask": torch.tensor(mask)}
    return BatchEncoding(data)


def train(model: Any, batches: Any, rate: float, steps: int, after: Any) -> None:
    """Trains all that has a gradient for so many steps at a constant rate, and calls `after` with each."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS))
    after(0)
    for step, batch in enumerate(itertools.islice(batches, steps), 1):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        after(step)


def base_batches(ids: list[int], seed: int) -> Any:
    """Yields batches of whole blocks of the text, in random order, for ever."""
    blocks = [ids[start : start + BLOCK] for start in range(0, len(ids) - BLOCK + 1, BLOCK)]
    rng = random.Random(seed)
    while True:
        rng.shuffle(blocks)
        for start in range(0, len(blocks) - BLOCKS + 1, BLOCKS):
            yield collate([{"input_ids": block, "labels": block} for block in blocks[start : start + BLOCKS]])


def row_batches(examples: list[Example], seed: int) -> Any:
    """Yields batches of at most STEP_TOKENS tokens of rows of similar length, in random order, for ever."""
    rng, lengths = random.Random(seed), [len(example["input_ids"]) for example in examples]
    while True:
        order = sorted(range(len(examples)), key=lambda row: lengths[row] + rng.random() * 20)
        batches = cut_batches(order, lengths, max_tokens=STEP_TOKENS)
        rng.shuffle(batches)
        for batch in batches:
            yield collate([examples[row] for row in batch])


def build_base(
    vocabulary: Vocabulary, corpus: Corpus, places: dict[int, int], steps: int, file: Path
) -> LlamaForCausalLM:
    """Returns the base, trained or from its file."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=len(places), tie_word_embeddings=False))
    if file.exists():
        model.load_state_dict(torch.load(file))
        return model
    end = vocabulary.plain.convert_tokens_to_ids(vocabulary.plain.chat_format.end_of_text)
    encoded = vocabulary.plain(corpus.base, add_special_tokens=False, verbose=False)["input_ids"]
    ids = [places[number] for line in encoded for number in [*line, end]]
    began, characters = time.perf_counter(), sum(map(len, corpus.base))
    examples = [compact(example, places) for example in vocabulary.parts["val"]]

    def report(step: int) -> None:
        if step % 200 == 0:
            torch.save(model.state_dict(), file.with_stem(f"base-{step}"))
            bits = bits_per_character(likelihoods(model, examples), corpus.val)
            print(f"base: step {step}, {bits:.3f} bits per character", round(time.perf_counter() - began), flush=True)

    print(f"base: {model.num_parameters():,} parameters, {len(ids):,} tokens of {characters:,} characters", flush=True)
    train(model, base_batches(ids, 0), BASE_RATE, steps, report)
    return model


def likelihoods(model: Any, examples: list[Example]) -> list[float]:
    """Returns the nats of each row's labels."""
    lengths, nats = [len(example["input_ids"]) for example in examples], [0.0] * len(examples)
    for batch in cut_batches(sorted(range(len(examples)), key=lengths.__getitem__), lengths, max_tokens=SCORED_TOKENS):
        nll, _, owner = score_tokens(model, collate([examples[row] for row in batch]))
        for place, row in enumerate(batch):
            nats[row] = float(nll[owner == place].sum())
    return nats


def characters_of(rows: Rows) -> numpy.ndarray:
    """Returns the characters that each row is scored for."""
    return numpy.array([sum(map(len, answers_of(row))) for row in rows])


def bits_per_character(nats: Any, rows: Rows) -> float:
    """Returns the bits per character of rows with these likelihoods."""
    return float(numpy.sum(nats) / characters_of(rows).sum() / math.log(2))


def add_rows(base: LlamaForCausalLM, pieces: list[list[int]]) -> None:
    """Adds a row to both tables for each new token: the mean of the rows of its pieces."""
    known = base.config.vocab_size
    base.resize_token_embeddings(known + len(pieces), mean_resizing=False)
    for table in (base.get_input_embeddings().weight, base.get_output_embeddings().weight):
        table.data[known:] = torch.stack([table[own].mean(0) for own in pieces]).detach()


def fine_tune(
    run: Run, vocabulary: Vocabulary, base: LlamaForCausalLM, corpus: Corpus, places: dict[int, int], marks: list[int]
) -> dict[str, Any]:
    """Trains an arm on the base; returns the nats of the held-out rows after each number of steps in `marks`."""
    torch.manual_seed(run.seed)
    known = len(places)
    trained: Any = {}
    if vocabulary.tokens:
        add_rows(base, [[places[piece] for piece in pieces] for pieces in vocabulary.pieces])
        places = places | {vocabulary.old + number: known + number for number in range(len(vocabulary.tokens))}
    if run.arm != "lora":
        ids = [*range(known, len(places))] if vocabulary.tokens else [*range(known)]
        trained = {"trainable_token_indices": {"embed_tokens": ids, "lm_head": ids}}
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", **trained))
    examples = {part: [compact(example, places) for example in rows] for part, rows in vocabulary.parts.items()}
    began, results = time.perf_counter(), {}

    def report(step: int) -> None:
        if step in marks:
            results[step] = likelihoods(model, examples["test"])
            bits = bits_per_character(results[step], corpus.test)
            seconds = round(time.perf_counter() - began)
            print(f"{run.arm} {run.seed} {run.rate:g}: {step} steps, {bits:.3f}, {seconds} s", flush=True)

    train(model, row_batches(examples["train"], run.seed), run.rate, max(marks), report)
    tokens = sum(len(example["input_ids"]) for example in examples["train"])
    return {"steps": results, "val": sum(likelihoods(model, examples["val"])), "train_tokens": tokens}


def pick_rate(results: dict[float, dict[str, Any]]) -> float:
    """Returns the learning rate with the least loss on the validation rows."""
    return min(results, key=lambda rate: results[rate]["val"])


def compare_arms(results: dict[str, list[dict[str, Any]]], rows: Rows, chosen: list[int]) -> str:
    """Returns the table of bits per character of the chosen held-out rows by steps, and of the differences from the
    first arm: an interval of a bootstrap over rows, of the mean of the seeds."""
    rows = [rows[place] for place in chosen]
    characters, first, table = characters_of(rows).astype(float), next(iter(results)), []

    def nats(arm: str, step: str) -> numpy.ndarray:  # (seeds, rows)
        return numpy.array([result["steps"][step] for result in results[arm]])[:, chosen]

    for arm, step in itertools.product(results, results[first][0]["steps"]):
        own, other = nats(arm, step), nats(first, step)
        seeds = [bits_per_character(each, rows) for each in own]
        values = (own.mean(0) - other.mean(0)) / characters / math.log(2)
        low, high = weighted_interval(values, characters, DRAWS, LEVEL, 0)
        difference = float(numpy.average(values, weights=characters))
        epochs = int(step) * STEP_TOKENS / results[arm][0]["train_tokens"]
        cells = {"arm": arm, "steps": step, "epochs": f"{epochs:.1f}", "bits": f"{numpy.mean(seeds):.3f}"}
        cells["of the seeds"] = f"{min(seeds):.3f} to {max(seeds):.3f}"
        cells["difference"] = f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
        table.append(cells)
    return markdown_table(table)


def train_arms(options: argparse.Namespace, arms: dict[str, Vocabulary], corpus: Corpus) -> dict[str, Any]:
    """Returns the results of each arm's seeds at its learning rate, trained now or read from `options.work`."""
    plain = arms[options.arms[0]].plain
    end = plain.convert_tokens_to_ids(plain.chat_format.end_of_text)
    base_ids = itertools.chain([end], *plain(corpus.base, add_special_tokens=False, verbose=False)["input_ids"])
    known = sorted({*base_ids}.union(*(vocabulary.old_ids() for vocabulary in arms.values())))
    places, results = {number: place for place, number in enumerate(known)}, {}

    def train_once(run: Run) -> dict[str, Any]:
        file = options.work / f"{run.arm}-{run.seed}-{run.rate:g}-{options.base_steps}-{max(options.marks)}.json"
        if not file.exists():
            kept = options.work / f"base-{options.base_steps}.pt"
            base = build_base(arms[run.arm], corpus, places, options.base_steps, kept)
            write_json(file, fine_tune(run, arms[run.arm], base, corpus, places, options.marks))
        return json.loads(file.read_text())

    for arm in options.compute or options.arms:
        rate = pick_rate({rate: train_once(Run(arm, options.seeds[0], rate)) for rate in options.rates})
        print(f"{arm}: learning rate {rate:g}", flush=True)
        results[arm] = [train_once(Run(arm, seed, rate)) for seed in options.seeds]
    return results


def main() -> None:
    """Trains what is not there yet and prints the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--tokenizer", required=True, help="a folder, or llama3")
    parser.add_argument("--base-text", type=Path, nargs="+", required=True)
    parser.add_argument("--rows", type=Path, nargs="*", default=[])
    parser.add_argument("--arms", nargs="+", default=["lora", "rows", "256", "1000", "4000"])
    parser.add_argument("--compute", nargs="+", help="of the arms, those to train in this process")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 6e-3])
    parser.add_argument("--marks", type=int, nargs="+", default=[0, 50, 100], help="steps that are scored")
    parser.add_argument("--base-steps", type=int, default=1200)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vocabulary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.tokenizer == "llama3":
        options.tokenizer = str(options.work / "tokenizer")
        llama3.build_tokenizer(options.work).save_pretrained(options.tokenizer)
    corpus = read_corpus(options.base_text, options.rows)
    arms = {name: Vocabulary(int(name) if name.isdigit() else 0, options.tokenizer, corpus) for name in options.arms}
    if not options.compute:
        print(describe_vocabularies([each for name, each in arms.items() if name != "rows"], corpus), flush=True)
    results = train_arms(options, arms, corpus)
    for name, key in {"conversations": "messages", "lines": "text"}.items():
        if chosen := [place for place, row in enumerate(corpus.test) if key in row]:
            print(f"held-out {name}: {len(chosen)}\n{compare_arms(results, corpus.test, chosen)}", flush=True)


if __name__ == "__main__":
    main()
