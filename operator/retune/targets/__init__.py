"""Workloads that a model can be rolled out to: a Protocol, a module for each kind, and a line each in the registry.

Nothing here does I/O: `cluster` reads and writes, a target kind knows what to read and what to write.
"""

from retune.targets.base import BESIDE, DRIVER, TargetKind
from retune.targets.registry import DEPLOYMENT, TARGETS, kind_of

__all__ = ["BESIDE", "DEPLOYMENT", "DRIVER", "TARGETS", "TargetKind", "kind_of"]
