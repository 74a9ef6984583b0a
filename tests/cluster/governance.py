"""A namespace of a test in which the chart's policy about authors counts, and people who try to write there."""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests import samples
from tests.cluster.accounts import person
from tests.cluster.chart import rendered
from tests.cluster.harness import MERGE, RESOURCES
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
_FOLDER = "/apis/admissionregistration.k8s.io/v1"
_PATHS = {
    "ValidatingAdmissionPolicy": f"{_FOLDER}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_FOLDER}/validatingadmissionpolicybindings",
}
_PATIENCE_SECONDS = 60.0


def rule(group: str, resource: str, verbs: str, *names: str) -> Json:
    """One RBAC rule."""
    named = {"resourceNames": list(names)} if names else {}
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()} | named


WRITE = rule("retune.dev", "modeloptimizations", "create get update patch delete")


@dataclass(frozen=True)
class Place:
    """A namespace in which a policy counts."""

    plane: ControlPlane
    namespace: str

    @property
    def admin(self) -> Api:
        """The cluster's administrator."""
        return Api(self.plane.kubeconfig)

    def person(self, name: str, *rules: Json) -> Api:
        """A user who may write ModelOptimizations, and what these rules add."""
        return person(self.plane, name, namespace=self.namespace, rules=[WRITE, *rules])

    def path(self, name: str = "", query: str = "") -> str:
        """URL path of the ModelOptimizations, or of one of them."""
        return f"{RESOURCES}/namespaces/{self.namespace}/modeloptimizations" + (f"/{name}" if name else "") + query

    def document(self, name: str, **spec: Any) -> Json:
        """A ModelOptimization of this namespace."""
        return samples.manifest(**spec) | {"metadata": {"name": name, "namespace": self.namespace}}

    def refusal(self, user: Api, document: Json) -> str:
        """What the server says to a user who creates this in a dry run; empty where it accepts."""
        return refusal(user, "POST", self.path(query="?dryRun=All"), document)

    def changes(self, user: Api, name: str, **spec: Any) -> str:
        """What it says to a user who changes these fields of a spec in a dry run."""
        return refusal(user, "PATCH", self.path(name, "?dryRun=All"), {"spec": spec}, kind=MERGE)


def refusal(user: Api, method: str, path: str, body: Json, *, kind: str = "application/json") -> str:
    """The words of a refusal; empty where the request is accepted."""
    try:
        user.request(method, path, body, kind=kind)
    except ApiError as error:
        return str(error)
    return ""


def opened(plane: ControlPlane) -> Place:
    """A new namespace."""
    place = Place(plane, f"authors-{uuid.uuid4().hex[:8]}")
    place.admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": place.namespace}})
    return place


@contextmanager
def governed(place: Place, *settings: str) -> Iterator[Place]:
    """The place, once a release's policy counts in it: when somebody without any right is refused."""
    documents = rendered(f"watchNamespaces={{{place.namespace}}}", *settings, release=place.namespace)
    with enforced(place, policies_of(documents)):
        yield place


@contextmanager
def enforced(place: Place, policies: Sequence[Json]) -> Iterator[None]:
    """The same with objects that are rendered already."""
    for policy in policies:
        place.admin.request("POST", _PATHS[policy["kind"]], policy)
    try:
        stranger = place.person(f"stranger-{place.namespace}")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while "may not patch" not in place.refusal(stranger, place.document("probe")):
            assert time.monotonic() < deadline, "the policy has not become effective"
            time.sleep(0.05)
        yield
    finally:
        for policy in policies:
            place.admin.request("DELETE", f"{_PATHS[policy['kind']]}/{policy['metadata']['name']}")


def policies_of(documents: Sequence[Json]) -> list[Json]:
    """The policy and its binding."""
    return [document for document in documents if document["kind"] in _PATHS]
