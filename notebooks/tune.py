# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tune
#
# Successive halving: every candidate trains for a few steps, the better ones for η times as many, and so on, each from
# where it stood. All candidates have the same budget in tokens. Optuna keeps the search and decides who goes on.
#
# Reads `data/`. Writes `tune/`: `trials.csv`, `best.json`, `search.png` and `.svg`, `metrics.json`. Not part of a run
# unless asked for: `--stages tune`. More processes may help at any time: `python -m helpers.tune outputs/NAME`.

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
space: dict = {"learning_rate": [1.0e-4, 2.0e-4, 5.0e-4, 1.0e-3, 2.0e-3, 5.0e-3]}  # train settings, their values
trials: int = 0  # candidates, drawn by seed from all combinations, 0: all
budget_steps: int = 27  # optimizer steps of a candidate trained to the end, at the run's own batch
eta: int = 3  # a rung has 1 / eta of the next one's steps
rungs: int = 3  # times that candidates are judged
storage: str = ""  # "": SQLite in the run's folder; a .journal file, on a Drive; or a database's URL
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
from helpers import figures, tables, tune

run = env.start_stage("tune", globals())
names = ("space", "trials", "budget_steps", "eta", "rungs", "storage", "seed")
study, configs = tune.search(run, {name: globals()[name] for name in names})

# %% [markdown]
# ## The price
# Hours on T4s of the search, against training every candidate to the end: predicted, with a share of 1 / η going on.

# %%
price = tune.price(run, configs, eta, rungs)
tables.text_table(price)

# %% [markdown]
# ## The search

# %%
tune.carry_out(run, study, configs, session)
table = tune.rows(run, study, configs)
tables.text_table(table)

# %% [markdown]
# ## What was found

# %%
best = tune.best(table, study)
tune.write(run, table, best)
tables.text_table(best)

# %%
figure = figures.search(run)
drawn = figures.save(figure, run / "tune", "search", close=False)

# %%
trained = sum(row["steps"] for row in table)
metrics = {
    "candidates": len(table),
    "steps": trained,
    "share_of_all": trained / sum(row["budget_steps"] for row in table if row["budget_steps"]),
    "eliminated": sum(row["status"] == "eliminated" for row in table),
    "failed": sum(row["status"] == "fail" for row in table),
    "price": price,
    "best": best,
}
env.finish_stage(run, "tune", metrics)
tables.text_table(metrics)
