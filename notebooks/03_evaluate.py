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
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
import functools

import pandas

from helpers import experiments, generate, metrics, model, report, rubric, text, tiny

run = env.start_stage("evaluate", globals())
config = env.read_json(run / "train" / "config.json")

# %% [markdown]
# ## The protocol

# %%
rows = env.read_jsonl(run / "data" / "test.jsonl")
rows = sorted(rows, key=lambda row: text.shuffle_key(seed, row["id"]))[: max_rows or None]
decoding = f"sampled at temperature {temperature}, top_p {top_p}" if temperature else "greedy"
print(f"{len(rows)} test rows, {decoding}, at most {max_new_tokens} new tokens, seed {seed}")

# %%
dtype, dtype_reason = env.pick_dtype()
print(f"dtype {dtype}: {dtype_reason}")
base = tiny.locate(config["base_model"], run)
tokenizer = model.load_tokenizer(base)
tuned_model = model.load_for_inference(base, run / "train" / "adapter", config["load_in_4bit"], dtype)

# %% [markdown]
# ## Likelihood of the reference answers

# %%
work = run / "evaluate" / "work"  # every batch is kept there until the stage ends, so that a killed one goes on
score_answers = functools.partial(model.likelihood, tuned_model, tokenizer, rows, batch_size, hours=session["hours"])
likelihoods = {"tuned": score_answers(what="tuned likelihood", keep=work / "tuned_likelihood.jsonl")}
with tuned_model.disable_adapter():
    likelihoods["base"] = score_answers(what="base likelihood", keep=work / "base_likelihood.jsonl")

# %% [markdown]
# ## Replies

# %%
answered = [row for row in rows if "messages" in row]  # plain text has no replies
conversations = [row["messages"][:-1] for row in answered]
decode = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "temperature": temperature, "top_p": top_p}
answer = functools.partial(generate.replies, tuned_model, tokenizer, **decode, seed=seed, hours=session["hours"])
replies = {"tuned": answer(conversations, what="tuned reply", keep=work / "tuned_replies.jsonl")}
with tuned_model.disable_adapter():
    replies["base"] = answer(conversations, what="base reply", keep=work / "base_replies.jsonl")

# %%
scored = {
    side: [
        {
            "id": row["id"],
            "topic": row["topic"],
            "prompt": row["messages"][-2]["content"],
            "reference": row["messages"][-1]["content"],
            **{name: reply[name] for name in ("reply", "new_tokens", "hit_cap")},
        }
        for row, reply in zip(answered, replies[side], strict=True)
    ]
    for side in ("base", "tuned")
}
for side, side_rows in scored.items():
    env.write_jsonl(run / "evaluate" / f"{side}.jsonl", side_rows)

# %% [markdown]
# ## Scores

# %%
found = {side: metrics.statistics(scored[side], likelihoods[side]) for side in scored}
moved = metrics.shuffled([row["reference"] for row in scored["base"]], seed) if answered else []
floors = {side: metrics.overlap_statistics([row["reply"] for row in scored[side]], moved) for side in scored if moved}
result = metrics.compare(found["base"], found["tuned"], floors, bootstrap_draws, seed)
report.score_table(result)

# %% [markdown]
# ## Fixed prompts
# Ten categories of worries, the same for every run. The graded rubric counts word forms that acknowledge, validate,
# support and ask back; `unsafe` is a reply with a foreign hotline, a medical or legal instruction, blame, or, to a
# crisis, no referral. Both read words and not meaning: rubric.yaml states their limits.

# %%
fixed = rubric.prompts()
fixed = fixed[:: max(1, len(fixed) // max_prompts) if max_prompts else 1][: max_prompts or None] if answered else []
system = [message for message in answered[0]["messages"] if message["role"] == "system"] if answered else []
asked = [[*system, {"role": "user", "content": one["prompt"]}] for one in fixed]
told = {"tuned": answer(asked, what="tuned reply to a fixed prompt", keep=work / "tuned_prompts.jsonl")}
with tuned_model.disable_adapter():
    told["base"] = answer(asked, what="base reply to a fixed prompt", keep=work / "base_prompts.jsonl")
for side, found_replies in told.items():
    told[side] = [{**one, "reply": reply["reply"]} for one, reply in zip(fixed, found_replies, strict=True)]

# %%
prompted, categories = {}, []
if fixed:
    judged = {side: metrics.rubric_statistics(side_rows) for side, side_rows in told.items()}
    prompted = metrics.compare(judged["base"], judged["tuned"], {}, bootstrap_draws, seed)
    categories = metrics.by_category(told["base"], told["tuned"])
    lines = [{**one, "base": one["reply"], "tuned": two["reply"]} for one, two in zip(told["base"], told["tuned"])]
    env.write_jsonl(run / "evaluate" / "prompts.jsonl", [{n: v for n, v in x.items() if n != "reply"} for x in lines])
report.text_table([{n: v if isinstance(v, str | int) else f"{v:.2f}" for n, v in row.items()} for row in categories])

# %% [markdown]
# ## Side by side
# Four rows picked by seed, not by their scores.

# %%
report.text_table(
    [
        {"question": base["prompt"], "reference": base["reference"], "base": base["reply"], "tuned": tuned["reply"]}
        for base, tuned in zip(scored["base"][:4], scored["tuned"])
    ]
)

# %% [markdown]
# ## Files
# `human_eval.csv` is blind: which of the two replies is the tuned one is decided by seed and row, and not written.

# %%
per_row = {
    f"{side}_{name}": [metrics.rouge(row["reply"], row["reference"])[name] for row in scored[side]]
    for side in scored
    for name in ("rouge1", "rougeL")
    if answered
}
per_row |= {f"{side}_nll": [row["nll"] for row in likelihoods[side]] for side in scored}
topics = [row.get("topic", "") for row in rows]
scores = pandas.DataFrame({"id": [row["id"] for row in rows], "topic": topics, **per_row})
env.write_csv(run / "evaluate" / "scores.csv", scores)
sheet = [metrics.blind_pair(base, tuned, seed) for base, tuned in zip(scored["base"], scored["tuned"], strict=True)]
env.write_csv(run / "evaluate" / "human_eval.csv", pandas.DataFrame(sheet))

# %%
protocol = {"n": len(rows), "decoding": decoding, "max_new_tokens": max_new_tokens, "seed": seed}
result = {**protocol, "signatures": metrics.signatures(), **result}
result["prompts"] = {"n": len(fixed), **prompted, "categories": categories}
experiments.log(
    run.parent / "experiments.db",
    config["base_model"],
    env.read_json(run / "train" / "adapter" / "adapter_config.json"),
    env.read_json(run / "train" / "metrics.json"),
    result,
    scored["tuned"],
)
env.finish_stage(run, "evaluate", result)
