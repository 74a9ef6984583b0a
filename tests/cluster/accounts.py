"""Accounts on a real API server: the operator's as the chart makes it, and people with chosen rights in a namespace."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.chart import rendered
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PATIENCE_SECONDS = 30.0
_PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{ns}/serviceaccounts/{name}",
    "Role": _RBAC + "/namespaces/{ns}/roles/{name}",
    "RoleBinding": _RBAC + "/namespaces/{ns}/rolebindings/{name}",
    "ClusterRole": _RBAC + "/clusterroles/{name}",
    "ClusterRoleBinding": _RBAC + "/clusterrolebindings/{name}",
}


@contextmanager
def operator_account(
    api: Api, admin: Path, folder: Path, *, release: str, home: str, watched: str | None, values: Sequence[str] = ()
) -> Iterator[Path]:
    """Kubeconfig of the account that a release in namespace `home` gets; watched: its one namespace, None for all."""
    scope = [f"watchNamespaces={{{watched}}}"] if watched else []
    settings = (*scope, *values, "rbac.aggregateToUserRoles=false", f"fullnameOverride={release}", "crds.enabled=false")
    objects = [each for each in rendered(*settings, release=release, namespace=home) if each["kind"] in _PATHS]
    paths = {_address(each): each for each in objects}
    for path, document in paths.items():
        api.apply(path, document)
    answer = api.request("POST", f"/api/v1/namespaces/{home}/serviceaccounts/{release}/token", {"spec": {}})
    try:
        yield _with_token(admin, answer["status"]["token"], folder / f"{release}.kubeconfig")
    finally:
        for path in paths:
            api.request("DELETE", path)


def person(plane: ControlPlane, name: str, *, namespace: str, rules: Sequence[Json]) -> Api:
    """The API as a user with these RBAC rules in a namespace, once the authorizer knows of them."""
    grant(Api(plane.kubeconfig), name, namespace=namespace, rules=rules, subject={"kind": "User", "name": name})
    user = Api(plane.user_kubeconfig(name))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not all(_may(user, namespace, rule) for rule in rules):
        assert time.monotonic() < deadline, f"the rights of {name} have not arrived"
        time.sleep(0.05)
    return user


def grant(api: Api, name: str, *, namespace: str, rules: Sequence[Json], subject: Json) -> None:
    """Bind a subject to a role of its own with these rules."""
    group = "rbac.authorization.k8s.io"
    where = {"metadata": {"name": name, "namespace": namespace}}
    reference = {"apiGroup": group, "kind": "Role", "name": name}
    for kind, content in (
        ("Role", {"rules": list(rules)}),
        ("RoleBinding", {"roleRef": reference, "subjects": [subject]}),
    ):
        document = {"apiVersion": f"{group}/v1", "kind": kind} | where | content
        api.apply(_address(document), document)


def _may(user: Api, namespace: str, rule: Json) -> bool:
    resource, _, sub = rule["resources"][0].partition("/")
    attributes = {"group": rule["apiGroups"][0], "resource": resource, "subresource": sub, "verb": rule["verbs"][0]}
    attributes |= {"namespace": namespace, "name": rule.get("resourceNames", [""])[0]}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(user.request("POST", path, {"spec": {"resourceAttributes": attributes}})["status"]["allowed"])


def _address(document: Json) -> str:
    meta = document["metadata"]
    return _PATHS[document["kind"]].format(ns=meta.get("namespace"), name=meta["name"])


def _with_token(admin: Path, token: str, target: Path) -> Path:
    document = yaml.safe_load(admin.read_text())
    document["users"] = [{"name": document["users"][0]["name"], "user": {"token": token}}]
    target.write_text(yaml.safe_dump(document))
    return target
