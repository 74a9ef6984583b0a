"""Calibrated classifiers: the scores of each fitted classifier become probabilities, whose mean is the answer."""

from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.converters.isotonic import interpolated
from optimizer_jobs.machinery.estimators.converters.kinds import numbers_of, precision_of
from optimizer_jobs.machinery.estimators.inputs import Array, final, steps_before


def calibrate(scope: Any, operator: Any, container: Any) -> None:
    """Write a CalibratedClassifierCV."""
    from skl2onnx.algebra.onnx_ops import OnnxArgMax, OnnxGather, OnnxIdentity, OnnxMean

    calibrated, opset = operator.raw_operator, container.target_opset
    precision = precision_of(operator)
    parts = [
        _probabilities(inner, operator, scope, container, precision=precision, opset=opset)
        for inner in calibrated.calibrated_classifiers_
    ]
    mean = parts[0] if len(parts) == 1 else OnnxMean(*parts, op_version=opset)
    best = OnnxArgMax(mean, axis=1, keepdims=0, op_version=opset)
    label = OnnxGather(labels_of(calibrated), best, axis=0, op_version=opset, output_names=operator.outputs[:1])
    label.add_to(scope, container)
    OnnxIdentity(mean, op_version=opset, output_names=operator.outputs[1:]).add_to(scope, container)


def shape(operator: Any) -> None:
    """Say that the outputs are a label and a probability for each class."""
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    labels = labels_of(operator.raw_operator)
    operator.outputs[0].type = (Int64TensorType if labels.dtype == np.int64 else StringTensorType)([None])
    operator.outputs[1].type = numbers_of(operator)([None, len(labels)])


def labels_of(classifier: Any) -> Any:
    """Return the labels of a classifier, as int64 or text."""
    classes = np.asarray(classifier.classes_)
    return classes.astype(np.str_) if classes.dtype.kind in "OUS" else classes.astype(np.int64)


def _probabilities(inner: Any, operator: Any, scope: Any, container: Any, *, precision: type, opset: int) -> Any:
    """Return the calibrated probabilities (N, classes) of one of the fitted classifiers."""
    from skl2onnx.algebra.onnx_ops import OnnxConcat, OnnxDiv, OnnxEqual, OnnxGather, OnnxReduceSum, OnnxSub, OnnxWhere

    count = len(inner.classes)
    if len(inner.estimator.classes_) != count:
        raise NotImplementedError("one of its classifiers was fitted on rows that lack a class")
    scores = _scores(inner.estimator, operator, scope, container)
    columns = []
    for place, calibrator in enumerate(inner.calibrators):
        number = np.asarray([count - 1 if count == 2 else place], dtype=np.int64)
        score = OnnxGather(scores, number, axis=1, op_version=opset)
        columns.append(_calibrated(score, calibrator, precision=precision, opset=opset))
    if count == 2:
        other = OnnxSub(np.asarray([1], dtype=precision), columns[0], op_version=opset)
        return OnnxConcat(other, columns[0], axis=1, op_version=opset)
    together = OnnxConcat(*columns, axis=1, op_version=opset)
    total = OnnxReduceSum(together, np.asarray([1], dtype=np.int64), keepdims=1, op_version=opset)
    nothing = OnnxEqual(total, np.asarray([0], dtype=precision), op_version=opset)
    even: Array = np.asarray([1 / count], dtype=precision)
    return OnnxWhere(nothing, even, OnnxDiv(together, total, op_version=opset), op_version=opset)


def _calibrated(score: Any, calibrator: Any, *, precision: type, opset: int) -> Any:
    from skl2onnx.algebra.onnx_ops import OnnxAdd, OnnxMul, OnnxSigmoid

    kind = type(calibrator).__name__
    if kind == "IsotonicRegression":
        return interpolated(score, calibrator, precision=precision, opset=opset)
    if kind != "_SigmoidCalibration":
        raise NotImplementedError(f"it is calibrated by {kind.strip('_')}")
    slope: Array = np.asarray([-calibrator.a_], dtype=precision)
    offset: Array = np.asarray([-calibrator.b_], dtype=precision)
    return OnnxSigmoid(OnnxAdd(OnnxMul(score, slope, op_version=opset), offset, op_version=opset), op_version=opset)


def _scores(estimator: Any, operator: Any, scope: Any, container: Any) -> Any:
    """Return what is calibrated: the decision function where the classifier has one, else its probabilities."""
    from skl2onnx._parse import _parse_sklearn
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    decides = hasattr(estimator, "decision_function")
    last = final(estimator)
    options = {"zipmap": False, **({"raw_scores": True} if decides else {})}
    options = {name: value for name, value in options.items() if container.has_options(last, name)}
    if decides and "raw_scores" not in options:
        raise NotImplementedError(f"it calibrates the decision function of {type(last).__name__}")
    scope.add_options(id(last), options)
    container.add_options(id(last), options)
    inputs = operator.inputs
    for step in steps_before(estimator):
        inputs = _parse_sklearn(scope, step, inputs)
    inner = scope.declare_local_operator(sklearn_operator_name_map[type(last)], last)
    inner.inputs = inputs
    text = labels_of(estimator).dtype != np.int64
    inner.outputs.append(scope.declare_local_variable("label", (StringTensorType if text else Int64TensorType)()))
    inner.outputs.append(scope.declare_local_variable("scores", numbers_of(operator)()))
    return inner.outputs[1]
