"""What lets a route share requests with a canary: a Service of its own, and the changes of the route as a JSON patch.

The patch says what it expects to find, so that it changes nothing of a route that has become another one. All else in
the route, matches, filters and whatever others add, is left as it is. Rules for testers come last and go whole.
"""

import copy
from collections.abc import Sequence
from typing import Any

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.plan import names
from retune.plan.actions import ShareRoute
from retune.traffic import Pair, Rule
from retune.workloads.canary import CANARY
from retune.workloads.labels import label_value, metadata
from retune.workloads.rules import backends
from retune.workloads.testers import for_testers

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


def share_patch(raw: Json, action: ShareRoute, *, canary: str) -> list[Json]:
    """Return the JSON patch (RFC 6902) that gives rules of a route their wanted backends, and testers their copies.

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
    return [*patch, *_of_testers(raw, action, canary=canary)]


def _of_testers(raw: Json, action: ShareRoute, *, canary: str) -> list[Json]:
    """Return the operations that remove and add rules for testers, the last ones of a patch: they move others."""
    patch: list[Json] = []
    for index in sorted(action.closed, reverse=True):
        path = f"/spec/rules/{index}"
        patch += [{"op": "test", "path": path, "value": raw["spec"]["rules"][index]}, {"op": "remove", "path": path}]
    if action.testers is None:
        return patch
    pair, namespace = Pair(action.service, canary), raw["metadata"]["namespace"]
    rules = [raw["spec"]["rules"][index] for index in action.opened]
    copies = [for_testers(rule, action.testers, pair, namespace=namespace) for rule in rules]
    return [*patch, *({"op": "add", "path": "/spec/rules/-", "value": made} for made in copies)]


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
