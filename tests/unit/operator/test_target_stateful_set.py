"""A StatefulSet as target: how its controller reports an update, what it leaves as it is, what it waits for."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.plan.observed import LatePod, Target
from retune.targets.stateful_set import StatefulSet
from tests.unit.operator.target_samples import BEFORE, SAMPLES, VARIABLE

Json = dict[str, Any]
SAMPLE = SAMPLES["apps/v1", "StatefulSet"]
UPDATING = {"updateRevision": "digits-77f", "currentRevision": "digits-5d4"}


def changed(*, spec: Json | None = None, **status: Any) -> Json:
    """The StatefulSet with another spec or status."""
    raw = copy.deepcopy(SAMPLE.raw)
    raw["spec"] |= spec or {}
    raw["status"] |= status
    return raw


def parsed(raw: Json) -> Target:
    """The StatefulSet as the planner sees it."""
    return StatefulSet().parse(raw, variable=VARIABLE)


@pytest.mark.parametrize(
    ("status", "settled", "words"),
    [
        ({}, True, "2 of 2 pods available"),
        ({"observedGeneration": 3}, False, "has not seen the change"),
        (UPDATING | {"updatedReplicas": 1, "availableReplicas": 1}, False, "1 of 2 pods replaced"),
        (UPDATING | {"availableReplicas": 1}, False, "1 of 2 new pods available"),
        (UPDATING, False, "2 of 2 pods available"),
    ],
)
def test_it_is_settled_once_its_revisions_agree(status: Json, settled: bool, words: str) -> None:  # noqa: FBT001
    """The controller makes the new revision the current one when every pod has it and is ready."""
    target = parsed(changed(**status))
    assert target.settled is settled
    assert words in target.progress


@given(
    counts=st.fixed_dictionaries(
        {name: st.integers(0, 3) for name in ("replicas", "updatedReplicas", "availableReplicas", "observedGeneration")}
    ),
    revisions=st.tuples(st.sampled_from("ab"), st.sampled_from("ab")),
    wanted=st.integers(0, 3),
)
def test_settled_means_every_count_and_both_revisions_agree(
    counts: dict[str, int], revisions: tuple[str, str], wanted: int
) -> None:
    """After a template is taken back the revisions agree at once, while a pod still has the other one."""
    raw = changed(spec={"replicas": wanted})
    raw["status"] = counts | {"currentRevision": revisions[0], "updateRevision": revisions[1]}
    agree = {counts["replicas"], counts["updatedReplicas"], counts["availableReplicas"]} == {wanted}
    expected = agree and counts["observedGeneration"] >= 4 and revisions[0] == revisions[1]
    assert parsed(raw).settled == expected


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"type": "OnDelete"}, "OnDelete replaces no pod by itself: take RollingUpdate"),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}, "partition 1 keeps earlier pods"),
        ({"type": "RollingUpdate"}, None),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, None),
    ],
)
def test_a_strategy_that_leaves_pods_as_they_are_is_unfit(strategy: Json, words: str | None) -> None:
    """What would never be settled is said before anything is given to it, and while it is under way."""
    target = parsed(changed(spec={"updateStrategy": strategy}))
    assert (target.unfit is None) == (words is None)
    assert target.hindrance == target.unfit
    assert words is None or words in str(target.unfit)


@pytest.mark.parametrize(
    ("replicas", "most", "words"),
    [
        (0, None, None),
        (1, None, "its only pod"),
        (2, None, None),
        (2, 2, "all 2 pods"),
        (4, "100%", "all 4 pods"),
        (4, "49%", None),
        (3, "0%", None),
    ],
)
def test_an_outage_is_foreseen(replicas: int, most: int | str | None, words: str | None) -> None:
    """A pod ends before the next one is made, so that a single one leaves nobody to answer."""
    limits = {} if most is None else {"maxUnavailable": most}
    update = {"type": "RollingUpdate", "rollingUpdate": limits}
    said = parsed(changed(spec={"replicas": replicas, "updateStrategy": update})).outage
    assert (said is None) == (words is None)
    assert words is None or words in str(said)


def test_pods_that_the_controller_waits_for_are_told() -> None:
    """Only those that are not ready and have another value than the template; none before it has seen the template."""
    pods = [SAMPLE.pod("digits-0", value=BEFORE), SAMPLE.pod("digits-1", value=BEFORE, ready=False)]
    pods += [SAMPLE.pod("digits-2", ready=False), SAMPLE.pod("x-0", value=BEFORE, ready=False, owner="x")]

    def behind(raw: Json) -> tuple[LatePod, ...]:
        return StatefulSet().pods(raw, pods, container="server", variable=VARIABLE, port=8080).behind

    assert behind(SAMPLE.raw) == (LatePod("digits-1", "uid-of-digits-1", BEFORE),)
    assert behind(changed(observedGeneration=3)) == ()
