"""Memory, CPU time and throughput of several models, each in processes of its own.

    measure_resources(subjects, rows, *, reference, batch, threads, serving, repeats, seed) -> dict[str, Usage]

Every repeat starts a fresh process for each model, because memory once taken is not given back. The processes of one
repeat live side by side and take turns in random order, so that what disturbs one disturbs all; ratios come from turns
of the same round. Energy and cost are CPU time multiplied, and never more than estimates.
"""

import json
import math
import os
import random
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, save
from scipy.stats import t as student

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answering import save_feeds
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import EngineError, EngineOptions, limited
from retune.api.objectives import Metric
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
"""Metrics that are measured in processes of their own, and only when asked for."""
TURNS = 8
"""Turns of each process."""
TURN_SECONDS = 0.15
FEEDS = 32
"""Different requests that a process rotates through."""
FEED_BYTES = 32 << 20
ANSWER_SECONDS = 900.0
"""Longest time to wait for a process; TensorRT builds for minutes."""
_LEAST_BYTES = 4096
"""A model that needs less than a page needs one page: a ratio to nothing says nothing."""
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
    """THROUGHPUT_RPS, PEAK_MEMORY_BYTES, CPU_SECONDS_PER_1000, ENERGY_JOULES_PER_1000 and COST_PER_1000."""
    ratios: dict[Metric, Interval]
    """The same divided by the reference's; exactly 1 for the reference itself."""
    process_bytes: int
    """Most memory of the whole process, Python and engine included."""


def measure_resources(  # noqa: PLR0913 - the conditions of a measurement, each by name
    subjects: Mapping[str, Served],
    rows: Rows,
    *,
    reference: str,
    batch: int,
    threads: int,
    serving: Serving,
    repeats: int,
    seed: int,
    confidence: float = 0.95,
) -> dict[str, Usage]:
    """Return what each model uses, and how that compares with the model named `reference`.

    Args:
        subjects: The models by name; all answer the same requests.
        rows: Real inputs.
        reference: The name in `subjects` that ratios are to, usually the champion's.
        batch: Rows a request.
        threads: CPUs the server may use: models with fewer threads have more callers at the same time.
        serving: Watts and price of a CPU.
        repeats: Fresh processes for each model; one gives memory without an interval.
        seed: Seed of the order and of the choice of rows.
        confidence: Confidence of the intervals.

    Raises:
        EngineError: A process died or its engine refuses model or rows, with the model's name.
    """
    chosen = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(Path(scratch), rows, batch=batch, threads=threads, chosen=chosen)
        seen = [_repeat(subjects, bench, chosen) for _ in range(repeats)]
    raw = {name: _Raw.of([each[name] for each in seen]) for name in subjects}
    return {
        name: Usage(
            metrics=_metrics(mine, serving, confidence),
            ratios=_ratios(raw[reference], mine, confidence),
            process_bytes=int(mine.process.max()),
        )
        for name, mine in raw.items()
    }


@dataclass(frozen=True)
class _Seen:
    """What one process told: (TURNS,) each, and two sizes in bytes."""

    rate: Values
    cpu: Values
    peak: float
    process: float


@dataclass(frozen=True)
class _Raw:
    """What all processes of one model told."""

    rate: Values
    """(repeats * TURNS,) rows a second."""
    cpu: Values
    """(repeats * TURNS,) CPU seconds a row."""
    peak: Values
    """(repeats,) bytes above the engine's own."""
    process: Values
    """(repeats,) bytes of the whole process."""

    @classmethod
    def of(cls, seen: list[_Seen]) -> "_Raw":
        return cls(
            rate=np.concatenate([each.rate for each in seen]),
            cpu=np.concatenate([each.cpu for each in seen]),
            peak=np.maximum([each.peak for each in seen], _LEAST_BYTES),
            process=np.asarray([each.process for each in seen]),
        )


class _Bench:
    """The files that all processes of a measurement read."""

    def __init__(self, folder: Path, rows: Rows, *, batch: int, threads: int, chosen: random.Random) -> None:
        self._threads = threads
        self._inputs = list(rows.inputs)
        self._feeds, self._empty = folder / "feeds.npz", folder / "empty.onnx"
        one = batch * sum(values[:1].nbytes for values in rows.inputs.values())
        count = max(1, min(FEEDS, FEED_BYTES // max(1, one)))
        picks = np.asarray(chosen.choices(range(len(rows)), k=count * batch)).reshape(count, batch)
        save_feeds(self._feeds, [rows.take(pick).inputs for pick in picks], self._inputs)
        _save_empty(self._empty)

    def told(self, served: Served) -> dict[str, Any]:
        """Return what a process is told about its model."""
        options = limited(served.engine, self._threads)
        return {
            "model": str(served.model),
            "engine": options.model_dump(mode="json"),
            "empty": str(self._empty),
            "feeds": str(self._feeds),
            "inputs": self._inputs,
            "callers": max(1, self._threads // options.threads),
        }


def _repeat(subjects: Mapping[str, Served], bench: _Bench, chosen: random.Random) -> dict[str, _Seen]:
    """Start a process for each model, one after the other, then let them take turns."""
    names = list(subjects)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with ExitStack() as stack:
        chosen.shuffle(names)
        processes = {name: stack.enter_context(_started(name)) for name in names}
        opened = {name: processes[name].ask(bench.told(subjects[name])) for name in names}
        for _ in range(TURNS):
            chosen.shuffle(names)
            for name in names:
                turns[name].append(processes[name].ask({"seconds": TURN_SECONDS}))
    return {
        name: _Seen(
            rate=np.asarray([turn["rows"] / turn["wall"] for turn in turns[name]]),
            cpu=np.asarray([turn["cpu"] / turn["rows"] for turn in turns[name]]),
            peak=opened[name]["peak"],
            process=opened[name]["process"],
        )
        for name in subjects
    }


class _Process:
    """A fresh process that serves one model."""

    def __init__(self, name: str, child: "subprocess.Popen[bytes]") -> None:
        self._name, self._child = name, child

    def ask(self, document: Mapping[str, Any]) -> dict[str, float]:
        """Send one document and return the answer; raises EngineError when there is none."""
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
    """Start a process that imports from where this one does, and end it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "optimizer_jobs.measure.answering"],
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
    """Write a model that does nothing, for what an engine needs by itself."""
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", sides[:1], sides[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _metrics(raw: _Raw, serving: Serving, confidence: float) -> dict[Metric, Interval]:
    cpu = _mean(raw.cpu, confidence)
    return {
        Metric.THROUGHPUT_RPS: _mean(raw.rate, confidence),
        Metric.PEAK_MEMORY_BYTES: _mean(raw.peak, confidence),
        Metric.CPU_SECONDS_PER_1000: _times(cpu, 1000),
        Metric.ENERGY_JOULES_PER_1000: _times(cpu, 1000 * float(serving.watts_per_cpu)),
        Metric.COST_PER_1000: _times(cpu, 1000 * float(serving.price_per_cpu_hour) / _PER_HOUR),
    }


def _ratios(base: _Raw, mine: _Raw, confidence: float) -> dict[Metric, Interval]:
    cpu = _mean(mine.cpu / base.cpu, confidence)
    return {
        Metric.THROUGHPUT_RPS: _mean(mine.rate / base.rate, confidence),
        Metric.PEAK_MEMORY_BYTES: _mean(mine.peak / base.peak, confidence),
        Metric.CPU_SECONDS_PER_1000: cpu,
        Metric.ENERGY_JOULES_PER_1000: cpu,
        Metric.COST_PER_1000: cpu,
    }


def _mean(values: Values, confidence: float) -> Interval:
    """Return the geometric mean with Student's interval, which stays honest for few values; one value has none."""
    logs = np.log(values)
    middle = float(logs.mean())
    if len(logs) < 2:
        return Interval.exact(math.exp(middle))
    half = float(student.ppf(0.5 + confidence / 2, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    return Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half), samples=len(logs))


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor, samples=interval.samples)
