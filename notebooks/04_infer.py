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
# # 4 · Infer
#
# The tuned model's replies to five fixed messages, or to your own, beside the base model's.
#
# Reads `train/adapter/`. Writes `infer/`: `replies.jsonl`, `metrics.json`.

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
prompts: list = []  # your own messages, a list for several turns of one conversation; none: fixed ones
batch_size: int = 8  # messages
max_new_tokens: int = 256  # tokens per reply
temperature: float = 0.7  # 0: greedy
top_p: float = 0.9
streamed: int = 1  # messages whose reply is shown as it is written
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
import time

from IPython.display import display

from helpers.data.prompts import PROMPTS, five_prompts
from helpers.inference.generate import generate_conversations, measure_replies, stream_reply, system_messages
from helpers.inference.loaded_model import LoadedModel
from helpers.planning.checks import start_stage
from helpers.reporting.tables import text_table
from helpers.runs.experiments import log_replies
from helpers.runs.files import read_jsonl, write_jsonl

run = start_stage("infer", globals())
model = LoadedModel(run)

# %% [markdown]
# ## Replies
# The system prompt is the one of the training rows. Each model answers with its own earlier replies in view. A model of
# plain text continues the text.

# %%
conversational = "messages" in read_jsonl(run / "data" / "train.jsonl")[0]
system = system_messages(run) if conversational else None
if conversational:
    prompts = prompts or [*five_prompts(), PROMPTS["turns"]]
else:
    texts = read_jsonl(run / "data" / "test.jsonl")[:5]
    prompts = prompts or [" ".join(row["text"].split()[:12]) for row in texts]
conversations = [prompt if isinstance(prompt, list) else [prompt] for prompt in prompts]

# %%
decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
settings = {"batch_size": batch_size, "hours": session["hours"], **decoding}
answers = {}
for side in ("tuned", "base"):
    with model.side(side):
        keep = run / "infer" / "work" / side
        answers[side] = generate_conversations(model.network, model.tokenizer, conversations, system, keep, **settings)

# %%
first, last = ("conversation", "turn", "prompt"), ("new_tokens", "hit_cap")
replies = []
for base, tuned in zip(answers["base"], answers["tuned"], strict=True):
    row = {name: tuned[name] for name in first} | {"base": base["reply"], "tuned": tuned["reply"]}
    replies.append(row | {name: tuned[name] for name in last})
write_jsonl(run / "infer" / "replies.jsonl", replies)
text_table(replies)

# %% [markdown]
# ## As it is written
# One message at a time: how long the first word takes, and how fast the others follow.

# %%
streams = []  # (seconds to the first word, tokens per second)
for message in [messages[0] for messages in conversations][:streamed]:
    asked = message if system is None else [*system, {"role": "user", "content": message}]
    began, first, shown, reply = time.perf_counter(), 0.0, display("", display_id=True), ""
    for reply in stream_reply(model.network, model.tokenizer, asked, **decoding):
        first = first or (time.perf_counter() - began if reply else 0.0)
        shown.update({"text/plain": f"{message}\n→ {reply}"}, raw=True)
    tokens = len(model.tokenizer(reply, add_special_tokens=False)["input_ids"])
    streams.append((first, tokens / (time.perf_counter() - began)))

# %%
experiment = getattr(run.stage("evaluate"), "experiment", None)
if experiment:  # without an evaluation there is no experiment to add to
    log_replies(run.outputs / "experiments.db", experiment, answers["tuned"])
metrics = measure_replies(answers["tuned"], streams)
run.finish_stage("infer", metrics)
text_table(metrics)
