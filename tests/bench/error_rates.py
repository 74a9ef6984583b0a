"""How often the judge promotes what is truly worse, and refuses what is truly equal, in whole verdicts.

A population is drawn once and is the truth: what a model is worth on all of its rows is known exactly. Each verdict
gets test rows of its own from it, as many as the judge itself says an equal candidate needs when it has seen some
others, and decides by the statistics of a Job and its default limits. Candidates are made to lose exactly so much:
some rows are answered by a weaker model, or all rows by a mean of both. An equal one has the champion's answers in
another order among rows with the same label, so that it disagrees and no metric changes. Size and latency are taken as
halved, so that quality alone decides.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from sklearn.datasets import make_classification, make_friedman1
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Predictions
from optimizer_jobs.signature import Reading, Scale
from optimizer_jobs.study.protection import fitted_objectives
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Objective, default_objectives
from retune.contract.results import Verdict
from tests.bench.verdicts import judged, missed_by

Floats = NDArray[np.float64]

LEARNED, POPULATION = 3000, 60_000
LOSSES = (0.0, 0.5, 1.0, 1.5, 3.0)
"""True losses in multiples of the margin."""
EXCHANGED = {Task.CLASSIFICATION: 0.05, Task.REGRESSION: 0.02}
"""Share of the rows whose answers an equal candidate has in another order."""
FEWEST_ROWS, MOST_ROWS = 1000, 8000
ROWS, EVERYWHERE = "rows", "everywhere"
"""Where a candidate loses: in some rows that are answered much worse, or a little in all."""
_STEPS = 14
_TIMED = {Metric.LATENCY_P95_MS}


@dataclass(frozen=True)
class World:
    """A population with a champion, and candidates by their true loss."""

    family: str
    kind: str
    task: Task
    truth: Rows
    objectives: tuple[Objective, ...]
    champion: Floats
    """Probabilities (N, classes), or predictions (N, 1)."""
    candidates: dict[float, Floats]

    def answers(self, table: Floats) -> Answers:
        """Return a model's table as answers."""
        if self.task is Task.REGRESSION:
            return Answers(values=table[:, 0])
        classes = tuple(range(table.shape[1]))
        return Answers(Predictions(table.argmax(axis=1), table, table, classes, 1 if len(classes) == 2 else None))

    def verdict(self, loss: float, rows: NDArray[np.int64]) -> Verdict:
        """Return the verdict on the candidate with a true loss, by these rows of the population."""
        before, after = (self.answers(table[rows]) for table in (self.champion, self.candidates[loss]))
        return judged(before, after, self.truth.take(rows), self.task, self.objectives).verdict

    def rows_needed(self, random: np.random.Generator) -> int:
        """Return how many test rows the judge asks for, for the equal candidate."""
        rows = random.choice(len(self.truth), FEWEST_ROWS * 4, replace=False)
        before, after = (self.answers(table[rows]) for table in (self.champion, self.candidates[0.0]))
        decision = judged(before, after, self.truth.take(rows), self.task, self.objectives)
        checks = decision.findings[0].checks
        return max((check.rows_needed or 0 for check in checks), default=0)


def _classes(*, seed: int, **shape: Any) -> tuple[Floats, NDArray[Any]]:
    X, y = make_classification(
        LEARNED + POPULATION, n_features=12, n_informative=8, n_redundant=2, flip_y=0.02, random_state=seed, **shape
    )
    return X, y


def _numbers(*, seed: int) -> tuple[Floats, NDArray[Any]]:
    X, y = make_friedman1(LEARNED + POPULATION, n_features=10, noise=1.0, random_state=seed)
    return X, y


FAMILIES: dict[str, tuple[Task, Callable[..., tuple[Floats, NDArray[Any]]]]] = {
    "two classes": (Task.CLASSIFICATION, partial(_classes, class_sep=1.2)),
    "four classes": (Task.CLASSIFICATION, partial(_classes, n_classes=4, n_clusters_per_class=1, class_sep=1.5)),
    "6 % positive": (Task.CLASSIFICATION, partial(_classes, weights=[0.94], class_sep=1.5)),
    "regression": (Task.REGRESSION, _numbers),
}
KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "linear": (lambda _: LogisticRegression(max_iter=500), lambda _: Ridge()),
    "forest": (
        lambda seed: RandomForestClassifier(60, min_samples_leaf=2, random_state=seed),
        lambda seed: RandomForestRegressor(60, min_samples_leaf=2, random_state=seed),
    ),
    "boosting": (
        lambda seed: HistGradientBoostingClassifier(max_iter=60, random_state=seed),
        lambda seed: HistGradientBoostingRegressor(max_iter=60, random_state=seed),
    ),
    "MLP": (
        lambda seed: MLPClassifier((32,), max_iter=60, random_state=seed),
        lambda seed: MLPRegressor(hidden_layer_sizes=(32,), max_iter=60, random_state=seed),
    ),
}


def worlds(families: Sequence[str], *, where: str, seed: int) -> Iterator[World]:
    """Yield a world for each of these families and kinds of champion; `where` says which rows lose."""
    for family in families:
        task, draw = FAMILIES[family]
        X, y = draw(seed=seed)
        learned, rest = (X[:LEARNED], y[:LEARNED]), (X[LEARNED:], y[LEARNED:])
        for kind, makers in KINDS.items():
            champion = makers[task is Task.REGRESSION](seed).fit(*learned)
            weak = DecisionTreeRegressor if task is Task.REGRESSION else DecisionTreeClassifier
            weaker = weak(max_depth=2, random_state=seed).fit(*learned)
            yield _world(
                family, kind, task, rest, _table(champion, rest[0]), _table(weaker, rest[0]), where=where, seed=seed
            )


def _table(model: Any, X: Floats) -> Floats:
    return np.asarray(model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)[:, np.newaxis])


def _world(
    family: str,
    kind: str,
    task: Task,
    population: tuple[Floats, NDArray[Any]],
    champion: Floats,
    weaker: Floats,
    *,
    where: str,
    seed: int,
) -> World:
    X, y = population
    truth, random = Rows(inputs={"x": X}, labels=y, digest=""), np.random.default_rng(seed)
    world = World(family, kind, task, truth, _objectives(task, y), champion, {})
    equal = _exchanged(champion, y, task, random)
    order = random.permutation(len(y))
    in_rows = partial(_replaced, equal, weaker, order)
    weakened = in_rows if where == ROWS else lambda share: (1 - share) * equal + share * weaker
    world.candidates[0.0] = equal
    for loss in LOSSES[1:]:
        world.candidates[loss] = _losing(world, weakened, loss)
    return world


def _objectives(task: Task, y: NDArray[Any]) -> tuple[Objective, ...]:
    """Return the default objectives as Jobs fit them to these labels, without latency."""
    counts = np.unique(y, return_counts=True)[1] / len(y)
    rarest = None if task is Task.REGRESSION else float(counts.min())
    positive = 1 if len(counts) == 2 else None
    reading = Reading(scores="p", scale=Scale.PROBABILITIES, positive=positive, rarest=rarest)
    fitted = fitted_objectives(default_objectives(task), task, reading)
    return tuple(objective for objective in fitted if objective.metric not in _TIMED)


def _exchanged(table: Floats, y: NDArray[Any], task: Task, random: np.random.Generator) -> Floats:
    """Return the answers with a share of the rows exchanged so that no metric changes.

    Rows exchange whole answers with rows of the same label; rows of a regression exchange their residuals.
    """
    exchanged = table.copy()
    labels = np.zeros(len(y)) if task is Task.REGRESSION else y
    for label in np.unique(labels):
        rows = np.flatnonzero((labels == label) & (random.random(len(y)) < EXCHANGED[task]))
        others = random.permutation(rows)
        moved = (y[rows] - y[others])[:, np.newaxis] if task is Task.REGRESSION else 0
        exchanged[rows] = table[others] + moved
    return exchanged


def _losing(world: World, weakened: Callable[[float], Floats], loss: float) -> Floats:
    """Return a candidate that loses so many margins on the population; `weakened` takes how much is weaker, 0..1."""
    before, low, high = world.answers(world.champion), 0.0, 1.0
    for _ in range(_STEPS):
        share = (low + high) / 2
        missed = missed_by(before, world.answers(weakened(share)), world.truth, world.objectives)
        low, high = (share, high) if missed + 1 < loss else (low, share)
    candidate = weakened(high)
    lost = 1 + missed_by(before, world.answers(candidate), world.truth, world.objectives)
    if abs(lost - loss) > 0.05:
        raise ValueError(f"{world.family}, {world.kind}: the weaker model loses {lost:.2f} margins, not {loss}")
    return candidate


def _replaced(equal: Floats, weaker: Floats, order: NDArray[np.int64], share: float) -> Floats:
    candidate, rows = equal.copy(), order[: round(share * len(order))]
    candidate[rows] = weaker[rows]
    return candidate


Counts = dict[tuple[str, float], list[int]]
"""By family and true loss: promotions, verdicts."""


def tally(families: Sequence[str], draws: int, *, where: str, seed: int, console: Console) -> Counts:
    """Judge every candidate of every world on `draws` samples of test rows."""
    counts: Counts = {(family, loss): [0, 0] for family in families for loss in LOSSES}
    random = np.random.default_rng(seed)
    for world in worlds(families, where=where, seed=seed):
        rows = [min(MOST_ROWS, max(FEWEST_ROWS, world.rows_needed(random))) for _ in range(draws)]
        for loss, number in product(LOSSES, rows):
            sample = random.choice(len(world.truth), number, replace=False)
            counted = counts[world.family, loss]
            counted[0] += world.verdict(loss, sample) is Verdict.PROMOTE
            counted[1] += 1
        so_far = ", ".join(
            f"{promoted} of {all_of}" for promoted, all_of in (counts[world.family, loss] for loss in LOSSES)
        )
        judged_on = f"{min(rows)} to {max(rows)} rows"
        console.print(f"{world.family}, {world.kind}: judged on {judged_on}; promoted so far {so_far}")
    return counts


def _cell(promoted: int, verdicts: int) -> str:
    interval = binomtest(promoted, verdicts).proportion_ci(method="exact")
    return f"{promoted} of {verdicts} ({interval.low:.1%} to {interval.high:.1%})"


def main() -> None:
    """Print promotions by family and true loss, with Clopper-Pearson intervals at 95 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=13, help="verdicts on each candidate (default: 13, 1,040 in all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--where", choices=(ROWS, EVERYWHERE), default=ROWS, help="which rows lose (default: rows)")
    arguments = parser.parse_args()
    console = Console(width=200)
    counts = tally(arguments.families, arguments.draws, where=arguments.where, seed=arguments.seed, console=console)
    table = Table("family", title="Promotions by true loss, in multiples of the margin")
    for loss in LOSSES:
        table.add_column("equal" if loss == 0 else f"{loss:g}x", justify="right")
    for family in arguments.families:
        table.add_row(family, *(_cell(*counts[family, loss]) for loss in LOSSES))
    sums = [[sum(counts[family, loss][part] for family in arguments.families) for part in (0, 1)] for loss in LOSSES]
    table.add_row("all", *(_cell(*pair) for pair in sums))
    console.print(table)


if __name__ == "__main__":
    main()
