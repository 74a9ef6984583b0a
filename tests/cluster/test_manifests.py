"""The real API server takes what `workloads` and `targets` build, and field ownership works as the planner believes."""

import copy
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from retune.api import FIELD_MANAGER
from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.search import Serving
from retune.contract.requests import JobRequest
from retune.job_profiles import Profile
from retune.job_template import PodTemplate
from retune.plan.actions import AcquireLease, CreateJob
from retune.plan.observed import Container
from retune.targets.deployment import Deployment
from retune.workloads import job_manifest, lease_manifest
from tests import samples
from tools.localcluster.api import Api, ApiError

VARIABLE = "MODEL_URI"
APPLY = "application/apply-patch+yaml"


def through(serving: Json) -> JobRequest:
    """What a judge is asked that has a model server beside it."""
    return samples.judge_request().model_copy(update={"serving": Serving.model_validate(serving)})


REQUESTS: dict[str, JobRequest] = {
    "baseline": samples.baseline_request(),
    "search": samples.search_request(),
    "judge": samples.judge_request(),
    "judge-triton": through({"runtime": "Triton", "image": "registry.example/triton:1"}),
    "judge-ovms": through({"runtime": "OVMS", "engines": ["OpenVINO"], "image": "registry.example/ovms:1"}),
    "verify": samples.verify_request(),
    "register": samples.register_request(),
}
every_command = pytest.mark.parametrize("command", sorted(REQUESTS))


NOTHING_MORE = PodTemplate()


@dataclass(frozen=True)
class Settings:
    """What Jobs need of the operator's settings."""

    optimizer_image: str = "retune/optimizer:dev"
    monitor_image: str = "retune/monitor:dev"
    image_pull_policy: str = "IfNotPresent"
    private_addresses: str = "Refuse"
    artifact_store: str = "pvc://artifacts"
    artifact_store_credentials: str = ""
    store_quota: str = ""
    records_key: str | None = None
    pod_template: PodTemplate = NOTHING_MORE
    profiles: Mapping[str, Profile] = field(default_factory=dict)


@pytest.fixture(scope="module")
def namespace(api: Api) -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`."""
    name = f"restricted-{uuid.uuid4().hex[:8]}"
    marks = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": marks}})
    account = {"metadata": {"name": "default"}}
    api.apply(
        f"/api/v1/namespaces/{name}/serviceaccounts/default", account | {"apiVersion": "v1", "kind": "ServiceAccount"}
    )
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}")


def job(command: str, namespace: str, **execution: Any) -> Json:
    """The Job of one command, in this namespace."""
    resource = samples.resource(execution=execution)
    resource = resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"namespace": namespace})})
    action = CreateJob(f"digits-{command}", REQUESTS[command], cpu_limit=1.5, workers=2 if command == "search" else 1)
    return job_manifest(action, resource=resource, target=None, settings=Settings())


@every_command
@pytest.mark.parametrize(
    "execution",
    [
        {},
        {
            "queueName": "ml-batch",
            "nodeSelector": {"class": "edge"},
            "backoffLimit": 0,
            "ttlAfterFinished": "10m",
            "tolerations": [{"operator": "Exists"}],
            "resources": {"requests": {"memory": "3Gi"}, "limits": {"cpu": "2"}},
        },
    ],
    ids=["plain", "everything"],
)
def test_every_job_is_accepted_as_it_is(api: Api, namespace: str, command: str, execution: Json) -> None:
    """No field is unknown, none is refused."""
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs?dryRun=All&fieldValidation=Strict"
    assert api.request("POST", path, job(command, namespace, **execution))["kind"] == "Job"


@every_command
def test_every_pod_passes_restricted(api: Api, namespace: str, command: str) -> None:
    """Admission, not our own reading of the standard, says that the pods are restricted."""
    template = job(command, namespace)["spec"]["template"]
    pod = {"metadata": template["metadata"] | {"name": command}, "spec": template["spec"]}
    path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict"
    assert api.request("POST", path, pod)["kind"] == "Pod"


def test_restricted_is_enforced_here(api: Api, namespace: str) -> None:
    """The test before could fail: a pod without our security context is refused."""
    pod = copy.deepcopy(job("judge", namespace)["spec"]["template"])
    del pod["spec"]["containers"][0]["securityContext"]
    with pytest.raises(ApiError, match="violates PodSecurity"):
        api.request(
            "POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", {"metadata": {"name": "x"}, "spec": pod["spec"]}
        )


def test_a_server_beside_the_judge_is_restricted_too(api: Api, namespace: str) -> None:
    """The server's admission looks at init containers as well."""
    pod = copy.deepcopy(job("judge-triton", namespace)["spec"]["template"])
    server = next(each for each in pod["spec"]["initContainers"] if each["name"] == "server")
    del server["securityContext"]
    with pytest.raises(ApiError, match="violates PodSecurity"):
        api.request(
            "POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", {"metadata": {"name": "x"}, "spec": pod["spec"]}
        )


def test_a_lease_has_one_holder(api: Api, namespace: str) -> None:
    """The second resource that wants the same target is told that the name is taken."""
    first = samples.resource()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    api.request("POST", f"{path}?fieldValidation=Strict", placed(lease_of(first), namespace))
    with pytest.raises(ApiError, match="already exists"):
        api.request("POST", path, placed(lease_of(first), namespace))


def lease_of(resource: ModelOptimization) -> Json:
    """The Lease on one target."""
    return lease_manifest(AcquireLease("3f1c"), resource=resource)


def placed(manifest: Json, namespace: str) -> Json:
    """The manifest in another namespace and without its owner, who does not exist."""
    return manifest | {"metadata": {"name": manifest["metadata"]["name"], "namespace": namespace}}


# --- the one field on a Deployment -----------------------------------------------------------------------------------


class Owned:
    """A Deployment on the server, written by people and by us."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self.api = api
        self.name = name
        self.kind = Deployment()
        self.path = self.kind.path(namespace=namespace, name=name)
        self.body: Json = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "containers": [{"name": "server", "image": "server:1", "env": [{"name": "A", "value": "b"}]}]
                    },
                },
            },
        }

    def people(self, value: str | None) -> None:
        """Apply the manifest as a person or a GitOps tool does."""
        body = copy.deepcopy(self.body)
        if value is not None:
            body["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": VARIABLE, "value": value})
        self.api.request("PATCH", f"{self.path}?fieldManager=argocd-controller", body, kind=APPLY)

    def retune(self, value: str | None, *, force: bool = False, uid: str | None = None) -> None:
        """Apply the one field as the operator does."""
        mine = uid or self.api.get(self.path)["metadata"]["uid"]
        body = self.kind.apply_body(name=self.name, uid=mine, container="server", variable=VARIABLE, value=value)
        query = f"fieldManager={FIELD_MANAGER}&force={str(force).lower()}"
        self.api.request("PATCH", f"{self.path}?{query}", body, kind=APPLY)

    def seen(self) -> Container:
        """The container as the planner sees it."""
        (container,) = self.kind.parse(self.api.get(self.path), variable=VARIABLE).containers
        return container

    def environment(self) -> list[Json]:
        """Every variable."""
        found: list[Json] = self.api.get(self.path)["spec"]["template"]["spec"]["containers"][0]["env"]
        return found


@pytest.fixture
def owned(api: Api, namespace: str) -> Iterator[Owned]:
    """A Deployment whose manifest leaves the variable out."""
    deployment = Owned(api, namespace, f"digits-{uuid.uuid4().hex[:8]}")
    deployment.people(None)
    yield deployment
    api.request("DELETE", deployment.path)


def test_the_field_is_ours_and_nothing_else_is(owned: Owned) -> None:
    """After a rollout the manager of the value is Retune; people's fields stay theirs and can be applied again."""
    owned.retune("pvc://a/bundles/2")
    assert (owned.seen().value, owned.seen().manager) == ("pvc://a/bundles/2", "retune")
    owned.people(None)
    assert owned.seen().value == "pvc://a/bundles/2"
    assert {"name": "A", "value": "b"} in owned.environment()


def test_giving_the_field_up_leaves_the_manifest_as_it_was(owned: Owned) -> None:
    """Where the manifest left the variable out, it is gone again, and everything else is still there."""
    owned.retune("pvc://a/bundles/2")
    owned.retune(None)
    assert (owned.seen().value, owned.seen().manager) == (None, None)
    assert owned.environment() == [{"name": "A", "value": "b"}]


def test_a_field_that_people_own_is_a_conflict(owned: Owned) -> None:
    """Without force nothing changes, and the manager that we name in the condition is the one the server names."""
    owned.people("pvc://theirs")
    assert owned.seen().manager == "argocd-controller"
    with pytest.raises(ApiError, match='conflict with "argocd-controller"'):
        owned.retune("pvc://a/bundles/2")
    assert owned.seen().value == "pvc://theirs"


def test_force_takes_the_field_over_once(owned: Owned) -> None:
    """With takeover Force the value is ours; when people then apply their own value, they get the conflict."""
    owned.people("pvc://theirs")
    owned.retune("pvc://a/bundles/2", force=True)
    assert (owned.seen().value, owned.seen().manager) == ("pvc://a/bundles/2", "retune")
    with pytest.raises(ApiError, match='conflict with "retune"'):
        owned.people("pvc://theirs")


def test_a_value_we_share_counts_as_theirs(owned: Owned) -> None:
    """Two managers with one value: the next change would conflict, and the planner is told with whom."""
    owned.people("pvc://same")
    owned.retune("pvc://same")
    assert owned.seen().manager == "argocd-controller"


def test_a_workload_that_was_replaced_is_not_touched(owned: Owned) -> None:
    """The UID in the body keeps a decision about one Deployment from reaching its namesake."""
    with pytest.raises(ApiError, match=r"metadata\.uid: Invalid value"):
        owned.retune("pvc://a/bundles/2", uid=str(uuid.uuid4()))
    assert owned.seen().value is None


def test_a_workload_that_is_gone_is_not_created(api: Api, namespace: str) -> None:
    """Server-side apply would create what is missing; with a UID it refuses."""
    gone = Owned(api, namespace, "gone")
    with pytest.raises(ApiError, match="409"):
        gone.retune("pvc://a/bundles/2", uid=str(uuid.uuid4()))
