"""The one list of target kinds."""

from retune.api.spec import TargetRef
from retune.targets.base import TargetKind
from retune.targets.deployment import Deployment

TARGETS: dict[tuple[str, str], TargetKind] = {(kind.api_version, kind.kind): kind for kind in (Deployment(),)}


def kind_of(ref: TargetRef) -> TargetKind:
    """Return how to deal with the workload that `ref` names; the CRD admits only kinds in this list."""
    return TARGETS[ref.api_version, ref.kind]
