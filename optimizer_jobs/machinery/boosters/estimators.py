"""Fitted objects of XGBoost, LightGBM and CatBoost, as pickles hold them: alone, or as steps of scikit-learn pipelines.

A step becomes nodes of the pipeline's graph. What scikit-learn's interface cannot carry into a graph (categories of
pandas, rankers, Boosters without that interface, CatBoost) is saved as a file of its library instead.
"""

import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.boosters import lightgbm, xgboost
from optimizer_jobs.machinery.boosters.forest import Array, Booster, BoosterError, labels_of
from optimizer_jobs.machinery.boosters.write import graph_of
from optimizer_jobs.models.native import Native
from retune.api.model import ModelFormat

_LIBRARIES = {"xgboost": ModelFormat.XGBOOST, "lightgbm": ModelFormat.LIGHTGBM, "catboost": ModelFormat.CATBOOST}
_FILES = {ModelFormat.XGBOOST: "native.ubj", ModelFormat.LIGHTGBM: "native.txt", ModelFormat.CATBOOST: "native.cbm"}
_STEPS = {
    "xgboost": ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"),
    "lightgbm": ("LGBMClassifier", "LGBMRegressor"),
}
"""Classes that can be steps of a pipeline, by library."""

_RAW = "raw_scores"

SKOPS_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "xgboost.core.Booster",
        *(f"{library}.sklearn.{name}" for library, names in _STEPS.items() for name in names),
    }
)
"""Types that skops files of these classes are made of. Their state is text or bytes of the library's own format."""


def needs_file(model: Any) -> bool:
    """Return whether an object of these libraries can only become ONNX by a file of its library."""
    if _library(model) is None:
        return False
    if type(model).__name__ not in _STEPS.get(str(_library(model)), ()):
        return True
    try:
        return bool(booster_of(model).categories)
    except (BoosterError, AttributeError, ValueError):
        return False


def saved(model: Any, folder: Path) -> Native:
    """Write the file of its library into the folder.

    Raises:
        BoosterError: It is not fitted, or takes another number than NaN for a missing value.
    """
    format_ = _LIBRARIES[str(_library(model))]
    path = folder / _FILES[format_]
    _save(model, path)
    return Native(path, format_)


def _save(model: Any, path: Path) -> None:
    missing = getattr(model, "missing", math.nan)
    if isinstance(missing, int | float) and not math.isnan(missing):
        raise BoosterError(f"it takes {missing:g} for a missing value", "Train with missing=nan, and NaN in the data.")
    try:
        (model.booster_ if hasattr(model, "booster_") else model).save_model(str(path))
    except Exception as error:  # each library has its own exception for a model without trees
        raise BoosterError(f"it cannot be saved ({error})", "Fit it, then save it.") from error


def booster_of(model: Any) -> Booster:
    """Return the trees of a classifier or regressor; raises BoosterError when they cannot be read."""
    with tempfile.TemporaryDirectory(prefix="booster-") as folder:
        native = saved(model, Path(folder))
        booster = {ModelFormat.XGBOOST: xgboost.read, ModelFormat.LIGHTGBM: lightgbm.read}[native.format](native.path)
    return replace(booster, labels=labels_of(model))


def register_steps() -> None:
    """Tell skl2onnx how the classes of these libraries are written, so that they may be steps of pipelines.

    A library that nothing has imported has no object in any pipeline.
    """
    from skl2onnx import update_registered_converter

    for library, names in _STEPS.items():
        for name in names if library in sys.modules else ():
            kind = getattr(sys.modules[library], name)
            shapes = _label_shapes if name.endswith("Classifier") else _value_shape
            update_registered_converter(kind, f"Boosted{name}", shapes, _add_nodes, options=_options(kind))


def _options(kind: type) -> dict[str, list[bool]] | None:
    """Return the options of a class; raw scores for calibration, where scikit-learn would calibrate those."""
    if not kind.__name__.endswith("Classifier"):
        return None
    names = ["zipmap", "nocl", *([_RAW] if hasattr(kind, "decision_function") else [])]
    return {name: [True, False] for name in names}


def _library(model: Any) -> str | None:
    """Return the library that the object's class is from, or None for any other."""
    library = type(model).__module__.partition(".")[0]
    return library if library in _LIBRARIES else None


def _label_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    classes = np.asarray(operator.raw_operator.classes_)
    operator.outputs[0].type = (StringTensorType if classes.dtype.kind in "OUS" else Int64TensorType)([None])
    operator.outputs[1].type = FloatTensorType([None, len(classes)])


def _value_shape(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    operator.outputs[0].type = FloatTensorType([None, int(getattr(operator.raw_operator, "n_outputs_", 1))])


def _add_nodes(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of one step to the graph of a pipeline."""
    booster = booster_of(operator.raw_operator)
    if booster.categories:
        raise BoosterError("it tests categories of pandas, which the steps before it do not keep")
    has_raw = _RAW in (_options(type(operator.raw_operator)) or ())
    raw = has_raw and bool(scope.get_options(operator.raw_operator, {_RAW: False})[_RAW])
    nodes, outputs, constants = graph_of(booster, "features", raw=raw)
    names = {"features": _as_float(scope, operator.inputs[0], container)}
    names |= {ours.name: theirs.full_name for ours, theirs in zip(outputs, operator.outputs, strict=True)}
    for tensor in constants:
        names[tensor.name] = scope.get_unique_variable_name(tensor.name)
        _add_constant(container, names[tensor.name], tensor)
    for node in nodes:
        for name in node.output:
            names.setdefault(name, scope.get_unique_variable_name(name))
        _add_node(scope, container, node, names)


def _as_float(scope: Any, variable: Any, container: Any) -> str:
    """Return the name of the step's input as float32, which trees take."""
    name = scope.get_unique_variable_name("features")
    container.add_node(
        "Cast", [variable.full_name], [name], name=scope.get_unique_operator_name("Cast"), to=TensorProto.FLOAT
    )
    return str(name)


def _add_constant(container: Any, name: str, tensor: TensorProto) -> None:
    values: Array = numpy_helper.to_array(tensor)
    content = [value.encode() for value in values.tolist()] if values.dtype == object else values.ravel().tolist()
    container.add_initializer(name, tensor.data_type, list(tensor.dims), content)


def _add_node(scope: Any, container: Any, node: NodeProto, names: dict[str, str]) -> None:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    texts = {name: [_text(value) for value in values] for name, values in attributes.items() if name == "nodes_modes"}
    container.add_node(
        node.op_type,
        [names[name] for name in node.input],
        [names[name] for name in node.output],
        op_domain=node.domain,
        name=scope.get_unique_operator_name(node.op_type),
        **attributes | texts,
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
