"""Which convolutions are dense enough to be worth splitting. There is no torch in here, because graphs need it too."""

from collections.abc import Sequence
from math import prod

_LEAST_CHANNELS = 8
"""Input channels below which a convolution stays dense: one filter for each of them would be too few."""


def is_dense(*, channels: int, kernel: Sequence[int]) -> bool:
    """Return whether a convolution mixes both positions and enough channels.

    Args:
        channels: Input channels of each group.
        kernel: Size of the kernel along each axis.
    """
    return prod(kernel) > 1 and channels >= _LEAST_CHANNELS
