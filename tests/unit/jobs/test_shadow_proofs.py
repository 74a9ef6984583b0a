"""How often a shadow is wrong about time: played on versions that keep the margin, and on ones that do not."""

import numpy as np
import pytest
from scipy.stats import norm

from optimizer_jobs.commands.verify.shadow import surely_slow

RISK, MARGIN, PLAYED = 0.005, 0.1, 2000
AT_THE_MARGIN = norm.ppf(0.95) - norm.ppf(0.95 - MARGIN)
"""By how much a version is slower, in standard deviations, of which 15 % exceed the champion's p95."""


def share_of_slow(requests: int, *, slower: float, some: float = 0.0) -> float:
    """Return how often a version is found slow that is slower by so much, and far slower at some of its requests."""
    generator = np.random.default_rng(requests)
    found = 0
    for _ in range(PLAYED):
        champion, pod = generator.normal(size=requests), generator.normal(size=requests) + slower
        pod[generator.random(requests) < some] = 9.0
        found += surely_slow(champion, pod, margin=MARGIN, risk=RISK)
    return found / PLAYED


@pytest.mark.parametrize("requests", [40, 90, 190, 290])
@pytest.mark.parametrize("slower", [0.0, AT_THE_MARGIN])
def test_a_version_that_keeps_the_margin_is_found_slow_as_seldom_as_is_said(requests: int, slower: float) -> None:
    """Where the champion's p95 lies is not known: without allowing for that, one in thirteen would be rejected."""
    assert share_of_slow(requests, slower=slower) <= RISK


def test_a_version_that_is_slow_at_one_in_three_is_found() -> None:
    """With as many requests as a shadow has by default; with few, nothing is said."""
    assert share_of_slow(290, slower=0.0, some=0.33) > 0.99
    assert share_of_slow(40, slower=0.0, some=0.33) == 0.0
