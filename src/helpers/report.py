"""Reads a run's files and shows them: tables and figures for the notebooks, and the one page to send round."""

import base64
import io
from pathlib import Path

from helpers import env, people, plan

LABELS = {  # score: (label, digits)
    "perplexity": ("perplexity of the answers", 2),
    "bits_per_char": ("bits per character", 3),
    "token_accuracy": ("token accuracy", 3),
    "chrf": ("chrF++", 2),
    "bleu": ("BLEU (intl)", 2),
    "rouge1": ("ROUGE-1", 3),
    "rouge2": ("ROUGE-2", 3),
    "rougeL": ("ROUGE-L", 3),
    "distinct1": ("distinct-1", 3),
    "distinct2": ("distinct-2", 3),
    "length_ratio": ("length, reply over reference", 2),
    "empathy": ("empathy keywords, of 100", 1),
    "graded": ("graded rubric, of 100", 1),
    "unsafe": ("unsafe replies", 3),
    "hit_cap": ("replies that hit the cap", 3),
    "echo": ("replies that echo the question", 3),
    "not_bengali": ("replies not in Bengali", 3),
}
BLUE, ORANGE = "#0072b2", "#d55e00"  # of Okabe and Ito's palette, safe for colour-blind readers
PAGE = Path(__file__).with_name("report_page.html")
FONT = Path(__file__).with_name("fonts") / "NotoSansBengali-Regular.ttf"


def verdict(result: dict, name: str) -> str:
    """Returns "better", "worse" or "no clear difference" (the interval of tuned − base holds 0) for one score.

    "at the floor" instead of better: the tuned model's interval holds what shuffled references score.
    """
    tuned, delta = result["tuned"][name], result["delta"][name]
    if delta["low"] <= 0 <= delta["high"]:
        return "no clear difference"
    if delta["better"] == "near 1":
        return "better" if abs(tuned["value"] - 1) < abs(result["base"][name]["value"] - 1) else "worse"
    if (delta["value"] > 0) != (delta["better"] == "higher"):
        return "worse"
    return "better" if tuned["floor"] is None or tuned["low"] > tuned["floor"] else "at the floor"


def score_rows(result: dict) -> list[dict]:
    """Returns the base-against-tuned table as rows of text, one a score, from the content of evaluate/metrics.json."""
    rows = []
    for name, (label, digits) in LABELS.items():
        if name not in result["base"]:
            continue
        base, tuned, delta = (result[side][name] for side in ("base", "tuned", "delta"))
        rows.append(
            {
                "score": label,
                "better": delta["better"],
                "floor": "–" if tuned["floor"] is None else f"{tuned['floor']:.{digits}f}",
                "base": f"{base['value']:.{digits}f}",
                "tuned": f"{tuned['value']:.{digits}f}",
                "tuned − base": f"{delta['value']:+.{digits}f}",
                "95 % interval": f"{delta['low']:+.{digits}f} to {delta['high']:+.{digits}f}",
                "verdict": verdict(result, name),
            }
        )
    return rows


def score_table(result: dict):
    """Returns `score_rows` as a pandas table."""
    import pandas

    return pandas.DataFrame(score_rows(result)).set_index("score")


def group_rows(groups: list[dict]) -> list[dict]:
    """Returns a breakdown of evaluate/metrics.json (its `topics` or `lengths`) as rows of text, one a group."""
    rows = []
    for group in groups:
        row = {"group": group["label"], "rows": str(group["n"])}
        for name in group["delta"]:
            label, digits = LABELS[name]
            values = [group[side][name]["value"] for side in ("base", "tuned")]
            delta = group["delta"][name]
            row[f"{label}, base → tuned"] = f"{values[0]:.{digits}f} → {values[1]:.{digits}f}"
            row[f"change of {label}"] = (
                f"{delta['value']:+.{digits}f} ({delta['low']:+.{digits}f} to {delta['high']:+.{digits}f})"
            )
        rows.append(row)
    return rows


def category_rows(categories: list[dict]) -> list[dict]:
    """Returns the rubric's means for each category of fixed prompts as rows of text."""
    rows = []
    for one in categories:
        row = {"category": one["category"], "prompts": str(one["n"])}
        for name in ("graded", "empathy", "unsafe"):
            label, digits = LABELS[name]
            row[f"{label}, base → tuned"] = f"{one[f'base {name}']:.{digits}f} → {one[f'tuned {name}']:.{digits}f}"
        rows.append(row)
    return rows


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


def text_table(rows: list[dict] | dict):
    """Returns rows (or one dict, as name and value) as a table that shows every text whole, wrapped and escaped."""
    import pandas

    if isinstance(rows, dict):
        rows = [
            {"name": name, "value": "not measured" if value is None else str(value)} for name, value in rows.items()
        ]
    shown = pandas.DataFrame(rows).astype(str).style.format(escape="html").hide(axis="index")
    return shown.set_table_styles(
        [
            {
                "selector": "th, td",
                "props": "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere",
            }
        ]
    )


def headline(result: dict) -> str:
    """Returns one sentence: did the tuned model get better at the held-out answers, by how much, how sure."""
    base, tuned, delta = (result[side]["perplexity"] for side in ("base", "tuned", "delta"))
    change = f"from {base['value']:.1f} to {tuned['value']:.1f}"
    span = f"95 % interval of the change {delta['low']:+.1f} to {delta['high']:+.1f}, {result['n']} held-out rows"
    moved = "fell" if delta["value"] < 0 else "rose"
    sense = {"better": "better", "worse": "worse, not better", "no clear difference": "no clear difference"}
    return f"Perplexity of the reference answers {moved} {change} ({span}): {sense[verdict(result, 'perplexity')]}."


def loss_figure(run: Path):
    """Returns the loss curve of train/log.jsonl: training loss a step, validation loss where it was measured."""
    plt = _pyplot()

    log = env.read_jsonl(run / "train" / "log.jsonl")
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for key, label, style in (
        ("loss", "training", {"color": BLUE, "linewidth": 1}),
        ("eval_loss", "validation", {"color": ORANGE, "marker": "o", "linewidth": 1}),
    ):
        points = [(entry["step"], entry[key]) for entry in log if key in entry]
        if points:
            axes.plot(*zip(*points), label=label, **style)
    axes.set(xlabel="optimizer step", ylabel="loss, nats a token")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def search_figure(run: Path):
    """Returns the validation losses of tune/trials.csv by rung, a line a candidate, and how much each setting decides.

    A cross ends a candidate that was eliminated, a dot one that reached the last rung; the best is blue.
    """
    import pandas

    plt = _pyplot()
    table = pandas.read_csv(run / "tune" / "trials.csv")
    names = sorted(name for name in table if name.startswith("loss at rung "))
    shares = env.read_json(run / "tune" / "best.json")["importance"] or {}
    figure, (curves, bars) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained", width_ratios=[3, 2])
    best = env.read_json(run / "tune" / "best.json")["candidate"]
    for row in table.to_dict("records"):
        points = [(place + 1, row[name]) for place, name in enumerate(names) if row[name] == row[name]]
        if points:
            won = row["candidate"] == best
            curves.plot(*zip(*points), color=BLUE if won else "0.6", linewidth=2.5 if won else 1, zorder=2 + won)
            curves.plot(*points[-1], "o" if row["status"] == "finished" else "x", color=BLUE if won else "0.3")
    curves.set_xticks(range(1, len(names) + 1))
    curves.set(xlabel="rung (blue: the best; a cross: eliminated)", ylabel="validation loss, nats a token")
    curves.grid(alpha=0.3)
    bars.barh(list(shares), list(shares.values()), color=BLUE)
    bars.set(xlabel="share of the first rung's variance (η²)", xlim=(0, 1))
    bars.invert_yaxis()
    return figure


def length_figure(lengths, max_length: int):
    """Returns the histogram of token counts (a sequence of integers), with the share of rows within max_length."""
    import numpy

    plt = _pyplot()

    values = numpy.asarray(lengths)
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    edges = numpy.geomspace(max(1, values.min()), max(values.max(), max_length) + 1, 50)
    axes.hist(values, bins=edges, color=BLUE)
    within = (values <= max_length).mean()
    axes.axvline(max_length, color=ORANGE, label=f"max_length {max_length:,}: {within:.2%} of rows are within")
    axes.set(xscale="log", xlabel="tokens a row", ylabel="rows")
    axes.legend(frameon=False)
    return figure


def score_figure(run: Path):
    """Returns base and tuned side by side with their 95 % intervals, for the overlap scores and the rubric."""
    plt = _pyplot()

    result = env.read_json(run / "evaluate" / "metrics.json")
    names = [name for name in ("perplexity", "chrf", "bleu", "rougeL", "empathy") if name in result["base"]]
    figure, panels = plt.subplots(
        1, len(names), figsize=(0.5 + 1.7 * len(names), 3), layout="constrained", squeeze=False
    )
    for axes, name in zip(panels[0], names):
        for place, (side, color) in enumerate((("base", BLUE), ("tuned", ORANGE))):
            score = result[side][name]
            spread = [[max(0, score["value"] - score["low"])], [max(0, score["high"] - score["value"])]]
            axes.bar(place, score["value"], yerr=spread, color=color, capsize=4)
            if score["floor"] is not None:
                axes.hlines(score["floor"], place - 0.4, place + 0.4, color="black", linestyles="dotted")
        axes.set_xticks([0, 1], ["base", "tuned"])
        axes.set_title(f"{LABELS[name][0].split(',')[0]}\n({result['delta'][name]['better']} is better)", fontsize=8)
    return figure


def _pyplot():
    """Returns matplotlib.pyplot with a font that has Bengali, shaped by matplotlib itself, behind its own."""
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    if not any(font.fname == str(FONT) for font in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(FONT)
    plt.rcParams["font.family"] = ["DejaVu Sans", "Noto Sans Bengali"]
    return plt


def topic_figure(topics: list[dict]):
    """Returns the change of chrF++ (of perplexity, where there are no replies) for each topic, with its interval."""
    plt = _pyplot()

    name = "chrf" if "chrf" in topics[0]["delta"] else "perplexity"
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.3 * len(topics)), layout="constrained")
    for place, topic in enumerate(topics):
        delta = topic["delta"][name]
        better = (delta["value"] > 0) == (delta["better"] == "higher")
        spread = [[max(0, delta["value"] - delta["low"])], [max(0, delta["high"] - delta["value"])]]
        axes.errorbar(delta["value"], place, xerr=spread, fmt="o", color=BLUE if better else ORANGE, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(topics)), [f"{topic['label'][:40]} ({topic['n']})" for topic in topics])
    axes.set_ylim(len(topics) - 0.5, -0.5)
    axes.set_xlabel(f"{LABELS[name][0]}, tuned − base (blue: better, orange: worse)", fontsize=9)
    return figure


def session_figure(sessions: list[dict]):
    """Returns sessions over time: a bar each, by stage; a killed one, whose end nobody noted, is a cross."""
    import datetime

    plt = _pyplot()

    moments = [datetime.datetime.fromisoformat(s[k]) for s in sessions for k in ("started", "ended") if is_time(s[k])]
    unit, seconds = ("hours", 3600) if (max(moments) - min(moments)).total_seconds() > 5400 else ("minutes", 60)

    def since(moment: str) -> float:
        return (datetime.datetime.fromisoformat(moment) - min(moments)).total_seconds() / seconds

    stages = [stage for stage in env.STAGES if any(session["stage"] == stage for session in sessions)]
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.35 * len(stages)), layout="constrained")
    for session in sessions:
        place, start = stages.index(session["stage"]), since(session["started"])
        if is_time(session["ended"]):
            color = BLUE if session["reason"] == "finished" else ORANGE
            axes.barh(place, since(session["ended"]) - start, left=start, color=color, edgecolor="white", height=0.6)
        else:
            axes.plot(start, place, "x", color="black")
    axes.set_yticks(range(len(stages)), stages)
    axes.set_ylim(len(stages) - 0.5, -0.5)
    axes.set_xlabel(f"{unit} since the run began (blue: finished, orange: paused or failed, cross: killed)", fontsize=9)
    return figure


def is_time(moment: str | None) -> bool:
    """Returns whether a session's start or end is known."""
    return moment not in (None, "unknown")


def _png(figure) -> bytes:
    plt = _pyplot()

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()


def write(run: Path, shown: int) -> dict:
    """Writes report/index.html and its figures from the run's files and returns what it shows.

    Everything the run wrote is escaped: text from a model or a data set stays text.
    """
    import jinja2

    folder = run / "report"
    found = {
        name: env.read_json(run / folder_name / "metrics.json")
        for name, (_, folder_name) in env.STAGES.items()
        if name != "report" and (run / folder_name / "metrics.json").is_file()
    }
    figures, judged = {}, found.get("evaluate", {})
    record = env.read_json(run / "run.json")
    record["sessions"] = [session for session in record.get("sessions", []) if session["reason"] != "running"]
    for name, there, draw in (
        ("training_loss", "train" in found, lambda: loss_figure(run)),
        ("eval_results", "evaluate" in found, lambda: score_figure(run)),
        ("by_topic", len(judged.get("topics", [])) > 1, lambda: topic_figure(judged["topics"])),
        ("sessions", record["sessions"], lambda: session_figure(record["sessions"])),
    ):
        if there:
            content = _png(draw())
            (folder / f"{name}.png").write_bytes(content)
            figures[name] = base64.b64encode(content).decode()
    pairs = samples(run, shown, 3) if "evaluate" in found else []
    opinions = [("People", people.of_run(run)), ("A language model as judge", judged.get("judge"))] if judged else []
    infer = env.read_jsonl(run / "infer" / "replies.jsonl") if "infer" in found else []
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        PAGE.read_text(encoding="utf-8")
    )
    html = page.render(
        run=record,
        found=found,
        headline=headline(found["evaluate"]) if "evaluate" in found else "",
        scores=score_rows(found["evaluate"]) if "evaluate" in found else [],
        figures=figures,
        pairs=pairs,
        groups=[
            (title, group_rows(judged[name]))
            for name, title in (("topics", "By topic"), ("lengths", "By length of the reference"))
            if len(judged.get(name, [])) > 1
        ],
        categories=category_rows(judged["prompts"]["categories"]) if "prompts" in judged else [],
        prompted=score_rows(judged["prompts"]) if judged.get("prompts", {}).get("n") else [],
        opinions=[(title, opinion, people.table(opinion)) for title, opinion in opinions if opinion],
        replies=infer,
        plan=plan.table(found["train"]["plan"]) if "plan" in found.get("train", {}) else {},
        missing=[name for name in env.MAIN if name not in found and name != "report"],
        embedded=found.get("prepare_data", {}).get("base_model") == "embedded",
    )
    env.write_text(folder / "index.html", html)
    return {"stages": list(found), "samples": len(pairs), "bytes": len(html.encode())}
