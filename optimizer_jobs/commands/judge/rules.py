"""The models that take part in a judgement, and the rules that they are judged by."""

import math
from dataclasses import dataclass, field
from functools import cached_property

from optimizer_jobs.measure.resources import RESOURCES
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.serving.limits import Limits, limits_of
from retune.api.metrics import Metric
from retune.api.objectives import Objective
from retune.api.quantities import memory_bytes
from retune.api.search import Serving
from retune.api.techniques import Adversarial
from retune.contract.requests import BundleRef

NARROWEST_BAND = 0.03
WIDEST_BAND = 0.10
_ROUNDED_CPU = 0.02
"""By how much two CPU limits may differ that are the same, because they are kept in whole periods and millicores."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A verified bundle that takes part in the comparison."""

    bundle: Bundle
    ref: BundleRef
    plan: str
    """What was done to the model and how it is run, in words."""
    trial: int | None = None
    """Number of the trial that made it; None for the champion and the model as delivered."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of the judgement."""

    objectives: tuple[Objective, ...]
    confidence: float
    """Confidence of the intervals, 0..1."""
    min_gain: float
    """Smallest relative gain that is worth replacing the champion."""
    threads: int
    """Threads that the serving container may use. A server opens every bundle with at most as many."""
    container_cpus: float | None = None
    """CPU that the serving container may use, in cores; None where that is not known."""
    judge_cpus: float | None = None
    """CPU that the judge itself has; None where that is not known."""
    serving: Serving = field(default_factory=Serving)
    attack: Adversarial = field(default_factory=Adversarial)
    """The attack under which robust accuracy is measured."""
    seed: int
    yardstick: Yardstick = PLAIN
    """What the owner measures quality by."""

    @cached_property
    def limits(self) -> Limits:
        """What the server can be told and can run."""
        return limits_of(self.serving)

    @property
    def band(self) -> float:
        """Largest relative difference of a model's latency from itself; it follows the smallest gain that counts."""
        return min(max(self.min_gain, NARROWEST_BAND), WIDEST_BAND)

    @property
    def threads_doubt(self) -> str | None:
        """Why the judged threads are not those of the spec or cannot all run, as words without a full stop, or None."""
        judged = "1 thread was judged" if self.threads == 1 else f"{self.threads} threads were judged"
        container, judge, cores = self.container_cpus, self.judge_cpus, self.serving.cores
        if container is not None and container < self.threads:
            return f"{judged}, and the serving container may use {container:g} CPU only"
        if judge is not None and judge < self.threads:
            return f"{judged} on {judge:g} CPU, all that the judge has: judge where there are as many"
        if cores is not None and cores > self.threads:
            return f"{judged}, and serving.cores asks for {cores}: the serving container may use no more"
        return None

    @property
    def cpu_doubt(self) -> str | None:
        """Why times are not those of a server, as words without a full stop; None where the judge has its CPU."""
        served = min(self.container_cpus or self.threads, self.threads)
        judge = served if self.judge_cpus is None else min(self.judge_cpus, self.threads)
        if math.isclose(judge, served, rel_tol=_ROUNDED_CPU):
            return None
        return f"the judge had {judge:g} CPU, and the serving container may use {served:g}"

    @property
    def memory(self) -> int | None:
        """Most bytes for a process with the model; None without a limit."""
        return int(memory_bytes(self.serving.memory)) if self.serving.memory else None

    @property
    def resources(self) -> frozenset[Metric]:
        """The resources that an objective needs, and memory if it is limited."""
        needed = {objective.metric for objective in self.objectives} & RESOURCES
        return frozenset(needed | ({Metric.PEAK_MEMORY_BYTES} if self.memory is not None else set()))
