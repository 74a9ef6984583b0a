"""Who gets which share of the requests while a version is tried: a Protocol, a module a kind, a line in the registry.

Arithmetic over numbers of pods and over weights, without I/O: `plan` decides by it, `cluster` reads and writes.
"""

from retune.traffic.base import ALL, Split, TrafficKind
from retune.traffic.registry import TRAFFIC, kind_of
from retune.traffic.weights import Backend, Pair, Rule

__all__ = ["ALL", "TRAFFIC", "Backend", "Pair", "Rule", "Split", "TrafficKind", "kind_of"]
