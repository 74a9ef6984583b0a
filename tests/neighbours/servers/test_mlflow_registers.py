"""Versions are registered with a real MLflow, whose own library loads what stands under an alias."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from optimizer_jobs.commands.register.command import run
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import fetch_model
from retune.api.model import Model, ModelFormat
from retune.api.registry import Registry
from retune.contract.paths import CREDENTIALS_VARIABLE, PRIVATE_ADDRESSES_VARIABLE
from retune.contract.requests import BundleRef
from retune.contract.results import Reason
from tests.neighbours.tracking import Mlflow, answers_of, serving
from tests.storage import servers
from tests.unit.jobs.registered_for_tests import REPORT, ROWS, asked, entry, stored

pytestmark = pytest.mark.timeout(600)
PAGE = b"<html>the report</html>"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    """A server."""
    with serving(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture
def server(running: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    """That server as a Job meets it whose Secret is right, with a store that has a report."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", CREDENTIALS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address)
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path / "claims"))
    report = tmp_path / "claims" / REPORT.removeprefix("pvc://")
    report.parent.mkdir(parents=True)
    report.write_bytes(PAGE)
    return running


@pytest.fixture
def small(server: Mlflow, tmp_path: Path) -> list[BundleRef]:
    """Two bundles in the store."""
    assert server.address
    return [stored(tmp_path / f"made-{weight}", weight=weight) for weight in (2.0, 3.0)]


def number_under(server: Mlflow, name: str, alias: str) -> str | None:
    """Return the version under an alias; None where there is none."""
    found = server.ask("GET", "registered-models/get", name=name)["registered_model"].get("aliases", [])
    return next((str(each["version"]) for each in found if each["alias"] == alias), None)


def versions(server: Mlflow, name: str) -> list[str]:
    """Return all versions of a model."""
    found = server.ask("GET", "model-versions/search", filter=f"name='{name}'").get("model_versions", [])
    return sorted(str(each["version"]) for each in found)


def registry(name: str) -> dict[str, Registry]:
    """Return the registry of a request."""
    return {"registry": Registry(uri=f"mlflow://{name}")}


def test_aliases_move_with_what_serves_and_back(server: Mlflow, small: list[BundleRef], tmp_path: Path) -> None:
    """A challenger becomes champion, the next one does too, and a rollback moves the alias back: by two versions."""
    first, second = entry(small[0], 2, report=REPORT), entry(small[1], 3)
    seen = []
    for champion, challenger in ((None, first), (first, None), (first, second), (second, None), (first, None)):
        result = run(asked(champion, challenger, **registry("moves")))
        named = tuple(number_under(server, "moves", alias) for alias in ("champion", "challenger"))
        assert named == (result.champion, result.challenger)
        seen.append(named)
    assert seen == [(None, "1"), ("1", None), ("1", "2"), ("2", None), ("1", None)]
    assert versions(server, "moves") == ["1", "2"]
    for version, weight in (("1", 2.0), ("2", 3.0)):
        answers = answers_of(server, f"models:/moves/{version}", ROWS, tmp_path)
        expected = np.repeat(ROWS.sum(axis=1, keepdims=True), 2, axis=1) * weight
        np.testing.assert_allclose(answers["by_file"], expected)
        np.testing.assert_allclose(answers["by_mlflow"], expected)
    delivered = fetch_model(Model(uri="mlflow://moves@champion", format=ModelFormat.ONNX), tmp_path / "in").path
    assert delivered.read_bytes() == (tmp_path / "made-2.0" / "delivered.onnx").read_bytes()
    answers = answers_of(server, "models:/moves@champion", ROWS, tmp_path)
    np.testing.assert_allclose(answers["by_mlflow"][0], ROWS.sum(axis=1)[0] * 2.0)
    assert "x" in answers["words"][0]
    assert "float32" in answers["words"][0]


def test_a_version_has_its_origin_numbers_and_report(server: Mlflow, small: list[BundleRef]) -> None:
    """As tags of the version and as metrics, parameters and files of its run; a second start makes neither anew."""
    request = asked(None, entry(small[0], 2, report=REPORT), **registry("told"))
    assert run(request) == run(request)
    (number,) = versions(server, "told")
    found = server.ask("GET", "model-versions/get", name="told", version=number)["model_version"]
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    assert tags["retune.digest"] == small[0].digest
    assert (tags["retune.resource"], tags["retune.run"], tags["retune.version"]) == ("ml/digits", "digits-r2", "2")
    assert tags["retune.parent"] == "sha256:parent"
    assert found["description"] == "Version 2 of ml/digits. it is 4x smaller"
    logged = server.ask("GET", "runs/get", run_id=found["run_id"])["run"]
    metrics = {metric["key"]: metric["value"] for metric in logged["data"]["metrics"]}
    assert metrics == {"accuracy": 0.97, "champion/accuracy": 0.96, "change/accuracy": 0.01}
    params = {param["key"]: param["value"] for param in logged["data"]["params"]}
    assert (params["techniques"], params["engine"]) == ("int8 weights", "onnxruntime")
    assert logged["info"]["status"] == "FINISHED"
    folder = server.artifacts / logged["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert (folder / "report.html").read_bytes() == PAGE
    assert {"bundle.json", "golden.json", "model.onnx", "MLmodel"} <= {
        path.name for path in (folder / "model").iterdir()
    }


def test_the_alias_of_another_resource_stays(server: Mlflow, small: list[BundleRef]) -> None:
    """Nothing is registered beside it, and the sentence names whose it is."""
    run(asked(entry(small[0], 2), None, resource="ml/others", **registry("shared")))
    with pytest.raises(JobError) as caught:
        run(asked(entry(small[1], 2), None, **registry("shared")))
    assert caught.value.reason is Reason.REGISTRY_CONFLICT
    assert "belongs to resource ml/others" in caught.value.message
    assert versions(server, "shared") == ["1"]


def test_a_prompt_is_no_model(server: Mlflow, small: list[BundleRef]) -> None:
    """MLflow keeps prompts under the names of models."""
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    server.ask("POST", "registered-models/create", name="words", tags=tags)
    with pytest.raises(JobError) as caught:
        run(asked(entry(small[0], 2), None, **registry("words")))
    assert caught.value.reason is Reason.REGISTRY_CONFLICT
    assert "is a prompt" in caught.value.message


def test_a_deleted_experiment_is_told(server: Mlflow, small: list[BundleRef]) -> None:
    """No version is made, and no alias."""
    made = server.ask("POST", "experiments/create", name="gone")["experiment_id"]
    server.ask("POST", "experiments/delete", experiment_id=made)
    with pytest.raises(JobError) as caught:
        run(asked(entry(small[0], 2), None, **registry("gone")))
    assert caught.value.reason is Reason.REGISTRY_REFUSED
    assert caught.value.next_step == "Restore it, or name another one in spec.registry.experiment."
    assert versions(server, "gone") == []


def test_a_server_that_takes_no_files_gets_versions_that_say_where_they_lie(
    server: Mlflow, small: list[BundleRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started without --serve-artifacts; and passwords that are wrong are told."""
    (tmp_path / "closed").mkdir()
    with serving(tmp_path / "closed", takes_files=False) as closed:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", closed.address)
        result = run(asked(entry(small[0], 2), None))
        found = closed.ask("GET", "model-versions/get", name="digits", version=str(result.champion))["model_version"]
    assert found["source"] == small[0].uri
    assert "--artifacts-destination" in result.message
    assert closed.address != server.address
    with pytest.raises(JobError) as caught:
        run(asked(entry(small[0], 2), None))
    assert caught.value.reason is Reason.REGISTRY_UNREACHABLE


def test_files_go_into_the_bucket_that_the_server_names(
    server: Mlflow, small: list[BundleRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real S3 server has them then, and our own reader finds them; keys that are wrong or absent are told."""
    pytest.importorskip("s3fs")
    for folder in ("store", "closed"):
        (tmp_path / folder).mkdir()
    with (
        servers.s3(tmp_path / "store") as bucket,
        serving(tmp_path / "closed", takes_files=False, root=f"s3://{servers.BUCKET}/mlruns") as closed,
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", closed.address)
        result = run(asked(entry(small[0], 2, report=REPORT)))
        assert "the Secret has no AWS_ACCESS_KEY_ID" in result.message
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        assert run(asked(entry(small[0], 2), None, **registry("in-a-bucket"))).champion == "1"
        fetched = fetch_model(Model(uri="mlflow://in-a-bucket@champion", format=ModelFormat.ONNX), tmp_path / "in")
        assert fetched.path.read_bytes() == (tmp_path / "made-2.0" / "delivered.onnx").read_bytes()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-value")
        with pytest.raises(JobError) as caught:
            run(asked(entry(small[1], 3), None, **registry("in-a-bucket")))
        assert caught.value.reason is Reason.REGISTRY_FORBIDDEN, caught.value
        assert versions(closed, "in-a-bucket") == ["1"]
    assert closed.address != server.address
