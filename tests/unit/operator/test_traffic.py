"""Ways to share requests: a conformance suite for every kind, then the cases of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.rollout import CanaryTraffic
from retune.traffic import TRAFFIC, Split, TrafficKind, kind_of
from retune.traffic.replicas import Replicas

KINDS = pytest.mark.parametrize("kind", TRAFFIC.values(), ids=lambda kind: kind.name)
WEIGHTS, PODS = st.integers(1, 99), st.integers(1, 500)


@KINDS
def test_a_kind_is_found_by_the_word_in_the_spec(kind: TrafficKind) -> None:
    """The registry and the API know the same words."""
    traffic = CanaryTraffic.model_validate({"kind": kind.name})
    assert kind_of(traffic) is kind


@KINDS
@given(weight=WEIGHTS, wanted=PODS, most=PODS)
def test_a_canary_has_a_pod_and_no_more_than_it_may(kind: TrafficKind, weight: int, wanted: int, most: int) -> None:
    """Whatever share is asked for."""
    assert 1 <= kind.pods(weight, wanted=wanted, most=most) <= most


@KINDS
@given(weight=WEIGHTS, wanted=PODS, most=PODS)
def test_more_weight_never_takes_fewer_pods(kind: TrafficKind, weight: int, wanted: int, most: int) -> None:
    """The way up is one way."""
    assert kind.pods(weight, wanted=wanted, most=most) <= kind.pods(min(99, weight + 1), wanted=wanted, most=most)


@KINDS
@given(weight=WEIGHTS, canary=st.integers(0, 500), target=st.integers(0, 500))
def test_the_share_that_there_is_is_a_percentage(kind: TrafficKind, weight: int, canary: int, target: int) -> None:
    """And nobody gets requests without a pod."""
    share = kind.effective(weight, Split(canary=canary, target=target))
    assert 0 <= share <= 100
    assert canary or not share


@given(weight=WEIGHTS, wanted=PODS)
def test_replicas_give_no_more_than_the_weight_but_where_one_pod_is_more(weight: int, wanted: int) -> None:
    """Rounded down, and one at least."""
    pods = Replicas().pods(weight, wanted=wanted, most=100_000)
    assert pods == 1 or 100 * pods <= weight * (pods + wanted)
    assert 100 * (pods + 1) > weight * (pods + 1 + wanted)


@pytest.mark.parametrize(
    ("canary", "target", "share"), [(1, 1, 50), (1, 3, 25), (1, 9, 10), (2, 1, 67), (0, 3, 0), (3, 0, 100), (0, 0, 0)]
)
def test_replicas_share_by_the_pods_that_answer(canary: int, target: int, share: int) -> None:
    """A Service does not know of weights."""
    assert Replicas().effective(10, Split(canary=canary, target=target)) == share
