"""Memory, CPU time and throughput of several models, each in processes of its own.

Every repeat starts a fresh process for each model, because a process does not give memory back. The processes of a
repeat take turns in random order, so that a disturbance affects all of them alike; ratios compare turns of the same
round. Where requests differ in size, a turn has a part for each size, and the parts count by their shares. Energy and
cost are only estimates: CPU time multiplied by a factor.
"""

import json
import math
import os
import random
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, save
from scipy.stats import t as student

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.mix import Mix, mean_rows
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.measure.stream import feeds
from optimizer_jobs.measure.subject_process import save_feeds
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import EngineError, EngineOptions, limited
from retune.api.metrics import Metric
from retune.api.search import Serving

Values = NDArray[np.float64]

RESOURCES = frozenset(
    {
        Metric.THROUGHPUT_RPS,
        Metric.PEAK_MEMORY_BYTES,
        Metric.CPU_SECONDS_PER_1000,
        Metric.ENERGY_JOULES_PER_1000,
        Metric.COST_PER_1000,
    }
)
"""Metrics that are measured in processes of their own, and only when an objective needs them."""
TURNS = 8
"""Turns of each process in a repeat."""
TURN_SECONDS = 0.15
FEEDS = 32
"""Most different requests of one size that a process rotates through."""
FEED_BYTES = 32 << 20
ANSWER_SECONDS = 900.0
"""Longest time to wait for an answer of a process; TensorRT takes minutes to build an engine."""
_LEAST_BYTES = 4096
"""Smallest memory of a model, one page: a ratio to 0 bytes would say nothing."""
_PER_HOUR = 3600.0
_KILLED = -9


@dataclass(frozen=True)
class Served:
    """A model file and how it is run."""

    model: Path
    engine: EngineOptions

    @classmethod
    def of(cls, bundle: Bundle) -> "Served":
        """Return a bundle's model with the bundle's options."""
        return cls(bundle.model, bundle.manifest.engine)


@dataclass(frozen=True)
class Usage:
    """What one model uses."""

    metrics: dict[Metric, Interval]
    """Values of the metrics in RESOURCES."""
    ratios: dict[Metric, Interval]
    """Values divided by the reference's; exactly 1 for the reference itself."""
    process_bytes: int
    """Peak memory of the whole process, including Python and the engine."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a measurement."""

    mix: Mix
    """Sizes of the requests, in rows, with their shares."""
    threads: int
    """CPUs that the server may use; a model with fewer threads gets more callers at the same time."""
    serving: Serving
    """Watts and price of a CPU."""
    repeats: int
    """Fresh processes for each model; with only one, memory has no interval."""
    seed: int
    """Seed of the order and of the choice of rows."""
    confidence: float = 0.95
    """Confidence of the intervals, 0..1."""


def measure_resources(
    subjects: Mapping[str, Served], rows: Rows, *, reference: str, conditions: Conditions
) -> dict[str, Usage]:
    """Measure what each model uses, and compare it with a reference model.

    Args:
        subjects: The models by name; all answer the same requests.
        rows: Real inputs.
        reference: Name in `subjects` of the model that ratios are to, usually the champion.
        conditions: How to measure.

    Returns:
        Usage by the model's name.

    Raises:
        EngineError: A process died, or its engine refuses model or rows; the message names the model.
    """
    generator = random.Random(conditions.seed)
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(Path(scratch), rows, mix=conditions.mix, threads=conditions.threads, generator=generator)
        repeats = [_repeat(subjects, bench, generator) for _ in range(conditions.repeats)]
    readings = {name: _Readings.joined([repeat[name] for repeat in repeats]) for name in subjects}
    return {
        name: Usage(
            metrics=_metrics(mine, conditions.serving, conditions.confidence),
            ratios=_ratios(readings[reference], mine, conditions.confidence),
            process_bytes=int(mine.process.max()),
        )
        for name, mine in readings.items()
    }


@dataclass(frozen=True)
class _Readings:
    """What the R processes of one model measured."""

    rate: Values
    """(R * TURNS,): rows per second."""
    cpu: Values
    """(R * TURNS,): CPU seconds per row."""
    peak: Values
    """(R,): peak memory in bytes above that of the engine without a model, at least a page."""
    process: Values
    """(R,): peak memory of the whole process in bytes."""

    @classmethod
    def of_process(cls, opened: Mapping[str, float], turns: Sequence["_Turn"], mix: Mix) -> "_Readings":
        """Return the readings of one process, from its answers after opening the model and in each turn."""
        rows = mean_rows(mix)
        return cls(
            rate=np.asarray([rows / _per_request(turn, "wall", mix) for turn in turns]),
            cpu=np.asarray([_per_request(turn, "cpu", mix) / rows for turn in turns]),
            peak=np.maximum([opened["peak"]], _LEAST_BYTES),
            process=np.asarray([opened["process"]]),
        )

    @classmethod
    def joined(cls, processes: Sequence["_Readings"]) -> "_Readings":
        """Return the readings of all processes of a model."""
        return cls(
            rate=np.concatenate([process.rate for process in processes]),
            cpu=np.concatenate([process.cpu for process in processes]),
            peak=np.concatenate([process.peak for process in processes]),
            process=np.concatenate([process.process for process in processes]),
        )


_Turn = Mapping[int, Mapping[str, float]]
"""A process's answers in a turn, by the size of the requests."""


def _per_request(turn: _Turn, what: str, mix: Mix) -> float:
    """Return the seconds of wall time or CPU time that a request of the mix takes."""
    return sum(float(share) * turn[size][what] / turn[size]["calls"] for size, share in mix)


class _Bench:
    """The files that all processes of a measurement read."""

    def __init__(self, folder: Path, rows: Rows, *, mix: Mix, threads: int, generator: random.Random) -> None:
        self._threads = threads
        self.mix = mix
        self._inputs = list(rows.inputs)
        self._feeds, self._empty = folder / "feeds.npz", folder / "empty.onnx"
        room = FEED_BYTES // len(mix)
        by_size = [feeds(rows, size, generator, least=1, most=FEEDS, room=room) for size, _ in mix]
        save_feeds(self._feeds, list(chain.from_iterable(by_size)), self._inputs)
        _save_empty(self._empty)

    def setup(self, served: Served) -> dict[str, Any]:
        """Return the first document for a process: which model to open, and how."""
        options = limited(served.engine, self._threads)
        return {
            "model": str(served.model),
            "engine": options.model_dump(mode="json"),
            "empty": str(self._empty),
            "feeds": str(self._feeds),
            "inputs": self._inputs,
            "callers": max(1, self._threads // options.threads),
        }


def _repeat(subjects: Mapping[str, Served], bench: _Bench, generator: random.Random) -> dict[str, _Readings]:
    """Start a process for each model, one after the other, then let them take turns."""
    names = list(subjects)
    turns: dict[str, list[_Turn]] = {name: [] for name in names}
    with ExitStack() as stack:
        generator.shuffle(names)
        processes = {name: stack.enter_context(_started(name)) for name in names}
        opened = {name: processes[name].ask(bench.setup(subjects[name])) for name in names}
        for _ in range(TURNS):
            generator.shuffle(names)
            turn: dict[str, dict[int, dict[str, float]]] = {name: {} for name in names}
            for size, _ in bench.mix:
                wanted = {"seconds": TURN_SECONDS / len(bench.mix), "size": size}
                for name in names:
                    turn[name][size] = processes[name].ask(wanted)
            for name in names:
                turns[name].append(turn[name])
    return {name: _Readings.of_process(opened[name], turns[name], bench.mix) for name in subjects}


class _Process:
    """A fresh process that serves one model."""

    def __init__(self, name: str, child: "subprocess.Popen[bytes]") -> None:
        self._name, self._child = name, child

    def ask(self, document: Mapping[str, Any]) -> dict[str, float]:
        """Send one document and return the answer; raises EngineError when the process fails or does not answer."""
        requests, answers = self._child.stdin, self._child.stdout
        if requests is None or answers is None:
            raise RuntimeError("the process was started without pipes")
        try:
            requests.write(json.dumps(document).encode() + b"\n")
        except BrokenPipeError as error:
            raise self._died() from error
        if not select.select([answers], [], [], ANSWER_SECONDS)[0]:
            raise EngineError(f"{self._name}: the process that measures it does not answer for {ANSWER_SECONDS:g} s")
        line = answers.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self._name}: {answer['error']}")
        return answer

    def _died(self) -> EngineError:
        code = self._child.wait()
        why = ", most likely for lack of memory" if code == _KILLED else ""
        return EngineError(f"{self._name}: the process that measures it ended with code {code}{why}")


@contextmanager
def _started(name: str) -> Iterator[_Process]:
    """Start a process with the same import path as this one, and kill it afterwards."""
    child = subprocess.Popen(
        [sys.executable, "-m", "optimizer_jobs.measure.subject_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with child:
        try:
            yield _Process(name, child)
        finally:
            child.kill()


def _save_empty(path: Path) -> None:
    """Write a model that does nothing, to measure the memory of the engine alone."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _metrics(readings: _Readings, serving: Serving, confidence: float) -> dict[Metric, Interval]:
    cpu = _mean(readings.cpu, confidence)
    return {
        Metric.THROUGHPUT_RPS: _mean(readings.rate, confidence),
        Metric.PEAK_MEMORY_BYTES: _mean(readings.peak, confidence),
        Metric.CPU_SECONDS_PER_1000: _times(cpu, 1000),
        Metric.ENERGY_JOULES_PER_1000: _times(cpu, 1000 * float(serving.watts_per_cpu)),
        Metric.COST_PER_1000: _times(cpu, 1000 * float(serving.price_per_cpu_hour) / _PER_HOUR),
    }


def _ratios(base: _Readings, mine: _Readings, confidence: float) -> dict[Metric, Interval]:
    cpu = _mean(mine.cpu / base.cpu, confidence)
    return {
        Metric.THROUGHPUT_RPS: _mean(mine.rate / base.rate, confidence),
        Metric.PEAK_MEMORY_BYTES: _mean(mine.peak / base.peak, confidence),
        Metric.CPU_SECONDS_PER_1000: cpu,
        Metric.ENERGY_JOULES_PER_1000: cpu,
        Metric.COST_PER_1000: cpu,
    }


def _mean(values: Values, confidence: float) -> Interval:
    """Return the geometric mean with Student's interval, which holds for few values too; a single value has none."""
    logs = np.log(values)
    mean = float(logs.mean())
    if len(logs) < 2:
        return Interval.exact(math.exp(mean))
    half = float(student.ppf(0.5 + confidence / 2, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    with np.errstate(over="ignore"):  # two values that are worlds apart bound nothing
        low, value, high = (float(end) for end in np.exp([mean - half, mean, mean + half]))
    return Interval(value, low, high, samples=len(logs))


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor, samples=interval.samples)
