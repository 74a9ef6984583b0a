"""Fit an estimator, in stages where it is an ensemble that can grow, so that a bad one can be stopped early.

Some libraries fit in a single call of compiled code, which nothing interrupts. So a fit runs in a thread of its own. At
the deadline it is left behind; the search then ends, and the thread with its process.

The stages are the same whether somebody watches or not, so the result is the same too.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from optimizer_jobs.machinery.estimators.inputs import final

STAGES = 4
_LOOK_SECONDS = 0.5
_FEWEST = 20
"""Trees below which fitting is fast enough to need no stages."""


def grown(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    report: Callable[[int, Any], object],
    threads: int,
    check_time: Callable[[], None] = lambda: None,
) -> Any:
    """Fit the estimator and return it.

    Args:
        estimator: An estimator or pipeline; it is fitted in place.
        X: Rows as the estimator takes them.
        y: Labels or numbers to predict, (N,).
        report: Called with stage and estimator after each stage; it may raise to stop.
        threads: Threads of a forest, and of numerical libraries.
        check_time: Called while a fit is running; it may raise to stop.
    """
    last = final(estimator)
    if _is_forest(last):
        last.set_params(n_jobs=threads)
    count = _counter(last)
    total = last.get_params()[count] if count is not None else 0
    fit = partial(_fit, threads=threads, check_time=check_time)
    if count is None or total < _FEWEST:
        fit(estimator, X, y)
        report(1, estimator)
    else:
        _grow(estimator, X, y, count=count, total=total, report=report, fit=fit)
    if _is_forest(last):
        last.set_params(n_jobs=None)
    return estimator


def _fit(estimator: Any, X: Any, y: Any, *, threads: int, check_time: Callable[[], None]) -> None:
    """Fit the estimator in a thread, which is left behind when `check_time` raises."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with threadpool_limits(threads):  # OpenMP has a number of its own in every thread
                estimator.fit(X, y)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=work, name="fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
        check_time()
    if raised:
        raise raised[0]


def _grow(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    count: str,
    total: int,
    report: Callable[[int, Any], object],
    fit: Callable[[Any, Any, Any], None],
) -> None:
    """Fit the earlier steps once, and the last one several times, each time with more trees."""
    last = final(estimator)
    warm = last.get_params()["warm_start"]
    last.set_params(warm_start=True, **{count: -(-total // STAGES)})
    fit(estimator, X, y)
    inner = _before(estimator, X)
    for stage in range(1, STAGES):
        report(stage, estimator)
        last.set_params(**{count: -(-total * (stage + 1) // STAGES)})
        fit(last, inner, y)
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
