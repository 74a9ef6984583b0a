"""Trees of real libraries, cut and with leaves fitted again: what is promised of every variant that a search tries."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from optuna.trial import FixedTrial
from sklearn.ensemble import HistGradientBoostingRegressor

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.boosters import lightgbm as lightgbm_files
from optimizer_jobs.machinery.boosters import xgboost as xgboost_files
from optimizer_jobs.machinery.boosters.write import write
from optimizer_jobs.machinery.compress import trees
from optimizer_jobs.machinery.trees import nodes
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from optimizer_jobs.techniques import graph_optimization, pruning
from retune.api.model import Task
from retune.api.techniques import Technique, TechniqueType
from tests.unit.jobs.estimators_for_tests import answers
from tests.unit.jobs.trees_for_tests import Array

SPEC = Technique(name="prune", type=TechniqueType.PRUNING)
ROUNDS = 40


def _made_up(seed: int, *, shift: float = 0.0, count: int = 800) -> tuple[Array, Array]:
    """Return rows (N, 5) and labels that rise with column 0; a shift changes what column 1 means."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(count, 5)).astype(np.float32)
    score = 1.5 * X[:, 0] + (1 - shift) * X[:, 1] - shift * X[:, 1] + X[:, 2] * X[:, 3]
    return X, (score + random.normal(0, 0.5, count) > 0).astype(np.int64)


def _lightgbm(folder: Path, **params: Any) -> Path:
    X, y = _made_up(0)
    chosen = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1, **params}
    lightgbm.train(chosen, lightgbm.Dataset(X, y), ROUNDS).save_model(folder / "model.txt")
    write(lightgbm_files.read(folder / "model.txt"), folder / "delivered.onnx")
    return folder / "delivered.onnx"


def _xgboost(folder: Path, **params: Any) -> Path:
    X, y = _made_up(0)
    chosen = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, **params}
    xgboost.train(chosen, xgboost.DMatrix(X, y), ROUNDS).save_model(folder / "model.ubj")
    write(xgboost_files.read(folder / "model.ubj"), folder / "delivered.onnx")
    return folder / "delivered.onnx"


def _context(model: Path, workdir: Path, rows: tuple[Array, Array], **more: Any) -> Context:
    workdir.mkdir()
    known = Rows(inputs={"x": rows[0]}, labels=rows[1], digest="rows")
    return Context(workdir=workdir, signature=check_onnx(model), training=known, seed=0, cpu_flags=frozenset(), **more)


def _variants(model: Path) -> list[Params]:
    subject = Subject(
        graph=onnx.load(model), signature=check_onnx(model), task=Task.CLASSIFICATION, training=True, calibration=True
    )
    asked = [pruning.suggest(FixedTrial(values), SPEC, subject) for values in pruning.defaults(SPEC, subject)]
    return [params for params in asked if params is not None]


def _second(model: Path, X: Array) -> Array:
    return np.asarray(answers(model, {"x": X})["probabilities"][:, 1])


def _log_loss(share: Array, y: Array) -> float:
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return float(-np.where(y == 1, np.log(share), np.log(1 - share)).mean())


@pytest.mark.parametrize("make", [_lightgbm, _xgboost])
def test_every_variant_keeps_the_signature_and_says_what_it_did(make: Any, tmp_path: Path) -> None:
    """Each one opens, answers nearly as before, is no larger, and is told in words that differ from the others'."""
    model, (X, _) = make(tmp_path), _made_up(1)
    variants, before = _variants(model), _second(model, X)
    assert len({pruning.describe(params) for params in variants}) == len(variants) == 5
    for number, params in enumerate(variants):
        made = pruning.apply(model, params, _context(model, tmp_path / f"work-{number}", _made_up(0)))
        assert isinstance(made, Applied)
        assert check_onnx(made.model) == check_onnx(model)
        assert made.model.stat().st_size <= model.stat().st_size
        assert np.mean((_second(made.model, X) > 0.5) == (before > 0.5)) > 0.85


@pytest.mark.parametrize("make", [_lightgbm, _xgboost])
def test_leaves_fitted_to_all_answers_agree_more_than_scaled_ones(make: Any, tmp_path: Path) -> None:
    """The fit is worth its time: on rows that it has not seen, the tenth that is kept is closer to all trees."""
    model, (X, _) = make(tmp_path), _made_up(1)
    before, missed = _second(model, X), []
    for fitted in (trees.NOTHING, trees.ANSWERS):
        params: Params = {"granularity": "Structured", "ratio": 0.9, "cut": trees.TREES, "refit": fitted}
        made = pruning.apply(model, params, _context(model, tmp_path / fitted, _made_up(0)))
        assert isinstance(made, Applied)
        missed.append(float(((_second(made.model, X) - before) ** 2).mean()))
    assert missed[1] < missed[0]


def test_leaves_fitted_to_fresh_labels_follow_a_drift(tmp_path: Path) -> None:
    """Where a column came to mean something else, the same trees predict the new rows far better after the fit."""
    model, (X, y) = _lightgbm(tmp_path), _made_up(3, shift=0.8)
    labels = next(params for params in _variants(model) if params["refit"] == trees.LABELS)
    made = pruning.apply(model, labels, _context(model, tmp_path / "work", _made_up(2, shift=0.8)))
    assert isinstance(made, Applied)
    before, after = (_log_loss(_second(path, X), y) for path in (model, made.model))
    assert after < before - 0.1


def test_a_quantile_is_not_made_a_mean(tmp_path: Path) -> None:
    """Fitting leaves to labels by squares would change what the numbers mean, so it is not done."""
    X, y = _made_up(0)
    numbers = y + X[:, 0]
    model = HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=20).fit(X, numbers)
    path = _written(model, X, tmp_path)
    params: Params = {"granularity": "Structured", "ratio": 0.0, "cut": trees.KEEP, "refit": trees.LABELS, "hold": 5.0}
    context = _context(path, tmp_path / "work", (X, numbers.astype(np.float64)), task=Task.REGRESSION)
    assert isinstance(made := pruning.apply(path, params, context), Skipped)
    assert "predict no mean" in made.reason


def _written(estimator: Any, X: Array, folder: Path, dtype: str = "float32") -> Path:
    from optimizer_jobs.machinery.estimators.convert import to_onnx
    from optimizer_jobs.signature import TensorSpec

    inputs = (TensorSpec(name="x", dtype=dtype, shape=(-1, X.shape[1])),)
    to_onnx(estimator, inputs, target=folder / "delivered.onnx", rows={"x": X.astype(dtype)}, delivered=False)
    return folder / "delivered.onnx"


def test_trees_that_compare_doubles_are_pruned_like_all_others(tmp_path: Path) -> None:
    """Pipelines on computed numbers get files in double precision; thresholds keep it, and the sums come close."""
    X, y = _made_up(0)
    model = HistGradientBoostingRegressor(max_iter=40).fit(X.astype(np.float64), y + X[:, 0])
    path = _written(model, X, tmp_path, dtype="float64")
    (node,) = nodes.ensembles(onnx.load(path))
    assert nodes.read(node).threshold.dtype == np.float64
    params: Params = {"granularity": "Structured", "ratio": 0.5, "cut": trees.TREES, "refit": trees.ANSWERS}
    rows = (X.astype(np.float64), y)
    made = pruning.apply(path, params, _context(path, tmp_path / "work", rows, task=Task.REGRESSION))
    assert isinstance(made, Applied)
    before, after = (np.ravel(answers(file, {"x": rows[0]})["value"]) for file in (path, made.model))
    assert np.corrcoef(before, after)[0, 1] > 0.99
    assert made.model.stat().st_size < 0.6 * path.stat().st_size


@pytest.mark.parametrize(
    ("make", "constraint"),
    [(_lightgbm, {"monotone_constraints": [1, 0, 0, 0, 0]}), (_xgboost, {"monotone_constraints": "(1,0,0,0,0)"})],
)
def test_a_constraint_of_the_training_survives_every_variant(make: Any, constraint: Any, tmp_path: Path) -> None:
    """An ensemble that was trained to rise with a column rises with it after every cut and every fit."""
    model, (X, _) = make(tmp_path, **constraint), _made_up(1, count=100)
    steps = np.linspace(-3, 3, 25, dtype=np.float32)
    for number, params in enumerate(_variants(model)):
        made = pruning.apply(model, params, _context(model, tmp_path / f"work-{number}", _made_up(2, shift=0.8)))
        assert isinstance(made, Applied)
        climbs = [_second(made.model, np.column_stack([np.full(len(X), step), X[:, 1:]])) for step in steps]
        assert all((higher >= lower).all() for lower, higher in pairwise(climbs))


@pytest.mark.parametrize("make", [_lightgbm, _xgboost])
def test_graph_optimization_shortens_trees_and_changes_no_answer(make: Any, tmp_path: Path) -> None:
    """Less than half the bytes, the same answers; and what it writes can be pruned further."""
    model, (X, _) = make(tmp_path), _made_up(1)
    made = graph_optimization.apply(model, {"passes": "SlimAndFold"}, _context(model, tmp_path / "work", _made_up(0)))
    assert isinstance(made, Applied)
    assert "trees in their short form" in made.summary
    assert made.model.stat().st_size < 0.5 * model.stat().st_size
    assert np.abs(_second(made.model, X) - _second(model, X)).max() < 1e-6
    params = _variants(made.model)[0]
    further = pruning.apply(made.model, params, _context(made.model, tmp_path / "further", _made_up(0)))
    assert isinstance(further, Applied)
    assert further.model.stat().st_size < 0.75 * made.model.stat().st_size


def test_the_last_trees_go_and_what_every_row_starts_from_stays(tmp_path: Path) -> None:
    """A start that the short form keeps as a tree of one leaf is none of the last trees."""
    model, (X, _) = _xgboost(tmp_path, base_score=0.02), _made_up(1)
    short = graph_optimization.apply(model, {"passes": "Slim"}, _context(model, tmp_path / "work", _made_up(0)))
    assert isinstance(short, Applied)
    cut: Params = {"granularity": "Structured", "ratio": 0.5, "cut": trees.FIRST, "refit": trees.NOTHING}
    made = [
        pruning.apply(path, cut, _context(path, tmp_path / name, _made_up(0)))
        for path, name in ((model, "long"), (short.model, "short"))
    ]
    shares = [_second(outcome.model, X) for outcome in made if isinstance(outcome, Applied)]
    assert np.abs(shares[0] - shares[1]).max() < 1e-6


def test_without_labels_nothing_is_fitted_to_labels(tmp_path: Path) -> None:
    """Rows alone tell no loss: the step is skipped with a reason."""
    model = _lightgbm(tmp_path)
    params: Params = {"granularity": "Structured", "ratio": 0.0, "cut": trees.KEEP, "refit": trees.LABELS, "hold": 5.0}
    context = _context(model, tmp_path / "work", _made_up(0))
    assert context.training is not None
    bare = dataclasses.replace(context.training, labels=None)
    made = pruning.apply(model, params, dataclasses.replace(context, training=bare))
    assert isinstance(made, Skipped)
    assert "no labelled rows" in made.reason
