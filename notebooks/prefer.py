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
# # Prefer
#
# What would people rather have read? Their thumbs, their blind ratings or a file of pairs become the next adapter: the
# tuned one, trained on, so that a preferred reply grows likelier than it was, and one that was not preferred less
# likely. The tuned model stays the reference, from which it may not stray far.
#
# **Needs** a GPU for anything but the demo model, and as long as the estimate below says. **Reads** `train/`, `data/`,
# and the sources that `dataset` names. **Writes** `prefer/`: `pairs.jsonl`, `dropped.csv`, `adapter/`, `log.jsonl`,
# `metrics.json`. Not part of a run unless asked for: `--stages prefer,evaluate,report`.

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
dataset: list = ["thumbs"]  # "thumbs" of the chat page, "ratings" of the sheet, tables, "kaggle:owner/name"
val_share: float = 0.2  # of the preferences, held out
num_gpus: int = 1  # one process each, 0: all
max_tokens: int = 0  # of a micro-batch, pads included, 0: trl.per_device_train_batch_size rows
learning_rate: float = 2.0e-5
num_train_epochs: float = 1.0
trl: dict = {"beta": 0.1, "gradient_accumulation_steps": 8, "warmup_steps": 0.1}  # trl.DPOConfig, trl.KTOConfig
session: dict = {"hours": 0.0, "total_hours": 0.0, "mirror": "", "keep": 2}  # hours of a session, of the run; a copy
seed: int = 3407

# %% [markdown]
# ## What people prefer
# From where, how many, and is it enough? Preferences pass the rules of the corpus. None is about a row that the model
# is evaluated on, except ratings, whose rows leave the comparison. Of contradictions the majority counts.

# %%
from helpers.planning.checks import start_stage
from helpers.preference.prepare import prepare_preferences
from helpers.reporting.tables import text_table

run = start_stage("prefer", globals())
rows, facts = prepare_preferences(run, dataset, val_share, seed)
text_table({name: facts[name] for name in ("rows_in", "rows_out", "pairs", "liked", "disliked", "train", "val")})

# %% [markdown]
# ## The plan
# Pairs are trained on by DPO, which needs no more than two replies to a prompt; where some are single replies, liked or
# not, all are by KTO. The base model, the adapter's shape and the dtype are those of 02_train.

# %%
from helpers.preference.config import configure_preference
from helpers.preference.plan import plan_lines, plan_preference
from helpers.training.config import fit_to_machine

config = fit_to_machine(run, configure_preference(run, run.stage("prefer").parameters, rows))
plan = plan_preference(run, config, rows)
text_table(plan_lines(plan))

# %% [markdown]
# ## Training
# The same steps, checkpoints and sessions as in 02_train. Run by hand, the curves are drawn below while it trains.

# %%
from helpers.preference.loop import launch_preference
from helpers.reporting.live import show_progress

with show_progress(run, "prefer"):
    metrics = launch_preference(run, config)

# %% [markdown]
# ## The course of the training
# Does the model come to prefer what people prefer, and on held-out prompts too? The margin of the rewards is how far
# the preferred reply's log-probability, less that of the tuned model, lies above the other reply's, times `beta`.

# %%
from helpers.preference.results import describe_course
from helpers.reporting.figures_training import draw_training
from helpers.reporting.notebook_parts import picture
from helpers.runs.files import read_jsonl

log = read_jsonl(run / "prefer" / "log.jsonl")
picture(draw_training(log, run.training_sessions("prefer")), describe_course(log))

# %% [markdown]
# ## What it prefers now
# On held-out prompts: how often does the model prefer what people prefer, and by how much? The tuned model, which is
# the reference, has a margin of 0.

# %%
from helpers.preference.results import describe_result

run.finish_stage("prefer", {**facts, **metrics, "method": config.method, "plan": plan})
print(describe_result(metrics, config.method))
text_table(metrics.get("held_out", {}))

# %% [markdown]
# **Next:** `03_evaluate` asks the base model, the tuned one and this one the same questions, and `05_report` says
# whether it may take the tuned model's place.
