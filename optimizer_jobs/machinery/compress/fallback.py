"""Return to float the layers that quantization hurts most, until the quality limits hold.

How much each layer hurts is measured on real rows (`sensitivity`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.calibration import batches
from optimizer_jobs.machinery.compress.sensitivity import rank
from optimizer_jobs.technique import Context

_RANKING_ROWS = 64
"""Rows on which layers are compared."""
_NAMED = 3
"""Layers that a summary names."""


class Quantize(Protocol):
    """Writes the quantized model to `target`, with the nodes in `kept` left in float."""

    def __call__(self, target: Path, kept: Sequence[str]) -> None:
        """Write the file."""


@dataclass(frozen=True)
class Outcome:
    """Which layers were returned to float, and whether that was enough."""

    kept: tuple[str, ...]
    missed: float
    """How far the quality limits are still missed; 0 or less keeps them."""

    def words(self, layers: int) -> str:
        """Return the outcome in a few words; `layers` is how many there are in all."""
        if not self.kept:
            return f"{layers} layers" if self.missed <= 0 else f"{layers} layers, quality limit missed"
        ending = "" if self.missed <= 0 else ", quality limit still missed"
        return f"{len(self.kept)} of {layers} layers reverted to float{ending}"


def revert_worst(
    quantized: Path,
    floats: Path,
    *,
    layers: Sequence[str],
    quantize: Quantize,
    shortfall: Callable[[Path], float],
    rows: Rows,
    context: Context,
) -> Outcome:
    """Rewrite `quantized` with 1, 2, 4 and so on of the worst layers in float, at most half of them.

    When that is not enough, the file is left with all layers quantized, and the search sees it miss the limits.

    Args:
        quantized: The file with all layers quantized; it is rewritten.
        floats: The file that it was made from.
        layers: Names of the layers.
        quantize: Writes the file with some layers in float.
        shortfall: How far a file misses the quality limits; 0 or less keeps them.
        rows: Rows on which layers are ranked.
        context: Says how many rows one call of the model takes.
    """
    missed = shortfall(quantized)
    if missed <= 0:
        return Outcome(kept=(), missed=missed)
    ranking = worst(quantized, floats, layers=layers, count=len(layers), rows=rows, context=context)
    for count in _counts(most=(len(layers) + 1) // 2):
        quantize(quantized, ranking[:count])
        still_missed = shortfall(quantized)
        if still_missed <= 0:
            return Outcome(kept=ranking[:count], missed=still_missed)
    quantize(quantized, ())
    return Outcome(kept=(), missed=missed)


def worst(
    quantized: Path, floats: Path, *, layers: Sequence[str], count: int, rows: Rows, context: Context
) -> tuple[str, ...]:
    """Return the names of the `count` layers that quantization hurts most, the worst first.

    Args:
        quantized: The file with all layers quantized.
        floats: The file that it was made from.
        layers: Names of the layers.
        count: How many to return.
        rows: Rows on which layers are compared: calibration rows, never validation or test.
        context: Says how many rows one call of the model takes.
    """
    few = batches(rows.take(slice(min(len(rows), _RANKING_ROWS))), context)
    return rank(quantized, floats, layers=layers, batches=few, alive=context.alive)[:count]


def named(layers: Sequence[str]) -> str:
    """Return the names of layers in words, the first few of many."""
    more = len(layers) - _NAMED
    return ", ".join(layers[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _counts(*, most: int) -> list[int]:
    """Return 1, 2, 4 and so on below `most`, and `most`."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
