"""What people take away: adapter with model card, the merged model, GGUF files, a Space, a push to the Hub."""

import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

import yaml

from helpers import env, generate, model, plan, report, tables, tiny

FORMS = ("adapter", "merged", "gguf", "space")
APART = 0.01  # by how much the perplexity of the merged model may differ from that of base and adapter
LLAMA_CPP = "0c1e57098"  # the commit whose converter was tried, with llama-cpp-python 0.3.36
QUANTISED = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k")


def place(run: Path, scratch: str) -> Path:
    """Returns where large files are made: `scratch`, else /tmp on Kaggle (what it keeps is 20 GB), else the run."""
    if scratch or env.platform() == "kaggle":
        return Path(scratch or "/tmp") / f"sahanubhuti-{run.name}"
    return run / "export"


def sixteen_bit(config: dict, chosen: str, run: Path) -> str:
    """Returns the base model to merge into: `chosen`, else the trained one without the ending of its 4-bit copy."""
    base = chosen or config["base_model"].removesuffix("-bnb-4bit").removesuffix("-unsloth")
    return tiny.locate(base, run)


def check(forms: list[str], gguf_types: list[str], base: str, big: Path) -> None:
    """Raises ValueError for an unknown form or type, OSError where the disk is too small for what is asked for."""
    for name, asked, known in (("forms", forms, FORMS), ("gguf_types", gguf_types, ("f16", *QUANTISED))):
        unknown = [one for one in asked if one not in known]
        if unknown:
            raise ValueError(f"export.{name} has {', '.join(unknown)}: expected some of {', '.join(known)}.")
    size = 2 * plan.parameters(plan.model_shape(base), {"target_modules": []})["base"] / 1e9  # GB in 16 bits
    copies = 1.1 * (bool({"merged", "gguf"} & set(forms)) + ("gguf" in forms) * (1 + 0.5 * len(gguf_types)))
    big.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(big).free / 1e9
    if size * copies > free:
        raise OSError(
            f"{big} has {free:.1f} GB free, {', '.join(forms)} need about {size * copies:.1f} GB: set export.scratch "
            f"to a larger disk, or ask for fewer forms."
        )


def adapter(run: Path, folder: Path) -> dict:
    """Writes the adapter, its tokenizer and its model card, whole or not at all; returns its size in bytes."""
    config = env.read_json(run / "train" / "config.json")
    with _whole(folder) as beside:
        shutil.copytree(run / "train" / "adapter", beside, dirs_exist_ok=True)
        model.load_tokenizer(tiny.locate(config["base_model"], run)).save_pretrained(beside)
        env.write_text(beside / "README.md", card(run))
    return {"folder": str(folder), "bytes": _size(folder)}


class _whole:
    """Makes a folder beside its place and puts it there when all of it is written."""

    def __init__(self, folder: Path):
        self.folder, self.beside = folder, folder.with_name(f".{folder.name}.part")

    def __enter__(self) -> Path:
        shutil.rmtree(self.beside, ignore_errors=True)
        self.beside.mkdir(parents=True)
        return self.beside

    def __exit__(self, kind, *_):
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.beside.rename(self.folder)
        else:
            shutil.rmtree(self.beside, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def card(run: Path) -> str:
    """Returns the model card, made from the run's own files; what was not measured reads so."""
    config, record = env.read_json(run / "train" / "config.json"), env.read_json(run / "run.json")
    files = [run / name / "metrics.json" for name in ("data", "train", "evaluate")]
    data, train, judged = (env.read_json(file) if file.is_file() else {} for file in files)
    base = config["base_model"]
    head = {
        "library_name": "peft",
        "language": ["bn"],
        "tags": ["lora", "empathy", "bengali"],
        **({"base_model": base} if "/" in base and not Path(base).exists() else {}),
    }
    lines = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n", f"# {run.name}\n"]
    lines += [f"A LoRA adapter for {base}, trained to answer with empathy in Bengali.\n"]
    if base == "embedded":
        lines += [
            "The embedded model is a sample made on the spot: it shows the pipeline, not the quality of replies.\n"
        ]
    lines += ["## Data\n"]
    if data:
        lines += [
            f"{data['source']}: {data['train']:,} train, {data['val']:,} validation and {data['test']:,} test rows, "
            f"split by group. The data are not part of this repository; mind their licence.\n"
        ]
    lines += ["## Training\n"]
    facts = {
        "adapter": f"r {config['lora'].get('r')}, alpha {config['lora'].get('lora_alpha')}",
        "backend": f"{config['backend']}, {'4-bit' if config['load_in_4bit'] else '16-bit'} base",
        "learning rate": config["learning_rate"],
        **{
            name.replace("_", " "): train.get(name)
            for name in ("effective_batch", "optimizer_steps", "epochs", "dtype")
        },
        "commit": (record["stages"].get("train", {}).get("git_sha") or "not known")[:10],
    }
    lines += [f"- {name}: {'not measured' if value is None else value}" for name, value in facts.items()]
    lines += ["\n## Scores\n"]
    if judged:
        lines += [f"{report.headline(judged)}\n", "| score | base | tuned | tuned − base, 95 % interval | verdict |"]
        lines += ["|---|---|---|---|---|"]
        lines += [
            f"| {row['score']} ({row['better']}) | {row['base']} | {row['tuned']} | {row['tuned − base']} "
            f"({row['95 % interval']}) | {row['verdict']} |"
            for row in tables.score_rows(judged)
        ]
    else:
        lines += ["Not measured."]
    lines += [
        "\n## Limits\n",
        "It is no therapist and no doctor and may be wrong. It does not replace help in a crisis: whoever serves it "
        "has to show people's numbers first, as this suite's chat page does. The scores above read words and "
        "likelihoods, not what a person feels.\n",
    ]
    return "\n".join(lines)


def merged(run: Path, base: str, folder: Path, rows: int, seed: int) -> dict:
    """Writes the 16-bit base with the adapter merged into it, and returns how alike the two find test answers.

    `perplexity_adapter` is of base and adapter, `perplexity_merged` of what was written, loaded again. Raises
    ValueError where they differ by more than APART; then nothing is left behind.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokenizer = model.load_tokenizer(base)
    asked = generate.test_rows(run, {"seed": seed, "max_rows": rows})
    loading = {"dtype": "auto", "device_map": "auto" if torch.cuda.is_available() else {"": "cpu"}}

    def perplexity(network) -> float:
        scored = model.likelihood(network, tokenizer, asked, 8, generate.SCORED)
        return math.exp(sum(one["nll"] for one in scored) / sum(one["tokens"] for one in scored))

    network = AutoModelForCausalLM.from_pretrained(base, **loading)
    if getattr(network, "is_quantized", False):
        raise ValueError(f"{base} is quantised: name its 16-bit base in export.base_16bit.")
    tuned = PeftModel.from_pretrained(network, str(run / "train" / "adapter")).eval()
    before = perplexity(tuned)
    with _whole(folder) as beside:
        whole = tuned.merge_and_unload(safe_merge=True)
        whole.config.pad_token_id = tokenizer.pad_token_id
        whole.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        del whole, tuned, network
        again = AutoModelForCausalLM.from_pretrained(beside, **loading).eval()
        after = perplexity(again)
        if abs(after / before - 1) > APART:
            raise ValueError(
                f"the merged model's perplexity is {after:.3f}, that of base and adapter {before:.3f}: more than "
                f"{APART:.0%} apart over {len(asked)} rows. Is {base} the base that was trained on?"
            )
    return {
        "folder": str(folder),
        "bytes": _size(folder),
        "dtype": str(again.dtype).removeprefix("torch."),
        "rows": len(asked),
        "perplexity_adapter": before,
        "perplexity_merged": after,
    }


def gguf(run: Path, source: Path, folder: Path, types: list[str], llama_cpp: str) -> dict:
    """Writes GGUF files of a merged model with llama.cpp's own converter, quantised by llama-cpp-python.

    Returns {type: {"file", "bytes"}}. Raises OSError where the converter cannot be fetched, ModuleNotFoundError where
    quantising needs a package.
    """
    if set(types) & set(QUANTISED):
        try:
            import llama_cpp as library
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("quantised GGUF needs a package: pip install llama-cpp-python") from error
    converter = _converter(llama_cpp, folder.parent) / "convert_hf_to_gguf.py"
    if not converter.is_file():
        raise FileNotFoundError(f"{converter} is not there: export.llama_cpp is to be a checkout of llama.cpp.")
    found = {}
    with _whole(folder) as beside:
        first = beside / f"{run.name}-f16.gguf"
        path = os.pathsep.join([str(converter.parent / "gguf-py"), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-c", CONVERT, str(converter), str(source)]
        command += ["--outtype", "f16", "--outfile", str(first)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
        if done.returncode:
            raise RuntimeError(f"llama.cpp's converter ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
        for kind in types:
            file = beside / f"{run.name}-{kind}.gguf"
            if kind != "f16":
                settings = library.llama_model_quantize_default_params()
                settings.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
                if library.llama_model_quantize(str(first).encode(), str(file).encode(), settings):
                    raise RuntimeError(f"llama.cpp could not quantise to {kind}.")
            found[kind] = {"file": str(folder / file.name), "bytes": file.stat().st_size}
        if "f16" not in types:
            first.unlink()
    return found


def _converter(llama_cpp: str, beside: Path) -> Path:
    """Returns a folder with llama.cpp's converter: the one named, else the pinned one, fetched once."""
    if llama_cpp:
        return Path(llama_cpp)
    folder = beside / f"llama.cpp-{LLAMA_CPP}"
    if not folder.is_dir():
        address = f"https://github.com/ggml-org/llama.cpp/archive/{LLAMA_CPP}.tar.gz"
        try:
            with tempfile.TemporaryDirectory(dir=beside) as scratch:
                with urllib.request.urlopen(address, timeout=60) as answer:
                    (Path(scratch) / "archive").write_bytes(answer.read())
                with tarfile.open(Path(scratch) / "archive") as tar:
                    tar.extractall(scratch, filter="data")
                next(Path(scratch).glob("llama.cpp-*")).rename(folder)
        except (OSError, tarfile.TarError) as error:
            raise OSError(
                f"llama.cpp's converter could not be fetched from {address} ({env.brief(error)}): switch the internet "
                f"on, or set export.llama_cpp to a checkout."
            ) from error
    return folder


CONVERT = '''
import runpy, sys
from pathlib import Path

sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
from conversion.base import TextModel

recognised = TextModel.get_vocab_base_pre


def splits_as(self, tokenizer):
    """Says how a tokenizer splits words: as Llama 3's, where the converter does not know it (the embedded model's)."""
    try:
        return recognised(self, tokenizer)
    except NotImplementedError:
        return "llama-bpe"


TextModel.get_vocab_base_pre = splits_as
runpy.run_path(sys.argv[0], run_name="__main__")
'''
APP = '''"""The chat page of a run, as a Hugging Face Space."""

import sys
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here / "src"))
from helpers import app

raise SystemExit(app.main(["--run", str(here / "run"), "--host", "0.0.0.0"]))
'''


def space(run: Path, folder: Path) -> dict:
    """Writes a folder that Hugging Face serves as the chat page, and returns its size. Holds no row of the data."""
    config = env.read_json(run / "train" / "config.json")
    pins = [line.split("#")[0].strip() for line in (env.ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    wanted = (
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "regex",
        "pandas",
        "pyyaml",
        "jinja2",
        "numpy",
        "packaging",
    )
    pins = [pin for pin in pins if pin.split("=")[0].split(">")[0].split("<")[0] in wanted]
    head = {
        "title": run.name,
        "sdk": "gradio",
        "sdk_version": _version("gradio", "6.31.0"),
        "app_file": "app.py",
        "python_version": "3.12",
        "pinned": False,
    }
    with _whole(folder) as beside:
        env.write_text(beside / "app.py", APP)
        env.write_text(
            beside / "requirements.txt", "\n".join([*pins, *["bitsandbytes"] * config["load_in_4bit"]]) + "\n"
        )
        env.write_text(beside / "README.md", f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n{_body(card(run))}")
        kept = shutil.ignore_patterns("__pycache__", "*.csv", "kaggle.py", "train.py", "run.py")
        shutil.copytree(Path(__file__).parent, beside / "src" / "helpers", ignore=kept)
        shutil.copytree(run / "train" / "adapter", beside / "run" / "train" / "adapter")
        env.write_json(beside / "run" / "train" / "config.json", config)
        env.write_json(beside / "run" / "system.json", generate.system_of(run))
        if (run / "data" / "model").is_dir():
            shutil.copytree(run / "data" / "model", beside / "run" / "data" / "model")
            shutil.copy(run / "data" / "metrics.json", beside / "run" / "data" / "metrics.json")
    return {"folder": str(folder), "bytes": _size(folder)}


def _body(page: str) -> str:
    return page.split("---\n", 2)[2].strip() + "\n"


def _version(package: str, otherwise: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return otherwise


def push(folder: Path, repository: str, private: bool) -> str:
    """Uploads a folder to the Hub and returns its address. Raises OSError where the Hub cannot be reached; what was
    built stays, and a later push goes on with it."""
    from huggingface_hub import HfApi

    api = HfApi(token=env.secret("HF_TOKEN"))
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder))
    except Exception as error:  # the library's and its HTTP client's own
        raise OSError(
            f"{repository} could not be pushed to ({env.brief(error)}). What was built stays in {folder}: check the "
            f"token HF_TOKEN and the internet, and run the stage again."
        ) from error
    return str(address)
