"""Headroom in a check: silent where a champion answers as well as can be, loud where labelled rows know better."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer_jobs.commands.check.command import run
from optimizer_jobs.signature import Reading, Scale
from retune.api.model import Task
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict
from tests.monitor.shop import FIRST, Shop

PROBABILITIES = Reading(label="label", scores="scores", scale=Scale.PROBABILITIES)
Array = NDArray[Any]
Open = Callable[[Task], Shop]


@pytest.fixture(name="shop")
def _shop(shop: Shop) -> Shop:
    """A shop whose champion's scores are known to be probabilities."""
    shop.read_as(PROBABILITIES)
    return shop


def said(shop: Shop, window: int, **changes: Any) -> SignalVerdict:
    """Return what a window says of headroom."""
    found = run(shop.learning(window, **changes)).headroom
    assert found is not None
    return found


def serve(shop: Shop, windows: int = 3, **how: Any) -> None:
    """Capture windows, of which the last one has other rows than those before it, as windows of a wide world have."""
    places = np.random.default_rng(0).permutation(len(shop.inputs))
    cut = 2 * len(places) // 3
    for window in range(FIRST, FIRST + windows):
        shop.serve(window, among=places[cut:] if window == FIRST + windows - 1 else places[:cut], **how)


def half_blind(shop: Shop) -> None:
    """Let the champion see the first ten columns no more, so that it answers worse than rows allow."""
    shop.blind_to(slice(0, 10))
    shop.blind_to(slice(20, 30))


def test_a_champion_that_answers_well_has_no_headroom(shop: Shop) -> None:
    """Rows like those that it was proven on teach nothing."""
    serve(shop)
    verdict = said(shop, FIRST + 2)
    assert (verdict.verdict, verdict.reason) == (Verdict.CLEAR, "HeadroomSmall"), verdict.message


def test_what_labelled_rows_know_and_the_champion_does_not_is_headroom(shop: Shop) -> None:
    """The champion's quality is what it was on its reference, so only headroom tells."""
    half_blind(shop)
    shop.refer()
    serve(shop)
    result = run(shop.learning(FIRST + 2))
    assert result.quality is not None
    assert result.quality.verdict is not Verdict.BREACH, result.quality.message
    assert result.headroom is not None
    assert (result.headroom.verdict, result.headroom.reason) == (Verdict.BREACH, "HeadroomProven")
    assert "off the Brier score of 600 labelled rows" in result.headroom.message


def test_a_world_that_moved_on_is_headroom_once_windows_have_taught_it(open_shop: Open) -> None:
    """A regression whose answers are off by what one column says: later windows know, and take it off the error."""
    shop = open_shop(Task.REGRESSION)
    serve(shop, labels=lambda truth: np.where(truth > 140, truth + 150, truth - 150))
    verdict = said(shop, FIRST + 2)
    assert (verdict.verdict, verdict.reason) == (Verdict.BREACH, "HeadroomProven"), verdict.message
    assert "squared error" in verdict.message


def test_rows_that_come_again_are_not_known_by_heart(shop: Shop) -> None:
    """Windows drawn from few rows repeat each other: who learned these with their labels would seem to know all."""
    for window in range(FIRST, FIRST + 3):
        shop.serve(window)
    verdict = said(shop, FIRST + 2)
    assert verdict.verdict is not Verdict.BREACH, verdict.message


def test_windows_without_labels_say_nothing(shop: Shop) -> None:
    """Neither does one that is judged by rows of which too few are known."""
    for window in range(FIRST, FIRST + 3):
        shop.serve(window, labels=np.asarray if window == FIRST + 2 else None)
    verdict = said(shop, FIRST + 2)
    assert (verdict.verdict, verdict.reason) == (Verdict.UNKNOWN, "TooFewLabels")
    assert verdict.message == (
        "600 rows of the window have a label, and 0 other ones before it; 200 of each are needed."
    )


def test_labels_of_another_kind_are_told(open_shop: Open) -> None:
    """Texts are no numbers."""
    shop = open_shop(Task.REGRESSION)
    serve(shop, labels=lambda truth: np.asarray([f"about {value}" for value in truth]))
    verdict = said(shop, FIRST + 2)
    assert (verdict.verdict, verdict.reason) == (Verdict.UNKNOWN, "NotMeasurable")


def test_tasks_without_such_an_error_are_not_judged(open_shop: Open) -> None:
    """Several labels a row have no one answer to correct."""
    shop = open_shop(Task.MULTI_LABEL)
    serve(shop)
    assert run(shop.learning(FIRST + 2)).headroom is None


def test_a_window_says_the_same_twice(shop: Shop) -> None:
    """The learner's chance is the seed's, to the last digit."""
    half_blind(shop)
    serve(shop)
    assert said(shop, FIRST + 2) == said(shop, FIRST + 2)


def test_a_model_of_images_alone_is_not_judged(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers are a fingerprint of each image: rows that come again with a little noise would be known by heart."""
    half_blind(shop)
    serve(shop)
    monkeypatch.setattr("optimizer_jobs.production.features.WIDE", shop.inputs.shape[1] - 1)
    assert run(shop.learning(FIRST + 2)).headroom is None


def test_answers_that_are_no_numbers_are_told_and_cost_no_verdict(open_shop: Open) -> None:
    """A model that breaks has no headroom to measure."""
    shop = open_shop(Task.REGRESSION)
    sound = shop.run
    shop.run = lambda rows: {name: np.where(rows[:, 0] > 0, np.nan, out) for name, out in sound(rows).items()}
    serve(shop)
    verdict = said(shop, FIRST + 2)
    assert (verdict.verdict, verdict.reason) == (Verdict.UNKNOWN, "NotMeasurable"), verdict.message


def test_labels_that_are_no_finite_numbers_teach_nothing(open_shop: Open) -> None:
    """The others are judged as ever."""
    shop = open_shop(Task.REGRESSION)
    serve(shop, rows=900, labels=lambda truth: np.where(np.arange(len(truth)) % 3 == 0, np.inf, truth))
    verdict = said(shop, FIRST + 2)
    assert verdict.verdict is not Verdict.UNKNOWN, verdict.message
    assert verdict.samples == 600
