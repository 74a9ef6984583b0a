"""A whole search Job whose only store is a bucket: nothing lost, nothing doubled, and a sentence for each fault."""

import signal
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from optuna import Study
from optuna.trial import TrialState

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import RETRY_EXIT
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.run import execute
from optimizer_jobs.stores import base
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.stores.published import open_bundle, publish
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.trials import KEY, counted, number_of, open_study
from retune.api.metrics import Metric
from retune.api.model import Data, Task
from retune.api.objectives import Selection, default_objectives
from retune.api.search import Search
from retune.contract.exits import Exit
from retune.contract.paths import bundles
from retune.contract.requests import SearchRequest
from retune.contract.results import Failure, Reason, SearchResult, parse_result
from tests.jobs.workers import job, until
from tests.storage import proxy, servers
from tests.storage.proxy import Answer
from tests.storage.servers import Store as Server
from tests.unit.jobs.conftest import claims, data, delivered, make, splits

pytest.importorskip("s3fs")
pytest.importorskip("gcsfs")

__all__ = ["claims", "data", "delivered", "make", "splits"]

pytestmark = pytest.mark.timeout(900)

RUN, NEXT = "digits-r1-1a2b3c4d", "digits-r2-1a2b3c4d"
TRIALS = 6
OBJECTIVES = tuple(goal for goal in default_objectives(Task.CLASSIFICATION) if goal.metric is not Metric.D2_BRIER)

Ask = Callable[..., SearchRequest]


@pytest.fixture
def ask(data: Data, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return a function that publishes a champion in a bucket, and asks for a search with this store alone."""
    monkeypatch.setenv("RETUNE_METRICS_PORT", "0")
    bundle = make()

    def ask_it(store: str) -> SearchRequest:
        ref = publish(bundle, uri=bundles(store))
        return SearchRequest(
            resource="default/digits",
            run=RUN,
            spec_hash="abc",
            data=data,
            objectives=OBJECTIVES,
            selection=Selection(),
            techniques=None,
            search=Search(max_trials=TRIALS),
            champion=ref,
            original=ref,
            store=store,
            threads=2,
        )

    return ask_it


@pytest.fixture(params=["s3", "az"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Which server has the store."""
    return str(request.param)


@pytest.fixture
def server(scheme: str, server_of: Callable[[str], Server]) -> Server:
    """The server."""
    return server_of(scheme)


@pytest.fixture
def uri(scheme: str, server: Server) -> str:
    """Address of an empty store on the server."""
    assert server.port
    return f"{scheme}://{servers.BUCKET}/{uuid4().hex}/digits"


def answer_of(request: SearchRequest, folder: Path) -> tuple[Failure | SearchResult, int]:
    """Return what the Job answers in this process, and its exit code."""
    (folder / "request.json").write_text(request.model_dump_json(by_alias=True))
    result, code = execute(folder / "request.json")
    assert isinstance(result, Failure | SearchResult)
    return result, code


def numbers_of_its_combination(study: Study, number: int) -> set[int]:
    """The number of a trial, and those under which workers that were killed meanwhile had begun the same."""
    keys = {trial.user_attrs[KEY] for trial in counted(study) if number_of(trial) == number}
    return {number_of(trial) for trial in study.get_trials() if trial.user_attrs.get(KEY) in keys}


def test_two_workers_of_which_one_is_killed_find_candidates(uri: str, ask: Ask, tmp_path: Path, splits: Rows) -> None:
    """Processes that share a bucket and nothing else: every trial once, and bundles that open and verify.

    A bundle names the trial that made it first, which may be one whose worker was killed before it told of it.
    """
    assert splits
    request = ask(uri)
    with job(request, tmp_path / "0") as victim, job(request, tmp_path / "1", index=1) as other:
        until(victim, "trial ")
        victim.kill()
        victim.wait()
        said, _ = other.communicate()
    assert other.returncode == 0, said
    result = parse_result((tmp_path / "1" / "out").read_bytes())
    assert isinstance(result, SearchResult)
    assert (result.trials, result.failed) == (TRIALS, 0)
    study = open_study(uri, RUN)
    trials = counted(study)
    assert sorted(number_of(trial) for trial in trials) == list(range(1, TRIALS + 1))
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
    best = finalists(study, OBJECTIVES, count=3)
    assert result.best == best[0].words
    for one in best:
        assert one.bundle.uri.startswith(f"{uri}/runs/{RUN}/candidates/")
        made_by = open_bundle(one.bundle.uri, digest=one.bundle.digest).manifest.lineage.trial
        assert made_by in numbers_of_its_combination(study, one.trial)
    below = {stat.key.split("/")[2] for stat in open_store(uri).stats(f"runs/{RUN}/")}
    assert below == {"study", "candidates"}  # finished steps are gone with the search


def test_a_stopped_worker_leaves_nothing_running_and_the_next_run_begins_with_what_was_best(
    uri: str, ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM has it hand its trial back; the same run goes on, and a later one reads its study from the bucket."""
    request = ask(uri)
    with job(request, tmp_path / "0") as worker:
        until(worker, "trial 1/")
        worker.terminate()
        worker.communicate()
    assert worker.returncode == 128 + signal.SIGTERM
    assert open_study(uri, RUN).get_trials(states=(TrialState.RUNNING,)) == []
    result, _ = answer_of(request, tmp_path)
    assert isinstance(result, SearchResult)
    assert sorted(map(number_of, counted(open_study(uri, RUN)))) == list(range(1, TRIALS + 1))
    capsys.readouterr()
    later = request.model_copy(update={"run": NEXT, "warm_start": (RUN,), "search": Search(max_trials=4)})
    result, _ = answer_of(later, tmp_path)
    assert isinstance(result, SearchResult)
    assert f"warm start: 1 of the best combinations of run {RUN}" in capsys.readouterr().out


def test_a_study_that_is_deleted_meanwhile_is_told(uri: str, ask: Ask, tmp_path: Path) -> None:
    """The worker's own memory of it does not pass for what is there."""
    request, store = ask(uri), open_store(uri)
    with job(request, tmp_path / "0") as worker:
        until(worker, "trial 1/")
        store.delete([stat.key for stat in store.stats(f"runs/{RUN}/study/log/")])
        said, _ = worker.communicate()
    result = parse_result((tmp_path / "0" / "out").read_bytes())
    assert isinstance(result, Failure), said
    assert worker.returncode == Exit.BAD_INPUT
    assert "Somebody has changed the study" in result.next_step
    assert f"{uri}/runs/{RUN}/study" in result.object


def test_a_bucket_that_asks_for_patience_has_the_job_tried_again(
    uri: str, server: Server, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 SlowDown without end ends the Job so that its policy repeats it, and the same run then goes on."""
    request = ask(uri)
    monkeypatch.setattr(base, "_PAUSE_SECONDS", 0.01)
    with proxy.before(server.port, pki=server.pki) as between, monkeypatch.context() as patched:
        for name, value in server.at(between.port).items():
            patched.setenv(name, value)
        between.plan = lambda head: Answer(503, "SlowDown") if _told_trials(between) > 2 else None
        result, code = answer_of(request, tmp_path)
    assert isinstance(result, Failure)
    assert (result.reason, code) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)
    assert "fewer requests" in result.message
    result, code = answer_of(request, tmp_path)
    assert isinstance(result, SearchResult), result
    assert (result.trials, result.failed, code) == (TRIALS, 0, 0)
    assert sorted(map(number_of, counted(open_study(uri, RUN)))) == list(range(1, TRIALS + 1))


def _told_trials(between: proxy.Proxy) -> int:
    """Return how many candidates have been written: each has one manifest, and is followed by the trial's end."""
    return sum(
        line.startswith(b"PUT ") and b"/candidates/" in line and b"bundle.json" in line for line in between.requests
    )


def test_a_bucket_that_may_only_be_read_is_told_before_anything_is_measured(
    uri: str,
    server: Server,
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what the Secret has to allow."""
    request = ask(uri)
    with proxy.before(server.port, pki=server.pki) as between, monkeypatch.context() as patched:
        for name, value in server.at(between.port).items():
            patched.setenv(name, value)
        between.plan = lambda head: Answer(403, "AccessDenied") if head.startswith(b"PUT ") else None
        result, code = answer_of(request, tmp_path)
    assert isinstance(result, Failure)
    assert (result.reason, code) == (Reason.STORE_NOT_WRITABLE, Exit.BAD_INPUT)
    assert "may not write" in result.message
    assert "spec.execution.credentials.secretName" in result.next_step
    assert "opening champion" not in capsys.readouterr().out


def test_a_bucket_that_does_not_keep_what_is_there_is_refused(
    gcs_server: Server, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server that never hears of the condition: workers would overwrite each other's trials there."""
    with proxy.before(gcs_server.port) as between:
        between.plan = lambda head: head.replace(b"ifGenerationMatch=0", b"ifGenerationTouch=0")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{between.port}")
        store = f"gs://{servers.BUCKET}/{uuid4().hex}"
        result, code = answer_of(ask(store), tmp_path)
        assert not list(open_store(store).stats("runs/"))
    assert isinstance(result, Failure)
    assert (result.reason, code) == (Reason.STORE_NOT_WRITABLE, Exit.BAD_INPUT)
    assert "replaces an object that exists" in result.message
    assert "pvc://" in result.next_step
