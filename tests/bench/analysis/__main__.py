"""How often rules that judge a canary err, and how soon they see harm: `python -m tests.bench.analysis`.

The same streams with a known truth are given to every rule: canaries of 10 and 50 %, five minutes each, looked at every
five seconds. A version that is equal, or worse by exactly a margin, should hardly ever be rejected; a harmful one
should be taken back after few of its requests. Rates have Clopper-Pearson intervals at 95 %.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from tests.bench.analysis import rules
from tests.bench.analysis.streams import Version, World, drawn

RULES: Mapping[str, rules.Rule] = {
    "Retune": rules.Retune(),
    "Retune, ProvenNotWorse": rules.Retune(require="ProvenNotWorse"),
    "Retune, narrow margins": rules.Retune(errorMargin="0.002", slowMargin="0.005"),
    "three sigma": rules.three_sigma,
    "Kayenta, at the end": rules.kayenta,
    "Kayenta, each minute": partial(rules.kayenta, every=5),
    "Argo Rollouts": rules.argo,
}
WORLDS = (
    World("50 a second", 50.0),
    World("50 a second in bursts", 50.0, bursts=True),
    World("bursts, trouble for both", 50.0, bursts=True, trouble=True),
    World("2 a second in bursts", 2.0, bursts=True),
)
EQUAL, AT_MARGIN = Version("equal"), Version("errors +1 point", more_errors=0.01)
VERSIONS = (
    Version("5 % slower", slowness=1.05),
    Version("errors +0.5 points", more_errors=0.005),
    AT_MARGIN,
    Version("errors +3 points", more_errors=0.03),
    Version("50 % slower", slowness=1.5),
    Version("half fail", more_errors=0.5),
)


@dataclass
class Tally:
    """What a rule has made of canaries of one kind."""

    canaries: int = 0
    promoted: int = 0
    rejected: int = 0
    until_stopped: list[int] = field(default_factory=list)
    """Requests that the canary had answered, of those that were not promoted."""

    def note(self, outcome: rules.Outcome) -> None:
        """Count one canary."""
        self.canaries += 1
        self.promoted += outcome.promoted
        self.rejected += outcome.rejected
        if not outcome.promoted:
            self.until_stopped.append(outcome.requests)


def tallies(world: World, version: Version, canaries: int, *, seed: int) -> dict[str, Tally]:
    """Give the same canaries to every rule."""
    random, counted = np.random.default_rng(seed), {name: Tally() for name in RULES}
    for _ in range(canaries):
        canary = drawn(world, version, random)
        for name, rule in RULES.items():
            counted[name].note(rule(canary))
    return counted


def _rate(count: int, of: int) -> str:
    interval = binomtest(count, of).proportion_ci(method="exact")
    return f"{100 * count / of:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _taken_back(tally: Tally) -> str:
    """Return the rate of rejections, and beside it how many more were taken back without one."""
    returned = tally.canaries - tally.promoted - tally.rejected
    more = f" + {100 * returned / tally.canaries:.1f}" if returned else ""
    return f"{_rate(tally.rejected, tally.canaries)}{more}"


def _stopped(tally: Tally) -> str:
    return f"{median(tally.until_stopped):.0f}" if tally.until_stopped else "-"


def _table(title: str, rows: Sequence[tuple[str, dict[str, str]]]) -> Table:
    table = Table("", title=title)
    for name in RULES:
        table.add_column(name, justify="right")
    for row, cells in rows:
        table.add_row(row, *(cells[name] for name in RULES))
    return table


def main() -> None:
    """Print what every rule rejects of equal versions, promotes of worse ones, and how many requests it needs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=int, default=500, help="canaries that keep the margins a world (default: 500)")
    parser.add_argument("--worse", type=int, default=100, help="canaries of each worse version (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    arguments, console = parser.parse_args(), Console(width=220)
    rejected, promoted, needed = [], [], []
    for version, world in (*((EQUAL, world) for world in WORLDS), (AT_MARGIN, WORLDS[0]), (AT_MARGIN, WORLDS[1])):
        counted, row = tallies(world, version, arguments.kept, seed=arguments.seed), f"{version.name}, {world.name}"
        rejected.append((row, {name: _taken_back(tally) for name, tally in counted.items()}))
        console.print(f"{row}: {arguments.kept} canaries judged")
    for world in (WORLDS[1], WORLDS[3]):
        for version in VERSIONS:
            counted = tallies(world, version, arguments.worse, seed=arguments.seed + 1)
            row = f"{version.name}, {world.name}"
            promoted.append((row, {name: _rate(tally.promoted, tally.canaries) for name, tally in counted.items()}))
            needed.append((row, {name: _stopped(tally) for name, tally in counted.items()}))
        console.print(f"{world.name}: worse versions judged")
    console.print(
        _table(
            "Versions worse by no more than a margin of 1 point that were rejected, + taken back without that", rejected
        )
    )
    console.print(_table("Versions that were promoted", promoted))
    console.print(_table("Canary's requests until it was stopped, median of those that were", needed))


if __name__ == "__main__":
    main()
