"""The operator's service account as the chart makes it, on a real API server, with a kubeconfig of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.chart import rendered
from tools.localcluster.api import Api

Json = dict[str, Any]
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{ns}/serviceaccounts/{name}",
    "Role": _RBAC + "/namespaces/{ns}/roles/{name}",
    "RoleBinding": _RBAC + "/namespaces/{ns}/rolebindings/{name}",
    "ClusterRole": _RBAC + "/clusterroles/{name}",
    "ClusterRoleBinding": _RBAC + "/clusterrolebindings/{name}",
}


@contextmanager
def operator_account(
    api: Api, admin: Path, folder: Path, *, release: str, home: str, watched: str | None
) -> Iterator[Path]:
    """Kubeconfig of the account that a release in namespace `home` gets; watched: its one namespace, None for all."""
    scope = [f"watchNamespaces={{{watched}}}"] if watched else []
    settings = (*scope, "rbac.aggregateToUserRoles=false", f"fullnameOverride={release}", "crds.enabled=false")
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


def _address(document: Json) -> str:
    meta = document["metadata"]
    return _PATHS[document["kind"]].format(ns=meta.get("namespace"), name=meta["name"])


def _with_token(admin: Path, token: str, target: Path) -> Path:
    document = yaml.safe_load(admin.read_text())
    document["users"] = [{"name": document["users"][0]["name"], "user": {"token": token}}]
    target.write_text(yaml.safe_dump(document))
    return target
