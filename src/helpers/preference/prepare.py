"""The preferences of a run, made once: a training that has begun keeps those that it began with."""

from typing import Any

from helpers.models.chat import Tokenizer
from helpers.models.embedded import locate_base_model
from helpers.models.loading import load_tokenizer, start_backend
from helpers.preference.examples import encode_reply
from helpers.preference.gather import Gathered, gather_preferences, write_preferences
from helpers.runs.checkpoints import checkpoint_folders
from helpers.runs.files import read_json, read_jsonl, write_json
from helpers.runs.record import Run

TOO_LONG = "longer than max_length"


def prepare_preferences(
    run: Run, dataset: list[str], val_share: float, seed: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the rows of prefer/pairs.jsonl and what metrics.json says of them; gathers and writes them, unless a
    checkpoint has been trained on those that are there. Prints what was gathered.

    Raises as `gather_preferences`, and ValueError where rows longer than the run's max_length leave a part without any.
    """
    config, pairs_file, facts_file = run.training_config(), run / "prefer" / "pairs.jsonl", run / "prefer/gathered.json"
    start_backend(config["backend"])  # before transformers, which reading preferences and the plan import
    if checkpoint_folders(run / "prefer" / "checkpoints") and facts_file.is_file():
        print("The training continues with the preferences that it began with.")
        return read_jsonl(pairs_file), read_json(facts_file)
    pairs_file.unlink(missing_ok=True)  # what was deleted since may not stay, also where too few are left
    gathered = gather_preferences(run, dataset, val_share, seed)
    tokenizer = load_tokenizer(locate_base_model(config["base_model"], run))
    gathered = drop_long(gathered, tokenizer, config["max_length"])
    print(gathered.describe())
    write_preferences(run, gathered)
    write_json(facts_file, gathered.facts)
    return gathered.rows, gathered.facts


def drop_long(gathered: Gathered, tokenizer: Tokenizer, max_length: int) -> Gathered:
    """Returns preferences without those of which a reply, with its prompt, has more than `max_length` tokens.

    Raises ValueError where a part is left without rows.
    """
    rows, dropped = [], list(gathered.dropped)
    for row in gathered.rows:
        replies = [row[name] for name in ("chosen", "rejected", "completion") if name in row]
        lengths = [sum(map(len, encode_reply(tokenizer, row["prompt"], reply))) for reply in replies]
        if max(lengths) <= max_length:
            rows.append(row)
        else:
            line = {"reason": TOO_LONG, "source": row["source"], "id": row["id"], "text": row["prompt"][-1]["content"]}
            dropped.append(line)
    counts = {part: sum(row["part"] == part for row in rows) for part in ("train", "val")}
    if empty := [part for part, count in counts.items() if not count]:
        raise ValueError(
            f"no preference of at most {max_length} tokens is left for the {empty[0]} part: collect more, or prepare "
            f"and train with a larger shared.max_length."
        )
    lost = len(gathered.rows) - len(rows)
    facts = {**gathered.facts, **counts, "rows_out": gathered.facts["rows_out"] - lost}
    facts["dropped"] = facts["dropped"] | ({TOO_LONG: lost} if lost else {})
    return Gathered(rows, dropped, facts)
