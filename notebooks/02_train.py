# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 · Train
#
# Trains a LoRA adapter with TRL's SFTTrainer, on Unsloth or plain PEFT: one setting. It is trained on the answers only.
#
# Reads `data/`. Writes `train/`: `config.json`, `checkpoints/`, `adapter/`, `log.jsonl`, `metrics.json`.

# %% _kg_hide-input=true cellView="form" jupyter={"source_hidden": true} tags=["setup"]
# @title Set-up: finds the helpers (checkout, attached Kaggle input, package, clone), installs what the platform lacks
import importlib.util
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # from pyproject.toml, [project.urls]
folders = [*Path.cwd().parents, Path.cwd() / "sahanubhuti"]
folders += [path for depth in ("*", "*/*", "*/*/*", "*/*/*/*") for path in Path("/kaggle/input").glob(depth)]
sources = [
    folder / "src" for folder in [Path.cwd(), *folders] if (folder / "src/helpers/platforms/environment.py").is_file()
]
if not sources and importlib.util.find_spec("helpers") is None:
    if not REPOSITORY:
        raise ModuleNotFoundError(
            "the folder src/helpers is not here: start in a checkout, or attach the suite as input."
        )
    subprocess.run(["git", "clone", "-q", "--depth", "1", REPOSITORY, "sahanubhuti"], check=True)
    sources = [Path.cwd() / "sahanubhuti/src"]
sys.path[:0] = map(str, sources[:1])
from helpers.platforms.environment import set_up

set_up()

# %% tags=["parameters"]
run_name: str = "demo"  # a folder under outputs
outputs: str = "outputs"
base_model: str = "embedded"  # "embedded", a folder, or a Hugging Face name
backend: str = "unsloth"  # "unsloth" or "peft"
load_in_4bit: bool = False  # NF4
device_map: str = ""  # "": one GPU holds the model; "balanced": split over the GPUs, which then take turns
num_gpus: int = 1  # one process each, 0: all
max_tokens: int = 0  # of a micro-batch, pads included, 0: sft.per_device_train_batch_size rows
learning_rate: float = 2.0e-4
num_train_epochs: float = 3.0
eval_rows: int = 200  # rows of the fixed validation slice, 0: all
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407
lora: dict = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}  # peft.LoraConfig
sft: dict = {"gradient_accumulation_steps": 8, "lr_scheduler_type": "cosine", "warmup_steps": 0.03}  # trl.SFTConfig

# %%
from dataclasses import asdict

from helpers.planning.checks import start_stage
from helpers.planning.plan import plan_run, plan_table
from helpers.reporting.figures import draw_loss
from helpers.reporting.tables import text_table
from helpers.runs.files import read_jsonl
from helpers.training.config import resolve_config
from helpers.training.launch import launch_training

run = start_stage("train", globals())
config = resolve_config(run)

# %% [markdown]
# ## The plan
# What the run will do, and how long it should take on T4s: an estimate. A run that does not fit the GPU stops here and
# names the setting that would fit.

# %%
plan = plan_run(run, config)
text_table(plan_table(plan))

# %% [markdown]
# ## The configuration, resolved
# What `train/config.json` keeps. A name that another setting decides was refused above.

# %%
text_table(config.to_json())

# %% [markdown]
# ## Training
# The first lines give the dtype with its reason, and the effective batch as a product. A run that was paused or killed
# resumes from its newest valid checkpoint.

# %%
metrics = launch_training(run, config)

# %% [markdown]
# ## The loss

# %%
figure = draw_loss(read_jsonl(run / "train" / "log.jsonl"), run.sessions("train"))

# %%
run.finish_stage("train", {**metrics, "plan": asdict(plan)})
text_table(metrics)
