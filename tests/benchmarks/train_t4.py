"""Trains the flagship's path on one GPU held to a T4's memory: real Llama 3.1 8B shape, random weights, 4-bit, fp16.

PYTHONPATH=src python tests/benchmarks/train_t4.py [--backend unsloth|peft] [--steps 20] [--memory 14.56] [--gpus 1]

Needs about 17 GB below --work for the weights, which are made once. Ends with one table.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

from helpers import chat, corpus, env, presets, tiny

SHAPE = {  # Llama 3.1 8B
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
MEDIAN, SIGMA, LONGEST = 219, 0.62, 2048  # tokens a row: lognormal, P95 near 600, like the corpus


def make_model(folder: Path) -> None:
    """Saves a random-weight model of SHAPE in fp16 with the embedded tokenizer; run in a process of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny.build_tokenizer(answers())
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    config = LlamaConfig(
        **SHAPE,
        dtype="float16",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("cuda"):
        network = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def answers() -> list[str]:
    """Returns the embedded corpus's answers."""
    return list(corpus.load("embedded")[0].Answers)


def make_data(folder: Path, tokenizer, rows: int) -> None:
    """Writes train and val rows of the corpus's token lengths, made of embedded answers; the longest row included."""
    rng = random.Random(0)
    pool = answers()
    made = []
    for number in range(rows):
        wanted = LONGEST if number == 0 else min(LONGEST, rng.lognormvariate(0, SIGMA) * MEDIAN)
        spoken = [rng.choice(pool)]
        while True:
            row = {
                "id": f"row{number:05d}",
                "messages": [
                    {"role": "user", "content": rng.choice(pool)},
                    {"role": "assistant", "content": " ".join(spoken)},
                ],
            }
            length = len(chat.encode(tokenizer, row)["input_ids"])
            if length >= wanted:
                break
            spoken.append(rng.choice(pool))
        if length <= LONGEST:
            made.append(row)
    env.write_jsonl(folder / "train.jsonl", made[:-16])
    env.write_jsonl(folder / "val.jsonl", made[-16:])
    env.write_json(folder / "metrics.json", {"base_model": "made here", "embedded_model": ""})


def main() -> None:
    """Makes what is missing, trains, prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="unsloth")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--memory", type=float, default=14.56, help="GiB the process may use")
    parser.add_argument("--batch", type=int, default=0, help="rows a micro-batch; 0: the preset's")
    parser.add_argument("--gpus", type=int, default=1, help="one process each; the limit then holds for none of them")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sahanubhuti-bench"))
    options = parser.parse_args()
    base = options.work / "llama-8b-random"
    if not (base / "config.json").is_file():
        began = time.perf_counter()
        code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        code += f"import train_t4; train_t4.make_model(train_t4.Path({str(base)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True)
        print(f"random weights made in {time.perf_counter() - began:.0f} s", flush=True)
    sets = [f"shared.base_model={base}", f"train.backend={options.backend}", f"train.num_gpus={options.gpus}"]
    sets += [f"train.sft.max_steps={options.steps}", "train.sft.fp16=true", "train.sft.logging_steps=1"]
    sets += ["train.sft.warmup_steps=2"]
    sets += [f"train.per_device_train_batch_size={options.batch}"] if options.batch else []
    settings = presets.resolve("kaggle-t4x2", f"t4-{options.backend}", str(options.work), sets, tiny=False)
    folder = env.run_folder(str(options.work), f"t4-{options.backend}")

    from helpers import model, train

    if options.gpus == 1:
        model.start_backend(options.backend)
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(options.memory * 2**30 / total)
    make_data(folder / "data", model.load_tokenizer(str(base)), 1200)
    types = {name: kind for name, (_, kind) in presets.parameters_cell("train").items()}
    env.start_stage("train", {"__annotations__": types, **settings["train"]})
    metrics = train.launch(folder, train.resolve(folder))
    log = [entry for entry in env.read_jsonl(folder / "train" / "log.jsonl") if "loss" in entry]
    print(f"\n{torch.cuda.get_device_name()} held to {options.memory} GiB, torch {torch.__version__}")
    print("losses", [round(entry["loss"], 3) for entry in log])
    print("gradient norms", [round(entry.get("grad_norm", float("nan")), 4) for entry in log])
    rows = "backend dtype trainable_parameters total_parameters optimizer_steps effective_batch train_loss val_loss"
    for name in [*rows.split(), "tokens_seen", "useful_token_fraction", "tokens_per_second", "peak_memory_gib"]:
        print(f"| {name} | {metrics[name]} |")
    adapter = folder / "train" / "adapter" / "adapter_model.safetensors"
    from safetensors.torch import load_file

    moved = sum(float(value.abs().sum()) > 0 for key, value in load_file(adapter).items() if "lora_B" in key)
    print(f"| adapter | {adapter.stat().st_size / 2**20:.1f} MiB, {moved} B matrices moved |")


if __name__ == "__main__":
    main()
