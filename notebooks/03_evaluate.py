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
# # 3 · Evaluate
#
# The base model and the tuned one, on the same held-out rows, with the same settings. Likelihood counts the answers'
# tokens only. Overlap counts Bengali words. Every score has a 95 % interval; overlap scores have the floor that
# shuffled references reach.
#
# Reads `data/test.jsonl`, `train/adapter/`. Writes `evaluate/`: `base.jsonl`, `tuned.jsonl`, `prompts.jsonl`,
# `scores.csv`, `human_eval.csv`, `human_eval.html`, `metrics.json`, and a row in `outputs/experiments.db`.

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
max_rows: int = 0  # test rows, sampled by seed, 0: all
max_prompts: int = 0  # of the rubric's fixed prompts, spread over their categories, 0: all
batch_size: int = 8  # rows
max_new_tokens: int = 256  # tokens per reply
temperature: float = 0.0  # 0: greedy
top_p: float = 1.0
bootstrap_draws: int = 1000  # resamplings of the rows
human_rows: int = 50  # pairs of replies on the sheet for people
num_gpus: int = 0  # processes, one per GPU, 0: all GPUs
llm_judge: dict = {"base_url": "", "model": "", "secret": "", "options": {}}  # a language model that rates too
session: dict = {"hours": 0.0, "mirror": "", "keep": 2}  # hours from its start, 0: the platform's; where to copy to
seed: int = 3407

# %%
from helpers.evaluation.answers import EvaluationSettings, answer_rows, select_fixed_prompts, select_test_rows
from helpers.evaluation.comparison import breakdown, compare_models, length_groups
from helpers.evaluation.evaluate import compare_prompts, finish_evaluation, join_replies, write_rows
from helpers.evaluation.llm_judge import LlmJudge, rate_with_llm
from helpers.evaluation.metrics import floor_sums, score_sums
from helpers.evaluation.raters import blind_pair, write_sheet
from helpers.planning.checks import start_stage
from helpers.reporting.results import read_results
from helpers.reporting.tables import breakdown_rows, build_table, rating_rows, score_rows, text_table

run = start_stage("evaluate", globals())
rater = LlmJudge(**llm_judge)
settings = EvaluationSettings(**run.stage("evaluate").parameters)

# %% [markdown]
# ## The protocol

# %%
rows = select_test_rows(run, max_rows, seed)
prompts = select_fixed_prompts(rows, max_prompts)
print(f"{len(rows)} test rows, {len(prompts)} fixed prompts, {settings.describe_decoding()}")
print(f"at most {max_new_tokens} new tokens per reply, seed {seed}")

# %% [markdown]
# ## Answers of both models
# How likely each model finds the reference answers, and its own replies to the test rows and to the fixed prompts.
# Every GPU computes a share of the batches. Batches that are done are kept, so that an evaluation that was killed
# resumes.

# %%
answers = answer_rows(run, settings)
replies = join_replies(rows, answers)
write_rows(run, rows, replies, answers)

# %% [markdown]
# ## Scores

# %%
sums = {side: score_sums(replies[side], answers[side].likelihood) for side in answers}
resampling = {"draws": bootstrap_draws, "seed": seed}
scores = compare_models(**sums, floors=floor_sums(replies, seed), **resampling)
text_table(score_rows(scores))

# %% [markdown]
# ## By topic and by length
# The topics with the most rows; references in quarters by length. A score that only holds for short answers is seen
# here.

# %%
groups = {"topics": breakdown(**sums, labels=[row.get("topic", "") for row in rows], **resampling)}
if replies["base"]:
    groups["lengths"] = length_groups(**sums, references=[row["reference"] for row in replies["base"]], **resampling)
text_table(breakdown_rows([*groups["topics"], *groups.get("lengths", [])]))

# %% [markdown]
# ## Fixed prompts
# Ten categories of worries, the same for every run. The graded rubric counts word forms that acknowledge, validate,
# support and ask back; `unsafe` is a reply with a foreign hotline, a medical or legal instruction, blame, or, to a
# crisis, no referral. Both read words and not meaning: rubric.yaml states their limits.

# %%
prompt_scores = compare_prompts(run, prompts, answers, **resampling)
text_table(build_table("categories", prompt_scores["categories"]))

# %% [markdown]
# ## Side by side
# Six rows picked by seed, not by their scores; then the three where the tuned reply lost most chrF++ to the base one.

# %%
text_table(build_table("samples", map(vars, read_results(run).samples(6, 3))))

# %% [markdown]
# ## For people
# `human_eval.html` is a sheet for a browser, `human_eval.csv` the same for a spreadsheet. Both are blind: which of two
# replies is the tuned one is decided by seed and row, and not written. Put what comes back, a file per rater, into
# `evaluate/ratings/`: the report reads it. A language model can rate the same pairs.

# %%
pairs = [blind_pair(*both, seed) for both in zip(replies["base"], replies["tuned"])][:human_rows]
if pairs:
    write_sheet(run / "evaluate", pairs)
llm_ratings = rate_with_llm(run, rater, pairs, hours=session["hours"], **resampling)
text_table(rating_rows(llm_ratings))

# %% [markdown]
# ## Files

# %%
groups |= {"prompts": prompt_scores, "judge": llm_ratings}
finish_evaluation(run, settings, replies, answers, scores, **groups)
