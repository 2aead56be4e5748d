"""Reading a data set: every format and every place, and one clear error for what cannot be read."""

import json
import re
import subprocess
import sys

import pandas
import pytest
from tables import raw_table, unified_table, write_csv_file

from helpers.data.clean import clean_table
from helpers.data.load import PUBLISHED, load_table
from helpers.data.rows import data_rows
from helpers.language.bengali import normalise

TURNS = [
    ("system", "সহায়ক"),
    ("human", "প্রথম প্রশ্ন করি"),
    ("gpt", "প্রথম উত্তর দিই"),
    ("human", "আবার বলি"),
    ("gpt", "আবার শুনি"),
]


def write_table(table, path):
    """Writes a table as JSONL or Parquet, by the ending of its path, and returns the path as a setting."""
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    return str(path)


def test_a_files_identity_is_gits_blob_hash(tmp_path):
    path = write_csv_file(tmp_path / "a.csv", {})
    git = subprocess.run(["git", "hash-object", str(path)], capture_output=True, text=True)
    assert load_table(str(path))[1].blob_sha1 == git.stdout.strip()


def test_the_published_file_is_known_by_its_hash(tmp_path, monkeypatch):
    path = write_csv_file(tmp_path / "a.csv", {})
    monkeypatch.setitem(PUBLISHED, load_table(str(path))[1].blob_sha1, "the published one")
    source = load_table(str(path))[1]
    assert source.published == "the published one"
    assert source.as_json()["published"] == "the published one"


def test_another_file_is_said_to_be_another_one(tmp_path):
    path = write_csv_file(tmp_path / "a.csv", {})
    assert load_table(str(path))[1].as_json()["published"] == "no"


def test_a_space_in_a_files_name_does_not_matter(tmp_path):
    path = write_csv_file(tmp_path / "BengaliEmpatheticConversationsCorpus .csv", {}, {"Questions": "আরেকটা প্রশ্ন"})
    assert len(load_table(str(path))[0]) == 2


def test_spaces_around_column_names_do_not_matter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffTopics, Question-Title ,Questions,Answers\r\nক,খ,গ,ঘ\r\n", encoding="utf-8")
    row = load_table(str(path))[0].iloc[0]
    assert [row.topic, row.title, row.question, row.answer] == list("কখগঘ")


def test_rows_are_numbered_by_their_place_in_the_file(tmp_path):
    path = write_csv_file(tmp_path / "a.csv", {}, {}, {})
    assert list(load_table(str(path))[0].number) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_file_types_read_the_same(tmp_path, kind):
    path = write_table(raw_table({}, {"Topics": "চাকরি"}), tmp_path / f"a.{kind}")
    assert load_table(path)[0].equals(unified_table({}, {"Topics": "চাকরি"}))


@pytest.mark.parametrize(("column", "names"), [("conversations", ("from", "value")), ("messages", ("role", "content"))])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_conversations_of_both_kinds_become_data_rows(tmp_path, column, names, kind):
    turns = [dict(zip(names, turn)) for turn in TURNS]
    path = write_table(pandas.DataFrame({column: [turns, turns[1:3]]}), tmp_path / f"a.{kind}")
    kept = clean_table(load_table(path)[0]).kept
    rows = data_rows(kept.assign(group="g"), "নিজের", "x")
    shapes = sorted((len(row["messages"]), row["messages"][0]["content"]) for row in rows)
    assert shapes == [(3, "নিজের"), (5, "সহা" + normalise("য়") + "ক")]
    assert {m["role"] for row in rows for m in row["messages"]} == {"system", "user", "assistant"}


def test_plain_text_becomes_rows_without_messages(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ["", " = শিরোনাম = ", "প্রথম অনুচ্ছেদ এখানে।", "দ্বিতীয় অনুচ্ছেদ এখানে।"]
    path.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    corpus = clean_table(load_table(str(path))[0])
    rows = data_rows(corpus.kept.assign(group="g"), "নিজের", "x")
    assert len(rows) == 3
    assert list(corpus.dropped.rule) == ["missing side"]
    assert all(set(row) == {"id", "group", "source", "text"} for row in rows)


@pytest.mark.parametrize("dataset_format", ["text", "conversations"])
def test_the_embedded_corpus_stands_in_for_other_formats(dataset_format):
    table, source = load_table("embedded", dataset_format)
    assert source.format == dataset_format
    pairs = load_table("embedded")[0]
    expected = pairs.answer if dataset_format == "conversations" else pairs.question + pairs.answer
    assert list(table.answer == "") == list(expected == "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"empty \(0 bytes\)"),
        ("a.csv", b"Topics,Question-Title,Questions,Answers\n", "no row"),
        (
            "a.csv",
            "Question,Answers\nক,খ\n".encode(),
            r"has the columns \['Question', 'Answers'\]. Expected, by exact name, qa: Topics",
        ),
        ("a.csv", "Topics,Questions\nক,খ\n".encode("utf-16"), "is UTF-16, not UTF-8.*iconv -f UTF-16 -t UTF-8"),
        ("a.csv", "\ufeffTopics,Questions\nক,খ\n".encode("utf-16-be"), "is UTF-16, not UTF-8"),
        ("a.csv", "Topics,Questions\nক,খ\n".encode("utf-16-le"), "is UTF-16LE, not UTF-8.*iconv -f UTF-16LE"),
        ("a.csv", "Topics,Questions\nক,খ\n".encode("utf-16-be"), "is UTF-16BE, not UTF-8"),
        ("a.jsonl", '{"text": "কথা"}\n'.encode("utf-16-le"), "is UTF-16LE, not UTF-8.*OLD.jsonl > NEW.jsonl"),
        ("a.csv", "Topics,Questions\nক,খ\n".encode("utf-32"), "is UTF-32, not UTF-8"),
        ("a.csv", "Topics,Questions\nক,খ\n".encode("utf-32-be"), "is UTF-32BE, not UTF-8"),
        ("a.csv", "বিষয়,প্রশ্ন\nক,খ\n".encode("utf-16-le"), "is UTF-16LE, not UTF-8.*iconv -f UTF-16LE"),
        ("a.csv", "বিষয়,প্রশ্ন\nক,খ\n".encode("utf-16-be"), "is UTF-16BE, not UTF-8.*iconv -f UTF-16BE"),
        ("a.csv", '"বিষয়","প্রশ্ন"\n'.encode("utf-16-le"), "is UTF-16LE, not UTF-8"),
        ("a.csv", ("“" + "কথা বলি, " * 4000).encode("utf-16-be"), "is UTF-16BE, not UTF-8"),
        ("a.csv", "বিষয়,প্রশ্ন\nক,খ\n".encode("utf-32-le"), "is UTF-32LE, not UTF-8"),
        ("a.csv", "বিষয়,প্রশ্ন\nক,খ\n".encode("utf-32-be"), "is UTF-32BE, not UTF-8"),
        ("a.csv", bytes(range(128, 256)) * 9, r"is not UTF-8 \(byte 0\).*WINDOWS-1252"),
        ("a.csv", "Topics,Questions\n\u00e9,b\n".encode("cp1252"), r"is not UTF-8 \(byte 17\).*WINDOWS-1252"),
        ("a.csv", b'Topics,Questions\na,b\n"a\nb,c', "line 3 begins a quoted cell that no quote ends"),
        ("a.jsonl", b"{not json}\n", "cannot be read as .jsonl: line 1 is no JSON object"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"\n{"text": "c"}\n', "line 3 is no JSON object"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', r"line 2 is no JSON object \(it is list"),
        ("a.csv", "Topics,Question-Title,Questions,Answers,Answers\nক,খ,গ,ঘ,ঙ\n".encode(), "'Answers' twice"),
        ("a.parquet", b"PAR1 no parquet", "cannot be read as .parquet"),
        ("a.xlsx", b"x", r"ends in '.xlsx': expected one of .csv, .jsonl, .parquet"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_table(str(path))


HEADER = "Topics,Question-Title,Questions,Answers"


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
@pytest.mark.parametrize("form", ["{}", "\ufeff{}", '"{}"'])
def test_a_csv_file_without_commas_is_told_its_separator(tmp_path, sign, name, form):
    quoted = form.startswith('"')
    head, rows = HEADER.split(","), ["ক", "খ, গ", "গ, ঘ, ঙ", "ঘ"]
    lines = [sign.join(f'"{cell}"' if quoted else cell for cell in cells) for cells in (head, rows, rows)]
    path = tmp_path / "a.csv"
    path.write_text(("" if quoted else form.format("")) + "\n".join(lines), encoding="utf-8")
    message = f"is separated by {name} .sep={re.escape(repr(sign))}., not by commas. Write it anew, for example: "
    with pytest.raises(ValueError, match=message) as error:
        load_table(str(path))
    code = re.search(r'python -c "(.*)"$', str(error.value))[1].replace("OLD.csv", "a.csv")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(load_table(str(tmp_path / "NEW.csv"))[0].answer) == ["ঘ", "ঘ"]


def test_an_unknown_header_of_semicolons_is_told_its_separator(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("প্রশ্ন;উত্তর\nক,খ;গ\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is separated by semicolons"):
        load_table(str(path))


@pytest.mark.parametrize("header", ["text", "text,a;b", '"a;b",text', "text,x|y"])
def test_a_semicolon_in_a_header_of_commas_is_no_separator(tmp_path, header):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{','.join('ক' * (header.count(',') + 1))}\n", encoding="utf-8")
    assert len(load_table(str(path))[0]) == 1


@pytest.mark.parametrize("sign", [";", ",", "\t", "~"])
@pytest.mark.parametrize("form", ["sep={}\n", "\ufeffsep={}\r\n", '"sep={}"\n', "sep={},,,\n"])
def test_a_spreadsheets_line_names_the_separator(tmp_path, sign, form):
    path, lines = tmp_path / "a.csv", [HEADER.split(","), ["শোক", "", '"খ\nগ"', f'"ঘ{sign} ঙ।"']]
    path.write_text(form.format(sign) + "\n".join(map(sign.join, lines)), encoding="utf-8", newline="")
    table = load_table(str(path))[0]
    assert (*table.question, *table.answer) == ("খ\nগ", f"ঘ{sign} ঙ।")


def test_a_spreadsheets_line_counts_as_a_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\ntext;a\nক;খ\nগ\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 4 has 1 field, the header has 2.*holds semicolons"):
        load_table(str(path))


def test_a_spreadsheets_line_with_another_separator_is_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=,\ntext;a\nক;খ\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is separated by semicolons.*sep=';', skiprows=1"):
        load_table(str(path))


QUOTES = {  # lines after the header, and what is said of the cell that is left open
    "to the end": (['ক,খ,"গ, ঘ', "ক,খ,গ,ঘ"], "line 2 begins a quoted cell that no quote ends"),
    "after a cell of two lines": (['ক,"খ\n",গ,"ঘ', "ক,খ,গ,ঘ"], "line 3 begins a quoted cell that no quote ends"),
    "to the next quote": (
        ["ক,খ,গ,ঘ", 'ক,খ,"গ,ঘ', "ক,খ,গ,ঘ", 'ক,"খ, ক",গ,ঘ'],
        "line 3 begins a quoted cell that ends within a cell of line 5",
    ),
    "with as many fields": (
        ['ক,খ,"গ,ঘ', 'ক,খ,"গ,ঘ"', "ক,খ,গ,ঘ"],
        "line 2 begins a quoted cell that ends within a cell of line 3",
    ),
    "of windows": (['ক,খ,"গ,ঘ\r', 'ক,খ,"গ",ঘ\r'], "line 2 begins a quoted cell that ends within a cell of line 3"),
}


@pytest.mark.parametrize(("rows", "message"), QUOTES.values(), ids=QUOTES)
def test_a_quote_left_open_is_named_with_its_line(tmp_path, rows, message):
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8", newline="")
    with pytest.raises(ValueError, match=f"cannot be read as .csv: {message}"):
        load_table(str(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["ক,খ,গ,ঘ", "ক,খ,গ,ঘ,ঙ"], "line 3 has 5 fields, the header has 4. Its cells would stand in other columns"),
        (["ক,খ,গ,ঘ,ঙ"] * 3, r"line 2 has 5 fields, the header has 4 \(2 more such rows, the next at line 3\)"),
        (["ক,খ,গ,ঘ", "খ,গ,ঘ"], "line 3 has 3 fields, the header has 4"),
        (['ক,খ,"গ\n\nগ",ঘ', "", "ক,খ,গ,ঘ,"], "line 6 has 5 fields"),
        (["ক,খ,গ,ঘ", "ক"], "line 3 has 1 field, the"),
    ],
    ids=["one too many", "all too many", "too few", "after a quoted line break", "a line cut off"],
)
def test_a_row_with_another_number_of_fields_is_refused(tmp_path, rows, message):
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_table(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_empty_lines_of_a_csv_file_are_no_rows(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(end.join([HEADER, "", "ক,খ,গ,ঘ", "  ", "ক,খ,গ,ঘ", "", ""]).encode())
    table = load_table(str(path))[0]
    assert list(table.answer) == ["ঘ", "ঘ"]
    assert list(table.number) == [1, 2]


@pytest.mark.parametrize(
    "cell", ['"ক, খ"', '"ক ""খ"" গ"', '"ক\nখ"', 'ক"খ', " ক ", "", "NA", "'ক, খ'", '"ক" খ', '"ক\nখ" ']
)
def test_a_cell_is_read_as_pandas_reads_it(tmp_path, cell):
    path = tmp_path / "a.csv"
    cell = cell if cell[:1] == '"' else cell.replace(",", "")
    path.write_text(f"{HEADER}\nক,খ,{cell},ঘ\n", encoding="utf-8", newline="")
    assert load_table(str(path))[0].question[0] == pandas.read_csv(path, dtype=str, keep_default_na=False).Questions[0]


@pytest.mark.parametrize("value", [["এক", "দুই"], ["এক"], {"text": ["এক"]}])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_list_in_place_of_a_text_drops_its_row(tmp_path, value, kind):
    table = raw_table({}).astype(object)
    table.at[0, "Answers"] = value
    lists = load_table(write_table(table, tmp_path / f"a.{kind}"))[0]
    corpus = clean_table(pandas.concat([unified_table({"Questions": "আরেকটা প্রশ্ন করি।"}), lists], ignore_index=True))
    assert list(corpus.dropped.rule) == ["list cell"]


def test_a_null_is_an_empty_cell(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"Topics": None, "Question-Title": None, "Questions": "একটা প্রশ্ন", "Answers": answer}
        for answer in ("উত্তর দিই।", None)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    corpus = clean_table(load_table(str(path))[0])
    assert list(corpus.kept.topic) == [""]
    assert list(corpus.dropped.rule) == ["missing side"]


def test_a_number_in_a_cell_keeps_its_form(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": 988}\n{"text": null}\n{"text": "কথা বলি"}\n')
    assert list(load_table(str(path))[0].answer) == ["988", "", "কথা বলি"]


def test_an_unknown_format_is_named():
    with pytest.raises(ValueError, match="dataset_format is 'chat': expected auto, qa, messages, conversations, text"):
        load_table("embedded", "chat")


def test_a_missing_file_names_what_can_be_read():
    with pytest.raises(FileNotFoundError, match="no such file.*kaggle:owner/name"):
        load_table("nowhere.csv")


@pytest.mark.parametrize("name", ["kaggle:somebody/some-corpus", "hf:somebody/some-corpus"])
def test_a_remote_name_without_network_says_what_to_do(name, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ConnectionError, match="pass its path as.*prepare_data.dataset"):
        load_table(name)


@pytest.mark.parametrize("mount", ["some-corpus", "datasets/somebody/some-corpus"])
def test_an_attached_kaggle_input_is_read_where_it_is(tmp_path, monkeypatch, mount):
    (tmp_path / "input" / mount).mkdir(parents=True)
    write_csv_file(tmp_path / "input" / mount / "Corpus .csv", {})
    monkeypatch.setattr("helpers.platforms.machine.KAGGLE_FOLDER", tmp_path)
    table, source = load_table("kaggle:somebody/some-corpus")
    assert len(table) == 1
    assert "Corpus .csv" in source.source


def test_a_kaggle_input_with_several_tables_is_refused(tmp_path, monkeypatch):
    (tmp_path / "input/some-corpus").mkdir(parents=True)
    for name in ("a.csv", "b.csv"):
        write_csv_file(tmp_path / "input/some-corpus" / name, {})
    monkeypatch.setattr("helpers.platforms.machine.KAGGLE_FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="holds 2 tables.*'a.csv', 'b.csv'.*: expected one"):
        load_table("kaggle:somebody/some-corpus")


@pytest.mark.parametrize(
    "row",
    [
        {"Answers": 'তিনি বললেন, "ভালো থেকো", তারপর\r\nচলে গেলেন।'},
        {"Answers": "আপনার কষ্ট\0 বুঝতে পারছি।"},
        {"Question-Title": "", "Topics": ""},
        {"Answers": "\u202eউল্টো দিকে লেখা\u202c কথা।"},
        {"Answers": "ক" * 10_000},
        {"Answers": "সেদিনই তিনি সম্পর্কের ইতি টেনে দিলেন।"},
        {"Answers": "দীর্ঘ কথা " * 100_000},
    ],
)
def test_an_odd_cell_is_read_without_control_characters(tmp_path, row):
    path = write_csv_file(tmp_path / "a.csv", row, {"Topics": "অন্য", "Questions": "আরেকটা প্রশ্ন"})
    corpus = clean_table(load_table(str(path))[0])
    assert len(corpus.kept) == 2
    assert corpus.dropped.empty
    assert not any(mark in corpus.kept.answer[0] for mark in "\0\r\u202e\u202c")
