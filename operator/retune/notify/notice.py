"""One transition, as it is told outside the cluster."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Notice:
    """What has happened to one ModelOptimization."""

    id: str
    """UID of the Event, so that a receiver knows a notice that comes twice."""
    namespace: str
    name: str
    reason: str
    """CamelCase word, such as RolledBack."""
    message: str
    """The Event's sentence."""
    warning: bool
    time: datetime
    """In UTC."""
