"""The requests that models are timed with: real rows, in the sizes of a mix, in an order that is the same for all."""

import random
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.mix import Mix, at_least_once, schedule, usual_size
from optimizer_jobs.models.layout import as_taken
from optimizer_jobs.signature import Signature

Feed = Mapping[str, NDArray[np.generic]]

MAX_FEEDS = 256
"""Most different inputs of one size that the calls rotate through."""
MIN_FEEDS = 8
FEED_BYTES = 64 << 20
"""Most memory for all inputs; if inputs are large, there are fewer, but at least MIN_FEEDS of each size."""


class Stream:
    """Requests of a mix in the form that the models take, cut beforehand so that slicing is not timed."""

    def __init__(self, rows: Rows, mix: Mix, generator: random.Random, *, signature: Signature) -> None:
        self.mix = mix
        cut = partial(feeds, least=MIN_FEEDS, most=MAX_FEEDS, room=FEED_BYTES // len(mix))
        self._feeds = {size: [as_taken(signature, feed) for feed in cut(rows, size, generator)] for size, _ in mix}

    def order(self, calls: int) -> tuple[int, ...]:
        """Return the sizes of a block of so many calls, or of as many as there are sizes."""
        calls = max(calls, len(self.mix))
        return schedule(at_least_once(self.mix, calls), calls)

    def requests(self, order: Sequence[int], number: int) -> list[Feed]:
        """Return the requests of block `number`; those of one size rotate through its inputs."""
        taken = {size: number * order.count(size) for size, _ in self.mix}
        requests = []
        for size in order:
            requests.append(self._feeds[size][taken[size] % len(self._feeds[size])])
            taken[size] += 1
        return requests

    def first(self, calls: int) -> list[Feed]:
        """Return requests to begin with, the most frequent size first: one of each, or `calls` if all are alike."""
        usual = usual_size(self.mix)
        others = [self._feeds[size][0] for size, _ in self.mix if size != usual]
        return self._feeds[usual][: 1 if others else calls] + others


def feeds(rows: Rows, size: int, generator: random.Random, *, least: int, most: int, room: int) -> list[Feed]:
    """Return inputs of single calls, of rows drawn with replacement.

    Args:
        rows: Real inputs.
        size: Rows of a call.
        generator: Draws the rows.
        least: Fewest inputs, whatever memory they need.
        most: Most inputs.
        room: Most bytes of all inputs.
    """
    call_bytes = size * sum(values[:1].nbytes for values in rows.inputs.values())
    count = max(least, min(most, room // max(1, call_bytes)))
    picks = np.asarray(generator.choices(range(len(rows)), k=count * size)).reshape(count, size)
    return [rows.take(pick).inputs for pick in picks]
