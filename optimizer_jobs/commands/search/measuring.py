"""Measure a candidate beside the champion: latency in the same rounds, resources, and accuracy under the same attack.

These measurements are short. They guide the search, and the judge measures again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.robust.attack import method_for, withstood
from optimizer_jobs.measure.confinement import confined, confinement
from optimizer_jobs.measure.latency import LEAST_CALLS, WARM_UP_SECONDS, interleave, ratio
from optimizer_jobs.measure.mix import served_mix, usual_size
from optimizer_jobs.measure.resources import RESOURCES, Conditions, Served, Usage, measure_resources
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import Session
from retune.api.metrics import Metric
from retune.api.objectives import Objective
from retune.api.quantities import memory_bytes
from retune.api.search import Serving
from retune.api.techniques import Adversarial

_BLOCKS, _CALLS = 12, 25
_BLOCK_MS = 500.0
"""Longest block of timed calls; a slow model gets fewer calls."""
_WARM_UP_CALLS = 60
"""Calls that usually warm a model up."""
_QUANTILES = {Metric.LATENCY_P50_MS: 0.5, Metric.LATENCY_P95_MS: 0.95}
_CHAMPION, _CANDIDATE = "champion", "candidate"

Compared = dict[Metric, tuple[float, float]]
"""By metric, the values of champion and candidate."""


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Measures candidates beside the champion."""

    champion: Bundle
    session: Session
    """The champion, opened."""
    rows: Rows
    """The validation rows."""
    objectives: Sequence[Objective]
    threads: int
    serving: Serving
    attack: Adversarial
    """The attack under which robust accuracy is measured."""
    classes: tuple[int | str, ...]
    """Label of each score column."""
    seed: int

    def compare(self, bundle: Bundle, session: Session, usage: Mapping[str, Usage]) -> Compared:
        """Return the values of champion and candidate for latency, and for what else the objectives need.

        Args:
            bundle: The candidate.
            session: The candidate, opened.
            usage: What `usage` returned for the candidate.
        """
        return {**self._robust(bundle, session), **self._latency(session), **self._resource_values(usage)}

    def usage(self, bundle: Bundle) -> dict[str, Usage]:
        """Measure what champion and candidate use, if an objective or a memory limit of the server needs it."""
        if not self._resources and self.serving.memory is None:
            return {}
        conditions = Conditions(
            mix=served_mix(self.serving, self.session.signature),
            threads=self.threads,
            serving=self.serving,
            repeats=1,
            seed=self.seed,
        )
        subjects = {_CHAMPION: Served.of(self.champion), _CANDIDATE: Served.of(bundle)}
        return measure_resources(subjects, self.rows, reference=_CHAMPION, conditions=conditions)

    @staticmethod
    def latency_seconds(call_seconds: float) -> float:
        """Return how long latency is measured for a candidate that is as fast as the champion, by the champion's."""
        calls = max(LEAST_CALLS, min(_CALLS, int(_BLOCK_MS / max(1e-6, 1e3 * call_seconds))))
        return 2 * (calls * _BLOCKS * call_seconds + min(WARM_UP_SECONDS, _WARM_UP_CALLS * call_seconds))

    def with_memory(self, shortfalls: dict[str, float], usage: Mapping[str, Usage]) -> dict[str, float]:
        """Return the shortfalls with that of the server's memory limit, which applies to the whole process."""
        if self.serving.memory is None:
            return shortfalls
        name = Metric.PEAK_MEMORY_BYTES.value
        over = usage[_CANDIDATE].process_bytes - memory_bytes(self.serving.memory)
        return {**shortfalls, name: max(over, shortfalls.get(name, over))}

    def _latency(self, session: Session) -> Compared:
        """Return percentiles in ms; the candidate's is the champion's multiplied by their ratio in the same rounds."""
        with confined(confinement(self.serving, threads=self.threads).cores):
            timings = interleave(
                {_CHAMPION: self.session, _CANDIDATE: session},
                self.rows,
                mix=served_mix(self.serving, session.signature),
                blocks=_BLOCKS,
                calls_per_block=_CALLS,
                block_ms=_BLOCK_MS,
                seed=self.seed,
            )
        percentiles: Compared = {}
        for metric, quantile in _QUANTILES.items():
            champion = timings[_CHAMPION].percentile(quantile).value
            factor = ratio(timings[_CHAMPION], timings[_CANDIDATE], quantile).value
            percentiles[metric] = (champion, champion * factor)
        return percentiles

    def _resource_values(self, usage: Mapping[str, Usage]) -> Compared:
        """Return resources; the candidate's value is the champion's multiplied by their ratio in the same rounds."""
        bases = {metric: usage[_CHAMPION].metrics[metric].value for metric in self._resources}
        return {metric: (base, base * usage[_CANDIDATE].ratios[metric].value) for metric, base in bases.items()}

    @property
    def _resources(self) -> tuple[Metric, ...]:
        needed = {objective.metric for objective in self.objectives}
        return tuple(metric for metric in Metric if metric in needed & RESOURCES)

    def _robust(self, bundle: Bundle, session: Session) -> Compared:
        """Return the accuracy under the same attack, if an objective needs it."""
        if not any(objective.metric is Metric.ROBUST_ACCURACY for objective in self.objectives):
            return {}
        method = method_for((self.champion.model, bundle.model))
        return {Metric.ROBUST_ACCURACY: (self._champion_robust(method), self._withstood(bundle.model, session, method))}

    @cached_property
    def _champion_robust(self) -> Callable[[str], float]:
        """A function from a method of attack to the champion's accuracy under it, which is measured once."""
        return cache(partial(self._withstood, self.champion.model, self.session))

    def _withstood(self, model: Path, session: Session, method: str) -> float:
        right = withstood(
            model,
            session,
            self.rows,
            method=method,
            settings=self.attack,
            classes=self.classes,
            seed=self.seed,
            reading=self.champion.manifest.signature.reading,
            batch=usual_size(self.serving.mix),
        )
        return float(np.average(right, weights=self.rows.weights))
