"""What people prefer, from its sources to checked rows: prefer/pairs.jsonl and prefer/dropped.csv."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from helpers.data.sampling import shuffle_key
from helpers.data.split import fill_parts
from helpers.preference.checks import clean_items, drop_held_out, drop_unsafe
from helpers.preference.items import Dropped, Preference, Sieved, split_dropped
from helpers.preference.power import describe_power
from helpers.preference.sources import check_dataset, read_sources
from helpers.preference.votes import (
    DUPLICATE,
    NEAR_DUPLICATE,
    OUTVOTED,
    TIED,
    group_prompts,
    merge_equal,
    merge_near,
    settle_conflicts,
)
from helpers.runs.files import read_jsonl, write_csv, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import default_settings

HELD_OUT_PARTS = {"test": "test", "validation": "val"}  # as reasons name them: their files
FEWEST_PROMPTS = 10  # below which nothing is trained
LARGEST_SHARE = 0.5  # of the evaluated test rows that may leave the evaluation, for their ratings
LEFT_TO_EVALUATION = "left to the evaluation"
WRITTEN = " prefer/dropped.csv has what was dropped, and why."


@dataclass(frozen=True)
class Gathered:
    """The preferences of a run: the rows of pairs.jsonl, those of dropped.csv, and what metrics.json says of them."""

    rows: list[dict[str, Any]]
    dropped: list[dict[str, str]]
    facts: dict[str, Any]

    def describe(self) -> str:
        """Returns in sentences what was gathered, what was dropped, and whether it is enough."""
        facts, power = self.facts, self.facts["power"]
        kinds = f"{facts['pairs']:,} pairs, {facts['liked']:,} liked and {facts['disliked']:,} disliked replies"
        text = f"{len(self.rows):,} preferences about {power['prompts']:,} prompts: {kinds}; {facts['val']:,} held out."
        if self.dropped:
            reasons = Counter(facts["dropped"]).most_common(3)
            text += f" Dropped: {len(self.dropped):,}, most of them {', '.join(f'{r} ({n:,})' for r, n in reasons)}."
        if facts["used_test_ids"]:
            text += f" {len(facts['used_test_ids']):,} test rows leave the evaluation of the preferred model."
        return f"{text} {describe_enough(power)}"


def describe_enough(power: dict[str, Any]) -> str:
    """Returns in a sentence what so many preferences can show: a warning where they are few."""
    if not power["missing"]:
        return f"Enough for an effect worth having ({power['formula']}; {power['needed']:,} prompts)."
    shows = power["least_accuracy"]
    shown = f"only an accuracy of {shows:.0%} or more" if shows else "not even an accuracy of 100%"
    return (
        f"Few: on {power['held_out']:,} held-out prompts {shown} can be told from chance. For an effect worth having "
        f"{power['needed']:,} prompts are needed, {power['needed_held_out']:,} of them held out: {power['missing']:,} "
        f"are missing ({power['formula']})."
    )


def gather_preferences(run: Run, dataset: list[str], val_share: float, seed: int, is_trial: bool = False) -> Gathered:
    """Returns the preferences of all sources in `dataset`, checked, each once, split by groups of prompts. Writes
    prefer/dropped.csv, which says why where too few are left, unless it `is_trial`.

    Raises FileNotFoundError for a source that is not there, ValueError for one that cannot be read or is empty, for a
    share that leaves a part without rows, and for fewer than FEWEST_PROMPTS prompts.
    """
    check_dataset(dataset)
    if not 0 < val_share < 1:
        raise ValueError(f"prefer.val_share is {val_share}: expected a share between 0 and 1, such as 0.2.")
    settings = {**default_settings("prepare_data"), **run.stage("prepare_data").parameters}
    near_duplicate = settings["near_duplicate"]
    sources = read_sources(run, dataset)
    parts = {part: read_jsonl(run / "data" / f"{name}.jsonl") for part, name in HELD_OUT_PARTS.items()}
    items, dropped = sources.items, sources.dropped
    for step in (
        lambda items: clean_items(items, settings["skip_rules"], settings["min_bengali_share"]),
        drop_unsafe,
        lambda items: drop_held_out(items, parts, near_duplicate),
        merge_equal,
        settle_conflicts,
        lambda items: merge_near(items, near_duplicate),
        lambda items: keep_evaluation(run, items, seed),
    ):
        items, others = step(items)
        dropped = [*dropped, *others]
    items = sorted(items, key=lambda item: item.id)
    dropped = sorted(dropped, key=lambda own: (own.reason, own.item.source, *own.item.place))
    groups = group_prompts(items, near_duplicate)
    lines = [own.as_row() for own in dropped]
    if not is_trial:
        write_dropped(run, lines)
    check_enough(items, groups, dropped, val_share, "" if is_trial else WRITTEN)
    part_of_row = fill_parts(groups, {"train": 1 - val_share, "val": val_share}, seed)
    rows = [make_row(*own) for own in zip(items, groups, part_of_row)]
    facts = {**gather_facts(items, rows, dropped), **sources.facts}
    held_out = {group for group, part in zip(groups, part_of_row) if part == "val"}
    facts["power"] = describe_power(len(set(groups)), len(held_out), val_share)
    used = {item.test_group for item in items if item.test_group}
    facts["used_test_ids"] = sorted(row["id"] for row in parts["test"] if row["group"] in used)
    return Gathered(rows, lines, facts)


def keep_evaluation(run: Run, items: list[Preference], seed: int) -> Sieved:
    """Drops ratings of test rows where more than LARGEST_SHARE of the evaluated ones would leave the evaluation.

    A rated row leaves it with its group; groups are taken in an order by seed, each that still fits.
    """
    used = {item.test_group for item in items if item.test_group}
    if not used:
        return items, []
    groups = {row["id"]: row["group"] for row in read_jsonl(run / "data" / "test.jsonl")}
    evaluated = Counter(groups.get(row["id"], "") for row in read_jsonl(run / "evaluate" / "tuned.jsonl"))
    room, taken = int(LARGEST_SHARE * evaluated.total()), set()
    for group in sorted(used, key=lambda group: shuffle_key(seed, group)):
        if evaluated[group] <= room:
            taken.add(group)
            room -= evaluated[group]
    left = used - taken
    return split_dropped(items, [LEFT_TO_EVALUATION if item.test_group in left else "" for item in items])


def check_enough(
    items: list[Preference], groups: list[str], dropped: list[Dropped], val_share: float, hint: str
) -> None:
    """Raises ValueError for too few prompts, with `hint` at the end, and for thumbs that are all up or all down."""
    prompts, reasons = len(set(groups)), Counter(own.reason for own in dropped)
    if prompts < FEWEST_PROMPTS:
        most = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(5))
        lost = f" ({len(dropped)} dropped: {most})" if dropped else ""
        power = describe_power(prompts, 0, val_share)
        raise ValueError(
            f"prefer.dataset gives preferences about {prompts} different prompts{lost}: expected at least "
            f"{FEWEST_PROMPTS}, and {power['needed']:,} for an effect worth having ({power['formula']}). Collect more, "
            f"add a source, or take prefer out of the stages.{hint}"
        )
    if not (any(item.chosen for item in items) and any(item.rejected for item in items)):
        kind = "liked" if items[0].chosen else "disliked"
        raise ValueError(
            f"prefer.dataset gives {len(items)} replies, all of them {kind}: expected both kinds, or pairs. Nothing "
            f"shows a model what is better. Add the other kind, or a file of pairs."
        )


def make_row(item: Preference, group: str, part: str) -> dict[str, Any]:
    """Returns a row of pairs.jsonl: a pair with `chosen` and `rejected`, or a `completion` with its `label`."""
    row = {"id": item.id, "source": item.source, "group": group, "part": part, "prompt": item.prompt}
    if item.is_pair:
        return row | {"chosen": item.chosen, "rejected": item.rejected}
    return row | {"completion": item.chosen or item.rejected, "label": bool(item.chosen)}


def gather_facts(items: list[Preference], rows: list[dict[str, Any]], dropped: list[Dropped]) -> dict[str, Any]:
    """Returns the counts of metrics.json: by source, by kind, by part, by reason."""
    reasons = Counter(own.reason for own in dropped)
    kept, lost = Counter(item.source for item in items), Counter(own.item.source for own in dropped)
    kinds = {"pairs": [item.is_pair for item in items]}
    kinds |= {"liked": [not item.rejected for item in items], "disliked": [not item.chosen for item in items]}
    parts = {part: [row["part"] == part for row in rows] for part in ("train", "val")}
    return {
        "rows_in": len(items) + len(dropped),
        "rows_out": len(items),
        "sources": {
            source: {"read": kept[source] + lost[source], "kept": kept[source], "dropped": lost[source]}
            for source in sorted(kept | lost)
        },
        **{kind: sum(own) for kind, own in kinds.items()},
        **{part: sum(own) for part, own in parts.items()},
        "kinds": {
            part: {kind: sum(map(all, zip(own, of))) for kind, of in kinds.items()} for part, own in parts.items()
        },
        "groups": len({row["group"] for row in rows}),
        "votes": sum(item.votes for item in items),
        "off_policy": sum(item.off_policy for item in items),
        "dropped": dict(reasons.most_common()),
        "conflicts": {"outvoted": reasons[OUTVOTED], "tied": reasons[TIED]},
        "duplicates": {"equal": reasons[DUPLICATE], "near": reasons[NEAR_DUPLICATE]},
    }


def write_preferences(run: Run, gathered: Gathered) -> None:
    """Writes prefer/pairs.jsonl and prefer/dropped.csv."""
    write_jsonl(run / "prefer" / "pairs.jsonl", gathered.rows)
    write_dropped(run, gathered.dropped)


def write_dropped(run: Run, lines: list[dict[str, str]]) -> None:
    """Writes prefer/dropped.csv; `gather_preferences` does too, for where too few are left."""
    import pandas

    write_csv(run / "prefer" / "dropped.csv", pandas.DataFrame(lines, columns=["reason", "source", "id", "text"]))
