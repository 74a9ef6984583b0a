"""Write a fitted estimator or pipeline as ONNX, and hold the file's answers against the estimator's.

A conversion that answers differently is refused. The same estimator gives the same bytes.
"""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.estimators.inputs import Array, asked_with
from optimizer_jobs.machinery.estimators.rounding import rounded
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import TEXT, TensorSpec
from retune.contract.results import Reason

LABEL, PROBABILITIES, SCORES, VALUE = "label", "probabilities", "scores", "value"
"""Outputs: of a classifier, of one without probabilities, of a regressor."""

AGREEMENT = 0.99
"""Share of rows on which file and estimator must answer the same. Float32 turns a tree's decision at a threshold."""

CLOSENESS = 1e-3
"""How far two predicted numbers may be apart, as a share of the standard deviation of the predictions."""

_OPSETS = {"": 18, "ai.onnx.ml": 3}
_KEEP = "Deliver an estimator that skl2onnx converts, or the model as ONNX."


class NotConvertibleError(ValueError):
    """The estimator cannot be written as ONNX, or answers differently there; the message says why."""


def to_onnx(estimator: Any, inputs: Sequence[TensorSpec], *, target: Path, rows: Mapping[str, Array]) -> None:
    """Write the estimator to `target`, taking `inputs`; `rows` are what both are asked to see that they agree.

    Raises:
        NotConvertibleError: A step has no counterpart in ONNX, or the answers differ, with numbers.
    """
    _check_outputs(estimator)
    model = _converted(rounded(estimator), inputs)
    _rename(model, _input_names(model, inputs) | _output_names(model, estimator))
    _settle(model)
    _write(model, target)
    try:
        onnx.checker.check_model(model)
        given = _check_agreement(estimator, target, rows)
    except (EngineError, onnx.checker.ValidationError) as error:
        raise NotConvertibleError(f"the converted file does not run: {printable(str(error), limit=200)}") from error
    if len(given) == 2 and given[model.graph.output[1].name].shape[-1] != len(classes_of(estimator)):
        del model.graph.output[1:]  # one number for two classes, which nothing reads as scores
        _write(model, target)


def refused(error: Exception, *, name: str) -> JobError:
    """Return the failure that a delivered estimator which cannot be converted is."""
    return JobError(Reason.MODEL_INVALID, name, f"{error}.", _KEEP)


def classes_of(estimator: Any) -> tuple[int | str, ...]:
    """Return the labels of a classifier in the order of its scores; none for a regressor."""
    found = getattr(estimator, "classes_", None)
    return (
        () if found is None else tuple(one if isinstance(one, str) else int(one) for one in np.asarray(found).tolist())
    )


def _check_outputs(estimator: Any) -> None:
    from sklearn.base import is_classifier

    classes = getattr(estimator, "classes_", None)
    targets = 1 if is_classifier(estimator) else getattr(final(estimator), "n_outputs_", 1)
    if isinstance(classes, list) or targets != 1:
        raise NotConvertibleError(f"{_name(estimator)} predicts more than one label or number a row")


def _converted(estimator: Any, inputs: Sequence[TensorSpec]) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds = [
        (one.name, (StringTensorType if one.dtype == TEXT else FloatTensorType)([None, *one.shape[1:]]))
        for one in inputs
    ]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            made: onnx.ModelProto = convert_sklearn(
                estimator, "model", kinds, options=_options(estimator), target_opset=dict(_OPSETS)
            )
            return made
    except Exception as error:
        said = printable(str(error).split(" You may raise an is")[0], limit=300)
        raise NotConvertibleError(f"skl2onnx cannot convert {_name(estimator)} ({said.rstrip('.')})") from error


def _options(estimator: Any) -> dict[int, dict[str, bool]]:
    """Return the wish for plain tensors in place of a list of dictionaries, where the converter knows it.

    Without an entry, skl2onnx 1.20 makes that wish itself for steps of pipelines, and fails where it is not known.
    """
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    last = final(estimator)
    name = sklearn_operator_name_map.get(type(last))
    known = name is not None and "zipmap" in (get_converter(name).get_allowed_options() or {})
    return {id(last): {"zipmap": False} if known else {}}


def final(estimator: Any) -> Any:
    """Return the last step of a pipeline, at any depth, or the estimator itself."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def _input_names(model: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    return {given.name: wanted.name for given, wanted in zip(model.graph.input, inputs, strict=True)}


def _output_names(model: onnx.ModelProto, estimator: Any) -> dict[str, str]:
    from sklearn.base import is_classifier

    scores = PROBABILITIES if hasattr(estimator, "predict_proba") else SCORES
    wanted = (LABEL, scores) if is_classifier(estimator) else (VALUE,)
    return {given.name: name for given, name in zip(model.graph.output, wanted, strict=False)}


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename values of the graph; a value that has one of the new names already makes room."""
    taken = set(names.values()) - set(names)
    names = {**{name: f"{name}_inner" for name in taken}, **names}
    graph = model.graph
    named: list[Any] = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for item in named:
        item.name = names.get(item.name, item.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _settle(model: onnx.ModelProto) -> None:
    """Name each operator set once, the standard one always."""
    newest = {"": _OPSETS[""]} if all(one.domain for one in model.opset_import) else {}
    for one in model.opset_import:
        newest[one.domain] = max(one.version, newest.get(one.domain, 1))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*one) for one in sorted(newest.items()))


def _write(model: onnx.ModelProto, target: Path) -> None:
    target.write_bytes(model.SerializeToString(deterministic=True))


def _check_agreement(estimator: Any, target: Path, rows: Mapping[str, Array]) -> dict[str, Array]:
    """Return the file's answers, which are the estimator's."""
    from sklearn.base import is_classifier

    count = len(next(iter(rows.values())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = np.asarray(estimator.predict(asked_with(estimator, rows))).reshape(count)
    given = open_model(target, EngineOptions(spinning=False)).run(rows)
    answer = given[LABEL if is_classifier(estimator) else VALUE].reshape(count)
    same = answer.astype(str) == wanted.astype(str) if is_classifier(estimator) else _close(answer, wanted)
    if np.mean(same) < AGREEMENT:
        raise NotConvertibleError(
            f"as ONNX, {_name(estimator)} answers {count - int(np.sum(same))} of {count} rows differently"
        )
    return given


def _close(given: Array, wanted: Array) -> Array:
    return np.asarray(np.abs(given - wanted) <= CLOSENESS * (float(np.std(wanted)) or 1.0))


def _name(estimator: Any) -> str:
    return type(final(estimator)).__name__
