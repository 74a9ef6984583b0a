"""How often a verdict deceives: candidates of known true quality, judged on test rows drawn anew each time.

Each world is a population from which any number of rows can be drawn. What a model is truly worth is measured on very
many of them; the judge sees a few thousand, as it would in a run, and decides by the code that runs in a Job. A
promotion is harmful where the candidate is truly worse than the limits allow. Latency is taken as halved, so that
quality alone decides. Beside the defaults stands what they once were: accuracy, and nothing else.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from optimizer_jobs.commands.judge.evidence import Contender, Evidence, Standing
from optimizer_jobs.commands.judge.verdict import Decision, decide
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Predictions, spread
from optimizer_jobs.measure.intervals import difference
from optimizer_jobs.measure.quality import evaluate, measured_metrics
from optimizer_jobs.measure.stats import Interval, wilson
from optimizer_jobs.signature import Reading, Scale
from optimizer_jobs.study.objectives import limits, shortfall
from optimizer_jobs.study.protection import fitted_objectives
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Objective, default_objectives
from retune.contract.requests import BundleRef
from retune.contract.results import Verdict

Floats = NDArray[np.float64]
Model = Callable[[Floats], Floats]
"""Takes rows (N, columns) and returns the probability (N,) of the positive class."""

CONFIDENCE = 0.95
TRAINED, JUDGED, TRUE = 4000, 4000, 100_000
RATES = (0.008, 0.012, 0.015, 0.02, 0.03, 0.034, 0.04, 0.05, 0.06, 0.08)
"""Shares of positive rows of the worlds."""
_REF = BundleRef(uri="pvc://store/bundles/x", digest="sha256:" + "0" * 64)


@dataclass(frozen=True)
class World:
    """A population, its champion and candidates, and the rows that nobody learns from."""

    rate: float
    X: Floats
    y: NDArray[np.int64]
    champion: str
    models: dict[str, Floats] = field(default_factory=dict)
    """Each model's probabilities (TRUE,) of the rows."""


def worlds(rates: Sequence[float], *, seed: int) -> Iterator[World]:
    """Yield a world for each rate, with a champion of another kind in turn."""
    for number, rate in enumerate(rates):
        X, y = make_classification(
            TRAINED + TRUE,
            n_features=12,
            n_informative=6,
            weights=[1 - rate],
            flip_y=0.002,
            class_sep=1.0 + 0.1 * (number % 3),
            random_state=seed + number,
        )
        learned, rest = (X[:TRAINED], y[:TRAINED]), (X[TRAINED:], y[TRAINED:])
        champion = ("forest", "boosting", "logistic")[number % 3]
        models = {name: answer(rest[0]) for name, answer in _models(champion, *learned, seed=seed).items()}
        yield World(rate, *rest, champion, models)


def _models(champion: str, X: Floats, y: NDArray[np.int64], *, seed: int) -> dict[str, Model]:
    """Return the champion under the name `champion`, and candidates: copies of it, smaller ones, and useless ones."""
    kinds = {
        "forest": RandomForestClassifier(100, n_jobs=1, random_state=seed),
        "boosting": HistGradientBoostingClassifier(random_state=seed),
        "logistic": LogisticRegression(),
    }
    best = _positive(kinds[champion].fit(X, y))
    random = np.random.default_rng(seed)
    return {
        "champion": best,
        "int8 copy": lambda rows: np.round(best(rows) * 255) / 255,
        "noisy copy": lambda rows: np.clip(best(rows) + random.normal(0, 0.002, len(rows)), 0, 1),
        "constant": _positive(DummyClassifier(strategy="prior").fit(X, y)),
        "stump": _positive(DecisionTreeClassifier(max_depth=1).fit(X, y)),
        "small forest": _positive(RandomForestClassifier(8, max_depth=4, random_state=seed).fit(X, y)),
        "shrunk": lambda rows: 0.3 * best(rows),
        "shuffled a quarter": lambda rows: _shuffled(best(rows), random),
    }


def _positive(fitted: object) -> Model:
    return lambda rows: np.asarray(fitted.predict_proba(rows)[:, 1])  # type: ignore[attr-defined]


def _shuffled(probabilities: Floats, random: np.random.Generator) -> Floats:
    chosen = random.permutation(len(probabilities))[: len(probabilities) // 4]
    changed = probabilities.copy()
    changed[chosen] = changed[random.permutation(chosen)]
    return changed


def answers(probabilities: Floats) -> Answers:
    """Return a classifier's answers of two classes, of which the second is the positive one."""
    table = np.stack([1 - probabilities, probabilities], axis=1)
    return Answers(Predictions((probabilities >= 0.5).astype(np.int64), table, table, (0, 1), 1))


def objectives_of(rate: float) -> tuple[Objective, ...]:
    """Return the default objectives as Jobs fit them to labels of which `rate` is positive."""
    reading = Reading(scores="p", scale=Scale.PROBABILITIES, positive=1, rarest=min(rate, 1 - rate))
    return fitted_objectives(default_objectives(Task.CLASSIFICATION), Task.CLASSIFICATION, reading)


def once() -> tuple[Objective, ...]:
    """Return what the defaults once were: accuracy, then latency and size."""
    return tuple(each for each in default_objectives(Task.CLASSIFICATION) if each.metric is not Metric.D2_BRIER)


def promotes(
    world: World, name: str, rows: NDArray[np.int64], objectives: Sequence[Objective], *, guarded: bool
) -> bool:
    """Return whether the judge promotes a candidate on these rows.

    Args:
        world: The world.
        name: The candidate.
        rows: Places of the test rows in the world.
        objectives: What it is judged by.
        guarded: Whether candidates that answer nearly the same for every row are refused.
    """
    truth = Rows(inputs={"x": rows}, labels=world.y[rows], digest="")
    before, after = (answers(world.models[model][rows]) for model in ("champion", name))
    decision = judged(before, after, truth, Task.CLASSIFICATION, objectives, guarded=guarded)
    return decision.verdict is Verdict.PROMOTE


def judged(
    before: Answers, after: Answers, truth: Rows, task: Task, objectives: Sequence[Objective], *, guarded: bool = True
) -> Decision:
    """Return the judge's decision on one finalist, by the statistics of the Job; it has half of the size and latency.

    Args:
        before: The champion's answers.
        after: The finalist's.
        truth: The test rows.
        task: The task of both.
        objectives: What it is judged by; none has an absolute limit.
        guarded: Whether candidates that answer nearly the same for every row are refused.
    """
    metrics = measured_metrics(task, objectives)
    old, new = ({metric: evaluate(metric, each, truth) for metric in metrics} for each in (before, after))
    halved = {metric: Interval(0.5, 0.49, 0.51, 1000) for metric in (Metric.LATENCY_P50_MS, Metric.LATENCY_P95_MS)}
    champion, candidate = (
        {metric: Interval.exact(measured[metric].value) for metric in metrics} | times
        for measured, times in ((old, dict.fromkeys(halved, Interval.exact(1.0))), (new, halved))
    )
    contender = Contender(
        bundle=_REF,
        plan="finalist",
        techniques=(),
        metrics={**candidate, Metric.SIZE_BYTES: Interval.exact(500)},
        trial=1,
        differences={metric: difference(metric, old[metric], new[metric])(CONFIDENCE) for metric in metrics},
        confidence=CONFIDENCE,
        agreement=wilson(len(truth), len(truth), confidence=CONFIDENCE),
        ratios={**halved, Metric.SIZE_BYTES: Interval.exact(0.5)},
        spread=spread(after) / spread(before) if guarded else 1.0,
    )
    standing = Standing(
        bundle=_REF, plan="champion", techniques=(), metrics={**champion, Metric.SIZE_BYTES: Interval.exact(1000)}
    )
    evidence = Evidence(champion=standing, contenders=(contender,), noise=None)
    return decide(evidence, objectives=objectives, min_gain=0.05)


def harm(world: World, name: str, objectives: Sequence[Objective]) -> float:
    """Return by how much a candidate truly misses the limits, as a share of what they allow; 0 or less keeps all."""
    truth = Rows(inputs={"x": world.X}, labels=world.y, digest="")
    return missed_by(answers(world.models["champion"]), answers(world.models[name]), truth, objectives)


def missed_by(before: Answers, after: Answers, truth: Rows, objectives: Sequence[Objective]) -> float:
    """Return by how much `after` misses the limits on these rows, as a share of what they allow; up to 0 keeps all."""
    missed = []
    for limit in limits(objectives):
        champion, candidate = (evaluate(limit.metric, each, truth).value for each in (before, after))
        allowed = max(-shortfall(limit, champion, champion), 1e-12)
        missed.append(shortfall(limit, candidate, champion) / allowed)
    return max(missed)


@dataclass
class Count:
    """What became of one world's verdicts under one set of rules."""

    harmful: int = 0
    """Promotions of candidates that are truly worse than the limits allow."""
    bad: int = 0
    """Verdicts on such candidates."""
    refused: int = 0
    """Refusals of candidates that lose less than a tenth of what is allowed."""
    equal: int = 0
    """Verdicts on such candidates."""


def count(world: World, draws: int, *, seed: int) -> tuple[Count, Count]:
    """Judge each candidate on `draws` samples of test rows; return what the defaults once did, and what they do."""
    wanted = objectives_of(world.rate)
    rules = ((once(), False), (wanted, True))
    counts = (Count(), Count())
    random = np.random.default_rng(seed)
    true = {name: harm(world, name, wanted) for name in world.models if name != "champion"}
    for _ in range(draws):
        rows = random.choice(len(world.y), JUDGED, replace=False)
        for (objectives, guarded), counted in zip(rules, counts, strict=True):
            judge = partial(promotes, world, rows=rows, objectives=objectives, guarded=guarded)
            for name, missed in true.items():
                promoted = judge(name)
                counted.bad += missed > 0
                counted.harmful += missed > 0 and promoted
                counted.equal += missed < -0.9
                counted.refused += missed < -0.9 and not promoted
    return counts


def main() -> None:
    """Print the table, world by world as they end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10, help="samples of test rows of each world (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table = Table("positive", "champion", title=f"Verdicts on {JUDGED} test rows, {len(RATES)} worlds")
    for heading in ("harmful, accuracy only", "harmful, defaults", "equal refused, accuracy only", "…, defaults"):
        table.add_column(heading, justify="right")
    console, total = Console(), (Count(), Count())
    for world in worlds(RATES, seed=arguments.seed):
        counts = count(world, arguments.draws, seed=arguments.seed)
        console.print(f"{world.rate:.1%} positive, {world.champion}: judged")
        table.add_row(f"{world.rate:.1%}", world.champion, *_cells(counts))
        for sums, part in zip(total, counts, strict=True):
            for name in ("harmful", "bad", "refused", "equal"):
                setattr(sums, name, getattr(sums, name) + getattr(part, name))
    table.add_row("all", "", *_cells(total))
    console.print(table)


def _cells(counts: tuple[Count, Count]) -> tuple[str, ...]:
    harmful = (f"{each.harmful} of {each.bad}" for each in counts)
    refused = (f"{each.refused} of {each.equal}" for each in counts)
    return (*harmful, *refused)


if __name__ == "__main__":
    main()
