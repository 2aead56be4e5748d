"""The evaluation stage: both models' answers joined with their rows, and the files of evaluate/."""

import pandas

from helpers.evaluation.answers import Answers, EvaluationSettings
from helpers.evaluation.comparison import Comparison, category_means, compare_models
from helpers.evaluation.metrics import chrf, rouge, rubric_sums, signatures
from helpers.runs.experiments import log_experiment
from helpers.runs.files import read_json, write_csv, write_jsonl
from helpers.runs.record import Run

BothAnswers = dict[str, Answers]  # {"base": …, "tuned": …}
BothRows = dict[str, list[dict]]


def join_replies(rows: list[dict], answers: BothAnswers) -> BothRows:
    """Returns the rows of base.jsonl and tuned.jsonl: replies with prompt and reference; none for plain texts."""
    asked = []
    for row in rows:
        if "messages" in row:
            prompt, reference = (message["content"] for message in row["messages"][-2:])
            asked.append({"id": row["id"], "topic": row["topic"], "prompt": prompt, "reference": reference})
    names = ("reply", "new_tokens", "hit_cap")
    return {side: _join(asked, own.replies, names) for side, own in answers.items()}


def _join(rows: list[dict], replies: list, names: tuple[str, ...]) -> list[dict]:
    return [row | {name: reply[name] for name in names} for row, reply in zip(rows, replies, strict=True)]


def write_rows(run: Run, rows: list[dict], replies: BothRows, answers: BothAnswers) -> None:
    """Writes base.jsonl, tuned.jsonl, and scores.csv: likelihood, chrF++ and ROUGE-L of both models, row by row."""
    columns = {"id": [row["id"] for row in rows], "topic": [row.get("topic", "") for row in rows]}
    columns |= {name: [row[name] for row in answers["base"].likelihood] for name in ("tokens", "characters")}
    for side, own in answers.items():
        columns |= {f"{side}_{name}": [row[name] for row in own.likelihood] for name in ("nll", "correct")}
    for side, own_rows in replies.items():
        write_jsonl(run / "evaluate" / f"{side}.jsonl", own_rows)
        if own_rows:
            columns[f"{side}_chrf"] = [chrf(row["reply"], row["reference"]) for row in own_rows]
            columns[f"{side}_rougeL"] = [rouge(row["reply"], row["reference"])["rougeL"] for row in own_rows]
    write_csv(run / "evaluate" / "scores.csv", pandas.DataFrame(columns))


def compare_prompts(run: Run, prompts: list[dict], answers: BothAnswers, draws: int, seed: int) -> dict:
    """Writes prompts.jsonl: the fixed prompts with each model's reply. Returns the rubric's scores over all of them
    (`base`, `tuned`, `delta`) and its means by category (`categories`); writes nothing and returns no scores without
    prompts."""
    replied = {side: _join(prompts, own.prompts, ("reply",)) for side, own in answers.items()}
    scores = {}
    if prompts:
        pairs = [
            {"category": base["category"], "prompt": base["prompt"], "base": base["reply"], "tuned": tuned["reply"]}
            for base, tuned in zip(replied["base"], replied["tuned"])
        ]
        write_jsonl(run / "evaluate" / "prompts.jsonl", pairs)
        sums = {side: rubric_sums(rows) for side, rows in replied.items()}
        scores = compare_models(sums["base"], sums["tuned"], {}, draws, seed).model_dump()
    return {"n": len(prompts), **scores, "categories": category_means(**replied)}


def finish_evaluation(
    run: Run, settings: EvaluationSettings, replies: BothRows, answers: BothAnswers, scores: Comparison, **others: dict
) -> None:
    """Adds the experiment to experiments.db, and ends the stage with its metrics.json.

    `others` are further results by their key in metrics.json; one that is empty is left out.
    """
    seconds = {side: sum(reply["seconds"] for reply in own.replies) for side, own in answers.items()}
    metrics = {
        "replies_per_second": {side: len(replies[side]) / spent for side, spent in seconds.items() if spent},
        "n": len(answers["base"].likelihood),
        "decoding": settings.describe_decoding(),
        "max_new_tokens": settings.max_new_tokens,
        "seed": settings.seed,
        "bootstrap_draws": settings.bootstrap_draws,
        "signatures": signatures(),
        **scores.model_dump(),
        **{key: result for key, result in others.items() if result},
    }
    experiment = log_experiment(
        run.outputs / "experiments.db",
        run.training_config()["base_model"],
        read_json(run / "train" / "adapter" / "adapter_config.json"),
        run.metrics("train"),
        metrics,
        [{**row, "at": reply["at"]} for row, reply in zip(replies["tuned"], answers["tuned"].replies)],
    )
    run.note_stage("evaluate", experiment=experiment)
    run.finish_stage("evaluate", metrics)
