"""How overdue the check of a window is, so that a monitor that has silently stopped can be noticed."""

from datetime import datetime

from retune.api.base import seconds
from retune.api.objects import ModelOptimization
from retune.plan.watch import windows


def lateness(resource: ModelOptimization, *, now: datetime) -> float:
    """Return the seconds since the next window's check could start; zero where none is due or nothing is captured.

    While a person has suspended the resource, nothing is due.
    """
    watched, seen = resource.spec.monitoring, resource.status.monitoring
    if watched is None or watched.production is None or seen is None or resource.spec.suspend:
        return 0.0
    over = windows.end_of(windows.first_unjudged(seen), seen.window_seconds).timestamp()
    return max(
        0.0, now.timestamp() - over - windows.own_delay(resource.key, seconds(watched.delay), seen.window_seconds)
    )
