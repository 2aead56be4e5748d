"""The check of the tests' names."""

import check_tests
import pytest


@pytest.mark.parametrize(
    "name",
    ["test_identical_bengali_replies_score_one", "test_bleu_and_chrf_agree_with_sacrebleu", f"test_{'x' * 55}"],
)
def test_a_name_of_one_check_passes(name):
    assert check_tests.complaint(name) == ""


def test_a_name_of_61_characters_is_too_long():
    assert check_tests.complaint(f"test_{'x' * 56}").startswith("61 characters, at most 60")


@pytest.mark.parametrize("name", ["test_a_row_is_dropped_and_counts_once", "test_a_run_stops_and_nothing_is_written"])
def test_two_checks_in_a_name_are_refused(name):
    assert "two tests" in check_tests.complaint(name)


def test_the_check_prints_where_a_test_is(tmp_path, capsys):
    path = tmp_path / "test_planted.py"
    path.write_text("def helper_and_is_fine(): pass\n\ndef test_it_starts_and_stops(): pass\n")
    assert check_tests.main([str(path)]) == 1
    assert capsys.readouterr().out == f"{path}:3: test_it_starts_and_stops: tests two things: make two tests of it\n"
