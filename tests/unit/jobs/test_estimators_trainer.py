"""Training estimators anew: the same inputs and outputs, the same bytes, and only what is worth it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from optuna.trial import FixedTrial
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.estimators.load import load
from optimizer_jobs.machinery.formats.base import Converted
from optimizer_jobs.machinery.training import estimator_spaces as spaces
from optimizer_jobs.machinery.training.estimators import fit
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.technique import Applied, Skipped, StoppedEarlyError, Subject, TrainingPlan
from optimizer_jobs.techniques import architecture, data_preparation, hyperparameter_tuning
from retune.api.model import ModelFormat, Task
from retune.api.techniques import Parameter, Technique, TechniqueType
from tests.unit.jobs.estimators_for_tests import Split, answers, context, delivered, split

pytest.importorskip("skops.io")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

FEWER: TrainingPlan = {TechniqueType.ARCHITECTURE: {"n_estimators": 20}}


def _forest(folder: Path) -> tuple[Converted, Split]:
    data = split("digits")
    return delivered(RandomForestClassifier(60, random_state=0).fit(data.X, data.y), data, folder), data


def _subject(made: Converted, task: Task = Task.CLASSIFICATION) -> Subject:
    return Subject(
        graph=onnx.load(made.model),
        signature=made.signature,
        task=task,
        native=made.native,
        training=True,
        calibration=True,
    )


def _accuracy(model: Path, rows: Rows) -> float:
    return float(np.mean(answers(model, rows.inputs)["label"] == rows.labels))


def test_fewer_trees_make_a_smaller_file_with_the_same_signature(tmp_path: Path) -> None:
    """A third of the trees is a third of the file, and the native file is the same model."""
    made, data = _forest(tmp_path)
    outcome = fit(made.model, FEWER, context(made, data, tmp_path / "work"))
    assert isinstance(outcome, Applied)
    assert check_onnx(outcome.model) == made.signature
    assert outcome.model.stat().st_size < 0.4 * made.model.stat().st_size
    assert _accuracy(outcome.model, data.validation) > 0.93
    assert outcome.native is not None
    again = load(Native(outcome.native, ModelFormat.SKOPS)).estimator
    assert np.array_equal(again.predict(data.unseen), answers(outcome.model, data.validation.inputs)["label"])
    assert again.n_estimators == len(again.estimators_) == 20


def test_the_same_plan_gives_the_same_bytes_watched_or_not(tmp_path: Path) -> None:
    """A result can stand for a new one, whoever watched the training."""
    made, data = _forest(tmp_path)
    work = context(made, data, tmp_path / "one")
    seen: list[tuple[int, float]] = []
    first = fit(made.model, FEWER, work)
    (tmp_path / "two").mkdir()
    watched = dataclasses.replace(work, workdir=tmp_path / "two", report=lambda *told: seen.append(told))
    second = fit(made.model, FEWER, watched)
    assert isinstance(first, Applied)
    assert isinstance(second, Applied)
    assert first.model.read_bytes() == second.model.read_bytes()
    assert first.native is not None
    assert second.native is not None
    assert first.native.read_bytes() == second.native.read_bytes()
    assert [stage for stage, _ in seen] == [1, 2, 3, 4]


def test_a_forest_that_falls_behind_is_given_up(tmp_path: Path) -> None:
    """The word to stop passes through untouched, before the whole forest is grown."""
    made, data = _forest(tmp_path)
    stages = []

    def stop(stage: int, _quality: float) -> None:
        stages.append(stage)
        raise StoppedEarlyError

    work = dataclasses.replace(context(made, data, tmp_path / "work"), report=stop)
    with pytest.raises(StoppedEarlyError):
        fit(made.model, FEWER, work)
    assert stages == [1]


def test_tuning_that_gains_nothing_says_so(tmp_path: Path) -> None:
    """A penalty that drowns the data is not taken, and the reason has both numbers."""
    data = split("wine")
    made = delivered(make_pipeline(StandardScaler(), LogisticRegression()).fit(data.X, data.y), data, tmp_path)
    plan: TrainingPlan = {TechniqueType.HYPERPARAMETER_TUNING: {"logisticregression__C": 1e-9}}
    outcome = fit(made.model, plan, context(made, data, tmp_path / "work"))
    assert isinstance(outcome, Skipped)
    assert "on validation, no better than" in outcome.reason


def test_better_probabilities_are_a_gain_where_the_answers_are_right_as_often(tmp_path: Path) -> None:
    """A weaker penalty leaves the accuracy of digits and takes two fifths off the log-loss: the model is taken."""
    data = split("digits")
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(data.X, data.y)
    made = delivered(fitted, data, tmp_path)
    plan: TrainingPlan = {TechniqueType.HYPERPARAMETER_TUNING: {"logisticregression__C": 1.0}}
    outcome = fit(made.model, plan, context(made, data, tmp_path / "work"))
    assert isinstance(outcome, Applied)
    assert _accuracy(outcome.model, data.validation) == _accuracy(made.model, data.validation)


def test_preparation_repairs_an_estimator_that_lacks_scaling(tmp_path: Path) -> None:
    """Support vectors on unscaled wine are poor; the scaler goes into the file, whose inputs stay as they are."""
    data = split("wine")
    made = delivered(SVC().fit(data.X, data.y), data, tmp_path)
    before = _accuracy(made.model, data.validation)
    outcome = fit(
        made.model, {TechniqueType.DATA_PREPARATION: {"Scaling": "Standard"}}, context(made, data, tmp_path / "work")
    )
    assert isinstance(outcome, Applied)
    assert _accuracy(outcome.model, data.validation) > before + 0.1
    assert check_onnx(outcome.model) == made.signature
    assert "scaling Standard" in outcome.summary


@pytest.mark.parametrize(
    "value",
    [
        {"Imputation": "Median"},
        {"Binning": 4},
        {"Interactions": "Products"},
        {"Interactions": "Polynomial"},
        {"Scaling": "MinMax"},
        {"Scaling": "Robust"},
        {"Scaling": "Power"},
        {"Selection": 0.5},
        {"PCA": 0.9},
        {"Scaling": "None"},
        {"Scaling": "Standard", "Interactions": "Products", "Selection": 0.5, "PCA": 0.95},
    ],
)
def test_every_step_goes_into_the_file_or_says_why_not(value: dict[str, Any], tmp_path: Path) -> None:
    """Steps replace delivered ones of their kind; served rows go through what training rows went through."""
    data = split("breast_cancer")
    poor = make_pipeline(StandardScaler(), LogisticRegression(C=1e-5)).fit(data.X, data.y)
    made = delivered(poor, data, tmp_path)
    plan: TrainingPlan = {
        TechniqueType.DATA_PREPARATION: value,
        TechniqueType.HYPERPARAMETER_TUNING: {"logisticregression__C": 1.0},
    }
    outcome = fit(made.model, plan, context(made, data, tmp_path / "work"))
    assert isinstance(outcome, Applied)
    assert outcome.native is not None
    estimator = load(Native(outcome.native, ModelFormat.SKOPS)).estimator
    kinds = [type(step).__name__ for _, step in estimator.steps]
    assert len(kinds) == len(set(kinds))
    assert ("StandardScaler" in kinds) == (value.get("Scaling", "Standard") == "Standard")
    assert np.mean(answers(outcome.model, data.validation.inputs)["label"] == estimator.predict(data.unseen)) >= 0.99


def test_holes_are_filled_in_the_file_as_in_training(tmp_path: Path) -> None:
    """Another way to fill missing values replaces the delivered one, and requests with holes get answers."""
    data = split("wine")
    chance = np.random.default_rng(0)
    X, unseen = (np.where(chance.random(rows.shape) < 0.1, np.nan, rows) for rows in (data.X, data.unseen))
    holes = Split(X, data.y, unseen, data.unseen_labels)
    delivered_with = make_pipeline(SimpleImputer(strategy="constant", fill_value=-1e4), StandardScaler(), SVC())
    made = delivered(delivered_with.fit(holes.X, holes.y), holes, tmp_path)
    plan: TrainingPlan = {TechniqueType.DATA_PREPARATION: {"Imputation": "Median"}}
    outcome = fit(made.model, plan, context(made, holes, tmp_path / "work"))
    assert isinstance(outcome, Applied)
    assert _accuracy(outcome.model, holes.validation) > _accuracy(made.model, holes.validation)


def test_a_regressor_keeps_its_output(tmp_path: Path) -> None:
    """Numbers stay one column a row, and interactions explain more of diabetes than a heavy penalty did."""
    data = split("diabetes")
    made = delivered(Ridge(alpha=100).fit(data.X, data.y), data, tmp_path, task=Task.REGRESSION)
    plan: TrainingPlan = {TechniqueType.HYPERPARAMETER_TUNING: {"alpha": 0.1}}
    outcome = fit(made.model, plan, context(made, data, tmp_path / "work", task=Task.REGRESSION))
    assert isinstance(outcome, Applied)
    assert [(one.name, one.shape) for one in check_onnx(outcome.model).outputs] == [("value", (-1, 1))]


def test_a_class_that_training_rows_lack_is_no_reason_to_drop_it(tmp_path: Path) -> None:
    """The outputs would change, so the training is not taken."""
    data = split("wine")
    made = delivered(make_pipeline(StandardScaler(), LogisticRegression()).fit(data.X, data.y), data, tmp_path)
    some = data.training.take(data.y != 2)
    work = dataclasses.replace(context(made, data, tmp_path / "work"), training=some)
    outcome = fit(made.model, {TechniqueType.HYPERPARAMETER_TUNING: {"logisticregression__C": 10.0}}, work)
    assert isinstance(outcome, Skipped)
    assert "every class" in outcome.reason


@pytest.mark.parametrize("technique", [hyperparameter_tuning, architecture, data_preparation])
def test_what_a_study_tries_first_can_be_trained(technique: Any, tmp_path: Path) -> None:
    """Every default of every technique is a plan that trains or says why not."""
    data = split("wine")
    network = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=50, random_state=0))
    made = delivered(network.fit(data.X, data.y), data, tmp_path)
    subject, spec = _subject(made), Technique(name="step", type=technique.TYPE)
    assert technique.unavailable(subject, spec) is None
    assert technique.suggest(FixedTrial(technique.off(spec, subject)), spec, subject) is None
    defaults = technique.defaults(spec, subject)
    assert defaults
    for number, told in enumerate(defaults):
        params = technique.suggest(FixedTrial(told), spec, subject)
        assert params
        assert technique.describe(params)
        outcome = fit(made.model, {technique.TYPE: params}, context(made, data, tmp_path / f"work{number}"))
        assert isinstance(outcome, Applied | Skipped)
        assert not (isinstance(outcome, Skipped) and "cannot be trained" in outcome.reason)


def test_known_spaces_start_at_what_was_delivered(tmp_path: Path) -> None:
    """Names carry the step of the pipeline, and smaller ensembles are offered beside the delivered one."""
    data = split("wine")
    made = delivered(
        make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=40, max_depth=2)).fit(data.X, data.y),
        data,
        tmp_path,
    )
    found = spaces.hyperparameters(made.native, None)
    assert found.first()["gradientboostingclassifier__learning_rate"] == 0.1
    sizes = {one.name: one.values for one in spaces.architecture(made.native, None).parameters}
    assert sizes["gradientboostingclassifier__n_estimators"] == ("2", "4", "10", "20", "40", "60")
    assert spaces.architecture(made.native, None).first()["gradientboostingclassifier__n_estimators"] == 40


@pytest.mark.parametrize(
    "parameter, says",
    [
        (Parameter(name="C", min="0.1", max="10"), None),
        (Parameter(name="class_weight", values=("None", '"balanced"')), None),
        (Parameter(name="depth", values=("1",)), "takes no parameter depth; it takes C,"),
        (Parameter(name="n_jobs", values=("4",)), "is set by Retune itself"),
        (Parameter(name="C", values=("-1",)), "must be a float in the range"),
        (Parameter(name="solver", values=('"magic"',)), "must be a str among"),
    ],
)
def test_what_a_user_names_is_checked(parameter: Parameter, says: str | None, tmp_path: Path) -> None:
    """A mistake is found before a run is spent on it, in words that tell what is possible."""
    data = split("wine")
    made = delivered(
        LogisticRegression().fit(data.X / 100, data.y), dataclasses.replace(data, unseen=data.unseen / 100), tmp_path
    )
    reason = spaces.unknown(made.native, (parameter,))
    assert reason is None if says is None else says in str(reason)
