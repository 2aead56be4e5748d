"""The one page of a run, from whatever files it has."""

from typing import Any

from helpers.evaluation.comparison import Comparison
from helpers.planning.calibration import is_calibrated
from helpers.platforms.machine import count_gpus
from helpers.reporting import figures, tables
from helpers.reporting.decision import changed_thresholds, gate_rows, is_outdated, judge_run
from helpers.reporting.estimates import describe_estimates, describe_kept_promise, estimate_facts, plan_rows
from helpers.reporting.people import describe_ratings, rating_facts, rating_tables
from helpers.reporting.preference import pair_results, preference_content, preference_facts
from helpers.reporting.render import write_page
from helpers.reporting.results import Results, is_measure, read_results
from helpers.reporting.shapes import TokenFacts
from helpers.reporting.summary import describe_fixed, describe_worst, is_at_floor, summarise_run, unsafe_shares
from helpers.reporting.words import Words
from helpers.runs.command import resume_command
from helpers.runs.record import Run, StageRecord
from helpers.runs.run_json import FORCED, stage_hours
from helpers.runs.settings import default_settings
from helpers.runs.stages import MAIN_STAGES, STAGES

PAIR_COLOURS = (figures.PALE, figures.BLUE)  # of the base model and the tuned one


def write_report(run: Run, samples: int, language: str = "en") -> dict[str, Any]:
    """Writes report/index.html and its figures (PNG and SVG) from whatever a run has, and returns what it shows.

    `language` is that of the page's own text, "en" or "bn". Raises FileNotFoundError when the folder is not that of a
    run.
    """
    results, words = read_results(run), Words(language)
    content, pictures = report_content(results, samples, words), write_figures(results, words)
    html = write_page("run.html", run / "report" / "index.html", pictures, content, words)
    return {
        "stages": list(results.metrics),
        "samples": len(content["samples"]),
        "bytes": len(html.encode()),
        "hours": stage_hours(results.sessions),
        "estimates": estimate_facts(results),
        **rating_facts(results),
        **({"verdict": judge_run(results).verdict} if results.scores else {}),  # people counted in
        **preference_facts(results),
    }


def write_figures(results: Results, words: Words) -> dict[str, bytes]:
    """Writes the figures whose data the run has, and returns them as SVG by name."""
    topics, scores = results.metrics.get("evaluate", {}).get("topics", []), results.scores
    drawn = {}
    if results.log:
        sessions = [session for session in results.record.sessions if session.stage == "train"]
        drawn["training_loss"] = figures.draw_loss(results.log, sessions, words)
    if scores and scores.base and scores.tuned:
        models, colours = {words.name("base"): scores.base, words.name("tuned"): scores.tuned}, [*PAIR_COLOURS]
        if (pair := pair_results(results)) and pair.scores:
            models[words.name("preferred")] = pair.scores.tuned
            colours.append(figures.GREEN)
        drawn["eval_results"] = figures.draw_scores(models, words, tuple(colours))
    if len(topics) > 1:
        drawn["by_topic"] = figures.draw_topics(topics, words, bool(scores) and is_at_floor(scores))
    if results.sessions:
        drawn["sessions"] = figures.draw_sessions(results.sessions, words)
    if "tune" in results.metrics:
        drawn["search"] = figures.draw_search(results.trials, results.best_trial, words)
    return {name: figures.save_figure(figure, results.run / "report", name) for name, figure in drawn.items()}


def report_content(results: Results, samples: int, words: Words) -> dict[str, Any]:
    """Returns what the template run.html shows."""
    rows = report_tables(results, words)
    stages = {"data": "prepare_data", "training": "train", "evaluation": "evaluate", "search": "tune"}
    shares = unsafe_shares(results)
    return {
        "results": results,
        **{name: results.metrics.get(stage, {}) for name, stage in stages.items()},
        "summary": summarise_run(results, words),
        "is_anew": is_outdated(results.metrics.get("evaluate", {})),
        "thresholds": changed_thresholds(judge_run(results), words) if results.scores else [],
        "scores": results.scores,
        "different": different_replies(results),
        "has_gpu": has_gpu(results),
        "is_calibrated": has_gpu(results)
        and is_calibrated(results.metrics.get("train", {}).get("plan", {}), results.record.stages["train"].gpu),
        "causes": describe_estimates(results, words),
        "promise": describe_kept_promise(results, words),
        "fixed": fixed_replies(results, words),
        "losses": training_losses(results, words),
        "browse": (results.run / "data" / "browse.html").is_file(),
        "pages": [
            (notebook, f"../html/{notebook}.html")
            for stage, (notebook, _) in STAGES.items()
            if stage == "report" or (results.run / "html" / f"{notebook}.html").is_file()
        ],
        "unfinished": [row for row in rows["stages"] if row["status"] != "finished"],
        "resume": resume_command(results.run),
        "worst_unsafe": describe_worst(shares[0], words) if shares else "",
        "samples": results.samples(samples, 3) if results.scores and results.row_scores else [],
        "opinions": describe_ratings(results, words),
        "preference": preference_content(results, words),
        "tables": rows,
    }


def fixed_replies(results: Results, words: Words) -> str:
    """Returns how the fixed messages were answered; "" where the run does not say."""
    stage = results.record.stages.get("infer", StageRecord(status="not begun"))
    known = {name: stage.parameters.get(name) for name in ("temperature", "top_p", "max_new_tokens")}
    is_known = results.replies and all(isinstance(value, int | float) for value in known.values())
    return describe_fixed(results.replies, known, words) if is_known else ""


def different_replies(results: Results) -> dict[str, int]:
    """Returns how many different replies each model gave to the held-out rows, and to how many; {} without any."""
    counts = {side: len({row["reply"] for row in getattr(results, side)}) for side in ("base", "tuned")}
    return {**counts, "rows": len(results.tuned)} if results.tuned else {}


def training_losses(results: Results, words: Words) -> str:
    """Returns what training and validation loss are, side by side, and why they differ; "" without both."""
    training = results.metrics.get("train", {})
    train, val = training.get("train_loss"), training.get("val_loss")
    if not isinstance(train, float) or not isinstance(val, float):
        return ""
    return f"{words.say('page.losses', train=train, val=val)} {words.say('page.gap' if val > train else 'page.no_gap')}"


def report_tables(results: Results, words: Words) -> dict[str, list[dict[str, str]]]:
    """Returns the page's tables as rows of text; one that the run has no numbers for is empty."""
    data, training, evaluation, speed = (
        results.metrics.get(stage, {}) for stage in ("prepare_data", "train", "evaluate", "infer")
    )
    prompts = evaluation.get("prompts", {})
    groups = {name: evaluation.get(name, []) for name in ("topics", "lengths")}
    return {
        "stages": stage_rows(results, words),
        "gates": gate_rows(judge_run(results), words) if results.scores else [],
        "scores": tables.score_rows(results.scores) if results.scores else [],
        "seeds": tables.seed_rows(results.scores, results.other_seeds) if results.scores else [],
        **{name: tables.breakdown_rows(rows) if len(rows) > 1 else [] for name, rows in groups.items()},
        "prompts": tables.score_rows(Comparison(**prompts)) if prompts.get("n") else [],
        "probes": tables.probe_rows(evaluation.get("probes", {})),
        "benchmarks": tables.benchmark_rows(evaluation.get("benchmarks", {})),
        "categories": tables.category_rows(prompts.get("categories", [])),
        "people": tables.rating_rows(results.ratings),
        "judge": tables.rating_rows(evaluation.get("judge", {})),
        **rating_tables(results),
        "speed": tables.metric_rows(speed),
        "search": search_rows(results.trials) if "tune" in results.metrics else [],
        "plan": plan_rows(results, words),
        "training": tables.metric_rows(training, hours=words.duration(training.get("hours"))),
        "cleaning": tables.build_table("cleaning", data.get("funnel", [])),
        "rows": tables.metric_rows(data, **row_facts(data, words)),
        "sessions": tables.build_table("sessions", map(with_times, map(vars, results.sessions))),
        "settings": changed_settings(results),
        "hashes": tables.list_values(data.get("sha256", {})),
    }


def stage_rows(results: Results, words: Words) -> list[dict[str, str]]:
    """Returns what is known of each stage as rows of text: those that have begun, and those of a run still to come."""
    rows = []
    for stage in [name for name in STAGES if name in results.record.stages or name in MAIN_STAGES]:
        facts = results.record.stages.get(stage, StageRecord(status="not begun"))
        status, why = facts.status, (facts.error or "").partition("\n")[0][:300] or None
        if stage == "report":
            status = "finished"  # with this page
        elif status == FORCED:
            status, why = "not begun", None
        elif status == "finished" and stage not in results.metrics:
            status = "its metrics.json is gone"
        elif status == "running":
            status = "running, or killed"
        elif status == "paused" and facts.paused:
            why = words.say("page.paused_at", **facts.paused)
        machine = {"gpu": count_gpus(facts.gpu) or "none", "commit": facts.git_sha[:10] or None}
        rows.append({**with_times(vars(facts)), "stage": stage, "status": status, "why": why, **machine})
    return tables.build_table("stages", rows)


def with_times(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns a stage or a session with its times to the minute."""
    return {**facts, **{name: tables.show_time(facts[name]) for name in ("started", "ended")}}


def row_facts(data: dict[str, Any], words: Words) -> dict[str, str]:
    """Returns what data/metrics.json has as lists and objects, in words."""
    topics = [
        f"{topic['from']} → {topic['to']} ({words.number(topic['rows'], 0)})" for topic in data.get("merged_topics", [])
    ]
    facts = {"merged_topics": "; ".join(topics) or words.name("none")}
    if data.get("published", "").startswith("no,"):  # of an earlier version
        facts["published"] = "no"
    if TokenFacts.model_fields.keys() <= (tokens := data.get("tokens", {})).keys():
        facts["tokens"] = words.say("page.token_facts", **tokens)
    return facts


def has_gpu(results: Results) -> bool:
    """Returns whether the training ran on a GPU: only then can it be held against a plan for T4s."""
    return "train" in results.record.stages and bool(results.record.stages["train"].gpu)


def search_rows(trials: list[dict[str, str]]) -> list[dict[str, str]]:
    """Returns tune/trials.csv as rows of text, what was judged to four digits."""
    losses = [name for name in (trials[0] if trials else []) if is_measure(name)]
    return [row | {name: f"{float(row[name]):.4f}" if row[name] else "–" for name in losses} for row in trials]


def changed_settings(results: Results) -> list[dict[str, str]]:
    """Returns the settings that differ from the notebooks' own, as rows of text."""
    here = {stage: facts.parameters for stage, facts in results.record.stages.items()}
    notebook = {
        stage: {name: value for name, value in default_settings(stage).items() if name in parameters}
        for stage, parameters in here.items()
    }
    return tables.differing_settings({"here": here, "notebook": notebook}, ("run_name", "outputs", "session"))
