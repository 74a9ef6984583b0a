"""Which steps a search tries first: what gains most on the kind of machine that the model will serve on."""

from collections.abc import Mapping

from optimizer_jobs.measure.confinement import Profile
from optimizer_jobs.technique import Params
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
"""What gains most on each kind of machine. Small machines run short of memory and of float units, GPUs of neither."""


def priority(profile: Profile, kind: TechniqueType, params: Params) -> int:
    """Return how early a step is worth a try on such a machine, 0 first; what gains nothing special comes last."""
    liked = _FIRST[profile]
    for place in (params.get("scheme"), kind):
        if place in liked:
            return liked.index(place)
    return len(liked)
