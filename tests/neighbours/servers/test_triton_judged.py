"""The judge as a process, beside a real Triton that serves champion and finalist: what wins, loses, and breaks off.

The finalist is a newly delivered model, for which nothing has to be searched. The server's arguments are those of the
judge's pod, but for ports and folders.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.commands.judge import command, served
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.models.engine import EngineOptions
from retune.api.metrics import Metric
from retune.contract.exits import Exit
from retune.contract.requests import BundleRef, JudgeRequest, encode_request
from retune.contract.results import Failure, JobResult, JudgeResult, Reason, Verdict, parse_result
from retune.contract.serving import SERVER_ADDRESS_VARIABLE, SERVER_FOLDER_VARIABLE
from tests.neighbours.triton import Triton, serving
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.timeout(1200)
STORE, RUN, IMAGE = "pvc://retune-artifacts/digits", "digits-1", "registry.example/triton:2.51"
EXPLICIT = ("--model-control-mode=explicit", "--allow-metrics=false")
MARGIN = {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.05"}}
SERVING = {"runtime": "Triton", "image": IMAGE}
IN_THE_MIDDLE = 1500
"""Calls of the champion after which it is warm and being timed."""
SHORTEST_MS = 0.05
"""No call over HTTP is as short; in the judge's own process, this network's are."""
Start = Callable[..., "Beside"]


@dataclass(frozen=True)
class Beside:
    """Claims with two bundles, and a server beside the judge."""

    claims: Path
    models: Path
    server: Triton
    request: JudgeRequest

    @contextmanager
    def begun(self) -> "Iterator[subprocess.Popen[bytes]]":
        """The judge, at work; what still works at the end of the block is killed."""
        folder = self.claims.parent
        (folder / "request.json").write_text(encode_request(self.request))
        environment = {
            **os.environ,
            "RETUNE_CLAIM_ROOT": str(self.claims),
            SERVER_ADDRESS_VARIABLE: self.server.address,
            SERVER_FOLDER_VARIABLE: str(self.models),
        }
        files = ("--request", str(folder / "request.json"), "--result", str(folder / "result.json"))
        words = [sys.executable, "-m", "optimizer_jobs", *files]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def judged(self) -> tuple[JobResult, int, str]:
        """The judge's result, its exit code, and what it printed."""
        with self.begun() as process:
            code = process.wait(500)
        return self.result, code, self.printed

    @property
    def printed(self) -> str:
        """What the judge has printed so far."""
        return (self.claims.parent / "log").read_text()

    @property
    def result(self) -> JobResult:
        """What the judge left."""
        return parse_result((self.claims.parent / "result.json").read_bytes())

    @property
    def published(self) -> set[str]:
        """The digests of the published bundles."""
        folder = self.claims / STORE.removeprefix("pvc://") / "bundles"
        return {f"sha256:{path.name}" for path in folder.iterdir()}

    @property
    def recorded(self) -> set[str]:
        """The files that the judge has written into the run's folder."""
        folder = self.claims / STORE.removeprefix("pvc://") / "runs" / RUN
        return {path.name for path in folder.glob("*")} & {"verdict.json", "report.html", "report.json"}

    @property
    def report(self) -> Report:
        """The report as a document."""
        folder = self.claims / STORE.removeprefix("pvc://") / "runs" / RUN
        return Report.model_validate_json((folder / "report.json").read_bytes())


@pytest.fixture
def start(make: Callable[..., Bundle], delivered: Path, tmp_path: Path) -> Iterator[Start]:
    """Start the server, with these quirks, beside claims with a champion and a newly delivered model."""
    claims, models = tmp_path / "claims", tmp_path / "models"
    shutil.copytree(delivered, claims / "digits")
    for folder in (models, tmp_path / "server", claims / "retune-artifacts"):
        folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETUNE_CLAIM_ROOT", str(claims))
        engine = {"engine": EngineOptions(), "techniques": ("as before",)}
        champion = publish(make(folder="former", **engine), uri=f"{STORE}/bundles")
        original = publish(make(folder="new", engine=EngineOptions()), uri="pvc://retune-artifacts/delivered")
    with ExitStack() as stack:

        def beside(**quirks: str) -> Beside:
            named = {name.replace("_", "-"): quirk for name, quirk in quirks.items()}
            server = stack.enter_context(serving(models, tmp_path / "server", *EXPLICIT, quirks=named))
            return Beside(claims, models, server, asked_of(champion, original))

        yield beside


def asked_of(champion: BundleRef, original: BundleRef) -> JudgeRequest:
    """Whether the delivered model, of which there was no search, may take the champion's place."""
    data = {split: {"uri": f"pvc://digits/{split}.npz"} for split in ("training", "validation", "test")}
    document: dict[str, Any] = {
        "resource": "demo/digits",
        "specHash": "hash",
        "run": RUN,
        "data": data,
        "store": STORE,
        "threads": 1,
        "serving": SERVING,
        "objectives": [MARGIN],
        "selection": {},
        "techniques": None,
        "search": {},
        "champion": champion,
        "original": original,
        "trigger": "NewModel",
        "delivered": True,
    }
    return JudgeRequest.model_validate(document)


def champion_stays(beside: Beside, result: JobResult) -> Failure:
    """Nothing was published and no verdict is recorded: the judge that is started again begins anew."""
    assert isinstance(result, Failure)
    assert beside.published == {beside.request.champion.digest}
    assert beside.recorded == set()
    return result


def test_a_candidate_that_wins_was_timed_through_the_server(start: Start) -> None:
    """Verdict and report say which server it was, and doubt nothing."""
    beside = start()
    result, code, printed = beside.judged()
    assert code == Exit.DONE, printed
    assert isinstance(result, JudgeResult)
    assert result.verdict is Verdict.PROMOTE, result.message
    sentence = f"Latency was measured through the server itself: triton 2.51.0, image {IMAGE}."
    assert sentence in result.message
    assert sentence in beside.report.lost
    assert not any("Times are those of" in line for line in beside.report.lost)
    assert result.candidate is not None
    assert beside.published == {beside.request.champion.digest, result.candidate.bundle.digest}
    assert beside.report.champion.metrics[Metric.LATENCY_P50_MS].value > SHORTEST_MS


def test_a_candidate_that_is_answered_otherwise_loses(start: Start) -> None:
    """What it answers through the server counts, however well it did in the judge's own engine."""
    beside = start(candidate_1="wrong")
    result, code, printed = beside.judged()
    assert code == Exit.DONE, printed
    assert isinstance(result, JudgeResult)
    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, Reason.GOLDEN_MISMATCH)
    assert "has lost in Triton: it answers a golden request otherwise: output 'scores' is" in result.message
    assert "The champion stays." in result.message
    assert result.candidate is None
    assert beside.published == {beside.request.champion.digest}


def test_a_candidate_that_the_servers_engine_is_too_old_for_loses_in_its_words(start: Start) -> None:
    """As an ONNX Runtime that knows no such file says it."""
    beside = start(candidate_1="too old")
    result, _, _ = beside.judged()
    assert isinstance(result, JudgeResult)
    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, Reason.SERVER_REFUSED)
    assert "Unsupported model IR version: 13, max supported IR version: 10" in result.message
    assert beside.published == {beside.request.champion.digest}


@pytest.mark.parametrize(
    ("quirk", "reason", "words"),
    [
        ("wrong", Reason.GOLDEN_MISMATCH, "it answers a golden request otherwise"),
        ("too old", Reason.SERVER_REFUSED, "max supported IR version: 10"),
    ],
)
def test_without_the_champion_nothing_is_compared(start: Start, quirk: str, reason: Reason, words: str) -> None:
    """The run fails with a reason that says what to do; asking again would not help."""
    beside = start(champion=quirk)
    result, code, _ = beside.judged()
    failure = champion_stays(beside, result)
    assert (failure.reason, code) == (reason, Exit.BAD_INPUT)
    assert words in failure.message
    assert "spec.serving" in failure.next_step


def test_a_server_that_is_killed_in_the_middle_leaves_nothing_half_done(start: Start) -> None:
    """The judge fails so that its Job tries again, and says where to look."""
    beside = start()
    with beside.begun() as judge:
        wait_for(
            lambda: judge.poll() is not None or asked(beside.server) > IN_THE_MIDDLE,
            what="the measurement",
            seconds=500,
        )
        assert judge.poll() is None
        beside.server.process.kill()
        code = judge.wait(500)
    failure = champion_stays(beside, beside.result)
    assert (failure.reason, code) == (Reason.SERVER_UNREACHABLE, RETRY_EXIT), beside.printed
    assert "it does not answer" in failure.message
    assert "See the log of the server's container" in failure.next_step


def asked(server: Triton) -> int:
    """How often the champion was asked so far."""
    try:
        (statistics,) = server.get("/v2/models/champion/stats")["model_stats"]
    except OSError:
        return 0
    return int(statistics["inference_count"])


def test_a_server_that_is_not_there_is_waited_for_and_then_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had ended before the judge began, as one that cannot start."""
    beside = start()
    beside.server.process.terminate()
    beside.server.process.wait(30)
    monkeypatch.setattr(served, "READY_SECONDS", 0.5)
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(beside.claims))
    monkeypatch.setenv(SERVER_ADDRESS_VARIABLE, beside.server.address)
    monkeypatch.setenv(SERVER_FOLDER_VARIABLE, str(beside.models))
    with pytest.raises(JobError) as silent:
        command.run(beside.request)
    assert silent.value.reason is Reason.SERVER_UNREACHABLE
    assert "it is not ready after 0.5 s" in silent.value.message
