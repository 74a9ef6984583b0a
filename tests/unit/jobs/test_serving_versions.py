"""What a version of an engine can run, held against the ONNX Runtime that is installed here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.compress import schemes
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.serving.limits import limits_of
from optimizer_jobs.serving.versions import too_new, version_of
from optimizer_jobs.techniques import quantization
from retune.api.search import Serving
from retune.api.techniques import Quantization, QuantizationScheme, Technique, TechniqueType
from tests.unit.jobs.models_for_tests import subject

HERE = version_of(onnxruntime.__version__)


def model_of(
    nodes: Sequence[NodeProto] = (), *, opset: int = 17, ir: int = 8, ml: int = 1, weights: Sequence[TensorProto] = ()
) -> ModelProto:
    """Return a model of one Identity, and of these nodes where they are given."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    same = helper.make_node("Identity", ["x"], ["y"], name="same")
    graph = helper.make_graph([same, *nodes], "g", [x], [y], initializer=[*weights])
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
    return helper.make_model(graph, opset_imports=sets, ir_version=ir)


def blocks(bits: int) -> NodeProto:
    """Return a product with weights in blocks."""
    return helper.make_node("MatMulNBits", ["x"], ["z"], name="product", domain="com.microsoft", bits=bits)


def in_ort(version: str, model: ModelProto) -> str | None:
    """Return what a version of ONNX Runtime lacks."""
    return too_new(model, engine="onnxruntime", version=version_of(version))


@pytest.mark.parametrize(
    ("version", "fields", "words"),
    [
        ("1.16", {"opset": 21}, "it is of operator set ai.onnx 21, and this version has up to 19"),
        ("1.19.2", {"opset": 22}, "it is of operator set ai.onnx 22, and this version has up to 21"),
        ("1.17", {"ml": 5}, "it is of operator set ai.onnx.ml 5, and this version has up to 4"),
        ("1.20", {"ir": 11}, "it has format version (IR) 11, and this version reads up to 10"),
        ("1.21", {"nodes": [blocks(8)]}, "node 'product' is MatMulNBits with 8 bits, which is there from 1.22 on"),
        ("1.16", {"nodes": [blocks(4)]}, "node 'product' is com.microsoft:MatMulNBits, which is there from 1.17 on"),
        ("1.18", {"opset": 21}, None),
        ("1.18", {"ml": 5}, None),
        ("1.23", {"ir": 11}, None),
        ("1.22", {"nodes": [blocks(8)]}, None),
        ("1.17", {"nodes": [blocks(4)]}, None),
        ("1.99", {"opset": 99, "ir": 99, "ml": 99}, None),
    ],
)
def test_what_is_too_new_is_named(version: str, fields: dict[str, Any], words: str | None) -> None:
    """With the version that has it, or the newest that this one has."""
    assert in_ort(version, model_of(**fields)) == words


def test_convolutions_of_signed_weights_need_a_recent_version() -> None:
    """The quantizer's one line makes such; those of unsigned weights ran before."""
    node = helper.make_node("ConvInteger", ["x", "w"], ["z"], name="conv")
    signed, unsigned = (numpy_helper.from_array(np.ones((1, 1, 1, 1), kind), "w") for kind in (np.int8, np.uint8))
    words = "node 'conv' is ConvInteger with signed weights, which is there from 1.24 on"
    assert in_ort("1.23", model_of([node], weights=[signed])) == words
    assert in_ort("1.24", model_of([node], weights=[signed])) is None
    assert in_ort("1.16", model_of([node], weights=[unsigned])) is None


def test_operators_inside_branches_count_and_a_model_s_own_do_not() -> None:
    """A node at any depth is looked at; a function that the model brings itself runs anywhere."""
    inner = helper.make_graph([blocks(8)], "inner", [], [])
    branch = helper.make_node("If", ["c"], ["z"], name="if", then_branch=inner, else_branch=inner)
    assert in_ort("1.20", model_of([branch])) is not None
    own = model_of([blocks(8)])
    own.functions.append(
        helper.make_function("com.microsoft", "MatMulNBits", ["x"], ["z"], [], [helper.make_opsetid("", 17)])
    )
    assert in_ort("1.20", own) is None


def test_openvino_heeds_no_numbers_but_lacks_weights_in_blocks() -> None:
    """As asked of its releases: 8 bits from 2025.2 on, 4 bits from 2025.4 on."""

    def lacks(version: str, model: ModelProto) -> bool:
        return too_new(model, engine="openvino", version=version_of(version)) is not None

    assert not lacks("2023.3", model_of(opset=99, ir=99))
    assert [lacks(version, model_of([blocks(8)])) for version in ("2025.1", "2025.2")] == [True, False]
    assert [lacks(version, model_of([blocks(4)])) for version in ("2025.3", "2025.4.1")] == [True, False]
    table = helper.make_node("GatherBlockQuantized", ["x"], ["z"], name="table", domain="com.microsoft")
    assert [lacks(version, model_of([table])) for version in ("2025.4", "2026.4")] == [True, False]


@pytest.mark.parametrize("number", ["opset", "ir"])
def test_the_last_line_of_the_table_is_the_installed_engine_s(number: str, tmp_path: Path) -> None:
    """A newer ONNX Runtime in the image that reads more needs a line of its own: this fails until it has one."""
    for value in range(17, 40) if number == "opset" else range(8, 20):
        model = model_of(opset=value) if number == "opset" else model_of(ir=value)
        onnx.save(model, tmp_path / "model.onnx")
        try:
            open_model(tmp_path / "model.onnx", EngineOptions())
            opens = True
        except EngineError:
            opens = False
        said = too_new(model, engine="onnxruntime", version=HERE)
        assert (said is None) == opens, f"{number} {value}: {said}"


def test_forms_that_a_version_lacks_are_not_drawn() -> None:
    """A server's version leaves out weights in blocks of 8 bits, or all; the reason is said where nothing is left."""
    blocky = Technique(
        name="blocks",
        type=TechniqueType.QUANTIZATION,
        quantization=Quantization(schemes=(QuantizationScheme.WEIGHT_ONLY,)),
    )

    def variants(version: str | None) -> tuple[str, ...]:
        serving = Serving.model_validate({"engineVersion": version} if version else {})
        return schemes.variants(blocky, replace(subject(), limits=limits_of(serving)))

    assert variants(None) == ("WeightOnly 8", "WeightOnly 4")
    assert variants("1.22") == ("WeightOnly 8", "WeightOnly 4")
    assert variants("1.20") == ("WeightOnly 4",)
    assert variants("1.16") == ()
    old = replace(subject(), limits=limits_of(Serving(engine_version="1.16")))
    assert quantization.unavailable(old, blocky) == "ONNX Runtime 1.16 runs no weights in blocks"
