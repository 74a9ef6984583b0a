"""One kind of child after the other is refused to one of two resources, on a real API server."""

import json
from typing import Any

import pytest

from retune.cluster.client import Request, Response
from retune.contract.requests import JobRequest
from retune.contract.results import JobResult, Verdict
from retune.runtime import Operator
from tests.answers import answer
from tests.cluster.harness import Bench, Spy, settle
from tests.faults.stagehand import Stagehand
from tools.localcluster.api import ApiError

Json = dict[str, Any]
WORDS = "the team's policy denies it today"
NEEDED_BY = {"leases": "TargetOwned", "jobs": "Baselined", "optimizationruns": "Optimizing"}
"""The condition that tells of each kind of child that cannot be made."""


def no_gain(request: JobRequest) -> JobResult:
    """Answer as Jobs of a run that ends with its verdict."""
    return answer(request, verdict=Verdict.NO_GAIN)


class Denying:
    """A transport by which one resource is refused one kind of child."""

    def __init__(self, bench: Bench, plural: str, owner: str) -> None:
        self._send, self._plural, self._owner = bench.send, plural, owner
        self.denies = True

    def __call__(self, request: Request) -> Response:
        """Refuse, or send."""
        owners = ((request.body or {}).get("metadata") or {}).get("ownerReferences") or [{}]
        concerned = request.method == "POST" and request.path.endswith(f"/{self._plural}")
        if self.denies and concerned and owners[0].get("name") == self._owner:
            status = {"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": WORDS, "code": 403}
            return Response(403, json.dumps(status).encode())
        return self._send(request)


async def go_on(bench: Bench, operator: Operator, *, passes: int) -> None:
    """Make passes over both resources, and let the Jobs that they asked for succeed."""
    stagehand = Stagehand(bench.api, reply=no_gain, namespace=bench.namespace)
    for _ in range(passes):
        for name in ("first", "second"):
            await settle(operator, f"{bench.namespace}/{name}")
        for job in bench.jobs:
            stagehand.finish(job)


def outcome(bench: Bench, name: str) -> str | None:
    """How the last run of a resource ended."""
    last: Json = bench.resource(name)["status"].get("lastRun", {})
    return last.get("outcome")


@pytest.mark.parametrize("plural", NEEDED_BY)
async def test_a_child_that_is_refused_is_named_and_made_later(bench: Bench, plural: str) -> None:
    """Fault 11: the other resource's run ends meanwhile; this one quotes the refusal, and goes on once it may."""
    for name in ("first", "second"):
        bench.deploy(name)
        bench.declare(name, target=name, execution={})
    denying = Denying(bench, plural, "first")
    operator = bench.operator(Spy(denying))
    await go_on(bench, operator, passes=6)
    assert WORDS in bench.condition(NEEDED_BY[plural], "first")["message"]
    assert (outcome(bench, "first"), outcome(bench, "second")) == (None, "NoGain")
    denying.denies = False
    await go_on(bench, operator, passes=6)
    assert outcome(bench, "first") == "NoGain"


async def test_a_search_that_may_not_start_leaves_the_record_of_its_run(bench: Bench) -> None:
    """Fault 11: of two children of one run the first is made, and the second later under the same name."""
    bench.deploy("first")
    bench.deploy("second")
    for name in ("first", "second"):
        bench.declare(name, target=name, execution={})
    denying = Denying(bench, "jobs", "first")
    denying.denies = False
    operator = bench.operator(Spy(denying))
    await go_on(bench, operator, passes=1)
    denying.denies = True
    await go_on(bench, operator, passes=5)
    record = bench.api.get(bench.path("optimizationruns", "first-r1"))
    assert "outcome" not in record.get("status", {})
    assert WORDS in bench.condition("Optimizing", "first")["message"]
    with pytest.raises(ApiError):
        bench.api.get(bench.path("jobs", "first-r1-search", api="/apis/batch/v1"))
    denying.denies = False
    await go_on(bench, operator, passes=5)
    assert outcome(bench, "first") == "NoGain"
    assert bench.api.get(bench.path("optimizationruns", "first-r1"))["metadata"]["uid"] == record["metadata"]["uid"]
