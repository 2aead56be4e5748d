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
prompts: list = []  # your own messages; none: the five fixed ones
batch_size: int = 8  # messages
max_new_tokens: int = 256  # tokens a reply
temperature: float = 0.7  # 0: greedy
top_p: float = 0.9
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
import functools

from helpers import generate, model, report, rubric, tiny

run = env.start_stage("infer", globals())
config = env.read_json(run / "train" / "config.json")

# %% [markdown]
# ## The model

# %%
dtype, dtype_reason = env.pick_dtype()
print(f"dtype {dtype}: {dtype_reason}")
base = tiny.locate(config["base_model"], run)
tokenizer = model.load_tokenizer(base)
tuned_model = model.load_for_inference(base, run / "train" / "adapter", config["load_in_4bit"], dtype)

# %% [markdown]
# ## Replies
# The system prompt is the one of the training rows. A model of plain text goes on with the text.

# %%
first_row = env.read_jsonl(run / "data" / "train.jsonl")[0]
if "messages" in first_row:
    system = [message for message in first_row["messages"] if message["role"] == "system"]
    messages = prompts or rubric.five()
    conversations = [[*system, {"role": "user", "content": message}] for message in messages]
else:
    texts = env.read_jsonl(run / "data" / "test.jsonl")[:5]
    messages = conversations = prompts or [" ".join(row["text"].split()[:12]) for row in texts]
work = run / "infer" / "work"
answer = functools.partial(
    generate.replies, tuned_model, tokenizer, conversations, max_new_tokens, batch_size, temperature, top_p, seed
)
answer = functools.partial(answer, hours=session["hours"])
tuned = answer(what="tuned reply", keep=work / "tuned_replies.jsonl")
with tuned_model.disable_adapter():
    untuned = answer(what="base reply", keep=work / "base_replies.jsonl")

# %%
replies = [
    {"prompt": message, "base": b["reply"], "tuned": t["reply"], "new_tokens": t["new_tokens"], "hit_cap": t["hit_cap"]}
    for message, b, t in zip(messages, untuned, tuned, strict=True)
]
report.text_table(replies)

# %%
env.write_jsonl(run / "infer" / "replies.jsonl", replies)
seconds = sum(reply["seconds"] for reply in tuned)
metrics = {
    "n": len(replies),
    "tokens_per_second": sum(reply["new_tokens"] for reply in tuned) / seconds,
    "seconds_per_reply": seconds / len(replies),
}
env.finish_stage(run, "infer", metrics)
report.text_table(metrics)
