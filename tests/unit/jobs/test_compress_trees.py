"""Dropping trees from an ONNX file alone."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optimizer_jobs.machinery.compress import trees
from optimizer_jobs.machinery.trees import nodes
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.technique import Applied, Context, Skipped, Subject
from optimizer_jobs.techniques import pruning
from retune.api.model import Task
from retune.api.techniques import Technique, TechniqueType
from tests.unit.jobs.estimators_for_tests import answers, converted, split

HALF: dict[str, Any] = {"granularity": "Structured", "ratio": 0.5, "iterations": 1}


def _context(model: Path, workdir: Path, data: str) -> Context:
    workdir.mkdir()
    return Context(
        workdir=workdir, signature=check_onnx(model), calibration=split(data).training, seed=0, cpu_flags=frozenset()
    )


def _pruned(model: Path, workdir: Path, data: str, **params: Any) -> Applied:
    made = trees.prune(model, HALF | params, _context(model, workdir, data))
    assert isinstance(made, Applied)
    return made


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scaled forest of 100 trees for the digits, as ONNX."""
    data = split("digits")
    estimator = make_pipeline(StandardScaler(), RandomForestClassifier(100, random_state=0)).fit(data.X, data.y)
    return converted(estimator, data, tmp_path_factory.mktemp("forest") / "model.onnx")


def test_a_quarter_of_a_forest_answers_nearly_as_well(forest: Path, tmp_path: Path) -> None:
    """Three quarters less file, at most two points of accuracy, and probabilities that still sum to one."""
    data = split("digits")
    made = _pruned(forest, tmp_path / "work", "digits", ratio=0.75)
    assert check_onnx(made.model) == check_onnx(forest)
    assert made.model.stat().st_size < 0.3 * forest.stat().st_size
    assert made.summary.startswith("25 of 100 trees and ")
    before, after = (answers(path, data.validation.inputs) for path in (forest, made.model))
    assert np.mean(after["label"] == data.unseen_labels) >= np.mean(before["label"] == data.unseen_labels) - 0.02
    assert np.allclose(after["probabilities"].sum(axis=1), 1, atol=1e-4)


def test_chosen_trees_stand_for_the_forest_better_than_the_first_ones(forest: Path, tmp_path: Path) -> None:
    """The measure is worth its time: on rows it has not seen, the chosen ten agree more than ten by position."""
    data = split("digits")
    made = _pruned(forest, tmp_path / "work", "digits", ratio=0.9)
    first = onnx.load(forest)
    (node,) = nodes.ensembles(first)
    ten = nodes.read(node).trees(slice(10))
    nodes.write(dataclasses.replace(ten, values=ten.values * 10), node)
    onnx.save(first, tmp_path / "first.onnx")
    wanted = answers(forest, data.validation.inputs)["probabilities"]
    missed = [
        float(np.mean((answers(path, data.validation.inputs)["probabilities"] - wanted) ** 2))
        for path in (made.model, tmp_path / "first.onnx")
    ]
    assert missed[0] < missed[1]


def test_our_walk_through_the_trees_is_the_engines(forest: Path) -> None:
    """The sum of all trees' answers is what ONNX Runtime answers, so that the measure is of the real thing."""
    data = split("digits")
    proto = onnx.load(forest)
    (node,) = nodes.ensembles(proto)
    (X,) = trees._inputs(proto, [node], data.validation)
    ensemble = nodes.read(node)
    total = ensemble.sums(ensemble.walk(X)[0])
    assert np.allclose(total, answers(forest, data.validation.inputs)["probabilities"], atol=1e-5)


def test_boosted_trees_are_scaled_to_predict_the_same_numbers(tmp_path: Path) -> None:
    """Half of the stages of a regressor still explain most of what all explain; the sum is not simply halved."""
    data = split("diabetes")
    estimator = GradientBoostingRegressor(n_estimators=100, random_state=0).fit(data.X, data.y)
    model = converted(estimator, data, tmp_path / "model.onnx")
    made = _pruned(model, tmp_path / "work", "diabetes")
    before, after = (answers(path, data.validation.inputs)["value"][:, 0] for path in (model, made.model))
    assert np.corrcoef(before, after)[0, 1] > 0.98
    assert abs(np.mean(after) - np.mean(before)) < 0.1 * np.std(before)


def test_the_same_arguments_give_the_same_bytes(forest: Path, tmp_path: Path) -> None:
    """A kept result can stand for a new one."""
    made = [_pruned(forest, tmp_path / name, "digits").model.read_bytes() for name in ("one", "two")]
    assert made[0] == made[1]


def test_what_has_no_trees_or_no_rows_is_left_alone(forest: Path, tmp_path: Path) -> None:
    """The technique says why it does nothing."""
    data = split("wine")
    line = converted(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(data.X, data.y), data, tmp_path / "line.onnx"
    )
    assert trees.present(onnx.load(forest))
    assert not trees.present(onnx.load(line))
    context = _context(forest, tmp_path / "work", "digits")
    assert isinstance(trees.prune(forest, HALF, dataclasses.replace(context, calibration=None)), Skipped)
    assert isinstance(trees.prune(forest, HALF | {"granularity": "Unstructured"}, context), Skipped)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_student_of_trees_has_no_trees_to_prune(tmp_path: Path) -> None:
    """A plan may distill trees first: what is said of trees then changes nothing, and breaks nothing."""
    data = split("digits")
    network = MLPClassifier((8,), max_iter=5, random_state=0).fit(data.X, data.y)
    student = converted(network, data, tmp_path / "network.onnx")
    cut: dict[str, Any] = {"granularity": "Structured", "ratio": 0.5, "cut": trees.TREES, "refit": trees.ANSWERS}
    for parameters in (cut, cut | {"cut": trees.KEEP, "refit": trees.LABELS}):
        outcome = pruning.apply(student, parameters, _context(student, tmp_path / parameters["cut"], "digits"))
        assert outcome == Skipped(reason="no ensemble of 8 trees or more is left to prune")


def test_technique_pruning_drops_trees_where_there_are_some(forest: Path, tmp_path: Path) -> None:
    """A forest as ONNX is offered Pruning, which needs no torch and no labels for it."""
    spec = Technique(name="prune", type=TechniqueType.PRUNING)
    subject = Subject(graph=onnx.load(forest), signature=check_onnx(forest), task=Task.CLASSIFICATION, calibration=True)
    assert pruning.unavailable(subject, spec) is None
    assert pruning.unavailable(dataclasses.replace(subject, calibration=False), spec) is not None
    made = pruning.apply(forest, HALF, _context(forest, tmp_path / "work", "digits"))
    assert isinstance(made, Applied)
    assert made.summary.startswith("50 of 100 trees and ")
