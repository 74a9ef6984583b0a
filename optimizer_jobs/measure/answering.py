"""The process that `measure.resources` starts for one model: it opens the model, and answers rows when told to.

It speaks JSON lines: one document in, one out, until its input ends. Nothing else of this process may write to its
output, so that is moved out of the way of whatever an engine prints.
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

from optimizer_jobs.models.runtime import EngineError, EngineOptions, Session, open_model

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
    told = json.loads(next(lines))
    feeds = load_feeds(Path(told["feeds"]), told["inputs"])
    options = EngineOptions.model_validate(told["engine"])
    open_model(Path(told["empty"]), options)  # from here on the engine itself is in memory
    before = _memory()
    session = open_model(Path(told["model"]), options)
    with ThreadPoolExecutor(told["callers"]) as callers:
        crowd = _Crowd(session, feeds, callers, number=told["callers"])
        crowd.answer(0.0)
        peak = _peak()
        _say(answers, {"peak": peak - before, "process": peak})
        for line in lines:
            _say(answers, crowd.answer(float(json.loads(line)["seconds"])))


class _Crowd:
    """Callers that ask a model at the same time, each without pause."""

    def __init__(self, session: Session, feeds: Sequence[Feed], callers: ThreadPoolExecutor, *, number: int) -> None:
        self._session, self._feeds, self._callers, self._number = session, feeds, callers, number
        self._batch = len(next(iter(feeds[0].values())))

    def answer(self, seconds: float) -> dict[str, float]:
        """Ask for that long; return rows answered, CPU seconds of all threads, and wall seconds."""
        self._ask_until(0.0, least=_LEAD_IN_CALLS)
        began, cpu = time.monotonic(), time.process_time()
        calls = self._ask_until(began + seconds, least=_LEAST_CALLS)
        return {"rows": calls * self._batch, "cpu": time.process_time() - cpu, "wall": time.monotonic() - began}

    def _ask_until(self, end: float, *, least: int) -> int:
        if self._number == 1:
            return self._one(end, least)
        asked = [self._callers.submit(self._one, end, least) for _ in range(self._number)]
        return sum(each.result() for each in asked)

    def _one(self, end: float, least: int) -> int:
        calls = 0
        while calls < least or time.monotonic() < end:
            self._session.run(self._feeds[calls % len(self._feeds)])
            calls += 1
        return calls


def save_feeds(path: Path, feeds: Sequence[Feed], inputs: Sequence[str]) -> None:
    """Write inputs for single calls, without pickled objects."""
    arrays = {
        f"{number}.{place}": np.asarray(feed[name], dtype=np.str_) if feed[name].dtype == object else feed[name]
        for number, feed in enumerate(feeds)
        for place, name in enumerate(inputs)
    }
    np.savez(path, allow_pickle=False, **arrays)


def load_feeds(path: Path, inputs: Sequence[str]) -> list[Feed]:
    """Return what `save_feeds` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        count = len(arrays.files) // len(inputs)
        return [
            {name: _as_given(arrays[f"{number}.{place}"]) for place, name in enumerate(inputs)}
            for number in range(count)
        ]


def _as_given(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(object) if values.dtype.kind == "U" else values


def _memory() -> int:
    """Forget the peak so far and return the bytes in memory now; where the kernel cannot forget, the peak so far."""
    with suppress(OSError):
        CLEAR.write_text(_RESET_PEAK)
        return _status("VmRSS") or _peak()
    return _peak()


def _peak() -> int:
    """Return the most bytes that were in memory since `_memory`.

    Not ru_maxrss where the kernel has better: that one remembers the size of the process that started this one.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(field: str) -> int | None:
    """Return a size in bytes from the kernel's account of this process, or None where it has no such field."""
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
