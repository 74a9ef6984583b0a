"""Workers that share nothing but a bucket run every trial of the budget once, whichever of them is killed."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from optuna import Study
from optuna.trial import TrialState

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.stores.base import Kind, Store, StoreError
from optimizer_jobs.stores.bundles import Cache, publish_bundle
from optimizer_jobs.stores.journal import StoreJournal
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.study.storage import study_prefix
from optimizer_jobs.study.trials import LOST, counted, number_of, open_study
from tests.storage import servers
from tests.storage.servers import Store as Server
from tests.storage.store_worker import RUN
from tests.unit.jobs.conftest import delivered, make, splits
from tools.localcluster.shell import wait_for

pytest.importorskip("s3fs")

__all__ = ["delivered", "make", "splits"]

ROOT = Path(__file__).parents[2]
WORKERS, BUDGET = 4, 200
KILLED_IN = 5
"""Which of its trials a worker is killed in."""


@pytest.fixture(params=["s3", "az"])
def uri(request: pytest.FixtureRequest, server_of: Callable[[str], Server]) -> str:
    """Address of an empty store on a server."""
    server_of(request.param)
    return f"{request.param}://{servers.BUCKET}/{uuid4().hex}"


@contextmanager
def worker(uri: str, index: int, *options: str, budget: int = BUDGET) -> Iterator[subprocess.Popen[str]]:
    """Run a worker process; it is killed when the block ends before it does."""
    command = [sys.executable, "-m", "tests.storage.store_worker", uri, "--index", str(index), "--budget", str(budget)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"}
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], count: int) -> None:
    """Read what a worker says until it has taken so many trials."""
    assert process.stdout is not None
    while count:
        line = process.stdout.readline()
        assert line, "the worker has ended"
        count -= line.startswith("took ")


def ended(study: Study) -> int:
    """Return how many trials have ended."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


@pytest.mark.timeout(300)
def test_no_trial_is_lost_or_doubled_when_a_worker_is_killed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Four processes and fifty trials for each, one of them killed with -9 in the middle of a trial."""
    with ExitStack() as stack:
        victim = stack.enter_context(worker(uri, 0, "--hold", str(KILLED_IN)))
        read_until(victim, KILLED_IN)
        others = [stack.enter_context(worker(uri, index)) for index in range(1, WORKERS)]
        study = open_study(uri, RUN)
        wait_for(lambda: ended(study) >= KILLED_IN, what="a trial of another worker", seconds=120)
        victim.kill()
        victim.wait()
        said = [other.communicate(timeout=280)[0] for other in others]
        assert [other.returncode for other in others] == [0] * len(others)
    trials = counted(study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * BUDGET
    assert sorted(number_of(trial) for trial in trials) == list(range(1, BUDGET + 1))
    assert set(Counter(trial.user_attrs["key"] for trial in trials).values()) == {1}
    assert [reason for name, reason in study.user_attrs.items() if name.startswith(LOST) and "died" in str(reason)]
    spent = [json.loads(lines.splitlines()[-1]) for lines in said]
    ran = sum(one["trials"] for one in spent)
    asked = {kind: sum(one.get(kind, 0) for one in spent) / ran for kind in ("PUT", "GET", "LIST", "refused")}
    with capsys.disabled():
        print(f"\n{ran:.0f} trials, a trial: {asked}, {sum(one['overhead'] for one in spent) / ran * 1000:.0f} ms")
    assert asked["PUT"] - asked["refused"] < 4


def test_a_study_that_lost_an_object_is_refused(uri: str) -> None:
    """Whoever opens it is told, and adds nothing."""
    store = open_store(uri)
    journal = StoreJournal(store, study_prefix(RUN))
    for number in range(4):
        journal.append_logs([{"op_code": 2, "worker_id": "w", "n": number}])
    store.delete([f"{study_prefix(RUN)}/log/0000000001"])
    with pytest.raises(StoreError) as caught:
        open_study(uri, RUN)
    assert caught.value.kind is Kind.DAMAGED
    assert f"{uri}/{study_prefix(RUN)}/log/0000000001" in caught.value.object


@pytest.fixture
def anywhere(bucket: str) -> Store:
    """An empty store on each server."""
    return open_store(f"{bucket}/{uuid4().hex}")


def test_a_bundle_goes_through_a_bucket(anywhere: Store, make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Published and opened by its digest; a file that is gone in the bucket is told."""
    bundle = make()
    address = publish_bundle(bundle, anywhere)
    assert address == f"{anywhere.uri}/bundles/{bundle.digest.removeprefix('sha256:')}"
    cache = Cache(tmp_path / "cache", budget_bytes=1 << 30)
    with cache.opened(anywhere, bundle.digest, limit_bytes=1 << 30) as opened:
        assert (opened.manifest, opened.golden) == (bundle.manifest, bundle.golden)
    anywhere.delete([f"bundles/{bundle.digest.removeprefix('sha256:')}/golden.json"])
    other = Cache(tmp_path / "other", budget_bytes=1 << 30)
    with (
        pytest.raises(Exception, match=r"golden\.json"),
        other.opened(anywhere, bundle.digest, limit_bytes=1 << 30),
    ):
        pass
