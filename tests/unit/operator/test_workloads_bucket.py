"""Jobs of a resource whose store is in a bucket: no volume, and the keys that the bucket knows them by."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.contract.credentials import CREDENTIAL_KEYS
from retune.contract.requests import BaselineRequest, JobRequest, encode_request
from retune.job_template import parse_template
from retune.plan.actions import CreateJob
from retune.workloads import job_manifest
from retune.workloads.volumes import claims_of, remote_schemes
from tests import samples
from tests.unit.operator.test_workloads import (
    CREDENTIALS,
    REQUESTS,
    Settings,
    environment,
    every_command,
    near,
    pod,
    secret_keys,
    serving,
)

Json = dict[str, Any]
DEFAULT = "s3://artifacts/retune"
SHARED = replace(Settings(), artifact_store=DEFAULT, artifact_store_credentials="retune-store")


def in_bucket(request: JobRequest, folder: str = f"{DEFAULT}/ml/digits") -> JobRequest:
    """The same request of a resource whose folder is there."""
    return type(request).model_validate_json(encode_request(request).replace(samples.STORE, folder))


def job(request: JobRequest, settings: Settings = SHARED, **spec: Any) -> Json:
    """The Job of a request."""
    action = CreateJob("digits-job", request, cpu_limit=2.0)
    return job_manifest(action, resource=samples.resource(**spec), target=serving(), settings=settings)


@every_command
def test_a_store_in_a_bucket_is_no_volume(command: str) -> None:
    """No claim, no container that makes its folder, no nearness to those that mount one."""
    request = in_bucket(REQUESTS[command])
    once = replace(SHARED, pod_template=parse_template('{"storeAccess": "ReadWriteOnce"}'))
    manifest = job(request, once)
    assert "artifacts" not in {claim.name for claim in claims_of(request)}
    written = [f"{claim.path}/{folder}" for claim in claims_of(request) for folder in claim.folders]
    assert written == (["/mnt/pvc/production/digits"] if command == "check" else [])
    making = [each for each in pod(manifest).get("initContainers", []) if each["name"] == "store"]
    assert [folder for each in making for folder in each["command"][4:]] == written
    assert near(manifest) == []
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert (labels.get("retune.dev/store"), labels["retune.dev/remote"]) == (None, "true")


@every_command
def test_the_administrators_secret_reaches_every_job_of_his_store(command: str) -> None:
    """The documented keys of that kind of bucket, also where a Job reads nothing but a bundle."""
    manifest = job(in_bucket(REQUESTS[command]))
    assert secret_keys(manifest) == {
        key: {"name": "retune-store", "key": key, "optional": True} for key in CREDENTIAL_KEYS["s3"]
    }
    assert environment(manifest)["RETUNE_CREDENTIALS_SECRET"] == "retune-store"


@every_command
def test_what_the_spec_names_wins(command: str) -> None:
    """One Secret for model, data and store; the administrator's is left alone."""
    manifest = job(in_bucket(REQUESTS[command]), **CREDENTIALS)
    schemes = remote_schemes(in_bucket(REQUESTS[command]))
    assert secret_keys(manifest).keys() == {key for scheme in schemes for key in CREDENTIAL_KEYS[scheme]}
    assert {each["name"] for each in secret_keys(manifest).values()} == {"bucket"}


def test_the_administrators_secret_is_for_his_store_alone() -> None:
    """What a spec reads elsewhere is its author's to pay for: no token, and no key of another kind of bucket."""
    request = in_bucket(REQUESTS["baseline"], "gs://artifacts/ml/digits")
    assert isinstance(request, BaselineRequest)
    for uri in ("s3://models/digits/model.onnx", "https://a.example/model.onnx", "mlflow://digits@champion"):
        model = request.model.model_copy(update={"uri": uri})
        manifest = job(
            request.model_copy(update={"model": model}),
            replace(SHARED, artifact_store="gs://artifacts"),
        )
        assert secret_keys(manifest).keys() == set(CREDENTIAL_KEYS["gs"])


stores = st.none() | st.sampled_from(["pvc://artifacts", DEFAULT, f"{DEFAULT}/", "s3://other/retune", "gs://artifacts"])


@given(command=st.sampled_from(sorted(REQUESTS)), own=stores, default=stores, secret=st.sampled_from(["", "shared"]))
def test_a_secret_comes_with_the_administrators_bucket_and_with_nothing_else(
    command: str, own: str | None, default: str | None, secret: str
) -> None:
    """Whichever store a spec names, and whatever the settings say."""
    root = own or default or "pvc://artifacts"
    request = in_bucket(REQUESTS[command], f"{root.rstrip('/')}/ml/digits")
    settings = replace(SHARED, artifact_store=default or "", artifact_store_credentials=secret)
    found = secret_keys(job(request, settings, execution={"artifactStore": own} if own else {}))
    is_his = default is not None and root.rstrip("/") == default.rstrip("/") and "pvc" not in root
    assert bool(found) is (is_his and secret != "")
    assert {each["name"] for each in found.values()} <= {secret}


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@every_command
def test_servers_that_a_job_writes_to_count_as_those_that_it_reads(command: str, scheme: str) -> None:
    """A Job that publishes, and one that only opens a bundle: both need the network and the keys."""
    besides = {"mlflow"} if command == "register" else set()
    assert remote_schemes(REQUESTS[command]) == besides
    assert remote_schemes(in_bucket(REQUESTS[command], f"{scheme}://artifacts/ml/digits")) == {scheme} | besides
