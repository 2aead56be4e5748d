# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1 · Prepare data
#
# Reads the corpus, drops what cannot be learnt from, puts rows that belong together into one group, and splits by
# group. A question with several answers, the turns of one dialogue, and near-duplicates never stand on two sides.
#
# Reads the data set. Writes `data/`: `train.jsonl`, `val.jsonl`, `test.jsonl`, `dropped.csv`, `README.md` (the data
# card), `metrics.json`.

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

from helpers import chat, corpus, figures, model, tables, tiny

run = env.start_stage("prepare_data", globals())

# %% [markdown]
# ## The table
# Its identity is git's SHA-1 of the file. Another file than the published one is used all the same.

# %%
table, about = corpus.load(dataset, dataset_format)
table["number"] = range(1, len(table) + 1)
about["published"] = about["published"] or "no, another one"
tables.text_table(about)

# %% [markdown]
# ## Cleaning
# Text is normalised once, here: NFC, single spaces, no control characters. The first three rules repair a row, the
# others drop it; each dropped row keeps its rule in `dropped.csv`.

# %%
kept, dropped, funnel = corpus.clean(table, skip_rules, min_bengali_share)
tables.text_table(
    [{**step, "share": f"{step['share']:.2%}", "examples": "\n".join(step["examples"])} for step in funnel]
)

# %% [markdown]
# Three rows, raw, and what became of them.

# %%
fates = corpus.fates(table, kept, dropped, seed)
tables.text_table(fates)

# %% [markdown]
# ## Topics and titles
# A title that fits its own question no better than another row's belongs to another row. Neither titles nor topics are
# trained on.

# %%
agreement = corpus.title_agreement(kept, seed)
for whose, share in (agreement or {}).items():
    print(f"{share:.1%} of the titles share a word with {whose} question")
kept.topic.value_counts().head(12).to_frame("rows")

# %% [markdown]
# ## Groups and the split
# Connected rows are one group and go to one part. The check afterwards is another method than the one that grouped.

# %%
links = corpus.links(kept, near_duplicate)
shares = (train_share, val_share)
pairs = [pair for found in links.values() for pair in found]
if (kept.published != "").all():  # a split of its own: kept, but for what stands in two parts
    kept, twice = corpus.as_published(kept)
    kept["group"] = corpus.groups(kept, [pair for pair in pairs if not set(pair) & set(twice.id)])
    funnel.append(corpus.step("in an earlier part too", len(kept) + len(twice), dropped=len(twice)))
    dropped = pandas.concat([dropped, twice.assign(rule="in an earlier part too")[list(dropped.columns)]])
else:
    kept["group"], kept["part"] = corpus.divide(kept, pairs, shares, seed, near_duplicate)
by_row = corpus.split(list(kept.id), *shares, seed)
leaks = {"leak": corpus.leak(list(kept.group), list(kept.part)), "row_wise_leak": corpus.leak(list(kept.group), by_row)}
groups = kept.group.value_counts()
tables.text_table(
    {
        **{f"pairs: {reason}": len(found) for reason, found in links.items()},
        "groups": len(groups),
        "rows of the largest group": groups.max(),
        "held-out rows with a twin in train, split by group": f"{leaks['leak']:.1%}",
        "held-out rows with a twin in train, split by row": f"{leaks['row_wise_leak']:.1%}",
    }
)

# %%
if join_turns:
    kept = corpus.join_turns(kept)
kept = corpus.sample(kept, max_rows, seed)
label = "embedded" if dataset == "embedded" else dataset.split("/")[-1]
parts = {part: corpus.data_rows(kept[kept.part == part], system_prompt, label) for part in ("train", "val", "test")}

# %% [markdown]
# ## Length, in tokens of the model's own tokenizer
# The whole conversation counts: system prompt, question, answer, and what the template adds. The embedded model's
# tokenizer is trained here, on the training part only.

# %%
embedded_model = ""
if base_model == "embedded":
    embedded = tiny.folder_for(dataset, parts["train"])
    embedded_model = embedded.name
    tiny.keep(embedded, run)
tokenizer = model.load_tokenizer(tiny.locate(base_model, run))
rows = [row for part in parts.values() for row in part]
lengths = pandas.Series({row["id"]: len(chat.encode(tokenizer, row)["input_ids"]) for row in rows})
figure = figures.lengths(lengths, max_length)

# %%
too_long = set(lengths.index[lengths > max_length])
funnel.append(corpus.step("too long", len(lengths), dropped=len(too_long)))
cut = kept[kept.id.isin(too_long)].assign(rule="too long")
dropped = pandas.concat([dropped, cut.reindex(columns=dropped.columns)], ignore_index=True)
parts = {part: [row for row in rows if row["id"] not in too_long] for part, rows in parts.items()}
lengths = lengths.drop(list(too_long))
empty = [part for part, rows in parts.items() if not rows]
if empty:
    raise ValueError(f"max_length is {max_length} tokens: no row of {empty} is that short. Raise shared.max_length.")
overlap = corpus.overlap(parts)
assert overlap == 0, f"{overlap} rows of val or test have a question that stands in another part"
print(f"{len(too_long)} rows over {max_length} tokens dropped; {len(lengths):,} rows, {lengths.sum():,} tokens left")

# %% [markdown]
# ## What the model will learn
# One row as the trainer sees it. Only the second text carries labels, and it ends with `<|eot_id|>`.

# %%
example = chat.encode(tokenizer, parts["train"][0])
print(tokenizer.decode(example["input_ids"]))
print("\nlabels:", chat.supervised_text(tokenizer, example))

# %% [markdown]
# ## Files

# %%
for part, rows in parts.items():
    env.write_jsonl(run / "data" / f"{part}.jsonl", rows)
env.write_csv(run / "data" / "dropped.csv", dropped[["number", "rule", "topic", "title", "question", "answer"]])
metrics = {
    "dataset": dataset,
    **{name: about[name] for name in ("source", "format", "blob_sha1", "published")},
    "base_model": base_model,
    "embedded_model": embedded_model,
    "rows_in": len(table),
    "rows_out": len(lengths),
    "dropped": {rule: int(count) for rule, count in dropped.rule.value_counts().items()},
    "groups": len({row["group"] for rows in parts.values() for row in rows}),
    **{part: len(rows) for part, rows in parts.items()},
    "overlap": overlap,
    **leaks,
    "tokens": {
        "mean": float(lengths.mean()),
        **{f"p{p}": float(lengths.quantile(p / 100)) for p in (50, 95, 99)},
        "max": int(lengths.max()),
        "total": int(lengths.sum()),
        "quantiles": [[share / 100, float(lengths.quantile(share / 100))] for share in range(101)],
    },
    "funnel": [{name: value for name, value in step.items() if name != "examples"} for step in funnel],
    "sha256": {part: env.sha256(run / "data" / f"{part}.jsonl") for part in parts},
}
card = corpus.data_card(about, metrics, funnel)
env.write_text(run / "data" / "README.md", card)
print(card)

# %%
env.finish_stage(run, "prepare_data", metrics)
