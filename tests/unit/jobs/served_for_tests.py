"""Bundles of every kind that a server of others may meet, and Triton's own reader of configurations."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper

from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.engine import Array, EngineOptions
from optimizer_jobs.models.golden import Golden, answered
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model

STRANGE = 'a "näme"\\with\n'
"""An input's name with everything that a text format has to escape."""


def typed(path: Path) -> Path:
    """Write a model that answers what it is asked: texts, whole numbers, truth values, half and double floats."""
    kinds: dict[str, tuple[int, list[str | int | None]]] = {
        "words": (TensorProto.STRING, ["N", 2]),
        "count": (TensorProto.UINT8, ["N"]),
        STRANGE: (TensorProto.INT64, ["N", "T"]),
        "flags": (TensorProto.BOOL, ["N", 1]),
        "half": (TensorProto.FLOAT16, ["N", 3]),
        "double": (TensorProto.DOUBLE, ["N", 1, 2]),
    }
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in kinds.items()]
    outputs = [helper.make_tensor_value_info(f"{name}-out", kind, shape) for name, (kind, shape) in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}-out"]) for name in kinds]
    return save(path, nodes, inputs, outputs)


def recurrent(path: Path) -> Path:
    """Write a model with a state that has rows as its second axis, and with a setting that is a single number."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "N", 3]),
        helper.make_tensor_value_info("gain", TensorProto.INT64, []),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("stateN", TensorProto.FLOAT, [2, "N", 3]),
        helper.make_tensor_value_info("used", TensorProto.INT64, []),
    ]
    nodes = [
        helper.make_node("Cast", ["gain"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("Add", ["state", "y"], ["stateN"]),
        helper.make_node("Identity", ["gain"], ["used"]),
    ]
    return save(path, nodes, inputs, outputs)


def fixed(path: Path) -> Path:
    """Write a model that takes exactly four rows, in which numbers may be missing."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3])]
    outputs = [helper.make_tensor_value_info("missing", TensorProto.BOOL, [4, 3])]
    return save(path, [helper.make_node("IsNaN", ["x"], ["missing"])], inputs, outputs)


def hollow(path: Path) -> Path:
    """Write a model whose rows have no elements."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 0])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 0])]
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], inputs, outputs)


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], *, domains: Mapping[str, int] | None = None
) -> Path:
    """Write a graph without weights."""
    graph = helper.make_graph(nodes, "served", inputs, outputs)
    opsets = [helper.make_opsetid(domain, version) for domain, version in {"": 17, **(domains or {})}.items()]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def rows_of(kind: str) -> Mapping[str, Array]:
    """Return two rows for a model, or four where it takes no other number; rows are first, as data sets hold them."""
    random = np.random.default_rng(0)
    if kind == "fixed":
        values = random.normal(size=(4, 3)).astype(np.float32)
        values[1, 2] = np.nan
        return {"x": values}
    if kind == "hollow":
        return {"x": np.zeros((2, 0), np.float32)}
    if kind == "recurrent":
        state = random.normal(size=(2, 2, 3)).astype(np.float32)
        return {"x": np.ones((2, 3), np.float32), "state": state, "gain": np.array([3, 3])}
    return {
        "words": np.array([["", "naïve"], ["x" * 300, "two\nlines"]], dtype=object),
        "count": np.array([0, 255], dtype=np.uint8),
        STRANGE: np.array([[1, -(2**62), 3], [4, 5, 6]]),
        "flags": np.array([[True], [False]]),
        "half": random.normal(size=(2, 3)).astype(np.float16),
        "double": random.normal(size=(2, 1, 2)),
    }


KINDS: dict[str, Callable[[Path], Path]] = {"typed": typed, "recurrent": recurrent, "fixed": fixed}
"""Models that Triton serves."""


def bundle_of(kind: str, folder: Path, *, engine: EngineOptions | None = None) -> Bundle:
    """Make a bundle of a model of this kind, with one golden request."""
    folder.mkdir(parents=True)
    model = (KINDS | {"hollow": hollow})[kind](folder / "delivered.onnx")
    request = answered(open_model(model, EngineOptions(spinning=False)), rows_of(kind))
    return make_bundle(
        folder / "bundle",
        model=model,
        engine=engine or EngineOptions(),
        signature=check_onnx(model),
        techniques=(),
        lineage=Lineage(resource="ml/served", original_model="sha256:0"),
        golden=Golden(requests=(request,)),
    )


def judged_in(engine: EngineOptions, bundle: Bundle, folder: Path) -> Bundle:
    """Return a bundle as it would be had its golden requests been answered in an engine that is not installed here."""
    known = bundle.manifest
    return make_bundle(
        folder,
        model=bundle.model,
        engine=engine,
        signature=known.signature,
        techniques=(),
        lineage=known.lineage,
        golden=bundle.golden,
    )


def official() -> ModuleType:
    """Return Triton's own messages, without the rest of its client; skips where the client is not installed."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("the package tritonclient is not installed")
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(config: Path) -> Any:
    """Return a configuration as Triton reads it; a field that it does not know is an error."""
    return text_format.Parse(config.read_text(), official().ModelConfig())
