"""Who gets which share of the requests while a version is tried: a Protocol, a module a kind, a line in the registry.

Arithmetic over numbers of pods, without I/O: `plan` decides by it, `cluster` reads and writes.
"""

from retune.traffic.base import Split, TrafficKind
from retune.traffic.registry import TRAFFIC, kind_of

__all__ = ["TRAFFIC", "Split", "TrafficKind", "kind_of"]
