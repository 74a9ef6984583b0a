"""A Rollout as target: what its controller's own words mean. The statuses are as Argo Rollouts 1.9.2 wrote them."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.plan.observed import Target
from retune.plan.told import Abort
from retune.targets.argo_rollout import ArgoRollout
from tests.unit.operator.target_samples import SAMPLES, VARIABLE

Json = dict[str, Any]
SAMPLE = SAMPLES["argoproj.io/v1alpha1", "Rollout"]
NEW, STABLE = "6d64f5464b", "5f7f57ccf"
UPDATING: Json = {"currentPodHash": NEW, "stableRS": STABLE, "updatedReplicas": 1}
PAUSED: Json = UPDATING | {
    "phase": "Paused",
    "message": "CanaryPauseStep",
    "controllerPause": True,
    "currentStepIndex": 1,
    "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-11-29T08:49:52Z"}],
}
BLUE_GREEN: Json = {"blueGreen": {"activeService": "active", "previewService": "preview"}}
GREEN_WAITS: Json = UPDATING | {
    "phase": "Paused",
    "message": "BlueGreenPause",
    "controllerPause": True,
    "replicas": 4,
    "updatedReplicas": 2,
    "blueGreen": {"activeSelector": STABLE, "previewSelector": NEW},
    "pauseConditions": [{"reason": "BlueGreenPause", "startTime": "2026-11-29T08:50:02Z"}],
}
ABORTED = "Rollout aborted update to revision 2"
FAILED = (
    f'{ABORTED}: Step-based analysis phase error/failed: Metric "good" assessed Failed due to failed (1) > '
    "failureLimit (0)"
)


def aborted(message: str, **more: Any) -> Json:
    """The status of a Rollout that was aborted with this message."""
    condition = {"type": "Progressing", "status": "False", "reason": "RolloutAborted", "message": message}
    ended = {"phase": "Degraded", "message": f"RolloutAborted: {message}", "abort": True, "currentStepIndex": 0}
    return UPDATING | ended | {"conditions": [condition]} | more


def parsed(*, spec: Json | None = None, **status: Any) -> Target:
    """The Rollout with another spec or status, as the planner sees it."""
    raw = copy.deepcopy(SAMPLE.raw)
    raw["spec"] |= spec or {}
    raw["status"] |= status
    return ArgoRollout().parse(raw, variable=VARIABLE)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"observedGeneration": "3"}, "has not seen the change"),
        (
            UPDATING | {"phase": "Progressing", "message": "more replicas need to be updated"},
            "more replicas need",
        ),
        (UPDATING | {"phase": "Progressing"}, "1 of 2 pods replaced; it is Progressing"),
        (PAUSED, "it is paused by step 2 of 4 of its own"),
        (PAUSED | {"pauseConditions": None}, "1 of 2 pods replaced"),
        (aborted(ABORTED), ABORTED),
        ({"phase": "Healthy", "stableRS": STABLE}, "2 of 2 pods available"),
        ({"availableReplicas": 1}, "1 of 2 new pods available"),
    ],
)
def test_what_is_under_way_is_not_settled_and_says_how_far_it_is(status: Json, words: str) -> None:
    """Argo's own words, and what has been done so far."""
    target = parsed(**status)
    assert not target.settled
    assert words in target.progress


@given(
    phase=st.sampled_from(["Healthy", "Progressing", "Paused", "Degraded", None]),
    generation=st.sampled_from(["4", "3", "", "5d4f", None]),
    hashes=st.tuples(st.sampled_from(["a", "b", ""]), st.sampled_from(["a", "b", ""])),
    available=st.integers(0, 3),
)
def test_settled_means_healthy_stable_and_seen(
    phase: str | None, generation: str | None, hashes: tuple[str, str], available: int
) -> None:
    """No other combination passes, and a generation that is no number is none that was seen."""
    status: Json = {
        "phase": phase,
        "observedGeneration": generation,
        "stableRS": hashes[0],
        "currentPodHash": hashes[1],
    }
    is_stable = bool(hashes[0]) and hashes[0] == hashes[1]
    expected = phase == "Healthy" and generation == "4" and is_stable and available >= 2
    assert parsed(**status, availableReplicas=available).settled is expected


LAST = {"currentStepIndex": 3}


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({}, PAUSED, "whoever owns it lets it go on with `kubectl argo rollouts promote digits -n ml`"),
        ({}, PAUSED | LAST, "step 4 of 4 of its own: it goes on after 1h"),
        (
            {"paused": True},
            UPDATING | {"phase": "Paused", "message": "manually paused"},
            "paused by hand",
        ),
        ({"strategy": BLUE_GREEN}, GREEN_WAITS, "before it switches to the new pods: whoever owns it"),
        (
            {"strategy": {"blueGreen": BLUE_GREEN["blueGreen"] | {"autoPromotionSeconds": 30}}},
            GREEN_WAITS,
            "it goes on after 30 s",
        ),
        (
            {},
            PAUSED | {"pauseConditions": [{"reason": "InconclusiveAnalysisRun"}]},
            "it is paused (InconclusiveAnalysisRun): whoever owns it lets it go on",
        ),
        (
            {"strategy": {"canary": {"steps": [{"setWeight": 50}, {"analysis": {}}]}}},
            UPDATING | {"phase": "Progressing", "currentStepIndex": 1},
            "its step 2 of 2, analysis, is under way",
        ),
        (
            {"strategy": BLUE_GREEN},
            UPDATING | {"phase": "Progressing", "blueGreen": {"prePromotionAnalysisRunStatus": {"status": "Running"}}},
            "its analysis is under way",
        ),
        ({}, UPDATING | {"phase": "Progressing", "currentStepIndex": 0}, None),
        ({}, PAUSED | {"pauseConditions": None}, None),
        ({}, PAUSED | {"observedGeneration": "3"}, None),
        ({}, {}, None),
    ],
)
def test_what_the_owner_s_steps_wait_for_is_told(spec: Json, status: Json, words: str | None) -> None:
    """Which step, and who ends it; nothing while only pods are waited for."""
    held = parsed(spec=spec, **status).held
    assert (held is None) == (words is None)
    assert words is None or words in str(held)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (aborted(ABORTED), Abort(ABORTED, by_analysis=False)),
        (
            aborted(FAILED, canary={"currentStepAnalysisRunStatus": {"name": "digits-2-1", "status": "Failed"}}),
            Abort(FAILED, by_analysis=True),
        ),
        (
            aborted(FAILED, canary={"currentBackgroundAnalysisRunStatus": {"name": "digits-2", "status": "Error"}}),
            Abort(FAILED, by_analysis=False),
        ),
        (
            aborted(FAILED, blueGreen={"postPromotionAnalysisRunStatus": {"name": "digits-2", "status": "Failed"}}),
            Abort(FAILED, by_analysis=True),
        ),
        (aborted(ABORTED, observedGeneration="3"), None),
        (aborted(ABORTED, stableRS=NEW), None),
        (PAUSED, None),
    ],
)
def test_an_abort_is_told_with_whose_word_it_was(status: Json, expected: Abort | None) -> None:
    """Of the newest template only; an analysis that could not be made says nothing of the version."""
    assert parsed(**status).aborted == expected


def test_a_rollout_that_takes_its_pods_from_a_deployment_has_no_field() -> None:
    """It parses all the same, and says where the field is."""
    raw = copy.deepcopy(SAMPLE.raw)
    del raw["spec"]["template"], raw["spec"]["selector"]
    raw["spec"]["workloadRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    target = ArgoRollout().parse(ArgoRollout().trimmed(raw), variable=VARIABLE)
    assert target.containers == ()
    assert "from Deployment web (spec.workloadRef)" in str(target.unfit)
    assert ArgoRollout().drives(raw) == "web"
    assert ArgoRollout().drives(SAMPLE.raw) is None


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"canary": {"maxSurge": 0, "maxUnavailable": 2}}, "all 2 pods"),
        ({"canary": {}}, None),
        ({"canary": {"maxSurge": 0, "maxUnavailable": 2, "trafficRouting": {}}}, None),
        (BLUE_GREEN, None),
    ],
)
def test_an_outage_is_foreseen_where_pods_are_replaced_in_place(strategy: Json, words: str | None) -> None:
    """Blue-green and routed traffic keep the stable pods until the new ones are there."""
    outage = parsed(spec={"strategy": strategy}).outage
    assert (outage is None) == (words is None)
    assert words is None or words in str(outage)


def test_a_spec_that_argo_refuses_is_what_hinders() -> None:
    """No pod is made from it, and the words are Argo's."""
    invalid = {"type": "InvalidSpec", "status": "True", "message": "The Rollout is invalid: steps"}
    assert parsed(conditions=[invalid], phase="Degraded").hindrance == "The Rollout is invalid: steps"
