"""Ensembles of trees as arrays: read, cut, fitted again and written, each beside an evaluation of its own."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer_jobs.machinery.trees import compact, monotone, nodes, refit, shrinking
from optimizer_jobs.machinery.trees.ensemble import LEAF, Ensemble
from optimizer_jobs.machinery.trees.refit import Link
from tests.unit.jobs.trees_for_tests import FEATURES, answered, by_hand, graph_of, random_ensemble, rows

SEEDS = st.integers(0, 10_000)
FEW = settings(max_examples=40, deadline=None)


def _sums(ensemble: Ensemble, X: np.ndarray) -> np.ndarray:
    return ensemble.sums(ensemble.walk(X)[0])


@FEW
@given(SEEDS, st.sampled_from([3, 5]), st.booleans())
def test_what_is_written_answers_as_the_arrays_do(seed: int, version: int, vectors: bool) -> None:  # noqa: FBT001
    """Our walk, ONNX Runtime with the file, and a plain loop over comparisons agree, also after reading it back."""
    ensemble, X = random_ensemble(seed, vectors=vectors and version == 3), rows(seed)
    model = graph_of(ensemble, version=version)
    expected = by_hand(ensemble, X)
    assert np.array_equal(_sums(ensemble, X), expected)
    assert np.array_equal(answered(model, {"x": X}), expected)
    assert np.array_equal(_sums(nodes.read(model.graph.node[0]), X), expected)


@FEW
@given(SEEDS)
def test_the_short_form_answers_the_same_to_the_last_bit(seed: int) -> None:
    """Version 5 is another spelling of version 3: fewer bytes, the same sums, base values included."""
    ensemble, X = replace(random_ensemble(seed), base=np.asarray([0.5, 0.0])), rows(seed)
    model = graph_of(ensemble, version=3)
    short = onnx.ModelProto()
    short.CopyFrom(model)
    assert compact.compact(short) == 1
    onnx.checker.check_model(short)
    assert np.array_equal(answered(short, {"x": X}), answered(model, {"x": X}))


def test_a_leaf_that_adds_to_several_sums_has_no_short_form() -> None:
    """What version 5 cannot say stays in version 3, untouched."""
    model = graph_of(random_ensemble(3, vectors=True), version=3)
    before = model.SerializeToString()
    assert compact.compact(model) == 0
    assert model.SerializeToString() == before


@FEW
@given(SEEDS, st.integers(1, 12))
def test_a_collapsed_tree_answers_the_mean_of_what_its_rows_got(seed: int, most: int) -> None:
    """Every leaf of the smaller ensemble is the mean, over the rows that reach it, of what the whole one answered."""
    whole, X = random_ensemble(seed, trees=1, sums=1), rows(seed, 200)
    leaves, passed = whole.walk(X)
    part = shrinking.collapsed(whole, passed, most)
    assert part.leaves <= max(most, 1)
    ends, _ = part.walk(X)
    before, after = whole.sums(leaves)[:, 0], by_hand(part, X)[:, 0]
    for leaf in np.unique(ends):
        here = ends[:, 0] == leaf
        assert np.allclose(after[here], before[here].mean())


@FEW
@given(SEEDS)
def test_splits_that_change_nothing_go_and_no_answer_changes(seed: int) -> None:
    """Merging equal leaves is exact on every row, those with missing numbers included."""
    whole = random_ensemble(seed)
    whole = replace(whole, values=np.round(whole.values))
    part, X = shrinking.merged(whole), rows(seed)
    assert part.leaves <= whole.leaves
    assert np.array_equal(by_hand(part, X), by_hand(whole, X))


def test_splits_that_no_row_reaches_go_first() -> None:
    """A split with rows on one side only costs nothing, so it is the first to become a leaf, of that side's value."""
    whole, X = random_ensemble(11, trees=6, sums=1), rows(11, 5)
    leaves, passed = whole.walk(X)
    reached = len(np.unique(leaves))
    part = shrinking.collapsed(whole, passed, max(reached, len(whole.roots)))
    assert part.leaves < whole.leaves
    assert np.allclose(_sums(part, X), whole.sums(leaves))


@FEW
@given(SEEDS, st.sampled_from([1, 2]))
def test_leaves_fitted_to_answers_come_closer_to_them(seed: int, sums: int) -> None:
    """On the rows of the fit, the squares of what is missing never grow."""
    whole, X = random_ensemble(seed, trees=6, sums=sums), rows(seed, 200)
    wanted = _sums(whole, X)
    part = whole.trees(slice(4))
    ends, _ = part.walk(X)
    fitted = refit.to_answers(part, ends, wanted, hold=0.05, check_time=lambda: None)
    missed = [float(((_sums(ensemble, X) - wanted) ** 2).sum()) for ensemble in (part, fitted)]
    assert missed[1] <= missed[0] + 1e-9


@pytest.mark.parametrize("link", list(Link))
def test_leaves_fitted_to_labels_lower_the_loss_of_the_link(link: Link) -> None:
    """Newton's steps follow the loss that the model's own answers have: squares, log loss, or Poisson loss."""
    sums = 3 if link is Link.SOFTMAX else 1
    ensemble, X = random_ensemble(5, trees=6, sums=sums), np.nan_to_num(rows(5, 400))
    classes = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1 if sums == 3 else 0)
    targets = np.eye(3)[classes] if link is Link.SOFTMAX else classes[:, np.newaxis].astype(np.float64)
    ends, _ = ensemble.walk(X)
    fitted = refit.to_labels(ensemble, ends, targets, link, hold=0.5, check_time=lambda: None)
    losses = [_loss(link, _sums(one, X), targets) for one in (ensemble, fitted)]
    assert losses[1] < losses[0]


def _loss(link: Link, sums: np.ndarray, targets: np.ndarray) -> float:
    if link is Link.VALUE:
        return float(((sums - targets) ** 2).mean())
    if link is Link.EXP:
        return float((np.exp(sums) - targets * sums).mean())
    if link is Link.LOGISTIC:
        return float((np.log1p(np.exp(sums)) - targets * sums).mean())
    return float((np.log(np.exp(sums).sum(axis=1)) - (targets * sums).sum(axis=1)).mean())


def test_the_link_is_read_from_what_the_model_answers() -> None:
    """Probabilities, raw sums and numbers are told apart; what fits nothing has no link, so nothing is fitted."""
    one, many = np.linspace(-2, 2, 50)[:, np.newaxis], np.random.default_rng(0).normal(size=(50, 3))
    share, powers = 1 / (1 + np.exp(-one)), np.exp(many)
    cases = [
        (one, np.hstack([1 - share, share]), True, Link.LOGISTIC),
        (one, share[:, 0], True, Link.LOGISTIC),
        (one, np.hstack([-one, one]), True, Link.LOGISTIC),
        (many, powers / powers.sum(axis=1, keepdims=True), True, Link.SOFTMAX),
        (many, many, True, Link.SOFTMAX),
        (one, one, False, Link.VALUE),
        (one, np.exp(one), False, Link.EXP),
        (share, np.hstack([1 - share, share]), True, None),
        (one, one**3, False, None),
    ]
    for sums, scores, classifies, expected in cases:
        assert refit.link_of(sums, scores, classifies=classifies) is expected


def _constrained(seed: int) -> Ensemble:
    """Return trees that rise with feature 0: leaves carry the sum of a rising step and a function of the others."""
    ensemble = random_ensemble(seed, trees=5, sums=1)
    return monotone.kept(ensemble, {(0, 0): 1})


@FEW
@given(SEEDS, st.integers(0, 1000))
def test_what_rose_with_a_feature_still_rises_after_any_change_of_leaves(seed: int, noise: int) -> None:
    """Whatever a fit makes of the leaves, the ensemble answers no less when the feature grows and all else stays."""
    ensemble = _constrained(seed)
    wanted = {key: sign for key, sign in monotone.directions(ensemble).items() if key[0] == 0}
    moved = ensemble.values + np.random.default_rng(noise).normal(size=ensemble.values.shape) * ensemble.used
    part = monotone.kept(replace(ensemble, values=moved), wanted or {(0, 0): 1})
    X = np.nan_to_num(rows(seed, 40))
    sign = next(iter(wanted.values()), 1)
    climbs = [by_hand(part, np.column_stack([np.full(len(X), value), X[:, 1:]])) for value in np.arange(-4, 5)]
    for lower, higher in pairwise(climbs):
        assert (sign * (higher - lower) >= -1e-12).all()


def test_an_order_that_holds_already_moves_no_leaf() -> None:
    """Keeping directions that the leaves have costs nothing."""
    ensemble = _constrained(8)
    assert np.allclose(monotone.kept(ensemble, monotone.directions(ensemble)).values, ensemble.values)


def test_a_feature_with_both_directions_is_free() -> None:
    """Without a constraint there is none to keep."""
    ensemble = random_ensemble(2, trees=12, sums=1)
    assert (0, 0) not in monotone.directions(ensemble)
    assert all(0 <= feature < FEATURES for feature, _ in monotone.directions(ensemble))


def test_a_tree_without_splits_is_a_leaf() -> None:
    """Everything can become one leaf a tree, and stays a file that opens, in both forms."""
    whole, X = random_ensemble(4, sums=1), rows(4)
    _, passed = whole.walk(X)
    part = shrinking.collapsed(whole, passed, 1)
    assert (part.mode[part.order()] == LEAF).all()
    for version in (3, 5):
        assert np.allclose(answered(graph_of(part, version=version), {"x": X}), by_hand(part, X), atol=1e-6)
