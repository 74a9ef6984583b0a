"""The Gateway API on a real API server: its HTTPRoute, and a Gateway that is played, for lack of a proxy."""

from functools import cache
from typing import Any

import yaml

from tools.localcluster.api import Api
from tools.localcluster.gateway import crds
from tools.localcluster.settings import load

Json = dict[str, Any]
ROUTES = "/apis/gateway.networking.k8s.io/v1"
GATE = "gate"
_MERGE = "application/merge-patch+json"
_FILE = "standard/gateway.networking.k8s.io_httproutes.yaml"


@cache
def http_route_crd() -> Json:
    """Return the CustomResourceDefinition of HTTPRoute, from the Go module that Envoy Gateway is built with."""
    folder, _ = crds(load())
    document: Json = yaml.safe_load((folder / _FILE).read_text(encoding="utf-8"))
    return document


def http_route(name: str = "digits", *rules: list[Json]) -> Json:
    """Return an HTTPRoute of the played Gateway with these backends of its rules, each for a path of its own."""
    body = [
        {"matches": [{"path": {"type": "PathPrefix", "value": f"/v{number}"}}], "backendRefs": refs}
        for number, refs in enumerate(rules)
    ]
    spec = {"parentRefs": [{"name": GATE}], "rules": body}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}


def look_at(api: Api, route: Json, *, accepted: bool = True) -> None:
    """Say of a route what its Gateway would, unless that is said of its newest version already."""
    meta = route["metadata"]
    status = "True" if accepted else "False"
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": kind if accepted else "NoMatchingParent",
            "message": "" if accepted else "no listener fits",
            "observedGeneration": meta["generation"],
            "lastTransitionTime": "2026-11-29T12:00:00Z",
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
    parent = {"parentRef": route["spec"]["parentRefs"][0], "controllerName": "example.com/gate"}
    told = [parent | {"conditions": conditions}]
    if (route.get("status") or {}).get("parents") != told:
        path = f"{ROUTES}/namespaces/{meta['namespace']}/httproutes/{meta['name']}/status"
        api.request("PATCH", path, {"status": {"parents": told}}, kind=_MERGE)
