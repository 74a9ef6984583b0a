"""What lets a route share requests with a canary: a Service of its own, and the changes of the route as a JSON patch.

The patch says what it expects to find, so that it changes nothing of a route that has become another one. All else in
the route, matches, filters and whatever others add, is left as it is.
"""

import copy
from collections.abc import Sequence
from typing import Any

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.plan import names
from retune.plan.actions import ShareRoute
from retune.traffic import Backend, Rule
from retune.workloads.canary import CANARY
from retune.workloads.labels import label_value, metadata

_PORT = ("name", "protocol", "port", "targetPort", "appProtocol")
_COPIED = ("ipFamilies", "ipFamilyPolicy", "sessionAffinity")
_HEADLESS = "None"


def service_manifest(resource: ModelOptimization, service: Json) -> Json:
    """Return the Service of the canary's pods: the ports of the target's Service, and nothing of where it is exposed.

    Args:
        resource: The resource that owns it.
        service: JSON of the Service that stands for the target.
    """
    target, spec = resource.spec.target.ref.name, service["spec"]
    ports = [{field: port[field] for field in _PORT if field in port} for port in spec.get("ports") or ()]
    own: Json = {field: spec[field] for field in _COPIED if field in spec}
    own |= {"selector": {CANARY: label_value(target)}, "ports": ports}
    if spec.get("clusterIP") == _HEADLESS:
        own["clusterIP"] = _HEADLESS
    meta = metadata(resource, names.canary_service(target))
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": own}


def backends(rule: Json, *, namespace: str) -> Rule:
    """Return the backends of a rule of a route in this namespace."""
    return tuple(Backend(_name(ref, namespace), ref.get("weight")) for ref in rule.get("backendRefs") or ())


def _name(ref: Json, namespace: str) -> str:
    """Return the name of a Service in the namespace; of anything else, a text with slashes, which no Service has."""
    place = (ref.get("group") or "", ref.get("kind") or "Service", ref.get("namespace") or namespace)
    return str(ref["name"]) if place == ("", "Service", namespace) else "/".join((*place, ref["name"]))


def share_patch(raw: Json, action: ShareRoute, *, canary: str) -> list[Json]:
    """Return the JSON patch (RFC 6902) that gives rules of a route their wanted backends.

    Args:
        raw: JSON of the route, of the version that was decided on.
        action: The rules.
        canary: The canary's Service.
    """
    patch = [{"op": "test", "path": "/metadata/resourceVersion", "value": action.version}]
    for index, wanted in action.rules:
        refs = raw["spec"]["rules"][index]["backendRefs"]
        found = backends({"backendRefs": refs}, namespace=raw["metadata"]["namespace"])
        path = f"/spec/rules/{index}/backendRefs"
        patch += [{"op": "test", "path": f"{path}/{at}/name", "value": ref["name"]} for at, ref in enumerate(refs)]
        patch += _changes(refs, found, wanted, path=path, service=action.service, canary=canary)
    return patch


def _changes(
    refs: Sequence[Json], found: Rule, wanted: Rule, *, path: str, service: str, canary: str
) -> list[dict[str, Any]]:
    """Return the operations on one rule; what moves the places of others comes last."""
    at = next((place for place, backend in enumerate(found) if backend.name == canary), None)
    kept = [place for place in range(len(found)) if place != at]
    if at is None and len(wanted) > len(found):
        model = next(ref for ref, backend in zip(refs, found, strict=True) if backend.name == service)
        added = copy.deepcopy(dict(model)) | {"name": canary, "weight": wanted[-1].weight}
        return [*_weighed(found, wanted[:-1], kept, path), {"op": "add", "path": f"{path}/-", "value": added}]
    if at is not None and len(wanted) < len(found):
        return [*_weighed(found, wanted, kept, path), {"op": "remove", "path": f"{path}/{at}"}]
    every = list(range(len(found)))
    renamed = [place for place in every if found[place].name != wanted[place].name]
    changes = [{"op": "replace", "path": f"{path}/{place}/name", "value": wanted[place].name} for place in renamed]
    return [*changes, *_weighed(found, wanted, every, path)]


def _weighed(found: Rule, wanted: Rule, places: Sequence[int], path: str) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = []
    for place, backend in zip(places, wanted, strict=True):
        if found[place].weight == backend.weight:
            continue
        where = f"{path}/{place}/weight"
        op = {"op": "remove"} if backend.weight is None else {"op": "add", "value": backend.weight}
        changes.append(op | {"path": where})
    return changes
