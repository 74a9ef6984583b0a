"""Corrections of probabilities: what fits, what holds on rows left out, and what never changes. No model is needed."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax

from optimizer_jobs.machinery.recalibration.corrections import (
    Affine,
    Curve,
    Evidence,
    Fit,
    Method,
    UnfitRowsError,
    fit_of,
    log_scores,
    shares_now,
)
from optimizer_jobs.machinery.recalibration.promise import losses, promise

Floats = NDArray[np.float64]
SEEDS = st.integers(0, 10_000)
FEW = settings(deadline=None, max_examples=25)


def evidence(logs: Floats, columns: NDArray[np.int64], *, groups: NDArray[np.int64] | None = None) -> Evidence:
    """Return rows that all count alike."""
    return Evidence(logs, columns, np.ones(len(columns)), np.arange(len(columns)) if groups is None else groups)


def drawn(probabilities: Floats, random: np.random.Generator) -> NDArray[np.int64]:
    """Return a true class for each row, drawn by its probabilities (N, C)."""
    return np.asarray((probabilities.cumsum(axis=1) < random.random((len(probabilities), 1))).sum(axis=1))


def world(seed: int, *, rows: int, classes: int, shares: Floats | None = None) -> tuple[Floats, NDArray[np.int64]]:
    """Return log scores that are right where classes are equally frequent, and labels where they have these shares."""
    random = np.random.default_rng(seed)
    columns = random.choice(classes, size=rows, p=shares)
    inputs = random.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[columns]
    return 1.5 * inputs, columns  # of normal numbers with these means, log-odds are 1.5 times their differences


def fitted(method: Method, rows: Evidence, *, before: Floats | None = None) -> Affine | Curve:
    """Return what fits all rows."""
    return fit_of(method, rows, before=before)(rows)


@FEW
@given(SEEDS, st.floats(0.3, 4.0))
def test_a_temperature_is_found_again(seed: int, temperature: float) -> None:
    """Of a model whose log-odds are too large by one number, and it is that number that is found."""
    random = np.random.default_rng(seed)
    true = random.normal(scale=2.0, size=(4000, 3))
    found = fitted(Method.TEMPERATURE, evidence(true * temperature, drawn(softmax(true, axis=1), random)))
    assert isinstance(found, Affine)
    assert 1 / found.slope == pytest.approx(temperature, rel=0.2)
    assert not found.moves_labels


@FEW
@given(SEEDS, st.integers(2, 5))
def test_shares_of_classes_are_found_with_and_without_labels(seed: int, classes: int) -> None:
    """Classes were equally frequent, and are not any more: both estimates come to what weighs them rightly."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(classes, 5.0))
    assume(shares.min() > 0.03)
    logs, columns = world(seed, rows=6000, classes=classes, shares=shares)
    right = np.log(shares) - np.log(shares[0])
    with_labels = fitted(Method.PRIOR_SHIFT, evidence(logs, columns))
    assert isinstance(with_labels, Affine)
    np.testing.assert_allclose(with_labels.offsets, right, atol=0.35)
    without = shares_now(softmax(logs, axis=1), np.full(classes, 1 / classes))
    np.testing.assert_allclose(without, shares, atol=0.05)


@FEW
@given(SEEDS)
def test_the_likelihood_of_unlabelled_rows_never_falls(seed: int) -> None:
    """The shares found explain the rows at least as well as those before; what is found sums to 1."""
    random = np.random.default_rng(seed)
    before, answers = random.dirichlet([2, 2, 2]), random.dirichlet([1, 1, 1], size=200)
    weights = random.integers(0, 4, 200).astype(np.float64)
    assume(weights.any())
    now = shares_now(answers, before, weights)
    assert now.sum() == pytest.approx(1)
    assert (now > 0).all()
    likelihood = weights @ np.log((answers * (now / before)).sum(axis=1))
    assert likelihood >= weights @ np.log(answers.sum(axis=1)) - 1e-6


def test_a_weight_is_as_many_rows() -> None:
    """A row that counts twice is one that is there twice, for labels, for answers and for the curve."""
    logs, columns = world(3, rows=1500, classes=2)
    weights = np.random.default_rng(1).integers(1, 4, 1500)
    repeated = np.repeat(np.arange(1500), weights)
    weighed = Evidence(logs, columns, weights.astype(np.float64), np.arange(1500))
    twice = evidence(logs[repeated], columns[repeated])
    for method in (Method.BOTH, Method.TEMPERATURE, Method.PRIOR_SHIFT):
        one, other = (fitted(method, rows).probabilities(logs) for rows in (weighed, twice))
        np.testing.assert_allclose(one, other, atol=1e-4)
    inner = slice(300, 1200)
    order = np.argsort(logs[:, 1] - logs[:, 0])[inner]
    one, other = (fitted(Method.ISOTONIC, rows).probabilities(logs)[order] for rows in (weighed, twice))
    np.testing.assert_allclose(one, other, atol=1e-4)


@FEW
@given(SEEDS, st.sampled_from(list(Method)))
def test_rows_keep_their_order(seed: int, method: Method) -> None:
    """Of two classes, whichever row was likelier to be of the second one still is, or, isotonic, equally likely."""
    shares = np.asarray([0.8, 0.2])
    logs, columns = world(seed, rows=2000, classes=2, shares=shares)
    correction = fitted(method, evidence(logs, columns))
    order = np.argsort(logs[:, 1] - logs[:, 0])
    steps = np.diff(correction.probabilities(logs)[order, 1])
    assert (steps >= 0).all()
    if isinstance(correction, Affine):
        assert (steps[np.diff((logs[:, 1] - logs[:, 0])[order]) > 1e-6] > 0).all()


@FEW
@given(SEEDS, st.integers(2, 6), st.floats(0.05, 20))
def test_a_temperature_changes_no_label(seed: int, classes: int, slope: float) -> None:
    """Whatever it is, and however many classes there are."""
    logs = np.random.default_rng(seed).normal(scale=3, size=(300, classes))
    corrected = Affine(slope, np.zeros(classes)).probabilities(logs)
    np.testing.assert_array_equal(corrected.argmax(axis=1), logs.argmax(axis=1))
    np.testing.assert_allclose(corrected.sum(axis=1), 1)


@FEW
@given(SEEDS, st.integers(1000, 3000))
def test_a_curve_never_says_more_than_its_rows_show(seed: int, rows: int) -> None:
    """No probability is nearer to 0 or 1 than rows can show, on rows beyond all that were seen too."""
    random = np.random.default_rng(seed)
    odds = random.normal(scale=4, size=rows)
    logs = np.stack([np.zeros(rows), odds], axis=1)
    columns = (odds > 0).astype(np.int64)  # perfectly told apart
    correction = fitted(Method.ISOTONIC, evidence(logs, columns))
    assert isinstance(correction, Curve)
    assert (np.diff(correction.places) > 0).all()
    assert (np.diff(correction.heights) >= 0).all()
    far = correction.probabilities(np.asarray([[0.0, -1e6], [0.0, 1e6]]))
    assert far.min() >= 1 / (rows + 2) - 1e-12


@FEW
@given(SEEDS, st.sampled_from(list(Method)))
def test_nothing_is_promised_of_a_model_that_is_right(seed: int, method: Method) -> None:
    """Where probabilities are right, no correction looks worth more than a hundredth on rows left out."""
    random = np.random.default_rng(seed)
    logs = random.normal(scale=1.5, size=(1200, 2))
    rows = evidence(logs, drawn(softmax(logs, axis=1), random))
    kept = promise(rows, fit_of(method, rows), seed=0)
    assert kept.before - kept.after < 0.01


def test_a_promise_is_of_rows_that_were_left_out() -> None:
    """A fit that learns its rows by heart gains nothing on others; that of another share of classes does."""
    logs, columns = world(5, rows=2000, classes=2, shares=np.asarray([0.9, 0.1]))
    rows = evidence(logs, columns)

    def by_heart(seen: Evidence) -> Affine:
        assert len(seen) == 1600
        return Affine(1.0, np.asarray([0.0, -50.0 if seen.columns.mean() > 2 else 0.0]))

    assert not promise(rows, by_heart, seed=0).is_kept
    kept = promise(rows, fit_of(Method.PRIOR_SHIFT, rows), seed=0)
    assert kept.is_kept
    assert kept.after < kept.before
    assert kept.words == f"log loss {kept.before:.4g} to {kept.after:.4g} on rows left out"


@FEW
@given(SEEDS, st.integers(2, 40))
def test_rows_of_a_group_are_left_out_together(seed: int, size: int) -> None:
    """No fit ever sees a part of a group whose rest it answers, and few groups are little evidence."""
    logs, columns = world(seed, rows=400, classes=2)
    groups = np.arange(400) // size
    seen: list[set[int]] = []

    def watching(rows: Evidence) -> Affine:
        seen.append(set(rows.blocks.tolist()))
        return Affine(1.1, np.zeros(2))

    watched: Fit = watching
    grouped = promise(evidence(logs, columns, groups=groups), watched, seed=seed)
    for part in seen:
        assert all((groups == block).sum() == size or block == groups[-1] for block in part)
    assert sum(len(set(groups.tolist()) - part) for part in seen) == len(set(groups.tolist()))
    assert grouped.error >= 0


def test_losses_are_those_of_scikit_learn() -> None:
    """Sure and wrong counts as much as there."""
    from sklearn.metrics import log_loss

    probabilities = np.asarray([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    columns = np.asarray([1, 1, 0])
    assert losses(probabilities, columns).mean() == pytest.approx(log_loss(columns, probabilities))


@pytest.mark.parametrize(
    ("method", "counts", "says"),
    [
        (Method.TEMPERATURE, (20, 20), "it needs 50 labelled rows for validation, and there are 40"),
        (Method.BOTH, (100, 9), "it needs 10 rows of each class for validation, and one has 9"),
        (Method.PRIOR_SHIFT, (100, 9), "without training rows of each class nothing says how frequent classes were"),
        (Method.ISOTONIC, (500, 400), "needs 1000 labelled rows for validation, 100 of each class: there are 900, 400"),
        (Method.ISOTONIC, (1000, 99), "there are 1099, 99 of one"),
        (Method.ISOTONIC, (600, 600, 600), "isotonic regression is for two classes"),
    ],
)
def test_too_few_rows_are_refused_in_words(method: Method, counts: tuple[int, ...], says: str) -> None:
    """With the numbers that are there and those that are needed."""
    columns = np.repeat(np.arange(len(counts)), counts)
    logs = np.random.default_rng(0).normal(size=(len(columns), len(counts)))
    with pytest.raises(UnfitRowsError, match=says):
        fit_of(method, evidence(logs, columns))


def test_a_rare_class_is_weighed_by_answers_where_training_rows_say_what_was() -> None:
    """Nine labels are too few, and the answers to all rows are not."""
    logs, columns = world(8, rows=900, classes=2, shares=np.asarray([0.995, 0.005]))
    rows = evidence(logs, columns)
    assert 0 < rows.counts[1] < 10
    found = fitted(Method.PRIOR_SHIFT, rows, before=np.asarray([0.5, 0.5]))
    assert isinstance(found, Affine)
    assert found.offsets[1] < -3
    assert found.words.startswith("classes weighed by 1 to 0.0")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_one_probability_is_as_good_as_two(values: list[float]) -> None:
    """Log scores of a single column, and of logits, are those of both columns, up to what makes no difference."""
    second = np.asarray(values)
    table = np.stack([1 - second, second], axis=1)
    single, double = (log_scores(each, are_logits=False) for each in (second[:, np.newaxis], table))
    np.testing.assert_allclose(single[:, 1], double[:, 1] - double[:, 0], atol=1e-9)
    inner = second[(second > 1e-6) & (second < 1 - 1e-6)]
    odds = log_scores(logit(inner)[:, np.newaxis], are_logits=True)
    np.testing.assert_allclose(expit(odds[:, 1]), inner, atol=1e-9)
