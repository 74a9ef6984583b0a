"""Jobs under an administrator's template on a real API server: what is made is taken, restricted, and within limits."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from retune.contract.requests import REQUEST_LIMIT, JobRequest, encode_request
from retune.plan.actions import CreateJob
from retune.settings import Settings
from retune.workloads import job_manifest, too_long
from tests import samples
from tests.cluster.harness import Bench, settle
from tests.jobs_given import EVERYTHING
from tools.localcluster.api import Api

Json = dict[str, Any]
BATCH = "/apis/batch/v1"
CLAIM = f"{'a.claim-' * 30}x"
"""A claim's name of almost 253 characters, with dots."""
REQUESTS: tuple[JobRequest, ...] = (
    samples.baseline_request(),
    samples.search_request(),
    samples.judge_request(),
    samples.verify_request(),
    samples.gather_request(),
    samples.check_request(),
    samples.register_request(),
)


def manifest(request: JobRequest, template: Json) -> Json:
    """The Job that answers a request."""
    action = CreateJob(f"digits-{request.command}", request, cpu_limit=2.0)
    settings = Settings(job_template=json.dumps(template))
    return job_manifest(action, resource=samples.resource(), target=None, settings=settings)


@pytest.fixture(scope="module")
def restricted(api: Api) -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`, with the objects that the template names."""
    name = f"jobs-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    for account in ("default", "jobs"):
        path = f"/api/v1/namespaces/{name}/serviceaccounts/{account}"
        api.apply(path, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    handler = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}}
    api.apply("/apis/node.k8s.io/v1/runtimeclasses/gvisor", handler | {"handler": "runsc"})
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}")
    api.request("DELETE", "/apis/node.k8s.io/v1/runtimeclasses/gvisor")


@pytest.mark.parametrize("template", [{}, EVERYTHING, {"runAsUser": "Assigned"}], ids=["none", "all", "assigned"])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: str(request.command))
def test_every_job_is_taken_and_its_pod_is_restricted(
    api: Api, restricted: str, request_: JobRequest, template: Json
) -> None:
    """No field is unknown, and a namespace that enforces `restricted` takes the pod, whatever the template says."""
    job = manifest(request_, template)
    job["metadata"]["namespace"] = restricted
    strict = "?dryRun=All&fieldValidation=Strict"
    api.request("POST", f"{BATCH}/namespaces/{restricted}/jobs{strict}", job)
    given = job["spec"]["template"]
    pod = {"metadata": given["metadata"] | {"name": "pod"}, "spec": given["spec"]}
    api.request("POST", f"/api/v1/namespaces/{restricted}/pods{strict}", pod)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: str(request.command))
def test_a_job_on_a_profile_with_devices_is_taken(api: Api, restricted: str, request_: JobRequest) -> None:
    """Devices, nodes and classes of a profile are what the API server knows, and the pod stays restricted."""
    profile = {"devices": {"example.com/gpu": 2}, "nodeSelector": {"pool": "gpu"}, "runtimeClassName": "gvisor"}
    profile["commands"] = ["baseline", "gather", "search", "judge", "check"]
    profile["tolerations"] = [{"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    settings = Settings(job_profiles=json.dumps({"gpu": profile}))
    action = CreateJob(f"digits-{request_.command}", request_, cpu_limit=2.0)
    resource = samples.resource(execution={"profile": "gpu"})
    job = job_manifest(action, resource=resource, target=None, settings=settings)
    job["metadata"]["namespace"] = restricted
    given = job["spec"]["template"]
    assert ("gpu" in str(given["spec"].get("nodeSelector"))) is (request_.command not in {"verify", "register"})
    pod = {"metadata": given["metadata"] | {"name": "pod"}, "spec": given["spec"]}
    strict = "?dryRun=All&fieldValidation=Strict"
    api.request("POST", f"/api/v1/namespaces/{restricted}/pods{strict}", pod)


async def test_the_longest_names_give_jobs_that_are_taken(bench: Bench) -> None:
    """A resource of 40 characters, a target of 63 with dots, a claim of 241 with dots: every label fits its limit."""
    name, target = "a" * 40, f"digits.{'b' * 51}.v1.0"
    assert len(target) == 63
    bench.deploy(target)
    key = bench.declare(name, target=target, execution={"artifactStore": f"pvc://{CLAIM}"})
    await settle(bench.operator(), key)
    (job,) = bench.jobs
    assert job["metadata"]["name"].startswith(name)
    assert len(job["spec"]["template"]["metadata"]["labels"]["retune.dev/store"]) <= 63
    assert bench.resource(name)["status"]["stage"] == "Baselining"


def test_the_longest_request_fits_beside_the_longest_annotations_of_a_template(api: Api, restricted: str) -> None:
    """All annotations of a pod have 256 KiB together, and what others add to them finds room too."""
    request = samples.baseline_request()
    missing = REQUEST_LIMIT - len(encode_request(request).encode()) - len(',"classes":[]')
    labels = [f"{index:04}{'é' * 62}" for index in range(missing // 131)]
    labels.append("x" * (missing - 131 * len(labels) - 2))
    longest = request.model_copy(update={"model": request.model.model_copy(update={"classes": tuple(labels)})})
    assert len(encode_request(longest).encode()) == REQUEST_LIMIT
    assert too_long(longest) is None
    job = manifest(longest, EVERYTHING | {"annotations": {"example.com/note": "x" * (16 * 1024 - 16)}})
    job["metadata"]["namespace"] = restricted
    job["spec"]["template"]["metadata"]["annotations"]["example.com/of-a-webhook"] = "x" * 8192
    api.request("POST", f"{BATCH}/namespaces/{restricted}/jobs?dryRun=All&fieldValidation=Strict", job)


async def test_a_valid_spec_that_no_job_can_carry_is_told_in_words(bench: Bench) -> None:
    """Every field is within its bounds, and all together they are not: what to shorten is named, and it recovers."""
    bench.deploy()
    classes = [f"{index:04}{'字' * 124}" for index in range(1024)]
    model = {"uri": "pvc://models/m.onnx", "task": "Classification"}
    key = bench.declare(model=model | {"classes": classes})
    await settle(bench.operator(), key)
    condition = bench.condition("Baselined")
    assert (condition["status"], condition["reason"]) == ("False", "RequestTooLong")
    assert "shorten spec.model" in condition["message"]
    assert bench.condition("Stalled")["status"] == "True"
    assert not bench.jobs
    bench.patch(bench.path("modeloptimizations", "digits"), {"spec": {"model": model | {"classes": classes[:400]}}})
    await settle(bench.operator(), key)
    assert len(bench.jobs) == 1
    assert bench.condition("Stalled")["status"] == "False"
