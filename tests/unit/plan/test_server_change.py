"""Another server in the spec: the delivered model is checked and measured for it, then a run searches for it."""

from typing import Any

import pytest

from retune.api.servers import ServerRuntime
from retune.api.status import ConditionStatus, ConditionType
from retune.contract.requests import BaselineRequest, JudgeRequest, SearchRequest
from retune.contract.results import Reason
from retune.plan.draft import condition_of
from tests.unit.plan.world import World

TRITON: dict[str, Any] = {"runtime": "Triton", "engineVersion": "1.20"}


def asked(world: World) -> BaselineRequest | SearchRequest | JudgeRequest:
    """Return the request of the only Job under way."""
    (name,) = world.active_jobs()
    request = world.requests[name]
    assert isinstance(request, BaselineRequest | SearchRequest | JudgeRequest)
    return request


def test_every_job_of_the_loop_is_asked_for_the_new_server() -> None:
    """Baseline, search and judge, in this order; the champion serves on until something is promoted."""
    world = World()
    world.run_to_promotion()
    serving = world.value
    world.change(serving=TRITON)
    world.reconcile()
    for kind in (BaselineRequest, SearchRequest, JudgeRequest):
        request = asked(world)
        assert isinstance(request, kind)
        assert (request.serving.runtime, request.serving.engine_version) == (ServerRuntime.TRITON, "1.20")
        assert world.value == serving
        world.finish(world.active_jobs()[0])
        world.reconcile()


def test_a_delivered_model_that_the_server_cannot_run_changes_nothing_that_serves() -> None:
    """The baseline is refused and says so; the champion stays, and the old server in the spec brings all back."""
    world = World()
    world.run_to_promotion()
    serving, champion = world.value, world.resource.status.champion
    world.change(serving=TRITON)
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.MODEL_INVALID)
    world.reconcile()
    said = condition_of(world.resource.status, ConditionType.BASELINED)
    assert said is not None
    assert (said.status, said.reason) == (ConditionStatus.FALSE, Reason.MODEL_INVALID)
    assert (world.value, world.resource.status.champion) == (serving, champion)
    assert world.active_jobs() == []
    world.change(serving={})
    world.reconcile()
    assert world.value == serving
    assert world.active_jobs() == []


@pytest.mark.parametrize("serving", [{"runtime": "Retune"}, {}])
def test_the_default_server_written_down_is_no_change(serving: dict[str, Any]) -> None:
    """Nothing starts."""
    world = World()
    world.run_to_promotion()
    world.change(serving=serving)
    world.reconcile()
    assert world.active_jobs() == []
