"""Hyperparameters and architecture as techniques: what they offer, what they refuse, and what users bound."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest
from optuna import create_study
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from optimizer_jobs.machinery.estimators.convert import to_onnx
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.nets.learning.settings import LIMITS, Settings, wrong
from optimizer_jobs.signature import TEXT, TensorSpec
from optimizer_jobs.technique import Params, Subject
from optimizer_jobs.techniques import architecture, data_preparation, hyperparameter_tuning
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.model import ModelFormat, Task
from retune.api.own_code import Factory
from retune.api.techniques import Parameter, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec
from tests.unit.jobs import models_for_tests as models

TUNE = TechniqueSpec(name="tune", type=TechniqueType.HYPERPARAMETER_TUNING)
PREPARE = TechniqueSpec(name="prepare", type=TechniqueType.DATA_PREPARATION)
SHAPE = TechniqueSpec(name="shape", type=TechniqueType.ARCHITECTURE)

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="only the optimizer image has torch")


def _subject(*, task: Task = Task.CLASSIFICATION, factory: bool = True, training: bool = True) -> Subject:
    arguments = [
        {"name": name, "value": value} for name, value in {"inputs": "64", "outputs": "10", "width": "32"}.items()
    ]
    built_by = Factory.model_validate({"entryPoint": "optimizer_jobs.nets.catalogue:mlp", "arguments": arguments})
    native = Native(Path("model.safetensors"), ModelFormat.SAFETENSORS, built_by) if factory else None
    small = models.subject()
    return Subject(graph=small.graph, signature=small.signature, task=task, training=training, native=native)


def _tuned(**settings: Any) -> TechniqueSpec:
    return TechniqueSpec.model_validate({"name": "tune", "type": "HyperparameterTuning", "tuning": settings})


def _shaped(*parameters: Parameter) -> TechniqueSpec:
    return TechniqueSpec.model_validate(
        {
            "name": "shape",
            "type": "Architecture",
            "architecture": {"parameters": [one.model_dump(mode="json", exclude_none=True) for one in parameters]},
        }
    )


def _drawn(technique: Any, spec: TechniqueSpec, subject: Subject, *, count: int = 40) -> list[Params | None]:
    study = create_study(sampler=RandomSampler(seed=0))
    return [technique.suggest(study.ask(), spec, subject) for _ in range(count)]


@pytest.mark.parametrize(
    "technique, spec",
    [(hyperparameter_tuning, TUNE), pytest.param(architecture, SHAPE, marks=[needs_torch, pytest.mark.torch])],
)
def test_defaults_and_off_tell_a_trial_all_that_it_is_asked(technique: Any, spec: TechniqueSpec) -> None:
    """A fixed trial raises for a parameter that it was not told; off is off, and every default is something."""
    subject = _subject()
    assert technique.suggest(FixedTrial(technique.off(spec, subject)), spec, subject) is None
    chosen = [technique.suggest(FixedTrial(told), spec, subject) for told in technique.defaults(spec, subject)]
    assert len(chosen) == len({str(params) for params in chosen}) >= 1
    assert all(params and technique.describe(params) for params in chosen)
    assert TECHNIQUES[spec.type] is technique
    assert technique.TRAINS


def test_plain_retraining_comes_first_then_the_gradient_then_a_new_start() -> None:
    """The first variant is what a run with drifted data wants."""
    subject = _subject()
    chosen = [
        hyperparameter_tuning.suggest(FixedTrial(told), TUNE, subject) or {}
        for told in hyperparameter_tuning.defaults(TUNE, subject)
    ]
    assert Settings.of(chosen[0]) == Settings()
    assert [params.get("learned", False) for params in chosen] == [False, True, True]
    assert [params["start"] for params in chosen] == ["Delivered", "Delivered", "Scratch"]
    assert [hyperparameter_tuning.describe(params) for params in chosen] == [
        "trained on",
        "trained on, hyperparameters by gradient",
        "trained from scratch, hyperparameters by gradient",
    ]


def test_every_suggestion_is_a_setting_that_training_takes() -> None:
    """Nothing is named that nobody honours."""
    for task in (Task.CLASSIFICATION, Task.REGRESSION):
        for params in _drawn(hyperparameter_tuning, TUNE, _subject(task=task)):
            if params is not None:
                assert set(params) <= {*LIMITS, "start", "learned"}
                assert not [
                    wrong(name, value) for name, value in params.items() if wrong(name, value) and name in LIMITS
                ]
                assert ("label_smoothing" in params) <= (task is Task.CLASSIFICATION)


def test_what_the_user_bounds_is_all_that_is_searched() -> None:
    """Within the bounds, and without a gradient that could leave them."""
    spec = _tuned(
        parameters=[
            {"name": "learning_rate", "min": "0.01", "max": "0.02", "log": True},
            {"name": "batch_size", "values": ["8", "64"]},
        ]
    )
    drawn = [params for params in _drawn(hyperparameter_tuning, spec, _subject()) if params is not None]
    assert drawn
    for params in drawn:
        assert set(params) == {"start", "learning_rate", "batch_size"}
        assert 0.01 <= float(params["learning_rate"]) <= 0.02
        assert params["batch_size"] in {8, 64}


def test_the_gradient_can_be_switched_off() -> None:
    """As the spec says."""
    drawn = _drawn(hyperparameter_tuning, _tuned(gradient="Never"), _subject())
    assert not any(params and params.get("learned") for params in drawn)


@pytest.mark.parametrize(
    "parameter, says",
    [
        (
            {"name": "learning_rte", "values": ["1"]},
            "hyperparameter learning_rte is not known; known are learning_rate",
        ),
        (
            {"name": "learning_rate", "min": "0", "max": "20"},
            "hyperparameter learning_rate must be between 1e-08 and 10",
        ),
        ({"name": "epochs", "values": ["many"]}, "hyperparameter epochs must be a whole number, not 'many'"),
        ({"name": "epochs", "values": ["[3]"]}, "parameter epochs has value [3]"),
    ],
)
@needs_torch
def test_a_hyperparameter_that_cannot_be_is_refused_before_a_trial(parameter: dict[str, Any], says: str) -> None:
    """With its name and what is allowed."""
    assert says in str(hyperparameter_tuning.unavailable(_subject(), _tuned(parameters=[parameter])))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"training": False}, "set data.training"),
        ({"task": Task.EMBEDDING}, "an embedding has no labels"),
    ],
)
@pytest.mark.parametrize("technique, spec", [(hyperparameter_tuning, TUNE), (architecture, SHAPE)])
@needs_torch
def test_a_model_that_cannot_be_trained_says_why(
    technique: Any, spec: TechniqueSpec, changes: dict[str, Any], says: str
) -> None:
    """The reason is shown to the user as it is."""
    assert says in technique.unavailable(_subject(**changes), spec)


def test_without_torch_networks_are_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image without it still optimizes in other ways."""
    monkeypatch.setattr("optimizer_jobs.machinery.training.fit.find_spec", lambda _: None)
    assert "no torch" in str(hyperparameter_tuning.unavailable(_subject(), TUNE))


@needs_torch
@pytest.mark.torch
class TestArchitecture:
    """What needs the factory itself."""

    def test_sizes_are_known_by_their_names(self) -> None:
        """Width and depth around those delivered; inputs and outputs never change."""
        drawn = [params for params in _drawn(architecture, SHAPE, _subject(), count=150) if params is not None]
        assert {name for params in drawn for name in params} == {"width", "depth", "dropout"}
        assert {params["width"] for params in drawn if "width" in params} == {4, 8, 16, 48}
        first = architecture.suggest(FixedTrial(architecture.defaults(SHAPE, _subject())[0]), SHAPE, _subject())
        assert first == {"width": 16}
        assert architecture.describe({"width": 16, "depth": 1}) == "width 16, depth 1"

    def test_arguments_the_user_names_are_searched(self) -> None:
        """Any argument of the factory, whatever its name."""
        spec = _shaped(Parameter(name="activation", values=("relu", "gelu")))
        assert architecture.unavailable(_subject(), spec) is None
        assert {str(params) for params in _drawn(architecture, spec, _subject())} == {"None", "{'activation': 'gelu'}"}

    def test_an_argument_the_factory_lacks_is_refused(self) -> None:
        """With those it has."""
        reason = architecture.unavailable(_subject(), _shaped(Parameter(name="widht", values=("3",))))
        assert (
            reason == "the factory takes no argument widht; it takes inputs, outputs, width, depth, dropout, activation"
        )

    def test_an_onnx_file_alone_has_one_shape(self) -> None:
        """And the reason says what has more."""
        assert "format SafeTensors" in str(architecture.unavailable(_subject(factory=False), SHAPE))


@needs_torch
@pytest.mark.torch
def test_an_operator_that_cannot_be_imported_is_named() -> None:
    """ONNX with operators that torch has not."""
    subject = _subject(factory=False)
    assert hyperparameter_tuning.unavailable(subject, TUNE) is None
    strange = onnx.ModelProto()
    strange.CopyFrom(subject.graph)
    strange.graph.node[0].op_type = "TreeEnsembleClassifier"
    strange.graph.node[0].domain = "ai.onnx.ml"
    reason = hyperparameter_tuning.unavailable(Subject(**{**vars(subject), "graph": strange}), TUNE)
    assert "TreeEnsembleClassifier" in str(reason)


def _of_texts(folder: Path, step: Any) -> Subject:
    """Return an estimator of a column of text, after this step, as a search sees it."""
    frame = pd.DataFrame({"text": ["good and new", "bad and old", "new", "old"] * 10})
    taken = frame["text"] if isinstance(step, TfidfVectorizer) else frame
    estimator = make_pipeline(step, LogisticRegression()).fit(taken, [1, 0, 1, 0] * 10)
    text, path = TensorSpec(name="text", dtype=TEXT, shape=(-1, 1)), folder / "model.onnx"
    rows = {"text": frame.to_numpy(dtype=object)}
    to_onnx(estimator, [text], target=path, rows=rows, delivered=False)
    return Subject(
        graph=onnx.load(path),
        signature=check_onnx(path),
        task=Task.CLASSIFICATION,
        native=Native(folder / "model.joblib", ModelFormat.JOBLIB),
        training=True,
    )


@pytest.mark.parametrize("step", [TfidfVectorizer(), ColumnTransformer([("text", TfidfVectorizer(), "text")])])
def test_preparation_of_texts_leaves_the_search_before_its_first_trial(step: Any, tmp_path: Path) -> None:
    """There is nothing to scale or select before words are counted, however the vectorizer comes by the column."""
    reason = data_preparation.unavailable(_of_texts(tmp_path, step), PREPARE)
    assert reason == "the rows are texts, for which there are no such steps"


def test_a_column_of_categories_is_neither_filled_nor_encoded_anew(tmp_path: Path) -> None:
    """The pipeline does that itself; its codes can still be scaled and selected."""
    categories = _of_texts(tmp_path, OneHotEncoder())
    assert data_preparation.unavailable(categories, PREPARE) is None
    told = data_preparation.off(PREPARE, categories)
    assert not {"prepare.Imputation", "prepare.Encoding"} & told.keys()
    assert "prepare.Scaling" in told
