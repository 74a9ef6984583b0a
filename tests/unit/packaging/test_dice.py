"""A test that failed by chance can be repeated."""

import re

import pytest

from tests.dice import VARIABLE, thrown


def test_what_was_printed_repeats_what_was_thrown(capsys: pytest.CaptureFixture[str]) -> None:
    """The printed line is the assignment that a shell takes."""
    first = thrown({})
    found = re.match(rf"{VARIABLE}=(\d+) ", capsys.readouterr().out)
    assert found is not None
    again = thrown({VARIABLE: found[1]})
    assert [first.random() for _ in range(3)] == [again.random() for _ in range(3)]


def test_two_tests_do_not_throw_the_same_unless_told() -> None:
    """Without the variable every run tries another moment."""
    assert thrown({}).random() != thrown({}).random()


def test_a_seed_that_is_no_number_is_an_error() -> None:
    """Better than a run that cannot be repeated."""
    with pytest.raises(ValueError, match="soon"):
        thrown({VARIABLE: "soon"})
