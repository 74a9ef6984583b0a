"""Return to float the layers that quantization hurts most, until the quality limits hold.

Which these are is measured layer by layer, on real rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.calibration import batches as batches_of
from optimizer_jobs.machinery.compress.sensitivity import rank
from optimizer_jobs.technique import Context

RANKING_ROWS = 64
"""Rows on which layers are compared."""
_NAMED = 3
"""Layers that a summary names."""


class Quantize(Protocol):
    """Writes the quantized model to `target` with the nodes in `kept` left in float."""

    def __call__(self, target: Path, kept: Sequence[str]) -> None:
        """Write the file."""


@dataclass(frozen=True)
class Outcome:
    """Which layers stayed in float, and whether that was enough."""

    kept: tuple[str, ...]
    missed: float
    """What is still missing to the limits; 0 or less keeps them."""

    def words(self, layers: int) -> str:
        """The outcome in a few words."""
        if not self.kept:
            return f"{layers} layers" if self.missed <= 0 else f"{layers} layers, quality limit missed"
        ending = "" if self.missed <= 0 else ", quality limit still missed"
        return f"{len(self.kept)} of {layers} layers reverted to float{ending}"


def revert_worst(
    quantized: Path,
    prepared: Path,
    *,
    layers: Sequence[str],
    quantize: Quantize,
    shortfall: Callable[[Path], float],
    batches: Sequence[Mapping[str, Any]],
) -> Outcome:
    """Rewrite `quantized` with ever more of the worst layers in float: 1, 2, 4 and so on, at most half of them.

    When not even that is enough, the file is left with all layers quantized: the search sees it miss the limit.
    """
    missed = shortfall(quantized)
    if missed <= 0:
        return Outcome(kept=(), missed=missed)
    worst = rank(quantized, prepared, layers=layers, batches=batches)
    for count in _counts(most=(len(layers) + 1) // 2):
        quantize(quantized, worst[:count])
        left = shortfall(quantized)
        if left <= 0:
            return Outcome(kept=tuple(worst[:count]), missed=left)
    quantize(quantized, ())
    return Outcome(kept=(), missed=missed)


def worst(
    quantized: Path, prepared: Path, *, layers: Sequence[str], count: int, rows: Rows, context: Context
) -> tuple[str, ...]:
    """Return the names of the layers that quantization hurts most on rows that may be observed."""
    few = batches_of(rows.take(slice(min(len(rows), RANKING_ROWS))), context)
    return rank(quantized, prepared, layers=layers, batches=few)[:count]


def named(layers: Sequence[str]) -> str:
    """Return the names of layers, the first few of many."""
    more = len(layers) - _NAMED
    return ", ".join(layers[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _counts(*, most: int) -> list[int]:
    """Return 1, 2, 4 and so on below `most`, and `most`."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
