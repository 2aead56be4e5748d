"""Reads a run's files and shows them: tables for the notebooks, the one page to send round, several runs on one page.

python -m helpers.report outputs/A              writes A's page again, from whatever the run has so far
python -m helpers.report outputs/A outputs/B …  writes outputs/comparison.html: settings, curves, scores, who wins
python -m helpers.report outputs/A --readme README.md   puts its scores and an exchange between the README's marks
"""

import argparse
import datetime
import re
import sys
from pathlib import Path

from helpers import compare, env, figures, people, presets, tables


def samples(run: Path, number: int, worst: int) -> list[tuple[str, dict]]:
    """Returns (why it is shown, row with `prompt`, `reference`, `base`, `tuned`, `gloss`): the first rows in the
    evaluation's seeded order, then those whose tuned reply lost most chrF++ to the base one.

    `gloss` holds what evaluate/gloss.csv (columns id and any of prompt, reference, base, tuned), written by people,
    says in another language.
    """
    import pandas

    base, tuned = (env.read_jsonl(run / "evaluate" / f"{side}.jsonl") for side in ("base", "tuned"))
    gloss, file = {}, run / "evaluate" / "gloss.csv"
    if file.is_file():
        table = pandas.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        gloss = {row["id"]: row for row in table.to_dict("records")}
    rows = [
        {**one, "base": one["reply"], "tuned": other["reply"], "gloss": gloss.get(one["id"], {})}
        for one, other in zip(base, tuned, strict=True)
    ]
    lost = []
    if rows:
        scores = pandas.read_csv(run / "evaluate" / "scores.csv", dtype={"id": str}).set_index("id")
        change = scores["tuned_chrf"] - scores["base_chrf"]
        lost = sorted(rows[number:], key=lambda row: change[row["id"]])[:worst]
    return [("seeded", row) for row in rows[:number]] + [
        (f"among the worst: chrF++ {change[row['id']]:+.1f} against base", row) for row in lost
    ]


def headline(result: dict) -> str:
    """Returns one sentence: did the tuned model get better at the held-out answers, by how much, how sure."""
    base, tuned, delta = (result[side]["perplexity"] for side in ("base", "tuned", "delta"))
    change = f"from {base['value']:.1f} to {tuned['value']:.1f}"
    span = f"95 % interval of the change {delta['low']:+.1f} to {delta['high']:+.1f}, {result['n']} held-out rows"
    moved = "fell" if delta["value"] < 0 else "rose"
    sense = {"better": "better", "worse": "worse, not better", "no clear difference": "no clear difference"}
    found = sense[tables.verdict(result, "perplexity")]
    said = f"Perplexity of the reference answers {moved} {change} ({span}): {found}."
    if "chrf" in result["base"]:
        base, tuned = (result[side]["chrf"]["value"] for side in ("base", "tuned"))
        floor = result["tuned"]["chrf"]["floor"]
        said += f" chrF++ of the replies went from {base:.1f} to {tuned:.1f}, shuffled references score {floor:.1f}: "
        said += f"{tables.verdict(result, 'chrf')}."
    return said


def results(run: Path) -> dict[str, dict]:
    """Returns the metrics.json of every stage that has finished, but the report's."""
    return {
        name: env.read_json(run / folder / "metrics.json")
        for name, (_, folder) in env.STAGES.items()
        if name != "report" and (run / folder / "metrics.json").is_file()
    }


def write(run: Path, shown: int) -> dict:
    """Writes report/index.html and its figures (PNG and SVG) from whatever a run has, and returns what it shows.

    Raises FileNotFoundError when the folder is no run's.
    """
    if not (run / "run.json").is_file():
        raise FileNotFoundError(f"{run / 'run.json'} is not there: {run} is no run's folder.")
    folder, found = run / "report", results(run)
    judged, trained, data = (found.get(name, {}) for name in ("evaluate", "train", "prepare_data"))
    record = env.read_json(run / "run.json")
    record["run_name"] = record.get("run_name", run.name)
    record["sessions"] = [session for session in record.get("sessions", []) if session["reason"] != "running"]
    held = [session for session in record["sessions"] if figures.is_time(session["started"])]
    hours = stage_hours(held)
    pictures = {}
    for name, there, draw in (
        ("training_loss", (run / "train" / "log.jsonl").is_file(), lambda: figures.loss(run)),
        ("eval_results", judged, lambda: figures.scores(both(judged), tables.LABELS)),
        ("by_topic", len(judged.get("topics", [])) > 1, lambda: figures.topics(judged["topics"], topic_label(judged))),
        ("sessions", held, lambda: figures.sessions(held)),
        ("search", "tune" in found, lambda: figures.search(run)),
    ):
        if there:
            pictures[name] = figures.save(draw(), folder, name)
    pairs = samples(run, shown, 3) if judged else []
    opinions = [("People", people.of_run(run)), ("A language model as judge", judged.get("judge"))] if judged else []
    opinions = [(title, opinion, people.table(opinion)) for title, opinion in opinions if opinion]
    stages = stage_rows(record, found)
    unfinished = [row for row in stages if row["status"] != "finished"]
    html = tables.page(
        "index.html",
        folder,
        pictures,
        run=record,
        found=found,
        subject=subject(record, found),
        headline=headline(judged) if judged else "",
        embedded=data.get("base_model") == "embedded",
        pages=[
            (notebook, f"../html/{notebook}.html")
            for name, (notebook, _) in env.STAGES.items()
            if name == "report" or (run / "html" / f"{notebook}.html").is_file()
        ],
        unfinished=unfinished,
        failed=any(row["status"] == "failed" for row in stages),
        standing=standing(unfinished),
        stages=stages,
        command="\n".join(record.get("commands", [])),
        scores=tables.score_rows(judged) if judged else [],
        pairs=pairs,
        groups=[
            (title, tables.group_rows(judged[name]))
            for name, title in (("topics", "By topic"), ("lengths", "By length of the reference"))
            if len(judged.get(name, [])) > 1
        ],
        categories=tables.category_rows(judged["prompts"]["categories"]) if "prompts" in judged else [],
        prompted=tables.score_rows(judged["prompts"]) if judged.get("prompts", {}).get("n") else [],
        opinions=opinions,
        replies=env.read_jsonl(run / "infer" / "replies.jsonl") if "infer" in found else [],
        search=search_rows(run) if "tune" in found else [],
        planned=planned_rows(trained, hours) if "plan" in trained else [],
        machine=", ".join(record["stages"]["train"]["gpu"]) or "a CPU" if trained else "",
        funnel=funnel_rows(data["funnel"]) if data else [],
        measured=measured(found),
        sessions=session_rows(record["sessions"]),
        limits=limits(found, opinions),
        changed=changed(record),
        hashes=[{"part": name, "SHA-256": value} for name, value in data.get("sha256", {}).items()],
        versions=", ".join(f"{name} {said}" for name, said in versions(record).items()),
    )
    return {"stages": list(found), "samples": len(pairs), "bytes": len(html.encode()), "hours": hours}


def subject(record: dict, found: dict) -> str:
    """Returns one sentence: what was trained on what."""
    said = f"Preset {record['preset']}. " if record.get("preset") else ""
    if "train" in found and "prepare_data" in found:
        trained, data = found["train"], found["prepare_data"]
        said += (
            f"Model {trained['base_model']} with a LoRA adapter of {trained['trainable_parameters']:,} parameters "
            f"({trained['backend']}, {trained['dtype']}), trained on {data['train']:,} rows of {data['source']}: "
            f"{trained['optimizer_steps']:,} steps of {trained['effective_batch']:g} rows, "
            f"{trained['epochs']:g} epochs."
        )
    return said


def both(judged: dict) -> dict[str, dict]:
    """Returns an evaluation's scores of the two models, {"base", "tuned"}."""
    return {side: judged[side] for side in ("base", "tuned")}


def topic_label(judged: dict) -> str:
    """Returns the name of the score that the breakdown by topic shows."""
    return tables.LABELS["chrf" if "chrf" in judged["topics"][0]["delta"] else "perplexity"][0]


def stage_hours(held: list[dict]) -> dict[str, float]:
    """Returns the hours of each stage over its sessions, of those whose end is known."""
    found = {}
    for session in held:
        if figures.is_time(session["ended"]):
            ends = [datetime.datetime.fromisoformat(session[name]) for name in ("started", "ended")]
            found[session["stage"]] = found.get(session["stage"], 0.0) + (ends[1] - ends[0]).total_seconds() / 3600
    return found


def stage_rows(record: dict, found: dict) -> list[dict]:
    """Returns what is known of each stage as rows of text: those that were begun, and those of a run still to come."""
    rows = []
    for stage in env.STAGES:
        facts = record["stages"].get(stage)
        if facts is None and stage not in env.MAIN:
            continue
        facts = facts or {"status": "not begun"}
        status = facts["status"]
        if stage == "report":
            status = "finished"  # with this page
        elif status == "finished" and stage not in found:
            status = "its metrics.json is gone"
        elif status == "running":
            status = "running, or killed"
        why = facts.get("error") or ""
        if facts.get("paused") and status == "paused":
            why = "step {step} of {steps}: {reason}".format(**facts["paused"])
        rows.append(
            {
                "stage": stage,
                "status": status,
                "started": facts.get("started") or "–",
                "ended": facts.get("ended") or "–",
                "GPU": ", ".join(facts.get("gpu", [])) or "none",
                "commit": (facts.get("git_sha") or "–")[:10],
                "why": why.partition("\n")[0][:300] or "–",
            }
        )
    return rows


def standing(unfinished: list[dict]) -> str:
    """Returns in words what is left of a run."""
    said = [
        f"{row['stage']}: {row['status']}" + (f" ({row['why']})" if row["why"] != "–" else "") for row in unfinished
    ]
    return f"Not finished, so not shown: {'; '.join(said)}." if said else ""


def planned_rows(trained: dict, hours: dict[str, float]) -> list[dict]:
    """Returns the plan beside what was measured, as rows of text."""
    wanted = trained["plan"]
    rows = []
    for label, form, expected, seen in (
        ("optimizer steps", ",", wanted["optimizer_steps"], trained["optimizer_steps"]),
        ("rows a step", "g", wanted["effective_batch"], trained["effective_batch"]),
        ("useful of computed tokens", ".3f", wanted["useful_token_fraction"], trained["useful_token_fraction"]),
        (
            "arithmetic a useful token",
            ".3f",
            wanted["arithmetic_per_useful_token"],
            trained["arithmetic_per_useful_token"],
        ),
        ("peak memory a card, GiB", ".2f", wanted["peak_memory_gib"], trained["peak_memory_gib"]),
        ("tokens a second", ",.0f", wanted.get("tokens_per_second"), trained["tokens_per_second"]),
        ("hours of training", ".3g", wanted["hours"]["train"], trained["hours"]),
        ("hours of evaluation", ".3g", wanted["hours"]["evaluate"], hours.get("evaluate")),
        ("sessions", "d", wanted["sessions"], trained["sessions"]),
    ):
        row = {"what": label}
        for name, value, missing in (("planned", expected, "–"), ("actual", seen, "not measured")):
            row[name] = missing if value is None else format(value, form)
        rows.append(row)
    return rows


def search_rows(run: Path) -> list[dict]:
    """Returns tune/trials.csv as rows of text."""
    import pandas

    table = pandas.read_csv(run / "tune" / "trials.csv", dtype=str, keep_default_na=False)
    for name in table:
        if "loss" in name or name == "perplexity":
            table[name] = [f"{float(value):.4f}" if value else "–" for value in table[name]]
    return table.to_dict("records")


def funnel_rows(funnel: list[dict]) -> list[dict]:
    """Returns the cleaning rules with what each took, as rows of text."""
    return [
        {
            "rule": step["rule"],
            "rows in": f"{step['rows_in']:,}",
            "changed": f"{step['changed']:,}",
            "dropped": f"{step['dropped']:,}",
            "rows out": f"{step['rows_out']:,}",
            "share": f"{100 * step['share']:.2f} %",
        }
        for step in funnel
    ]


def measured(found: dict) -> dict[str, list[dict]]:
    """Returns what the stages measured and what has no place of its own on the page: {stage: rows of text}."""

    def told(value) -> str:
        if value is None:
            return "not measured"
        if isinstance(value, dict):
            return ", ".join(f"{name} {told(part)}" for name, part in value.items() if name != "quantiles") or "none"
        return f"{value:.5g}" if isinstance(value, float) else str(value)

    elsewhere = ["funnel", "plan", "sha256", "leak", "row_wise_leak"]
    if found.get("train", {}).get("micro_batch_limit") is None:  # memory never ran out
        elsewhere.append("micro_batch_limit")
    return {
        stage: [{"what": n, "value": told(v)} for n, v in found[stage].items() if n not in elsewhere]
        for stage in ("prepare_data", "train", "infer")
        if stage in found
    }


def session_rows(held: list[dict]) -> list[dict]:
    """Returns the sessions as rows of text."""
    names = {"started": "started", "ended": "ended", "from": "from step", "to": "to step", "reason": "ended because"}
    return [
        {"stage": one["stage"], **{label: "–" if one[n] is None else str(one[n]) for n, label in names.items()}}
        for one in held
    ]


def limits(found: dict, opinions: list) -> list[str]:
    """Returns what a reader must not conclude from the page."""
    said = []
    if "evaluate" in found:
        judged = found["evaluate"]
        said.append(
            f"{judged['n']} held-out rows and one training with seed {judged['seed']}: the intervals tell how the "
            f"choice of rows matters, not how another seed would."
        )
        said.append("chrF++, BLEU and ROUGE compare with one reference; a good reply in other words scores low.")
        if "hit_cap" in judged["tuned"]:
            tuned = judged["tuned"]
            said.append(
                f"Share of the tuned model's replies cut at the cap: {tuned['hit_cap']['value']:.3f}; "
                f"unsafe by the rubric's word lists: {tuned['unsafe']['value']:.3f}. What they miss is not counted."
            )
        if not any(title == "People" for title, _, _ in opinions):
            said.append("No person has rated these replies.")
    said.append("The model is no counsellor. Before anyone in distress talks to it, people must have read its replies.")
    return said


def changed(record: dict) -> list[dict]:
    """Returns the settings that differ from the notebooks' own, as rows of text."""
    rows = []
    for stage, facts in record["stages"].items():
        defaults = {name: default for name, (default, _) in presets.parameters_cell(stage).items()}
        for name, value in facts.get("parameters", {}).items():
            default = defaults.get(name)
            if value == default or name in ("run_name", "outputs", "session"):
                continue
            parts = {name: (value, default)}
            if isinstance(value, dict) and isinstance(default, dict):
                keys = [key for key in {**value, **default} if value.get(key) != default.get(key)]
                parts = {f"{name}.{key}": (value.get(key, "–"), default.get(key, "–")) for key in keys}
            rows += [
                {"setting": f"{stage}.{label}", "here": str(here)[:300], "notebook": str(there)[:300]}
                for label, (here, there) in parts.items()
            ]
    return rows


def versions(record: dict) -> dict[str, str]:
    """Returns the versions of the stage that says most of the numbers."""
    stages = record["stages"]
    return next((stages[name].get("versions", {}) for name in ("train", *stages) if name in stages), {})


# The README


README_SCORES = "perplexity bits_per_char chrf bleu rougeL distinct2 empathy graded unsafe hit_cap".split()


def readme_blocks(run: Path) -> dict[str, str]:
    """Returns what the README shows of a run: {"results": a table, "exchange": a question and the tuned reply}."""
    found, record = results(run), env.read_json(run / "run.json")
    judged, facts = found["evaluate"], record["stages"]["evaluate"]
    lines = [
        f"{judged['n']} held-out rows, {', '.join(facts['gpu']) or 'on a CPU'}, "
        f"commit {facts['git_sha'][:7] or 'unknown'}; the other scores are in its report.",
        "",
        "| score | base | tuned | tuned − base, 95 % interval | floor | verdict |",
        "|---|---|---|---|---|---|",
    ]
    wanted = {tables.LABELS[name][0] for name in README_SCORES}
    for row in [row for row in tables.score_rows(judged) if row["score"] in wanted]:
        aim = row["better"] if row["better"].startswith("near") else f"{row['better']} is better"
        change = f"{row['tuned − base']} ({row['95 % interval']})"
        cells = [f"{row['score']} ({aim})", row["base"], row["tuned"], change, row["floor"], row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    _, shown = samples(run, 1, 0)[0]
    gloss = shown["gloss"]
    talk = [f"> **{one_line(shown['prompt'])}**"]
    talk += [f"> *{one_line(gloss['prompt'])}*"] if gloss.get("prompt") else []
    talk += [">", f"> {one_line(shown['tuned'])}"]
    talk += [f"> *{one_line(gloss['tuned'])}*"] if gloss.get("tuned") else []
    return {"results": "\n".join(lines), "exchange": "\n".join(talk)}


def one_line(text: str) -> str:
    """Returns a text as one line of Markdown, its marks and tags escaped."""
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", " ".join(tables.visible(text).split()))


def fill_readme(run: Path, readme: Path) -> list[str]:
    """Puts a run's results and exchange between the README's marks for its preset; returns the marks that were filled.

    Raises ValueError when there are none: `<!-- results PRESET -->` to `<!-- /results PRESET -->`.
    """
    content, preset = readme.read_text(encoding="utf-8"), env.read_json(run / "run.json").get("preset", run.name)
    filled = []
    for mark, block in readme_blocks(run).items():
        start, end = f"<!-- {mark} {preset} -->", f"<!-- /{mark} {preset} -->"
        if start in content and end in content:
            before, _, rest = content.partition(start)
            content = f"{before}{start}\n{block}\n{end}{rest.partition(end)[2]}"
            filled.append(mark)
    if not filled:
        raise ValueError(
            f"{readme} has no mark for {preset}: expected <!-- results {preset} --> and <!-- /results {preset} -->."
        )
    env.write_text(readme, content)
    return filled


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 when there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m helpers.report", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder; several: one page for all")
    parser.add_argument("--to", type=Path, help="the page of several runs (default: comparison.html beside the first)")
    parser.add_argument("--samples", type=int, default=6, help="replies shown side by side (default: 6)")
    parser.add_argument("--readme", type=Path, help="fill this README's marks instead")
    options = parser.parse_args(arguments)
    runs = [run.resolve() for run in options.runs]
    try:
        for run in runs:
            if not (run / "run.json").is_file():
                raise FileNotFoundError(f"{run / 'run.json'} is not there: {run} is no run's folder.")
        if options.readme:
            print(f"{options.readme}: {', '.join(mark for run in runs for mark in fill_readme(run, options.readme))}")
        elif len(runs) > 1:
            print(compare.write(runs, (options.to or runs[0].parent / "comparison.html").resolve()))
        else:
            write(runs[0], options.samples)
            print(runs[0] / "report" / "index.html")
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
