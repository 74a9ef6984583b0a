"""A model that can be asked rightly, wrongly, and so that it fails: it adds rows of a table to what it is given."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.engine import Array, EngineOptions
from optimizer_jobs.models.golden import Golden, answered
from optimizer_jobs.models.runtime import open_model
from tests.unit.jobs.models_for_tests import IR_VERSION, OPSET

TABLE = np.arange(15, dtype=np.float32).reshape(5, 3)
ASKED: dict[str, Array] = {"x": np.array([[0.5, 1, 2], [3, 4, 5]], np.float32), "index": np.array([4, 0], np.int64)}
ANSWER = ASKED["x"] + TABLE[ASKED["index"]]
FITS_AND_FAILS: dict[str, Array] = {"x": np.zeros((1, 3), np.float32), "index": np.array([7], np.int64)}
"""Of the right types and shapes, but the table has no row 7: ONNX Runtime raises."""


def save_lookup(path: Path, *, beside: bool = False) -> Path:
    """Write the ONNX file: inputs `x` (N, 3) and `index` (N,), output `sum` (N, 3); the table may lie beside it."""
    nodes = [helper.make_node("Gather", ["table", "index"], ["rows"]), helper.make_node("Add", ["x", "rows"], ["sum"])]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("index", TensorProto.INT64, ["N"]),
        ],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(TABLE, "table")],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tests")
    onnx.save(model, path, save_as_external_data=beside, location="weights", size_threshold=0)
    return path


def lookup_bundle(
    folder: Path, *, engine: EngineOptions | None = None, golden: Golden | None = None, beside: bool = False
) -> Bundle:
    """Make a bundle of it below `folder`, with one golden request by default."""
    folder.mkdir(parents=True, exist_ok=True)
    model, options = save_lookup(folder / "lookup.onnx", beside=beside), engine or EngineOptions()
    session = open_model(model, EngineOptions())
    return make_bundle(
        folder / "bundle",
        model=model,
        engine=options,
        signature=session.signature,
        techniques=(),
        lineage=Lineage(resource="ml/lookup", original_model=file_digest(model)),
        golden=golden or Golden(requests=(answered(session, ASKED),)),
    )
