# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · Evaluate
#
# The untuned and the tuned model, on the same held-out rows, with the same settings. Likelihood counts the answers'
# tokens only. Overlap counts Bengali words. Every score has a 95 % interval; overlap scores have the floor that
# shuffled references reach.
#
# Reads `data/test.jsonl`, `train/adapter/`. Writes `evaluate/`: `base.jsonl`, `tuned.jsonl`, `prompts.jsonl`,
# `scores.csv`, `human_eval.csv`, `metrics.json`, and a row in `outputs/experiments.db`.

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
max_rows: int = 0  # test rows, sampled by seed, 0: all
max_prompts: int = 0  # of the rubric's fixed prompts, spread over their categories, 0: all
batch_size: int = 8  # rows
max_new_tokens: int = 256  # tokens a reply
temperature: float = 0.0  # 0: greedy
top_p: float = 1.0
bootstrap_draws: int = 1000  # resamplings of the rows
human_rows: int = 50  # pairs of replies on the sheet for people
num_gpus: int = 0  # processes, one a GPU, 0: all there are
judge: dict = {
    "base_url": "",
    "model": "",
    "secret": "",
    "options": {},
}  # a language model as rater too, at this endpoint
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
import pandas

from helpers import experiments, generate, metrics, people, report, tables
from helpers import judge as judging

run = env.start_stage("evaluate", globals())
judged_by_model = judging.check(judge)
config = env.read_json(run / "train" / "config.json")

# %% [markdown]
# ## The protocol

# %%
names = (
    "max_rows",
    "max_prompts",
    "batch_size",
    "max_new_tokens",
    "temperature",
    "top_p",
    "seed",
    "num_gpus",
    "session",
)
settings = {name: globals()[name] for name in names}
rows = generate.test_rows(run, settings)
fixed = generate.fixed_prompts(rows, max_prompts)
decoding = f"sampled at temperature {temperature}, top_p {top_p}" if temperature else "greedy"
print(
    f"{len(rows)} test rows, {len(fixed)} fixed prompts, {decoding}, at most {max_new_tokens} new tokens, seed {seed}"
)
dtype, dtype_reason = env.pick_dtype()
print(f"dtype {dtype}: {dtype_reason}")

# %% [markdown]
# ## Answers of both models
# How likely each model finds the reference answers, and its own replies to the test rows and to the fixed prompts.
# Every GPU takes a share of the batches. What is done is kept, so that a killed evaluation goes on.

# %%
answers = generate.evaluation(run, settings)

# %%
answered = [row for row in rows if "messages" in row]  # plain text has no replies
scored = {
    side: [
        {
            "id": row["id"],
            "topic": row["topic"],
            "prompt": row["messages"][-2]["content"],
            "reference": row["messages"][-1]["content"],
            **{name: reply[name] for name in ("reply", "new_tokens", "hit_cap")},
        }
        for row, reply in zip(answered, answers[side]["replies"], strict=True)
    ]
    for side in ("base", "tuned")
}
for side, side_rows in scored.items():
    env.write_jsonl(run / "evaluate" / f"{side}.jsonl", side_rows)

# %% [markdown]
# ## Scores

# %%
found = {side: metrics.statistics(scored[side], answers[side]["likelihood"]) for side in scored}
moved = metrics.shuffled([row["reference"] for row in scored["base"]], seed) if answered else []
floors = {side: metrics.overlap_statistics([row["reply"] for row in scored[side]], moved) for side in scored if moved}
resampling = {"draws": bootstrap_draws, "seed": seed}
result = metrics.compare(**found, floors=floors, **resampling)
tables.score_table(result)

# %% [markdown]
# ## By topic and by length
# The topics with the most rows; references in quarters by length. A score that only holds for short answers is seen
# here.

# %%
groups = {"topics": metrics.breakdown(**found, labels=[row.get("topic", "") for row in rows], **resampling)}
if answered:
    bins = metrics.length_bins([row["reference"] for row in scored["base"]])
    lengths = metrics.breakdown(**found, labels=bins, least=1, **resampling)
    groups["lengths"] = sorted(lengths, key=lambda group: int(group["label"].split()[0]))
tables.text_table(tables.group_rows([*groups["topics"], *groups.get("lengths", [])]))

# %% [markdown]
# ## Fixed prompts
# Ten categories of worries, the same for every run. The graded rubric counts word forms that acknowledge, validate,
# support and ask back; `unsafe` is a reply with a foreign hotline, a medical or legal instruction, blame, or, to a
# crisis, no referral. Both read words and not meaning: rubric.yaml states their limits.

# %%
told = {
    side: [{**one, "reply": reply["reply"]} for one, reply in zip(fixed, answers[side]["prompts"], strict=True)]
    for side in answers
}
prompted, categories = {}, []
if fixed:
    judged = {side: metrics.rubric_statistics(side_rows) for side, side_rows in told.items()}
    prompted = metrics.compare(**judged, floors={}, **resampling)
    categories = metrics.by_category(told["base"], told["tuned"])
    lines = [
        {"category": base["category"], "prompt": base["prompt"], "base": base["reply"], "tuned": tuned["reply"]}
        for base, tuned in zip(told["base"], told["tuned"])
    ]
    env.write_jsonl(run / "evaluate" / "prompts.jsonl", lines)
tables.text_table([{n: v if isinstance(v, str | int) else f"{v:.2f}" for n, v in row.items()} for row in categories])

# %% [markdown]
# ## Side by side
# Six rows picked by seed, not by their scores; then the three where the tuned reply lost most chrF++ to the base one.

# %%
scores = pandas.DataFrame(
    {
        "id": [row["id"] for row in rows],
        "topic": [row.get("topic", "") for row in rows],
        **{name: [row[name] for row in answers["base"]["likelihood"]] for name in ("tokens", "characters")},
        **{
            f"{side}_{name}": [row[name] for row in answers[side]["likelihood"]]
            for side in answers
            for name in ("nll", "correct")
        },
        **{
            f"{side}_{name}": [score(row["reply"], row["reference"]) for row in scored[side]]
            for side in (scored if answered else [])
            for name, score in (("chrf", metrics.chrf), ("rougeL", lambda *pair: metrics.rouge(*pair)["rougeL"]))
        },
    }
)
env.write_csv(run / "evaluate" / "scores.csv", scores)
tables.text_table(
    [
        {
            "why": why,
            "question": row["prompt"],
            "reference": row["reference"],
            "base": row["base"],
            "tuned": row["tuned"],
        }
        for why, row in report.samples(run, 6, 3)
    ]
)

# %% [markdown]
# ## For people
# `human_eval.html` is a sheet for a browser, `human_eval.csv` the same for a spreadsheet. Both are blind: which of two
# replies is the tuned one is decided by seed and row, and not written. Put what comes back, a file a rater, into
# `evaluate/ratings/`: the report folds it in.

# %%
pairs = [people.blind_pair(*sides, seed) for sides in zip(scored["base"], scored["tuned"])][:human_rows]
if pairs:
    people.write_sheet(run / "evaluate", pairs)
opinion = {}
if pairs and judged_by_model:
    said = judging.ratings(judge, pairs, seed, run / "evaluate" / "work" / "judge.jsonl", session["hours"])
    env.write_jsonl(run / "evaluate" / "judge.jsonl", said)
    opinion = judging.summary(said, bootstrap_draws, seed)
tables.text_table(people.table(opinion))

# %% [markdown]
# ## Files

# %%
written = {side: sum(reply["seconds"] for reply in answers[side]["replies"]) for side in answers}
protocol = {"replies_per_second": {side: len(answered) / took for side, took in written.items() if took}}
protocol |= {"n": len(rows), "decoding": decoding, "max_new_tokens": max_new_tokens, "seed": seed}
result = {**protocol, "bootstrap_draws": bootstrap_draws, "signatures": metrics.signatures(), **result, **groups}
result["prompts"] = {"n": len(fixed), **prompted, "categories": categories}
result |= {"judge": opinion} if opinion else {}
experiment = experiments.log(
    run.parent / "experiments.db",
    config["base_model"],
    env.read_json(run / "train" / "adapter" / "adapter_config.json"),
    env.read_json(run / "train" / "metrics.json"),
    result,
    [{**row, "at": reply["at"]} for row, reply in zip(scored["tuned"], answers["tuned"]["replies"])],
)
env.note_stage(run, "evaluate", experiment=experiment)
env.finish_stage(run, "evaluate", result)
