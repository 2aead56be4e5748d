"""The twin of the corpus, which several tests read."""

from types import SimpleNamespace

import corpus_twin
import pytest

from helpers.data.clean import clean_table
from helpers.data.group import link_rows
from helpers.data.split import split_corpus


@pytest.fixture(scope="package")
def twin():
    """Returns a twin of 6,000 rows: `raw`, `truth`, its `table`, and its `corpus`, cleaned, with `group` and `part`."""
    twin = corpus_twin.make(6000)
    table = twin.table()
    corpus = clean_table(table)
    links = link_rows(corpus.kept, 0.8)
    corpus = split_corpus(corpus, links, (0.8, 0.1), 1)
    return SimpleNamespace(file=twin, raw=twin.raw, truth=twin.truth, table=table, corpus=corpus, links=links)
