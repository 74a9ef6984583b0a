"""The number that a query of a resource's own answers, for a span of time before a moment."""

from retune.api.monitoring import LiveSignal
from retune.api.objects import ModelOptimization
from retune.plan.observed import LiveNumber
from retune.signals.prometheus import Prometheus


async def queried(
    prometheus: Prometheus, resource: ModelOptimization, signal: LiveSignal, *, seconds: int, at: float
) -> LiveNumber:
    """Return the number of a signal that has a query, or why there is none.

    Args:
        prometheus: Asks the server that the resource names.
        resource: Whose names stand for the placeholders.
        signal: The signal.
        seconds: What stands for the window.
        at: End of the window, in seconds since 1970.
    """
    performance = resource.spec.monitoring.performance if resource.spec.monitoring else None
    values = {
        "namespace": resource.metadata.namespace,
        "target": resource.spec.target.ref.name,
        "model": resource.metadata.name,
        "window": f"{seconds}s",
    }
    server = performance.prometheus.server if performance and performance.prometheus else ""
    return await prometheus.number(signal.name, signal.query or "", server=server, values=values, at=at)
