"""What search and judge are told of a spec: the same with a cluster and without one."""

from retune.api.spec import ModelOptimizationSpec


def asked_of(spec: ModelOptimizationSpec) -> dict[str, object]:
    """Return the fields of a search or judge request that are the spec's own."""
    return {
        "data": spec.data,
        "objectives": spec.better,
        "selection": spec.selection,
        "techniques": spec.techniques,
        "search": spec.search,
        "serving": spec.serving,
    }
