"""Functions of NumPy that a FunctionTransformer, or the target of a regression, may apply."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.converters.kinds import is_text, matrix, numbers_of, precision_of

_PLAIN = {
    "abs": "Abs",
    "absolute": "Abs",
    "arctan": "Atan",
    "ceil": "Ceil",
    "cos": "Cos",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "negative": "Neg",
    "reciprocal": "Reciprocal",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}
"""Functions by NumPy's name, and the operator that does the same."""

KNOWN = frozenset({*_PLAIN, "expm1", "log10", "log1p", "log2", "square"})
"""All functions that are converted, by NumPy's name."""


def apply(scope: Any, operator: Any, container: Any) -> None:
    """Write a FunctionTransformer."""
    from skl2onnx.algebra.onnx_ops import OnnxConcat, OnnxIdentity

    transformer, opset = operator.raw_operator, container.target_opset
    if transformer.func is None:
        same = operator.inputs[0]
        if len(operator.inputs) > 1:
            same = OnnxConcat(*operator.inputs, axis=1, op_version=opset)
        made = OnnxIdentity(same, op_version=opset, output_names=operator.outputs[:1])
    else:
        if transformer.kw_args:
            raise NotImplementedError(f"its function {name_of(transformer.func)} has arguments of its own")
        values = applied(transformer.func, matrix(operator, opset), precision=precision_of(operator), opset=opset)
        made = OnnxIdentity(values, op_version=opset, output_names=operator.outputs[:1])
    made.add_to(scope, container)


def shape(operator: Any) -> None:
    """Say that the output is as wide as all inputs together."""
    widths = [value.type.shape[1] for value in operator.inputs]
    width = sum(widths) if all(isinstance(width, int) for width in widths) else None
    kind = type(operator.inputs[0].type) if is_text(operator.inputs[0]) else numbers_of(operator)
    operator.outputs[0].type = kind([None, width])


def name_of(function: Any) -> str:
    """Return the name of a function."""
    return str(getattr(function, "__name__", function))


def applied(function: Any, value: Any, *, precision: type, opset: int) -> Any:
    """Return the function's values.

    Raises:
        NotImplementedError: It is no function of NumPy that is known here.
    """
    import skl2onnx.algebra.onnx_ops as operators

    name = name_of(function)
    if function is not getattr(np, name, None) or name not in KNOWN:
        known = ", ".join(sorted(KNOWN))
        raise NotImplementedError(f"its function {name} is none of NumPy's {known}")
    if name in _PLAIN:
        return getattr(operators, f"Onnx{_PLAIN[name]}")(value, op_version=opset)
    return _COMPOSED[name](operators, value, lambda number: np.asarray([number], dtype=precision), opset)


def _log_to(base: float) -> Callable[..., Any]:
    def log(operators: Any, value: Any, constant: Any, opset: int) -> Any:
        natural = operators.OnnxLog(value, op_version=opset)
        return operators.OnnxDiv(natural, constant(np.log(base)), op_version=opset)

    return log


def _log1p(operators: Any, value: Any, constant: Any, opset: int) -> Any:
    return operators.OnnxLog(operators.OnnxAdd(value, constant(1), op_version=opset), op_version=opset)


def _expm1(operators: Any, value: Any, constant: Any, opset: int) -> Any:
    return operators.OnnxSub(operators.OnnxExp(value, op_version=opset), constant(1), op_version=opset)


def _square(operators: Any, value: Any, constant: Any, opset: int) -> Any:  # noqa: ARG001 - as the others
    return operators.OnnxMul(value, value, op_version=opset)


_COMPOSED: Mapping[str, Callable[..., Any]] = {
    "expm1": _expm1,
    "log10": _log_to(10),
    "log1p": _log1p,
    "log2": _log_to(2),
    "square": _square,
}
