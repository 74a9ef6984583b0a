"""Do hypergradients find better hyperparameters than random search in the same CPU time?

Small samples of three real data sets: as many rows for validation as for training, all others for the test that counts.
Both search the same ranges, and random search trains until it has used as much CPU time; what it keeps is the best on
validation, by quality or by loss. The gradient also finds a noise for every single input, which a search cannot.
Run: OMP_NUM_THREADS=1 python -m tests.bench.hypergradients [--seeds 10] [--tasks digits diabetes cancer]
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.nets.catalogue import mlp
from optimizer_jobs.nets.learning.hypergradient import RANGES
from optimizer_jobs.nets.learning.loop import Trained, train
from optimizer_jobs.nets.learning.losses import loss_for, quality
from optimizer_jobs.nets.learning.rows import samples
from optimizer_jobs.nets.learning.settings import Settings
from retune.api.model import Task

ROWS = {"digits": 150, "diabetes": 100, "cancer": 60}
DEPTH = {"digits": 1, "diabetes": 2, "cancer": 2}
USUAL, BY_QUALITY, BY_LOSS, LEARNED = (
    "usual settings",
    "random, best quality",
    "random, best loss",
    "hypergradients",
)


@dataclass(frozen=True)
class Result:
    """What one way of finding hyperparameters led to, on the test rows."""

    quality: float
    """Accuracy or R squared."""
    loss: float
    seconds: float
    """CPU time, the last training included."""
    trainings: int


@dataclass(frozen=True)
class Problem:
    """One data set, split by a seed."""

    task: Task
    shape: dict[str, Any]
    training: Rows
    validation: Rows
    test: Rows
    seed: int

    @classmethod
    def drawn(cls, name: str, seed: int) -> "Problem":
        """Return small training and validation sets and everything else as the test."""
        inputs, labels, task = _loaded(name)
        order, size = np.random.default_rng(seed).permutation(len(labels)), ROWS[name]
        rows = Rows(inputs={"x": inputs.astype(np.float32)}, labels=labels, digest="")
        outputs = len(np.unique(labels)) if task is Task.CLASSIFICATION else 1
        shape = {"inputs": inputs.shape[1], "outputs": outputs, "width": 64, "depth": DEPTH[name]}
        parts = (rows.take(order[:size]), rows.take(order[size : 2 * size]), rows.take(order[2 * size :]))
        return cls(task, shape, *parts, seed=seed)

    def trained(self, **changes: Any) -> Trained:
        """Train the same new network with these settings."""
        torch.manual_seed(self.seed)
        settings = dataclasses.replace(Settings(epochs=40), **changes)
        return train(
            mlp(**self.shape),
            self.training,
            self.validation,
            task=self.task,
            settings=settings,
            seed=self.seed,
            threads=1,
        )

    def judged(self, trained: Trained, rows: Rows) -> tuple[float, float]:
        """Return quality and loss on rows."""
        asked = samples(rows, task=self.task)
        scale = float(np.std(self.training.answers)) if self.task is Task.REGRESSION else 1.0
        with torch.no_grad():
            scores = trained.module(*asked.inputs)
            return quality(self.task, scores, asked.targets), float(
                loss_for(self.task, scale=scale)(scores, asked.targets)
            )

    def drawn_settings(self, rng: np.random.Generator) -> dict[str, float]:
        """Return hyperparameters whose logarithms are uniform in the ranges."""
        names = [name for name in RANGES if self.task is Task.CLASSIFICATION or name != "label_smoothing"]
        return {name: float(np.exp(rng.uniform(*np.log(RANGES[name])))) for name in names}


def once(problem: Problem, **changes: Any) -> Result:
    """Train once, hyperparameters learned or not."""
    start = time.process_time()
    trained = problem.trained(**changes)
    seconds = time.process_time() - start
    return Result(*problem.judged(trained, problem.test), seconds, 1)


def at_random(problem: Problem, *, seconds: float) -> tuple[Result, Result]:
    """Train with random settings until the CPU time is used; return the best on validation by quality, and by loss."""
    start, rng = time.process_time(), np.random.default_rng(problem.seed)
    found: list[tuple[float, float, Trained]] = []
    while not found or time.process_time() - start < seconds:
        trained = problem.trained(**problem.drawn_settings(rng))
        found.append((*problem.judged(trained, problem.validation), trained))
    used = time.process_time() - start
    best = (max(found, key=lambda one: (one[0], -one[1])), min(found, key=lambda one: one[1]))
    first, second = (Result(*problem.judged(one[2], problem.test), used, len(found)) for one in best)
    return first, second


def compared(problem: Problem) -> dict[str, Result]:
    """Return the results of all ways on one problem."""
    learned = once(problem, learned=True)
    by_quality, by_loss = at_random(problem, seconds=learned.seconds)
    return {USUAL: once(problem), BY_QUALITY: by_quality, BY_LOSS: by_loss, LEARNED: learned}


def row(task: str, name: str, results: Sequence[Result], rivals: Sequence[Result]) -> str:
    """Return one line of the table."""

    def mean(of: Callable[[Result], float]) -> float:
        return statistics.mean(of(result) for result in results)

    spread = statistics.stdev(result.quality for result in results)
    pairs = list(zip(results, rivals, strict=True))
    quality_wins = sum(rival.quality > result.quality for result, rival in pairs)
    loss_wins = sum(rival.loss < result.loss for result, rival in pairs)
    wins = "" if name == LEARNED else f"{quality_wins} / {loss_wins} of {len(results)}"
    return (
        f"| {task:<8} | {name:<20} | {mean(lambda one: one.quality):.3f} ± {spread:.3f} "
        f"| {mean(lambda one: one.loss):.3f} | {mean(lambda one: one.seconds):5.1f} "
        f"| {mean(lambda one: one.trainings):9.1f} | {wins:<26} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Hypergradients beside random search in the same CPU time.")
    parser.add_argument("--seeds", type=int, default=10, help="splits and networks, at least 2")
    parser.add_argument("--tasks", nargs="+", choices=tuple(ROWS), default=list(ROWS), help="data sets")
    given = parser.parse_args()
    lines = []
    for task in given.tasks:
        found = [compared(Problem.drawn(task, seed)) for seed in range(given.seeds)]
        rivals = [results[LEARNED] for results in found]
        lines += [row(task, name, [results[name] for results in found], rivals) for name in found[0]]
    print(
        "| data     | found by             | test quality  | loss  | CPU s | trainings | gradient wins quality/loss |"
    )
    print(
        "|----------|----------------------|---------------|-------|-------|-----------|----------------------------|"
    )
    print("\n".join(lines))


def _loaded(name: str) -> tuple[Any, Any, Task]:
    if name == "diabetes":
        measures, progress = load_diabetes(return_X_y=True)
        return measures * 20, progress.astype(np.float32), Task.REGRESSION
    if name == "cancer":
        measures, kinds = load_breast_cancer(return_X_y=True)
        return (measures - measures.mean(0)) / measures.std(0), kinds, Task.CLASSIFICATION
    images, digits = load_digits(return_X_y=True)
    return images / 16, digits, Task.CLASSIFICATION


if __name__ == "__main__":
    main()
