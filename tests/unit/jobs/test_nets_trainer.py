"""A plan of training techniques becomes one training: of delivered weights, of another shape, of a student."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from optimizer_jobs.machinery.training.networks import fit  # noqa: E402
from optimizer_jobs.models.engine import EngineOptions  # noqa: E402
from optimizer_jobs.models.native import Native  # noqa: E402
from optimizer_jobs.models.onnx_file import check_onnx  # noqa: E402
from optimizer_jobs.models.runtime import open_model  # noqa: E402
from optimizer_jobs.nets import native  # noqa: E402
from optimizer_jobs.nets.conversion.exporter import export  # noqa: E402
from optimizer_jobs.nets.conversion.labels import add_label  # noqa: E402
from optimizer_jobs.nets.factory import network  # noqa: E402
from optimizer_jobs.nets.learning import students  # noqa: E402
from optimizer_jobs.nets.learning.loop import train  # noqa: E402
from optimizer_jobs.nets.learning.settings import Settings  # noqa: E402
from optimizer_jobs.signature import TEXT, Signature, TensorSpec  # noqa: E402
from optimizer_jobs.technique import Applied, Context, Params, Skipped  # noqa: E402
from retune.api.model import ModelFormat, Task  # noqa: E402
from retune.api.techniques import TechniqueType as Kind  # noqa: E402
from tests.unit.jobs import models_for_tests as models  # noqa: E402
from tests.unit.jobs import networks_for_tests as tasks  # noqa: E402

pytestmark = pytest.mark.torch

DIGITS = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 64)),),
    outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, 10)),),
)
QUICK: dict[str, Any] = {"epochs": 5, "learning_rate": 5e-3}


@pytest.fixture
def delivered(tmp_path: Path) -> tuple[Path, Native]:
    """An untrained perceptron for digits, as ONNX and as weights with their factory."""
    given = tasks.digits_mlp(tmp_path)
    rows = tasks.digits().training.take(slice(0, 8))
    export(native.build(given), signature=DIGITS, examples=dict(rows.inputs), target=tmp_path / "model.onnx")
    return tmp_path / "model.onnx", given


def _context(folder: Path, **changes: Any) -> Context:
    split = tasks.digits()
    workdir = folder / f"work-{len(list(folder.iterdir()))}"
    workdir.mkdir()
    context = Context(
        workdir=workdir,
        signature=DIGITS,
        training=split.training,
        validation=split.validation,
        seed=1,
        cpu_flags=frozenset(),
    )
    return dataclasses.replace(context, **changes)


def _applied(outcome: Applied | Skipped) -> Applied:
    assert isinstance(outcome, Applied), outcome
    return outcome


def _accuracy(model: Path, *, classes: Any = None) -> float:
    rows = tasks.digits().validation
    scores = open_model(model, EngineOptions()).run(dict(rows.inputs))["scores"]
    found = scores.argmax(-1) if classes is None else np.asarray(classes)[scores.argmax(-1)]
    return float((found == rows.labels).mean())


@pytest.mark.parametrize("as_onnx", [True, False], ids=["ONNX", "SafeTensors"])
def test_training_on_makes_the_delivered_model_better(
    delivered: tuple[Path, Native], tmp_path: Path, *, as_onnx: bool
) -> None:
    """Same inputs and outputs; weights are kept as a file where they were delivered as one; the same bytes again."""
    model, given = delivered
    plan = {Kind.HYPERPARAMETER_TUNING: QUICK}
    outcomes = [_applied(fit(model, plan, _context(tmp_path, native=None if as_onnx else given))) for _ in range(2)]
    assert check_onnx(outcomes[0].model) == check_onnx(model)
    assert _accuracy(outcomes[0].model) > 0.85 > _accuracy(model)
    assert outcomes[0].summary.startswith("trained on, 5 epochs")
    assert outcomes[0].model.read_bytes() == outcomes[1].model.read_bytes()
    if as_onnx:
        assert outcomes[0].native is None
    else:
        assert outcomes[0].native is not None
        trained = native.build(dataclasses.replace(given, path=outcomes[0].native))
        rows = tasks.digits().validation
        answer = trained(torch.from_numpy(rows.inputs["x"])).detach().numpy()
        session = open_model(outcomes[0].model, EngineOptions())
        np.testing.assert_allclose(session.run(dict(rows.inputs))["scores"], answer, atol=1e-4)


def test_another_shape_is_trained_from_nothing(delivered: tuple[Path, Native], tmp_path: Path) -> None:
    """The factory that goes with the new weights has the new arguments."""
    model, given = delivered
    plan = {Kind.ARCHITECTURE: {"width": 12}, Kind.HYPERPARAMETER_TUNING: QUICK | {"epochs": 10}}
    outcome = _applied(fit(model, plan, _context(tmp_path, native=given)))
    assert outcome.summary.startswith("trained from scratch, width 12, 10 epochs")
    assert outcome.model.stat().st_size < model.stat().st_size
    assert _accuracy(outcome.model) > 0.8
    assert outcome.native is not None
    again = native.build(Native(outcome.native, given.format, outcome.factory))
    assert again[1].weight.shape == (12, 64)


def test_a_shape_that_the_factory_cannot_build_is_skipped(delivered: tuple[Path, Native], tmp_path: Path) -> None:
    """A trial of the search is no reason to fail the run."""
    model, given = delivered
    outcome = fit(model, {Kind.ARCHITECTURE: {"width": -1}}, _context(tmp_path, native=given))
    assert isinstance(outcome, Skipped)
    assert "does not build it with width -1" in outcome.reason


def test_training_that_gains_nothing_is_skipped(delivered: tuple[Path, Native], tmp_path: Path) -> None:
    """With both numbers, so that a person sees why."""
    settings: Params = {"epochs": 1, "learning_rate": 1e-8}
    outcome = fit(delivered[0], {Kind.HYPERPARAMETER_TUNING: settings}, _context(tmp_path))
    assert isinstance(outcome, Skipped)
    assert "no better than" in outcome.reason


def test_without_training_rows_there_is_no_training(delivered: tuple[Path, Native], tmp_path: Path) -> None:
    """A reason, no error: the search goes on with other techniques."""
    assert isinstance(fit(delivered[0], {Kind.HYPERPARAMETER_TUNING: {}}, _context(tmp_path, training=None)), Skipped)


def test_a_student_learns_from_any_onnx_file_and_answers_as_it_does(tmp_path: Path) -> None:
    """Teacher: a scikit-learn network with probabilities and labels. The student has the same outputs."""
    teacher = models.save_sklearn(tmp_path / "sklearn.onnx", models.fit_mlp(hidden=64))
    signature = check_onnx(teacher)
    plan = {
        Kind.DISTILLATION: {"width": 24, "depth": 1, "teacher_weight": 0.5},
        Kind.HYPERPARAMETER_TUNING: QUICK | {"epochs": 15},
    }
    rows = {
        name: dataclasses.replace(split, inputs={signature.inputs[0].name: split.inputs["x"]})
        for name, split in vars(tasks.digits()).items()
    }
    context = _context(tmp_path, signature=signature, classes=tuple(range(10)), **rows)
    outcome = _applied(fit(teacher, plan, context))
    assert check_onnx(outcome.model) == signature
    assert outcome.summary.startswith("student with 1810 weights")
    assert outcome.model.stat().st_size < teacher.stat().st_size
    answers = open_model(outcome.model, EngineOptions()).run(dict(rows["validation"].inputs))
    scores, labels = (answers[tensor.name] for tensor in (signature.score_output, signature.label_output) if tensor)
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)
    assert (labels == scores.argmax(-1)).all()
    assert (labels == rows["validation"].labels).mean() > 0.85


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_labels_are_added_to_scores(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """As text or numbers, as the model has them, and before the scores where the model has them there."""
    target = tmp_path / "scores.onnx"
    for dtype, classes in ((TEXT, ("cat", "dog", "fish")), ("int64", (3, 5, 7))):
        node = helper.make_node("Identity", ["x"], ["probabilities"])
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "probabilities")]
        graph = helper.make_graph([node], "g", value[:1], value[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), target)
        signature = Signature(
            inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 3)),),
            outputs=(
                TensorSpec(name="label", dtype=dtype, shape=shape),
                TensorSpec(name="probabilities", dtype="float32", shape=(-1, 3)),
            ),
        )
        add_label(target, signature=signature, classes=classes)
        assert check_onnx(target) == signature
        rows = np.asarray([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], dtype=np.float32)
        labels = open_model(target, EngineOptions()).run({"x": rows})["label"]
        assert labels.reshape(-1).tolist() == [classes[1], classes[0]]


def _signature(*shapes: tuple[int, ...], dtype: str = "float32", outputs: tuple[int, ...] = (-1, 3)) -> Signature:
    inputs = tuple(TensorSpec(name=f"x{number}", dtype=dtype, shape=shape) for number, shape in enumerate(shapes))
    return Signature(inputs=inputs, outputs=(TensorSpec(name="y", dtype="float32", shape=outputs),))


@pytest.mark.parametrize("shapes", [[(-1, 12)], [(-1, 3, 8, 8)], [(-1, 1, 4, 70)], [(-1, 1), (-1, 4)]])
def test_the_catalogue_has_a_student_for_rows_images_and_columns(shapes: list[tuple[int, ...]]) -> None:
    """Whatever the shape, it answers as many scores as the model."""
    signature = _signature(*shapes)
    student = students.student_for(signature, width=8, depth=2).eval()
    inputs = [torch.rand(5, *shape[1:]) for shape in shapes]
    assert student(*inputs).shape == (5, 3)
    assert students.not_learnable(signature) is None


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_usual_student_of_images_sees_where_things_are(dtype: str) -> None:
    """It learns digits nearly as well as their model, from pixels of 8 bits too."""
    rows = {name: rows.inputs["x"].reshape(-1, 1, 8, 8) for name, rows in vars(tasks.digits()).items()}
    scaled = {name: values if dtype == "float32" else (values * 255).astype(dtype) for name, values in rows.items()}
    split = {
        name: dataclasses.replace(part, inputs={"x0": scaled[name]}) for name, part in vars(tasks.digits()).items()
    }
    signature = _signature((-1, 1, 8, 8), dtype=dtype, outputs=(-1, 10))
    assert students.not_learnable(signature) is None
    torch.manual_seed(0)
    student = students.student_for(signature, width=16, depth=1)
    trained = train(
        student,
        split["training"],
        split["validation"],
        task=Task.CLASSIFICATION,
        settings=Settings(epochs=15),
        seed=0,
        threads=1,
    )
    assert trained.quality > 0.93


def test_a_network_with_features_first_is_trained_by_its_scores(tmp_path: Path) -> None:
    """Every output stays, under its name and in its place; forward's own order does not matter."""
    given = tasks.factory("tests.unit.jobs.torch_factories:FeaturesFirst")
    torch.manual_seed(0)
    native.save(network(given), tmp_path / native.FILE)
    names = (("logits", 10), ("features", 12))
    outputs = tuple(TensorSpec(name=name, dtype="float32", shape=(-1, size)) for name, size in names)
    signature = DIGITS.model_copy(update={"outputs": outputs})
    delivered = Native(tmp_path / native.FILE, ModelFormat.SAFETENSORS, given)
    context = _context(tmp_path, signature=signature, native=delivered)
    outcome = _applied(fit(tmp_path / "none.onnx", {Kind.HYPERPARAMETER_TUNING: QUICK | {"epochs": 15}}, context))
    assert check_onnx(outcome.model) == signature
    rows = tasks.digits().validation
    answers = open_model(outcome.model, EngineOptions()).run(dict(rows.inputs))
    assert (answers["logits"].argmax(-1) == rows.labels).mean() > 0.8
    assert outcome.native is not None
    again = native.build(dataclasses.replace(delivered, path=outcome.native))
    again_answers = again(torch.from_numpy(rows.inputs["x"]))
    np.testing.assert_allclose(answers["features"], again_answers["features"].detach().numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "signature, says",
    [
        (_signature((-1, 7), dtype="int64"), "input x0 holds int64: name the student's factory"),
        (_signature((-1, -1, 7)), "input x0 has no fixed size: name the student's factory"),
        (_signature((-1, 7), outputs=(-1, -1, 3)), "the model has no output of one number"),
    ],
)
def test_what_no_student_can_do_has_a_reason(signature: Signature, says: str) -> None:
    """And a next step where there is one."""
    assert says in str(students.not_learnable(signature))


def test_a_task_is_what_the_context_says(tmp_path: Path) -> None:
    """A regression is trained as one: numbers in their own unit."""
    split = tasks.diabetes()
    torch.manual_seed(0)
    given = tasks.factory(f"{tasks.CATALOGUE}:mlp", inputs="10", outputs="1", width="16", depth="1")
    module = network(given).eval()
    native.save(module, tmp_path / native.FILE)
    delivered = Native(tmp_path / native.FILE, ModelFormat.SAFETENSORS, given)
    signature = _signature((-1, 10), outputs=(-1, 1))
    rows = {name: dataclasses.replace(rows, inputs={"x0": rows.inputs["x"]}) for name, rows in vars(split).items()}
    context = _context(tmp_path, signature=signature, task=Task.REGRESSION, native=delivered, **rows)
    outcome = _applied(fit(tmp_path / "none.onnx", {Kind.HYPERPARAMETER_TUNING: {"epochs": 40}}, context))
    answers = open_model(outcome.model, EngineOptions()).run(dict(rows["validation"].inputs))["y"]
    labels = rows["validation"].labels
    assert ((answers[:, 0] - labels) ** 2).mean() < 0.65 * labels.var()
