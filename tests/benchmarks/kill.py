"""Kills a run with SIGKILL at random moments and compares what it ends with to an uninterrupted run.

PYTHONPATH=src python tests/benchmarks/kill.py [--kills 50] [--seed 0] [--work DIR] [--prefer]

Each kill takes the runner, the notebook's kernel and their children at once. A run that finishes before all kills are
done is compared, and another one begins. With --prefer the runs also train by preferences, and kills fall there.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from helpers.runs.checkpoints import verify_checkpoint
from helpers.runs.files import file_sha256, read_json, read_jsonl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from kaggle_machine import kill  # noqa: E402

SETTINGS = ["train.sft.max_steps=30", "train.sft.save_strategy=steps", "train.sft.save_steps=3", "train.eval_rows=6"]
SETTINGS += ["train.sft.eval_strategy=steps", "train.sft.eval_steps=6", "train.backend=peft"]
SETTINGS += ["evaluate.max_rows=20", "evaluate.batch_size=1", "evaluate.max_new_tokens=40"]
TARGETS = ("train", "evaluate", "any")  # stages to hit; "any" also hits what is between them
PREFER = ["prefer.trl.max_steps=20", "prefer.trl.save_strategy=steps", "prefer.trl.save_steps=2", "prefer.seed=1"]
PREFER += ["prefer.trl.eval_strategy=steps", "prefer.trl.eval_steps=5", "prefer.learning_rate=1e-3"]


def write_pairs(file: Path) -> None:
    """Writes pairs about prompts that no run has: the shorter reply is preferred."""
    words = ("নদী", "পাহাড়", "জানালা", "বৃষ্টি", "স্কুল", "বাজার", "ট্রেন", "বাগান", "চিঠি", "গান", "রান্না", "ছাদ", "পুকুর", "আয়না")
    rows = [
        {
            "prompt": f"{word} দেখলেই পুরোনো দিনের কথা খুব মনে পড়ে যায় আমার {word} {word}{number}।",
            "chosen": f"আপনার কষ্টটা বুঝতে পারছি, {word}।",
            "rejected": f"আপনার কষ্টটা বুঝতে পারছি, আমি পাশে আছি, {word} নিয়ে আরও কিছু বলবেন কি আমাকে আজ?",
        }
        for number, word in enumerate(words)
    ]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def start(outputs: Path, name: str, settings: list[str]) -> subprocess.Popen:
    """Starts the tiny demo in a process group of its own."""
    command = [sys.executable, "-m", "helpers", "run", "--preset", "demo", "--tiny", "--outputs", str(outputs)]
    stages = "prepare_data,train,prefer,evaluate" if "prefer.seed=1" in settings else "prepare_data,train,evaluate"
    command += ["--run-name", name, "--stages", stages, "--set", *settings]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def stage_now(run: Path) -> str:
    """Returns the stage that is running, "" before the first."""
    if not (run / "run.json").is_file():
        return "before"
    stages = read_json(run / "run.json")["stages"]
    return next((name for name, facts in stages.items() if facts.get("status") == "running"), "between stages")


def outcome(run: Path) -> dict:
    """Returns what a run ended with: hashes of the adapter and the replies, losses; every file must be complete."""
    for path in run.rglob("*"):
        if path.suffix == ".json" and path.is_file():
            json.loads(path.read_text(encoding="utf-8"))
        if path.suffix == ".jsonl":
            read_jsonl(path)
        assert not path.name.endswith(".tmp"), f"{path} was left half-written"
    for folder in run.glob("*/checkpoints/checkpoint-*"):
        assert verify_checkpoint(folder) == "", folder
    rows = {side: read_jsonl(run / f"evaluate/{side}.jsonl") for side in ("base", "tuned")}
    for side in rows.values():
        assert len({row["id"] for row in side}) == len(side)
    log = [[entry["step"], entry.get("loss"), entry.get("eval_loss")] for entry in read_jsonl(run / "train/log.jsonl")]
    adapters = sorted(run.glob("*/adapter/adapter_model.safetensors"))
    scores = read_json(run / "evaluate/metrics.json")
    return {
        **{str(file.relative_to(run)): file_sha256(file) for file in adapters},
        "replies": rows,
        "scores": {name: value for name, value in scores.items() if name in ("base", "tuned", "delta", "preferred")},
        "log": [entry for entry in log if entry[1:] != [None, None]],
        "losses": [
            read_json(file)[name]
            for file in (run / "train/metrics.json", run / "prefer/metrics.json")
            for name in ("train_loss", "val_loss", "tokens_seen")
            if file.is_file()
        ],
    }


def reach(process: subprocess.Popen, run: Path, stage: str) -> bool:
    """Waits until a stage runs; False when the process ended before."""
    while stage != "any" and stage_now(run) != stage:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    return True


def batter(
    outputs: Path,
    kills: int,
    rng: random.Random,
    settings: list[str] = SETTINGS,
    targets: tuple[str, ...] = TARGETS,
) -> dict:
    """Kills runs until `kills` are done, lets the last one finish, and compares; returns counts.

    Raises AssertionError when a run ends with anything else than the uninterrupted one.
    """
    uninterrupted = start(outputs, "whole", settings)
    output = uninterrupted.communicate(timeout=600)[0]
    assert uninterrupted.returncode == 0, output[-3000:]
    expected = outcome(outputs / "whole")
    hit, runs, number = Counter(), 0, 1
    while True:
        run = outputs / f"killed-{number}"
        mirror = [f"shared.session.mirror={outputs / 'mirror'}"]
        process = start(outputs, run.name, settings + mirror)
        if sum(hit.values()) - hit["run folder lost"] < kills and reach(process, run, rng.choice(targets)):
            try:
                process.communicate(timeout=rng.uniform(0.5, 12.0))
            except subprocess.TimeoutExpired:
                hit[stage_now(run)] += 1
                kill(process)
                if rng.random() < 0.2:  # another session, on another machine: all that is left is the mirror
                    shutil.rmtree(run)
                    hit["run folder lost"] += 1
                continue
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output[-3000:]
        result = outcome(run)
        for name, value in expected.items():
            assert result[name] == value, f"{name} differs after {dict(hit)}"
        runs, number = runs + 1, number + 1
        if sum(hit.values()) - hit["run folder lost"] >= kills:
            return {"kills": dict(hit), "runs": runs}


def main() -> None:
    """Runs the bench, prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--prefer", action="store_true")
    options = parser.parse_args()
    began, settings, targets = time.monotonic(), SETTINGS, TARGETS
    work = options.work or Path(tempfile.mkdtemp())
    if options.prefer:
        write_pairs(work / "pairs.jsonl")
        settings, targets = [*SETTINGS, *PREFER, f"prefer.dataset=[{work / 'pairs.jsonl'}]"], ("prefer",)
    counts = batter(work, options.kills, random.Random(options.seed), settings, targets)
    print({**counts, "seconds": round(time.monotonic() - began)})


if __name__ == "__main__":
    main()
