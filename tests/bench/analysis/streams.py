"""What the pods of a champion and of a canary answer, as counters tell it, drawn from a known truth.

Requests arrive at random (Poisson), in bursts, or in bursts with a minute of trouble that both sides share. In bursts
the rate wanders over the minutes, and clients that keep connections make the canary's share of each moment another one.
A request fails with its version's share and takes a time with a log-normal distribution; pods count it in the buckets
that Prometheus' clients have by default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from retune.plan.observed import Heard

Counts = NDArray[np.int64]

LOOK_SECONDS = 5
"""Between two looks at the pods."""
HOLD, WAIT = 60, 360
"""Looks that a share is held for, and that it may wait for evidence afterwards: 5 and 30 minutes."""
WEIGHTS = (0.1, 0.5)
"""Shares of a canary by default."""
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, float("inf"))
_MEDIAN_SECONDS, _SPREAD = 0.05, 0.4
_USUAL_ERRORS = 0.005
_WANDER, _MEMORY = 0.8, 0.8
"""Standard deviation of the rate's logarithm in bursts, and its correlation from look to look."""
_CLIENTS = 20
"""Connections that a moment's share is made of in bursts."""
_TROUBLE = 12
"""Looks that trouble lasts."""
_TROUBLE_ERRORS, _TROUBLE_SLOWNESS = 0.2, 2.0
CHAMPION, CANARY = 0, 1


@dataclass(frozen=True)
class Version:
    """What a new version truly is, beside the champion."""

    name: str
    more_errors: float = 0.0
    """By how much more of its requests fail."""
    slowness: float = 1.0
    """How many times longer its requests take."""


@dataclass(frozen=True)
class World:
    """How requests come."""

    name: str
    rate: float
    """Requests a second, of both sides together."""
    bursts: bool = False
    trouble: bool = False
    """Whether both sides fail and are slow for a minute."""


@dataclass(frozen=True)
class Held:
    """What both sides count while a share is held, and as long as it may wait afterwards."""

    weight: float
    requests: Counts
    """Answered from look to look, (looks, 2): the champion's and the canary's."""
    errors: Counts
    """Those that failed, (looks, 2)."""
    buckets: Counts
    """Those in each bucket alone, (looks, 2, buckets)."""

    @cached_property
    def _totals(self) -> tuple[Counts, Counts, Counts]:
        within = self.buckets.cumsum(axis=2)
        return self.requests.cumsum(axis=0), self.errors.cumsum(axis=0), within.cumsum(axis=0)

    @cached_property
    def _heard(self) -> dict[tuple[int, int], Heard]:
        return {}

    def heard(self, side: int, looks: int) -> Heard:
        """Return what one side has counted after so many looks at this share."""
        if (side, looks) not in self._heard:
            requests, errors, buckets = (part[looks - 1, side] for part in self._totals)
            heard = Heard(pods=1, requests=float(requests), errors=float(errors), buckets=_by_bound(buckets))
            self._heard[side, looks] = heard
        return self._heard[side, looks]

    def part(self, side: int, first: int, last: int) -> Heard:
        """Return what one side has counted between two looks."""
        within = self.buckets[first:last, side].sum(axis=0).cumsum()
        requests, errors = (int(part[first:last, side].sum()) for part in (self.requests, self.errors))
        return Heard(pods=1, requests=requests, errors=errors, buckets=_by_bound(within))


def _by_bound(counts: Counts) -> Mapping[float, float]:
    return dict(zip(BOUNDS, counts.astype(float).tolist(), strict=True))


def usual_times() -> Mapping[float, float]:
    """Return the champion's true shares of requests that take at most so long."""
    return dict(zip(BOUNDS, np.cumsum(_times(np.ones(1))[0]).tolist(), strict=True))


def drawn(world: World, version: Version, random: np.random.Generator) -> list[Held]:
    """Return what a whole canary would answer, share by share."""
    looks, trouble = HOLD + WAIT, random.integers(0, len(WEIGHTS) * HOLD - _TROUBLE)
    held = []
    for number, weight in enumerate(WEIGHTS):
        begins = int(trouble) - number * HOLD
        troubled = np.zeros(looks, dtype=bool)
        if world.trouble and -_TROUBLE < begins < HOLD:
            troubled[max(0, begins) : begins + _TROUBLE] = True
        held.append(_held(world, version, weight, troubled, random))
    return held


def _held(
    world: World, version: Version, weight: float, troubled: NDArray[np.bool_], random: np.random.Generator
) -> Held:
    looks = len(troubled)
    mean = np.full(looks, world.rate * LOOK_SECONDS)
    share = np.full(looks, weight)
    if world.bursts:
        mean = mean * _wandering(looks, random)
        share = random.beta(weight * _CLIENTS, (1 - weight) * _CLIENTS, looks)
    of_canary = random.poisson(mean * share)
    requests = np.stack([random.poisson(mean * (1 - share)), of_canary], axis=1)
    more, slowness = np.array([0.0, version.more_errors]), np.array([1.0, version.slowness])
    failing = _USUAL_ERRORS + more + _TROUBLE_ERRORS * troubled[:, np.newaxis]
    lasting = slowness * np.where(troubled, _TROUBLE_SLOWNESS, 1.0)[:, np.newaxis]
    errors = random.binomial(requests, np.clip(failing, 0.0, 1.0))
    return Held(weight, requests, errors, random.multinomial(requests, _times(lasting)))


def _wandering(looks: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return the rate from look to look, around 1."""
    steps, level = random.normal(size=looks), np.empty(looks)
    level[0] = steps[0]
    for look in range(1, looks):
        level[look] = _MEMORY * level[look - 1] + np.sqrt(1 - _MEMORY**2) * steps[look]
    return np.exp(_WANDER * level - _WANDER**2 / 2)


def _times(slowness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of requests in each bucket, (..., buckets), for times longer by these factors."""
    bounds = np.array(BOUNDS[:-1]) / (_MEDIAN_SECONDS * slowness[..., np.newaxis])
    below = norm.cdf(np.log(bounds) / _SPREAD)
    ones = np.ones((*slowness.shape, 1))
    return np.diff(np.concatenate([0 * ones, below, ones], axis=-1), axis=-1)
