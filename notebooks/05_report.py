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
# # 5 · Report
#
# One page from the run's own files. It needs neither torch nor a GPU: a downloaded run folder is enough.
#
# Reads every stage's files, as many as there are. Writes `report/`: `index.html`, its plots as PNG and SVG
# (`training_loss`, `eval_results`, `by_topic`, `sessions`), `metrics.json`.

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
samples: int = 6  # replies shown side by side
page_language: str = "en"  # en or bn

# %%
from helpers.planning.checks import start_stage
from helpers.reporting.figures import draw_loss, draw_scores
from helpers.reporting.report import write_report
from helpers.reporting.results import read_results
from helpers.reporting.tables import rating_rows, score_rows, text_table

run = start_stage("report", globals())
results = read_results(run)

# %% [markdown]
# ## Base against tuned

# %%
text_table(score_rows(results.scores)) if results.scores else "not evaluated yet"

# %% [markdown]
# ## What people say
# Ratings of `evaluate/human_eval.html`, from `evaluate/ratings/`.

# %%
print(*(f"not read: {line}" for line in results.unread), sep="\n")
text_table(rating_rows(results.ratings))

# %% [markdown]
# ## The loss

# %%
if results.log:
    curves = draw_loss(results.log, run.sessions("train"))

# %% [markdown]
# ## The scores

# %%
if results.scores:
    bars = draw_scores({"base": results.scores.base, "tuned": results.scores.tuned})

# %% [markdown]
# ## The page

# %%
metrics = write_report(run, samples, page_language)
run.finish_stage("report", metrics)
print(run / "report" / "index.html")
