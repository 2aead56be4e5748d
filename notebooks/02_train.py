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
# Teaches the base model to answer as the training part does. The base model's own weights stay as they are: a small
# LoRA adapter beside them is trained, on the answers only.
#
# **Needs** about two minutes on a CPU for the embedded model; an 8B model needs a GPU and hours, which the plan below
# estimates before anything starts. **Reads** `data/`. **Writes** `train/`: `config.json`, `checkpoints/`, `adapter/`,
# `log.jsonl`, `metrics.json`.

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
session: dict = {"hours": 0.0, "total_hours": 0.0, "mirror": "", "keep": 2, "calibrate": True}  # see docs/sessions.md
seed: int = 3407
lora: dict = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}  # peft.LoraConfig
sft: dict = {"gradient_accumulation_steps": 8, "lr_scheduler_type": "cosine", "warmup_steps": 0.03}  # trl.SFTConfig

# %% [markdown]
# ## The plan
# What will it cost? An estimate made before the model is loaded: for T4s, or for this GPU once it is measured. A run's
# first session measures it, for a few minutes, where `session.calibrate` is set and nobody did before. A run that does
# not fit the GPU stops here and names the setting that would fit.

# %%
from helpers.calibrate import plan_session
from helpers.planning.checks import start_stage
from helpers.planning.plan import plan_table
from helpers.reporting.tables import text_table
from helpers.training.config import resolve_config

run = start_stage("train", globals())
config, plan = plan_session(run, resolve_config(run))
print(f"{plan.train_rows:,} rows to train on, in {plan.optimizer_steps:,} optimizer steps of {plan.effective_batch:g}.")
text_table(plan_table(plan))

# %% [markdown]
# The configuration, resolved: what `train/config.json` keeps, with the libraries' own names. A name that another
# setting decides was refused above.

# %%
text_table(config.to_json())

# %% [markdown]
# ## The base model and its adapter
# What is loaded, and how little of it is trained? With several GPUs each process loads its own copy when the training
# starts.

# %%
from helpers.models.families import model_shape
from helpers.reporting.figures_training import describe_adapter, draw_adapter_share
from helpers.reporting.notebook_parts import picture
from helpers.training.launch import load_here

loaded = load_here(run, config)
shape = model_shape(config.base_model)
picture(draw_adapter_share(shape, config.lora), describe_adapter(shape, config.lora))

# %% [markdown]
# ## What is trained on
# One row as the trainer sees it. The prompt is read, the answer is trained on, with the token that ends it: so the
# model is taught to stop.

# %%
from helpers.models.chat import encode_row, split_into_pieces
from helpers.models.embedded import locate_base_model
from helpers.models.loading import load_tokenizer
from helpers.reporting.notebook_parts import show_trained_tokens
from helpers.runs.files import read_jsonl

tokenizer = load_tokenizer(locate_base_model(config.base_model, run))
example = encode_row(tokenizer, read_jsonl(run / "data" / "train.jsonl")[0])
show_trained_tokens(split_into_pieces(tokenizer, example))

# %% [markdown]
# ## Training
# The first lines give the dtype with its reason, and the effective batch as a product. A run that was paused or killed
# resumes from its newest valid checkpoint. Run by hand, the loss curve is drawn below while it trains.

# %%
from helpers.reporting.live import show_progress
from helpers.training.launch import launch_training

with show_progress(run, "train"):
    metrics = launch_training(run, config, loaded=loaded)

# %% [markdown]
# ## The course of the training
# Did it converge, and does it still help on rows it has not seen? The training loss is that of the rows being trained
# on, at that step; the validation loss is that of held-out rows. How far the second stays above the first is what does
# not carry over.

# %%
from helpers.reporting.figures_training import describe_training, draw_training

log = read_jsonl(run / "train" / "log.jsonl")
picture(draw_training(log, run.sessions("train")), describe_training(log))

# %% [markdown]
# ## Against the plan
# Was the estimate right? One that is made for T4s says nothing of another GPU, or of a CPU: there only steps and tokens
# can be compared.

# %%
from dataclasses import asdict

from helpers.reporting.figures_training import compare_plan, describe_plan, draw_plan

gpus = run.stage("train").gpu
compared = compare_plan(asdict(plan), metrics, gpus)
picture(draw_plan(compared), describe_plan(compared, gpus))

# %%
run.finish_stage("train", {**metrics, "plan": asdict(plan)})
text_table(metrics)

# %% [markdown]
# **Next:** `03_evaluate` asks the base model and the tuned one the questions of the test part, which neither has seen.
