"""Networks learn several labels a row, each by itself: from zeros and ones, from a teacher, and after every change."""

import dataclasses
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import f1_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from optimizer_jobs.data.datasets import Rows  # noqa: E402
from optimizer_jobs.machinery.compress.factorization import RANK  # noqa: E402
from optimizer_jobs.machinery.formats.onnx_files import check_in_sandbox  # noqa: E402
from optimizer_jobs.machinery.training.networks import fit  # noqa: E402
from optimizer_jobs.models.engine import EngineOptions  # noqa: E402
from optimizer_jobs.models.onnx_file import check_onnx  # noqa: E402
from optimizer_jobs.models.runtime import open_model  # noqa: E402
from optimizer_jobs.nets.catalogue import mlp  # noqa: E402
from optimizer_jobs.nets.conversion.exporter import export  # noqa: E402
from optimizer_jobs.nets.learning.loop import train  # noqa: E402
from optimizer_jobs.nets.learning.losses import label_logits, loss_for, quality, taught  # noqa: E402
from optimizer_jobs.nets.learning.settings import Settings  # noqa: E402
from optimizer_jobs.signature import Reading, Scale, Signature, TensorSpec  # noqa: E402
from optimizer_jobs.technique import Applied, Context, Params, Subject  # noqa: E402
from optimizer_jobs.techniques import (  # noqa: E402
    adversarial_training,
    augmentation,
    distillation,
    factorization,
    hyperparameter_tuning,
    pruning,
    quantization,
)
from retune.api.model import Task  # noqa: E402
from retune.api.techniques import Quantization, QuantizationScheme, Technique, TechniqueType  # noqa: E402

pytestmark = pytest.mark.torch
LABELS, FEATURES = 5, 20
X, MARKS = make_multilabel_classification(1600, FEATURES, n_classes=LABELS, n_labels=2, random_state=3)
X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
SPLITS = {"training": slice(0, 800), "validation": slice(800, 1200), "test": slice(1200, 1600)}
AWARE = Quantization(schemes=(QuantizationScheme.AWARE,))
logits_loss = partial(torch.nn.functional.binary_cross_entropy_with_logits)


def rows(split: str) -> Rows:
    """Return rows of one split, with zeros and ones of five labels."""
    return Rows(inputs={"x": X[SPLITS[split]]}, labels=MARKS[SPLITS[split]].astype(np.int64), digest="")


def network(*last: Any, depth: int = 1) -> Any:
    """Return a new network, always the same."""
    torch.manual_seed(3)
    return torch.nn.Sequential(mlp(inputs=FEATURES, outputs=LABELS, width=64 * depth, depth=depth), *last)


def learned(module: Any, **changes: Any) -> Any:
    """Train a network on the training rows."""
    settings = Settings(epochs=20, learning_rate=5e-3)
    fields: dict[str, Any] = {"task": Task.MULTI_LABEL, "settings": settings, "seed": 0, "threads": 1}
    return train(module, rows("training"), rows("validation"), **fields | changes)


def signature(*, scale: Scale) -> Signature:
    """Return inputs and outputs of the network, and what its scores are."""
    return Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, LABELS)),),
        reading=Reading(scores="scores", scale=scale),
    )


def context(folder: Path, taken: Signature) -> Context:
    """Return what a technique works with."""
    folder.mkdir()
    return Context(
        workdir=folder,
        signature=taken,
        task=Task.MULTI_LABEL,
        training=rows("training"),
        validation=rows("validation"),
        calibration=rows("training"),
        seed=0,
        cpu_flags=frozenset({"avx512_vnni"}),
    )


def f1(model: Path, taken: Signature) -> float:
    """Return F1 over all labels of the test rows, where a label is given that is more probable than not."""
    scores = open_model(model, EngineOptions()).run(dict(rows("test").inputs))[
        str(taken.reading and taken.reading.scores)
    ]
    limit = 0.5 if taken.score_scale is Scale.PROBABILITIES else 0.0
    return float(f1_score(rows("test").labels, scores > limit, average="micro"))


@pytest.fixture(scope="module", params=[Scale.PROBABILITIES, Scale.LOGITS])
def delivered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Signature]:
    """A network that has learned its labels, as an ONNX file of probabilities or of logits, and its signature."""
    scale = request.param
    module = network(*([torch.nn.Sigmoid()] if scale is Scale.PROBABILITIES else []), depth=2)
    trained, taken = learned(module, scale=scale), signature(scale=scale)
    target = tmp_path_factory.mktemp("delivered") / "model.onnx"
    export(trained.module, signature=taken, examples={"x": X[:4]}, target=target)
    return target, taken


def test_the_loss_is_binary_cross_entropy_of_logits() -> None:
    """As torch has it; labels may be shares, and smoothing spreads them over yes and no."""
    scores, marks = torch.randn(8, LABELS) * 4, torch.from_numpy(MARKS[:8]).float()
    loss = loss_for(Task.MULTI_LABEL)
    assert float(loss(scores, marks)) == pytest.approx(float(logits_loss(scores, marks)), rel=1e-5)
    smoothed = loss_for(Task.MULTI_LABEL, label_smoothing=0.2)(scores, marks)
    assert float(smoothed) == pytest.approx(float(logits_loss(scores, 0.8 * marks + 0.1)), rel=1e-5)
    assert torch.isfinite(loss(100 * scores, marks))


def test_probabilities_are_read_as_logits_where_they_are_told_to_be() -> None:
    """Logits that happen to lie between 0 and 1 stay what they are; 0 and 1 have finite logits."""
    scores = torch.tensor([[0.1, 0.9], [-3.0, 2.0]])
    assert torch.equal(label_logits(scores, Scale.LOGITS), scores)
    torch.testing.assert_close(label_logits(scores.sigmoid(), Scale.PROBABILITIES), scores, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(label_logits(torch.tensor([[0.0, 1.0]]), Scale.PROBABILITIES)).all()


def test_a_teacher_is_reached_where_every_label_is_as_probable() -> None:
    """The distance is that of yes or no of each label, and 0 for the same answers."""
    answers, other = torch.randn(8, LABELS), torch.randn(8, LABELS)
    assert float(taught(Task.MULTI_LABEL, answers, answers, temperature=2.0)) == pytest.approx(0, abs=1e-6)
    soft = answers.sigmoid()
    expected = logits_loss(other, soft) - logits_loss(answers, soft)
    assert float(taught(Task.MULTI_LABEL, other, answers, temperature=1.0)) == pytest.approx(float(expected), rel=1e-4)


def test_an_epoch_is_judged_by_f1_over_all_labels() -> None:
    """As scikit-learn has it; without any label, given or true, nothing is wrong."""
    scores, marks = torch.randn(40, LABELS), torch.from_numpy(MARKS[:40]).float()
    expected = f1_score(MARKS[:40], scores.numpy() > 0, average="micro")
    assert quality(Task.MULTI_LABEL, scores, marks) == pytest.approx(expected)
    assert quality(Task.MULTI_LABEL, -torch.ones(3, 2), torch.zeros(3, 2)) == 1.0


@pytest.mark.parametrize("scale", [Scale.PROBABILITIES, Scale.LOGITS])
def test_labels_are_learned_whether_a_network_answers_logits_or_probabilities(scale: Scale) -> None:
    """With the same loss, and as well as scikit-learn's network of this shape does, by its own measure."""
    trained = learned(network(*([torch.nn.Sigmoid()] if scale is Scale.PROBABILITIES else [])), scale=scale)
    peer = MLPClassifier((64,), max_iter=60, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(X[SPLITS["training"]], MARKS[SPLITS["training"]])
    judged = SPLITS["validation"]
    assert trained.quality > f1_score(MARKS[judged], peer.predict(X[judged]), average="micro") - 0.01
    assert trained.quality > trained.before + 0.1


def test_hyperparameters_of_labels_follow_the_gradient() -> None:
    """The loss can be differentiated twice, by the smoothing of labels too."""
    settings = Settings(epochs=2, learning_rate=5e-3, learned=True)
    trained = learned(network(torch.nn.Sigmoid()), scale=Scale.PROBABILITIES, settings=settings)
    assert trained.unlearned is None
    assert trained.settings.label_smoothing > 0


@pytest.mark.parametrize(
    ("technique", "kind", "params", "settings"),
    [
        (pruning, TechniqueType.PRUNING, {"granularity": "Structured", "ratio": 0.5, "iterations": 1}, {}),
        (factorization, TechniqueType.FACTORIZATION, {RANK: 0.25}, {}),
        (quantization, TechniqueType.QUANTIZATION, {"scheme": "Aware", "samples": 200, "per_channel": True}, {}),
    ],
    ids=["pruned", "factorized", "8-bit"],
)
def test_a_changed_network_learns_its_labels_again(
    delivered: tuple[Path, Signature],
    technique: Any,
    kind: TechniqueType,
    params: Params,
    settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    """What is smaller than the network as delivered gives almost the same labels, after training on."""
    model, taken = delivered
    spec = Technique(name="t", type=kind, **settings)
    outcome = technique.apply(model, params, context(tmp_path / "work", taken))
    assert isinstance(outcome, Applied), (spec, outcome)
    assert f1(outcome.model, taken) > f1(model, taken) - 0.03


def test_a_student_answers_as_its_teacher_does(tmp_path: Path) -> None:
    """A forest that answers labels and probabilities becomes a network that answers both, and each fits the other."""
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import FloatTensorType

    forest = MultiOutputClassifier(RandomForestClassifier(30, max_depth=8, random_state=0))
    forest.fit(X[SPLITS["training"]], MARKS[SPLITS["training"]])
    file = tmp_path / "forest.onnx"
    kinds = [("x", FloatTensorType([None, FEATURES]))]
    file.write_bytes(skl2onnx.to_onnx(forest, initial_types=kinds, options={"zipmap": False}).SerializeToString())
    checked = check_in_sandbox(file, uri="forest")
    reading = Reading(label="label", scores="probabilities", scale=Scale.PROBABILITIES)
    taken = checked.signature.model_copy(update={"reading": reading})
    student: Params = {"width": 64, "depth": 1, "teacher_weight": 0.7, "temperature": 1.0, "epochs": 30}
    plan = {TechniqueType.DISTILLATION: student}
    outcome = fit(checked.path, plan, context(tmp_path / "work", taken))
    assert isinstance(outcome, Applied), outcome
    assert check_onnx(outcome.model) == checked.signature
    answers = open_model(outcome.model, EngineOptions()).run(dict(rows("test").inputs))
    assert np.array_equal(answers["label"], answers["probabilities"] > 0.5)
    assert answers["label"].dtype == np.int64
    assert f1(outcome.model, taken) > f1(checked.path, taken) - 0.02


def test_every_technique_that_trains_says_whether_it_can(delivered: tuple[Path, Signature]) -> None:
    """All but the attack, which needs one class a row; and none where labels have no scores to be taught."""
    model, taken = delivered
    subject = Subject(graph=onnx.load(model), signature=taken, task=Task.MULTI_LABEL, training=True, calibration=True)
    trains = (hyperparameter_tuning, distillation, augmentation, pruning, factorization)
    specs = {module: Technique(name="t", type=module.TYPE) for module in trains}
    assert [module.unavailable(subject, spec) for module, spec in specs.items()] == [None] * len(trains)
    aware = Technique(name="t", type=TechniqueType.QUANTIZATION, quantization=AWARE)
    assert quantization.unavailable(subject, aware) is None
    attack = Technique(name="t", type=TechniqueType.ADVERSARIAL_TRAINING)
    assert "any number of labels" in str(adversarial_training.unavailable(subject, attack))
    labels = taken.model_copy(update={"reading": Reading(label="scores")})
    bare = dataclasses.replace(subject, signature=labels)
    assert "labels without scores" in str(hyperparameter_tuning.unavailable(bare, specs[hyperparameter_tuning]))
    assert "labels without scores" in str(distillation.unavailable(bare, specs[distillation]))
