"""Where a Job's pod is put: beside the pods that have its store's volume mounted, besides what the administrator wants.

A volume that one node at a time may mount (ReadWriteOnce) keeps every pod on another node waiting. That nearness is
preferred and not required: a full node must not keep a Job from a volume that many nodes may mount.
"""

from collections.abc import Mapping

from retune.api.base import Json
from retune.job_template import PodTemplate
from retune.plan.observed import Target
from retune.workloads.labels import STORE, label_value

_HOST = "kubernetes.io/hostname"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_MOST = 100


def store_label(claim: str | None) -> dict[str, str]:
    """Return the label by which other pods are put beside one that mounts this claim."""
    return {STORE: label_value(claim)} if claim else {}


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
