"""Champion and finalists in a server beside the judge: who is timed through it, who has lost, and what stops the judge.

The server is OpenVINO Model Server, played from its documentation; a real Triton is asked by the tests of neighbours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer_jobs.commands.judge import served as judge_served
from optimizer_jobs.commands.judge.lost import lost_to_server
from optimizer_jobs.commands.judge.measuring import TWIN, raced
from optimizer_jobs.commands.judge.nothing_found import refused_by_server
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.commands.judge.served import Out, Through, beside_us, through, told_as_refusal
from optimizer_jobs.commands.judge.verdict import decide
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.serving.running.ovms import OvmsServer
from optimizer_jobs.serving.running.triton import TritonServer
from retune.api.search import Serving
from retune.contract.exits import Exit
from retune.contract.requests import BundleRef
from retune.contract.results import Reason, Verdict
from retune.contract.serving import SERVER_ADDRESS_VARIABLE, SERVER_FOLDER_VARIABLE
from tests.unit.jobs.http_for_tests import served
from tests.unit.jobs.judge_for_tests import contender, evidence
from tests.unit.jobs.ovms_for_tests import PlayedOvms
from tests.unit.jobs.test_judge_lost import OBJECTIVES

IMAGE = "registry.example/ovms:2026.1"
OVMS: dict[str, Any] = {"runtime": "OVMS", "engines": ["OpenVINO"], "image": IMAGE}
SHORT = Effort(min_rounds=3, max_rounds=3, max_seconds=20, calls_per_block=10)


def rules(serving: dict[str, Any], **more: Any) -> Rules:
    """The rules for a server."""
    server = Serving.model_validate({**serving, **more})
    return Rules(objectives=OBJECTIVES, confidence=0.95, min_gain=0.05, threads=1, seed=0, serving=server)


def entrant(bundle: Bundle, plan: str) -> Entrant:
    """A bundle that takes part."""
    return Entrant(bundle=bundle, ref=BundleRef(uri=f"pvc://a/{plan}", digest=bundle.digest), plan=plan)


@dataclass(frozen=True)
class Scene:
    """A server that is there, and who takes part."""

    server: PlayedOvms
    champion: Entrant
    finalists: tuple[Entrant, ...]
    rows: Rows

    def opened(self, **more: Any) -> Any:
        """Have them served."""
        return through(self.champion, self.finalists, self.rows, rules=rules(OVMS, **more))


@pytest.fixture
def scene(
    make: Callable[..., Bundle], splits: dict[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    """A champion and two finalists, which differ in what their manifests say."""
    folder = tmp_path / "models"
    folder.mkdir()
    server = PlayedOvms(folder)
    monkeypatch.setenv(SERVER_ADDRESS_VARIABLE, server.address)
    monkeypatch.setenv(SERVER_FOLDER_VARIABLE, str(folder))
    names = ("champion", "int8", "pruned")
    made = [entrant(make(folder=name, engine=EngineOptions(), techniques=(name,)), name) for name in names]
    with served(server):
        yield Scene(server, made[0], tuple(made[1:]), splits["test"])


def test_all_are_timed_through_the_server(scene: Scene) -> None:
    """The champion twice, and each finalist; requests of every size are asked first."""
    with scene.opened(batches=[{"size": 1}, {"size": 8}]) as found:
        assert isinstance(found, Through)
        assert list(found.sessions) == [scene.champion.bundle.digest, *(each.bundle.digest for each in scene.finalists)]
        assert set(scene.server.models.models) == {"champion", "champion-again", "candidate-1", "candidate-2"}
        before = scene.server.models.asked
        timings, _ = raced(
            found.sessions,
            scene.rows,
            twin=found.twin,
            reference=scene.champion.bundle.digest,
            rules=rules(OVMS, batches=[{"size": 1}, {"size": 8}]),
            effort=SHORT,
        )
        calls = sum(timing.calls for timing in timings.values())
        assert scene.server.models.asked - before > calls
        assert TWIN in timings
        assert found.left(scene.finalists) == scene.finalists
        assert found.words == (
            f"Latency was measured through the server itself: OpenVINO Model Server 2026.1, image {IMAGE}."
        )


def test_a_finalist_that_is_answered_otherwise_has_lost(scene: Scene) -> None:
    """In one sentence; the others are judged on."""
    scene.server.models.spoiled = frozenset({"candidate-1"})
    with scene.opened() as found:
        (out,) = found.out
        assert (out.digest, out.reason) == (scene.finalists[0].bundle.digest, Reason.GOLDEN_MISMATCH)
        assert out.sentence.startswith("int8 has lost in OpenVINO Model Server: it answers a golden request otherwise:")
        assert found.left(scene.finalists) == scene.finalists[1:]


def test_finalists_that_the_server_refuses_have_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own words; the champion, which it serves, is measured alone."""
    monkeypatch.setattr("tests.unit.jobs.ovms_for_tests.open_model", refusing_once_two_are_open())
    with scene.opened() as found:
        assert {out.reason for out in found.out} == {Reason.SERVER_REFUSED}
        assert all("Cannot load network: IR 13 is too new" in out.sentence for out in found.out)
        assert found.left(scene.finalists) == ()


def refusing_once_two_are_open(then: Callable[[], None] = lambda: None) -> Callable[..., Any]:
    """An engine that opens the champion twice, and nothing after that; `then` is what happens besides."""
    from optimizer_jobs.models.runtime import open_model

    opened: list[Path] = []

    def open_it(path: Path, options: EngineOptions) -> Any:
        opened.append(path)
        if len(opened) > 2:
            then()
            raise EngineError("IR 13 is too new")
        return open_model(path, options)

    return open_it


def test_the_champion_must_be_served_as_it_was_made(scene: Scene) -> None:
    """Otherwise the judge stops, and trying again would not help."""
    scene.server.models.spoiled = frozenset({"champion"})
    with pytest.raises(JobError) as wrong, scene.opened():
        pass
    assert (wrong.value.reason, wrong.value.exit) == (Reason.GOLDEN_MISMATCH, Exit.BAD_INPUT)
    assert "the champion in OpenVINO Model Server: it answers a golden request otherwise" in str(wrong.value)
    assert "The champion stays" in wrong.value.next_step


def test_a_server_that_is_not_ready_in_time_may_be_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Job's own policy tries again."""
    monkeypatch.setattr(judge_served, "READY_SECONDS", 0.2)
    monkeypatch.setenv(SERVER_ADDRESS_VARIABLE, "http://127.0.0.1:1")
    with pytest.raises(JobError) as silent, scene.opened():
        pass
    assert (silent.value.reason, silent.value.exit) == (Reason.SERVER_UNREACHABLE, RETRY_EXIT)
    assert "it is not ready after 0.2 s" in silent.value.message


def test_a_server_that_hangs_up_while_it_is_timed_stops_the_judge(scene: Scene) -> None:
    """No finalist has lost by that."""
    with scene.opened() as found:
        scene.server.models.dies_after = scene.server.models.asked + 40
        with pytest.raises(JobError) as silent, told_as_refusal(found):
            raced(
                found.sessions,
                scene.rows,
                twin=found.twin,
                reference=scene.champion.bundle.digest,
                rules=rules(OVMS),
                effort=SHORT,
            )
    assert (silent.value.reason, silent.value.exit) == (Reason.SERVER_UNREACHABLE, RETRY_EXIT)


def test_a_server_that_was_started_again_has_refused_nothing(scene: Scene) -> None:
    """A kubelet does that while the judge is busy otherwise: it knows no model then, and the Job has to try again."""
    with scene.opened() as found:
        scene.server.models.models.clear()
        with pytest.raises(JobError) as gone, told_as_refusal(found):
            found.sessions[scene.champion.bundle.digest].run({"x": scene.rows.inputs["x"][:1]})
    assert (gone.value.reason, gone.value.exit) == (Reason.SERVER_UNREACHABLE, RETRY_EXIT)
    assert "it does not serve the champion any more" in gone.value.message


def test_a_finalist_has_not_lost_in_a_server_that_was_started_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not serve then says nothing of the finalist."""
    refusing = refusing_once_two_are_open(scene.server.models.models.clear)
    monkeypatch.setattr("tests.unit.jobs.ovms_for_tests.open_model", refusing)
    with pytest.raises(JobError) as gone, scene.opened():
        pass
    assert (gone.value.reason, gone.value.exit) == (Reason.SERVER_UNREACHABLE, RETRY_EXIT)


def test_a_request_that_is_refused_while_it_is_timed_is_told_in_the_servers_words(scene: Scene) -> None:
    """Without a server, an engine's error stays one."""
    with scene.opened() as found, pytest.raises(JobError) as refused, told_as_refusal(found):
        raise EngineError("unexpected shape")
    assert refused.value.reason is Reason.SERVER_REFUSED
    assert "unexpected shape" in refused.value.message
    with pytest.raises(EngineError), told_as_refusal(None):
        raise EngineError("unexpected shape")


def test_without_an_image_or_a_server_the_judge_measures_here(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says of an image that nobody started that it was not measured."""
    assert isinstance(beside_us(Serving.model_validate(OVMS)), OvmsServer)
    assert isinstance(beside_us(Serving.model_validate({"runtime": "Triton", "image": IMAGE})), TritonServer)
    assert beside_us(Serving.model_validate({"runtime": "Triton"})) is None
    monkeypatch.delenv(SERVER_ADDRESS_VARIABLE)
    with scene.opened() as found:
        assert found is None
    decision = decide(evidence(), objectives=OBJECTIVES, min_gain=0.05)
    told = lost_to_server(
        decision, (), scene.rows, champion=scene.champion, rules=rules(OVMS), effort=SHORT, served=None
    )
    assert told is not None
    assert told.sentence == f"Image {IMAGE} was not measured: only a judge in a cluster has it beside itself."
    assert told.sentence in told.lines


def through_it(*out: Out) -> Through:
    """What was found in a server, without one."""
    from optimizer_jobs.serving.running.web import Web

    session = np.array([])
    return Through(Web("Triton", "http://x"), IMAGE, {}, session, lambda: True, out=out)  # type: ignore[arg-type]


def test_the_verdict_says_what_was_measured_and_doubts_no_version_then(scene: Scene) -> None:
    """The engine's version in the spec is another than the one here; through the server that says nothing of times."""
    other = rules({"runtime": "Triton", "engineVersion": "1.20", "image": IMAGE})
    decision = decide(evidence(contender(latency=1.0)), objectives=OBJECTIVES, min_gain=0.05)
    say = partial(lost_to_server, decision, (), scene.rows, champion=scene.champion, rules=other, effort=SHORT)
    without = say()
    out = Out("sha256:0", Reason.GOLDEN_MISMATCH, "int8 has lost in Triton: it answers otherwise.")
    told = say(served=through_it(out))
    assert without is not None
    assert told is not None
    assert any("Times are those of ONNX Runtime" in line for line in without.lines)
    assert not any("Times are those of" in line for line in told.lines)
    words = f"Latency was measured through the server itself: image {IMAGE}."
    assert told.told_by(decision).message == f"{decision.message} {words} {out.sentence}"


def test_where_no_finalist_is_left_the_verdict_says_why_once(scene: Scene) -> None:
    """It is no lack of candidates, and so no lack of trials."""
    out = Out("sha256:0", Reason.SERVER_REFUSED, "int8 has lost in Triton: too new.")
    nothing = decide(evidence(), objectives=OBJECTIVES, min_gain=0.05)
    decision = refused_by_server(nothing, (out,))
    assert (decision.verdict, decision.reason) == (Verdict.GATE_FAILED, "ServerRefused")
    other = rules({"runtime": "Triton", "image": IMAGE})
    told = lost_to_server(
        decision, (), scene.rows, champion=scene.champion, rules=other, effort=SHORT, served=through_it(out)
    )
    assert told is not None
    assert told.told_by(decision).message.count("too new") == 1
