"""Quantization and fusion of a real transformer: MiniLM, which is all embedding tables, products and attention."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from optuna.trial import FixedTrial

pytest.importorskip("torch")
pytest.importorskip("nncf")

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.schemes import CODES
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import ONE_LINE, Applied, Context, Params, Skipped, Subject
from optimizer_jobs.techniques import graph_optimization, quantization
from retune.api.model import Task
from retune.api.techniques import GraphOptimization, Quantization, QuantizationScheme, Technique, TechniqueType
from tools.minilm.files import ensure

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

QUANTIZE = Technique(name="quantize", type=TechniqueType.QUANTIZATION)
GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
EXPECTED = {
    "Static Smooth": (0.27, 0.99),
    "Static SmoothLayers": (0.27, 0.995),
    "Dynamic": (0.27, 0.985),
    "Dynamic Smooth": (0.27, 0.995),
    "WeightOnly 8": (0.30, 0.995),
    "WeightOnly 4": (0.20, 0.95),
    "WeightOnly Tables": (0.61, 0.995),
    "Half": (0.51, 0.999),
}
"""Largest share of the file's size that is left, and smallest mean cosine to the float vectors, by variant."""


def rows(split: str, count: int) -> Rows:
    """Return the first rows of a split, 16 tokens each."""
    with np.load(ensure().data(split, length=16)) as arrays:
        names = [spec.name for spec in check_onnx(ensure().model).inputs]
        return Rows(inputs={name: arrays[name][:count] for name in names}, labels=None, digest=split)


def subject(*, calibration: bool = True) -> Subject:
    """Return what a technique sees of MiniLM."""
    return Subject(
        graph=onnx.load(ensure().model),
        signature=check_onnx(ensure().model),
        task=Task.EMBEDDING,
        calibration=calibration,
        cpu_flags=frozenset(fingerprint().features),
    )


def context(workdir: Path) -> Context:
    """Return what a step gets, with few calibration rows."""
    return Context(
        workdir=workdir,
        signature=check_onnx(ensure().model),
        task=Task.EMBEDDING,
        calibration=rows("training", 64),
        seed=0,
        cpu_flags=frozenset(fingerprint().features),
    )


def offered() -> Iterator[tuple[str, Params]]:
    """Yield every variant of ours that a study tries when the spec names no schemes, with every layer quantized."""
    for told in quantization.defaults(QUANTIZE, subject()):
        if told["quantize.kept"] or told["quantize.table_bits"] != 8:
            continue
        params = quantization.suggest(FixedTrial(told), QUANTIZE, subject())
        assert params is not None
        if ONE_LINE in params:
            continue
        yield str(told["quantize.variant"]), params


@cache
def vectors(model: Path, engine: str = "onnxruntime") -> NDArray[np.float32]:
    """Return the sentence vectors (128, 384) of test rows, each of length 1."""
    options = EngineOptions.model_validate({"engine": engine, "spinning": False})
    answer: NDArray[np.float32] = open_model(model, options).run(rows("test", 128).inputs)["sentence_vector"]
    return answer


def test_every_scheme_is_offered_and_static_only_with_smoothing() -> None:
    """Plain static quantization, which destroys a transformer, is not among the variants."""
    assert [variant for variant, _ in offered()] == list(EXPECTED)


@pytest.mark.parametrize("variant", list(EXPECTED))
def test_variant_is_smaller_and_keeps_the_vectors(variant: str, tmp_path: Path) -> None:
    """The file shrinks as promised, vectors keep their direction in both engines, and a second run is the same."""
    share, cosine = EXPECTED[variant]
    files = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made = quantization.apply(ensure().model, dict(offered())[variant], context(tmp_path / name))
        assert isinstance(made, Applied)
        files.append(made.model)
    assert check_onnx(files[0]) == check_onnx(ensure().model)
    assert files[0].stat().st_size <= share * ensure().model.stat().st_size
    for engine in ("onnxruntime", "openvino"):
        assert np.sum(vectors(files[0], engine) * vectors(ensure().model), axis=1).mean() >= cosine, engine
    assert files[0].read_bytes() == files[1].read_bytes()


def test_few_layers_in_float_halve_the_error_of_a_file_of_the_same_size(tmp_path: Path) -> None:
    """What the answers depend on most are the second products of the first blocks; as codes they cost no bytes."""
    plain = dict(offered())["Static SmoothLayers"]
    (told,) = (each for each in quantization.defaults(QUANTIZE, subject()) if each["quantize.kept"])
    mixed = quantization.suggest(FixedTrial(told), QUANTIZE, subject())
    assert mixed is not None
    assert (mixed["kept"], mixed["kept_as"]) == (4, CODES)
    made = {}
    for name, params in {"plain": plain, "mixed": mixed}.items():
        (tmp_path / name).mkdir()
        done = quantization.apply(ensure().model, params, context(tmp_path / name))
        assert isinstance(done, Applied)
        made[name] = done
    assert made["mixed"].summary.startswith(
        "int8 static smooth layers but 4 most sensitive stored in 8-bit codes: 32 layers"
    )
    assert made["mixed"].summary.count("/down/MatMul") == 3
    assert made["mixed"].model.stat().st_size <= 1.01 * made["plain"].model.stat().st_size
    for engine in ("onnxruntime", "openvino"):
        error = {
            name: 1 - np.sum(vectors(each.model, engine) * vectors(ensure().model), axis=1).mean()
            for name, each in made.items()
        }
        assert error["mixed"] < 0.6 * error["plain"], engine


def test_static_that_cannot_be_is_named() -> None:
    """A spec that asks for static alone, without rows to observe, hears what is missing."""
    settings = Quantization(schemes=(QuantizationScheme.STATIC,))
    spec = QUANTIZE.model_copy(update={"quantization": settings})
    reason = quantization.unavailable(subject(calibration=False), spec)
    assert reason is not None
    assert reason.startswith("static quantization needs data.training or data.calibration")


def test_fusions_make_fewer_operators_with_the_same_answers(tmp_path: Path) -> None:
    """Attention becomes single operators, and vectors stay."""
    passes = [str(told["graph.passes"]) for told in graph_optimization.defaults(GRAPH, subject())]
    assert passes == ["SlimAndFold", "Fuse"]
    made = graph_optimization.apply(ensure().model, {"passes": "Fuse"}, context(tmp_path))
    assert isinstance(made, Applied)
    kinds = [node.op_type for node in onnx.load(made.model).graph.node]
    assert kinds.count("Attention") == 6
    assert "Softmax" not in kinds
    assert check_onnx(made.model) == check_onnx(ensure().model)
    np.testing.assert_allclose(vectors(made.model), vectors(ensure().model), atol=1e-4)


def test_fusions_can_be_switched_off() -> None:
    """A spec that wants standard operators only gets no fused variant."""
    spec = GRAPH.model_copy(update={"graph": GraphOptimization(transformer_fusions="Never")})
    assert len(graph_optimization.defaults(spec, subject())) == 1


@pytest.mark.parametrize("variant", list(EXPECTED))
def test_every_variant_follows_fusions_or_says_why_not(variant: str, tmp_path: Path) -> None:
    """A plan may fuse first and quantize then: the result runs and keeps the vectors, or the step is skipped."""
    for name in ("fused", "quantized"):
        (tmp_path / name).mkdir()
    fused = graph_optimization.apply(ensure().model, {"passes": "Fuse"}, context(tmp_path / "fused"))
    assert isinstance(fused, Applied)
    made = quantization.apply(fused.model, dict(offered())[variant], context(tmp_path / "quantized"))
    if isinstance(made, Skipped):
        assert made.reason
        return
    assert check_onnx(made.model) == check_onnx(ensure().model)
    assert np.sum(vectors(made.model) * vectors(ensure().model), axis=1).mean() >= EXPECTED[variant][1]
