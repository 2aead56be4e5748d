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
# # Export
#
# What to take away: the adapter with its model card, the model with the adapter merged into the 16-bit base, GGUF files
# for llama.cpp, a folder to deploy as a Hugging Face Space, and a push to the Hub.
#
# **Needs** seconds for the embedded model; merging an 8B model needs 16 GB of disk and, on a CPU, of memory. **Reads**
# `train/`, `prefer/`, `data/test.jsonl`, the scores. **Writes** `export/`. Not part of a run unless asked for:
# `--stages export`.

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
model: str = ""  # tuned or preferred, "": the preferred one where the stage prefer has finished
forms: list = ["adapter", "merged", "space"]  # of adapter, merged, gguf, space
base_16bit: str = ""  # the base to merge into, "": the trained one without its -bnb-4bit
gguf_types: list = ["f16", "q4_k_m"]  # as llama.cpp names them
llama_cpp: str = ""  # a checkout of llama.cpp, "": fetched
check_rows: int = 16  # test rows that the merged model is compared on
scratch: str = ""  # where large files are made, "": /tmp on Kaggle, else the run's folder
hub_repository: str = ""  # owner/name to push the adapter to, "": no push
hub_private: bool = True
session: dict = {"hours": 0.0, "total_hours": 0.0, "mirror": "", "keep": 2}  # hours of a session, of the run; a copy
seed: int = 3407

# %% [markdown]
# ## What is asked for
# Is there room? The disk is checked before anything is made.

# %%
from helpers.planning.checks import start_stage
from helpers.reporting.tables import text_table
from helpers.sharing.export import check_export, choose_side, large_files_folder, locate_16bit_base

run = start_stage("export", globals())
folder, large = run / "export", large_files_folder(run, scratch)
base = locate_16bit_base(run.training_config(), base_16bit, run)
check_export(forms, gguf_types, base, large)
exported, side = {}, choose_side(run, model)
print(f"The {side} model as {', '.join(forms)}: large files in {large}")

# %% [markdown]
# ## Adapter and model card
# The card is made from the run's own files: data, settings, scores with their intervals, limits.

# %%
from helpers.reporting.notebook_parts import picture, show_document
from helpers.sharing.export import export_adapter

exported["adapter"] = export_adapter(run, folder / "adapter", side)
show_document((folder / "adapter" / "README.md").read_text(encoding="utf-8"), "The model card")

# %% [markdown]
# ## Merged
# Is the merged model the same model? It is merged into the 16-bit base: a 4-bit one would keep its rounding. What was
# written is loaded again, and has to find the test answers as likely as base model and adapter do.

# %%
from helpers.reporting.live import show_progress
from helpers.sharing.merge import merge_adapter

with show_progress(run, "export"):
    if {"merged", "gguf"} & set(forms):
        exported["merged"] = merge_adapter(run, base, large / "merged", check_rows, seed, side)
text_table(exported.get("merged", {"merged": "not asked for"}))

# %% [markdown]
# ## GGUF
# Files for llama.cpp, one per type that was asked for.

# %%
from helpers.sharing.gguf import write_gguf

if "gguf" in forms:
    exported["gguf"] = write_gguf(run, large / "merged", large / "gguf", gguf_types, llama_cpp)
text_table(exported.get("gguf", {"gguf": "not asked for"}))

# %% [markdown]
# ## A Space, and the Hub
# A Space is a folder that Hugging Face serves as the chat page: the page's own code, the adapter, the settings. The
# adapter is pushed with the token `HF_TOKEN` of the platform's secrets, or of the environment.

# %%
from helpers.sharing.export import push_to_hub
from helpers.sharing.space import write_space

if "space" in forms:
    exported["space"] = write_space(run, folder / "space", side)
if hub_repository:
    exported["hub"] = push_to_hub(folder / "adapter", hub_repository, hub_private)

# %% [markdown]
# ## What was written
# How large is it, and where is it?

# %%
from helpers.reporting.figures_data import draw_sizes
from helpers.sharing.export import exported_sizes

run.finish_stage("export", {"forms": forms, **exported})
sizes = exported_sizes(exported)
picture(draw_sizes(sizes), f"{len(sizes)} things were written, {sum(sizes.values()) / 1e6:,.1f} MB in all.")

# %%
text_table(exported)

# %% [markdown]
# **Next:** the folder `export/space` can be pushed as a Space; `export/adapter` loads with
# `peft.PeftModel.from_pretrained` on the base model that the model card names.
