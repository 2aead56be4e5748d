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
# # Sahanubhuti on Colab and Kaggle
#
# Runs the whole suite over as many sessions as it takes: prepare, train, evaluate, infer, report. Each resumes where
# the one before stopped, until the report is written.
#
# **Colab:** choose a T4 (Runtime, Change runtime type) and Run all. The run is copied to your Google Drive while it
# works. **Kaggle:** choose GPU T4 x2, switch the internet on, and Save Version; for the next session, add that
# version's output as an input.
#
# **Needs** a T4, and as many hours as the plan below says; a session has 12 at most. **Writes** `outputs/NAME/`, with
# `report/index.html` as the page to read.

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
preset: str = ""  # a file in notebooks/presets, without .yaml; "": kaggle-t4x2 on Kaggle, colab-t4 elsewhere
run_name: str = ""  # a folder under outputs and in the Drive; "": the preset's name
drive: str = "/content/drive"  # where Google Drive is mounted; "": no copy is made, nor on Kaggle, which has no Drive
more: list = []  # further arguments of `run`, such as "--stages", "train"

# %% [markdown]
# ## What it will do
# Which preset runs here, and where its files go.

# %%
from helpers.platforms.machine import platform
from helpers.platforms.secrets import export_secrets

export_secrets()
here = platform()
preset = preset or ("kaggle-t4x2" if here == "kaggle" else "colab-t4")
mirror = f"{drive}/MyDrive/sahanubhuti" if drive and here != "kaggle" else ""
arguments = ["--preset", preset, *more, *(["--run-name", run_name] if run_name else [])]
arguments += ["--set", f"shared.session.mirror={mirror}"] if mirror else []
copy = f"a copy in {mirror}" if mirror else "no copy is made"
print(f"Preset {preset}: all files in outputs/{run_name or preset}, {copy}.")

# %% [markdown]
# What it will take: an estimate of steps, memory, hours and sessions. The line `speed` says of which GPU.

# %%
import sys

from helpers.platforms.processes import run_child

if here == "colab" and mirror:
    from google.colab import drive as google_drive

    google_drive.mount(drive)
run_child([sys.executable, "-m", "helpers", "plan", "--preset", preset])

# %% [markdown]
# ## The run
# One line per stage. A session that ends before the run does prints "paused": run this notebook again.

# %%
code = run_child([sys.executable, "-m", "helpers", "run", *arguments])
print({0: "finished", 75: "paused: run this again to continue"}.get(code, f"exit code {code}: see above"))

# %% [markdown]
# ## The page
# What the run has come to so far, as one page.

# %%
from helpers.reporting.notebook_parts import show_page
from helpers.runs.record import Run

page = Run.named("outputs", run_name or preset) / "report" / "index.html"
show_page(page.read_text(encoding="utf-8"), "The report page") if page.is_file() else f"not written yet: {page}"

# %% [markdown]
# **Next:** download the page from the folder above. To talk to the model: `python -m helpers chat outputs/NAME`.
