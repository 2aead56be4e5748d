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
# Runs the whole suite in one session after the other. Colab: choose a T4 (Runtime, Change runtime type) and Run all;
# the run is copied to your Google Drive while it works. Kaggle: choose GPU T4 x2, switch the internet on, and Save
# Version; for the next session, add that version's output as an input. The run resumes where it stopped, until its
# report is written.

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

# %%
import sys

from helpers.platforms.machine import platform
from helpers.platforms.processes import run_child
from helpers.platforms.secrets import export_secrets

export_secrets()
here = platform()
preset = preset or ("kaggle-t4x2" if here == "kaggle" else "colab-t4")
arguments = ["--preset", preset, *more, *(["--run-name", run_name] if run_name else [])]
if drive and here != "kaggle":
    if here == "colab":
        from google.colab import drive as google_drive

        google_drive.mount(drive)
    arguments += ["--set", f"shared.session.mirror={drive}/MyDrive/sahanubhuti"]
code = run_child([sys.executable, "-m", "helpers", "run", *arguments])
print({0: "finished", 75: "paused: run this again to continue"}.get(code, f"exit code {code}: see above"))
