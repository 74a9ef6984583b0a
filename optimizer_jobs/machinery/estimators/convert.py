"""Write a fitted estimator or pipeline as ONNX, and compare the file's answers with those of the estimator.

A file that answers differently is refused. The same estimator gives the same bytes.
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
from optimizer_jobs.machinery.boosters.estimators import register_steps
from optimizer_jobs.machinery.estimators.inputs import Array, asked_with
from optimizer_jobs.machinery.estimators.rounding import rounded
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import TEXT, TensorSpec
from retune.contract.results import Reason

LABEL, PROBABILITIES, SCORES, VALUE = "label", "probabilities", "scores", "value"
"""Names of outputs: a classifier has a label and probabilities, or else scores; a regressor has a value."""

AGREEMENT = 0.99
"""Share of rows on which file and estimator must answer the same. Not all, because a number very close to the threshold
of a tree may fall on its other side in float32."""

CLOSENESS = 1e-3
"""How far two predicted numbers may differ, as a share of the standard deviation of the predictions."""

_OPSETS = {"": 18, "ai.onnx.ml": 3}
_KEEP = "Deliver an estimator that skl2onnx converts, or the model as ONNX."


class NotConvertibleError(ValueError):
    """The estimator cannot be written as ONNX, or answers differently there; the message says why."""


def to_onnx(estimator: Any, inputs: Sequence[TensorSpec], *, target: Path, rows: Mapping[str, Array]) -> None:
    """Write the estimator to `target`.

    Args:
        estimator: The fitted estimator or pipeline.
        inputs: Inputs that the file is to have.
        target: The new file.
        rows: Values by input name, on which the answers of file and estimator are compared.

    Raises:
        NotConvertibleError: A step has no counterpart in ONNX, or the answers differ, with numbers.
    """
    _check_outputs(estimator)
    model = _converted(rounded(estimator), inputs)
    _rename(model, _input_names(model, inputs) | _output_names(model, estimator))
    _settle_opsets(model)
    _write(model, target)
    try:
        onnx.checker.check_model(model)
        answers = _check_agreement(estimator, target, rows)
    except (EngineError, onnx.checker.ValidationError) as error:
        raise NotConvertibleError(f"the converted file does not run: {printable(str(error), limit=200)}") from error
    if len(answers) == 2 and answers[model.graph.output[1].name].shape[-1] != len(classes_of(estimator)):
        del model.graph.output[1:]  # one number for two classes, which are no scores to Retune
        _write(model, target)


def refused(error: Exception, *, name: str) -> JobError:
    """Return the failure for a delivered estimator that cannot be converted."""
    return JobError(Reason.MODEL_INVALID, name, f"{error}.", _KEEP)


def classes_of(estimator: Any) -> tuple[int | str, ...]:
    """Return the labels of a classifier in the order of its scores; nothing for a regressor."""
    labels = getattr(estimator, "classes_", None)
    if labels is None:
        return ()
    return tuple(label if isinstance(label, str) else int(label) for label in np.asarray(labels).tolist())


def _check_outputs(estimator: Any) -> None:
    from sklearn.base import is_classifier

    classes = getattr(estimator, "classes_", None)
    targets = 1 if is_classifier(estimator) else getattr(final(estimator), "n_outputs_", 1)
    if isinstance(classes, list) or targets != 1:
        raise NotConvertibleError(f"{_name(estimator)} predicts more than one label or number a row")


def _converted(estimator: Any, inputs: Sequence[TensorSpec]) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = [
        (tensor.name, (StringTensorType if tensor.dtype == TEXT else FloatTensorType)([None, *tensor.shape[1:]]))
        for tensor in inputs
    ]
    register_steps()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            model: onnx.ModelProto = convert_sklearn(
                estimator, "model", types, options=_options(estimator), target_opset=dict(_OPSETS)
            )
            return model
    except Exception as error:
        reason = printable(str(error).split(" You may raise an is")[0], limit=300).rstrip(".")
        raise NotConvertibleError(f"skl2onnx cannot convert {_name(estimator)} ({reason})") from error


def _options(estimator: Any) -> dict[int, dict[str, bool]]:
    """Return the option for scores as a tensor, not as a list of dictionaries, where the converter has that option.

    The last step always gets an entry: without one, skl2onnx 1.20 sets the option itself for steps of pipelines, and
    fails where the converter does not have it.
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
    return {value.name: tensor.name for value, tensor in zip(model.graph.input, inputs, strict=True)}


def _output_names(model: onnx.ModelProto, estimator: Any) -> dict[str, str]:
    from sklearn.base import is_classifier

    scores = PROBABILITIES if hasattr(estimator, "predict_proba") else SCORES
    names = (LABEL, scores) if is_classifier(estimator) else (VALUE,)
    return {value.name: name for value, name in zip(model.graph.output, names, strict=False)}


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename values of the graph. Another value that already has one of the new names gets a name of its own."""
    taken = set(names.values()) - set(names)
    names = {**{name: f"{name}_inner" for name in taken}, **names}
    graph = model.graph
    values: list[Any] = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for value in values:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _settle_opsets(model: onnx.ModelProto) -> None:
    """List each operator set once, in its newest version, and the standard one always."""
    newest = {"": _OPSETS[""]} if all(opset.domain for opset in model.opset_import) else {}
    for opset in model.opset_import:
        newest[opset.domain] = max(opset.version, newest.get(opset.domain, 1))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in sorted(newest.items()))


def _write(model: onnx.ModelProto, target: Path) -> None:
    target.write_bytes(model.SerializeToString(deterministic=True))


def _check_agreement(estimator: Any, target: Path, rows: Mapping[str, Array]) -> dict[str, Array]:
    """Return the file's answers by output name; raises NotConvertibleError when they are not the estimator's."""
    from sklearn.base import is_classifier

    count = len(next(iter(rows.values())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(estimator.predict(asked_with(estimator, rows))).reshape(count)
    answers = open_model(target, EngineOptions(spinning=False)).run(rows)
    predicted = answers[LABEL if is_classifier(estimator) else VALUE].reshape(count)
    same = predicted.astype(str) == expected.astype(str) if is_classifier(estimator) else _close(predicted, expected)
    if np.mean(same) < AGREEMENT:
        raise NotConvertibleError(
            f"as ONNX, {_name(estimator)} answers {count - int(np.sum(same))} of {count} rows differently"
        )
    return answers


def _close(predicted: Array, expected: Array) -> Array:
    return np.asarray(np.abs(predicted - expected) <= CLOSENESS * (float(np.std(expected)) or 1.0))


def _name(estimator: Any) -> str:
    return type(final(estimator)).__name__
