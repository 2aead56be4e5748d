# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 · Report
#
# One page from the run's own files. It needs neither torch nor a GPU: a downloaded run folder is enough.
#
# Reads every stage's files, as many as there are. Writes `report/`: `index.html`, its plots as PNG and SVG
# (`training_loss`, `eval_results`, `by_topic`, `sessions`), `metrics.json`.

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
samples: int = 6  # replies shown side by side

# %%
from helpers import figures, people, report, tables

run = env.start_stage("report", globals())
found = report.results(run)

# %% [markdown]
# ## Base against tuned

# %%
tables.score_table(found["evaluate"]) if "evaluate" in found else "not evaluated yet"

# %% [markdown]
# ## What people say
# Ratings of `evaluate/human_eval.html`, from `evaluate/ratings/`.

# %%
tables.text_table(people.table(people.of_run(run)))

# %% [markdown]
# ## The loss

# %%
if (run / "train" / "log.jsonl").is_file():
    curves = figures.loss(run)

# %% [markdown]
# ## The scores

# %%
if "evaluate" in found:
    bars = figures.scores(report.both(found["evaluate"]), tables.LABELS)

# %% [markdown]
# ## The page

# %%
metrics = report.write(run, samples)
env.finish_stage(run, "report", metrics)
print(run / "report" / "index.html")
