"""What the operator's service account may do on a real API server: each thing it needs, and nothing else."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.accounts import operator_account
from tools.localcluster.api import Api, ApiError

Right = tuple[str, str, str]
NEEDED: dict[tuple[str, str], str] = {
    ("retune.dev", "modeloptimizations"): "get list watch patch",
    ("retune.dev", "modeloptimizations/status"): "patch",
    ("retune.dev", "modeloptimizations/finalizers"): "update",
    ("retune.dev", "optimizationruns"): "get list watch create patch delete",
    ("retune.dev", "optimizationruns/status"): "patch",
    ("batch", "jobs"): "get list watch create patch delete",
    ("", "pods"): "list watch",
    ("apps", "deployments"): "get list watch patch",
    ("coordination.k8s.io", "leases"): "get create update",
    ("", "events"): "create list",
    ("kueue.x-k8s.io", "workloads"): "list",
}
CANARIES: dict[tuple[str, str], str] = {
    ("apps", "deployments"): "create delete",
    ("", "services"): "list",
    ("autoscaling", "horizontalpodautoscalers"): "list",
}
"""What canaries take in addition."""
ROUTES: dict[tuple[str, str], str] = {
    ("", "services"): "create delete",
    ("gateway.networking.k8s.io", "httproutes"): "get patch",
}
"""What canaries by a route take besides."""
STATEFUL_SETS: dict[tuple[str, str], str] = {("apps", "statefulsets"): "get list watch patch", ("", "pods"): "delete"}
"""What StatefulSets as targets take in addition."""
ROLLOUTS: dict[tuple[str, str], str] = {("argoproj.io", "rollouts"): "get list watch patch"}
"""What Argo's Rollouts as targets take in addition."""
INFERENCE_SERVICES: dict[tuple[str, str], str] = {("serving.kserve.io", "inferenceservices"): "get list watch patch"}
"""What KServe's InferenceServices as targets take in addition."""


CONFIG_MAPS: dict[tuple[str, str], str] = {("", "configmaps"): "get patch"}
"""What keys of ConfigMaps take in addition."""


def rights(table: dict[tuple[str, str], str]) -> list[Right]:
    """Each right by itself."""
    return [(group, resource, verb) for (group, resource), verbs in table.items() for verb in verbs.split()]


RIGHTS = rights(NEEDED)
EXTRA: dict[str, tuple[tuple[str, ...], list[Right]]] = {
    "canaries": (("canary.enabled=true",), rights(CANARIES)),
    "routes": (("canary.enabled=true", "canary.httpRoutes=true"), [*rights(CANARIES), *rights(ROUTES)]),
    "InferenceServices": (("targets.kinds={InferenceService}",), rights(INFERENCE_SERVICES)),
    "Rollouts": (("targets.kinds={Rollout}",), rights(ROLLOUTS)),
    "StatefulSets": (("targets.kinds={StatefulSet}",), rights(STATEFUL_SETS)),
    "ConfigMaps": (("targets.configMaps={*}",), rights(CONFIG_MAPS)),
}
"""What is turned on, by which values, and the rights that come with it."""
FORBIDDEN: list[Right] = [
    ("", "secrets", "get"),
    ("", "secrets", "list"),
    ("", "configmaps", "get"),
    ("", "pods", "create"),
    ("", "pods", "delete"),
    ("", "pods/exec", "create"),
    ("", "pods/log", "get"),
    ("", "pods/ephemeralcontainers", "patch"),
    ("", "serviceaccounts/token", "create"),
    ("", "nodes", "list"),
    ("", "namespaces", "list"),
    ("", "persistentvolumeclaims", "get"),
    ("apps", "deployments", "create"),
    ("apps", "deployments", "delete"),
    ("apps", "statefulsets", "patch"),
    ("", "services", "patch"),
    ("gateway.networking.k8s.io", "httproutes", "list"),
    ("gateway.networking.k8s.io", "gateways", "get"),
    ("batch", "cronjobs", "create"),
    ("kueue.x-k8s.io", "workloads", "patch"),
    ("kueue.x-k8s.io", "localqueues", "list"),
    ("retune.dev", "modeloptimizations", "create"),
    ("retune.dev", "modeloptimizations", "delete"),
    ("rbac.authorization.k8s.io", "roles", "create"),
]


@dataclass(frozen=True)
class Account:
    """The operator's service account: its own view of the API, and the namespaces of the test."""

    api: Api
    watched: str
    other: str
    rights: frozenset[Right]
    """What it should have."""

    def may(self, right: Right, namespace: str) -> bool:
        """What a SelfSubjectAccessReview answers."""
        group, resource, verb = right
        name, _, sub = resource.partition("/")
        attributes = {"group": group, "resource": name, "subresource": sub, "verb": verb, "namespace": namespace}
        body = {"spec": {"resourceAttributes": attributes}}
        answer = self.api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        return bool(answer["status"]["allowed"])

    def rules(self, namespace: str) -> set[Right]:
        """Everything that a SelfSubjectRulesReview lists in a namespace, apart from what everyone may do."""
        body = {"spec": {"namespace": namespace}}
        answer = self.api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body)
        assert not answer["status"]["incomplete"]
        return {
            (group, resource, verb)
            for rule in answer["status"]["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
            if group not in {"authorization.k8s.io", "authentication.k8s.io"}
        }


@pytest.fixture(scope="module", params=["cluster", "namespace", *(f"namespace with {extra}" for extra in EXTRA)])
def account(
    request: pytest.FixtureRequest, api: Api, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Account]:
    """The chart's roles on the server, cluster-wide or for one namespace, and a client with its account's token."""
    release = f"rbac-{uuid.uuid4().hex[:8]}"
    watched, other = f"{release}-watched", f"{release}-other"
    for namespace in (watched, other):
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    scope = None if request.param == "cluster" else watched
    values, more = EXTRA.get(request.param.rpartition(" ")[2], ((), []))
    expected = frozenset([*RIGHTS, *more])
    folder = tmp_path_factory.mktemp("account")
    account = operator_account(api, kubeconfig, folder, release=release, home=other, watched=scope, values=values)
    with account as own:
        yield Account(Api(own), watched, other, expected)
    for namespace in (watched, other):
        api.request("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.mark.parametrize("right", RIGHTS, ids=" ".join)
def test_the_operator_may_do_what_it_does(account: Account, right: Right) -> None:
    """Each call the operator makes is allowed where it works."""
    assert account.may(right, account.watched)


@pytest.mark.parametrize("right", FORBIDDEN, ids=" ".join)
def test_the_operator_may_not_do_anything_else(account: Account, right: Right) -> None:
    """No Secrets, no exec, no pods of its own, no rights to give away; no Deployments where there are no canaries."""
    assert account.may(right, account.watched) is (right in account.rights)


@pytest.mark.parametrize("right", sorted({right for _, more in EXTRA.values() for right in more}), ids=" ".join)
def test_what_canaries_and_kinds_of_targets_take_is_given_where_they_are_wanted(account: Account, right: Right) -> None:
    """And nowhere else."""
    assert account.may(right, account.watched) is (right in account.rights)


def test_the_list_of_rights_is_complete(account: Account) -> None:
    """The server's own list of the account's rights is the list above: nothing came along unnoticed."""
    assert account.rules(account.watched) == account.rights


def test_elsewhere_it_may_do_nothing_in_namespaced_mode(account: Account, request: pytest.FixtureRequest) -> None:
    """With watchNamespaces, others are out of reach but for the election in the release's own; without, none is."""
    election = {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
    expected = election if "namespace" in request.node.callspec.id else set(RIGHTS)
    assert account.rules(account.other) == expected


def test_a_secret_is_out_of_reach(account: Account) -> None:
    """Not only by the review: the call itself is refused."""
    with pytest.raises(ApiError, match="secrets is forbidden"):
        account.api.get(f"/api/v1/namespaces/{account.watched}/secrets")
