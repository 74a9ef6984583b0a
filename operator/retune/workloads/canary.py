"""The canary's Deployment: the target's own pods but for the version that they serve, and for whose they are.

It is a clone, so that what the canary shows is the version's doing. Its pods must not be taken for the target's own,
and must get requests from the target's Services; where a route shares requests, they must get none from these. Where
no labels allow that, none is made.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Final

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.plan import names
from retune.plan.actions import CreateCanary
from retune.workloads.labels import label_value, metadata

CANARY: Final = "retune.dev/canary"
"""Label of a canary's pods, by which alone its Deployment selects them: the name of the target."""
MADE_OF: Final = "retune.dev/made-of"
"""Annotation of a canary with the hash of the target's pod template."""
REACHED_BY: Final = "retune.dev/reached-by"
"""Annotation of a canary with the Service whose requests a route shares with it."""
_COPIED = ("minReadySeconds", "progressDeadlineSeconds")
_TOLD_APART = "canary"
_IDENTITY = ("app", "app.kubernetes.io/name", "app.kubernetes.io/instance", "k8s-app")
"""Labels that others select pods by, as network policies do: they are changed last."""


def canary_manifest(
    action: CreateCanary, *, resource: ModelOptimization, target: Json, services: Iterable[Json]
) -> Json:
    """Return the Deployment of a canary.

    Args:
        action: What its pods serve, and how many there are.
        resource: The resource that owns it.
        target: JSON of the target.
        services: JSON of the Services in its namespace.
    """
    name, spec = target["metadata"]["name"], target["spec"]
    template = copy.deepcopy(spec["template"])
    template["metadata"] = template.get("metadata") or {}
    labels_of = _labels_apart if action.service else _pod_labels
    template["metadata"]["labels"] = labels_of(target, services)
    for container in [*template["spec"]["containers"], *(template["spec"].get("initContainers") or ())]:
        if container["name"] == action.container:
            container["env"] = _with_value(container.get("env") or [], action)
    annotations = {MADE_OF: action.template} | ({REACHED_BY: action.service} if action.service else {})
    meta = metadata(resource, names.canary(name)) | {"annotations": annotations}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            **{field: spec[field] for field in _COPIED if field in spec},
            "replicas": action.replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": {CANARY: label_value(name)}},
            "template": template,
        },
    }


def impossibility(manifest: Json, *, target: Json, services: Iterable[Json], overlaps: bool) -> str | None:
    """Return why a canary must not be made, as a sentence without a full stop; None where it may.

    Args:
        manifest: The canary's Deployment.
        target: JSON of the target.
        services: JSON of the Services in its namespace.
        overlaps: Whether the target's selector may match the canary's pods.
    """
    name, selector = target["metadata"]["name"], target["spec"]["selector"]
    if REACHED_BY in manifest["metadata"]["annotations"]:
        return _blurred(manifest, target=target, services=services, overlaps=overlaps)
    if not selecting(services, _labels_of(target)):
        return f"no Service selects the pods of Deployment {name}, so that a canary would get no requests: make one"
    if overlaps or not selects(selector, manifest["spec"]["template"]["metadata"]["labels"]):
        return None
    keys = ", ".join(
        [*selector.get("matchLabels", {}), *(term["key"] for term in selector.get("matchExpressions", ()))]
    )
    return (
        f"a Service selects by every label that Deployment {name} selects its pods by ({keys}), so that it could not "
        "tell the canary's pods from its own: make it anew with one more label in its selector, which cannot be "
        "changed, such as track: stable, or set spec.rollout.canary.traffic.overlap to Allow"
    )


def _blurred(manifest: Json, *, target: Json, services: Iterable[Json], overlaps: bool) -> str | None:
    """Return why the pods of a canary that a route reaches cannot be told from others; None where they can."""
    name, labels = target["metadata"]["name"], manifest["spec"]["template"]["metadata"]["labels"]
    selecting_it = [service["metadata"]["name"] for service in services if selecting([service], labels)]
    other = next((service for service in selecting_it if service != names.canary_service(name)), None)
    if other is not None:
        return (
            f"Service {other} would select the pods of Deployment {names.canary(name)} too, so that they got requests "
            "that no route shares: let it select by other labels"
        )
    if overlaps or not selects(target["spec"]["selector"], labels):
        return None
    return (
        f"Deployment {name} selects pods by labels whatever their values are, so that it could not tell the canary's "
        "pods from its own: make it anew with matchLabels in its selector, which cannot be changed, or set "
        "spec.rollout.canary.traffic.overlap, or that of blueGreen, to Allow"
    )


def selects(selector: Json, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches labels."""
    exact = selector.get("matchLabels") or {}
    terms = selector.get("matchExpressions") or ()
    return exact.items() <= labels.items() and all(_holds(term, labels) for term in terms)


def _holds(term: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(term["key"]), term.get("values") or ()
    match term["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None


def selecting(services: Iterable[Json], labels: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Return the selectors of the Services that send requests to pods with these labels."""
    selectors = [service["spec"].get("selector") or {} for service in services]
    return [selector for selector in selectors if selector and selector.items() <= labels.items()]


def _labels_of(target: Json) -> dict[str, str]:
    return dict((target["spec"]["template"].get("metadata") or {}).get("labels") or {})


def _pod_labels(target: Json, services: Iterable[Json]) -> dict[str, str]:
    """Return the labels of the canary's pods: the target's, but for one that it selects by and no Service does."""
    selector, labels = target["spec"]["selector"], _labels_of(target)
    labels[CANARY] = label_value(target["metadata"]["name"])
    if not selects(selector, labels):
        return labels
    used = {key for selected in selecting(services, _labels_of(target)) for key in selected}
    free = sorted(key for key in selector.get("matchLabels") or {} if key not in used)
    if free:
        labels[free[0]] = label_value(f"{labels[free[0]]}-{_TOLD_APART}".removeprefix("-"))
    return labels


def _labels_apart(target: Json, services: Iterable[Json]) -> dict[str, str]:
    """Return the target's labels but for as few as keep the canary's pods from its Services and from its selector."""
    labels = _labels_of(target)
    selectors = [*selecting(services, labels), target["spec"]["selector"].get("matchLabels") or {}]
    while matching := [selector for selector in selectors if selector and selector.items() <= labels.items()]:
        keys = {key for selector in matching for key in selector}
        key = max(keys, key=lambda key: (sum(key in selector for selector in matching), key not in _IDENTITY, key))
        labels[key] = label_value(f"{labels[key]}-{_TOLD_APART}".removeprefix("-"))
    return labels | {CANARY: label_value(target["metadata"]["name"])}


def _with_value(env: list[Json], action: CreateCanary) -> list[Json]:
    """Return a container's variables with the model that the canary serves, in the place of the target's."""
    if action.value is None:
        return [entry for entry in env if entry["name"] != action.variable]
    wanted: Json = {"name": action.variable, "value": action.value}
    if any(entry["name"] == action.variable for entry in env):
        return [wanted if entry["name"] == action.variable else entry for entry in env]
    return [*env, wanted]
