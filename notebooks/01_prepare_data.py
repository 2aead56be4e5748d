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
# group. A question with several answers and the turns of one dialogue never stand on two sides of the split.
#
# Reads the data set. Writes `data/`: `train.jsonl`, `val.jsonl`, `test.jsonl`, `dropped.csv`, `metrics.json`.

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
base_model: str = "embedded"  # whose tokenizer counts: "embedded", a folder, or a Hugging Face name
system_prompt: str = "You are a sympathetic and helpful assistant. You answer people's questions in Bengali language."
max_length: int = 1024  # tokens of a whole conversation; a longer one is dropped, never cut
max_rows: int = 0  # rows sampled by seed after cleaning, 0: all
train_share: float = 0.8  # of the rows
val_share: float = 0.1  # of the rows; the rest is the test part
seed: int = 3407

# %%
import pandas

from helpers import chat, corpus, model, report, tiny

run = env.start_stage("prepare_data", globals())

# %% [markdown]
# ## The table
# Four columns, by exact name: `Topics`, `Question-Title`, `Questions`, `Answers`.

# %%
table, source = corpus.load(dataset)
print(f"{len(table):,} rows from {source}")
report.text_table(table.sample(min(3, len(table)), random_state=seed))

# %% [markdown]
# ## Cleaning
# Text is normalised once, here: NFC, single spaces, no control characters. Each dropped row keeps its rule.

# %%
kept, dropped = corpus.clean(table)
kept = corpus.sample(kept, max_rows, seed)
dropped.rule.value_counts().reindex(corpus.RULES, fill_value=0).to_frame("rows dropped")

# %% [markdown]
# ## Groups and the split
# One group: the same question (by its words), or adjacent rows of one untitled topic, which are turns of a dialogue.

# %%
kept["group"] = corpus.groups(kept)
kept["part"] = corpus.split(list(kept.group), train_share, val_share, seed)
label = "embedded" if dataset == "embedded" else dataset.split("/")[-1]
parts = {part: corpus.data_rows(kept[kept.part == part], system_prompt, label) for part in ("train", "val", "test")}
overlap = corpus.overlap(parts)
assert overlap == 0, f"{overlap} rows of val or test have a question that stands in another part"
print(f"{kept.group.nunique():,} groups; questions that stand in two parts: {overlap}")

# %% [markdown]
# ## Length, in tokens of the model's own tokenizer
# The whole conversation counts: system prompt, question, answer, and what the template adds. The embedded model's
# tokenizer is trained here, on the training part only.

# %%
embedded_model = tiny.folder_for(dataset, parts["train"]).name if base_model == "embedded" else ""
tokenizer = model.load_tokenizer(tiny.locate(base_model, embedded_model))
examples = {row["id"]: chat.encode(tokenizer, row) for rows in parts.values() for row in rows}
lengths = pandas.Series({name: len(example["input_ids"]) for name, example in examples.items()})
lengths.describe(percentiles=[0.5, 0.95, 0.99]).round(1).to_frame("tokens a row")

# %%
too_long = set(lengths.index[lengths > max_length])
cut = kept[kept.id.isin(too_long)].assign(rule="too long")
dropped = pandas.concat([dropped, cut[dropped.columns]], ignore_index=True)
parts = {part: [row for row in rows if row["id"] not in too_long] for part, rows in parts.items()}
lengths = lengths.drop(list(too_long))
empty = [part for part, rows in parts.items() if not rows]
if empty:
    raise ValueError(f"max_length is {max_length} tokens: no row of {empty} is that short. Raise shared.max_length.")
print(
    f"{len(too_long)} rows over {max_length} tokens dropped; {len(lengths):,} rows, {lengths.sum():,} tokens are left"
)

# %% [markdown]
# ## What the model will learn
# One row as the trainer sees it. Only the second text carries labels, and it ends with `<|eot_id|>`.

# %%
row = parts["train"][0]
print(tokenizer.decode(examples[row["id"]]["input_ids"]))
print("\nlabels:", chat.supervised_text(tokenizer, examples[row["id"]]))

# %% [markdown]
# ## Files

# %%
for part, rows in parts.items():
    env.write_jsonl(run / "data" / f"{part}.jsonl", rows)
env.write_text(run / "data" / "dropped.csv", dropped.to_csv(index=False))
metrics = {
    "dataset": dataset,
    "source": source,
    "base_model": base_model,
    "embedded_model": embedded_model,
    "rows_in": len(table),
    "rows_out": len(lengths),
    "dropped": {rule: int(count) for rule, count in dropped.rule.value_counts().items()},
    "groups": len({row["group"] for rows in parts.values() for row in rows}),
    **{part: len(rows) for part, rows in parts.items()},
    "topics": len({row["topic"] for rows in parts.values() for row in rows}),
    "overlap": overlap,
    "tokens": {
        "mean": float(lengths.mean()),
        **{f"p{p}": float(lengths.quantile(p / 100)) for p in (50, 95, 99)},
        "max": int(lengths.max()),
        "total": int(lengths.sum()),
    },
    "sha256": {part: env.sha256(run / "data" / f"{part}.jsonl") for part in parts},
}
env.finish_stage(run, "prepare_data", metrics)
report.text_table(metrics)
