"""Fit an estimator, in stages where it is an ensemble that can grow, so that a bad one can be stopped early.

The stages are the same whether somebody watches or not, so the result is the same too.
"""

from collections.abc import Callable
from typing import Any

from optimizer_jobs.machinery.estimators.inputs import final

STAGES = 4
_FEWEST = 20
"""Trees below which fitting is fast enough to need no stages."""


def grown(estimator: Any, X: Any, y: Any, *, report: Callable[[int, Any], object], threads: int) -> Any:
    """Fit the estimator and return it.

    Args:
        estimator: An estimator or pipeline; it is fitted in place.
        X: Rows as the estimator takes them.
        y: Labels or numbers to predict, (N,).
        report: Called with stage and estimator after each stage; it may raise to stop.
        threads: Threads of a forest.
    """
    last = final(estimator)
    if _is_forest(last):
        last.set_params(n_jobs=threads)
    count = _counter(last)
    total = last.get_params()[count] if count is not None else 0
    if count is None or total < _FEWEST:
        estimator.fit(X, y)
        report(1, estimator)
    else:
        _grow(estimator, X, y, count=count, total=total, report=report)
    if _is_forest(last):
        last.set_params(n_jobs=None)
    return estimator


def _grow(estimator: Any, X: Any, y: Any, *, count: str, total: int, report: Callable[[int, Any], object]) -> None:
    """Fit the earlier steps once, and the last one several times, each time with more trees."""
    last = final(estimator)
    warm = last.get_params()["warm_start"]
    last.set_params(warm_start=True, **{count: -(-total // STAGES)})
    estimator.fit(X, y)
    inner = _before(estimator, X)
    for stage in range(1, STAGES):
        report(stage, estimator)
        last.set_params(**{count: -(-total * (stage + 1) // STAGES)})
        last.fit(inner, y)
    last.set_params(warm_start=warm)
    report(STAGES, estimator)


def _before(estimator: Any, X: Any) -> Any:
    """Return the rows as they arrive at the last step."""
    while hasattr(estimator, "steps"):
        X = estimator[:-1].transform(X) if len(estimator.steps) > 1 else X
        estimator = estimator.steps[-1][1]
    return X


def _counter(last: Any) -> str | None:
    """Return the parameter that says how many trees there are, or None when the ensemble cannot grow to that number.

    It cannot when it has no `warm_start`, or when it may stop early by itself.
    """
    params = last.get_params()
    if "warm_start" not in params or (params.get("n_iter_no_change") is not None and not _is_histograms(last)):
        return None
    if _is_histograms(last):
        return None if params["early_stopping"] is True else "max_iter"
    return "n_estimators" if "n_estimators" in params else None


def _is_histograms(last: Any) -> bool:
    return type(last).__name__.startswith("HistGradientBoosting")


def _is_forest(last: Any) -> bool:
    from sklearn.ensemble._forest import BaseForest

    return isinstance(last, BaseForest)
