"""The evaluation stage: the models' answers joined with their rows, and the files of evaluate/."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy
import pandas

from helpers.evaluation.answers import (
    Answers,
    EvaluationSettings,
    answer_rows,
    keep_for_later,
    select_fixed_prompts,
    select_probes,
    select_test_rows,
    sum_seconds,
)
from helpers.evaluation.benchmarks import compare_benchmarks
from helpers.evaluation.comparison import (
    Comparison,
    Sums,
    breakdown,
    category_means,
    compare_models,
    length_groups,
)
from helpers.evaluation.meaning import Meaning, measure_meaning
from helpers.evaluation.meta_evaluation import values_by_row
from helpers.evaluation.metrics import chrf, floor_sums, rouge, rubric_sums, score_sums, signatures
from helpers.evaluation.probes import compare_probes, probe_sums
from helpers.evaluation.sheet import blind_pair, write_sheet
from helpers.evaluation.sheet_rows import CRITERION, choose_rows, write_sample
from helpers.evaluation.verdict import reach_verdict
from helpers.language.rubric import VERSION as RUBRIC_VERSION
from helpers.runs.experiments import log_experiment
from helpers.runs.files import read_json, write_csv, write_jsonl
from helpers.runs.record import Run

AllAnswers = dict[str, Answers]  # {"base": …, "tuned": …} and "preferred" where the stage prefer has finished
AllRows = dict[str, list[dict]]


@dataclass(frozen=True)
class HeldOut:
    """What both models are asked."""

    rows: list[dict]  # data rows of the test part
    prompts: list[dict]  # the fixed ones, with their `messages`

    def describe(self, settings: EvaluationSettings) -> str:
        """Returns the protocol in a sentence."""
        asked = f"{len(self.rows):,} held-out rows and {len(self.prompts):,} fixed prompts"
        limits = f"at most {settings.max_new_tokens:,} new tokens per reply, seed {settings.seed}"
        return f"{asked}, {settings.describe_decoding()} decoding, {limits}."


@dataclass(frozen=True)
class Evaluated:
    """Two models' answers to what they were asked, and what their scores are made of, as "base" and "tuned".

    `preferred` is the same of the tuned model, there the "base", and the preferred one, there the "tuned", without the
    rows whose ratings it was trained on; None without the stage prefer.
    """

    held_out: HeldOut
    answers: AllAnswers
    replies: AllRows
    sums: dict[str, Sums]  # of each model, over the held-out rows
    floors: dict[str, Sums]  # as `floor_sums` returns them
    meaning: Meaning = field(default_factory=Meaning)  # whose sums and floors stand in the two above too
    preferred: "Evaluated | None" = None

    @property
    def groups(self) -> list[str]:
        """The group of each held-out row, which are not independent of one another."""
        return [row["group"] for row in self.held_out.rows]

    def describe(self) -> str:
        """Returns in sentences how many replies there are, how many ended before the cap, and how many differ."""
        if not self.replies["tuned"]:
            return f"Both models have scored {len(self.held_out.rows):,} plain texts, which have no replies."
        ended = {side: sum(not row["hit_cap"] for row in rows) for side, rows in self.replies.items()}
        counts = f"{ended['base']:,} of the base model's and {ended['tuned']:,} of the tuned model's"
        total = len(self.replies["tuned"])
        different = [
            f"{side} {len({row['reply'] for row in rows}):,} of {total:,}" for side, rows in self.replies.items()
        ]
        return f"Of {total:,} replies each, {counts} ended before the limit. Different replies: {', '.join(different)}."

    def pair(self, base: str, tuned: str, left_out: set[str] | None = None) -> "Evaluated":
        """Returns the same of two of the models under the names "base" and "tuned", without the rows of some ids."""
        names = {"base": base, "tuned": tuned}
        every = self.held_out.rows
        kept = [place for place, row in enumerate(every) if row["id"] not in (left_out or ())]
        rows = [every[place] for place in kept]
        places = {place: number for number, place in enumerate(n for n, row in enumerate(every) if "messages" in row)}
        asked = [places[place] for place in kept if place in places]  # the rows that have replies

        def answers(own: Answers) -> Answers:
            drift = [own.drift[n] for n in asked] if own.drift else []
            own_replies = [own.replies[n] for n in asked]
            return replace(own, likelihood=[own.likelihood[n] for n in kept], replies=own_replies, drift=drift)

        def part(sums: Sums) -> Sums:
            return {name: values[kept if len(values) == len(every) else asked] for name, values in sums.items()}

        def pick(each: dict[str, Sums]) -> dict[str, Sums]:
            return {name: part(each[side]) for name, side in names.items() if side in each}

        return replace(
            self,
            held_out=HeldOut(rows, self.held_out.prompts),
            answers={name: answers(self.answers[side]) for name, side in names.items()},
            replies={n: [self.replies[side][place] for place in asked] for n, side in names.items()},
            sums=pick(self.sums),
            floors=pick(self.floors),
            meaning=replace(self.meaning, sums=pick(self.meaning.sums), floors=pick(self.meaning.floors)),
        )


def select_held_out(run: Run, settings: EvaluationSettings) -> HeldOut:
    """Returns the test rows, or as many as the settings ask for, and the fixed prompts that go with them."""
    rows = select_test_rows(run, settings.max_rows, settings.seed)
    return HeldOut(rows, select_fixed_prompts(rows, settings.max_prompts))


def answer_held_out(run: Run, settings: EvaluationSettings, held_out: HeldOut) -> Evaluated:
    """Lets the models answer, and writes base.jsonl, tuned.jsonl, preferred.jsonl where there is such a model, and
    scores.csv; raises as `answer_rows` does."""
    answers = answer_rows(run, settings)
    replies = join_replies(held_out.rows, answers)
    groups = [row["group"] for row in held_out.rows]
    meaning = measure_meaning(settings.encoder, replies, groups, settings.seed)  # the language model's memory is free
    write_rows(run, held_out.rows, replies, answers, meaning)
    sums = {s: score_sums(replies[s], own.likelihood) | meaning.sums.get(s, {}) for s, own in answers.items()}
    floors = {s: own | meaning.floors.get(s, {}) for s, own in floor_sums(replies, groups, settings.seed).items()}
    evaluated = Evaluated(held_out, answers, replies, sums, floors, meaning)
    if "preferred" not in answers:
        (run / "evaluate" / "preferred.jsonl").unlink(missing_ok=True)  # of an earlier evaluation
        return evaluated
    preferred = evaluated.pair("tuned", "preferred", rated_rows(run))
    return replace(evaluated.pair("base", "tuned"), preferred=preferred)


def rated_rows(run: Run) -> set[str]:
    """Returns the ids of the test rows whose ratings the preferred model was trained on."""
    return set(read_json(run / "prefer" / "metrics.json").get("used_test_ids", []))


def compare_replies(evaluated: Evaluated, settings: EvaluationSettings) -> Comparison:
    """Returns the scores of both models and of tuned − base over the held-out rows: see `compare_models`."""
    return compare_models(**evaluated.sums, floors=evaluated.floors, groups=evaluated.groups, **settings.resampling)


def break_down(evaluated: Evaluated, settings: EvaluationSettings) -> dict[str, list[dict]]:
    """Returns `topics` and, where there are replies, `lengths` of the reference, each as `breakdown` returns them."""
    labels = [row.get("topic", "") for row in evaluated.held_out.rows]
    options: dict[str, Any] = {"floors": evaluated.floors, "groups": evaluated.groups, **settings.resampling}
    groups = {"topics": breakdown(**evaluated.sums, labels=labels, **options)}
    if references := [row["reference"] for row in evaluated.replies["base"]]:
        groups["lengths"] = length_groups(**evaluated.sums, references=references, **options)
    return groups


def write_rating_sheet(
    run: Run, evaluated: Evaluated, human_rows: int, seed: int, choice: str = "active"
) -> list[dict[str, str]]:
    """Writes the sheet for people, human_eval.csv and .html, and which rows it has; returns its blind pairs, without
    the attention checks; none for plain texts. `choice` is as for `choose_rows`."""
    rows = {both[0]["id"]: both for both in zip(evaluated.replies["base"], evaluated.replies["tuned"])}
    sample = choose_rows([*rows], score_differences(evaluated), human_rows, choice, seed) if rows else None
    pairs = [blind_pair(*rows[row], seed) for row in sample.strata] if sample else []
    if sample and pairs:
        write_sample(run / "evaluate", sample)
        print(write_sheet(run / "evaluate", pairs, seed).describe())
    return pairs


def score_differences(evaluated: Evaluated) -> dict[str, numpy.ndarray]:
    """Returns tuned − base, higher is better, of each reply by the scores that choose rows for people."""
    return {
        name: numpy.subtract(*(values_by_row(name, evaluated.sums[side][name]) for side in ("tuned", "base")))
        for name in CRITERION
        if name in evaluated.sums["base"]
    }


def join_replies(rows: list[dict], answers: AllAnswers) -> AllRows:
    """Returns the rows of base.jsonl, tuned.jsonl and preferred.jsonl: replies with prompt and reference; none for
    plain texts."""
    asked = []
    for row in rows:
        if "messages" in row:
            prompt, reference = (message["content"] for message in row["messages"][-2:])
            asked.append({"id": row["id"], "topic": row["topic"], "prompt": prompt, "reference": reference})
    names = ("reply", "new_tokens", "hit_cap")
    return {side: _join(asked, own.replies, names) for side, own in answers.items()}


def _join(rows: list[dict], replies: list, names: tuple[str, ...]) -> list[dict]:
    return [row | {name: reply[name] for name in names} for row, reply in zip(rows, replies, strict=True)]


def write_rows(run: Run, rows: list[dict], replies: AllRows, answers: AllAnswers, meaning: Meaning) -> None:
    """Writes each model's .jsonl, and scores.csv: likelihood, chrF++, ROUGE-L and, where it was measured, the
    similarity of meaning of every model, row by row."""
    columns = {name: [row.get(name, "") for row in rows] for name in ("id", "group", "topic")}
    columns |= {name: [row[name] for row in answers["base"].likelihood] for name in ("tokens", "characters")}
    for side, own in answers.items():
        columns |= {f"{side}_{name}": [row[name] for row in own.likelihood] for name in ("nll", "correct")}
    for side, own_rows in replies.items():
        write_jsonl(run / "evaluate" / f"{side}.jsonl", own_rows)
        if own_rows:
            columns[f"{side}_chrf"] = [chrf(row["reply"], row["reference"]) for row in own_rows]
            columns[f"{side}_rougeL"] = [rouge(row["reply"], row["reference"])["rougeL"] for row in own_rows]
    write_csv(run / "evaluate" / "scores.csv", pandas.DataFrame(columns | meaning.columns()))


def compare_prompts(run: Run, evaluated: Evaluated, settings: EvaluationSettings) -> dict:
    """Writes prompts.jsonl: the fixed prompts with each model's reply. Returns the rubric's scores over all of them
    (`base`, `tuned`, `delta`) and its means by category (`categories`); writes nothing and returns no scores without
    prompts."""
    prompts, answers = evaluated.held_out.prompts, dict(evaluated.answers)
    if evaluated.preferred:
        answers["preferred"] = evaluated.preferred.answers["tuned"]
    rows = [{"category": prompt["category"], "prompt": prompt["prompt"]} for prompt in prompts]
    for side, own in answers.items():
        rows = [{**row, side: reply["reply"]} for row, reply in zip(rows, own.prompts, strict=True)]
    if rows:
        write_jsonl(run / "evaluate" / "prompts.jsonl", rows)
    return score_prompts(evaluated, settings)


def score_prompts(evaluated: Evaluated, settings: EvaluationSettings) -> dict:
    """Returns what `compare_prompts` does."""
    prompts = evaluated.held_out.prompts
    replied = {side: _join(prompts, own.prompts, ("reply",)) for side, own in evaluated.answers.items()}
    scores = {}
    if prompts:
        sums = {side: rubric_sums(rows) for side, rows in replied.items()}
        scores = compare_models(sums["base"], sums["tuned"], {}, **settings.resampling).model_dump()
    return {"n": len(prompts), **scores, "categories": category_means(**replied)}


def compare_forgetting(evaluated: Evaluated, settings: EvaluationSettings) -> dict[str, Any]:
    """Returns the scores of the probes of both models, as metrics.json has them; {} where none were asked."""
    probes, asked = select_probes(evaluated.held_out.rows, settings.max_probes)
    answers = evaluated.answers.items()
    sums = {side: probe_sums(probes, own.probes, asked, own.instructions) for side, own in answers}
    return compare_probes(sums, **settings.resampling)


def gather_benchmarks(evaluated: Evaluated, settings: EvaluationSettings) -> dict[str, Any]:
    """Returns both models' public benchmarks, as metrics.json has them; {} where none were asked for."""
    entries = {side: own.benchmarks for side, own in evaluated.answers.items()}
    return compare_benchmarks(entries, settings.max_probes)


def describe_prompts(prompt_scores: dict) -> str:
    """Returns in a sentence how the rubrics' means over the fixed prompts change, and where replies are unsafe."""
    if not prompt_scores["n"]:
        return "No fixed prompts were asked."
    base, tuned = ({name: score["value"] for name, score in prompt_scores[side].items()} for side in ("base", "tuned"))
    changes = f"graded rubric {base['graded']:.1f} → {tuned['graded']:.1f} of 100"
    changes += f", unsafe replies {base['unsafe']:.1%} → {tuned['unsafe']:.1%}"
    worst = max(prompt_scores["categories"], key=lambda row: row["tuned unsafe"])
    where = f", most in the category {worst['category']!r}" if worst["tuned unsafe"] else ""
    return f"{prompt_scores['n']:,} fixed prompts, base → tuned: {changes}{where}."


def finish_evaluation(
    run: Run, settings: EvaluationSettings, evaluated: Evaluated, scores: Comparison, **others: Any
) -> dict[str, Any]:
    """Judges, adds the experiment to experiments.db, ends the stage with its metrics.json, and returns that.

    `others` are further results by their key in metrics.json; one that is empty is left out.
    """
    answers, replies = evaluated.answers, evaluated.replies
    seconds = {side: sum(reply["seconds"] for reply in own.replies) for side, own in answers.items()}
    metrics = {
        "replies_per_second": {side: len(replies[side]) / spent for side, spent in seconds.items() if spent},
        "seconds": sum_seconds(run),
        "processes": len({*(run / "evaluate" / "work").glob("load-*.jsonl")}),
        "n": len(answers["base"].likelihood),
        "decoding": settings.describe_decoding(),
        "max_new_tokens": settings.max_new_tokens,
        "seed": settings.seed,
        "bootstrap_draws": settings.bootstrap_draws,
        "signatures": signatures(),
        "rubric_version": RUBRIC_VERSION,
        "tokenizer": answers["base"].tokenizer,
        **scores.model_dump(),
        **{key: result for key, result in others.items() if result},
    }
    metrics["verdict"] = reach_verdict(metrics, settings.gates.of_tuned).model_dump()
    experiment = log_experiment(
        run.outputs / "experiments.db",
        run.training_config()["base_model"],
        read_json(run / "train" / "adapter" / "adapter_config.json"),
        run.metrics("train"),
        metrics,
        [{**row, "at": reply["at"]} for row, reply in zip(replies["tuned"], answers["tuned"].replies)],
    )
    run.note_stage("evaluate", experiment=experiment)
    keep_for_later(run, settings)
    run.finish_stage("evaluate", metrics)
    return metrics
