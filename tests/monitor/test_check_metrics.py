"""The whole check Job by other qualities than accuracy: the objectives' first, or the one that is named."""

from collections.abc import Callable

import numpy as np
import pytest

from optimizer_jobs.commands.check.command import run
from retune.api.metrics import Metric
from retune.api.model import Cost, Task
from retune.api.monitoring import Quality
from retune.api.objectives import Objective
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict
from tests.monitor.shop import FIRST, Array, Shop

Open = Callable[[Task], Shop]


def said(shop: Shop, window: int = FIRST, **changes: object) -> SignalVerdict:
    """Return the verdict on a window's quality, which is there; drift is not watched."""
    result = run(shop.request(window, drift=None, **changes)).quality
    assert result is not None
    return result


def mistaken(truth: Array) -> Array:
    """Return labels of which every fifth is the other class."""
    return np.where(np.arange(len(truth)) % 5 == 0, 1 - truth, truth)


@pytest.mark.parametrize("metric", [Metric.F1, Metric.AVERAGE_PRECISION, Metric.EXPECTED_COST])
def test_a_window_is_judged_by_the_metric_that_is_named(shop: Shop, metric: Metric) -> None:
    """A quiet window is none, and one whose labels say otherwise is a proven loss."""
    shop.serve(FIRST)
    shop.serve(FIRST + 1, labels=mistaken)
    costs = (Cost(actual="0", predicted="1", cost="5"),)
    quiet, loud = (said(shop, FIRST + at, quality=Quality(metric=metric), costs=costs) for at in (0, 1))

    assert quiet.verdict is not Verdict.BREACH, quiet.message
    assert (loud.verdict, loud.reason) == (Verdict.BREACH, "LossProven"), loud.message
    assert metric in loud.message


def test_the_first_quality_of_the_objectives_is_watched_by_default(shop: Shop) -> None:
    """Size is no quality; balanced accuracy comes before log loss."""
    shop.serve(FIRST)
    asked = tuple(Objective(metric=name) for name in (Metric.SIZE_BYTES, Metric.BALANCED_ACCURACY, Metric.LOG_LOSS))

    assert said(shop, objectives=asked).message.startswith("balanced_accuracy is ")


def test_a_metric_that_a_window_does_not_define_is_unknown_with_the_reason(shop: Shop) -> None:
    """Of one class only there is no order, and scores of an unknown scale have no log loss; no estimate hides that."""
    shop.serve(FIRST, among=np.flatnonzero(shop.truth == 0))
    order, loss = (said(shop, quality=Quality(metric=metric)) for metric in (Metric.AVERAGE_PRECISION, Metric.LOG_LOSS))

    assert (order.verdict, order.reason, order.estimated) == (Verdict.UNKNOWN, "NotMeasurable", False)
    assert "no row has the label 1" in order.message
    assert (loss.verdict, loss.reason) == (Verdict.UNKNOWN, "NotMeasurable")
    assert "model.outputs.scale" in loss.message


def test_a_regression_is_watched_by_what_it_explains(open_shop: Open) -> None:
    """R2 is at most 1, so its loss is told in points."""
    shop = open_shop(Task.REGRESSION)
    shop.serve(FIRST)
    shop.serve(FIRST + 1, labels=lambda truth: truth + 80 * (-1.0) ** np.arange(len(truth)))
    quiet, loud = (said(shop, FIRST + at, quality=Quality(metric=Metric.R2)) for at in (0, 1))

    assert quiet.verdict is not Verdict.BREACH, quiet.message
    assert loud.verdict is Verdict.BREACH, loud.message
    assert "points" in loud.message
