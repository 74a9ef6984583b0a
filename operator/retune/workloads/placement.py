"""Where a Job's pod is put: on the nodes of the resource, of its profile or of its target, near its store's volume.

A volume that one node at a time may mount (ReadWriteOnce) keeps every pod on another node waiting. That nearness is
preferred and not required: a full node must not keep a Job from a volume that many nodes may mount.
"""

from collections.abc import Mapping

from retune.api.base import Json
from retune.api.execution import Execution
from retune.job_profiles import Profile
from retune.job_template import PodTemplate
from retune.plan.observed import Target
from retune.workloads.labels import STORE, label_value

_HOST = "kubernetes.io/hostname"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_MOST = 100


def store_label(claim: str | None) -> dict[str, str]:
    """Return the label by which other pods are put beside one that mounts this claim."""
    return {STORE: label_value(claim)} if claim else {}


def nodes(execution: Execution, profile: Profile | None, target: Target | None) -> Json:
    """Return node selector and tolerations of a pod, without what is empty.

    Without a profile, what the resource leaves out is the target's: Jobs measure where the model serves. A profile's
    labels and tolerations come to what the resource says, and its labels win.
    """
    selector = dict(execution.node_selector)
    tolerations = [toleration.to_dict() for toleration in execution.tolerations]
    if profile is not None:
        selector |= profile.node_selector
        tolerations += [toleration.to_dict() for toleration in profile.tolerations]
    elif target is not None:
        selector = selector or dict(target.node_selector)
        tolerations = tolerations or [dict(toleration) for toleration in target.tolerations]
    return ({"nodeSelector": selector} if selector else {}) | ({"tolerations": tolerations} if tolerations else {})


def classes(profile: Profile | None) -> Json:
    """Return the classes that a profile sets in the pod's spec, in place of the template's."""
    fields = profile.to_dict() if profile else {}
    return {name: fields[name] for name in ("runtimeClassName", "priorityClassName") if name in fields}


def devices(profile: Profile) -> Json:
    """Return a profile's devices as limits of a container, which are its requests too."""
    return {name: str(number) for name, number in profile.devices.items()}


def affinity(template: PodTemplate, *, claim: str | None, target: Target | None) -> Json:
    """Return the pod's affinity: the administrator's, with the nearness to those that mount the claim.

    Args:
        template: What the administrator wants.
        claim: The claim of the Job's store, if it is on one.
        target: The workload that serves, which may have mounted the claim itself.
    """
    wanted = template.affinity.to_dict() if template.affinity else {}
    if claim is None or template.store_access == "ReadWriteMany":
        return wanted
    near = [_near(store_label(claim))]
    if target is not None and claim in target.claims and target.labels:
        near.append(_near(target.labels))
    pods = wanted.get("podAffinity", {})
    return wanted | {"podAffinity": pods | {_PREFERRED: [*pods.get(_PREFERRED, ()), *near]}}


def _near(labels: Mapping[str, str]) -> Json:
    term = {"topologyKey": _HOST, "labelSelector": {"matchLabels": dict(labels)}}
    return {"weight": _MOST, "podAffinityTerm": term}
