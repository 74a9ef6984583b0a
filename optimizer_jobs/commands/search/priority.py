"""Which steps a search tries first: those that gain most on the kind of machine that the model will serve on."""

from collections.abc import Mapping

from optimizer_jobs.measure.confinement import Profile
from optimizer_jobs.technique import ONE_LINE, Params
from retune.api.techniques import QuantizationScheme, TechniqueType

_FIRST: Mapping[Profile, tuple[TechniqueType | QuantizationScheme, ...]] = {
    Profile.EDGE_CPU: (
        QuantizationScheme.STATIC,
        QuantizationScheme.DYNAMIC,
        QuantizationScheme.AWARE,
        TechniqueType.PRUNING,
        QuantizationScheme.WEIGHT_ONLY,
        TechniqueType.FACTORIZATION,
        TechniqueType.DISTILLATION,
    ),
    Profile.SERVER_CPU: (TechniqueType.GRAPH_OPTIMIZATION, QuantizationScheme.STATIC, QuantizationScheme.DYNAMIC),
    Profile.GPU: (QuantizationScheme.HALF, TechniqueType.GRAPH_OPTIMIZATION, TechniqueType.PRUNING),
}
"""What gains most on each kind of machine. Small machines lack memory and fast float units; GPUs lack neither."""


def priority(profile: Profile, kind: TechniqueType, params: Params) -> int:
    """Return the rank of a step on this kind of machine: the lowest is tried first.

    What a user would try in one line has -1, and steps that gain nothing in particular come last.
    """
    if ONE_LINE in params:
        return -1
    order = _FIRST[profile]
    for entry in (params.get("scheme"), kind):
        if entry in order:
            return order.index(entry)
    return len(order)
