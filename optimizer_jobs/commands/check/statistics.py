"""Evidently's statistics for one column, and the one test of ours where Evidently's is not valid.

The stat tests are called as Evidently's own `ValueDrift` calls them, but without the pictures that it draws for every
column: the same numbers at a twentieth of the time, and one bad column cannot sink the others. Each function takes
columns that were checked before: not empty, no missing values, no infinities.
"""

import warnings
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from retune.api.monitoring import DriftMethod

_EXPECTED = 10.0
"""Rows that a level must be expected to have on either side; rarer levels are counted together."""
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
"""Evidently's name of the size of a change. Only a p-value knows how many rows there are, so a size alone proves
nothing, and a p-value alone says nothing of the size."""

CONTINGENCY = "contingency"
"""Name under which Evidently's report finds our test."""

WORDS = {"wasserstein": "Wasserstein", "jensenshannon": "JensenShannon", "psi": "PSI"}


def load() -> None:
    """Import Evidently before the first column, so that its absence is no fault of a column's. Takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies use old names of NumPy's
        import evidently
        import evidently.legacy.calculations.stattests
        import evidently.presets  # noqa: F401


def p_value(reference: pd.Series, current: pd.Series, kind: Kind, method: DriftMethod) -> float:
    """Return how likely so large a difference of two columns is without drift."""
    if kind is Kind.CATEGORICAL:
        return contingency(reference, current)
    if method is DriftMethod.CHI_SQUARE:
        edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
        return contingency(_binned(reference, edges), _binned(current, edges))
    return _evidently("ks", reference, current, kind)


def effect(reference: pd.Series, current: pd.Series, kind: Kind, method: DriftMethod) -> tuple[str, float]:
    """Return the name of the measure and the size of the difference."""
    name = _EFFECTS[method][kind]
    return WORDS[name], _evidently(name, reference, current, kind)


def contingency(reference: pd.Series, current: pd.Series) -> float:
    """Return the p-value of a chi-square test of two samples, rare levels counted together; 1 where nothing differs.

    Evidently's `chisquare` takes the reference's shares for exact. With 500 rows, a reference of 150 and five levels,
    that gives a p-value below 0.001 in 39 % of all windows without drift.
    """
    table = pd.DataFrame({"r": reference.value_counts(), "c": current.value_counts()}).fillna(0).to_numpy(np.float64)
    merged = _merged(table)
    return float(chi2_contingency(merged, correction=True).pvalue) if len(merged) > 1 else 1.0


def register() -> None:
    """Let Evidently's report use our test of categories, under the name CONTINGENCY."""
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
    """Count rare levels of a table (K, 2) together: by both sides at once, so that neither side chooses them."""
    smallest = table.sum(axis=1) * table.sum(axis=0).min() / table.sum()
    rare = smallest < _EXPECTED
    rest = table[rare].sum(axis=0, keepdims=True)
    return np.concatenate([table[~rare], rest]) if rest.sum() > 0 else table[~rare]


def _binned(values: pd.Series, edges: NDArray[np.float64]) -> pd.Series:
    return pd.Series(np.searchsorted(edges, values.to_numpy(), side="right"))


def _evidently(name: str, reference: pd.Series, current: pd.Series, kind: Kind) -> float:
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    column_type = ColumnType.Numerical if kind is Kind.NUMERIC else ColumnType.Categorical
    test = get_stattest(reference, current, column_type, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that an exact p-value takes too long, so that another is taken
        return float(test(reference, current, column_type, None).drift_score)
