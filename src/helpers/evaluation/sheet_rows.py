"""Which rows stand on the sheet for people, and what each of them weighs in the results.

Actively chosen: half of the sheet are the rows where the two replies differ most, which say most about the scores; all
of them are taken. The other half are drawn at random from the rest. So every row's chance to be on the sheet is known,
1 or m of the N − k others, and with weights of one over it, all rows of the evaluation are estimated without bias
(Horvitz and Thompson 1952; as the ratio of two such sums, Hájek 1971). Within a stratum all weigh the same, so no row
can outweigh the others by a chance that came out small, as it could with a chance in proportion to the difference.

The rows of the two strata alternate, each in a random order: whoever stops early has still rated a random part of
both, and is weighted by the rows that were rated (Cochran 1977, §5.3, stratified random sampling).
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy

from helpers.data.sampling import shuffle_key
from helpers.evaluation.rating_files import read_table
from helpers.runs.damage import reading
from helpers.runs.files import write_csv

CRITERION = ("chrf", "graded", "similarity_reference")  # scores whose differences decide; those that were measured
DIFFERS, RANDOM, ALL = "differs", "random", "all"  # strata
SHEET = "human_eval.csv"
COLUMNS = ("id", "stratum", "rows", "probability")


class SheetSample(NamedTuple):
    """The rows of a sheet, in its order."""

    strata: dict[str, str]  # by row
    sizes: dict[str, int]  # rows of the evaluation in a stratum, on the sheet or not

    def weights(self, ids: Sequence[str]) -> numpy.ndarray | None:
        """Returns what each of these rows weighs (rows,), 1 on average: how many rows of its stratum it stands for.

        None where all weigh the same. Raises KeyError for a row that is not on the sheet.
        """
        strata = [self.strata[row] for row in ids]
        if len(self.sizes) < 2 or not ids:
            return None
        weights = numpy.array([self.sizes[stratum] / strata.count(stratum) for stratum in strata])
        return weights * len(ids) / weights.sum()

    def describe(self) -> dict[str, int]:
        """Returns how many rows stand on the sheet by either choice, and of how many they are; {} without a choice."""
        if len(self.sizes) < 2:
            return {}
        counts = {stratum: [*self.strata.values()].count(stratum) for stratum in (DIFFERS, RANDOM)}
        return {**counts, "rows": sum(self.sizes.values())}


def rank_differences(differences: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
    """Returns how much a human's opinion of each row would tell of the scores (rows,), from tuned − base of each score.

    The mean over scores of the rank of |tuned − base|, from 0 to 1, plus the mean over pairs of scores that favour
    different replies of the lower of their two ranks: strong disagreement comes first, then what differs in all scores.
    """
    from scipy.stats import rankdata

    changes = [numpy.nan_to_num(change) for change in differences.values()]
    ranks = [(rankdata(abs(change)) - 1) / max(len(change) - 1, 1) for change in changes]
    pairs = [*itertools.combinations(range(len(changes)), 2)]
    opposed = [(changes[a] * changes[b] < 0) * numpy.minimum(ranks[a], ranks[b]) for a, b in pairs]
    return numpy.mean(ranks, axis=0) + (numpy.mean(opposed, axis=0) if pairs else 0.0)


def choose_rows(
    ids: Sequence[str], differences: Mapping[str, numpy.ndarray], number: int, choice: str, seed: int
) -> SheetSample:
    """Returns the rows of a sheet of so many: `choice` is "active", or "random" for rows drawn at random alone.

    `differences` are tuned − base of each score (rows,). All rows stand on a sheet that has place for them.
    """
    if number >= len(ids):
        return SheetSample(dict.fromkeys(ids, ALL), {ALL: len(ids)})
    drawn = sorted(ids, key=lambda row: shuffle_key(seed, f"sheet {row}"))
    taken = number // 2 if choice == "active" else 0
    if not taken:
        return SheetSample(dict.fromkeys(drawn[:number], RANDOM), {RANDOM: len(ids)})
    interest = dict(zip(ids, rank_differences(differences)))
    first = {*sorted(drawn, key=lambda row: -interest[row])[:taken]}
    strata = {DIFFERS: [row for row in drawn if row in first]}
    strata[RANDOM] = [row for row in drawn if row not in first][: number - taken]
    pairs = itertools.zip_longest(strata[RANDOM], strata[DIFFERS])
    order = [row for row in itertools.chain(*pairs) if row is not None]
    sizes = {DIFFERS: taken, RANDOM: len(ids) - taken}
    return SheetSample({row: DIFFERS if row in first else RANDOM for row in order}, sizes)


def write_sample(folder: Path, sample: SheetSample) -> None:
    """Writes human_sample.csv beside the sheet, which does not tell: each row's stratum and its chance to be there."""
    import pandas

    counts = {stratum: [*sample.strata.values()].count(stratum) for stratum in sample.sizes}
    rows = [
        (row, stratum, sample.sizes[stratum], counts[stratum] / sample.sizes[stratum])
        for row, stratum in sample.strata.items()
    ]
    write_csv(folder / sample_file(SHEET), pandas.DataFrame(rows, columns=[*COLUMNS]))


def sample_file(sheet: str) -> str:
    """Returns the file that says which rows a sheet has: human_sample.csv of human_eval.csv."""
    return sheet.replace("human_eval", "human_sample")


def read_sample(folder: Path, sheet: str = SHEET) -> SheetSample | None:
    """Returns the rows of a run's sheet, from its evaluate/; None for one of an earlier version, the first rows.

    Raises Refused for a file that is damaged.
    """
    file = folder / sample_file(sheet)
    if not file.is_file():
        return None
    with reading(file):
        rows = read_table(file, COLUMNS)
        sizes = {row["stratum"]: int(row["rows"]) for row in rows}
        return SheetSample({row["id"]: row["stratum"] for row in rows}, sizes)
