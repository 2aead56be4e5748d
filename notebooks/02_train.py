# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 · Train
#
# Trains a LoRA adapter with TRL's SFTTrainer, on Unsloth or plain PEFT: one setting. Only the answers are learnt.
#
# Reads `data/`. Writes `train/`: `config.json`, `checkpoints/`, `adapter/`, `log.jsonl`, `metrics.json`.

# %% tags=["setup"]
# Finds the helpers (checkout, attached Kaggle input, installed package, clone) and installs what the platform lacks.
import importlib.util
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # from pyproject.toml, [project.urls]
folders = [*Path.cwd().parents, Path.cwd() / "sahanubhuti"]
folders += [found for depth in ("*", "*/*", "*/*/*", "*/*/*/*") for found in Path("/kaggle/input").glob(depth)]
sources = [folder / "src" for folder in [Path.cwd(), *folders] if (folder / "src/helpers/env.py").is_file()]
if not sources and importlib.util.find_spec("helpers") is None:
    if not REPOSITORY:
        raise ModuleNotFoundError(
            "the folder src/helpers is not here: start in a checkout, or attach the suite as input."
        )
    subprocess.run(["git", "clone", "-q", "--depth", "1", REPOSITORY, "sahanubhuti"], check=True)
    sources = [Path.cwd() / "sahanubhuti/src"]
sys.path[:0] = map(str, sources[:1])
from helpers import env

env.set_up()

# %% tags=["parameters"]
run_name: str = "demo"  # a folder under outputs
outputs: str = "outputs"
base_model: str = "embedded"  # "embedded", a folder, or a Hugging Face name
backend: str = "unsloth"  # "unsloth" or "peft"
load_in_4bit: bool = False  # NF4
device_map: str = ""  # "": one card holds the model; "balanced": split over the cards, which then take turns
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
from helpers import figures, plan, tables, train

run = env.start_stage("train", globals())
config = train.resolve(run)

# %% [markdown]
# ## The plan
# What the run will do, and what it should cost on T4s. A run that cannot fit a card stops here and says what would.

# %%
planned = plan.for_run(run, config)
tables.text_table(plan.table(planned))

# %% [markdown]
# ## The configuration, resolved
# What `train/config.json` keeps. A name that another setting decides was refused above.

# %%
tables.text_table(config)

# %% [markdown]
# ## Training
# The first lines say the number format with its reason, and the effective batch as a product. A run that was paused or
# killed goes on from its newest whole checkpoint.

# %%
metrics = train.launch(run, config)

# %% [markdown]
# ## The loss

# %%
figure = figures.loss(run)

# %%
env.finish_stage(run, "train", {**metrics, "plan": planned})
tables.text_table(metrics)
