# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 · Infer
#
# The tuned model's replies to five fixed messages, or to your own, beside the untuned model's.
#
# Reads `train/adapter/`. Writes `infer/`: `replies.jsonl`, `metrics.json`.

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
prompts: list = []  # your own messages, a list for several turns of one conversation; none: fixed ones
batch_size: int = 8  # messages
max_new_tokens: int = 256  # tokens a reply
temperature: float = 0.7  # 0: greedy
top_p: float = 0.9
streamed: int = 1  # messages whose reply is shown as it is written
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
import time

from IPython.display import display

from helpers import experiments, generate, model, rubric, tables, tiny

run = env.start_stage("infer", globals())
config = env.read_json(run / "train" / "config.json")

# %% [markdown]
# ## The model

# %%
dtype, dtype_reason = env.pick_dtype()
print(f"dtype {dtype}: {dtype_reason}")
base = tiny.locate(config["base_model"], run)
tokenizer = model.load_tokenizer(base)
adapter = run / "train" / "adapter"
tuned_model = model.load_for_inference(base, adapter, config["load_in_4bit"], dtype, config["device_map"])

# %% [markdown]
# ## Replies
# The system prompt is the one of the training rows. Each model answers with its own earlier replies in view. A model of
# plain text goes on with the text.

# %%
first_row = env.read_jsonl(run / "data" / "train.jsonl")[0]
if "messages" in first_row:
    system = generate.system_of(run)
    asked = [one if isinstance(one, list) else [one] for one in prompts or [*rubric.five(), rubric.data()["turns"]]]
else:
    system = None
    texts = env.read_jsonl(run / "data" / "test.jsonl")[:5]
    asked = [[one] for one in prompts or [" ".join(row["text"].split()[:12]) for row in texts]]
decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
keeping = {"keep": run / "infer" / "work", "hours": session["hours"]}
tuned = generate.talks(tuned_model, tokenizer, asked, system, batch_size, "tuned", **keeping, **decoding)
with tuned_model.disable_adapter():
    untuned = generate.talks(tuned_model, tokenizer, asked, system, batch_size, "base", **keeping, **decoding)

# %%
replies = [
    {name: t[name] for name in ("conversation", "turn", "prompt")}
    | {"base": b["reply"], "tuned": t["reply"]}
    | {name: t[name] for name in ("new_tokens", "hit_cap")}
    for b, t in zip(untuned, tuned, strict=True)
]
tables.text_table(replies)

# %% [markdown]
# ## As it is written
# One message at a time: how long the first word takes, and how fast the others follow.

# %%
first_words, rates = [], []
for message in [one[0] for one in asked][:streamed]:
    conversation = message if system is None else [*system, {"role": "user", "content": message}]
    began, first, shown, said = time.perf_counter(), 0.0, display("", display_id=True), ""
    for said in generate.stream(tuned_model, tokenizer, conversation, **decoding):
        first = first or (time.perf_counter() - began if said else 0.0)
        shown.update({"text/plain": f"{message}\n→ {said}"}, raw=True)
    first_words.append(first)
    rates.append(len(tokenizer(said, add_special_tokens=False)["input_ids"]) / (time.perf_counter() - began))

# %%
env.write_jsonl(run / "infer" / "replies.jsonl", replies)
experiment = env.read_json(run / "run.json")["stages"].get("evaluate", {}).get("experiment")
if experiment:  # without an evaluation there is no experiment to add to
    experiments.log_replies(run.parent / "experiments.db", experiment, tuned)
seconds = sum(reply["seconds"] for reply in tuned)
metrics = {
    "n": len(replies),
    "tokens_per_second": sum(reply["new_tokens"] for reply in tuned) / seconds,
    "seconds_per_reply": seconds / len(replies),
    "seconds_to_first_word": sum(first_words) / len(first_words) if first_words else None,
    "streamed_tokens_per_second": sum(rates) / len(rates) if rates else None,
}
env.finish_stage(run, "infer", metrics)
tables.text_table(metrics)
