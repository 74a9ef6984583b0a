"""Whether numbers can be probabilities, as a sum of many small shares in single precision is one that passes 1."""

from typing import Any

from numpy.typing import NDArray

ROUNDING = 1e-2
"""What probabilities may be off by: single precision leaves some 1e-7, half precision 1e-3, and integers of 8 bits the
most."""


def can_be_probabilities(scores: NDArray[Any]) -> bool:
    """Return whether all scores lie between 0 and 1, but for rounding; one without a value does not."""
    return bool(((scores > -ROUNDING) & (scores < 1 + ROUNDING)).all())
