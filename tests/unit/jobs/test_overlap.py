"""Test rows that are copies of rows a search may see, told from rows that repeat by chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_wine

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.overlap import overlap


def rows(X: np.ndarray, y: np.ndarray) -> Rows:
    """Return a table of one input with labels."""
    return Rows(inputs={"x": X.astype(np.float32)}, labels=y.astype(np.int64), digest="sha256:0")


def split(start: int, end: int, *, seed: int | None = None) -> Rows:
    """Return some rows of a real table, shuffled where a seed is given."""
    X, y = load_breast_cancer(return_X_y=True)
    order = np.arange(start, end) if seed is None else np.random.default_rng(seed).permutation(np.arange(start, end))
    return rows(X[order], y[order])


@given(seed=st.integers(0, 1000))
def test_another_order_hides_nothing(seed: int) -> None:
    """A shuffled copy of the validation set is all copies."""
    shuffled = overlap(split(0, 150, seed=seed), split(0, 150))
    assert (shuffled.copies, shuffled.is_leak) == (150, True)


@pytest.mark.parametrize(("shared", "leaks"), [(0, False), (5, False), (20, True), (100, True)])
def test_a_few_shared_rows_are_told_and_many_refused(shared: int, *, leaks: bool) -> None:
    """Five of a hundred test rows are tolerated; what is above deceives."""
    found = overlap(split(200 - shared, 300 - shared), split(0, 200))
    assert (found.copies, found.is_leak) == (shared, leaks)


def test_rows_of_few_values_repeat_by_chance() -> None:
    """Two samples of three coins have every row in common, and that is no leak."""
    random = np.random.default_rng(0)
    one, other = (rows(random.integers(0, 2, (400, 3)), random.integers(0, 2, 400)) for _ in range(2))
    found = overlap(one, other)
    assert found.share == 1
    assert not found.is_leak


def test_the_label_is_part_of_a_row() -> None:
    """The same inputs with another label are another observation."""
    X, y = load_wine(return_X_y=True)
    assert overlap(rows(X, y), rows(X, y + 1)).copies == 0


def test_text_and_missing_values_are_compared_as_they_are() -> None:
    """NaN is the same as NaN, and a text the same as that text."""
    inputs = {"city": np.asarray(["Kyiv", "Oslo"], dtype=object), "age": np.asarray([np.nan, 3.0], np.float32)}
    table = Rows(inputs=inputs, labels=np.asarray(["yes", "no"]), digest="sha256:0")
    assert overlap(table, table.take(np.asarray([1, 0]))).copies == 2
