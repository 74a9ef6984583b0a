"""The engine's part of the space: every engine that is here, with the options that mean something to it."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.engines import EngineSpace, usable
from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure.confinement import Profile
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import ENGINES, UnsupportedEngineError, limited, open_model, unavailable
from optimizer_jobs.models.words import engine_words
from retune.api.servers import EngineName
from retune.api.techniques import Technique, TechniqueType
from retune.contract.results import Reason
from tests.unit.jobs.models_for_tests import subject

WITH_BF16 = frozenset({"avx512_bf16"})
BOTH = ("onnxruntime", "openvino")


def drawn(space: EngineSpace, count: int = 300) -> list[EngineOptions]:
    """Return options as a random sampler draws them."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    return [space.draw(study.ask()) for _ in range(count)]


def test_a_study_asks_every_engine_once_before_it_combines() -> None:
    """The delivered model runs on each engine, at the processor's best precision; the first engine is the control."""
    space = Space((), replace(subject(), cpu_flags=WITH_BF16), threads=2, engine_names=BOTH)
    assert [space.draw(FixedTrial(params)).words for params in space.first()] == [
        "as delivered, all graph, 2 threads",
        "as delivered, OpenVINO bfloat16, 2 threads",
    ]
    assert space.first()[0] == space.control()


@given(st.integers(1, 16), st.sampled_from([frozenset[str](), WITH_BF16]))
def test_options_mean_something_to_their_engine(threads: int, flags: frozenset[str]) -> None:
    """What an engine does not heed stays at its default, threads times streams fit, and no precision is emulated."""
    usual = EngineOptions()
    for options in drawn(EngineSpace(threads=threads, names=BOTH, cpu_flags=flags), 40):
        assert options.threads * options.streams <= threads
        if options.engine == "onnxruntime":
            assert (options.precision, options.streams) == (usual.precision, usual.streams)
        else:
            assert (options.spinning, options.graph_level) == (usual.spinning, usual.graph_level)
            assert options.precision == "float32" or flags


def test_both_engines_and_both_precisions_are_searched() -> None:
    """With 4 threads there are 15 ways to run ONNX Runtime and 10 to run OpenVINO."""
    found = {
        (one.engine, one.model_dump_json())
        for one in drawn(EngineSpace(threads=4, names=BOTH, cpu_flags=WITH_BF16), 1500)
    }
    counts = {name: sum(engine == name for engine, _ in found) for name in BOTH}
    assert counts == {"onnxruntime": 15, "openvino": 10}


def test_the_profile_decides_what_is_tried_first() -> None:
    """An edge device starts with 8 bits, a server with a clean graph; both try the same plans in the end.

    What a user would try in one line comes before either.
    """
    techniques = (
        Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION),
        Technique(name="quantize", type=TechniqueType.QUANTIZATION),
    )
    first = {}
    for profile in (Profile.EDGE_CPU, Profile.SERVER_CPU):
        space = Space(techniques, subject(), threads=2, profile=profile)
        first[profile] = [space.draw(FixedTrial(params)).words for params in space.first()]
    lines = first[Profile.EDGE_CPU][1:3]
    assert all("as one line" in words for words in lines)
    assert first[Profile.SERVER_CPU][1:3] == lines
    assert first[Profile.EDGE_CPU][3].startswith("int8 static")
    assert first[Profile.SERVER_CPU][3].startswith("slim and folded graph")
    assert set(first[Profile.EDGE_CPU]) == set(first[Profile.SERVER_CPU])


def test_one_engine_asks_no_more_than_before() -> None:
    """Parameters that mean nothing to ONNX Runtime are not asked when nothing else may run the model."""
    assert set(EngineSpace(threads=2).defaults()[0]) == {"engine.threads", "engine.spinning", "engine.graph_level"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"threads": 2, "spinning": False}, ["all graph", "2 threads not spinning"]),
        ({"engine": "openvino", "precision": "bfloat16", "streams": 2}, ["OpenVINO bfloat16", "1 thread", "2 streams"]),
        (
            {"engine": "openvino", "planned": {"a": (1, 16), "b": (1, 16)}},
            ["OpenVINO float32", "1 thread", "planned for 1x16"],
        ),
        ({"engine": "tensorrt", "precision": "float16"}, ["TensorRT float16", "1 thread"]),
    ],
)
def test_options_are_told_in_words(options: dict[str, object], expected: list[str]) -> None:
    """A person reads which engine runs the model, and how."""
    assert engine_words(EngineOptions.model_validate(options)) == expected


def test_an_engine_that_is_missing_is_named_with_its_reason(delivered: Path) -> None:
    """TensorRT needs a GPU and its libraries; the search goes on with what is here."""
    if unavailable("tensorrt") is None:
        pytest.skip("this machine has TensorRT")
    found = usable((EngineName.ONNX_RUNTIME, EngineName.TENSORRT), delivered / "mlp.onnx")
    assert found.names == ("onnxruntime",)
    assert found.left_out == {"TensorRT": unavailable("tensorrt")}


def test_with_no_engine_at_all_the_search_says_why(delivered: Path) -> None:
    """A run that asks for engines that are not here ends with a reason instead of without candidates."""
    if unavailable("tensorrt") is None:
        pytest.skip("this machine has TensorRT")
    with pytest.raises(JobError, match="TensorRT") as caught:
        usable((EngineName.TENSORRT,), delivered / "mlp.onnx")
    assert caught.value.reason is Reason.ENGINE_UNAVAILABLE


def test_opening_with_a_missing_engine_names_it(delivered: Path) -> None:
    """A model server that lacks a bundle's engine says which and what to install."""
    for engine in ENGINES:
        if (reason := unavailable(engine)) is not None:
            with pytest.raises(UnsupportedEngineError, match=f"engine {engine} .*") as caught:
                open_model(delivered / "mlp.onnx", EngineOptions.model_validate({"engine": engine}))
            assert reason in str(caught.value)


@given(st.integers(1, 256), st.integers(1, 256), st.integers(0, 64))
def test_limited_options_fit_the_limit(threads: int, streams: int, limit: int) -> None:
    """Threads of all streams together fit into what the server may use, down to one."""
    options = limited(EngineOptions(threads=threads, streams=streams), limit)
    assert 1 <= options.threads * options.streams <= max(1, limit)
