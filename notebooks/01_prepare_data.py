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
# # 1 · Prepare data
#
# A model repeats what it is trained on, and its scores mean little when it has seen the answers. This notebook decides
# both: which rows are good enough to train on, and which rows stay unseen until the evaluation. Rows that belong
# together, such as several answers to one question or the turns of one dialogue, go to one side.
#
# **Needs** no GPU: about a minute for the embedded corpus, a few minutes for the published one. **Reads** the data set.
# **Writes** `data/`: `train.jsonl`, `val.jsonl`, `test.jsonl`, `dropped.csv`, `browse.html` (every row, to be read),
# `README.md` (the data card), `metrics.json`.

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
dataset: str = "embedded"  # "embedded", a .csv/.jsonl/.parquet file, "kaggle:owner/name" or "hf:owner/name"
dataset_format: str = "auto"  # by its columns; or "qa", "messages", "conversations", "text"
base_model: str = "embedded"  # whose tokenizer counts: "embedded", a folder, or a Hugging Face name
system_prompt: str = "You are a sympathetic and helpful assistant. You answer people's questions in Bengali language."
max_length: int = 1024  # tokens of a whole conversation; a longer one is dropped, never cut
max_rows: int = 0  # rows sampled by seed after cleaning, 0: all
skip_rules: list = []  # cleaning rules not to apply; the funnel below names them all
min_bengali_share: float = 0.6  # of the letters of each side
near_duplicate: float = 0.8  # Jaccard similarity of words from which two texts are one, 0: not looked for
join_turns: bool = False  # the turns of one dialogue as one conversation
train_share: float = 0.8  # of the rows
val_share: float = 0.1  # of the rows; the rest is the test part
seed: int = 3407

# %% [markdown]
# ## The table
# Any file with the right columns will do. Its identity is git's SHA-1 of the file, by which data hubs name it.

# %%
from helpers.data.load import load_table
from helpers.planning.checks import start_stage
from helpers.reporting.tables import text_table

run = start_stage("prepare_data", globals())
table, source = load_table(dataset, dataset_format)
text_table({**source.as_json(), "rows": len(table)})

# %% [markdown]
# ## Cleaning
# Which rows should a model not be trained on? The first rules repair a row, the others drop it; each dropped row keeps
# its rule in `dropped.csv`. In between, text is normalised once: NFC, single spaces, no control characters.
# Conversations have some rules of their own.

# %%
from helpers.data.clean import clean_table, example_fates
from helpers.reporting.figures_data import describe_funnel, draw_funnel
from helpers.reporting.notebook_parts import picture

corpus = clean_table(table, skip_rules, min_bengali_share)
picture(draw_funnel(corpus.funnel), describe_funnel(corpus.funnel))

# %% [markdown]
# What a rule means is best seen in what it took: at most three examples per rule, around what it found, then three rows
# as they came and what became of them.

# %%
taken = [step for step in corpus.funnel if step.examples]
text_table([{"rule": step.rule, "examples": "\n".join(step.examples)} for step in taken])

# %%
text_table(example_fates(table, corpus, seed))

# %% [markdown]
# ## Topics and titles
# What do people write about? Topics and titles are not trained on: they may belong to another row. A title that fits
# its own question no better than another row's is one of those. Rare spellings of a topic are merged into the common
# one, so that they split no dialogue.

# %%
print(corpus.describe_merged_topics())
text_table([merged.as_json() for merged in corpus.merged_topics])

# %%
from helpers.data.group import link_rows, measure_title_agreement
from helpers.reporting.figures_data import draw_topic_counts

agreement = measure_title_agreement(corpus.kept, seed)
shares = [f"{share:.1%} of the titles share a word with {question} question" for question, share in agreement.items()]
counts = corpus.kept.topic.value_counts()
picture(draw_topic_counts(counts), f"{len(counts):,} topics. {', '.join(shares) or 'Too few titles to compare'}.")

# %% [markdown]
# ## Groups
# Which rows must stay together? The same question, near-duplicates, the turns of one dialogue: connected rows are one
# group. The turns are known by the file's order alone.

# %%
from helpers.data.split import check_split, split_corpus
from helpers.reporting.figures_data import draw_group_sizes, draw_leaks

print(corpus.order.describe())
links = link_rows(corpus.kept, near_duplicate)
corpus = split_corpus(corpus, links, (train_share, val_share), seed)
groups = corpus.kept.group.value_counts()
reasons = ", ".join(f"{len(pairs):,} by {reason}" for reason, pairs in links.items())
picture(draw_group_sizes(groups), f"{len(corpus.kept):,} rows in {len(groups):,} groups. Links: {reasons}.")

# %% [markdown]
# ## The split, and what it keeps apart
# A held-out row with a twin in the training part is an answer known beforehand. The check looks for twins in a way of
# its own and shares no code with what grouped the rows. Grey is what the usual split, row by row, would leak.

# %%
split_check = check_split(corpus, near_duplicate, (train_share, val_share), seed)
picture(draw_leaks(split_check.grouped, split_check.row_wise), split_check.sentences)

# %% [markdown]
# ## The rows of each part
# All rows, or `max_rows` of them: a sample by seed that keeps the parts, the topics' sources and the lengths in
# proportion.

# %%
from helpers.data.rows import join_dialogues, make_parts, pick_rows

kept = join_dialogues(corpus.kept, links) if join_turns else corpus.kept
corpus = pick_rows(corpus._replace(kept=kept), max_rows, seed)
picked = f"{len(corpus.kept):,} of {len(kept):,} rows were picked"
checks = {**split_check.as_json(), "dialogues": int((corpus.kept.dialogue.value_counts() > 1).sum())}
checks["leak_check"] += f" Looked at before sampling: {picked}." if max_rows else ""
parts = make_parts(corpus.kept, system_prompt, dataset)
print(f"{picked}:", ", ".join(f"{len(rows):,} for {part}" for part, rows in parts.items()))

# %% [markdown]
# ## Length, in tokens of the model's own tokenizer
# How long is a conversation for the model? System prompt, question, answer and what the template adds all count. A
# longer one than the cap is dropped, never cut. The embedded model is made here, from the training part only.

# %%
from helpers.models.embedded import locate_base_model, prepare_embedded_model
from helpers.models.loading import load_tokenizer
from helpers.reporting.live import show_progress

with show_progress(run, "prepare_data"):
    embedded_model = prepare_embedded_model(base_model, dataset, parts["train"], run)
tokenizer = load_tokenizer(locate_base_model(base_model, run))

# %%
import pandas

from helpers.models.chat import count_tokens
from helpers.reporting.figures_data import describe_lengths, draw_token_lengths

rows = [*parts["train"], *parts["val"], *parts["test"]]
counted = pandas.Series(count_tokens(tokenizer, rows), index=[row["id"] for row in rows])
picture(draw_token_lengths(counted, max_length), describe_lengths(counted, max_length))

# %% [markdown]
# No question of val or test may stand in another part. This is read from the rows as they will be written.

# %%
from helpers.data.leaks import count_overlap

corpus = corpus.drop("too long", counted.index[counted > max_length])
lengths = counted[counted <= max_length]
parts = make_parts(corpus.kept, system_prompt, dataset)
checks["overlap"] = count_overlap(parts)
assert checks["overlap"] == 0, f"{checks['overlap']} rows of val or test have a question that stands in another part"
print(f"Over {max_length:,} tokens and dropped: {corpus.funnel[-1].dropped:,}.")
print(f"Rows left: {len(lengths):,}, with {lengths.sum():,} tokens.")

# %% [markdown]
# ## Files
# The parts, the dropped rows with their rules, and the data card, which says what is in them and what is not.

# %%
from helpers.data.card import write_data

models = {"base_model": base_model, "embedded_model": embedded_model}
metrics = write_data(run / "data", source, corpus, parts, lengths, models, checks)

# %%
from helpers.reporting.browse import write_browse_page
from helpers.reporting.notebook_parts import show_document

page = write_browse_page(run, corpus, counted)
print(f"Every row, to be read in any browser: data/{page.name}, {page.stat().st_size / 1e6:.1f} MB")
run.finish_stage("prepare_data", metrics)
show_document((run / "data" / "README.md").read_text(encoding="utf-8"), "The data card")

# %% [markdown]
# **Next:** `02_train` trains on `data/train.jsonl` and validates on `data/val.jsonl`. `03_evaluate` is the first to
# read `data/test.jsonl`.
