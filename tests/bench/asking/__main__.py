"""What labels that are asked for are worth: `python -m tests.bench.asking --packages DIR` prints two tables.

DIR is where `requirements/neighbours/streams.txt` was installed. The first table: a model learns its old rows and some
labelled live ones, drawn by chance or asked for, and answers other live rows. The second: how far the accuracy that
such labels show is off that of all live rows. The method was chosen on the first five worlds alone.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from optimizer_jobs.commands.check.selection import selection_of
from optimizer_jobs.measure.unlabelled.asking import CHANCE, Candidates, Chosen, Why, candidates, choose
from tests.bench.asking.worlds import REPORTED, TUNED, Draw, draws

Array = NDArray[Any]

BUDGETS = (50, 200)
"""Labels that there is money for; of a larger part than half of the live rows, nothing is to be chosen."""
_HEADS = ("world", "labels", "no new labels", "by chance", "asked for", "better by", "draws better", "CPU s")
_BIASES = ("world", "true", "by chance", "none by chance", "asked for", "weighed", "Chance alone", "untrusted")


@dataclass(frozen=True)
class Asked:
    """What may be asked about in a draw, and the model as it answers now."""

    draw: Draw
    model: Any
    rows: Candidates

    @classmethod
    def of(cls, draw: Draw) -> "Asked":
        """Return it with a model that has learnt its old rows."""
        model = draw.fitted(draw.learnt)
        shares = None if draw.regression else np.asarray(model.predict_proba(draw.live.inputs))
        unsure = None if shares is None else _unsure(shares)
        return cls(draw, model, candidates(draw.live.inputs, draw.reference.inputs, unsure=unsure, answers=shares))

    def learnt(self, places: Array) -> float:
        """Return how well the model answers other live rows once it has learnt these, too."""
        return _quality(self.draw, self.draw.fitted(self.draw.learnt.beside(self.draw.live.take(places))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.asking", description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the packages that carry the data")
    parser.add_argument("--draws", type=int, default=20, help="draws of each world (default: %(default)s)")
    parser.add_argument("--worlds", nargs="+", choices=[*TUNED, *REPORTED], default=[*TUNED, *REPORTED])
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    tables: Mapping[Callable[..., Iterator[str]], tuple[str, ...]] = {_learning: _HEADS, _measuring: _BIASES}
    with threadpool_limits(1):
        for table, heads in tables.items():
            print(f"\n{_line(*heads)}", flush=True)
            for name, build in {**TUNED, **REPORTED}.items():
                if name in options.worlds:
                    for line in table(name, [Asked.of(draw) for draw in draws(options.packages, build, options.draws)]):
                        print(line, flush=True)


def _learning(name: str, every: Sequence[Asked]) -> Iterator[str]:
    """Yield a line for each budget: quality after learning, of accuracy, or of R squared for a regression."""
    for count in BUDGETS:
        fitting = [asked for asked in every if len(asked.rows) >= 2 * count]
        if not fitting:
            continue
        before, chance, chosen, seconds = (np.asarray(values) for values in zip(*_learnt(fitting, count), strict=True))
        gain = chosen - chance
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        better = f"{(gain > 0).sum()} of {len(gain)}, {(gain == 0).sum()} alike"
        means = (f"{values.mean():.4f}" for values in (before, chance, chosen))
        yield _line(name, count, *means, f"{gain.mean():+.4f} ± {error:.4f}", better, f"{seconds.mean():.2f}")


def _learnt(every: Sequence[Asked], count: int) -> Iterator[tuple[float, float, float, float]]:
    """Yield for each draw the quality without new labels, with labels by chance and asked for, and CPU seconds."""
    for seed, asked in enumerate(every):
        by_chance = np.random.default_rng(seed).permutation(len(asked.rows))[:count]
        began = time.process_time()
        chosen = choose(asked.rows, count=count, seed=seed)
        seconds = time.process_time() - began
        yield _quality(asked.draw, asked.model), asked.learnt(by_chance), asked.learnt(chosen.rows), seconds


def _measuring(name: str, every: Sequence[Asked]) -> Iterator[str]:
    """Yield a line: mean error of the measured accuracy, and in brackets the root of the mean squared error."""
    count = max(BUDGETS)
    fitting = [asked for asked in every if len(asked.rows) >= 2 * count and not asked.draw.regression]
    if not fitting:
        return
    true = np.asarray([_right(asked).mean() for asked in fitting])
    by_chance = [
        _right(asked)[np.random.default_rng(seed).permutation(len(asked.rows))[:count]].mean()
        for seed, asked in enumerate(fitting)
    ]
    hard, mixed = (
        [choose(asked.rows, count=count, chance=chance, seed=seed) for seed, asked in enumerate(fitting)]
        for chance in (0.0, CHANCE)
    )
    alone = [_measured(asked, chosen, only=Why.CHANCE) for asked, chosen in zip(fitting, mixed, strict=True)]
    weighed = [_weighed(asked, chosen) for asked, chosen in zip(fitting, mixed, strict=True)]
    trusted = np.asarray([value is not None for value in weighed])
    columns = (
        (np.asarray(by_chance), true),
        (np.asarray([_measured(*pair) for pair in zip(fitting, hard, strict=True)]), true),
        (np.asarray([_measured(*pair) for pair in zip(fitting, mixed, strict=True)]), true),
        (np.asarray([value for value in weighed if value is not None]), true[trusted]),
        (np.asarray(alone), true),
    )
    untrusted = f"{(~trusted).sum()} of {len(trusted)}"
    yield _line(name, f"{true.mean():.3f}", *(_bias(*column) for column in columns), untrusted)


def _bias(measured: Array, true: Array) -> str:
    if not len(measured):
        return "-"
    off = measured - true
    return f"{off.mean():+.3f} ({np.sqrt(np.square(off).mean()):.3f})"


def _measured(asked: Asked, chosen: Chosen, only: Why | None = None) -> float:
    """Return the accuracy that labels of chosen rows show, each counting alike."""
    kept = [place for place, why in zip(chosen.rows, chosen.why, strict=True) if only in {None, why}]
    return float(_right(asked)[kept].mean())


def _weighed(asked: Asked, chosen: Chosen) -> float | None:
    """Return the accuracy as the check has it; None where it does not trust these labels."""
    frame, answers = asked.draw.live.inputs, np.asarray(asked.model.predict_proba(asked.draw.live.inputs))
    shown = frame.assign(prediction=answers.argmax(axis=1).astype(str), confidence=answers.max(axis=1))
    labelled = np.zeros(len(frame), dtype=np.bool_)
    labelled[chosen.rows] = True
    selection = selection_of(pd.DataFrame(shown), labelled, seed=0)
    right = _right(asked)[labelled]
    if selection is None:
        return float(right.mean())
    return None if selection.wild else float(np.average(right, weights=selection.weights))


def _right(asked: Asked) -> Array:
    return np.asarray(asked.model.predict(asked.draw.live.inputs) == asked.draw.live.labels, dtype=np.float64)


def _unsure(shares: Array) -> Array:
    ordered = np.sort(shares, axis=1)
    return np.asarray(1 - (ordered[:, -1] - ordered[:, -2]))


def _quality(draw: Draw, model: Any) -> float:
    """Return the accuracy on other live rows, or R squared of a regression."""
    return float(model.score(draw.tested.inputs, draw.tested.labels))


def _line(*cells: object) -> str:
    return "  ".join(f"{cell!s:>22}" for cell in cells)


if __name__ == "__main__":
    main()
