"""Files of estimators as hostile input: nothing in them runs, nothing in them expands, nothing in them leads astray."""

import io as streams
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.estimators.load import load
from optimizer_jobs.machinery.estimators.save import save
from optimizer_jobs.machinery.estimators.soundness import UnsoundError, make_sound
from optimizer_jobs.machinery.formats.sandbox import Sample, convert_in_sandbox
from optimizer_jobs.models.native import Native
from retune.api.model import DatasetFormat, ModelFormat, Task
from retune.contract.results import Reason
from tests.unit.jobs.estimators_for_tests import delivered, split

skops = pytest.importorskip("skops.io")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

Json = dict[str, Any]


class _Runs:
    """Unpickled, it does something."""

    def __init__(self, does: Callable[..., Any], *arguments: Any) -> None:
        self._does = (does, arguments)

    def __reduce__(self) -> Any:
        return self._does


def _fitted(estimator: Any) -> Any:
    data = split("wine")
    return make_pipeline(StandardScaler(), estimator).fit(data.X, data.y)


def _skops(path: Path, estimator: Any) -> Native:
    skops.dump(estimator, path)
    return Native(path, ModelFormat.SKOPS)


def _edited(native: Native, edit: Callable[[Json], None]) -> Native:
    """Return the skops file with its description changed, as an attacker would."""
    with zipfile.ZipFile(native.path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(content["schema.json"])
    edit(schema)
    content["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(native.path, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return native


def _refusal(native: Native, *, trusted: bool = False) -> JobError:
    with pytest.raises(JobError) as caught:
        load(native, trusted=trusted)
    return caught.value


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        RandomForestClassifier(5),
        HistGradientBoostingClassifier(max_iter=3),
        MLPClassifier((8,), max_iter=20),
        KNeighborsClassifier(),
    ],
)
def test_usual_estimators_open_without_trust(estimator: Any, tmp_path: Path) -> None:
    """Their inner parts are known to be harmless, and answers are as before."""
    data = split("wine")
    fitted = _fitted(estimator)
    opened = load(_skops(tmp_path / "model.skops", fitted)).estimator
    assert np.array_equal(opened.predict(data.unseen), fitted.predict(data.unseen))


def test_columns_chosen_by_their_type_open_without_trust(tmp_path: Path) -> None:
    """Columns of text are chosen by type `object`, in half of all tutorials."""
    table = pd.DataFrame({"city": ["a", "b", "a", "c"] * 10, "size": np.arange(40.0)}).astype({"city": object})
    chosen = make_column_transformer((OneHotEncoder(), make_column_selector(dtype_include=object)))
    fitted = make_pipeline(chosen, LogisticRegression()).fit(table, np.arange(40) % 2)
    opened = load(_skops(tmp_path / "model.skops", fitted)).estimator
    assert np.array_equal(opened.predict(table), fitted.predict(table))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (FixedThresholdClassifier(LogisticRegression(), threshold=0.3), "0.3"),
        (FixedThresholdClassifier(LogisticRegression()), "0.5"),
        (TunedThresholdClassifierCV(LogisticRegression(), cv=2, random_state=0), "best_threshold_"),
        (FixedThresholdClassifier(LogisticRegression(), threshold=0.3, pos_label=0), None),
        (FixedThresholdClassifier(LogisticRegression(), threshold=2.5, response_method="decision_function"), None),
        (FixedThresholdClassifier(SVC(), threshold=0.3), None),
    ],
)
def test_a_classifier_with_a_threshold_is_told_how_to_deliver_both(made: Any, told: str | None, tmp_path: Path) -> None:
    """Its labels are not those of its probabilities; the spec has a place for one on the second class's probability."""
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 3))
    fitted = made.fit(X, (X[:, 0] + random.normal(size=200) > 1).astype(int))
    joblib.dump(fitted, tmp_path / "model.joblib")
    error = _refusal(Native(tmp_path / "model.joblib", ModelFormat.JOBLIB), trusted=True)
    assert f"{type(made).__name__} is another classifier with a threshold" in error.message
    threshold = "" if told is None else f', and set model.threshold: "{getattr(fitted, told, told)}"'
    assert error.next_step == f"Deliver its estimator_{threshold}."


def test_the_best_of_a_finished_search_is_the_estimator(tmp_path: Path) -> None:
    """A search object is how many people save what they found."""
    data = split("wine")
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]})
    opened = load(_skops(tmp_path / "model.skops", search.fit(data.X, data.y))).estimator
    assert opened.steps[-1][1].C in {0.1, 1}


def test_a_planted_function_is_named_and_not_called(tmp_path: Path) -> None:
    """The file is refused for the type, before anything of it is built."""

    def plant(schema: Json) -> None:
        schema["content"]["content"]["verbose"] = {
            "__class__": "system",
            "__module__": "os",
            "__loader__": "FunctionNode",
        }

    refusal = _refusal(_edited(_skops(tmp_path / "model.skops", _fitted(LogisticRegression())), plant))
    assert refusal.reason is Reason.MODEL_INVALID
    assert "os.system" in refusal.message
    assert "skops.io.dump" in refusal.next_step


@pytest.mark.parametrize(
    "field, number", [("left_child", 10**9), ("right_child", -7), ("feature", 10**6), ("left_child", 0)]
)
def test_a_tree_that_leads_out_of_itself_is_refused(field: str, number: int, tmp_path: Path) -> None:
    """Compiled code would follow such a number into foreign memory, or in circles."""
    fitted = _fitted(RandomForestClassifier(3, random_state=0))
    tree = fitted.steps[-1][1].estimators_[1].tree_
    state = tree.__getstate__()
    state["nodes"][field][0] = number
    tree.__setstate__(state)
    refusal = _refusal(_skops(tmp_path / "model.skops", fitted))
    assert refusal.reason is Reason.MODEL_INVALID
    assert "a tree" in refusal.message


def test_a_tree_that_claims_more_nodes_than_it_has_is_refused() -> None:
    """The count is as untrusted as the nodes."""
    fitted = _fitted(RandomForestClassifier(3, random_state=0))
    tree = fitted.steps[-1][1].estimators_[0].tree_
    tree.__setstate__(tree.__getstate__() | {"node_count": 1000})
    with pytest.raises(UnsoundError, match="claims 1000 nodes"):
        make_sound(fitted)


def test_a_histogram_tree_that_leads_out_of_itself_is_refused(tmp_path: Path) -> None:
    """The same for the other kind of tree."""
    fitted = _fitted(HistGradientBoostingClassifier(max_iter=2))
    fitted.steps[-1][1]._predictors[0][0].nodes["right"][0] = 10**6
    assert "a tree" in _refusal(_skops(tmp_path / "model.skops", fitted)).message


def test_an_archive_that_would_fill_the_memory_is_not_expanded(tmp_path: Path) -> None:
    """What it claims to hold is summed up first."""
    path = tmp_path / "model.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", "{}")
        archive.writestr("0.npy", b"0" * 1000)
        archive.filelist[-1].file_size = 1 << 40
    refusal = _refusal(Native(path, ModelFormat.SKOPS))
    assert refusal.reason is Reason.MODEL_TOO_LARGE
    assert "expands to" in refusal.message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x05N."])
def test_what_is_no_skops_file_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    """Also an empty file and a pickle under another name."""
    path = tmp_path / "model.skops"
    path.write_bytes(content)
    assert "not a skops file" in _refusal(Native(path, ModelFormat.SKOPS)).message


def test_a_description_without_end_is_a_finding(tmp_path: Path) -> None:
    """Depth that breaks a parser does not break the Job."""
    path = tmp_path / "model.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", '{"protocol": 2, "a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert _refusal(Native(path, ModelFormat.SKOPS)).reason is Reason.MODEL_INVALID


def test_another_version_of_the_library_is_named(tmp_path: Path) -> None:
    """It opens, and who reads along learns of it."""

    def age(item: Any) -> None:
        if isinstance(item, dict):
            if "_sklearn_version" in item:
                item["_sklearn_version"] |= {"content": '"1.2.3"', "__id__": 1}
            for value in item.values():
                age(value)

    native = _edited(_skops(tmp_path / "model.skops", _fitted(LogisticRegression())), age)
    assert load(native).saved_with == "1.2.3"


@pytest.mark.parametrize(
    "made, says",
    [
        (LogisticRegression(), "is not fitted"),
        ({"a": 1}, "not a scikit-learn estimator"),
        (KMeans(2).fit(split("wine").X), "neither classifies nor predicts"),
    ],
)
def test_what_cannot_answer_is_refused(made: Any, says: str, tmp_path: Path) -> None:
    """A file that opens may still not be a model."""
    assert says in _refusal(_skops(tmp_path / "model.skops", made)).message


@pytest.mark.parametrize("format_, dump", [(ModelFormat.PICKLE, pickle.dump), (ModelFormat.JOBLIB, joblib.dump)])
def test_a_poisoned_pickle_does_not_run_without_trust(
    format_: ModelFormat, dump: Callable[..., Any], tmp_path: Path
) -> None:
    """Without the user's word the file is not even opened; with it, the same file shows that it would have run."""
    path, trace = tmp_path / "model.pkl", tmp_path / "trace"
    with path.open("wb") as file:
        dump(_Runs(os.mkdir, str(trace)), file)
    refusal = _refusal(Native(path, format_))
    assert "runs code" in refusal.message
    assert not trace.exists()
    _refusal(Native(path, format_), trusted=True)
    assert trace.exists()


def _apart(native: Native, folder: Path) -> Any:
    data = split("wine")
    np.savez(folder / "rows.npz", x=data.unseen.astype(np.float32), label=data.unseen_labels)
    sample = Sample(path=folder / "rows.npz", format=DatasetFormat.NPZ, label="label", limit_bytes=1 << 20)
    return convert_in_sandbox(
        native, uri="pvc://models/model.pkl", task=Task.CLASSIFICATION, sample=sample, into=folder / "made"
    )


def test_a_trusted_pickle_that_kills_its_process_is_a_finding(tmp_path: Path) -> None:
    """Only the process that opens it dies."""
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(_Runs(os._exit, 7)))
    with pytest.raises(JobError, match=r"died \(exit code 7\)"):
        _apart(Native(path, ModelFormat.PICKLE), tmp_path)


def test_a_trusted_pickle_is_opened_once_and_kept_as_data(tmp_path: Path) -> None:
    """What training starts from runs no code any more."""
    path = tmp_path / "model.pkl"
    fitted = _fitted(RandomForestClassifier(5, random_state=0))
    path.write_bytes(pickle.dumps(fitted))
    made = _apart(Native(path, ModelFormat.PICKLE), tmp_path)
    assert made.native.format is ModelFormat.SKOPS
    assert made.classes == (0, 1, 2)
    data = split("wine")
    assert np.array_equal(load(made.native).estimator.predict(data.unseen), fitted.predict(data.unseen))


def test_an_estimator_of_another_task_is_refused(tmp_path: Path) -> None:
    """The task decides how quality is measured."""
    with pytest.raises(JobError, match=r"spec\.model\.task"):
        delivered(_fitted(LogisticRegression()), split("wine"), tmp_path, task=Task.REGRESSION)


def test_a_saved_estimator_has_the_same_bytes_again(tmp_path: Path) -> None:
    """Neither places in memory nor the time go into the file."""
    for number in range(2):
        save(_fitted(RandomForestClassifier(3, random_state=0)), tmp_path / str(number))
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    assert load(Native(tmp_path / "0", ModelFormat.SKOPS)).estimator is not None
    assert zipfile.is_zipfile(streams.BytesIO((tmp_path / "0").read_bytes()))
