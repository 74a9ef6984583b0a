"""The baseline Job: version 1 in the store, measured, or the one thing that is wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from onnx import helper
from skl2onnx import to_onnx

from optimizer_jobs.commands.baseline import run
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure.stats import wilson
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model, open_session
from optimizer_jobs.production.reference import of_bundle, read_reference
from retune.api.metrics import Metric
from retune.api.model import Data, Model, ModelFormat
from retune.contract.requests import BaselineRequest
from retune.contract.results import Reason, encode_result, parse_result
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.models_for_tests import digits, fit_mlp, save_graph

Ask = Callable[..., BaselineRequest]


@pytest.fixture
def ask(data: Data, store: str) -> Ask:
    """Return a baseline request for a model of claim digits, with any part replaced."""

    def request(
        model: str = "mlp.onnx", *, format_: ModelFormat = ModelFormat.ONNX, **parts: object
    ) -> BaselineRequest:
        fields = {
            "resource": "ml/digits",
            "spec_hash": "abc",
            "model": Model(uri=f"pvc://digits/{model}", format=format_),
            "data": data,
            "store": store,
            "threads": 1,
        }
        return BaselineRequest.model_validate({**fields, **parts})

    return request


def refused(request: BaselineRequest, claims: Claims) -> JobError:
    """Run a request that must fail, and return why; nothing may have been published."""
    with pytest.raises(JobError) as caught:
        run(request)
    assert not list(claims.path("pvc://retune-artifacts").rglob("*.onnx"))
    return caught.value


def test_a_bundle_that_serves_already_is_verified_and_measured_beside_version_one(ask: Ask) -> None:
    """A resource that lost its status learns what serves from the store, and never from the store's word alone."""
    served = run(ask("mlp.onnx"))
    result = run(ask("mlp.onnx", serves=served.bundle))
    assert result.serves is not None
    assert result.serves.size_bytes == served.size_bytes
    accuracy = {metric.name: metric.value for metric in result.serves.metrics}[Metric.ACCURACY]
    assert accuracy == {metric.name: metric.value for metric in served.metrics}[Metric.ACCURACY]
    assert parse_result(encode_result(result)) == result


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_a_bundle_that_the_store_has_lost_is_told_beside_version_one(damage: str, ask: Ask, claims: Claims) -> None:
    """Fault 23: version 1 is in the store and measured, so the store is there, and the other bundle is not in it."""
    served = run(ask("mlp.onnx", threads=2)).bundle
    if damage == "removed":
        shutil.rmtree(claims.path(served.uri))
    else:
        (claims.path(served.uri) / "model.onnx").write_bytes(b"x")
    result = run(ask("mlp.onnx", serves=served))
    assert (result.lost, result.serves) == (served, None)
    assert open_bundle(result.bundle.uri).digest == result.bundle.digest
    assert parse_result(encode_result(result)) == result


def test_a_bundle_that_nobody_may_read_is_not_lost(ask: Ask, claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 23: it may well serve; a person is told to make it readable."""
    served = run(ask("mlp.onnx", threads=2)).bundle
    manifest, read = claims.path(served.uri) / "bundle.json", Path.read_bytes

    def forbidden(path: Path) -> bytes:
        if path == manifest:
            raise PermissionError
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(JobError) as caught:
        run(ask("mlp.onnx", serves=served))
    assert caught.value.reason is Reason.BUNDLE_FORBIDDEN


def test_a_bundle_of_another_model_that_serves_already_is_refused(ask: Ask) -> None:
    """Measured on inputs that are not its own it would say nothing, and version 1 is not what serves either."""
    served = run(ask("sklearn.onnx"))
    with pytest.raises(JobError, match="inputs are not those of") as caught:
        run(ask("mlp.onnx", serves=served.bundle))
    assert caught.value.object == served.bundle.uri


@pytest.mark.parametrize("model", ["mlp.onnx", "sklearn.onnx", "conv.onnx"])
def test_a_delivered_model_becomes_version_one(ask: Ask, claims: Claims, model: str) -> None:
    """The bundle holds the delivered file byte by byte, and the accuracy is that of the test split."""
    result = run(ask(model))
    bundle = open_bundle(result.bundle.uri, digest=result.bundle.digest)
    delivered = claims.root / "digits" / model
    assert bundle.model.read_bytes() == delivered.read_bytes()
    assert result.model_digest == file_digest(delivered) == bundle.manifest.lineage.original_model
    assert result.size_bytes == delivered.stat().st_size
    assert parse_result(encode_result(result)) == result
    X, y = digits("test")
    outputs = open_session(bundle).run({bundle.manifest.signature.inputs[0].name: X})
    scores = next(values for values in outputs.values() if values.ndim == 2)
    right = int(np.sum(scores.argmax(axis=1) == y))
    interval = wilson(right, len(y), confidence=0.95)
    metrics = {metric.name: metric for metric in result.metrics}
    accuracy = metrics[Metric.ACCURACY]
    assert [accuracy.value, accuracy.low, accuracy.high] == [
        f"{end:.4g}" for end in (interval.value, interval.low, interval.high)
    ]
    assert accuracy.samples == len(y)


@pytest.mark.parametrize("file", ["trees.ubj", "trees.txt", "maps.onnx"])
def test_what_strangers_save_becomes_version_one(ask: Ask, claims: Claims, file: str) -> None:
    """Files of boosted trees, and ONNX with maps for scores, answer `label` and one score a class, as they did."""
    path, (X, y) = claims.root / "digits" / file, digits("training")
    unseen, labels = digits("test")
    if file == "trees.txt":
        booster = lightgbm.train(
            {"objective": "multiclass", "num_class": 10, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, y), 10
        )
        booster.save_model(path)
        expected = np.asarray(booster.predict(unseen))
    elif file == "trees.ubj":
        classifier = xgboost.XGBClassifier(n_estimators=10, max_depth=4, n_jobs=1).fit(X, y)
        classifier.save_model(path)
        expected = classifier.predict_proba(unseen)
    else:
        network = fit_mlp(hidden=8)
        path.write_bytes(to_onnx(network, X[:1], target_opset=17).SerializeToString())
        expected = network.predict_proba(unseen)
    formats = {".ubj": "XGBoost", ".txt": "LightGBM", ".onnx": "ONNX"}
    result = run(ask(file, format_=ModelFormat(formats[path.suffix])))
    bundle = open_bundle(result.bundle.uri, digest=result.bundle.digest)
    label, scores = open_session(bundle).run({bundle.manifest.signature.inputs[0].name: unseen}).values()
    assert np.abs(scores - expected).max() < 1e-5
    assert float(result.metrics[0].value) == pytest.approx((label == labels).mean(), rel=1e-3)


def test_every_number_has_its_interval(ask: Ask) -> None:
    """Each metric lies within its own interval, and latency is a positive number of milliseconds."""
    metrics = run(ask()).metrics
    assert {metric.name for metric in metrics} == {"accuracy", "latency_p50_ms", "latency_p95_ms", "size_bytes"}
    for metric in metrics:
        assert metric.low is not None
        assert metric.high is not None
        assert 0 < float(metric.low) <= float(metric.value) <= float(metric.high)


def test_the_same_request_gives_the_same_bundle(ask: Ask, claims: Claims, store: str) -> None:
    """A Job that is repeated finds its own bundle and adds nothing."""
    assert run(ask()).bundle == run(ask()).bundle
    assert len(list(claims.path(f"{store}/bundles").iterdir())) == 1


def test_without_a_test_split_validation_is_measured(ask: Ask, data: Data) -> None:
    """Observing needs no test split; the sample size shows which split was measured."""
    metrics = run(ask(data=data.model_copy(update={"test": None}))).metrics
    assert next(metric for metric in metrics if metric.name == Metric.ACCURACY).samples == 400


def test_external_data_is_fetched_with_the_model(ask: Ask, claims: Claims) -> None:
    """A model in two files is one delivery."""
    folder = claims.root / "digits"
    onnx.save(
        onnx.load(folder / "mlp.onnx"),
        folder / "big.onnx",
        save_as_external_data=True,
        location="big.bin",
        size_threshold=0,
    )
    bundle = open_bundle(run(ask("big.onnx")).bundle.uri)
    assert (bundle.folder / "big.bin").read_bytes() == (folder / "big.bin").read_bytes()


def test_external_data_out_of_the_claim_is_refused(ask: Ask, claims: Claims) -> None:
    """A link beside the model to a file of the container is never read."""
    folder = claims.root / "digits"
    onnx.save(
        onnx.load(folder / "mlp.onnx"),
        folder / "big.onnx",
        save_as_external_data=True,
        location="big.bin",
        size_threshold=0,
    )
    (folder / "big.bin").unlink()
    (folder / "big.bin").symlink_to("/etc/shadow")
    error = refused(ask("big.onnx"), claims)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert error.object == "pvc://digits/big.bin"


def test_a_bad_model_is_refused_by_its_uri(ask: Ask, claims: Claims) -> None:
    """The sentence names the delivered file, not a scratch copy."""
    (claims.root / "digits" / "cut.onnx").write_bytes((claims.root / "digits" / "mlp.onnx").read_bytes()[:5000])
    error = refused(ask("cut.onnx"), claims)
    assert (error.reason, error.object) == (Reason.MODEL_INVALID, "pvc://digits/cut.onnx")


@pytest.mark.parametrize("split", ["training", "validation", "test"])
def test_a_fault_in_any_split_shows_at_once(ask: Ask, claims: Claims, split: str) -> None:
    """Data that only a later Job needs is checked now."""
    X, y = digits(split)
    np.savez(claims.root / "digits" / f"{split}.npz", x=X[:, :63], label=y)
    error = refused(ask(), claims)
    assert (error.reason, error.object) == (Reason.DATA_INVALID, f"pvc://digits/{split}.npz")


def test_a_test_set_under_two_names_is_refused(ask: Ask, claims: Claims) -> None:
    """A copy of the validation set proves nothing about a model chosen on it."""
    folder: Path = claims.root / "digits"
    shutil.copyfile(folder / "validation.npz", folder / "test.npz")
    assert "same file as the validation set" in refused(ask(), claims).message


def test_labels_that_mean_something_else_are_refused(ask: Ask, claims: Claims) -> None:
    """A model that is right on no row at all has been given the wrong labels, and nothing can be judged by them."""
    session = open_model(claims.root / "digits" / "mlp.onnx", EngineOptions())
    for split in ("training", "validation", "test"):
        X, _ = digits(split)
        answers = session.run({"x": X})["scores"].argmax(axis=1)
        np.savez(claims.root / "digits" / f"{split}.npz", x=X, label=(answers + 1) % 10)
    with pytest.raises(JobError) as caught:
        run(ask())
    assert caught.value.reason is Reason.BASELINE_NOT_BETTER_THAN_CHANCE
    assert "balanced_accuracy 0 " in caught.value.message


def test_a_model_that_is_no_classifier_is_refused(ask: Ask, claims: Claims) -> None:
    """A model with one number a row gives neither labels nor scores."""
    node = helper.make_node("Gemm", ["x", "w"], ["scores"])
    save_graph(claims.root / "digits" / "one.onnx", [node], {"w": np.eye(64, 1)}, width=1)
    with pytest.raises(JobError) as caught:
        run(ask("one.onnx"))
    assert caught.value.reason is Reason.MODEL_INVALID
    assert "classifier" in caught.value.message


def test_what_the_model_answers_on_unseen_rows_is_kept(ask: Ask, claims: Claims, tmp_path: Path) -> None:
    """What drift and quality are compared with has the rows of validation and test, with answers and labels."""
    result = run(ask("sklearn.onnx"))
    bundle = open_bundle(result.bundle.uri, digest=result.bundle.digest)
    uri = of_bundle("pvc://retune-artifacts/digits", result.bundle.digest)
    found = read_reference(uri, bundle.manifest.signature, into=tmp_path)
    (X1, y1), (X2, y2) = digits("validation"), digits("test")
    X, y = np.concatenate([X1, X2]), np.concatenate([y1, y2])
    name = bundle.manifest.signature.inputs[0].name
    np.testing.assert_array_equal(found.rows.inputs[name], X)
    np.testing.assert_array_equal(found.labels, y)
    assert found.labelled.all()
    assert set(found.rows.models) == {result.bundle.digest}
    answers = open_session(bundle).run({name: X})
    for output, values in answers.items():
        np.testing.assert_allclose(found.rows.outputs[output], values, rtol=1e-4, atol=1e-6)
    assert result.reference == file_digest(claims.path(uri))
    shares = found.carried.inputs[name]
    assert [share is None for share in shares] == [len(np.unique(pixel)) < 2 for pixel in X.T]
    assert 0.05 < max(share or 0 for share in shares) < 1


def test_a_reference_that_was_there_before_is_not_taken_over(ask: Ask, claims: Claims) -> None:
    """What others put in its place is replaced, so that the digest in the status is that of our own rows."""
    first = run(ask("sklearn.onnx"))
    path = claims.path(of_bundle("pvc://retune-artifacts/digits", first.bundle.digest))
    path.write_bytes(b"planted")
    again = run(ask("sklearn.onnx"))
    assert again.reference == first.reference == file_digest(path)


@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_test_set_of_rows_that_a_search_may_see_is_refused(ask: Ask, claims: Claims, split: str) -> None:
    """The same rows in another order, among rows of its own, would prove nothing."""
    (X, y), (own_X, own_y) = digits(split), digits("test")
    order = np.random.default_rng(0).permutation(100)
    np.savez(
        claims.root / "digits" / "test.npz",
        x=np.concatenate([own_X, X[order]]).astype(np.float32),
        label=np.concatenate([own_y, y[order]]),
    )
    error = refused(ask(), claims)
    assert (error.reason, error.object) == (Reason.DATA_INVALID, "pvc://digits/test.npz")
    assert f"100 of {len(own_y) + 100} test rows are rows of the {split} set too" in error.message
    assert error.next_step == "Give test data that nothing else uses."
