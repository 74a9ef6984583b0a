"""Write a fitted estimator or pipeline as ONNX, and compare the file's answers with those of the estimator.

A file that answers differently is refused. The same estimator gives the same bytes.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.boosters.estimators import register_steps
from optimizer_jobs.machinery.estimators.comparing import Answers, Difference, asked, difference, unit_of
from optimizer_jobs.machinery.estimators.converters.registry import own_for
from optimizer_jobs.machinery.estimators.differing import step_that_differs
from optimizer_jobs.machinery.estimators.inputs import Array, asked_with, final
from optimizer_jobs.machinery.estimators.missing_routes import route_missing
from optimizer_jobs.machinery.estimators.probes import probes
from optimizer_jobs.machinery.estimators.ready import convertible
from optimizer_jobs.machinery.estimators.rounding import Rounding, has_trees, rounded
from optimizer_jobs.machinery.estimators.several import one_output, targets_of
from optimizer_jobs.machinery.estimators.soundness import parts
from optimizer_jobs.machinery.estimators.steps import refusal
from optimizer_jobs.models.engine import EngineError, EngineOptions, Session
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import TEXT, TensorSpec
from retune.contract.results import Reason

LABEL, PROBABILITIES, SCORES, VALUE = "label", "probabilities", "scores", "value"
"""Names of outputs: a classifier has a label and probabilities, or else scores; a regressor has a value."""

_AT_ONCE = 4096
"""Rows that a file is asked with at once, at most: neighbours and kernels need memory for rows times rows."""

_LOCALE = "C.UTF-8"
"""Locale in which letters become small: it has all alphabets, and every image has it."""
_OPSETS = {"": 18, "ai.onnx.ml": 3}
_KEEP = "Replace that step by one that skl2onnx converts, or deliver the model as ONNX."


class NotConvertibleError(ValueError):
    """The estimator cannot be written as ONNX, or answers differently there; the message says why."""


class DiffersError(NotConvertibleError):
    """The file answers differently than the estimator.

    Args:
        message: How far, in words.
        rows: The rows that were asked, by input name.
    """

    def __init__(self, message: str, rows: Mapping[str, Array]) -> None:
        super().__init__(message)
        self.rows = rows


def to_onnx(
    estimator: Any,
    inputs: Sequence[TensorSpec],
    *,
    target: Path,
    rows: Mapping[str, Array],
    X: Any = None,
    delivered: bool = True,
) -> None:
    """Write the estimator to `target`, and compare the answers of both.

    Args:
        estimator: The fitted estimator or pipeline.
        inputs: Inputs that the file is to have.
        target: The new file.
        rows: Values by input name, on which the answers of file and estimator are compared.
        X: The same rows as the estimator takes them, with the numbers of the data; by default, those of `rows`.
        delivered: Whether the file must answer as the estimator does; a candidate's file is judged by itself.

    Raises:
        NotConvertibleError: A step has no counterpart in ONNX; as DiffersError when the answers differ, with numbers.
    """
    X = asked_with(estimator, rows) if X is None else X
    roundings = _roundings(estimator, inputs)
    for rounding in roundings:
        try:
            _attempt(estimator, inputs, rounding, target=target, rows=rows, X=X, delivered=delivered)
        except DiffersError as error:
            if rounding is roundings[-1]:
                raise _with_step(error, estimator, inputs) from None
            continue
        return


def _with_step(error: DiffersError, estimator: Any, inputs: Sequence[TensorSpec]) -> DiffersError:
    """Return the error with the step from which on numbers differ, where that is not the last one."""
    step = step_that_differs(estimator, error.rows, convert=lambda begun: _converted(begun, inputs))
    return error if step is None else DiffersError(f"{error}; the first to differ is {step}", error.rows)


def _roundings(estimator: Any, inputs: Sequence[TensorSpec]) -> tuple[Rounding, ...]:
    """Return how thresholds are rounded, the most exact for numbers of single precision first."""
    if any(tensor.dtype == "float64" for tensor in inputs):
        return (Rounding.SINGLE_TREES,)
    by_rows = (Rounding.BY_ROWS,) if hasattr(estimator, "steps") and has_trees(estimator) else ()
    return (Rounding.DOWN, Rounding.NEAREST, *by_rows)


def _attempt(
    estimator: Any,
    inputs: Sequence[TensorSpec],
    rounding: Rounding,
    *,
    target: Path,
    rows: Mapping[str, Array],
    X: Any,
    delivered: bool,
) -> None:
    """Write the estimator with rounded thresholds, and compare."""
    targets = _checked_targets(estimator, X)
    exact = rounded(convertible(estimator), rounding, X)
    model = _converted(exact, inputs)
    route_missing(model, exact)
    _rename(model, _input_names(model, inputs) | _output_names(model, estimator))
    _stand_up_labels(model)
    if targets > 1:
        name = model.graph.output[-1].name
        _rename(model, {name: f"{name}_of_targets"})
        one_output(model, targets=targets, name=name)
    _settle_opsets(model)
    _write(model, target)
    try:
        onnx.checker.check_model(model)
        session = open_model(target, EngineOptions(spinning=False))
        answers = compare(estimator, exact, session, rows, X, delivered=delivered)
    except (EngineError, onnx.checker.ValidationError) as error:
        raise NotConvertibleError(f"the converted file does not run: {printable(str(error), limit=200)}") from error
    scores = answers.numbers
    if len(model.graph.output) == 2 and scores is not None and scores.shape[-1] != len(classes_of(estimator)):
        del model.graph.output[1:]  # one number for two classes, which are no scores to Retune
        _write(model, target)


def compare(
    estimator: Any, exact: Any, session: Session, rows: Mapping[str, Array], X: Any, *, delivered: bool = True
) -> Answers:
    """Compare the answers of an open file with those of the estimator, on the rows and on probes made of them.

    Args:
        estimator: The fitted estimator.
        exact: The same with rounded thresholds. Probes have numbers of single precision, and either may be right.
        session: The open file.
        rows: Rows as the file takes them.
        X: The same rows as the estimator takes them.
        delivered: Whether the file must answer as the estimator does, on probes too.

    Returns:
        The file's answers to the rows.

    Raises:
        DiffersError: They differ beyond what single precision explains, with numbers and the kind of rows.
    """
    from threadpoolctl import threadpool_limits

    expected, written = asked(estimator, X), _answers(estimator, session, rows)
    unit = unit_of(expected)
    apart = difference([expected], written, unit=unit)
    if not delivered and apart.is_kin:
        return written
    _check(apart, estimator, rows, kind="rows")
    with threadpool_limits(1):  # threads cost more than they gain on so few rows
        for kind, probe in probes(estimator, rows):
            probed = asked_with(estimator, probe)
            right = [asked(estimator, probed), asked(exact, probed)]
            _check(difference(right, _answers(estimator, session, probe), unit=unit), estimator, probe, kind=kind)
    return written


def _check(apart: Difference, estimator: Any, rows: Mapping[str, Array], *, kind: str) -> None:
    if not apart.is_tolerable(jumps=_jumps(estimator)):
        raise DiffersError(f"as ONNX, {_name(estimator)} {apart.words(kind)}", rows)


def _jumps(estimator: Any) -> bool:
    """Return whether the last digit may decide: in trees and bins of numbers that were computed, among neighbours."""
    from sklearn.neighbors._base import NeighborsBase
    from sklearn.preprocessing import KBinsDiscretizer

    if any(isinstance(part, NeighborsBase | KBinsDiscretizer) for part in parts(estimator)):
        return True
    return any(hasattr(part, "steps") for part in parts(estimator)) and has_trees(estimator)


def _answers(estimator: Any, session: Session, rows: Mapping[str, Array]) -> Answers:
    """Return the answers of the file, asked with a bounded number of rows at a time."""
    count = len(next(iter(rows.values())))
    answered = [
        session.run({name: values[start : start + _AT_ONCE] for name, values in rows.items()})
        for start in range(0, count, _AT_ONCE)
    ]
    outputs = {name: np.concatenate([part[name] for part in answered]) for name in answered[0]}
    numbers = next((outputs[name] for name in (PROBABILITIES, SCORES, VALUE) if name in outputs), None)
    if numbers is not None and numbers.size % count:
        raise NotConvertibleError(f"as ONNX, {_name(estimator)} gives {numbers.size} numbers for {count} rows")
    return Answers(
        labels=outputs.get(LABEL),
        numbers=None if numbers is None else numbers.reshape(count, -1).astype(np.float64),
        probabilities=hasattr(estimator, "predict_proba"),
    )


def refused(error: Exception, *, name: str) -> JobError:
    """Return the failure for a delivered estimator that cannot be converted."""
    return JobError(Reason.MODEL_INVALID, name, f"{error}.", _KEEP)


def classes_of(estimator: Any) -> tuple[int | str, ...]:
    """Return the labels of a classifier in the order of its scores; nothing for a regressor or several targets."""
    labels = getattr(estimator, "classes_", None)
    if labels is None or isinstance(labels, list):
        return ()
    return tuple(label if isinstance(label, str) else int(label) for label in np.asarray(labels).tolist())


def _checked_targets(estimator: Any, X: Any) -> int:
    """Return the number of targets; refuse labels of more than two kinds where there are several."""
    targets = targets_of(estimator, X)
    classes = getattr(estimator, "classes_", None)
    if targets > 1 and isinstance(classes, list) and any(len(kinds) != 2 for kinds in classes):
        raise NotConvertibleError(f"{_name(estimator)} predicts several labels a row, and not each is one of two")
    return targets


def _converted(estimator: Any, inputs: Sequence[TensorSpec]) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    kinds = {TEXT: StringTensorType, "float64": DoubleTensorType, "float32": FloatTensorType}
    types = [(tensor.name, kinds[tensor.dtype]([None, *tensor.shape[1:]])) for tensor in inputs]
    register_steps()
    own = own_for(parts(estimator), doubles=any(tensor.dtype == "float64" for tensor in inputs))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            model: onnx.ModelProto = convert_sklearn(
                estimator,
                "model",
                types,
                options=_options(estimator),
                target_opset=dict(_OPSETS),
                custom_conversion_functions=own.converters,
                custom_shape_calculators=own.shapes,
            )
            return model
    except Exception as error:
        raise NotConvertibleError(refusal(error, estimator, final(estimator))) from error


def _options(estimator: Any) -> dict[int, dict[str, Any]]:
    """Return options of converters by the id of the part that they are for.

    Scores are a tensor, not a list of dictionaries, where the converter has that option. Each step of a pipeline gets
    an entry: without one, skl2onnx 1.20 sets the option itself for all that chooses or predicts classes, and fails
    where the converter does not have it. Vectorizers split texts as Python does, and need no locale but the one that
    every system has.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    alone = [estimator, *(step for part in parts(estimator) for _, step in getattr(part, "steps", ()))]
    options = {id(step): _options_of(step) for step in alone if not hasattr(step, "steps")}
    for part in parts(estimator):
        if isinstance(part, CountVectorizer):
            words = {"tokenexp": _pattern(part)} if part.analyzer == "word" else {}
            options[id(part)] = {"locale": _LOCALE, **words}
    return options


def _options_of(part: Any) -> dict[str, Any]:
    """Return the options of its scores that the converter of a part has."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    name = sklearn_operator_name_map.get(type(part))
    allowed = (name is not None and get_converter(name).get_allowed_options()) or {}
    wanted = {"zipmap": False, **({"raw_scores": True} if _scores_are_turned(part) else {})}
    return {key: value for key, value in wanted.items() if key in allowed}


def _scores_are_turned(last: Any) -> bool:
    """Return whether skl2onnx gives the scores of two classes the wrong sign, unless it is asked for raw ones."""
    from sklearn.svm._base import BaseSVC

    return isinstance(last, BaseSVC) and not hasattr(last, "predict_proba")


def _pattern(vectorizer: Any) -> str:
    """Return the pattern of a word for an engine that knows letters of all alphabets only by their classes."""
    pattern = str(vectorizer.token_pattern).removeprefix("(?u)")
    if not re.fullmatch(r"(\\b)?(\\w[+*]?)+(\\b)?", pattern):
        return pattern
    return pattern.replace(r"\b", "").replace(r"\w", r"[\p{L}\p{N}_]")


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


def _stand_up_labels(model: onnx.ModelProto) -> None:
    """Have labels as (N,), where their converter writes them as one line (1, N), as that of discriminants does."""
    label = model.graph.output[0]
    sizes = [size.dim_value for size in label.type.tensor_type.shape.dim]
    if label.name != LABEL or len(sizes) < 2 or sizes[0] != 1:
        return
    kind, line, shape = label.type.tensor_type.elem_type, f"{LABEL}_line", f"{LABEL}_shape"
    _rename(model, {LABEL: line})
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([-1], dtype=np.int64), shape))
    model.graph.node.append(onnx.helper.make_node("Reshape", [line, shape], [LABEL]))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(LABEL, kind, [None]))


def _settle_opsets(model: onnx.ModelProto) -> None:
    """List each operator set once, in its newest version, and the standard one always."""
    newest = {"": _OPSETS[""]} if all(opset.domain for opset in model.opset_import) else {}
    for opset in model.opset_import:
        newest[opset.domain] = max(opset.version, newest.get(opset.domain, 1))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in sorted(newest.items()))


def _write(model: onnx.ModelProto, target: Path) -> None:
    target.write_bytes(model.SerializeToString(deterministic=True))


def _name(estimator: Any) -> str:
    return type(final(estimator)).__name__
