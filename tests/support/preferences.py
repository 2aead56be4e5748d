"""What people prefer, as the chat page, raters and files leave it, and a run that it is about."""

import contextlib
import json
import sqlite3

import pandas

from helpers.evaluation.sheet import attention_checks, blind_pair, lay_out_sheet, sheet_id, tuned_is_first
from helpers.preference.items import Preference
from helpers.runs.files import write_csv, write_json, write_jsonl
from helpers.runs.record import Run

SEED = 3407
SYSTEM = {"role": "system", "content": "You are a sympathetic assistant."}
WARM = "আপনার কষ্টটা বুঝতে পারছি, আমি আপনার পাশে আছি।"  # I understand your pain, I am with you.
COLD = "এসব নিয়ে এত ভাবার কিছু নেই, ঘুমিয়ে পড়ুন এখন।"  # Nothing to think about so much, go to sleep now.
LATER = "rewritten TEXT NOT NULL DEFAULT '', person TEXT NOT NULL DEFAULT ''"
COLUMNS = "id INTEGER PRIMARY KEY, run TEXT, side TEXT, conversation TEXT, liked INTEGER, settings TEXT, timestamp TEXT"


def write_run(folder, rows, base_model="embedded"):
    """Writes what a trained run has of `rows`, data rows: 20 of validation, 20 of test, the others of training."""
    run = Run(folder)
    for part, own in (("val", rows[:20]), ("test", rows[20:40]), ("train", rows[40:])):
        write_jsonl(run / "data" / f"{part}.jsonl", own)
    write_json(run / "train" / "config.json", {"base_model": base_model})
    return run


def ask(prompt, *replies, label=None):
    """Returns a row of a file: two replies are a pair, one has a label."""
    if label is None:
        return {"prompt": prompt, "chosen": replies[0], "rejected": replies[1]}
    return {"prompt": prompt, "completion": replies[0], "label": label}


def prefer(prompt, chosen="", rejected="", *voters, source="a file", **facts):
    """Returns a preference about a prompt, by voters or one of its own."""
    turns = [SYSTEM, {"role": "user", "content": prompt}]
    names = frozenset(voters or [f"{prompt} {chosen} {rejected} {source} {facts}"])
    return Preference(source, "row 1", turns, chosen, rejected, names, **facts)


def give_thumb(run, prompt, reply, liked, side="tuned", later=True, **columns):
    """Keeps a thumb in the run's database, one of an earlier version's columns unless `later`."""
    conversation = [SYSTEM, {"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    row = {"run": run.name, "side": side, "conversation": json.dumps(conversation, ensure_ascii=False)}
    row |= {"liked": int(liked), "settings": "{}", "timestamp": "2026-01-01T00:00:00+00:00", **columns}
    with contextlib.closing(sqlite3.connect(run.outputs / "experiments.db")) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS Feedback ({COLUMNS}{', ' + LATER if later else ''})")
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(f"INSERT INTO Feedback ({', '.join(row)}) VALUES ({marks})", row)


def write_evaluation(run, rows):
    """Writes the evaluation of test rows, with a warm and a cold reply to each and the sheet; returns its pairs."""
    sides = {}
    for side, reply in (("base", COLD), ("tuned", WARM)):
        asked = [{"id": row["id"], "prompt": row["messages"][-2]["content"]} for row in rows]
        sides[side] = [own | {"reply": f"{reply} ({n})"} for n, own in enumerate(asked)]
        write_jsonl(run / "evaluate" / f"{side}.jsonl", sides[side])
    pairs = [blind_pair(*both, SEED) for both in zip(sides["base"], sides["tuned"])]
    write_csv(run / "evaluate" / "human_eval.csv", pandas.DataFrame(lay_out_sheet(pairs, SEED).pairs))
    write_json(run / "evaluate" / "metrics.json", {"seed": SEED})
    return pairs


def rate(run, pairs, rater, sides, attentive=True):
    """Saves a rater's file: `sides` has "tuned", "base" or "same" for each pair."""
    chosen = {"same": 0}
    rows = []
    for pair, side in zip(pairs, sides):
        first = tuned_is_first(pair["id"], SEED)
        chosen |= {"tuned": 1 if first else 2, "base": 2 if first else 1}
        rows.append({**pair, "choice": str(chosen[side])})
    for check in attention_checks(SEED):
        rows.append({**check.pair, "choice": str(check.answer if attentive else (check.answer + 1) % 3)})
    table = pandas.DataFrame([{"rater": rater, "sheet": sheet_id(pairs), **row} for row in rows])
    (run / "evaluate" / "ratings").mkdir(exist_ok=True)
    write_csv(run / "evaluate" / "ratings" / f"{rater}.csv", table)


def rate_by_model(run, orders):
    """Saves a language model's choices: {row id: (share of the tuned reply in the first order, in the second)}."""
    lines = [
        {"rater": "model", "id": row, "order": order, "side": "tuned", "preferred": share}
        for row, both in orders.items()
        for order, share in enumerate(both, start=1)
    ]
    write_jsonl(run / "evaluate" / "judge.jsonl", lines)
