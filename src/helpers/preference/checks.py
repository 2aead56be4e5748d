"""What may not be trained on: the corpus's cleaning rules, unsafe replies, anything of held-out rows."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import chain

import pandas

from helpers.data.clean import DROPS, REPAIRS, repair_text
from helpers.data.leaks import NEAR_WORDS, find_near_duplicates, questions_of
from helpers.data.probes import instructions, scored_probes
from helpers.data.prompts import PROMPTS, fixed_prompts
from helpers.data.turns import EMPTY_TURN, has_empty_turn
from helpers.language.care import detect_crisis
from helpers.language.rubric import CRISIS, unsafe_reasons
from helpers.preference.items import Preference, Sieved, fold_text, reply_key, split_dropped

# Rules that ask for an answer, or compare rows of a file: a disliked reply has none, and rows here have no order
ROW_RULES = [rule for rule in DROPS if rule not in ("missing side", "roles swapped", "exact duplicate")]
NO_REFERRAL = "no referral"  # as `unsafe_reasons` names it
SAME_REPLIES = "both replies are the same"
EVALUATION_PROMPT = "prompt of the evaluation"
ROLES = {"question": "user", "answer": "assistant"}  # of the turns of each side


def repair_item(item: Preference, skip_rules: Iterable[str]) -> Preference:
    """Returns a preference with every text repaired and normalised, by the corpus's rules but those in `skip_rules`."""
    rules = [rule for rule in REPAIRS if rule not in skip_rules]
    prompt = [{**turn, "content": repair_text(turn["content"], rules)} for turn in item.prompt]
    chosen, rejected = (repair_text(text, rules) for text in (item.chosen, item.rejected))
    return replace(item, prompt=prompt, chosen=chosen, rejected=rejected)


def clean_items(items: list[Preference], skip_rules: Iterable[str], min_bengali_share: float) -> Sieved:
    """Repairs every text and drops what the corpus's rules drop: see `helpers.data.clean`.

    The rules read the person's turns and the preferred reply. A rejected reply may be anything but empty or the
    preferred one again; earlier replies are what the model reads, and are not trained on.
    """
    was_pair = [item.is_pair for item in items]
    items = [repair_item(item, skip_rules) for item in items]
    reasons = [_find_empty(item, pair) for item, pair in zip(items, was_pair)]
    texts = [(item.id, item.question, item.chosen, False) for item in items]
    table = pandas.DataFrame(texts, columns=["id", "question", "answer", "plain"])
    for rule in [rule for rule in ROW_RULES if items and rule not in skip_rules]:
        hits = DROPS[rule](table, min_bengali_share)
        reasons = [reason or rule * bool(hit) for reason, hit in zip(reasons, hits)]
    return split_dropped(items, reasons)


def _find_empty(item: Preference, was_pair: bool) -> str:
    """Returns why a repaired preference says nothing, "" where it does."""
    if has_empty_turn(item.prompt) or not (item.chosen or item.rejected) or was_pair != item.is_pair:
        return EMPTY_TURN
    same = item.is_pair and reply_key(item.chosen) == reply_key(item.rejected)
    return SAME_REPLIES if same else ""


def drop_unsafe(items: list[Preference]) -> Sieved:
    """Drops preferences whose preferred reply the rubric calls unsafe; to a message in a crisis it needs a referral.

    No setting switches this off. A rejected reply may be unsafe: that is a reason to reject it.
    """

    speaks_of_crisis = cache(detect_crisis)  # slow, and asked for each reply to a prompt

    def find_reason(item: Preference) -> str:
        reasons = unsafe_reasons(item.chosen, CRISIS) if item.chosen else []
        if NO_REFERRAL in reasons and not speaks_of_crisis(item.prompt[-1]["content"]):
            reasons.remove(NO_REFERRAL)
        return f"unsafe: {reasons[0]}" if reasons else ""

    return split_dropped(items, map(find_reason, items))


def drop_held_out(items: list[Preference], parts: dict[str, list[dict]], near_duplicate: float) -> Sieved:
    """Drops preferences about a prompt, or with a reply, of a held-out row, and those about the evaluation's prompts.

    `parts` has the data rows of "test" and "validation". What makes a twin is what does in `helpers.data.leaks`: the
    same question, here with spelling folded, and a Jaccard similarity of words of at least `near_duplicate` (0: not
    looked for). A rated reply may be of its own test row, whose group leaves the evaluation.
    """
    own = [{"group": "", "messages": [{"role": "user", "content": text}]} for text in evaluation_prompts()]
    searches = [(f"{side} of a {part} row", side, rows) for part, rows in parts.items() for side in NEAR_WORDS]
    reasons = [""] * len(items)
    for reason, side, rows in [*searches, (EVALUATION_PROMPT, "question", own)]:
        places = _find_near(items, rows, side, near_duplicate) if near_duplicate else iter(())
        for place in chain(places, _find_equal(items, rows) if side == "question" else ()):
            reasons[place] = reasons[place] or reason
    return split_dropped(items, reasons)


def evaluation_prompts() -> list[str]:
    """Returns all that the evaluation asks of every model: the fixed prompts and the probes."""
    asked = [row["prompt"] for row in fixed_prompts()] + PROMPTS["turns"]
    turns = chain(
        *(probe.row.get("messages", []) for probe in scored_probes([])), *(i.messages for i in instructions([]))
    )
    return list(dict.fromkeys([*asked, *(turn["content"] for turn in turns if turn["role"] == "user")]))


def _find_equal(items: list[Preference], rows: list[dict]) -> Iterator[int]:
    """Yields the places of items that ask what a row asks, but for those of the row's group."""
    groups = defaultdict(set)
    for row in rows:
        for words in questions_of("", row["messages"]):
            groups[fold_text(" ".join(words))].add(row["group"])
    for place, item in enumerate(items):
        keys = [fold_text(" ".join(words)) for words in questions_of("", item.prompt)]
        if any(groups[key] - {item.test_group or None} for key in keys if key in groups):
            yield place


def _find_near(items: list[Preference], rows: list[dict], side: str, near_duplicate: float) -> Iterator[int]:
    """Yields the places of items with a near-duplicate of a row's question or answer, but for those of its group: of
    all turns together, or of one."""
    groups, texts, places = [], [], []
    for row in rows:
        turns = [turn["content"] for turn in row["messages"] if turn["role"] == ROLES[side]]
        own = dict.fromkeys(["\n\n".join(turns), *turns])
        groups += [row["group"]] * len(own)
        texts += own
    for place, item in enumerate(items):
        asked = [item.question, *(turn["content"] for turn in item.prompt if turn["role"] == "user")]
        own = dict.fromkeys(asked if side == "question" else filter(None, (item.chosen, item.rejected)))
        places += [place] * len(own)
        texts += own
    wanted = set(range(len(groups), len(texts)))
    for text, twins in find_near_duplicates(texts, wanted, near_duplicate, NEAR_WORDS[side]):
        item = items[places[text - len(groups)]]
        if any(groups[twin] != item.test_group or not item.test_group for twin in twins if twin < len(groups)):
            yield places[text - len(groups)]
