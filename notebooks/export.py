# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Export
#
# What to take away: the adapter with its model card, the model with the adapter merged into the 16-bit base, GGUF files
# for llama.cpp, a folder to deploy as a Hugging Face Space, and the Hub itself.
#
# Reads `train/`, `data/test.jsonl`, the scores. Writes `export/`. Not part of a run unless asked for:
# `--stages export`.

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
forms: list = ["adapter", "merged", "space"]  # of adapter, merged, gguf, space
base_16bit: str = ""  # the base to merge into, "": the trained one without its -bnb-4bit
gguf_types: list = ["f16", "q4_k_m"]  # as llama.cpp names them
llama_cpp: str = ""  # a checkout of llama.cpp, "": fetched
check_rows: int = 16  # test rows that the merged model is compared on
scratch: str = ""  # where large files are made, "": /tmp on Kaggle, else the run's folder
hub_repository: str = ""  # owner/name to push the adapter to, "": no push
hub_private: bool = True
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
from helpers import export, tables

run = env.start_stage("export", globals())
folder, config = run / "export", env.read_json(run / "train" / "config.json")
big = export.place(run, scratch)
base = export.sixteen_bit(config, base_16bit, run)
export.check(forms, gguf_types, base, big)
done = {}

# %% [markdown]
# ## Adapter and model card
# The card is made from the run's own files: data, settings, scores with their intervals, limits.

# %%
done["adapter"] = export.adapter(run, folder / "adapter")
print((folder / "adapter" / "README.md").read_text(encoding="utf-8"))

# %% [markdown]
# ## Merged
# Into the 16-bit base: merging into a 4-bit one would keep its rounding. What was written is loaded again, and must
# find the test answers as likely as base and adapter do.

# %%
if {"merged", "gguf"} & set(forms):
    done["merged"] = export.merged(run, base, big / "merged", check_rows, seed)
tables.text_table(done.get("merged", {}))

# %% [markdown]
# ## GGUF

# %%
if "gguf" in forms:
    done["gguf"] = export.gguf(run, big / "merged", big / "gguf", gguf_types, llama_cpp)
tables.text_table(done.get("gguf", {}))

# %% [markdown]
# ## A Space
# A folder that Hugging Face serves as the chat page: the page's own code, the adapter, the settings.

# %%
if "space" in forms:
    done["space"] = export.space(run, folder / "space")

# %% [markdown]
# ## The Hub
# Pushed with the token `HF_TOKEN` of the platform's secrets, or of the environment.

# %%
if hub_repository:
    done["hub"] = export.push(folder / "adapter", hub_repository, hub_private)

# %%
env.finish_stage(run, "export", {"forms": forms, **done})
tables.text_table({name: str(value) for name, value in done.items()})
