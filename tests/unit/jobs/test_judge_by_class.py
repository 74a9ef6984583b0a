"""How two classifiers differ by class: a loss in one class is named though the mean hides it."""

import numpy as np

from optimizer_jobs.commands.judge.by_class import MOST_CLASSES, by_class, losses
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Predictions

LABELS = np.repeat([0, 1, 2], [900, 80, 20])
ROWS = Rows(inputs={"x": LABELS}, labels=LABELS, digest="")


def answered(**wrong: int) -> Answers:
    """Return answers that are wrong on the first rows of the classes c0, c1 and c2."""
    labels = LABELS.copy()
    for name, count in wrong.items():
        labels[np.flatnonzero(int(name[1:]) == LABELS)[:count]] = 9
    return Answers(Predictions(labels))


def test_a_class_that_loses_for_sure_is_named_with_its_numbers() -> None:
    """30 of 80 rows are lost, while 40 of another class are won: accuracy rises."""
    pairs = by_class(answered(c0=40), answered(c1=30), ROWS)
    (lost,) = losses(pairs)

    assert [pair.label for pair in pairs] == ["0", "1", "2"]
    assert (lost.label, lost.rows, lost.champion, lost.candidate) == ("1", 80, 1.0, 50 / 80)


def test_a_loss_that_may_be_chance_is_not_named() -> None:
    """One row of twenty says nothing, and neither does no difference at all."""
    assert losses(by_class(answered(), answered(c2=1), ROWS)) == ()
    assert losses(by_class(answered(c1=5), answered(c1=5), ROWS)) == ()


def test_the_largest_loss_comes_first_and_only_frequent_classes_are_compared() -> None:
    """A sentence has room for few."""
    pairs = by_class(answered(), answered(c1=30, c2=15), ROWS)
    many = np.arange(3 * MOST_CLASSES) % (MOST_CLASSES + 50)

    assert [loss.label for loss in losses(pairs)] == ["2", "1"]
    same = Answers(Predictions(many))
    assert len(by_class(same, same, Rows(inputs={"x": many}, labels=many, digest=""))) == MOST_CLASSES


def test_models_without_classes_have_none_to_compare() -> None:
    """A regression, and rows without labels."""
    assert by_class(Answers(values=np.ones(3)), Answers(values=np.ones(3)), ROWS) == ()
    assert by_class(answered(), answered(), Rows(inputs={"x": LABELS}, labels=None, digest="")) == ()
