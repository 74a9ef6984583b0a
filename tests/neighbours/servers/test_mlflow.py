"""Models that a real MLflow has logged and registered are read by its REST API, and its refusals are told."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimizer_jobs.commands.check.delivered_file import current_digest
from optimizer_jobs.data.fetch import Fetched
from optimizer_jobs.data.mlflow.registry import find
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.machinery.formats.delivery import fetch_model
from retune.api.model import Model, ModelFormat
from retune.contract.paths import CREDENTIALS_VARIABLE, PRIVATE_ADDRESSES_VARIABLE
from retune.contract.requests import Followed
from retune.contract.results import Reason
from tests.neighbours.tracking import ADMIN, PASSWORD, Mlflow, log_models, serving
from tests.storage import servers
from tests.unit.jobs.tracking_for_tests import mlmodel

pytestmark = pytest.mark.timeout(600)
LOGGED = {
    "onnx": ("ONNX", "model.onnx"),
    "skops": ("Skops", "model.skops"),
    "cloudpickle": ("Pickle", "model.pkl"),
    "lightgbm": ("LightGBM", "model.lgb"),
    "xgboost": ("XGBoost", "model.ubj"),
}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where MLflow's own client puts the files of each model."""
    return tmp_path_factory.mktemp("logged")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, logged: Path) -> Iterator[Mlflow]:
    """A server with a model of each flavour, under alias `champion`."""
    with serving(tmp_path_factory.mktemp("mlflow")) as found:
        log_models(found, logged)
        yield found


@pytest.fixture
def server(running: Mlflow, monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    """That server as a Job meets it whose Secret is right."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", CREDENTIALS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address)
    return running


def get(uri: str, format_: str, into: Path) -> Fetched:
    """Fetch the delivered model."""
    return fetch_model(Model(uri=uri, format=ModelFormat(format_)), into / "in")


def refused(uri: str, format_: str, into: Path, *, reason: Reason) -> JobError:
    """Fetch what must be refused, and return why."""
    with pytest.raises(JobError) as caught:
        get(uri, format_, into)
    assert caught.value.reason is reason, caught.value
    return caught.value


@pytest.mark.parametrize(("name", "format_", "file"), [(name, *read) for name, read in LOGGED.items()])
def test_each_flavour_arrives_as_mlflows_own_client_gets_it(
    server: Mlflow, logged: Path, tmp_path: Path, name: str, format_: str, file: str
) -> None:
    """The same bytes by alias and by version; of ONNX with the weights that MLflow writes beside it."""
    assert server.address
    own = logged / name / file
    for uri in (f"mlflow://{name}@champion", f"mlflow://{name}/1", f"mlflow://{name}@latest"):
        fetched = get(uri, format_, tmp_path)
        assert fetched.path.read_bytes() == own.read_bytes()
        assert fetched.digest == f"sha256:{hashlib.sha256(own.read_bytes()).hexdigest()}"
    beside = {path.name for path in (tmp_path / "in").iterdir()} - {file}
    assert len(beside) == (1 if name == "onnx" else 0)
    assert all((tmp_path / "in" / each).read_bytes() == (logged / name / each).read_bytes() for each in beside)


def test_follow_sees_an_alias_move_and_come_back(server: Mlflow) -> None:
    """What the alias names at each look counts; an alias that is gone says nothing about the file."""
    first, second = server.copy("xgboost", "moving"), server.copy("lightgbm", "moving")
    seen = []
    for version in (first, second, first):
        server.ask("POST", "registered-models/alias", name="moving", alias="champion", version=version)
        format_ = ModelFormat.LIGHTGBM if version == second else ModelFormat.XGBOOST
        seen.append(current_digest(Followed(uri="mlflow://moving@champion", digest="", format=format_)))
    assert seen[0] == seen[2] is not None
    assert seen[1] not in {None, seen[0]}
    server.ask("DELETE", "registered-models/alias", name="moving", alias="champion")
    assert current_digest(Followed(uri="mlflow://moving@champion", digest="", format=ModelFormat.XGBOOST)) is None


def test_what_the_registry_does_not_have_is_named(server: Mlflow, tmp_path: Path) -> None:
    """Model, alias and version are told from each other, and a deleted version is gone."""
    version = server.copy("skops", "gone")
    for uri, words in {
        "mlflow://none@champion": "the server has no model none.",
        "mlflow://none/1": "the server has no version 1 of none.",
        "mlflow://gone@champion": "gone has no alias champion.",
        "mlflow://gone/9": "the server has no version 9 of gone.",
    }.items():
        assert refused(uri, "Skops", tmp_path, reason=Reason.MODEL_NOT_FOUND).message == words
    server.ask("POST", "registered-models/alias", name="gone", alias="champion", version=version)
    server.ask("DELETE", "model-versions/delete", name="gone", version=version)
    for uri in (f"mlflow://gone/{version}", "mlflow://gone@champion"):
        refused(uri, "Skops", tmp_path, reason=Reason.MODEL_NOT_FOUND)


def test_another_format_says_which_to_set(server: Mlflow, tmp_path: Path) -> None:
    """By what MLflow itself writes into MLmodel."""
    assert server.address
    assert "Pickle" in refused("mlflow://cloudpickle/1", "ONNX", tmp_path, reason=Reason.MODEL_INVALID).next_step
    assert "Skops" in refused("mlflow://skops/1", "Pickle", tmp_path, reason=Reason.MODEL_INVALID).next_step


def test_files_that_are_gone_or_changed_behind_the_server_are_refused(server: Mlflow, tmp_path: Path) -> None:
    """MLmodel may name a file that is not there, a path that leads out, or be gone itself."""
    folder = server.folder("lightgbm")
    content, text = (folder / "model.lgb").read_bytes(), (folder / "MLmodel").read_bytes()
    try:
        (folder / "model.lgb").unlink()
        error = refused("mlflow://lightgbm/1", "LightGBM", tmp_path, reason=Reason.MODEL_NOT_FOUND)
        assert "it names model.lgb" in error.message
        (folder / "MLmodel").write_bytes(mlmodel(lightgbm={"data": "../../../../mlflow.db"}))
        refused("mlflow://lightgbm/1", "LightGBM", tmp_path, reason=Reason.MODEL_INVALID)
        (folder / "MLmodel").write_bytes(bytes(2 << 20))
        refused("mlflow://lightgbm/1", "LightGBM", tmp_path, reason=Reason.MODEL_TOO_LARGE)
        (folder / "MLmodel").unlink()
        error = refused("mlflow://lightgbm/1", "LightGBM", tmp_path, reason=Reason.MODEL_NOT_FOUND)
        assert "are gone" in error.message
    finally:
        (folder / "model.lgb").write_bytes(content)
        (folder / "MLmodel").write_bytes(text)


def test_a_store_that_is_not_read_is_told(server: Mlflow, tmp_path: Path) -> None:
    """The server registers it, and does not hand it out."""
    server.ensure("elsewhere")
    server.ask("POST", "model-versions/create", name="elsewhere", source="wasbs://box@account.example/model")
    error = refused("mlflow://elsewhere/1", "ONNX", tmp_path, reason=Reason.MODEL_FORBIDDEN)
    assert "wasbs://box@account.example/model" in error.message


def test_files_in_a_bucket_are_read_with_its_own_keys(
    server: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real S3 server has the files, and the registry says where."""
    pytest.importorskip("s3fs")
    (tmp_path / "store").mkdir()
    with servers.s3(tmp_path / "store") as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        for path in server.folder("xgboost").iterdir():
            bucket.put(f"mlruns/1/{path.name}", path.read_bytes())
        server.ensure("bucket")
        server.ask("POST", "model-versions/create", name="bucket", source=f"s3://{servers.BUCKET}/mlruns/1")
        expected = get("mlflow://xgboost/1", "XGBoost", tmp_path / "proxied").digest
        assert get("mlflow://bucket/1", "XGBoost", tmp_path).digest == expected
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-value")
        error = refused("mlflow://bucket/1", "XGBoost", tmp_path, reason=Reason.MODEL_FORBIDDEN)
        assert "AWS_ACCESS_KEY_ID" in error.next_step


def test_a_host_that_mlflow_does_not_know_says_what_to_start_it_with(
    server: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under the name of a Service: MLflow knows its own addresses only."""
    monkeypatch.setattr("optimizer_jobs.data.mlflow.server._authorization", lambda: {"Host": "mlflow.mlflow:5000"})
    error = refused("mlflow://xgboost/1", "XGBoost", tmp_path, reason=Reason.MODEL_FORBIDDEN)
    assert server.address
    assert "--allowed-hosts" in error.next_step


def test_passwords_are_asked_for_and_shown(server: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own app with users: none, a wrong one, and the right one; then a server that is gone."""
    (tmp_path / "mlflow").mkdir()
    with serving(tmp_path / "mlflow", passwords=True) as closed:
        closed.ensure("digits")
        assert closed.address != server.address
        monkeypatch.setenv("MLFLOW_TRACKING_URI", closed.address)
        for name in ("@champion", "/1"):
            error = refused(f"mlflow://digits{name}", "ONNX", tmp_path, reason=Reason.MODEL_FORBIDDEN)
            assert error.next_step.startswith("Name a Secret")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-value")
        error = refused("mlflow://digits/1", "ONNX", tmp_path, reason=Reason.MODEL_FORBIDDEN)
        assert error.next_step.startswith("Correct the Secret")
        assert "wrong-value" not in str(error)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        refused("mlflow://digits/1", "ONNX", tmp_path, reason=Reason.MODEL_NOT_FOUND)
    with pytest.raises(JobError) as caught:
        find("mlflow://digits/1")
    assert (caught.value.reason, caught.value.exit) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)
