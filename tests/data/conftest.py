"""The file with planted defects, which several tests read."""

from types import SimpleNamespace

import planted
import pytest

from helpers.data.clean import clean_table
from helpers.data.load import unify_columns


@pytest.fixture(scope="package")
def planted_file():
    """Returns a planted file: `raw`, `table`, `defects` {rule: row numbers}, `near` (pairs of rows), and its `corpus`.

    `number` counts from 0, as the planted rows do.
    """
    raw, defects, near = planted.make(6000)
    table = unify_columns(raw, "auto", "planted")[0].assign(number=range(len(raw)))
    return SimpleNamespace(raw=raw, table=table, defects=defects, near=near, corpus=clean_table(table))
