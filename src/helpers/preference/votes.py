"""Equal preferences counted once with their votes, contradictions settled by the majority, near-duplicates merged.

Nothing here depends on the order of the rows.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from helpers.data.group import group_rows, link_rows, pair_equal
from helpers.data.leaks import NEAR_WORDS
from helpers.language.bengali import split_words
from helpers.preference.items import Dropped, Preference, Sieved, prompt_key, reply_key, split_dropped

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near-duplicate"
OUTVOTED, TIED = "outvoted", "as many votes against it"

Key = tuple[str, str, str]  # of the prompt, the preferred reply, the rejected one


def _key(item: Preference) -> Key:
    chosen, rejected = (reply_key(text) if text else "" for text in (item.chosen, item.rejected))
    return prompt_key(item.prompt), chosen, rejected


def merge_equal(items: list[Preference]) -> Sieved:
    """Returns each preference once, with the votes of all that say the same: see `prompt_key` and `reply_key`."""
    alike: dict[Key, list[Preference]] = defaultdict(list)
    for item in items:
        alike[_key(item)].append(item)
    return _merge(alike.values(), DUPLICATE)


def _merge(clusters: Iterable[list[Preference]], reason: str) -> Sieved:
    """Returns of each cluster the preference with the most votes, with those of all, and the others as dropped."""
    kept, dropped = [], []
    for own in clusters:
        first, *others = sorted(own, key=lambda item: (-item.votes, item.source, item.id, *item.place))
        off_policy = all(item.off_policy for item in own)
        kept.append(replace(first, voters=frozenset().union(*(item.voters for item in own)), off_policy=off_policy))
        dropped += [Dropped(reason, item) for item in others]
    return kept, dropped


def settle_conflicts(items: list[Preference]) -> Sieved:
    """Drops the preferences that as many votes or more contradict; needs each once, as `merge_equal` returns them.

    Contradictory are a reply that was liked and disliked, two pairs of the same replies the other way round, and a
    thumb and a pair: a pair counts for its preferred reply and against the rejected one. The greater number of votes
    stays; as many on both sides drop all.
    """
    votes = {_key(item): item.votes for item in items}
    contrary = [votes.get((prompt, rejected, chosen), 0) for prompt, chosen, rejected in map(_key, items)]
    kept, dropped = split_dropped(items, [_weigh(item.votes, own) for item, own in zip(items, contrary)])
    pairs, thumbs = defaultdict(int), defaultdict(int)  # votes by (prompt, reply, whether they are for it)
    for item in kept:
        prompt, chosen, rejected = _key(item)
        side = pairs if item.is_pair else thumbs
        for reply, is_for in ((chosen, True), (rejected, False)):
            side[prompt, reply, is_for] += item.votes * bool(reply)
    reasons = []
    for item in kept:
        prompt, chosen, rejected = _key(item)
        own, others = (pairs, thumbs) if item.is_pair else (thumbs, pairs)
        sides = [(prompt, reply, is_for) for reply, is_for in ((chosen, True), (rejected, False)) if reply]
        verdicts = [_weigh(own[side], others[*side[:2], not side[2]]) for side in sides]
        reasons.append(next(filter(None, verdicts), ""))
    kept, others = split_dropped(kept, reasons)
    return kept, dropped + others


def _weigh(votes: int, contrary: int) -> str:
    """Returns why votes do not count against contrary ones, "" where they do."""
    return TIED if contrary and contrary == votes else OUTVOTED if contrary > votes else ""


def group_prompts(items: list[Preference], near_duplicate: float) -> list[str]:
    """Returns each preference's group, by the corpus's rules for questions: the same one, or a near-duplicate."""
    import pandas

    texts = [(item.id, item.prompt, item.question, "", False, place) for place, item in enumerate(items)]
    table = pandas.DataFrame(texts, columns=["id", "messages", "question", "answer", "plain", "dialogue"])
    if not items:
        return []
    links = link_rows(table, near_duplicate)
    links["same question, spelling folded"] = pair_equal([prompt_key(item.prompt) for item in items], table.id)
    return group_rows(table, links)


def merge_near(items: list[Preference], near_duplicate: float) -> Sieved:
    """Merges near-duplicates that say the same of near-duplicate prompts, as `merge_equal` does equal ones.

    A pair whose own replies are near-duplicates stays: the little in which they differ is what it says.
    """
    import networkx

    if not near_duplicate:
        return items, []
    buckets: dict[str, list[_Words]] = defaultdict(list)
    for item, group in zip(items, group_prompts(items, near_duplicate)):
        words = _Words(item)
        if not (item.is_pair and _near(words.chosen, words.rejected, near_duplicate, "answer")):
            buckets[group].append(words)
    graph = networkx.Graph()
    graph.add_nodes_from(items_by_id := {item.id: item for item in items})
    for bucket in buckets.values():
        graph.add_edges_from((a.id, b.id) for a, b in combinations(bucket, 2) if a.is_near(b, near_duplicate))
    clusters = ([items_by_id[own] for own in cluster] for cluster in networkx.connected_components(graph))
    return _merge(clusters, NEAR_DUPLICATE)


class _Words:
    """The words of a preference's texts."""

    def __init__(self, item: Preference) -> None:
        self.id, self.prompt_key = item.id, prompt_key(item.prompt)
        turns = " ".join(turn["content"] for turn in item.prompt if turn["role"] != "system")
        texts = (turns, item.chosen, item.rejected)
        self.prompt, self.chosen, self.rejected = (split_words(text) or [text] for text in texts)

    def is_near(self, other: "_Words", near_duplicate: float) -> bool:
        """Returns whether prompts and replies of both are near-duplicates, or the same."""
        return all(
            _near(own, others, near_duplicate, "answer")
            for own, others in ((self.chosen, other.chosen), (self.rejected, other.rejected))
        ) and (self.prompt_key == other.prompt_key or _near(self.prompt, other.prompt, near_duplicate, "question"))


def _near(first: list[str], second: list[str], near_duplicate: float, side: str) -> bool:
    """Returns whether two texts are the same by their words, or near-duplicates as the corpus's are."""
    if first == second:
        return True
    one_set, other = set(first), set(second)
    if min(len(one_set), len(other)) < NEAR_WORDS[side]:
        return False
    return len(one_set & other) >= near_duplicate * len(one_set | other)
