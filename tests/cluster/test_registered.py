"""A registry is told what serves, on a real API server: by one Job for each change, and whatever comes of it."""

import pytest

from retune.contract.requests import JobRequest, RegisterRequest
from retune.contract.results import Failure, JobResult, Reason
from tests.answers import answer
from tests.cluster.harness import Bench
from tests.cluster.site import Json, Site, promoted, request_of

pytestmark = pytest.mark.slow
REGISTRY = {"uri": "mlflow://digits", "credentials": {"secretName": "tracking"}}


def unreachable(request: JobRequest) -> JobResult:
    """Answer as Jobs would while the registry is away."""
    if isinstance(request, RegisterRequest):
        return Failure(
            reason=Reason.REGISTRY_UNREACHABLE,
            object=request.registry.uri,
            message="the server cannot be asked (timeout).",
            next_step="It is tried again.",
        )
    return answer(request)


def named(site: Site) -> dict[str, tuple[str, str]]:
    """The versions with an alias: digest and number in the registry."""
    versions = site.status["registry"]["versions"]
    return {each["alias"]: (each["digest"], each["version"]) for each in versions}


def asked(site: Site) -> list[Json]:
    """What the Jobs were asked that tell the registry something, in order."""
    jobs = sorted(name for name in site.jobs if "-reg" in name)
    return [request_of(site.job(name)).to_dict() for name in jobs]


async def test_a_promotion_and_a_rollback_are_told_by_one_job_each(bench: Bench) -> None:
    """The server stores the status and takes the Jobs; a restart in the end finds nothing to do."""
    site = await promoted(bench, registry=REGISTRY)
    second = site.champion
    assert site.reason("Registered") == ("True", "Registered")
    assert named(site) == {"champion": (second[1], "2")}
    site.edit(rollout={"bakeTime": "0s", "rollbackTo": "1"})
    await site.play()
    assert site.champion[0] == 1
    assert named(site) == {"champion": (site.champion[1], "1")}
    requests = asked(site)
    told = [(request.get("champion", {}).get("version"), "challenger" in request) for request in requests]
    assert told[-1] == (1, False)
    assert len(told) == len(set(told))
    assert requests[0]["challenger"]["comparisons"]
    container = site.job("-reg1")["spec"]["template"]["spec"]["containers"][0]
    secrets = {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if "valueFrom" in each}
    assert secrets == {"tracking"}
    before = len(bench.spy.writes)
    await site.play()
    assert bench.spy.writes[before:] == []


async def test_a_registry_that_is_away_holds_nothing_up_and_is_told_later(bench: Bench) -> None:
    """The version goes live, the condition says why, and after the wait one Job makes up for it."""
    site = Site(bench, reply=unreachable)
    site.deliver(registry=REGISTRY)
    await site.play()
    assert (site.reason("RolledOut"), site.champion[0]) == (("True", "Promoted"), 2)
    assert site.reason("Registered") == ("False", "RegistryUnreachable")
    assert site.reason("Ready") == ("True", "ChampionServing")
    told = [event for event in bench.items("events", api="/api/v1") if event["reason"] == "RegistryUnreachable"]
    assert {event["type"] for event in told} == {"Warning"}
    site.reply = answer
    site.clock.wait(61)
    await site.play()
    assert site.reason("Registered") == ("True", "Registered")
    assert named(site) == {"champion": (site.champion[1], "2")}
    assert site.status["registry"]["failures"] == 0
    site.edit(registry=None)
    await site.play()
    assert ("registry" in site.status, site.reason("Registered")) == (False, None)
