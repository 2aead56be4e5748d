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
# How does it talk? The tuned model's replies to five fixed messages and a conversation of several turns, or to your
# own messages, beside the base model's and, where the stage `prefer` has finished, the preferred model's.
#
# **Needs** under a minute on a CPU for the embedded model, a few minutes on a GPU for an 8B model. **Reads**
# `train/adapter/` and, where it is, `prefer/adapter/`. **Writes** `infer/`: `replies.jsonl`, `metrics.json`.

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
session: dict = {"hours": 0.0, "total_hours": 0.0, "mirror": "", "keep": 2}  # hours of a session, of the run; a copy
seed: int = 3407

# %% [markdown]
# ## What is asked
# The system prompt is the one of the training rows. Each model answers with its own earlier replies in view. A model
# of plain text continues the text.

# %%
from helpers.inference.conversations import choose_conversations
from helpers.inference.loaded_model import LoadedModel
from helpers.planning.checks import start_stage

run = start_stage("infer", globals())
conversations, system = choose_conversations(run, prompts)
turns = sum(map(len, conversations))
print(f"{len(conversations)} conversations with {turns} messages, at most {max_new_tokens} new tokens per reply.")
model = LoadedModel(run)

# %% [markdown]
# ## Replies of the models
# What does each make of it? The same messages, the same settings; only the adapter differs, and the base has none.

# %%
from helpers.inference.conversations import answer_both
from helpers.reporting.live import show_progress

decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
with show_progress(run, "infer"):
    limits = {"batch_size": batch_size, "hours": session["hours"]}
    answers = answer_both(run, model, conversations, system, **limits, **decoding)

# %%
from helpers.inference.conversations import pair_replies
from helpers.reporting.notebook_parts import show_conversations
from helpers.reporting.summary import describe_fixed
from helpers.reporting.words import Words
from helpers.runs.files import write_jsonl

replies = pair_replies(answers)
write_jsonl(run / "infer" / "replies.jsonl", replies)
print(describe_fixed(replies, decoding, Words()))
show_conversations(replies)

# %% [markdown]
# ## As it is written
# How long does a person wait? One message at a time: the seconds to the first word, then how fast the others follow.

# %%
from helpers.inference.conversations import measure_stream
from helpers.reporting.notebook_parts import show_stream

streams = []  # (seconds to the first word, tokens per second)
for messages in conversations[:streamed]:
    streams.append(measure_stream(model, messages[0], system, show_stream(messages[0]), **decoding))

# %%
from helpers.inference.conversations import log_answers
from helpers.inference.generate import measure_replies
from helpers.reporting.tables import text_table

log_answers(run, answers["tuned"])
metrics = measure_replies(answers["tuned"], streams)
run.finish_stage("infer", metrics)
first = f"{metrics['seconds_to_first_word']:.2f} seconds" if streams else "not measured"
print(f"First word: {first}; {metrics['tokens_per_second']:,.0f} tokens per second in batches.")
text_table(metrics)

# %% [markdown]
# **Next:** `05_report` puts the run on one page. To talk to the model yourself: `python -m helpers chat outputs/NAME`.
