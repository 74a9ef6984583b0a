"""Evidently's statistics for one column, and a test of our own where Evidently's test is not valid.

Evidently's tests are called as its own `ValueDrift` calls them, but without the pictures that it draws for each column:
this gives the same numbers in a twentieth of the time, and one bad column cannot affect the others. Each function takes
columns without missing and infinite values that are not empty.
"""

import warnings
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from optimizer_jobs.commands.check.evidently_tests import tests
from retune.api.monitoring import DriftMethod

_EXPECTED = 10.0
"""Smallest expected number of rows of a category in either sample; rarer categories are counted together."""
_BINS = 10


class Kind(StrEnum):
    """How a column is compared."""

    NUMERIC = "num"
    CATEGORICAL = "cat"


_EFFECTS = {
    DriftMethod.AUTO: {Kind.NUMERIC: "wasserstein", Kind.CATEGORICAL: "jensenshannon"},
    DriftMethod.KS: {Kind.NUMERIC: "wasserstein", Kind.CATEGORICAL: "jensenshannon"},
    DriftMethod.WASSERSTEIN: {Kind.NUMERIC: "wasserstein", Kind.CATEGORICAL: "jensenshannon"},
    DriftMethod.CHI_SQUARE: {Kind.NUMERIC: "jensenshannon", Kind.CATEGORICAL: "jensenshannon"},
    DriftMethod.JENSEN_SHANNON: {Kind.NUMERIC: "jensenshannon", Kind.CATEGORICAL: "jensenshannon"},
    DriftMethod.PSI: {Kind.NUMERIC: "psi", Kind.CATEGORICAL: "psi"},
}
"""Evidently's name of the measure of a change's size. A size alone proves nothing, because it ignores the number of
rows; a p-value alone says nothing about the size."""

CONTINGENCY = "contingency"
"""Name of our test in Evidently's report."""

WORDS = {"wasserstein": "Wasserstein", "jensenshannon": "JensenShannon", "psi": "PSI"}
"""Names of the measures in results."""


def load() -> None:
    """Import Evidently's tests, so that their absence does not look like a fault of a column."""
    tests()


def p_value(reference: pd.Series, current: pd.Series, kind: Kind, method: DriftMethod) -> float:
    """Return the probability of a difference at least as large between two columns (M,) and (N,) without drift."""
    if kind is Kind.CATEGORICAL:
        return contingency(reference, current)
    if method is DriftMethod.CHI_SQUARE:
        edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
        return contingency(_binned(reference, edges), _binned(current, edges))
    return _evidently("ks", reference, current, kind)


def effect(reference: pd.Series, current: pd.Series, kind: Kind, method: DriftMethod) -> tuple[str, float]:
    """Return the name of the measure, and the size of the difference between two columns (M,) and (N,)."""
    name = _EFFECTS[method][kind]
    return WORDS[name], _evidently(name, reference, current, kind)


def contingency(reference: pd.Series, current: pd.Series) -> float:
    """Return the p-value of a chi-square test of two samples (M,) and (N,); rare categories are counted together.

    Evidently's `chisquare` treats the shares of the reference as exact. With 500 rows, a reference of 150 rows and five
    categories, this gives a p-value below 0.001 in 39 % of all windows without drift.
    """
    table = pd.DataFrame({"r": reference.value_counts(), "c": current.value_counts()}).fillna(0).to_numpy(np.float64)
    merged = _merged(table)
    return float(chi2_contingency(merged, correction=True).pvalue) if len(merged) > 1 else 1.0


def register() -> None:
    """Register our test of categories with Evidently under the name CONTINGENCY."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def run(reference: pd.Series, current: pd.Series, _kind: ColumnType, threshold: float) -> tuple[float, bool]:
        p = contingency(reference, current)
        return p, p < threshold

    test = StatTest(
        name=CONTINGENCY,
        display_name="chi-square of two samples, p_value",
        allowed_feature_types=[ColumnType.Categorical],
    )
    register_stattest(test, run)


def _merged(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count the rare categories of a table (K, 2) together; both samples decide together which categories are rare."""
    smallest = table.sum(axis=1) * table.sum(axis=0).min() / table.sum()
    rare = smallest < _EXPECTED
    rest = table[rare].sum(axis=0, keepdims=True)
    return np.concatenate([table[~rare], rest]) if rest.sum() > 0 else table[~rare]


def _binned(values: pd.Series, edges: NDArray[np.float64]) -> pd.Series:
    return pd.Series(np.searchsorted(edges, values.to_numpy(), side="right"))


def _evidently(name: str, reference: pd.Series, current: pd.Series, kind: Kind) -> float:
    get_stattest = tests().get_stattest
    from evidently.legacy.core import ColumnType  # has come with the tests

    column_type = ColumnType.Numerical if kind is Kind.NUMERIC else ColumnType.Categorical
    test = get_stattest(reference, current, column_type, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for example, that an exact p-value takes too long and is approximated
        return float(test(reference, current, column_type, None).drift_score)
