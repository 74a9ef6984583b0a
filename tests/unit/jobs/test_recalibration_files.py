"""Recalibration of files of scikit-learn, XGBoost and LightGBM: the served file itself answers better probabilities."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from optuna.trial import FixedTrial
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.formats.onnx_files import REWRITTEN, answer
from optimizer_jobs.measure.answers import spelled
from optimizer_jobs.signature import Scale
from optimizer_jobs.technique import Applied, Params, Skipped
from optimizer_jobs.techniques import recalibration
from optimizer_jobs.techniques.registry import recipe
from optimizer_jobs.techniques.steps import Step, build
from retune.api.model import ModelFormat, Task
from retune.api.objectives import Objective
from retune.api.techniques import Recalibration, Technique, TechniqueType
from tests.unit.jobs import boosters_for_tests as boosters
from tests.unit.jobs.shifted_for_tests import answers, applied, check, converted, data, delivered, loss, outputs

SPEC = Technique(name="recalibrate", type=TechniqueType.RECALIBRATION)
METHODS = ("Both", "Temperature", "PriorShift", "Isotonic")
OPSETS = (9, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21)
NAMES = ["no", "maybe", "yes"]


@cache
def logistic() -> Any:
    """A logistic regression on rows with equally frequent classes."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(*data("training"))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("method", ["Both", "Isotonic"])
def test_a_file_of_any_operator_set_is_corrected(opset: int, method: str, tmp_path: Path) -> None:
    """Labels and probabilities of scikit-learn's converter, in every operator set that is in use."""
    given = delivered(converted(logistic(), tmp_path / "m.onnx", opset=opset))
    check(given, method, tmp_path)
    made = applied(given, method, tmp_path / "once more")
    versions = {entry.domain: entry.version for entry in onnx.load(made.model).opset_import}
    assert versions[""] == {entry.domain: entry.version for entry in onnx.load(given.model).opset_import}[""]


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(40, min_samples_leaf=5, random_state=0),
    "bayes": GaussianNB,
    "network": lambda: MLPClassifier((16,), max_iter=60, random_state=0),
}


@pytest.mark.parametrize("name", list(ESTIMATORS))
@pytest.mark.parametrize("classes", [2, 3])
def test_every_method_keeps_its_promise_on_other_rows(name: str, classes: int, tmp_path: Path) -> None:
    """Log loss falls on rows that nothing was fitted on; labels are those of the largest probability, also as text."""
    X, y = data("training", classes=classes)
    names = np.asarray(NAMES[:: 2 if classes == 2 else 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = make_pipeline(StandardScaler(), ESTIMATORS[name]()).fit(X, names[y])
    given = delivered(converted(fitted, tmp_path / "m.onnx"), classes=classes, names=names)
    offered = recalibration.defaults(SPEC, given.subject())
    methods = [each["recalibrate.method"] for each in offered]
    assert methods == [method for method in METHODS if classes == 2 or method != "Isotonic"]
    for method in ("Both", "PriorShift", *(["Isotonic"] if classes == 2 else [])):
        check(given, method, tmp_path)


@pytest.mark.parametrize("labels", [False, True])
def test_maps_of_probabilities_are_corrected_as_the_matrix_that_is_served(labels: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """ZipMap is taken away at delivery; classes keep the names that it gave them."""
    X, y = data("training")
    given_names = np.asarray(["no", "yes"]) if labels else np.asarray([3, 7])
    from skl2onnx import to_onnx

    path = tmp_path / "zipped.onnx"
    path.write_bytes(to_onnx(LogisticRegression().fit(X, given_names[y]), X[:1], target_opset=15).SerializeToString())
    assert [node for node in onnx.load(path).graph.node if node.op_type == "ZipMap"]
    reply = answer({"path": str(path), "uri": "pvc://m/zipped.onnx"})
    assert reply["changes"]
    given = delivered(path.with_name(REWRITTEN), names=given_names)
    after = check(given, "Both", tmp_path)
    assert set(spelled(after.labels)) == set(spelled(given_names))


@pytest.mark.parametrize("method", ["Both", "Isotonic"])
def test_logits_stay_logits(method: str, tmp_path: Path) -> None:
    """Raw scores of scikit-learn's converter are read as logits, before and after."""
    fitted = LogisticRegression().fit(*data("training"))
    given = delivered(converted(fitted, tmp_path / "m.onnx", raw_scores=True))
    assert given.signature.score_scale is Scale.LOGITS
    check(given, method, tmp_path)
    raw = outputs(applied(given, method, tmp_path / "raw").model, given.test)["probabilities"]
    assert raw.min() < -1


def test_numbers_of_64_bits_stay_so(tmp_path: Path) -> None:
    """A model of doubles answers doubles."""
    given = delivered(converted(logistic(), tmp_path / "m.onnx", dtype=np.float64))
    made = applied(given, "Both", tmp_path / "work")
    assert outputs(made.model, given.test)["probabilities"].dtype == np.float64
    check(given, "Both", tmp_path)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("library", ["XGBoost", "LightGBM"])
def test_files_of_boosted_trees_are_corrected(library: str, classes: int, tmp_path: Path) -> None:
    """As those libraries write them, after their conversion at delivery."""
    X, y = data("training", classes=classes)
    kind = ["binary", "multi"][classes - 2]
    if library == "XGBoost":
        path = tmp_path / "m.ubj"
        many = {"num_class": classes} if classes > 2 else {}
        objective = {"binary": "binary:logistic", "multi": "multi:softprob"}[kind]
        settings = {"objective": objective, "max_depth": 4, "nthread": 1, "seed": 0, **many}
        xgboost.train(settings, xgboost.DMatrix(X, label=y), 40).save_model(path)
    else:
        path = tmp_path / "m.txt"
        many = {"num_class": classes} if classes > 2 else {}
        objective = {"binary": "binary", "multi": "multiclass"}[kind]
        settings = {"objective": objective, "verbose": -1, "num_threads": 1, "seed": 0, **many}
        lightgbm.train(settings, lightgbm.Dataset(X, y), 40).save_model(path)
    table = boosters.columns({"x": X, "label": y})
    made = boosters.delivered(path, table, format_=ModelFormat(library))
    given = delivered(made.model, classes=classes)
    for method in ("Both", "PriorShift", *(["Isotonic"] if classes == 2 else [])):
        check(given, method, tmp_path)


def test_trees_that_are_too_sure_are_cooled(tmp_path: Path) -> None:
    """Three hundred rounds are sure of their training rows; a temperature tells how much, and changes no label."""
    X, y = data("training")
    settings = {"objective": "binary:logistic", "max_depth": 5, "nthread": 1, "seed": 0}
    xgboost.train(settings, xgboost.DMatrix(X, label=y), 300).save_model(tmp_path / "m.ubj")
    table = boosters.columns({"x": X, "label": y})
    made = boosters.delivered(tmp_path / "m.ubj", table, format_=ModelFormat.XGBOOST)
    given = delivered(made.model, shifted=False)
    after = check(given, "Temperature", tmp_path)
    np.testing.assert_array_equal(after.labels, answers(given, given.model, given.test).labels)
    made_again = applied(given, "Temperature", tmp_path / "words")
    assert made_again.summary.startswith("temperature ")
    assert float(made_again.summary.split()[1].strip(",")) > 1.3


def test_a_correction_that_gains_nothing_leaves_the_file_alone(tmp_path: Path) -> None:
    """Where what a model says is what happens, there is nothing to correct: the sentence has both numbers."""
    given = delivered(converted(logistic(), tmp_path / "m.onnx"))
    probabilities = answers(given, given.model, given.validation).probabilities
    assert probabilities is not None
    happened = (np.random.default_rng(0).random(len(probabilities)) < probabilities[:, 1]).astype(np.int64)
    usual = replace(given.validation, labels=happened)
    for method in METHODS:
        made = recalibration.apply(given.model, {"method": method}, given.context(tmp_path / method, validation=usual))
        assert isinstance(made, Skipped)
        assert "gains nothing that is more than chance: log loss 0." in made.reason
        assert not (tmp_path / method / "model.onnx").exists()


def test_a_label_that_is_not_of_the_largest_score_is_not_contradicted(tmp_path: Path) -> None:
    """A tuned threshold is refused in words where labels would move; a temperature moves none."""
    X, y = data("training")
    tuned = FixedThresholdClassifier(logistic(), threshold=0.56).fit(X, y)
    path = converted(logistic(), tmp_path / "m.onnx")
    moved = onnx.load(path)
    limit = onnx.numpy_helper.from_array(np.asarray(0.56, dtype=np.float32), "limit")
    column = onnx.numpy_helper.from_array(np.asarray([1]), "column")
    moved.graph.initializer.extend([limit, column])
    for node in moved.graph.node:
        node.output[:] = ["old_label" if name == "label" else name for name in node.output]
    line = onnx.numpy_helper.from_array(np.asarray([-1]), "line")
    moved.graph.initializer.append(line)
    moved.graph.node.extend(
        [
            onnx.helper.make_node("Gather", ["probabilities", "column"], ["second"], axis=1),
            onnx.helper.make_node("Greater", ["second", "limit"], ["beyond"]),
            onnx.helper.make_node("Cast", ["beyond"], ["whole"], to=onnx.TensorProto.INT64),
            onnx.helper.make_node("Reshape", ["whole", "line"], ["label"]),
        ]
    )
    onnx.save(moved, path)
    given = delivered(path)
    assert given.signature.label_output is not None
    expected = tuned.predict(data("test")[0])
    np.testing.assert_array_equal(outputs(path, given.test)["label"], expected)
    refused = recalibration.apply(path, {"method": "PriorShift"}, given.context(tmp_path / "shift"))
    assert isinstance(refused, Skipped)
    assert refused.reason.startswith("the model's label is not the class of its largest score")


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (Task.REGRESSION, "a regression answers numbers, and no probabilities"),
        (Task.EMBEDDING, "an embedding answers no probabilities"),
        (Task.GENERIC, "nothing says that a generic model answers probabilities"),
        (Task.MULTI_LABEL, "where a row has one label"),
    ],
)
def test_what_has_no_probabilities_is_refused_in_words(task: Task, says: str, tmp_path: Path) -> None:
    """Before a search begins."""
    subject = delivered(converted(logistic(), tmp_path / "m.onnx")).subject()
    assert recalibration.unavailable(subject, SPEC) is None
    assert says in (recalibration.unavailable(replace(subject, task=task), SPEC) or "")


def test_scores_that_nobody_has_said_the_scale_of_are_refused(tmp_path: Path) -> None:
    """And labels alone."""
    given = delivered(converted(logistic(), tmp_path / "m.onnx"))
    reading = given.signature.reading
    assert reading is not None
    for change, says in (({"scale": None}, "set model.outputs.scale"), ({"scores": None}, "labels without scores")):
        signature = given.signature.model_copy(update={"reading": reading.model_copy(update=change)})
        assert says in (recalibration.unavailable(replace(given.subject(), signature=signature), SPEC) or "")


def test_the_spec_bounds_the_methods(tmp_path: Path) -> None:
    """Isotonic alone is nothing for three classes, and says so."""
    X, y = data("training", classes=3)
    three = delivered(converted(LogisticRegression().fit(X, y), tmp_path / "m.onnx"), classes=3).subject()
    spec = SPEC.model_copy(update={"recalibration": Recalibration(methods=("Isotonic",))})
    assert recalibration.unavailable(three, spec) == "Isotonic is for two classes, and the model has more"
    spec = SPEC.model_copy(update={"recalibration": Recalibration(methods=("Isotonic", "Temperature"))})
    assert recalibration.defaults(spec, three) == ({"recalibrate.method": "Temperature"},)
    drawn = recalibration.suggest(FixedTrial({"recalibrate.method": "Temperature"}), spec, three)
    assert drawn == {"method": "Temperature"}
    assert recalibration.describe(drawn) == "temperature corrected"


def test_a_class_of_few_labels_is_weighed_by_answers(tmp_path: Path) -> None:
    """Seven labels of a class are too few; its share in training and the answers are enough. Without them, words."""
    given = delivered(converted(logistic(), tmp_path / "m.onnx"))
    rows = given.validation
    few = np.concatenate([np.flatnonzero(rows.answers == 0), np.flatnonzero(rows.answers == 1)[:7]])
    context = given.context(tmp_path / "without", validation=rows.take(few))
    refused = recalibration.apply(given.model, {"method": "PriorShift"}, context)
    assert isinstance(refused, Skipped)
    assert refused.reason.startswith("a class has 7 rows for validation where 10 are needed")
    X, y = data("training")
    learned = Rows(inputs={given.signature.inputs[0].name: X}, labels=y, digest="training")
    context = given.context(tmp_path / "with", validation=rows.take(few), training=learned)
    made = recalibration.apply(given.model, {"method": "PriorShift"}, context)
    assert isinstance(made, Applied)
    assert made.summary.startswith("classes weighed by 1 to 0.0")


def test_a_quantized_network_is_corrected_as_it_is(tmp_path: Path) -> None:
    """After all other steps of a plan, so that what rounding did to probabilities is corrected with the rest."""
    X, y = data("training")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = MLPClassifier((64,), max_iter=60, random_state=0).fit(X, y)
    given = delivered(converted(fitted, tmp_path / "m.onnx"))
    small: Params = {"scheme": "Dynamic", "per_channel": False, "scope": "Layers", "kept": 0}
    steps = (
        Step(name="quantize", type=TechniqueType.QUANTIZATION, params=small),
        Step(name="recalibrate", type=TechniqueType.RECALIBRATION, params={"method": "Both"}),
    )
    built = [
        build(given.model, steps[:count], context=given.context(tmp_path / str(count)), kept=tmp_path / f"kept-{count}")
        for count in (1, 2)
    ]
    assert built[1].skipped == ()
    assert built[1].applied[0] == built[0].applied[0]
    quantized, corrected = (answers(given, each.model, given.test) for each in built)
    assert loss(corrected, given.test) < loss(quantized, given.test) - 0.005


def test_the_recipe_has_it_where_quality_that_it_can_raise_is_optimized(tmp_path: Path) -> None:
    """A limit on quality alone, or the order of rows, is no reason to try."""
    subject = delivered(converted(logistic(), tmp_path / "m.onnx")).subject()

    def left_out(metric: str, **role: Any) -> str | None:
        return recipe(subject, (Objective.model_validate({"metric": metric, **role}),)).left_out.get("recalibrate")

    limited = {"role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.01"}}
    for metric in ("log_loss", "accuracy", "brier_score", "expected_cost"):
        assert left_out(metric) is None
        assert left_out(metric, **limited) == "no objective optimizes a metric that it can raise"
    for metric in ("latency_p95_ms", "roc_auc", "fidelity"):
        assert left_out(metric) == "no objective optimizes a metric that it can raise"


def test_groups_and_weights_of_the_rows_count(tmp_path: Path) -> None:
    """Few groups are little evidence: what many single rows show, ten groups that differ do not."""
    given = delivered(converted(logistic(), tmp_path / "m.onnx"))
    rows = given.validation
    by_label = np.argsort(rows.answers, kind="stable")
    groups = np.empty(len(rows), dtype="U8")
    groups[by_label] = [f"g{place * 9 // len(rows)}" for place in range(len(rows))]
    context = given.context(tmp_path / "grouped", validation=replace(rows, groups=groups))
    made = recalibration.apply(given.model, {"method": "PriorShift"}, context)
    assert isinstance(made, Skipped)
    heavy = np.where(rows.answers == 1, (rows.answers == 0).sum() / (rows.answers == 1).sum(), 1.0)
    context = given.context(tmp_path / "weighed", validation=replace(rows, weights=heavy))
    assert isinstance(recalibration.apply(given.model, {"method": "PriorShift"}, context), Skipped)
