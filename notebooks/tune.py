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
# # Tune
#
# Which settings of 02_train are best? Every candidate trains for a few steps; the better ones train on for η times as
# many, each from its own checkpoint, and so on to the last rung. All candidates have the same budget in tokens. Optuna
# keeps the search and decides which candidates continue. Where `base_model` is among the settings, the budget is the
# same estimated hours, and candidates are judged by validation bits per character: losses per token do not compare.
#
# **Needs** as long as the estimate below says. **Reads** `data/`. **Writes** `tune/`: `trials.csv`, `best.json`,
# `search.png` and `.svg`, `metrics.json`. Not part of a run unless asked for: `--stages tune`. More processes may help
# at any time: `python -m helpers tune outputs/NAME`.

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
space: dict = {"learning_rate": [1.0e-4, 2.0e-4, 5.0e-4, 1.0e-3, 2.0e-3, 5.0e-3]}  # train settings, their values
trials: int = 0  # candidates, drawn by seed from all combinations, 0: all
budget_steps: int = 27  # optimizer steps of a candidate trained to the end, at the run's own batch
eta: int = 3  # a rung has 1 / eta of the next one's steps
rungs: int = 3  # times that a candidate is judged
storage: str = ""  # "": SQLite in the run's folder; a .journal file, on a Drive; or a database's URL
session: dict = {"hours": 0.0, "total_hours": 0.0, "mirror": "", "keep": 2}  # hours of a session, of the run; a copy
seed: int = 3407

# %% [markdown]
# ## The estimate
# What does the search cost? Hours on this GPU where it is calibrated, else on T4s, against those of training every
# candidate to the end, if 1 / η of them continue after each rung.

# %%
from helpers.planning.checks import start_stage
from helpers.reporting.tables import text_table
from helpers.search.results import describe_estimate, estimate_search
from helpers.search.study import open_search

run = start_stage("tune", globals())
search = open_search(run)
estimate = estimate_search(search)
print(describe_estimate(search, estimate))
text_table(estimate)

# %% [markdown]
# ## The search
# How did each candidate do? `eliminated`: at a rung, its loss or bits per character were not among the best 1 / η. A
# failed one says why.

# %%
from helpers.reporting.live import show_progress
from helpers.search.results import show_trials, tabulate_trials
from helpers.search.trials import run_search

with show_progress(run, "tune"):
    run_search(search)
table = tabulate_trials(search)
text_table(show_trials(table))

# %% [markdown]
# ## The best settings
# Of the candidates that reached the last rung, the one with the lowest validation loss, or fewest bits per character.
# `importance` is the share of the first rung's variance that each setting explains.

# %%
from helpers.reporting.figures import draw_search, save_figure
from helpers.reporting.notebook_parts import picture
from helpers.search.results import best_candidate, describe_search, write_results

best = best_candidate(table, list(space))
metrics = write_results(search, table, best, estimate)
figure = draw_search(table, best)
save_figure(figure, run / "tune", "search", close=False)
figure.set_label(f"Validation of each candidate by rung. {describe_search(metrics)}")
picture(figure, describe_search(metrics))

# %%
run.finish_stage("tune", metrics)
text_table(best)

# %% [markdown]
# **Next:** 02_train takes these settings with `train.sft.settings_from=tune`.
