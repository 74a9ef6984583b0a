"""How overdue the check of a window is, so that a monitor that has silently stopped is noticed."""

from datetime import datetime

from retune.api.objects import ModelOptimization
from retune.plan.watch import windows


def lateness(resource: ModelOptimization, *, now: datetime) -> float:
    """Return the seconds since the next window's check could start; zero where none is due or nothing is captured.

    While a person has suspended the resource, nothing is due.
    """
    monitoring, state = resource.spec.monitoring, resource.status.monitoring
    if monitoring is None or monitoring.production is None or state is None or resource.spec.suspend:
        return 0.0
    ended = windows.end_of(windows.first_unjudged(state), state.window_seconds)
    delay = windows.own_delay(resource.key, monitoring, state.window_seconds)
    return max(0.0, now.timestamp() - ended.timestamp() - delay)
