"""Windows of time: which one is due, and which one's labels are. Arithmetic on whole seconds since 1970, in UTC.

Windows of one length never overlap, and a window has the same number for everybody and for ever: window k begins
k lengths after 1970.
"""

import hashlib
import math
from datetime import UTC, datetime

from retune.api.base import seconds
from retune.api.monitoring import Monitoring
from retune.api.watched import MonitoringStatus
from retune.contract.requests import Window

_SPREAD_SHARE = 0.1
_SPREAD_SECONDS = 300.0


def length_of(duration: str) -> int:
    """Return a window's length in whole seconds, at least 1.

    Args:
        duration: The length as users write it, such as `1h30m`.
    """
    return max(1, math.ceil(seconds(duration)))


def window(index: int, length: int) -> Window:
    """Return a window with its bounds in seconds since 1970.

    Args:
        index: The window's number.
        length: Seconds that a window lasts.
    """
    return Window(index=index, start=index * length, end=(index + 1) * length)


def first_unjudged(state: MonitoringStatus) -> int:
    """Return the number of the first window of a watch that has no verdict yet."""
    first = first_since(state.since, state.window_seconds)
    return first if state.window is None else max(first, state.window + 1)


def own_delay(key: str, spec: Monitoring, length: int) -> float:
    """Return the seconds after a window's end at which a resource's check starts: its `delay` and a few more.

    Windows end at one moment for everybody. Spread over a tenth of a window, 5 minutes at most, or over as long as the
    spec says, the checks of a cluster do not all start in that moment; each resource always has the same place.

    Args:
        key: The resource, as `namespace/name`.
        spec: How it is watched.
        length: Seconds that a window lasts, over which checks are spread at most.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32
    usual = min(_SPREAD_SHARE * length, _SPREAD_SECONDS)
    spread = usual if spec.spread is None else min(seconds(spec.spread), length)
    return seconds(spec.delay) + math.floor(place * spread)


def newest_over(now: datetime, length: int, delay: float) -> int:
    """Return the number of the newest window that has been over for a while; -1 before there is one.

    Args:
        now: The moment of the pass.
        length: Seconds that a window lasts.
        delay: Seconds since the window's end.
    """
    return math.floor((now.timestamp() - delay) / length) - 1


def first_since(since: datetime, length: int) -> int:
    """Return the number of the first window that began at a moment or later.

    Args:
        since: The moment.
        length: Seconds that a window lasts.
    """
    return math.ceil(since.timestamp() / length)


def first_learned(state: MonitoringStatus, index: int, most: int) -> int:
    """Return the number of the first window that may teach a correction which a window judges.

    Args:
        state: The watch.
        index: The number of the window that judges it; equal to what is returned where none is before it.
        most: Most windows that teach.
    """
    return min(index, max(first_since(state.since, state.window_seconds), index - most))


def seconds_until_next(now: datetime, length: int, delay: float) -> float:
    """Return the seconds until one more window has been over for a while; above 0.

    Args:
        now: The moment of the pass.
        length: Seconds that a window lasts.
        delay: Seconds after the window's end.
    """
    return (newest_over(now, length, delay) + 2) * length + delay - now.timestamp()


def end_of(index: int, length: int) -> datetime:
    """Return the moment that a window ends.

    Args:
        index: The window's number.
        length: Seconds that a window lasts.
    """
    return datetime.fromtimestamp((index + 1) * length, tz=UTC)
