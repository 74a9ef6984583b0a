"""What a server can be told: nothing beyond it is drawn, and what runs there loses no speed on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.engines import EngineSpace
from optimizer_jobs.commands.search.grid import Grid
from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.commands.search.warm_start import _translated
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.serving import trial
from optimizer_jobs.serving.limits import Limits, as_served, limits_of
from optimizer_jobs.serving.render import render
from retune.api.search import Serving
from retune.contract.requests import Server
from tests.unit.jobs.models_for_tests import subject
from tests.unit.jobs.served_for_tests import judged_in

ARM = frozenset({"asimd", "bf16"})
BF16 = frozenset({"avx512_bf16"})
SHAPES = {"x": (4, 64)}
TRITON: dict[str, Any] = {"runtime": "Triton"}
OVMS: dict[str, Any] = {"runtime": "OVMS", "engines": ["OpenVINO"]}
NAMED: tuple[dict[str, Any], ...] = (
    TRITON,
    OVMS,
    {"runtime": "KServe"},
    {"runtime": "KServe", "engines": ["OpenVINO"]},
    {"runtime": "Custom", "engines": ["ONNXRuntime", "OpenVINO"]},
)
OPTIONS = st.builds(
    EngineOptions,
    engine=st.sampled_from(["onnxruntime", "openvino", "tensorrt"]),
    threads=st.integers(1, 8),
    streams=st.integers(1, 4),
    spinning=st.booleans(),
    graph_level=st.sampled_from(["disabled", "basic", "extended", "all"]),
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    rows=st.none() | st.integers(1, 64),
    planned=st.none() | st.just(SHAPES),
)


def limits(fields: dict[str, Any]) -> Limits:
    """Return the limits of a server as a spec names it."""
    return limits_of(Serving.model_validate(fields))


def space_for(fields: dict[str, Any], threads: int, flags: frozenset[str]) -> EngineSpace:
    """Return the engines' part of a search for a server, on a machine with these flags."""
    serving = Serving.model_validate(fields)
    bounds = limits_of(serving)
    return EngineSpace(
        threads=threads,
        names=tuple(name.lower() for name in serving.engines),
        cpu_flags=flags,
        rows=4 if bounds.rows else None,
        planned=SHAPES if bounds.planned else {},
        limits=bounds,
    )


def drawn(space: EngineSpace, count: int = 40) -> list[EngineOptions]:
    """Return options as a random sampler draws them, and the space's own defaults."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    defaults = [space.draw(FixedTrial(params)) for params in space.defaults()]
    return defaults + [space.draw(study.ask()) for _ in range(count)]


@given(st.sampled_from(NAMED), st.integers(1, 16), st.sampled_from([frozenset[str](), ARM, BF16]))
def test_nothing_is_drawn_that_the_server_would_run_otherwise(
    fields: dict[str, Any], threads: int, flags: frozenset[str]
) -> None:
    """Whatever the machine: the options of every plan are those that the server runs."""
    bounds = limits(fields)
    for options in drawn(space_for(fields, threads, flags)):
        assert bounds.as_run(options) == options


@given(st.sampled_from(NAMED), OPTIONS)
def test_a_bundle_of_another_time_is_run_as_the_server_can(fields: dict[str, Any], options: EngineOptions) -> None:
    """What is run is itself within the limits, with as many threads; what is beyond is beyond."""
    bounds = limits(fields)
    run = bounds.as_run(options)
    assert bounds.as_run(run) == run
    assert run.threads == options.threads
    for other in bounds.beyond(run, rows=4, planned=SHAPES).values():
        assert bounds.as_run(other) == run


@given(OPTIONS)
def test_without_a_server_nothing_changes(options: EngineOptions) -> None:
    """The default is what every release before did."""
    bounds = limits({})
    assert bounds.free
    assert bounds.as_run(options) == options
    assert bounds.beyond(options, rows=4, planned=SHAPES) == {}
    assert not limits({"engineVersion": "1.20"}).free


def test_every_way_to_run_a_model_for_triton_is_rendered_with_nothing_lost(
    make: Callable[..., Bundle], tmp_path: Path
) -> None:
    """All nine that four threads allow, from the space itself."""
    engines = {options.model_dump_json(): options for options in drawn(space_for(TRITON, 4, ARM), 200)}
    assert len(engines) == 9
    golden = make("first").golden
    for number, engine in enumerate(engines.values()):
        bundle = make(f"bundle-{number}", engine=engine, golden=golden)
        assert render(bundle, Server.TRITON, name="digits", into=tmp_path / f"serve-{number}").lost == ()


def test_every_way_to_run_a_model_for_openvino_model_server_loses_its_warm_up_alone(
    make: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that eight threads and both precisions allow; a warm-up changes the first requests and no speed after."""
    monkeypatch.setattr(trial, "unavailable", lambda _: "the package openvino is not looked for")
    engines = {options.model_dump_json(): options for options in drawn(space_for(OVMS, 8, BF16), 400)}
    assert {engine.engine for engine in engines.values()} == {"openvino"}
    assert len(engines) == 14
    made = make("first")
    for number, engine in enumerate(engines.values()):
        bundle = judged_in(engine, made, tmp_path / f"bundle-{number}")
        lost = render(bundle, Server.OVMS, name="digits", into=tmp_path / f"serve-{number}").lost
        assert [sentence[:28] for sentence in lost] == ["This server has no warm-up, "]


def test_a_grid_and_the_best_of_earlier_runs_keep_the_limits() -> None:
    """A plan of an earlier search for Retune's runtime is no plan here, whatever it gained there."""
    free = Space((), subject(), threads=2)
    bound = Space((), subject(), threads=2, limits=limits(TRITON), rows=4)
    assert len(Grid(free).first) == 9
    engines = [bound.draw(FixedTrial(params)).engine for params in Grid(bound).first]
    assert len(engines) == 6
    assert all(engine.spinning and engine.rows is None for engine in engines)
    quiet = free.control() | {"engine.spinning": False}
    assert _translated(quiet, free, key=free.draw(FixedTrial(quiet)).key) == quiet
    assert _translated(quiet, bound, key=free.draw(FixedTrial(quiet)).key) is None


QUIET, ROWS = "idle threads that do not spin", "a fixed number of rows"


@pytest.mark.parametrize(
    ("options", "expected", "without_shapes"),
    [
        ({"threads": 1}, [ROWS], []),
        ({"threads": 2}, [QUIET, ROWS, f"{QUIET} and {ROWS}"], [QUIET]),
        ({"engine": "openvino"}, ["a second copy of the model for a typical request"], []),
    ],
)
def test_what_is_compared_leaves_answers_as_they_are(
    options: dict[str, Any], expected: list[str], without_shapes: list[str]
) -> None:
    """One thread never waits for others; the last comparison has all that is lacking at once."""
    served = EngineOptions.model_validate(options)
    assert [*limits(TRITON).beyond(served, rows=4, planned=SHAPES)] == expected
    assert [*limits(TRITON).beyond(served, rows=None, planned={})] == without_shapes


def test_a_served_bundle_is_the_same_bundle(make: Callable[..., Bundle]) -> None:
    """Files and digest stay, so that what is published is what was made."""
    quiet = make(engine=EngineOptions(threads=2, spinning=False))
    served = as_served(quiet, limits(TRITON))
    assert (served.digest, served.folder) == (quiet.digest, quiet.folder)
    assert served.manifest.engine == EngineOptions(threads=2)
    assert as_served(quiet, limits({})) is quiet


def test_what_can_be_no_candidate_is_refused_in_words(
    make: Callable[..., Bundle], delivered: Path, tmp_path: Path
) -> None:
    """By how it is run, or by what its file needs."""
    quiet = make(engine=EngineOptions(threads=2, spinning=False))
    assert limits(TRITON).refusal(quiet) == "Triton cannot express how it is run"
    assert limits({"runtime": "Custom"}).refusal(quiet) is None
    modern = onnx.load(delivered / "mlp.onnx")
    modern.opset_import[0].version = 21
    onnx.save(modern, tmp_path / "modern.onnx")
    made = make("modern", model=tmp_path / "modern.onnx")
    words = limits({**TRITON, "engineVersion": "1.17"}).refusal(made)
    assert words == ("ONNX Runtime 1.17 cannot run it: it is of operator set ai.onnx 21, and this version has up to 20")
    assert limits(TRITON).refusal(made) is None


def test_limits_are_told_in_words() -> None:
    """The first line of a report, and of a search's log."""
    assert limits(OVMS).words == (
        "OpenVINO Model Server has no setting for a second copy of the model for a typical request."
    )
    assert limits({"runtime": "Custom", "engineVersion": "1.22"}).words == (
        "your server has no setting for a fixed number of rows. Candidates are such as ONNX Runtime 1.22 runs."
    )
    assert limits({"runtime": "KServe"}).words.startswith("kserve-tritonserver has no setting for")
    assert limits({"engineVersion": "1.22"}).words == "Candidates are such as ONNX Runtime 1.22 runs."


def test_times_of_another_version_are_doubted() -> None:
    """Only where the server's version is known, and is not the one here."""
    here = trial.version_here("onnxruntime")
    assert limits(TRITON).doubt is None
    assert limits({**TRITON, "engineVersion": ".".join(here.split(".")[:2])}).doubt is None
    doubt = f"Times are those of ONNX Runtime {here}, and the server has ONNX Runtime 1.20."
    assert limits({**TRITON, "engineVersion": "1.20"}).doubt == doubt
