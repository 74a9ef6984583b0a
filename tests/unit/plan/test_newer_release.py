"""What a newer release has written before this one took over again: fields and words that this one does not know."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from retune.api.objects import ModelOptimization
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import ConditionType, ModelOptimizationStatus, Version
from retune.contract.requests import JobRequest, encode_request, parse_request
from retune.contract.results import encode_result, parse_result
from retune.plan import Observed, Plan, plan
from retune.plan.actions import InjectModel
from retune.plan.draft import condition_of
from tests import samples
from tests.answers import answer
from tests.unit.plan.world import World

WORD = "FromTheFuture"
REQUESTS: tuple[Callable[[], JobRequest], ...] = (
    samples.baseline_request,
    samples.search_request,
    samples.judge_request,
    samples.check_request,
    samples.gather_request,
    samples.verify_request,
    samples.register_request,
)
WORDS = {"run.stage", "rollout.step", "rollout.rollbackReason", "stage", "rollout.shownBy"}
"""Fields of the status whose words are a list that a newer release may have made longer."""


def enlarged(value: Any) -> Any:
    """Return a document with a field that nobody knows in every object of it."""
    if isinstance(value, dict):
        return {name: enlarged(inner) for name, inner in value.items()} | {"fromTheFuture": {"a": [1]}}
    return [enlarged(inner) for inner in value] if isinstance(value, list) else value


def seen_in_a_pass() -> list[Observed]:
    """Return everything that decisions are made from on the way to a champion, and on the way back from a rollout."""
    seen: list[Observed] = []
    for promoted in (True, False):
        world = World()
        world.witness = lambda observed, _: seen.append(observed)
        world.run_to_bake()
        world.wait(600)
        world.settled = promoted
        world.reconcile()
        world.wait(8000)
        world.reconcile()
    return seen


SEEN = seen_in_a_pass()


def with_word(status: dict[str, Any], path: str) -> dict[str, Any] | None:
    """Return a status with an unknown word in one field; None where the field is not there."""
    changed: dict[str, Any] = json.loads(json.dumps(status))
    *parents, last = path.split(".")
    node = changed
    for parent in parents:
        node = node.get(parent) or {}
    if last not in node:
        return None
    node[last] = WORD
    return changed


def told_by_a_newer_release(path: str) -> Iterator[tuple[Observed, Observed]]:
    """Yield what was seen, as it was and as it is read where a new word was used; what cannot be read is left alone."""
    for observed in SEEN:
        document = with_word(observed.resource.status.to_dict(), path)
        if document is None:
            continue
        try:
            status = ModelOptimizationStatus.model_validate(document)
        except ValidationError:
            continue
        yield observed, replace(observed, resource=observed.resource.model_copy(update={"status": status}))


def texts(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every text in a document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in entries:
        yield from texts(inner, (*path, name))
    if isinstance(value, str):
        yield path


def with_text(document: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """Return a document with an unknown word in the place of one of its texts."""
    changed: dict[str, Any] = json.loads(json.dumps(document))
    node: Any = changed
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = WORD
    return changed


def write(world: World, **fields: Any) -> None:
    """Change fields of the status, as the newer release would."""
    world.update(status=world.resource.status.model_copy(update=fields))


@pytest.mark.slow
def test_whatever_word_of_a_status_is_unknown_a_pass_decides_or_leaves_it_alone() -> None:
    """Fault 32: no text of any status on the way to a champion and back makes the planner stumble."""
    decided = 0
    for observed in SEEN:
        document = observed.resource.status.to_dict()
        for path in texts(document):
            try:
                status = ModelOptimizationStatus.model_validate(with_text(document, path))
            except ValidationError:
                continue
            plan(replace(observed, resource=observed.resource.model_copy(update={"status": status})), World().now)
            decided += 1
    assert decided > 1000


def test_a_run_in_a_stage_that_is_unknown_waits_and_says_what_is_unknown() -> None:
    """Fault 32: nothing of it is begun anew or stopped, until the release that knows the stage is back."""
    world = World()
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    run = world.resource.status.run
    assert run is not None
    write(world, run=run.model_copy(update={"stage": WORD}))
    (search,) = world.active_jobs()
    world.jobs["digits-r1-explain"] = replace(world.jobs[search], name="digits-r1-explain", command="explain")
    world.reconcile()
    stalled = condition_of(world.resource.status, ConditionType.STALLED)
    optimizing = condition_of(world.resource.status, ConditionType.OPTIMIZING)
    assert stalled is not None
    assert optimizing is not None
    assert (stalled.status, stalled.reason, optimizing.reason) == ("True", "StageUnknown", "StageUnknown")
    assert WORD in optimizing.message
    assert world.active_jobs() == [search, "digits-r1-explain"]
    write(world, run=run)
    world.finish(search)
    world.reconcile()
    assert world.resource.status.run is not None
    assert world.resource.status.run.stage == "Judge"


def test_fields_of_a_newer_release_go_where_their_object_goes() -> None:
    """Fault 32: what it noted of a version stays with that version once another is champion, and with no other."""
    world = World()
    world.run_to_promotion()
    document = world.resource.status.to_dict()
    document["champion"]["fromTheFuture"] = {"of": 2}
    document["lastRun"]["fromTheFuture"] = {"of": "digits-r1"}
    read = ModelOptimizationStatus.model_validate(document)
    write(world, champion=read.champion, last_run=read.last_run)
    world.change(manualNonce="again")
    world.reconcile()
    world.promote()
    after = world.resource.status.to_dict()
    assert after["champion"]["version"] == 3
    assert "fromTheFuture" not in after["champion"]
    assert [version["fromTheFuture"] for version in after["versions"]] == [{"of": 2}]
    assert "fromTheFuture" not in after["lastRun"]


def test_the_words_are_there() -> None:
    """Guards the test below: each field is seen in some decision, and a new word in it can be read."""
    assert [path for path in WORDS if not list(told_by_a_newer_release(path))] == []


def test_an_outcome_of_a_newer_release_leaves_the_resource_unread() -> None:
    """Fault 32: how the last run ended decides what may start, so a new word is no outcome, and nothing is decided."""
    assert any(with_word(seen.resource.status.to_dict(), "lastRun.outcome") for seen in SEEN)
    assert list(told_by_a_newer_release("lastRun.outcome")) == []


@pytest.mark.parametrize("path", sorted(WORDS))
def test_a_word_of_a_newer_release_never_makes_a_version_live(path: str) -> None:
    """Fault 32: a pass over it decides without an error, and gives the target no more than it would have without it."""
    for before, observed in told_by_a_newer_release(path):
        status = observed.resource.status
        champions = [status.original, status.champion, plan(before, World().now).status.champion]
        decision = plan(observed, World().now)
        assert values_given(decision) <= values_given(plan(before, World().now)) | values_of(champions)
        assert values_of([decision.status.champion]) <= values_of(champions)


def values_given(decision: Plan) -> set[str | None]:
    """Return the values that a plan gives the target."""
    return {action.value for action in decision.actions if isinstance(action, InjectModel)}


def values_of(versions: list[Version | None]) -> set[str | None]:
    """Return the values that name these versions."""
    return {version.injected_value for version in versions if version}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda make: make.__name__)
def test_a_result_with_fields_of_a_newer_release_is_read(request_: Callable[[], JobRequest]) -> None:
    """Fault 32: what a newer image says more is passed over, and the rest counts as ever."""
    result = answer(request_())
    assert parse_result(json.dumps(enlarged(json.loads(encode_result(result))))) == result


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda make: make.__name__)
def test_a_request_with_fields_of_a_newer_release_is_refused(request_: Callable[[], JobRequest]) -> None:
    """Fault 32: a Job does all that it is asked or nothing, so it names what it does not know."""
    document = enlarged(json.loads(encode_request(request_())))
    with pytest.raises(ValidationError, match="fromTheFuture"):
        parse_request(json.dumps(document))


def test_a_result_with_a_word_of_a_newer_release_is_none() -> None:
    """Fault 32: a verdict that this release does not know is no verdict, whatever else the result says."""
    document = json.loads(encode_result(answer(samples.judge_request()))) | {"verdict": WORD}
    with pytest.raises(ValidationError, match="verdict"):
        parse_result(json.dumps(document))


def test_a_spec_with_fields_of_a_newer_release_is_read() -> None:
    """Fault 32: the API server prunes them once the older CRD is back; until then they are passed over."""
    spec = samples.manifest()["spec"]
    assert ModelOptimizationSpec.model_validate(enlarged(spec)) == ModelOptimizationSpec.model_validate(spec)


def test_a_status_with_fields_of_a_newer_release_gives_the_same_plan() -> None:
    """Fault 32: they are neither read nor in the way."""
    for observed in SEEN:
        resource = observed.resource.model_dump(mode="json", by_alias=True, exclude_none=True)
        read = ModelOptimization.model_validate(resource | {"status": enlarged(observed.resource.status.to_dict())})
        same = replace(observed, resource=read)
        assert plan(same, World().now).actions == plan(observed, World().now).actions
