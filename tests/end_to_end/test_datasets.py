"""Data sets other than the embedded one, run through all stages: other formats, and a user's own file."""

import csv
import json
import random

import pandas
import pytest
from tables import bengali_words

from helpers.data.load import COLUMNS
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run


@pytest.fixture(params=["text", "conversations"])
def other_format(request, tmp_path):
    """A file shaped like FineTome (ShareGPT turns, English, code) or like wikitext (plain lines, many empty)."""
    rng = random.Random(1)
    pool = bengali_words()

    def words(number):
        return " ".join(rng.sample(pool, number))

    if request.param == "text":
        path = tmp_path / "wiki.parquet"
        lines = [
            line for n in range(120) for line in ("", f" = Heading {n} = ", f" {words(20)} <unk> , @-@ {words(9)} ")
        ]
        pandas.DataFrame({"text": lines}).to_parquet(path)
        return path, request.param
    path = tmp_path / "chats.jsonl"
    turns = [("human", "gpt"), ("system", "human", "gpt"), ("human", "gpt", "human", "gpt")]
    code = "Use `if a < b and c > d:` in Python, see <script>alert(1)</script>."
    with open(path, "w", encoding="utf-8") as file:
        for n in range(120):
            row = [
                {"from": role, "value": f"{code} {words(9)}" if role == "gpt" else words(6)} for role in turns[n % 3]
            ]
            file.write(json.dumps({"conversations": row, "source": "x", "score": 5.2}) + "\n")
    return path, request.param


@pytest.mark.slow
def test_other_formats_run_through_all_stages(other_format, suite, tmp_path):
    path, kind = other_format
    sets = [f"prepare_data.dataset={path}", "prepare_data.skip_rules=[not Bengali, markup]"]
    done = suite("--preset", "demo", "--tiny", "--run-name", kind, "--outputs", tmp_path / "out", "--set", *sets)
    assert done.returncode == 0, done.output
    run = Run(tmp_path / "out" / kind)
    data, scores = run.metrics("prepare_data"), run.metrics("evaluate")["tuned"]
    assert (data["format"], data["overlap"]) == (kind, 0)
    assert scores["perplexity"]["value"] > 1
    assert ("chrf" in scores) == (kind == "conversations")
    assert len(read_jsonl(run / "infer/replies.jsonl")) == (8 if kind == "conversations" else 5)
    for page in run.folder.rglob("*.html"):
        assert "<script>alert(1)" not in page.read_text(encoding="utf-8"), page.name
    if kind == "conversations":
        rows = read_jsonl(run / "data/train.jsonl")
        assert {len(row["messages"]) for row in rows} == {3, 5}, "the default system prompt where a row has none"
        assert any("a < b" in row["messages"][-1]["content"] for row in rows)


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    """A file in the corpus's format and under its name: 2,000 rows, many from few words, some that must be dropped."""
    rng = random.Random(0)
    pool = bengali_words()
    rows = [["বিষয়", "", " ".join(rng.sample(pool, 9)), " ".join(rng.sample(pool, 15))] for _ in range(1995)]
    rows += [["বিষয়", "", "", "উত্তর আছে, প্রশ্ন নেই।"], rows[0], rows[1]]
    rows += [
        [
            "বিষয়",
            "",
            "<script>alert('প্রশ্ন')</script> বলুন তো কী করি, মনটা আজ একদম ভালো নেই, কারও সঙ্গে কথা বলতেও ইচ্ছে করছে না",
            "=cmd()|'/c calc'!A0 উত্তর এখানে, মন দিয়ে পড়ুন",
        ]
    ]
    rows += [["বিষয়", "", "\u202eউল্টো\u202c প্রশ্ন এখানে", "=cmd() https://example.com " + "দীর্ঘ" * 2000]]
    for number, row in enumerate(rows):
        row[0] = f"বিষয় {number % 40}"
    path = tmp_path_factory.mktemp("file") / "BengaliEmpatheticConversationsCorpus .csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


@pytest.fixture(scope="module")
def own_run(own_file, suite, tmp_path_factory):
    """Returns the run of the demo on a user's own file."""
    outputs = tmp_path_factory.mktemp("own") / "out"
    sets = [f"prepare_data.dataset={own_file}", "prepare_data.max_rows=0"]
    done = suite("--preset", "demo", "--tiny", "--run-name", "own", "--outputs", outputs, "--set", *sets)
    assert done.returncode == 0, done.output
    return Run(outputs / "own")


@pytest.mark.slow
def test_a_users_own_file_loses_only_its_bad_rows(own_run):
    metrics = own_run.metrics("prepare_data")
    assert metrics["rows_in"] == 2000
    assert metrics["rows_out"] == 1996
    assert metrics["train"] + metrics["val"] + metrics["test"] == 1996
    assert metrics["dropped"] == {"exact duplicate": 2, "missing side": 1, "url": 1}


@pytest.mark.slow
def test_a_users_own_file_puts_no_script_into_a_page(own_run):
    for page in own_run.folder.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert "<script>alert(" not in html, page.name
        assert "\u202e" not in html, f"{page.name} shows text in the wrong direction"


@pytest.mark.slow
def test_a_users_own_file_puts_no_formula_into_a_table(own_run):
    with open(own_run / "data/dropped.csv", encoding="utf-8") as file:
        dropped = list(csv.DictReader(file))
    assert [row["answer"][:7] for row in dropped if row["rule"] == "url"] == ["'=cmd()"]
    for table in own_run.folder.rglob("*.csv"):
        with open(table, encoding="utf-8", newline="") as file:
            assert not any(cell[:1] in "=+@" and cell for row in csv.reader(file) for cell in row), table.name
