"""Weights of a route's backends: what the canary gets, that nobody else's share changes, and the way back."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.traffic import Backend, Pair, Rule
from retune.traffic.weights import MOST_BACKENDS, MOST_WEIGHT

PAIR = Pair("digits", "digits-canary")
WEIGHTS = st.one_of(st.none(), st.integers(0, 100), st.integers(0, MOST_WEIGHT))
NAMES = st.sampled_from(["other", "shop", "/Service/elsewhere/digits"])


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Return a rule that can be shared: it serves the target once, at any place among others."""
    others = draw(st.lists(st.builds(Backend, NAMES, WEIGHTS), max_size=4))
    mine = Backend("digits", draw(st.one_of(st.none(), st.integers(1, 200), st.integers(1, MOST_WEIGHT))))
    place = draw(st.integers(0, len(others)))
    rule = (*others[:place], mine, *others[place:])
    return rule if PAIR.obstacle([rule]) is None else (*others[:place], Backend("digits", MOST_WEIGHT), *others[place:])


RULES, PERCENT = rules(), st.integers(1, 100)


def weight_of(rule: Rule, name: str) -> int:
    """Return what all backends of a name weigh."""
    return sum(backend.counts for backend in rule if backend.name == name)


@given(rule=RULES, percent=PERCENT)
def test_nobody_else_s_share_changes(rule: Rule, percent: int) -> None:
    """What target and canary get together is to every other backend as the target was before, to the last digit."""
    shared = PAIR.shared(rule, percent)
    both = weight_of(shared, "digits") + weight_of(shared, "digits-canary")
    for before, after in zip(rule, shared, strict=False):
        assert before.name == after.name
        if before.name != "digits" and before.counts:
            assert Fraction(after.counts, both) == Fraction(before.counts, weight_of(rule, "digits"))
        elif before.name != "digits":
            assert before == after


@given(rule=RULES, percent=PERCENT)
def test_the_canary_gets_no_more_than_its_share_but_where_that_is_nothing(rule: Rule, percent: int) -> None:
    """Exactly its share where the weights have room for that; both sides get something but where it is all."""
    shared = PAIR.shared(rule, percent)
    canary, target = weight_of(shared, "digits-canary"), weight_of(shared, "digits")
    assert canary >= 1
    assert (target >= 1) == (percent < 100)
    assert canary == 1 or 100 * canary <= percent * (canary + target)
    if canary + target >= 10_000 or not any(backend.counts for backend in rule if backend.name != "digits"):
        assert abs(Fraction(100 * canary, canary + target) - percent) < Fraction(1, 50)


@given(rule=RULES, percent=PERCENT)
def test_weights_stay_within_the_limits_of_the_gateway_api(rule: Rule, percent: int) -> None:
    """Whatever they were before."""
    assert all(0 <= backend.counts <= MOST_WEIGHT for backend in PAIR.shared(rule, percent))


@given(rule=RULES, percent=PERCENT)
def test_what_was_given_is_put_back_exactly(rule: Rule, percent: int) -> None:
    """Weights that were not there are not there again, and none is another number that means the same."""
    shared = PAIR.shared(rule, percent)
    known = PAIR.percent(shared, rule)
    assert known is not None
    assert PAIR.shared(rule, known) == shared
    assert PAIR.alone(shared, rule) == rule


@given(rule=RULES, percent=PERCENT, place=st.integers(0, 5), weight=st.integers(0, MOST_WEIGHT))
def test_a_weight_of_others_is_noticed_and_kept(rule: Rule, percent: int, place: int, weight: int) -> None:
    """The canary's share goes to the target, and what they wrote for everybody else stays."""
    shared = PAIR.shared(rule, percent)
    place %= len(shared)
    edited = (*shared[:place], replace(shared[place], weight=weight), *shared[place + 1 :])
    alone = PAIR.alone(edited, rule)
    if PAIR.percent(edited, rule) is not None:
        assert alone == rule
        return
    assert not PAIR.is_tried_in(alone)
    both = weight_of(edited, "digits") + weight_of(edited, "digits-canary")
    assert weight_of(alone, "digits") == min(both, MOST_WEIGHT)
    assert [item for item in alone if item.name != "digits"] == [
        item for item in edited if item.name not in {"digits", "digits-canary"}
    ]


def test_a_rule_in_which_others_have_left_the_canary_alone_goes_to_the_target() -> None:
    """Empty, the rule would answer nobody; named still, it would send requests to pods that go."""
    rule = (Backend("other", 3), Backend("digits-canary", 5))
    assert PAIR.alone(rule, (Backend("other", 3), Backend("digits", 5))) == (Backend("other", 3), Backend("digits", 5))


@pytest.mark.parametrize(
    ("rule", "percent", "shared"),
    [
        ([("digits", None)], 10, [("digits", 90), ("digits-canary", 10)]),
        ([("digits", 7)], 50, [("digits", 50), ("digits-canary", 50)]),
        ([("digits", 90), ("other", 10)], 10, [("digits", 81), ("other", 10), ("digits-canary", 9)]),
        ([("digits", None), ("other", None)], 10, [("digits", 9), ("other", 10), ("digits-canary", 1)]),
        ([("digits", None)], 0, [("digits", None)]),
        ([("digits", None)], 100, [("digits", 0), ("digits-canary", 100)]),
        ([("other", 1), ("digits", 3)], 100, [("other", 1), ("digits", 0), ("digits-canary", 3)]),
        ([("digits", 3), ("other", 0)], 25, [("digits", 75), ("other", 0), ("digits-canary", 25)]),
        ([("other", 999_999), ("digits", 50)], 33, [("other", 999_999), ("digits", 34), ("digits-canary", 16)]),
    ],
)
def test_shares_by_example(
    rule: list[tuple[str, int | None]], percent: int, shared: list[tuple[str, int | None]]
) -> None:
    """Weights that people can check by eye: hundredths where nobody else is there, else the smallest that are exact."""
    before, after = (tuple(Backend(*entry) for entry in entries) for entries in (rule, shared))
    assert PAIR.shared(before, percent) == after
    assert PAIR.effective(after) == pytest.approx(percent, abs=1)


MANY = (Backend("digits"), *(Backend(f"other-{number}") for number in range(MOST_BACKENDS - 1)))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([], "gives Service digits no requests"),
        ([(Backend("other"),)], "gives Service digits no requests"),
        ([(Backend("digits", 0),)], "gives Service digits no requests"),
        ([(Backend("digits"), Backend("digits"))], "twice in one rule"),
        ([MANY], "no room for the canary"),
        ([(Backend("digits", 1), Backend("other", MOST_WEIGHT))], "too small a weight"),
        ([(Backend("digits"),), (Backend("digits-canary", 0),)], "names Service digits-canary already"),
    ],
)
def test_rules_that_cannot_be_shared_are_told_of(rules: list[Rule], words: str) -> None:
    """As the end of a sentence about their route."""
    assert words in (PAIR.obstacle(rules) or "")


def test_a_rule_of_others_is_no_obstacle() -> None:
    """Only rules that give the target requests are looked at."""
    assert PAIR.obstacle([(Backend("other", 0), Backend("other", 0)), (), (Backend("digits"),)]) is None
