"""Small networks of scikit-learn learn the answers of trees and other models of tables, where there is no torch."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from optuna.trial import FixedTrial
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.estimators.convert import to_onnx
from optimizer_jobs.machinery.training import table_students
from optimizer_jobs.machinery.training.fit import fit
from optimizer_jobs.models.missing import accepts_missing
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.signature import TEXT, Reading, Scale, Signature, TensorSpec
from optimizer_jobs.technique import Applied, Context, Params, Skipped, StoppedEarlyError, Subject
from optimizer_jobs.techniques import distillation
from retune.api.model import ModelFormat, Task
from retune.api.own_code import Factory
from retune.api.techniques import Distillation, Technique, TechniqueType
from tests.unit.jobs.estimators_for_tests import Split, answers, converted, split

SPEC = Technique(name="distil", type=TechniqueType.DISTILLATION)
STUDENT: Params = {"width": 32, "depth": 1, "teacher_weight": 1.0, "epochs": 60}
CITIES = ("bern", "oslo", "riga", "")


def _context(model: Path, training: Rows, validation: Rows | None, folder: Path, **changes: Any) -> Context:
    folder.mkdir()
    made = Context(
        workdir=folder,
        signature=check_onnx(model),
        training=training,
        validation=validation,
        seed=1,
        cpu_flags=frozenset(),
    )
    return dataclasses.replace(made, **changes)


def _taught(model: Path, context: Context, params: Params = STUDENT) -> Applied:
    outcome = fit(model, {TechniqueType.DISTILLATION: params}, context)
    assert isinstance(outcome, Applied), outcome
    return outcome


def _subject(graph: onnx.ModelProto, signature: Signature, **changes: Any) -> Subject:
    return dataclasses.replace(
        Subject(graph=graph, signature=signature, task=Task.CLASSIFICATION, training=True), **changes
    )


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees that read digits, as an ONNX file."""
    data = split("digits")
    trees = RandomForestClassifier(60, random_state=0).fit(data.X, data.y)
    return converted(trees, data, tmp_path_factory.mktemp("forest") / "model.onnx")


def _accuracy(model: Path) -> float:
    data = split("digits")
    return float(np.mean(answers(model, data.validation.inputs)["label"] == data.unseen_labels))


def test_trees_are_distilled_without_torch(forest: Path, tmp_path: Path) -> None:
    """The student is a hundredth of the file, nearly as right, and has the same inputs and outputs."""
    data = split("digits")
    made = _taught(forest, _context(forest, data.training, data.validation, tmp_path / "work"))
    assert check_onnx(made.model) == check_onnx(forest)
    assert made.model.stat().st_size < 0.01 * forest.stat().st_size
    assert _accuracy(made.model) > _accuracy(forest) - 0.02
    scores = answers(made.model, data.validation.inputs)["probabilities"]
    assert np.allclose(scores.sum(axis=1), 1.0, atol=1e-5)


def test_soft_answers_teach_more_than_the_labels_that_follow_from_them(tmp_path: Path) -> None:
    """Trees that are often unsure: their probabilities bring a student closer to them than their labels do."""
    random = np.random.default_rng(0)
    X = random.normal(size=(1200, 4)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] * X[:, 2] + random.logistic(size=1200) > 0).astype(np.int64)
    data = Split(X, y, X[:400], y[:400])
    forest = RandomForestClassifier(60, max_depth=6, random_state=0).fit(X, y)
    model = converted(forest, data, tmp_path / "model.onnx")
    theirs = answers(model, data.training.inputs)
    rows = dataclasses.replace(data.training, labels=theirs["label"])
    unlike = {}
    for name, weight in (("soft", 1.0), ("hard", 0.0)):
        made = _taught(model, _context(model, rows, rows, tmp_path / name), STUDENT | {"teacher_weight": weight})
        mine = answers(made.model, rows.inputs)["probabilities"]
        unlike[name] = float(np.abs(theirs["probabilities"] - mine).mean())
    assert unlike["soft"] < 0.5 * unlike["hard"]


def test_student_is_the_same_again(forest: Path, tmp_path: Path) -> None:
    """The same arguments give the same bytes, watched or not; without validation, rows are set aside."""
    data, seen = split("digits"), []
    first, second = (
        _context(forest, data.training.take(slice(0, 300)), None, tmp_path / name) for name in ("first", "second")
    )
    watched = dataclasses.replace(second, report=lambda *epoch: seen.append(epoch))
    made = [_taught(forest, context, STUDENT | {"epochs": 3}).model.read_bytes() for context in (first, watched)]
    assert made[0] == made[1]
    assert [epoch for epoch, _ in seen] == [1, 2, 3]


def test_of_many_rows_some_are_drawn(
    forest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small student learns no more from more rows, and neither teacher nor memory need take all of them."""
    monkeypatch.setattr(table_students, "MOST_ROWS", 200)
    data = split("digits")
    _taught(forest, _context(forest, data.training, data.validation, tmp_path / "few"), STUDENT | {"epochs": 1})
    assert min(len(data.training), len(data.validation)) > 200
    assert "teaching a student on 200 rows, judged on 200" in capsys.readouterr().out


def test_fewer_rows_than_a_batch_are_learned(forest: Path, tmp_path: Path) -> None:
    """No warning tells a person of a batch whose size they did not choose."""
    few = split("digits").training.take(slice(0, 30))
    made = _taught(forest, _context(forest, few, few, tmp_path / "few"), STUDENT | {"epochs": 2})
    assert check_onnx(made.model) == check_onnx(forest)


def test_teaching_ends_with_its_time(forest: Path, tmp_path: Path) -> None:
    """With no time left, the student is what the first rows made of it; a word to stop passes through."""
    data = split("digits")
    late = _context(forest, data.training, data.validation, tmp_path / "late", alive=lambda: 0.0)
    assert ", 1 epochs: " in _taught(forest, late).summary

    def stop() -> float:
        raise StoppedEarlyError

    with pytest.raises(StoppedEarlyError):
        _taught(forest, _context(forest, data.training, data.validation, tmp_path / "stop", alive=stop))


def test_numbers_are_distilled_too(tmp_path: Path) -> None:
    """A forest of numbers: the student explains about as much of the unseen numbers."""
    data = split("diabetes")
    forest = converted(RandomForestRegressor(60, random_state=0).fit(data.X, data.y), data, tmp_path / "forest.onnx")
    work = _context(forest, data.training, data.validation, tmp_path / "work", task=Task.REGRESSION)
    made = _taught(forest, work)
    assert check_onnx(made.model) == check_onnx(forest)
    errors = {}
    for path in (forest, made.model):
        (numbers,) = answers(path, data.validation.inputs).values()
        errors[path] = float(np.mean((numbers.ravel() - data.unseen_labels) ** 2))
    assert errors[made.model] < 1.1 * errors[forest]


def test_each_of_several_numbers_is_learned_in_its_own_unit(tmp_path: Path) -> None:
    """A number of hundredths is learned beside one of millions, and one that never changes stays what it is."""
    X = np.random.default_rng(0).normal(size=(800, 3)).astype(np.float32)
    y = np.stack([0.01 * X[:, 0], 1e4 * X[:, 1] + 1e6, np.full(800, 3.3e5)], axis=1)
    data = Split(X[:600], y[:600], X[600:], y[600:])
    forests = MultiOutputRegressor(RandomForestRegressor(20, random_state=0)).fit(data.X, data.y)
    forest = converted(forests, data, tmp_path / "forest.onnx")
    work = _context(forest, data.training, data.validation, tmp_path / "work", task=Task.REGRESSION)
    (theirs,), (mine,) = (
        answers(path, data.validation.inputs).values() for path in (forest, _taught(forest, work).model)
    )
    errors = np.square(mine - theirs).mean(axis=0) / np.square(theirs).mean(axis=0)
    spread = theirs.var(axis=0) / np.square(theirs).mean(axis=0)
    assert (errors[:2] < 0.1 * spread[:2]).all()
    assert errors[2] < 1e-6


def _table(count: int, *, seed: int) -> tuple[dict[str, Any], Any]:
    """Return rows with a text and two numbers, some of them missing, and labels that need all three."""
    random = np.random.default_rng(seed)
    city = random.choice(np.asarray(CITIES, dtype=object), count)
    age, income = random.normal(40, 12, count), np.exp(random.normal(10, 1, count))
    known = np.where(random.random(count) < 0.2, np.nan, age)
    labels = np.where((city == "riga") ^ (np.nan_to_num(known, nan=80.0) > 45), "yes", "no")
    columns = {"city": city, "age": known, "income": income}
    return {name: _column(values) for name, values in columns.items()}, labels


def _column(values: Any) -> Any:
    return (values if values.dtype == object else values.astype(np.float32)).reshape(-1, 1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees after an encoding of a column of texts, which take missing numbers."""
    import pandas as pd

    inputs, labels = _table(1500, seed=0)
    frame = pd.DataFrame({name: values.ravel() for name, values in inputs.items()})
    encoded = ColumnTransformer(
        [("city", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"])], remainder="passthrough"
    )
    model = make_pipeline(encoded, RandomForestClassifier(20, random_state=0)).fit(frame, labels)
    specs = [TensorSpec(name=name, dtype=TEXT if name == "city" else "float32", shape=(-1, 1)) for name in inputs]
    target = tmp_path_factory.mktemp("table") / "model.onnx"
    to_onnx(model, specs, target=target, rows=inputs, delivered=False)
    return target


def _agree(one: Path, other: Path, inputs: Mapping[str, Any]) -> float:
    return float(np.mean(answers(one, inputs)["label"] == answers(other, inputs)["label"]))


def test_categories_and_missing_numbers_are_learned_as_the_teacher_takes_them(table: Path, tmp_path: Path) -> None:
    """What a missing age and a missing city mean is learned; unknown cities and larger numbers are answered."""
    (inputs, labels), (unseen, expected) = _table(1500, seed=0), _table(500, seed=1)
    training = Rows(inputs=inputs, labels=labels, digest="")
    work = _context(table, training, Rows(inputs=unseen, labels=expected, digest=""), tmp_path / "work")
    made = _taught(table, dataclasses.replace(work, classes=("no", "yes")), STUDENT | {"depth": 2})
    assert check_onnx(made.model) == check_onnx(table)
    assert _agree(made.model, table, unseen) > 0.95
    assert accepts_missing(made.model)
    strange = {name: values[:50] for name, values in unseen.items()}
    strange |= {"city": np.full((50, 1), "lima", dtype=object), "income": np.full((50, 1), np.nan, dtype=np.float32)}
    assert np.isfinite(answers(made.model, strange)["probabilities"]).all()
    far = {**unseen, "income": np.full((500, 1), 1e30, dtype=np.float32)}
    assert _agree(made.model, table, far) > 0.9


def test_a_column_of_free_texts_is_no_column_of_categories(table: Path, tmp_path: Path) -> None:
    """Where most rows have a text of their own, nothing can be learned from it, and the reason says so."""
    inputs, labels = _table(400, seed=0)
    names = np.asarray([f"city {number}" for number in range(400)], dtype=object).reshape(-1, 1)
    rows = Rows(inputs=inputs | {"city": names}, labels=labels, digest="")
    work = _context(table, rows, rows, tmp_path / "work", classes=("no", "yes"))
    outcome = fit(table, {TechniqueType.DISTILLATION: STUDENT}, work)
    assert isinstance(outcome, Skipped)
    assert outcome.reason.startswith("input city holds 400 different texts in 400 training rows")


def test_a_label_that_does_not_follow_from_the_scores_is_not_learned(forest: Path, tmp_path: Path) -> None:
    """A model whose label is tuned would answer another label than its student; the reason says how often."""
    tuned = onnx.load(forest)
    tuned.graph.initializer.append(helper.make_tensor("three", TensorProto.INT64, [1], [3]))
    label = next(node for node in tuned.graph.node if "label" in node.output)
    label.output[list(label.output).index("label")] = "plain"
    tuned.graph.node.append(helper.make_node("Min", ["plain", "three"], ["label"]))
    onnx.save(tuned, tmp_path / "tuned.onnx")
    data = split("digits")
    work = _context(tmp_path / "tuned.onnx", data.training, data.validation, tmp_path / "work")
    outcome = fit(tmp_path / "tuned.onnx", {TechniqueType.DISTILLATION: STUDENT}, work)
    assert isinstance(outcome, Skipped)
    assert "of the rows the model's label is the class of its largest score" in outcome.reason


def test_texts_leave_the_search_with_their_reason(tmp_path: Path) -> None:
    """A model that reads words cannot have a student of tables, and this is known before the first trial."""
    texts = np.asarray(["good and new", "bad and old", "new", "old"] * 10, dtype=object)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 10)
    spec = TensorSpec(name="text", dtype=TEXT, shape=(-1, 1))
    to_onnx(model, [spec], target=tmp_path / "m.onnx", rows={"text": texts.reshape(-1, 1)}, delivered=False)
    subject = _subject(onnx.load(tmp_path / "m.onnx"), check_onnx(tmp_path / "m.onnx"))
    assert distillation.unavailable(subject, SPEC) == (
        "the model reads words of texts, and a student of tables takes a text for the name of a category"
    )


def _proposed(subject: Subject) -> list[Params]:
    """Return what a study tries first."""
    first = distillation.defaults(SPEC, subject)
    return [distillation.suggest(FixedTrial(params), SPEC, subject) or {} for params in first]


def test_kind_of_the_model_decides_who_teaches(forest: Path) -> None:
    """Trees and estimators need no torch, and know no temperature or hidden features; a student of one's own does."""
    graph, signature = onnx.load(forest), check_onnx(forest)
    subject = _subject(graph, signature)
    assert distillation.unavailable(subject, SPEC) is None
    assert [distillation.describe(params) for params in _proposed(subject)] == [
        "student of width 32, depth 1, taught by answers 0.7",
        "student of width 32, depth 1, from labels alone",
    ]
    assert {name for params in _proposed(subject) for name in params} == {"width", "depth", "teacher_weight", "epochs"}
    plain = onnx.ModelProto()
    plain.CopyFrom(graph)
    del plain.graph.node[:]
    skops = Native(Path("model.skops"), ModelFormat.SKOPS)
    assert distillation.unavailable(_subject(plain, signature, native=skops), SPEC) is None
    student = Distillation(student=Factory(entry_point="optimizer_jobs.nets.catalogue:mlp"))
    own = SPEC.model_copy(update={"distillation": student})
    assert distillation.unavailable(subject, own) == distillation.unavailable(_subject(plain, signature), SPEC)


def test_labels_are_not_mixed_with_scores_that_are_no_probabilities(forest: Path) -> None:
    """Nothing says how much a label weighs beside such a score, so the answers alone are learned."""
    reading = Reading(label="label", scores="probabilities", scale=None)
    signature = check_onnx(forest).model_copy(update={"reading": reading})
    (params,) = _proposed(_subject(onnx.load(forest), signature))
    assert distillation.describe(params) == "student of width 32, depth 1, taught by answers alone"


def test_columns_of_one_kind_take_one_way_and_large_numbers_keep_their_digits(tmp_path: Path) -> None:
    """Ten inputs of numbers cost no more steps than one; a time in seconds is centred before it becomes a float32."""
    random = np.random.default_rng(0)
    names = [f"n{number}" for number in range(10)]
    inputs: dict[str, Any] = {name: random.normal(size=(600, 1)).astype(np.float32) for name in names}
    inputs["flag"] = random.integers(0, 2, (600, 1)).astype(np.bool_)
    inputs["at"] = 1_700_000_000 + random.integers(0, 600, (600, 1))
    labels = (inputs["at"].ravel() > 1_700_000_300).astype(np.int64)
    kinds = {"flag": TensorProto.BOOL, "at": TensorProto.INT64}
    nodes = [
        helper.make_node("Greater", ["at", "limit"], ["late"]),
        helper.make_node("Cast", ["late"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "number"], ["other"]),
        helper.make_node("Concat", ["other", "number"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "late",
        [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), ["N", 1]) for name in inputs],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [
            helper.make_tensor("limit", TensorProto.INT64, [], [1_700_000_300]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    rows = Rows(inputs=inputs, labels=labels, digest="")
    native = Native(path, ModelFormat.JOBLIB)
    made = _taught(path, _context(path, rows, rows, tmp_path / "work", native=native))
    assert check_onnx(made.model) == check_onnx(path)
    assert len(onnx.load(made.model).graph.node) < 20
    right = answers(made.model, inputs)["probabilities"].argmax(axis=1) == labels
    assert right.mean() > 0.95


@pytest.mark.parametrize("scale", [Scale.PROBABILITIES, Scale.LOGITS])
def test_one_score_for_two_classes_is_learned_where_nothing_else_is_answered(scale: Scale, tmp_path: Path) -> None:
    """A score (N, 1): the student answers a score of the same scale; with a label beside it, it is refused."""
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 3)).astype(np.float32)
    nodes = [helper.make_node("LinearRegressor", ["x"], ["z"], domain="ai.onnx.ml", coefficients=[2.0, -1.0, 0.5])]
    nodes.append(helper.make_node("Sigmoid" if scale is Scale.PROBABILITIES else "Identity", ["z"], ["score"]))
    graph = helper.make_graph(
        nodes,
        "score",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    signature = check_onnx(path).model_copy(update={"reading": Reading(scores="score", scale=scale, threshold=0.5)})
    rows = Rows(inputs={"x": X}, labels=(X @ [2.0, -1.0, 0.5] > 0).astype(np.int64), digest="")
    made = _taught(path, _context(path, rows, rows, tmp_path / "work", signature=signature))
    theirs, mine = (answers(model, {"x": X})["score"] for model in (path, made.model))
    assert mine.shape == theirs.shape
    middle = 0.5 if scale is Scale.PROBABILITIES else 0.0
    assert np.mean((theirs > middle) == (mine > middle)) > 0.97
    beside = (*signature.outputs, TensorSpec(name="label", dtype="int64", shape=(-1,)))
    labelled = signature.model_copy(
        update={"outputs": beside, "reading": Reading(label="label", scores="score", scale=scale)}
    )
    reason = distillation.unavailable(_subject(onnx.load(path), labelled), SPEC)
    assert reason is not None
    assert reason.startswith("output score has one score for two classes")
