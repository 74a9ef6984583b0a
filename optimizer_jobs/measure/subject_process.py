"""The program that `measure.resources` starts for each model: it opens the model and answers requests on command.

It reads one JSON document per line and writes one JSON document per line, until its input ends. What an engine prints
goes to stderr, because nothing else may appear on stdout.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.models.layout import as_taken
from optimizer_jobs.models.runtime import EngineError, EngineOptions, Session, load, open_model

Feed = Mapping[str, NDArray[Any]]

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_LEAD_IN_CALLS = 2
_LEAST_CALLS = 3


def main() -> None:
    """Serve one model until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = iter(sys.stdin.buffer.readline, b"")
    try:
        _serve(lines, answers)
    except EngineError as error:
        _say(answers, {"error": str(error)})


def _serve(lines: Iterator[bytes], answers: BinaryIO) -> None:
    setup = json.loads(next(lines))
    feeds = _by_size(load_feeds(Path(setup["feeds"]), setup["inputs"]))
    options = EngineOptions.model_validate(setup["engine"])
    load(options.engine)
    unplanned = options.model_copy(update={"planned": None})  # the empty model has inputs of its own
    open_model(Path(setup["empty"]), unplanned)  # from here on the engine itself is in memory
    before = _memory()
    session = open_model(Path(setup["model"]), options)
    with ThreadPoolExecutor(setup["callers"]) as threads:
        callers = _Callers(session, feeds, threads, number=setup["callers"])
        for size in feeds:
            callers.call_for(0.0, size=size)
        peak = _peak()
        _say(answers, {"peak": peak - before, "process": peak})
        for line in lines:
            asked = json.loads(line)
            _say(answers, callers.call_for(float(asked["seconds"]), size=int(asked["size"])))


def _by_size(feeds: Sequence[Feed]) -> dict[int, list[Feed]]:
    """Return the inputs of single calls by their number of rows."""
    sizes: dict[int, list[Feed]] = {}
    for feed in feeds:
        sizes.setdefault(len(next(iter(feed.values()))), []).append(feed)
    return sizes


class _Callers:
    """Callers that call a model at the same time, each without pause."""

    def __init__(
        self, session: Session, feeds: Mapping[int, Sequence[Feed]], threads: ThreadPoolExecutor, *, number: int
    ) -> None:
        self._session, self._threads, self._number = session, threads, number
        self._feeds = {size: [as_taken(session.signature, feed) for feed in cut] for size, cut in feeds.items()}

    def call_for(self, seconds: float, *, size: int) -> dict[str, float]:
        """Make requests of `size` rows for that long; return their number, CPU seconds of all threads, wall seconds."""
        feeds = self._feeds[size]
        self._call_until(0.0, feeds, least=_LEAD_IN_CALLS)
        began, cpu = time.monotonic(), time.process_time()
        calls = self._call_until(began + seconds, feeds, least=_LEAST_CALLS)
        return {"calls": calls, "cpu": time.process_time() - cpu, "wall": time.monotonic() - began}

    def _call_until(self, end: float, feeds: Sequence[Feed], *, least: int) -> int:
        """Return the number of calls that all callers made until the time `end`; each makes at least `least`."""
        if self._number == 1:
            return self._one_caller(end, feeds, least)
        counts = [self._threads.submit(self._one_caller, end, feeds, least) for _ in range(self._number)]
        return sum(count.result() for count in counts)

    def _one_caller(self, end: float, feeds: Sequence[Feed], least: int) -> int:
        calls = 0
        while calls < least or time.monotonic() < end:
            self._session.run(feeds[calls % len(feeds)])
            calls += 1
        return calls


def save_feeds(path: Path, feeds: Sequence[Feed], inputs: Sequence[str]) -> None:
    """Write the inputs of single calls as an NPZ file without pickled objects.

    Args:
        path: File to write.
        feeds: Values of every input by name, with shape (batch, ...), for each call.
        inputs: Names of the inputs, in order.
    """
    arrays = {
        f"{call}.{position}": np.asarray(feed[name], dtype=np.str_) if feed[name].dtype == object else feed[name]
        for call, feed in enumerate(feeds)
        for position, name in enumerate(inputs)
    }
    np.savez(path, allow_pickle=False, **arrays)


def load_feeds(path: Path, inputs: Sequence[str]) -> list[Feed]:
    """Return the inputs that `save_feeds` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        count = len(arrays.files) // len(inputs)
        return [
            {name: _text_as_objects(arrays[f"{call}.{position}"]) for position, name in enumerate(inputs)}
            for call in range(count)
        ]


def _text_as_objects(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(object) if values.dtype.kind == "U" else values


def _memory() -> int:
    """Reset the kernel's record of peak memory and return the bytes in memory now.

    If the kernel cannot reset it, return the peak so far.
    """
    with suppress(OSError):
        CLEAR.write_text(_RESET_PEAK)
        return _status("VmRSS") or _peak()
    return _peak()


def _peak() -> int:
    """Return the peak memory of this process in bytes, since `_memory` reset it.

    ru_maxrss is only the fallback: it includes the memory of the parent process from before this program started.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(field: str) -> int | None:
    """Return a size in bytes from /proc/self/status, or None when it has no such field."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    return None


def _say(answers: BinaryIO, document: Mapping[str, Any]) -> None:
    answers.write(json.dumps(document).encode() + b"\n")


if __name__ == "__main__":
    main()
