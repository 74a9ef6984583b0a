"""Why a Job waits in a queue is asked of Kueue, and only of releases and clusters that can say it."""

from typing import Any, cast

import pytest

from retune.cluster import parse
from retune.cluster.client import Client, Request
from retune.cluster.errors import NotFound, Refused, Transient
from retune.cluster.queueing import NOT_SERVED, NOT_TAKEN_UP, QueueReader, why_waiting
from tests.unit.operator.test_parse import queued

Json = dict[str, Any]
FULL = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default, 3 more needed"
TAKEN = "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"
PATHS = "; preemptor path: /shared/team-b; preemptee path: /shared/team-a"


def workload(*, made: str = "2026-11-25T12:00:00Z", **conditions: tuple[str, str]) -> Json:
    """A Workload with conditions of these types: status and message."""
    listed = [{"type": kind, "status": status, "message": text} for kind, (status, text) in conditions.items()]
    return {"metadata": {"creationTimestamp": made}, "status": {"conditions": listed}}


@pytest.mark.parametrize(
    "workloads,why",
    [
        ([workload(QuotaReserved=("False", FULL))], FULL),
        ([workload(QuotaReserved=("False", FULL), Evicted=("True", TAKEN))], f"{TAKEN}; {FULL}"),
        ([workload(QuotaReserved=("False", FULL), Evicted=("True", f"{TAKEN}{PATHS}"))], f"{TAKEN}; {FULL}"),
        ([workload(QuotaReserved=("False", TAKEN), Evicted=("True", TAKEN))], TAKEN),
        ([workload(QuotaReserved=("False", FULL), Evicted=("False", TAKEN))], FULL),
        ([workload(QuotaReserved=("True", "Quota reserved in ClusterQueue team"))], None),
        ([workload()], None),
        ([{"metadata": {}}], None),
        ([workload(QuotaReserved=("False", "old"), made="2026-11-25T11:00:00Z"), workload()], None),
        ([], NOT_TAKEN_UP),
    ],
    ids=[
        "full",
        "taken back",
        "taken back in a tree of queues",
        "said once",
        "taken back before",
        "about to run",
        "new",
        "bare",
        "replaced",
        "none",
    ],
)
def test_it_is_told_in_kueue_s_words(workloads: list[Json], why: str | None) -> None:
    """That it was stopped for another, and what keeps it from beginning; never of a Workload that was replaced."""
    assert why_waiting(workloads) == why


class FakeClient:
    """Answers by the version of the API that is asked; what is an error is raised."""

    def __init__(self, answers: dict[str, list[Json] | Exception]) -> None:
        self._answers, self.asked = answers, list[Request]()

    async def call(self, request: Request) -> Json:
        """Return a List."""
        self.asked.append(request)
        answer = self._answers.get(request.path.split("/")[3], NotFound("404 page not found"))
        if isinstance(answer, Exception):
            raise answer
        return {"items": answer}


async def why(**answers: list[Json] | Exception) -> tuple[str | None, list[Request]]:
    """Return why a Job waits, and what was asked to find out."""
    client = FakeClient(answers)
    return await QueueReader(cast("Client", client)).why("ml", parse.job(queued())), client.asked


async def test_the_workload_of_this_very_job_is_asked_for() -> None:
    """In its namespace, by its UID."""
    words, (asked,) = await why(v1beta2=[workload(QuotaReserved=("False", FULL))])
    assert words == FULL
    assert asked.path == "/apis/kueue.x-k8s.io/v1beta2/namespaces/ml/workloads"
    assert asked.query["labelSelector"] == "kueue.x-k8s.io/job-uid=job-1"


async def test_an_older_kueue_is_asked_by_its_own_version() -> None:
    """It serves no newer one."""
    words, asked = await why(v1beta1=[workload(QuotaReserved=("False", FULL))])
    assert (words, len(asked)) == (FULL, 2)


async def test_a_cluster_without_kueue_is_told_of() -> None:
    """Nobody will ever admit the Job."""
    assert (await why())[0] == NOT_SERVED


async def test_where_the_right_was_taken_away_the_job_just_waits() -> None:
    """Why it does is a comfort, and no reason to stop. An API server in trouble is asked again, as for all else."""
    assert (await why(v1beta2=Refused("Forbidden", "Retune may not list workloads")))[0] is None
    with pytest.raises(Transient):
        await why(v1beta2=Transient("timeout"))
