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
# Searches the settings of 02_train by successive halving. Every candidate trains for a few steps; the better ones train
# on for η times as many, each from where it stands, and so on to the last rung. All candidates have the same budget in
# tokens. Optuna keeps the search and decides which candidates continue.
#
# Reads `data/`. Writes `tune/`: `trials.csv`, `best.json`, `search.png` and `.svg`, `metrics.json`. Not part of a run
# unless asked for: `--stages tune`. More processes may help at any time: `python -m helpers tune outputs/NAME`.

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
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
from helpers.planning.checks import start_stage
from helpers.reporting.figures import draw_search, save_figure
from helpers.reporting.tables import text_table
from helpers.search.results import best_candidate, estimate_search, tabulate_trials, write_results
from helpers.search.study import open_search
from helpers.search.trials import run_search

run = start_stage("tune", globals())
search = open_search(run)
print(f"{len(search.candidates)} candidates, each judged at most {rungs} times")

# %% [markdown]
# ## The estimate
# Hours on T4s of the search, against those of training every candidate to the end, if 1 / η of them continue after each
# rung.

# %%
estimate = estimate_search(search)
print(
    f"about {estimate['hours_of_search']:.2f} T4 hours, {estimate['share']:.0%} of training every candidate to the end"
)
text_table(estimate)

# %% [markdown]
# ## The search
# One row per candidate. `eliminated`: at a rung, its loss was not among the best 1 / η. A failed one says why.

# %%
run_search(search)
table = tabulate_trials(search)
text_table(table)

# %% [markdown]
# ## The best settings
# Of the candidates that reached the last rung, the one with the lowest validation loss. `importance` is the share of
# the first rung's variance that each setting explains.

# %%
best = best_candidate(table, list(space))
metrics = write_results(search, table, best, estimate)
print(
    f"{metrics['eliminated']} of {metrics['candidates']} candidates were eliminated and {metrics['failed']} failed: "
    f"{metrics['steps']:,} steps, {metrics['share_of_all']:.0%} of training every candidate to the end"
)
text_table(best)

# %%
figure = draw_search(table, best)
drawn = save_figure(figure, run / "tune", "search", close=False)

# %%
run.finish_stage("tune", metrics)
text_table(metrics)

# %% [markdown]
# Next: 02_train takes these settings with `train.sft.settings_from=tune`.
