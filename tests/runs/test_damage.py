"""What is said of a damaged file: which file, which field of it, and what mends it."""

import json

import pytest
from pydantic import BaseModel

from helpers.platforms.errors import Refused
from helpers.reporting.results import read_results
from helpers.runs.damage import MEND, reading
from helpers.runs.files import write_json
from helpers.runs.record import Run, check_tensors
from helpers.search.study import open_search


class Shape(BaseModel):
    """A file's content."""

    rows: dict[str, int]


def message(tmp_path, use, **options):
    """Returns what is said when a file cannot be used."""
    with pytest.raises(Refused) as refused, reading(tmp_path / "a.json", **options):
        use()
    return str(refused.value)


def test_a_missing_field_is_named(tmp_path):
    assert message(tmp_path, lambda: {}["tokens"]) == f"{tmp_path / 'a.json'} has no field 'tokens'. {MEND}"


def test_a_field_of_another_type_is_named_with_its_value(tmp_path):
    text = message(tmp_path, lambda: Shape.model_validate({"rows": {"train": "many"}}), mend="Make it anew.")
    assert text.startswith(f"{tmp_path / 'a.json'}: rows.train is 'many': Input should be a valid integer")
    assert text.endswith(". Make it anew.")


def test_a_field_that_a_shape_misses_is_named(tmp_path):
    text = message(tmp_path, lambda: Shape.model_validate({}))
    assert text == f"{tmp_path / 'a.json'}: rows: Field required. {MEND}"


def test_an_error_that_names_the_file_is_passed_on(tmp_path):
    def fail():
        raise ValueError(f"{tmp_path / 'a.json'}, line 3, is not a JSON object")

    assert message(tmp_path, fail) == f"{tmp_path / 'a.json'}, line 3, is not a JSON object"


def test_any_other_damage_names_the_file(tmp_path):
    text = message(tmp_path, lambda: int("ক"))
    assert text.startswith(f"{tmp_path / 'a.json'} is damaged (ValueError: invalid literal")


def test_a_session_at_no_time_makes_no_page(tmp_path):
    write_json(tmp_path / "run.json", {"sessions": [{"stage": "train", "started": "yesterday"}]})
    with pytest.raises(Refused, match=r"run.json is damaged \(ValueError: Invalid isoformat.*Take it from a copy"):
        read_results(Run(tmp_path))


def test_a_search_without_prepared_data_is_refused(tmp_path):
    write_json(tmp_path / "run.json", {"stages": {"tune": {"parameters": {"eta": 3}}}})
    with pytest.raises(Refused, match=r"run.json has no field 'prepare_data'\. Take it from a copy"):
        open_search(Run(tmp_path))


def tensors(ends=8, **others):
    """Returns the bytes of a .safetensors file of one tensor, as its header says it."""
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"data_offsets": [0, ends]}, **others}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def test_whole_tensors_pass(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(tensors())
    check_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "content",
    [tensors()[:-1], tensors() + b"x", tensors(ends=7), tensors(ends=9), tensors()[:20], b"", b"\xff" * 40],
    ids=["cut", "longer", "less said", "more said", "no whole header", "empty", "no header"],
)
def test_tensors_that_are_not_whole_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"bytes|Expecting value"):
        check_tensors(tmp_path / "a.safetensors")
