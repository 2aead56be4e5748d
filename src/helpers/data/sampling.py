"""An order by seed and content, and a stratified sample."""

import hashlib

import pandas


def shuffle_key(seed: int, name: str) -> bytes:
    """Returns a sort key that puts names into an order decided by the seed and each name, not by where they stood."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()


def sample_rows(table: pandas.DataFrame, max_rows: int, seed: int) -> pandas.DataFrame:
    """Returns `max_rows` rows (0 = all), picked by seed and content, in the table's order; never its head.

    Stratified by part, source part (with or without a title) and quarter of length: each stratum gives its share.
    """
    if not max_rows or max_rows >= len(table):
        return table
    length = table.question.str.len() + table.answer.str.len()
    quarter = (length.rank(pct=True) * 4).clip(upper=3.99).astype(int)
    strata = table.groupby([table.part, table.title != "", quarter], sort=False).id.agg(list)
    shares = {stratum: max_rows * len(ids) / len(table) for stratum, ids in strata.items()}
    take = {stratum: int(share) for stratum, share in shares.items()}
    by_remainder = sorted(shares, key=lambda stratum: (take[stratum] - shares[stratum], stratum))
    for stratum in by_remainder[: max_rows - sum(take.values())]:
        take[stratum] += 1
    picked = set()
    for stratum, ids in strata.items():
        picked.update(sorted(ids, key=lambda row_id: shuffle_key(seed, row_id))[: take[stratum]])
    return table.loc[table.id.isin(picked)].reset_index(drop=True)
