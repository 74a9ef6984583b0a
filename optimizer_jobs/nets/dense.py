"""Which convolutions are dense enough to be worth splitting. No torch: graphs are asked before they are loaded."""

from collections.abc import Sequence
from math import prod

_LEAST_CHANNELS = 8
"""Input channels below which a convolution stays dense: one filter for each would be too little."""


def is_dense(*, channels: int, kernel: Sequence[int]) -> bool:
    """Return whether a convolution of `channels` input channels a group and this kernel mixes places and channels."""
    return prod(kernel) > 1 and channels >= _LEAST_CHANNELS
