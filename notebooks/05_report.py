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
# What came of it? The verdict first, then score by score, then the one page to send round.
#
# **Needs** neither torch nor a GPU, and a few seconds: a downloaded run folder is enough. **Reads** every stage's
# files, as many as there are. **Writes** `report/`: `index.html`, its plots as PNG and SVG, `metrics.json`.

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

# %% [markdown]
# ## The verdict
# May this model be given to people, and is it better than the base model? What the page says first, in plain words;
# people's ratings are counted in.

# %%
from helpers.planning.checks import start_stage
from helpers.reporting.results import read_results
from helpers.reporting.summary import summarise_run
from helpers.reporting.words import Words

run = start_stage("report", globals())
results = read_results(run)
summary = summarise_run(results, Words(page_language))
print(*filter(None, (summary.decision, summary.warning, *summary.reasons, summary.people)), sep="\n")
print(*filter(None, (summary.verdict, *summary.sentences, *summary.numbers)), sep="\n")

# %% [markdown]
# Score by score: a difference counts as better where it is hardly by chance, and the tuned model is clear of
# the floor, which words alone reach. `03_evaluate` draws them.

# %%
from helpers.reporting.figures_scores import group_verdicts
from helpers.reporting.tables import text_table

verdicts = group_verdicts(results.scores) if results.scores else {"not evaluated yet": []}
text_table({verdict: ", ".join(names) for verdict, names in verdicts.items()})

# %% [markdown]
# ## What people say
# Do people agree? Ratings of `evaluate/human_eval.html`, from `evaluate/ratings/`.

# %%
from helpers.reporting.tables import rating_rows

for line in results.unread:
    print(f"not read: {line}")
print(f"People who have rated replies: {len(results.ratings.get('raters', [])) or 'none yet'}.")
text_table(rating_rows(results.ratings)) if results.ratings.get("scales") else None

# %% [markdown]
# Which scores track what people say, and so deserve trust? One counts only where two or more raters agree enough to
# tell.

# %%
from helpers.reporting.people import describe_ratings, trust_rows

opinion = describe_ratings(results, Words(page_language))["people"]
trust = opinion["trust"] or ["No rating yet that a score could be held against."]
print(*filter(None, (opinion["choices"], *opinion["attention"], *trust)), sep="\n")
text_table(trust_rows(results.meta_evaluations.get("people"))) if opinion["trust"] else None

# %% [markdown]
# ## The training it came from
# Was the model still improving when it stopped? `02_train` draws the curves.

# %%
from helpers.reporting.figures_training import describe_training

print(describe_training(results.log))

# %% [markdown]
# ## The page
# Everything of the run on one page, as a file that can be sent: it loads nothing from elsewhere.

# %%
from helpers.reporting.notebook_parts import show_page
from helpers.reporting.report import write_report

metrics = write_report(run, samples, page_language)
run.finish_stage("report", metrics)
page = run / "report" / "index.html"
print(f"{page}, {metrics['bytes'] / 1e6:.1f} MB, from {len(metrics['stages'])} finished stages")
show_page(page.read_text(encoding="utf-8"), "The report page")

# %% [markdown]
# **Next:** `export` writes what to take away. `python -m helpers report outputs/A outputs/B` compares runs.
