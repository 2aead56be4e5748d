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
# Reads the corpus, drops rows that a model should not be trained on, puts rows that belong together into one group, and
# splits by group. A question with several answers, the turns of one dialogue, and near-duplicates never end up in
# different parts. Needs no GPU: about a minute for the embedded corpus, a few minutes for the published one.
#
# Reads the data set. Writes `data/`: `train.jsonl`, `val.jsonl`, `test.jsonl`, `dropped.csv`, `browse.html` (every row,
# to be read), `README.md` (the data card), `metrics.json`.

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

# %%
import pandas

from helpers.data.card import data_card, data_metrics
from helpers.data.clean import clean_table, example_fates
from helpers.data.group import link_rows, measure_title_agreement
from helpers.data.leaks import count_overlap, describe_leaks, find_leaks
from helpers.data.load import load_table
from helpers.data.rows import join_dialogues, make_parts
from helpers.data.sampling import sample_rows
from helpers.data.split import split_corpus, split_groups
from helpers.models.chat import decode_labels, encode_row, encode_rows
from helpers.models.embedded import embedded_model_for, keep_embedded_model, locate_base_model
from helpers.models.loading import load_tokenizer
from helpers.planning.checks import start_stage
from helpers.reporting.browse import write_browse_page
from helpers.reporting.figures import draw_lengths
from helpers.reporting.tables import text_table
from helpers.runs.files import write_csv, write_jsonl, write_text

run = start_stage("prepare_data", globals())

# %% [markdown]
# ## The table
# Its identity is git's SHA-1 of the file. Any file with the right columns will do.

# %%
table, source = load_table(dataset, dataset_format)
text_table({**source.as_json(), "rows": len(table)})

# %% [markdown]
# ## Cleaning
# The first rules repair a row, the others drop it; each dropped row keeps its rule in `dropped.csv`. In between, text
# is normalised once: NFC, single spaces, no control characters. Conversations have some rules of their own.

# %%
corpus = clean_table(table, skip_rules, min_bengali_share)
counts = corpus.dropped.rule.value_counts()
most = f"; most, {counts.max():,}, by the rule {counts.idxmax()!r}" if len(counts) else ""
print(f"{counts.sum():,} of {len(table):,} rows were dropped{most}")
funnel = pandas.DataFrame([{**step.as_json(), "examples": "\n".join(step.examples)} for step in corpus.funnel])
text_table(funnel.assign(share=funnel.share.map("{:.2%}".format)).to_dict("records"))

# %% [markdown]
# Three rows, raw, and what became of them.

# %%
text_table(example_fates(table, corpus, seed))

# %% [markdown]
# ## Topics and titles
# A title that fits its own question no better than another row's belongs to another row. Neither titles nor topics are
# trained on. A rare spelling of a topic is put to the one it varies, so that it parts no dialogue.

# %%
print(corpus.describe_merged_topics())
text_table([merged.as_json() for merged in corpus.merged_topics])

# %%
for question, share in measure_title_agreement(corpus.kept, seed).items():
    print(f"{share:.1%} of the titles share a word with {question} question")
corpus.kept.topic.value_counts().head(12).to_frame("rows")

# %% [markdown]
# ## Groups and the split
# Connected rows are one group and go to one part; a data set that brings a split of its own keeps it. The turns of a
# dialogue are known by the file's order alone: they are adjacent rows of one topic, dropped rows included.

# %%
print(corpus.order.describe())
links = link_rows(corpus.kept, near_duplicate)
corpus = split_corpus(corpus, links, (train_share, val_share), seed)
groups = corpus.kept.group.value_counts()
dialogues = int((corpus.kept.dialogue.value_counts() > 1).sum())
facts = {f"links: {reason}": len(pairs) for reason, pairs in links.items()}
text_table({**facts, "dialogues": dialogues, "groups": len(groups), "rows of the largest group": groups.max()})

# %% [markdown]
# The check looks for twins in different parts in a way of its own, and shares no code with what grouped the rows.

# %%
by_row = split_groups(list(corpus.kept.id), train_share, val_share, seed)
splits = {"leak": corpus.kept.part, "row_wise_leak": by_row}
_, _, longest, longer, foreign = corpus.order
leaks = find_leaks(corpus.kept, corpus.dropped, splits, near_duplicate, longest)
leak_check = describe_leaks(leaks["leak"], leaks["row_wise_leak"], near_duplicate, longest, longer, foreign)
print(leak_check)
brings_own_split = (corpus.kept.published != "").all()
assert brings_own_split or leaks["leak"].leaked == 0, f"the split leaks: {leaks['leak'].reasons}"
text_table({f"held-out rows with {reason} in another part": rows for reason, rows in leaks["leak"].reasons.items()})

# %%
kept = join_dialogues(corpus.kept, links) if join_turns else corpus.kept
corpus = corpus._replace(kept=kept)
if max_rows:
    corpus = corpus.drop("not sampled", {*kept.id} - {*sample_rows(kept, max_rows, seed).id})
    leak_check += f" Looked at before sampling: {len(corpus.kept):,} of {len(kept):,} rows were picked."
    print(f"{corpus.funnel[-1].dropped:,} of {len(kept):,} rows are not sampled: max_rows is {max_rows:,}")
parts = make_parts(corpus.kept, system_prompt, dataset)
print(", ".join(f"{part}: {len(rows):,} rows" for part, rows in parts.items()))

# %% [markdown]
# ## Length, in tokens of the model's own tokenizer
# The whole conversation counts: system prompt, question, answer, and what the template adds. The embedded model's
# tokenizer is trained here, on the training part only.

# %%
embedded_model = ""
if base_model == "embedded":
    embedded = embedded_model_for(dataset, parts["train"])
    embedded_model = embedded.name
    keep_embedded_model(embedded, run)
tokenizer = load_tokenizer(locate_base_model(base_model, run))
rows = [*parts["train"], *parts["val"], *parts["test"]]
tokens = [len(example["input_ids"]) for example in encode_rows(tokenizer, rows)]
lengths = pandas.Series(tokens, index=[row["id"] for row in rows])
figure = draw_lengths(lengths, max_length)

# %% [markdown]
# No question of val or test may stand in another part: this is read from the rows as they will be written.

# %%
counted = lengths
corpus = corpus.drop("too long", counted.index[counted > max_length])
lengths = counted[counted <= max_length]
parts = make_parts(corpus.kept, system_prompt, dataset)
overlap = count_overlap(parts)
assert overlap == 0, f"{overlap} rows of val or test have a question that stands in another part"
too_long = f"{corpus.funnel[-1].dropped} rows over {max_length} tokens dropped"
print(f"{too_long}; {len(lengths):,} rows, {lengths.sum():,} tokens left")

# %% [markdown]
# ## What the model will be trained on
# One row as the trainer sees it. Only the second text carries labels, and it ends with `<|eot_id|>`.

# %%
example = encode_row(tokenizer, parts["train"][0])
print(tokenizer.decode(example["input_ids"]))
print("\nlabels:", decode_labels(tokenizer, example))

# %% [markdown]
# ## Files

# %%
for part, rows in parts.items():
    write_jsonl(run / "data" / f"{part}.jsonl", rows)
write_csv(run / "data" / "dropped.csv", corpus.dropped[["number", "rule", "topic", "title", "question", "answer"]])
models = {"base_model": base_model, "embedded_model": embedded_model}
checks = {"overlap": overlap, **{split: check.share for split, check in leaks.items()}, "leak_check": leak_check}
checks["dialogues"] = dialogues
metrics = data_metrics(run / "data", source, corpus, parts, lengths, models, checks)
card = data_card(source, metrics, corpus.kept.answer)
write_text(run / "data" / "README.md", card)
print(card)

# %% [markdown]
# Read them yourself: every row with its part, group, rule and tokens, in any browser.

# %%
page = write_browse_page(run, corpus, counted)
print(f"data/{page.name}: {page.stat().st_size / 1e6:.1f} MB")

# %%
run.finish_stage("prepare_data", metrics)

# %% [markdown]
# Next: `02_train` trains on `data/train.jsonl` and validates on `data/val.jsonl`; `03_evaluate` is the first to read
# `data/test.jsonl`.
