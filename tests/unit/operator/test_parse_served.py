"""The model server beside a judge, as its pod tells of it: what it ended of, and whose fault that is."""

import pytest

from retune.contract.results import Failure, Reason, encode_result
from retune.contract.serving import SERVER_CONTAINER
from tests.unit.operator.test_parse import (
    LATER,
    NOON,
    SOON,
    VERIFIED,
    Json,
    a_job,
    a_pod,
    condition,
    ended,
    observed,
)

SILENT = Failure(
    reason=Reason.SERVER_UNREACHABLE,
    object="Triton at http://127.0.0.1:8480",
    message="it is silent.",
    next_step="Look.",
)


def served(raw: Json, *, state: Json | None = None, before: Json | None = None) -> Json:
    """The pod of a judge with a model server beside it, which is a sidecar and so an init container."""
    entry = {"name": SERVER_CONTAINER, "state": state or {"running": {"startedAt": NOON}}, "lastState": before or {}}
    raw["status"]["initContainerStatuses"] = [entry]
    return raw


@pytest.mark.parametrize(
    ("state", "before", "told"),
    [
        (None, None, ""),
        (None, ended(1, "\x1b[31mno such\nbackend"), "exit code 1 (Error): [31mno such backend."),
        (None, ended(134), "Its container ended with exit code 134 (Error)."),
        (ended(137, at=SOON, reason="OOMKilled"), None, "raise spec.execution.resources.limits.memory."),
        (ended(139), None, "exit code 139"),
        (ended(139, at=SOON), None, "exit code 139"),
        (ended(0, at=SOON), None, ""),
        (ended(143, at=LATER), None, ""),
        (ended(1, at=LATER), None, ""),
    ],
)
def test_a_judge_whose_server_was_silent_is_told_with_how_that_ended(
    state: Json | None, before: Json | None, told: str
) -> None:
    """Its last words are in the pod's status; how it ends after the judge, which it is told to, says nothing."""
    own = ended(1, encode_result(SILENT), at=SOON)
    pod = served(a_pod(phase="Failed", state=own), state=state, before=before)
    result = observed(a_job(condition("Failed")), pod).result
    assert isinstance(result, Failure)
    assert result.message == "it is silent." if not told else told in result.message
    assert result.message.isprintable()


def test_another_failure_and_a_verdict_are_told_as_they_are() -> None:
    """A server that crashed once and came back has no part in them."""
    crashed = ended(1, "once")
    other = SILENT.model_copy(update={"reason": Reason.STORE_FULL})
    for result, word, code in ((other, "Failed", 2), (VERIFIED, "Complete", 0)):
        pod = served(a_pod(state=ended(code, encode_result(result))), before=crashed)
        assert observed(a_job(condition(word)), pod).result == result


def test_a_server_that_ends_again_and_again_is_trouble_while_the_judge_waits_for_it() -> None:
    """Long before the judge gives up, a person sees why it waits."""
    waiting = served(a_pod(), state={"waiting": {"reason": "CrashLoopBackOff"}}, before=ended(1, "no"))
    trouble = observed(a_job(active=1), waiting).trouble
    assert trouble is not None
    assert trouble.reason == "ContainerFailed"
    assert "the model server beside the judge does not run. Its container ended with exit code 1 (Error): no." in (
        trouble.message
    )


def test_a_server_that_is_back_is_no_trouble() -> None:
    """The judge goes on waiting for it, or says itself that it was gone."""
    back = served(a_pod(), before=ended(1, "once"))
    assert observed(a_job(active=1), back).trouble is None


def test_a_servers_image_that_cannot_be_pulled_is_told_as_any_other() -> None:
    """The kubelet's message names the image."""
    state = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry.example/triton:9"'}}
    trouble = observed(a_job(active=1), served(a_pod(phase="Pending"), state=state)).trouble
    assert trouble is not None
    assert trouble.reason == "ImagePullFailed"
    assert "registry.example/triton:9" in trouble.message
