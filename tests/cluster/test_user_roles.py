"""What the chart's roles give to people who have the cluster's own view, edit and admin roles."""

import time
from collections.abc import Iterator

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.cluster.chart import of_kind, rendered
from tests.cluster.crds import install
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane, control_plane

_ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
_BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
_PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def team() -> Iterator[dict[str, Api]]:
    """A viewer, an editor and an administrator of the default namespace, each by the cluster's role of that name."""
    with control_plane(controllers=["clusterrole-aggregation-controller"]) as plane:
        admin = Api(plane.kubeconfig)
        install(admin, [modeloptimization_crd(), optimizationrun_crd()])
        for role in of_kind(rendered("rbac.create=false"), "ClusterRole"):
            admin.apply(f"{_ROLES}/{role['metadata']['name']}", role)
        yield {role: member(plane, admin, role) for role in ("view", "edit", "admin")}


def member(plane: ControlPlane, admin: Api, role: str) -> Api:
    """A user bound to one of the cluster's roles, once the aggregated rules have arrived there."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": role}],
    }
    admin.request("POST", _BINDINGS, binding)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not any("retune.dev" in rule.get("apiGroups", ()) for rule in admin.get(f"{_ROLES}/{role}")["rules"]):
        assert time.monotonic() < deadline, f"nothing was aggregated to {role}"
        time.sleep(0.1)
    return Api(plane.user_kubeconfig(role))


def may(user: Api, verb: str, resource: str) -> bool:
    """What a SelfSubjectAccessReview answers in the default namespace."""
    name, _, sub = resource.partition("/")
    attributes = {"group": "retune.dev", "resource": name, "subresource": sub, "verb": verb, "namespace": "default"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(user.request("POST", path, {"spec": {"resourceAttributes": attributes}})["status"]["allowed"])


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_everyone_in_the_team_can_look(team: dict[str, Api], role: str) -> None:
    """Both kinds are for all who may look at a namespace."""
    assert all(
        may(team[role], verb, kind)
        for verb in ("get", "list", "watch")
        for kind in ("modeloptimizations", "optimizationruns")
    )


def test_a_viewer_changes_nothing(team: dict[str, Api]) -> None:
    """Looking is all a viewer does."""
    verbs = ("create", "update", "patch", "delete")
    assert not any(
        may(team["view"], verb, kind) for verb in verbs for kind in ("modeloptimizations", "optimizationruns")
    )


@pytest.mark.parametrize("role", ["edit", "admin"])
def test_an_editor_declares_policies_and_tidies_history(team: dict[str, Api], role: str) -> None:
    """Policies are the user's; runs are the operator's record, which people may only remove."""
    assert all(may(team[role], verb, "modeloptimizations") for verb in ("create", "update", "patch", "delete"))
    assert may(team[role], "delete", "optimizationruns")
    assert not any(may(team[role], verb, "optimizationruns") for verb in ("create", "update", "patch"))


@pytest.mark.parametrize("role", ["edit", "admin"])
def test_nobody_writes_a_status(team: dict[str, Api], role: str) -> None:
    """What was observed is said by the operator alone."""
    assert not any(may(team[role], "patch", f"{kind}/status") for kind in ("modeloptimizations", "optimizationruns"))
