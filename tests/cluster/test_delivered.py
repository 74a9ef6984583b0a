"""Another model is delivered, on a real API server: with policy GoesLive it goes live itself, or it stays off."""

import pytest

from retune.contract.requests import JobRequest, JudgeRequest
from retune.contract.results import JobResult, Verdict
from tests.answers import answer
from tests.cluster.harness import Bench
from tests.cluster.site import Site, promoted, request_of

pytestmark = pytest.mark.slow
ROLLOUT = {"bakeTime": "0s", "deliveredModel": "GoesLive"}


def accepting(request: JobRequest) -> JobResult:
    """Answer as Jobs would where a delivered model is not worse, and no candidate gains anything."""
    is_delivered = isinstance(request, JudgeRequest) and request.delivered
    return answer(request, verdict=Verdict.PROMOTE if is_delivered else Verdict.NO_GAIN)


def refusing(request: JobRequest) -> JobResult:
    """Answer as Jobs would where everything is worse."""
    return answer(request, verdict=Verdict.GATE_FAILED)


async def deliver(site: Site, name: str) -> None:
    """Name another file, and let everything that follows happen."""
    site.edit(model={"uri": f"pvc://models/digits/{name}.onnx"})
    await site.play()


async def test_delivered_models_go_live_or_stay_off_with_the_reason(bench: Bench) -> None:
    """The first is judged alone, given to the target and followed by a search; the second changes nothing but words."""
    site = await promoted(bench, rollout=ROLLOUT)
    before = site.champion
    site.reply = accepting
    await deliver(site, "week-2")
    original = site.status["original"]
    assert site.champion == (original["version"], original["digest"]) != before
    assert (site.value, site.reason("DeliveredLive")) == (original["uri"], ("True", "Serves"))
    assert request_of(site.job("-r2-judge")).delivered
    assert {name for name in site.jobs if "-search" in name} == {"digits-r1-search", "digits-r3-search"}
    site.reply = refusing
    live = site.champion
    await deliver(site, "week-3")
    assert (site.champion, site.value) == (live, original["uri"])
    assert site.status["original"]["version"] == live[0] + 1
    assert site.reason("DeliveredLive") == ("False", "NoRelevantGain")
    told = [event for event in bench.items("events", api="/api/v1") if "stays off" in event["message"]]
    assert {event["type"] for event in told} == {"Warning"}
    assert site.reason("Ready") == ("True", "ChampionServing")
