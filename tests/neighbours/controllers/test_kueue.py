"""Jobs that wait in a queue, under Kueue's own controller: admitted, admitted in part, taken back, and admitted again.

Kueue and the controllers of Kubernetes, that of Jobs among them, run as processes beside a real API server. Played is
what a kubelet says of pods.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.cluster.harness import Bench
from tests.cluster.kubelet import Kubelet
from tests.cluster.play import Play, pod_template
from tests.neighbours import kueue
from tests.neighbours.kueue import BATCH, CORE, QUEUE, Pods, Quota
from tools.localcluster.controlplane import ControlPlane

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
APPS = "/apis/apps/v1"
SEARCH = "digits-r1-search"
HOURS = 10 * 3600


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with Kueue."""
    with kueue.beside_an_api_server(tmp_path_factory.mktemp("kueue")) as started:
        yield started


class Queued(Play):
    """A resource whose Jobs wait in a queue, and the pods of these Jobs."""

    quota: Quota
    pods_of_jobs: Pods

    def start(self, *, cpu: str, busy: str | None = "search", queue: str = QUEUE, **quota: Any) -> None:
        """Create the queue with so much CPU, the target and the resource, and start the operator.

        Args:
            cpu: What the queue has to give.
            busy: What Jobs run on until they are let go.
            queue: The queue that the resource names.
            quota: What else is told to Quota.
        """
        self.quota = Quota(self.bench, cpu=cpu, **quota)
        self.pods_of_jobs.busy = {busy} if busy else set()
        body = {"metadata": {"name": "digits"}, "spec": {"replicas": 2} | pod_template("digits")}
        self.bench.create("deployments", body, api=APPS)
        self.follow(execution={"queueName": queue}, search={"parallelism": 4, "maxTrials": 12})
        self.pods_of_jobs.clock = self.clock

    async def occupied(self, *, cpu: str, urgent: bool = False) -> None:
        """Let somebody else's Job take so much of the quota, and wait until it has."""
        self.quota.occupy(cpu=cpu, urgent=urgent)
        await self.passes_until(lambda: not self.job("other")["spec"]["suspend"])

    def let_go(self) -> None:
        """Let all pods do their work."""
        self.pods_of_jobs.busy = set()

    def kill_operator(self) -> None:
        """Start another process in place of the operator, which knows nothing but what the server holds."""
        self.operator = self.clock.drive(self.bench.operator())

    @property
    def message(self) -> str:
        """What is told of the resource."""
        return str(self.status.get("message"))

    @property
    def sentence(self) -> str:
        """What is told of the run."""
        return str(self.bench.condition("Optimizing")["message"])

    def job(self, name: str = SEARCH) -> Json:
        """A Job as it is."""
        return self.bench.api.get(self.bench.path("jobs", name, api=BATCH))

    def workers(self, name: str = SEARCH) -> int:
        """Pods of a Job that run."""
        pods = [pod for pod in self.bench.items("pods", api=CORE) if "deletionTimestamp" not in pod["metadata"]]
        named = [pod for pod in pods if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") == name]
        return sum(pod["status"]["phase"] == "Running" for pod in named)

    def is_said(self, *words: str) -> bool:
        """Whether the sentence of the run has all these words."""
        return self.status.get("run") is not None and all(word in self.sentence for word in words)

    async def promoted(self) -> None:
        """Make passes until the run has ended well; nothing of it counts as a failure."""
        await self.passes_until(lambda: self.reason("RolledOut") == "Promoted")
        assert self.status["lastRun"]["outcome"] == "Promoted"
        assert not self.status.get("rejected")


@pytest.fixture
async def play(bench: Bench) -> AsyncIterator[Queued]:
    """A namespace with a queue, in which pods run."""
    play = Queued(bench, plural="deployments", api=APPS, kind="Deployment")
    play.pods_of_jobs = Pods(bench, reply=play.answer)
    with play.pods_of_jobs, Kubelet(bench.api, bench.namespace):
        yield play
    play.quota.close()
    await play.operator.live.close()


async def test_jobs_that_the_queue_has_room_for_run_as_they_were_asked_for(play: Queued) -> None:
    """All four workers, and no word of a queue while they run."""
    play.start(cpu="4")
    await play.passes_until(lambda: play.workers() == 4 and play.is_said("runs"))
    assert play.sentence == f"Job {SEARCH} runs"
    play.let_go()
    await play.promoted()


async def test_a_job_waits_for_its_queue_and_is_said_to_with_the_queue_s_own_reason(play: Queued) -> None:
    """Somebody else has all of the quota. Ten hours of waiting are nobody's failure, whoever is killed meanwhile."""
    play.start(cpu="4", busy=None)
    await play.occupied(cpu="4")
    await play.passes_until(lambda: "waits for admission by queue team since 20" in play.message)
    play.clock.wait(300)
    await play.passes_until(lambda: "insufficient unused quota for cpu" in play.message)
    play.kill_operator()
    play.clock.wait(HOURS)
    await play.passes(3)
    assert "insufficient unused quota for cpu" in play.message
    play.quota.leave()
    await play.promoted()


async def test_a_search_with_fewer_workers_than_asked_for_ends_well(play: Queued) -> None:
    """One of four is admitted, at once. Kueue has changed both numbers in the Job, and nothing is made of that."""
    play.start(cpu="1")
    await play.passes_until(lambda: play.workers() == 1 and play.is_said("runs"))
    play.kill_operator()
    await play.passes(3)
    assert play.sentence == f"Job {SEARCH} runs: 1 of 4 workers admitted by queue team"
    spec, uid = play.job()["spec"], play.job()["metadata"]["uid"]
    assert (spec["parallelism"], spec["completions"]) == (1, 1)
    play.let_go()
    await play.promoted()
    assert play.job()["metadata"]["uid"] == uid


@pytest.mark.parametrize("kill", [False, True], ids=["", "operator killed"])
async def test_a_search_that_is_taken_back_for_another_goes_on_after_it(play: Queued, *, kill: bool) -> None:
    """Its pods are gone for ten hours: it waits as before it began, and its time does not run."""
    play.start(cpu="4")
    await play.passes_until(lambda: play.workers() == 4 and play.is_said("runs"))
    await play.occupied(cpu="4", urgent=True)
    await play.passes_until(lambda: play.is_said("waits for admission by queue team since"))
    assert play.workers() == 0
    if kill:
        play.kill_operator()
    play.clock.wait(HOURS)
    await play.passes_until(lambda: play.is_said("Preempted to accommodate"))
    await play.passes(3)
    assert play.status["run"]["name"] == "digits-r1"
    play.quota.leave()
    await play.passes_until(lambda: play.workers() == 4 and play.sentence == f"Job {SEARCH} runs")
    play.let_go()
    await play.promoted()


async def test_a_search_that_is_taken_back_goes_on_with_what_room_is_left(play: Queued) -> None:
    """What took its place leaves room for one worker of four."""
    play.start(cpu="4")
    await play.passes_until(lambda: play.workers() == 4 and play.is_said("runs"))
    await play.occupied(cpu="3", urgent=True)
    await play.passes_until(lambda: play.workers() == 1 and play.is_said("runs: 1 of 4 workers"))
    play.let_go()
    await play.promoted()


async def test_a_judge_that_is_taken_back_begins_anew(play: Queued) -> None:
    """It has no study to go on with: its measurements are made again, in a pod of its own."""
    play.start(cpu="4", busy="judge")
    await play.passes_until(lambda: play.workers("digits-r1-judge") == 1)
    await play.occupied(cpu="4", urgent=True)
    await play.passes_until(lambda: play.is_said("Job digits-r1-judge waits for admission by queue team since"))
    play.quota.leave()
    await play.passes_until(lambda: play.workers("digits-r1-judge") == 1)
    play.let_go()
    await play.promoted()


async def test_a_resource_that_the_queue_does_not_cover_is_told(play: Queued) -> None:
    """Nothing is ever admitted then, and Kueue's reason names it."""
    play.start(cpu="4", plenty=["memory"])
    await play.passes_until(lambda: "waits for admission by queue team" in play.message)
    play.clock.wait(300)
    await play.passes_until(lambda: "resource ephemeral-storage unavailable in ClusterQueue" in play.message)


async def test_a_queue_that_is_not_there_is_told(play: Queued) -> None:
    """The name is wrong: Kueue says so, and so does the resource."""
    play.start(cpu="4", queue="teem")
    await play.passes_until(lambda: "waits for admission by queue teem" in play.message)
    play.clock.wait(300)
    await play.passes_until(lambda: "LocalQueue teem doesn't exist" in play.message)


async def test_a_suspended_resource_gives_its_place_in_the_queue_back(play: Queued) -> None:
    """The Job is made anew afterwards, with all the workers that there is room for by then."""
    play.start(cpu="1")
    await play.passes_until(lambda: play.workers() == 1 and play.is_said("1 of 4 workers"))
    path = play.bench.path("modeloptimizations", "digits")
    play.bench.patch(path, {"spec": {"suspend": True}})
    await play.passes_until(lambda: play.status["stage"] == "Suspended" and not play.workers())
    play.bench.patch(path, {"spec": {"suspend": False}})
    await play.passes_until(lambda: play.workers() == 1 and play.is_said("1 of 4 workers"))
    play.let_go()
    await play.promoted()
