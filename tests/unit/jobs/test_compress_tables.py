"""Embedding tables in few bits by row, and as products of lower rank."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from optimizer_jobs.machinery.compress import tables
from optimizer_jobs.machinery.compress.layers import TABLE_BYTES, is_quantized
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from optimizer_jobs.techniques import factorization, quantization
from retune.api.model import Task
from retune.api.techniques import Factorization, Quantization, QuantizationScheme, Technique, TechniqueType
from tests.unit.jobs import recommenders_for_tests as recommenders

TABLES_ALONE: Params = {"scheme": "WeightOnly", "scope": "Tables"}
OPSETS = pytest.mark.parametrize("opset", [13, 17, 21])


def answers(model: ModelProto, inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the scores of a graph in memory."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0])


def table_of(model: ModelProto, name: str) -> NDArray[np.float32]:
    """Return a constant of the graph."""
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor)


def looked_up(table: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Return all rows of a table as a graph finds them after they were stored in few bits."""
    node = helper.make_node("Gather", ["table", "ids"], ["row"], name="rows")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, ["N", table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert tables.store(model, bits) == 1
    return answers(model, {"ids": np.arange(len(table))})


@st.composite
def large_tables(draw: st.DrawFn) -> NDArray[np.float32]:
    """Draw a table that is just large enough: a few drawn rows, again and again, each with a size of its own."""
    width = draw(st.integers(2, 24))
    numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
    few = draw(arrays(np.float32, (draw(st.integers(1, 4)), width), elements=numbers))
    return np.resize(few, (TABLE_BYTES // 4 // width + 1, width))


@given(large_tables())
def test_no_number_in_8_bits_moves_by_more_than_half_a_level_of_its_row(table: NDArray[np.float32]) -> None:
    """A level is the largest magnitude of the row over 127, so small rows beside large ones keep their digits."""
    levels = np.abs(table).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(looked_up(table, 8) - table) <= levels * (0.5 + 1e-4))


@given(large_tables())
def test_no_number_in_4_bits_moves_by_more_than_half_a_step_of_its_row(table: NDArray[np.float32]) -> None:
    """A step is 1/15 of the span of the row; rows that take 8 bits, because they are narrow or odd, move less."""
    spans = table.max(axis=1, keepdims=True).astype(np.float64) - table.min(axis=1, keepdims=True)
    largest = np.abs(table).max(axis=1, keepdims=True)
    in_eight = table.shape[1] % 2 == 1 or table.shape[1] <= 8
    allowed = largest / 254 if in_eight else spans / 30
    assert np.all(np.abs(looked_up(table, 4) - table) <= allowed + 1e-4 * largest)


@OPSETS
@pytest.mark.parametrize(("bits", "share"), [(8, 0.35), (4, 0.25)])
def test_lookups_of_every_shape_find_the_same_rows(bits: int, share: float, opset: int) -> None:
    """Single places, lists of them, and places counted from the end: scores stay close, and the file gets small."""
    model, inputs = recommenders.recommender(opset=opset), recommenders.requests(200)
    inputs["item"][:100] -= recommenders.ITEMS
    exact, size = answers(model, inputs), len(model.SerializeToString())
    assert tables.store(model, bits) == 2
    onnx.checker.check_model(model, full_check=True)
    error = np.sqrt(np.mean((answers(model, inputs) - exact) ** 2)) / np.std(exact)
    assert error < (0.02 if bits == 8 else 0.2)
    assert len(model.SerializeToString()) < share * size


def test_a_table_that_a_layer_reads_too_is_left_alone() -> None:
    """The last layer of a language model multiplies by the table of tokens; two copies would be larger than one."""
    model = recommenders.recommender()
    model.graph.node.append(helper.make_node("Transpose", ["items"], ["turned"], name="turn"))
    assert [table.name for table in tables.of(model)] == ["users"]


def test_a_table_with_numbers_that_are_none_is_left_alone() -> None:
    """No scale fits a row with an infinite number."""
    users = np.zeros((recommenders.USERS, recommenders.WIDTH), dtype=np.float32)
    users[3, 5] = np.inf
    assert [table.name for table in tables.of(recommenders.recommender(users=users))] == ["items"]


def test_a_table_in_a_constant_node_and_one_listed_as_an_input_are_tables() -> None:
    """Some exporters write constants as nodes, and old files list every constant among the inputs."""
    model, inputs = recommenders.recommender(), recommenders.requests(50)
    exact = answers(model, inputs)
    items = next(tensor for tensor in model.graph.initializer if tensor.name == "items")
    constant = helper.make_node("Constant", [], ["items"], name="constant", value=items)
    model.graph.initializer.remove(items)
    model.graph.node.insert(0, constant)
    model.graph.input.append(helper.make_tensor_value_info("users", onnx.TensorProto.FLOAT, None))
    assert tables.store(model, 8) == 2
    assert [value.name for value in model.graph.input] == ["user", "item", "recent"]
    assert np.corrcoef(answers(model, inputs).ravel(), exact.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("bits", [8, 4])
def test_names_that_the_graph_has_already_are_not_taken_again(bits: int) -> None:
    """Quantizers give the scale of a tensor the name that the scale of a row might get."""
    model, inputs = recommenders.recommender(), recommenders.requests(50)
    (score,) = model.graph.output
    taken = [f"{name}_{part}" for name in ("i", "items") for part in ("scale", "codes", "scales", "levels", "lowest")]
    for name in taken:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(1, dtype=np.float32), name))
        model.graph.node.append(helper.make_node("Mul", [score.name, name], [f"{name}_used"], name=f"{name}_used"))
        model.graph.output.append(helper.make_tensor_value_info(f"{name}_used", onnx.TensorProto.FLOAT, ["N", 1]))
    exact = answers(model, inputs)
    assert tables.store(model, bits) == 2
    onnx.checker.check_model(model)
    assert np.corrcoef(answers(model, inputs).ravel(), exact.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("method", ["MinMax", "Percentile"])
def test_static_quantization_stores_tables_by_row(method: str, bits: int, tmp_path: Path) -> None:
    """Its ranges are of activations; tables shrink apart from them."""
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    whole: Params = {"per_channel": True, "scope": "LayersAndBetween", "fallback": "None", "table_bits": bits}
    folder = tmp_path / "work"
    observed = dataclasses.replace(context(model, folder), calibration=recommenders.rows(recommenders.requests(200)))
    params: Params = {"scheme": "Static", "method": method, "samples": 200, **whole}
    made = quantization.apply(model, params, observed)
    assert isinstance(made, Applied), made.reason
    assert {"users_codes", "items_codes"} <= {tensor.name for tensor in onnx.load(made.model).graph.initializer}
    inputs = recommenders.requests(100, seed=1)
    exact, found = (open_model(path, EngineOptions()).run(inputs)["score"] for path in (model, made.model))
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.98


def test_a_product_of_the_rank_of_a_table_answers_the_same() -> None:
    """What lies in few directions is found whole, whatever the width of the table."""
    random = np.random.default_rng(1)
    thin = random.normal(size=(recommenders.USERS, 8)) @ random.normal(size=(8, recommenders.WIDTH))
    model, inputs = recommenders.recommender(users=thin.astype(np.float32)), recommenders.requests(100)
    items, exact = table_of(model, "items"), answers(model, inputs)
    assert tables.split(model, 0.25) == (2, 2)
    assert np.allclose(table_of(model, "users_narrow") @ table_of(model, "users_matrix"), thin, atol=1e-4)
    left = items - table_of(model, "items_narrow") @ table_of(model, "items_matrix")
    least = np.sqrt((np.linalg.svd(items, compute_uv=False)[8:] ** 2).sum())
    assert np.linalg.norm(left) == pytest.approx(least, rel=1e-4)
    assert answers(model, inputs).shape == exact.shape


def test_a_product_that_would_not_be_smaller_is_not_made() -> None:
    """At the full rank a table and a matrix are more than the table."""
    model = recommenders.recommender()
    before = model.SerializeToString()
    assert tables.split(model, 1.0) == (0, 2)
    assert model.SerializeToString() == before


def subject_of(model: Path) -> Subject:
    """Return what techniques see of the recommender: no rows to train on or to observe."""
    return Subject(graph=onnx.load(model), signature=check_onnx(model), task=Task.REGRESSION)


def context(model: Path, folder: Path) -> Context:
    """Return what a step may use: nothing but the file."""
    folder.mkdir()
    return Context(workdir=folder, signature=check_onnx(model), seed=0, cpu_flags=frozenset())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("bits", [8, 4])
def test_tables_alone_run_in_every_engine_and_layers_stay_exact(bits: int, engine: str, tmp_path: Path) -> None:
    """WeightOnly without layers writes standard operators only, and says what it did."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    params: Params = {**TABLES_ALONE, "table_bits": bits}
    made = quantization.apply(model, params, context(model, tmp_path / "work"))
    assert isinstance(made, Applied)
    assert made.summary == f"int{bits} tables by row: 2 embedding tables"
    assert is_quantized(onnx.load(made.model))
    assert {node.domain for node in onnx.load(made.model).graph.node} == {""}
    inputs = recommenders.requests(100)
    options = EngineOptions.model_validate({"engine": engine, "spinning": False})
    exact, found = (open_model(path, options).run(inputs)["score"] for path in (model, made.model))
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.98


def test_a_model_of_tables_without_layers_can_be_quantized(tmp_path: Path) -> None:
    """Two towers and a dot product multiply by no constant: tables are all there is to quantize."""
    model = recommenders.recommender()
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("ReduceSum", ["products", "axes"], ["score"], name="dot", keepdims=1))
    onnx.save(model, tmp_path / "model.onnx")
    spec = Technique(
        name="quantize",
        type=TechniqueType.QUANTIZATION,
        quantization=Quantization(schemes=(QuantizationScheme.WEIGHT_ONLY,)),
    )
    subject = subject_of(tmp_path / "model.onnx")
    assert quantization.unavailable(subject, spec) is None
    offered = [params["quantize.variant"] for params in quantization.defaults(spec, subject)]
    assert offered == ["WeightOnly Tables", "WeightOnly Tables"]
    made = quantization.apply(
        tmp_path / "model.onnx", {**TABLES_ALONE, "table_bits": 8}, context(tmp_path / "model.onnx", tmp_path / "work")
    )
    assert isinstance(made, Applied)
    again = subject_of(made.model)
    assert quantization.unavailable(again, spec) == "the model is quantized already"


@pytest.mark.parametrize("bits", [8, 4])
def test_dynamic_quantization_stores_tables_by_row(bits: int, tmp_path: Path) -> None:
    """Layers and tables shrink together, and a row's error does not depend on the largest row."""
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    params: Params = {"scheme": "Dynamic", "per_channel": True, "table_bits": bits}
    made = quantization.apply(model, params, context(model, tmp_path / "work"))
    assert isinstance(made, Applied)
    assert made.summary.endswith("1 layer, 2 embedding tables")
    assert ("int4 tables" in made.summary) == (bits == 4)
    assert {"users_codes", "items_codes"} <= {tensor.name for tensor in onnx.load(made.model).graph.initializer}


def test_tables_are_split_without_torch_labels_or_rows(tmp_path: Path) -> None:
    """Only the file is needed; the summary says that nothing was trained."""
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    spec = Technique(
        name="factorize", type=TechniqueType.FACTORIZATION, factorization=Factorization(ranks=("0.5", "0.25"))
    )
    subject = subject_of(model)
    assert factorization.unavailable(subject, spec) is None
    assert factorization.defaults(spec, subject) == ({"factorize.form": "Tables 0.25"},)
    made = factorization.apply(model, {"tables": 0.25}, context(model, tmp_path / "work"))
    assert isinstance(made, Applied)
    assert made.summary == "tables of rank 0.25: 2 of 2 split, not trained on"
    assert made.model.stat().st_size < 0.3 * model.stat().st_size
    assert isinstance(factorization.apply(model, {"tables": 1.0}, context(model, tmp_path / "other")), Skipped)
