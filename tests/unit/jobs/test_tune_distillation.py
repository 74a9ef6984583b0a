"""Students learn answers and hidden features of networks, answers alone of others, and from prepared estimators."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from optuna.trial import FixedTrial
from sklearn.naive_bayes import GaussianNB

torch = pytest.importorskip("torch")
pytest.importorskip("skops.io")

from optimizer_jobs.data.datasets import Rows  # noqa: E402
from optimizer_jobs.machinery.formats.base import Converted  # noqa: E402
from optimizer_jobs.machinery.training.fit import fit as fit_plan  # noqa: E402
from optimizer_jobs.machinery.training.networks import fit  # noqa: E402
from optimizer_jobs.models.engine import EngineOptions  # noqa: E402
from optimizer_jobs.models.onnx_file import check_onnx  # noqa: E402
from optimizer_jobs.models.runtime import open_model  # noqa: E402
from optimizer_jobs.nets.conversion.exporter import export  # noqa: E402
from optimizer_jobs.nets.learning.features import features_of, unlike, without_features  # noqa: E402
from optimizer_jobs.nets.learning.loop import train  # noqa: E402
from optimizer_jobs.nets.learning.settings import Settings  # noqa: E402
from optimizer_jobs.technique import Applied, Context, Params, TrainingPlan  # noqa: E402
from optimizer_jobs.techniques import distillation  # noqa: E402
from retune.api.model import Task  # noqa: E402
from retune.api.techniques import Distillation, Technique, TechniqueType  # noqa: E402
from tests.unit.jobs import graphs_for_tests as graphs  # noqa: E402
from tests.unit.jobs import models_for_tests as models  # noqa: E402
from tests.unit.jobs.estimators_for_tests import Split, answers, context, delivered, split  # noqa: E402

pytestmark = pytest.mark.torch

SPEC = Technique(name="distil", type=TechniqueType.DISTILLATION)
STUDENT: Params = {"width": 24, "depth": 2, "teacher_weight": 0.7, "epochs": 60}
QUICK: Params = {"learning_rate": 1e-2}
FEW = 200


def _rows(split: str) -> Rows:
    pixels, labels = models.digits(split)
    return Rows(inputs={"x": pixels}, labels=labels, digest="")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional network that has learned digits, as an ONNX file."""
    from optimizer_jobs.nets.catalogue import pixels_convnet

    target = tmp_path_factory.mktemp("teacher") / "model.onnx"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, rows = pixels_convnet(side=8, outputs=10, width=32, depth=3), _rows("training")
    settings = Settings(epochs=6, learning_rate=3e-3)
    train(module, rows, _rows("validation"), task=Task.CLASSIFICATION, settings=settings, seed=0, threads=1)
    export(module, signature=models.subject().signature, examples={"x": rows.inputs["x"][:4]}, target=target)
    return target


def _taught(teacher: Path, folder: Path, params: Params, *, seed: int = 0, **changes: Any) -> Applied:
    folder.mkdir()
    rows = _rows("training").take(slice(90 * seed, 90 * seed + FEW))
    context = Context(
        workdir=folder,
        signature=check_onnx(teacher),
        training=rows,
        validation=_rows("validation"),
        seed=seed,
        cpu_flags=frozenset(),
    )
    plan: TrainingPlan = {TechniqueType.DISTILLATION: params, TechniqueType.HYPERPARAMETER_TUNING: QUICK}
    outcome = fit(teacher, plan, dataclasses.replace(context, **changes))
    assert isinstance(outcome, Applied), outcome
    return outcome


def _accuracy(model: Path) -> float:
    rows = _rows("test")
    scores = open_model(model, EngineOptions()).run(dict(rows.inputs))["scores"]
    return float((scores.argmax(1) == rows.labels).mean())


def _unlike(student: Path, teacher: Path) -> float:
    """Return how far two files' features are from each other on rows that none has seen."""
    inputs = (torch.from_numpy(_rows("test").inputs["x"][:128]),)
    return float(unlike(features_of(student)(inputs), features_of(teacher)(inputs)))


def test_hidden_features_become_like_the_teachers(teacher: Path, tmp_path: Path) -> None:
    """On unseen digits rows are alike for the student as for its teacher, and few rows to learn from go further."""
    found = {
        weight: [
            _taught(teacher, tmp_path / f"{weight}-{seed}", STUDENT | {"feature_weight": weight}, seed=seed)
            for seed in range(3)
        ]
        for weight in (0.0, 5.0)
    }
    assert "answers and hidden features" in found[5.0][0].summary
    assert "features" not in found[0.0][0].summary
    apart = {weight: np.mean([_unlike(one.model, teacher) for one in made]) for weight, made in found.items()}
    assert apart[5.0] < 0.6 * apart[0.0]
    read = {weight: np.mean([_accuracy(one.model) for one in made]) for weight, made in found.items()}
    assert read[5.0] >= read[0.0]


def test_student_of_features_is_the_same_again_and_ordinary(teacher: Path, tmp_path: Path) -> None:
    """The same bytes, and the same graph as that of a student of answers: nothing of the watching stays."""
    params = STUDENT | {"epochs": 2, "feature_weight": 5.0}
    first, second = (_taught(teacher, tmp_path / name, params).model for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    plain = _taught(teacher, tmp_path / "plain", STUDENT | {"epochs": 2}).model
    assert [node.op_type for node in onnx.load(first).graph.node] == [
        node.op_type for node in onnx.load(plain).graph.node
    ]
    assert check_onnx(first) == check_onnx(teacher)


def test_features_follow_learned_hyperparameters(teacher: Path, tmp_path: Path) -> None:
    """Hyperparameters are found by the gradient of a training that compares features, too."""
    made = _taught(
        teacher,
        tmp_path / "work",
        STUDENT | {"epochs": 6, "feature_weight": 5.0, "learned": True},
        training=_rows("training").take(slice(0, 128)),
    )
    assert "answers and hidden features" in made.summary
    assert "learning rate" in made.summary


def test_teacher_that_cannot_be_taken_apart_teaches_its_answers_and_says_so(tmp_path: Path) -> None:
    """A recurrent network: the student is trained, and the outcome names the operator."""
    strange = graphs.save("recurrent", tmp_path / "gru.onnx", dynamo=False)
    reason = "the model has operator GRU, which cannot be trained again"
    assert without_features(strange) == reason
    subject = dataclasses.replace(models.subject(), graph=onnx.load(strange))
    told = distillation.defaults(SPEC, subject)[0]
    params = distillation.suggest(FixedTrial(told), SPEC, subject)
    assert params is not None
    assert "distil.feature_weight" not in told
    made = _taught(strange, tmp_path / "work", params | {"epochs": 1})
    assert f"answers without hidden features: {reason}" in made.summary


def test_search_tries_features_where_a_model_shows_them() -> None:
    """Answers and features first, answers alone next, labels alone last; never where the spec says so."""
    subject = models.subject()
    tried = [
        distillation.suggest(FixedTrial(told), SPEC, subject) or {} for told in distillation.defaults(SPEC, subject)
    ]
    assert [distillation.describe(params).rpartition(", ")[2] for params in tried] == [
        "taught by answers 0.7 and hidden features",
        "taught by answers 0.7",
        "from labels alone",
    ]
    assert [params.get("feature_weight") for params in tried] == [5.0, None, None]
    never = SPEC.model_copy(update={"distillation": Distillation(features="Never")})
    assert not [name for told in distillation.defaults(never, subject) for name in told if "feature" in name]
    embedding = dataclasses.replace(subject, task=Task.EMBEDDING)
    (told,) = distillation.defaults(SPEC, embedding)
    assert "feature_weight" not in (distillation.suggest(FixedTrial(told), SPEC, embedding) or {})


def test_likeness_does_not_depend_on_the_number_of_features() -> None:
    """Turned, scaled and in more dimensions, features are the same to it; other rows are not."""
    rows = torch.from_numpy(_rows("test").inputs["x"][:32])
    turn, _ = torch.linalg.qr(torch.randn(96, 64, generator=torch.Generator().manual_seed(0)))
    assert float(unlike(3 * rows @ turn.T, rows)) == pytest.approx(0, abs=1e-9)
    assert float(unlike(rows.flip(0), rows)) > 0.01


@pytest.fixture(scope="module")
def bayes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Converted, Split]:
    """A classifier that takes pixels for independent, delivered as a skops file."""
    data = split("digits")
    return delivered(GaussianNB().fit(data.X, data.y), data, tmp_path_factory.mktemp("bayes")), data


def _right(model: Path, data: Split) -> float:
    return float(np.mean(answers(model, data.validation.inputs)["label"] == data.validation.labels))


def test_student_of_an_estimator_learns_from_the_prepared_one(bayes: tuple[Converted, Split], tmp_path: Path) -> None:
    """Principal components make this teacher better; its student, which takes plain pixels, learns that from it."""
    made, data = bayes
    lesson: Params = {"width": 32, "depth": 1, "teacher_weight": 1.0, "epochs": 20}
    plans: dict[str, TrainingPlan] = {
        "plain": {TechniqueType.DISTILLATION: lesson},
        "prepared": {TechniqueType.DATA_PREPARATION: {"PCA": 0.95}, TechniqueType.DISTILLATION: lesson},
    }
    outcomes = {name: fit_plan(made.model, plan, context(made, data, tmp_path / name)) for name, plan in plans.items()}
    plain, prepared = outcomes["plain"], outcomes["prepared"]
    assert isinstance(plain, Applied)
    assert isinstance(prepared, Applied)
    assert "; teacher trained with PCA 0.95: " in prepared.summary
    assert _right(prepared.model, data) > _right(plain.model, data) + 0.04
    assert check_onnx(prepared.model) == made.signature


def test_teacher_that_gets_no_better_teaches_as_delivered(bayes: tuple[Converted, Split], tmp_path: Path) -> None:
    """The outcome says so, with both numbers."""
    made, data = bayes
    plan: TrainingPlan = {
        TechniqueType.HYPERPARAMETER_TUNING: {"var_smoothing": 1e-15},
        TechniqueType.DISTILLATION: {"width": 8, "depth": 1, "teacher_weight": 1.0, "epochs": 2},
    }
    outcome = fit_plan(made.model, plan, context(made, data, tmp_path / "work"))
    assert isinstance(outcome, Applied)
    assert "; teacher as delivered (it gave 0." in outcome.summary


def test_shape_of_a_network_is_the_students_own(teacher: Path, tmp_path: Path) -> None:
    """A plan that also changes the delivered network's shape cannot have both, and the outcome says so."""
    rows = _rows("training").take(slice(0, 64))
    work = Context(workdir=tmp_path, signature=check_onnx(teacher), training=rows, seed=0, cpu_flags=frozenset())
    plan: TrainingPlan = {TechniqueType.ARCHITECTURE: {"width": 8}, TechniqueType.DISTILLATION: STUDENT | {"epochs": 1}}
    outcome = fit_plan(teacher, plan, work)
    assert isinstance(outcome, Applied)
    assert "of a shape of its own: that of the model is not changed" in outcome.summary
