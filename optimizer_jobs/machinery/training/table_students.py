"""Train a small network on the answers of a model of tables, with scikit-learn alone, and write it as ONNX.

The student has the inputs and outputs of the model that it replaces, labels included. With a seed and a bounded number
of threads, the same bytes come out again, unless a budget ends the training.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.training.table_columns import DOMAIN, Graph, NotLearnableError, columns
from optimizer_jobs.machinery.training.table_lessons import Judge, Lesson, answers_to, lesson_of
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.missing import accepts_missing
from optimizer_jobs.nets.conversion.labels import add_label
from optimizer_jobs.progress import say
from optimizer_jobs.signature import TEXT, TensorSpec
from optimizer_jobs.technique import Applied, Context, Params, Skipped, TrainingPlan
from retune.api.techniques import TechniqueType

Floats = NDArray[np.floating]

_OPSETS = {"": 18, DOMAIN: 3}
_IR_VERSION = 10
MOST_ROWS = 50_000
"""Rows that a student learns from, and rows that it is judged on after each epoch, at most: a small one learns no more
from more of them, and all their columns lie in memory."""
_PART = 8192
"""Rows learned between two looks at the time."""
_RATE, _BATCH, _PATIENCE = 3e-3, 64, 8
"""Learning rate of Adam, rows of a batch, and epochs without better quality after which training ends."""
_JUDGED_SHARE = 0.2
"""Share of the training rows that says which epoch is best, where there are no validation rows."""
_TINY = 1e-12


@dataclass(frozen=True)
class _Learned:
    """The layers of a student after its best epoch."""

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    epoch: int
    quality: float

    @property
    def size(self) -> int:
        return sum(array.size for array in (*self.weights, *self.biases))


def fit(model: Path, plan: TrainingPlan, context: Context) -> Applied | Skipped:
    """Write the student as ONNX into the context's workdir.

    Args:
        model: The ONNX file to learn from.
        plan: Parameters of technique Distillation; those of others do not matter here.
        context: Rows, signature and seed.
    """
    from threadpoolctl import threadpool_limits

    if context.training is None:
        return Skipped(reason="there are no rows to learn on")
    try:
        with threadpool_limits(context.threads), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got `batch_size`")  # the last rows of an epoch may be fewer than a batch
            return _taught(model, context.training, plan[TechniqueType.DISTILLATION], context)
    except (NotLearnableError, UnfitAnswersError) as error:
        return Skipped(reason=str(error).removesuffix("."))


def _taught(model: Path, rows: Rows, params: Params, context: Context) -> Applied:
    training, validation = _split(rows, context)
    weight = float(params.get("teacher_weight", 1.0))
    lesson = lesson_of(answers_to(training, model, context), training, context, weight=weight)
    judge = Judge(validation, answers_to(validation, model, context))
    graph = Graph.beside([spec.name for spec in (*context.signature.inputs, *context.signature.outputs)])
    prepared = columns(graph, context.signature.inputs, training.inputs, fills=accepts_missing(model))
    seen, unseen = _computed(graph, prepared, (training, validation), context)
    say(f"teaching a student on {len(training)} rows, judged on {len(validation)}")
    student = _Student(lesson, params, context)
    learned = student.learn(seen, lambda: judge.quality(student.answers(unseen)))
    _append(graph, prepared, learned, lesson, context)
    target = context.workdir / "model.onnx"
    _write(graph, context, target)
    words = f"student with {learned.size} weights, {learned.epoch} epochs"
    return Applied(model=target, summary=f"{words}: {learned.quality:.4g} on validation, {judge.before:.4g} before")


def _split(rows: Rows, context: Context) -> tuple[Rows, Rows]:
    """Return the rows to learn from, and those that say which epoch is best; of many rows, some are drawn."""
    random = np.random.default_rng(context.seed)
    order = random.permutation(len(rows))
    if context.validation is not None:
        return _chosen(rows, order), _chosen(context.validation, random.permutation(len(context.validation)))
    aside = max(1, round(_JUDGED_SHARE * len(rows)))
    return _chosen(rows, order[aside:]), _chosen(rows, order[:aside])


def _chosen(rows: Rows, order: NDArray[np.int64]) -> Rows:
    """Return the first rows of a random order, in the order of the data."""
    return rows.take(np.sort(order[:MOST_ROWS]))


def _computed(graph: Graph, prepared: str, parts: Sequence[Rows], context: Context) -> list[Floats]:
    """Return the columns (N, W) of rows, computed with the part of the student's graph that is there already."""
    from onnxruntime import InferenceSession, SessionOptions

    proto = _proto(graph, context, [helper.make_empty_tensor_value_info(prepared)])
    options = SessionOptions()
    options.intra_op_num_threads = context.threads
    session = InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batch = context.signature.batch
    computed = []
    for rows in parts:
        size = batch or len(rows)
        places = [np.arange(start, start + size) % len(rows) for start in range(0, len(rows), size)]
        asked = ({name: values[place] for name, values in rows.inputs.items()} for place in places)
        computed.append(np.concatenate([session.run([prepared], inputs)[0] for inputs in asked])[: len(rows)])
    return computed


class _Student:
    """A network of scikit-learn that learns scaled numbers, because its steps suit numbers around 1."""

    def __init__(self, lesson: Lesson, params: Params, context: Context) -> None:
        from sklearn.neural_network import MLPRegressor

        self._context, self._epochs = context, int(params.get("epochs", 1))
        self._centre, self._scale = _units(lesson)
        self._targets = ((lesson.targets - self._centre) / self._scale).astype(np.float32)
        self._random = np.random.RandomState(context.seed)
        self._network = MLPRegressor(
            hidden_layer_sizes=(int(params["width"]),) * int(params["depth"]),
            learning_rate_init=_RATE,
            batch_size=_BATCH,
            random_state=self._random,
        )

    def answers(self, prepared: Floats) -> Floats:
        """Return the numbers (N, K) that it gives to columns (N, W)."""
        scaled = np.asarray(self._network.predict(prepared)).reshape(len(prepared), -1)
        return np.asarray(scaled * self._scale + self._centre)

    def learn(self, prepared: Floats, quality: Any) -> _Learned:
        """Learn epoch by epoch until `quality` gets no better or the time is up, and return the best epoch."""
        best: _Learned | None = None
        report = self._context.report
        for epoch in range(1, self._epochs + 1):
            in_time = self._epoch(prepared)
            reached = quality()
            if best is None or reached > best.quality:
                best = self._layers(epoch, reached)
            if not in_time or (report is not None and report(epoch, reached) is False):
                say(f"teaching ends {'after' if in_time else 'in'} epoch {epoch}: it has had its share of the time")
                break
            if epoch - best.epoch >= _PATIENCE:
                break
        if best is None:
            raise ValueError("a student learns for an epoch at least")
        return best

    def _epoch(self, prepared: Floats) -> bool:
        """Learn all rows once, in a new order; return whether the time was enough for it."""
        order = self._random.permutation(len(prepared))
        for start in range(0, len(order), _PART):
            part = order[start : start + _PART]
            targets = self._targets[part]
            self._network.partial_fit(prepared[part], targets if targets.shape[1] > 1 else targets[:, 0])
            left = None if self._context.alive is None else self._context.alive()
            if left is not None and left <= 0:
                return False
        return True

    def _layers(self, epoch: int, quality: float) -> _Learned:
        """Return copies of the layers, the last of which gives numbers as they were before they were scaled."""
        weights = [array.astype(np.float32) for array in self._network.coefs_]
        biases = [array.astype(np.float32) for array in self._network.intercepts_]
        weights[-1] = (self._network.coefs_[-1] * self._scale).astype(np.float32)
        biases[-1] = (self._network.intercepts_[-1] * self._scale + self._centre).astype(np.float32)
        return _Learned(tuple(weights), tuple(biases), epoch, quality)


def _units(lesson: Lesson) -> tuple[Floats, Floats]:
    """Return what is taken from the targets, and what they are divided by to be around 1, (K,) each."""
    centre, spread = lesson.targets.mean(axis=0), lesson.targets.std(axis=0)
    spread = spread.max() if lesson.compared else spread
    return centre, np.maximum(spread, _TINY * np.maximum(np.abs(centre), 1.0))


def _append(graph: Graph, prepared: str, learned: _Learned, lesson: Lesson, context: Context) -> None:
    """Add the layers, and what gives their numbers the form of the model's scores."""
    score = context.signature.score_output
    if score is None:
        raise ValueError("a student needs scores")
    value = prepared
    for place, (weights, biases) in enumerate(zip(learned.weights, learned.biases, strict=True)):
        value = value if place == 0 else graph.add("Relu", value)
        value = graph.add("Gemm", value, graph.constant(weights), graph.constant(biases))
    if lesson.closing is not None:
        value = graph.add(lesson.closing, value)
    if len(score.shape) == 1:
        value = graph.add("Reshape", value, graph.constant(np.array([-1], dtype=np.int64)))
    graph.add("Cast", value, output=score.name, to=_kind(score))


def _write(graph: Graph, context: Context, target: Path) -> None:
    """Write the file, with the label when the model has one."""
    score = context.signature.score_output
    if score is None:
        raise ValueError("a student needs scores")
    proto = _proto(graph, context, [_value(score)])
    onnx.checker.check_model(proto)
    target.write_bytes(proto.SerializeToString(deterministic=True))
    add_label(target, signature=context.signature, classes=context.classes)


def _proto(graph: Graph, context: Context, outputs: Sequence[ValueInfoProto]) -> onnx.ModelProto:
    inputs = [_value(spec) for spec in context.signature.inputs]
    made = helper.make_graph(graph.nodes, "student", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid(*opset) for opset in _OPSETS.items()]
    return helper.make_model(made, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="retune")


def _value(spec: TensorSpec) -> ValueInfoProto:
    shape = ["N" if size < 0 else size for size in spec.shape]
    return helper.make_tensor_value_info(spec.name, _kind(spec), shape)


def _kind(spec: TensorSpec) -> int:
    """Return the ONNX element type."""
    return int(TensorProto.STRING if spec.dtype == TEXT else helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)))
