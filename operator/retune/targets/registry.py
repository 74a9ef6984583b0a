"""The one list of target kinds."""

from typing import Final

from retune.api.target import TargetRef
from retune.targets.argo_rollout import ArgoRollout
from retune.targets.base import TargetKind
from retune.targets.deployment import Deployment
from retune.targets.inference_service import InferenceService
from retune.targets.stateful_set import StatefulSet

DEPLOYMENT: Final = Deployment()
_KINDS: tuple[TargetKind, ...] = (DEPLOYMENT, StatefulSet(), ArgoRollout(), InferenceService())
TARGETS: dict[tuple[str, str], TargetKind] = {(kind.api_version, kind.kind): kind for kind in _KINDS}


def kind_of(ref: TargetRef) -> TargetKind:
    """Return how to deal with the workload that `ref` names; the CRD admits only kinds in this list."""
    return TARGETS[ref.api_version, ref.kind]
