"""Whether what moved matters: what columns carry decides, where it is known, and never makes a window bad alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.check.column_statistics import Kind
from optimizer_jobs.commands.check.columns import Cause, NotCompared, Pair, moved_away
from optimizer_jobs.commands.check.consequence import weigh, weighed
from optimizer_jobs.commands.check.drift import Compared, Findings
from optimizer_jobs.commands.check.drift_verdict import columns, judge
from optimizer_jobs.production.carried import Carried, read, written
from retune.api.monitoring import Drift
from retune.api.watched import Verdict

EVERY = Carried(inputs={"x": (0.5,)})
fraction = st.floats(0, 1)
moves = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.none() | fraction), min_size=1, max_size=12)


def column(name: str, *, drifted: bool = False, sure: bool = False, strange: bool = False) -> Compared:
    """Return a column that moved, or did not."""
    return Compared(
        name, "Wasserstein", 0.31, 1e-9, 600, Kind.NUMERIC, 1e-8, drifted, drifted and sure, strange=strange
    )


def found(*inputs: Compared, lacking: tuple[str, ...] = (), prediction: bool = False) -> Findings:
    """Return what was found of a window."""
    left = tuple(NotCompared(name, Cause.NO_VALUES, "it has no finite value in the window") for name in lacking)
    return Findings(inputs, (), left, proven=any(each.sure for each in inputs), prediction=prediction)


def told(findings: Findings, shares: dict[str, float], drift: Drift | None = None) -> tuple[str, str]:
    """Return verdict and reason of a window whose columns carry these shares."""
    settings = drift or Drift()
    said = judge(weigh(findings, settings, EVERY, shares), settings, samples=600)
    return said.verdict, said.reason


def drawn(given_moves: list[tuple[bool, bool, bool, float | None]]) -> tuple[Findings, dict[str, float]]:
    """Return findings and shares of columns, each drifted or not, sure or not, strange or not."""
    inputs = [column(f"c{k}", drifted=d, sure=s, strange=o) for k, (d, s, o, _) in enumerate(given_moves)]
    shares = {f"c{k}": share for k, (*_, share) in enumerate(given_moves) if share is not None}
    return found(*inputs), shares


@given(given_moves=moves)
def test_what_counts_is_a_share_and_each_further_column_adds_to_it(
    given_moves: list[tuple[bool, bool, bool, float | None]],
) -> None:
    """Between 0 and 1, and never less because another column drifted, too."""
    findings, shares = drawn(given_moves)
    counted = weighed(findings, shares).counted
    assert 0 <= counted <= 1
    for place in range(len(given_moves)):
        more = [*given_moves]
        more[place] = (True, *given_moves[place][1:])
        assert weighed(drawn(more)[0], shares).counted >= counted - 1e-9


@given(given_moves=moves, limits=st.tuples(st.integers(1, 100), st.integers(1, 100)))
def test_a_window_is_bad_by_proof_alone(
    given_moves: list[tuple[bool, bool, bool, float | None]], limits: tuple[int, int]
) -> None:
    """What columns carry makes no window bad in which no column passed the window's own test."""
    low, high = sorted(limits)
    drift = Drift(share=f"{high / 100}", clear_share=f"{low / 100}")
    findings, shares = drawn(given_moves)
    said = judge(weigh(findings, drift, EVERY, shares), drift, samples=600)
    assert said.verdict is not Verdict.BREACH or findings.proven


@given(given_moves=moves)
def test_columns_that_carry_alike_count_as_they_did_before(
    given_moves: list[tuple[bool, bool, bool, float | None]],
) -> None:
    """And so do columns of which nothing is known."""
    findings, _ = drawn(given_moves)
    alike = {each.name: 1 / len(findings.inputs) for each in findings.inputs}
    assert weighed(findings, alike).counted == pytest.approx(findings.share)
    assert weighed(findings, {}).counted == pytest.approx(findings.share)


@given(given_moves=moves)
def test_an_answer_that_drifted_is_a_breach_whatever_inputs_carry(
    given_moves: list[tuple[bool, bool, bool, float | None]],
) -> None:
    """No measurement of columns can silence what the model's answers show."""
    findings, shares = drawn(given_moves)
    assert told(found(*findings.inputs, prediction=True), shares) == ("Breach", "PredictionDrifted")


def test_one_column_that_matters_is_a_breach_and_nine_that_do_not_are_told() -> None:
    """The sentence has both, and the one that carries most leads."""
    shares = {"income": 0.41, "age": 0.5} | {f"id{k}": 0.0 for k in range(18)}
    quiet = [column(name) for name in shares]
    one = found(column("income", drifted=True, sure=True), *(each for each in quiet if each.name != "income"))
    nine = found(*(column(name, drifted=name.startswith("id"), sure=True) for name in shares))
    assert told(one, shares) == ("Breach", "ShareAboveLimit")
    assert told(nine, shares) == ("Clear", "MovedColumnsCarryLittle")
    words = judge(weighed(nine, shares), Drift(), samples=600).message
    assert words.startswith("18 of 20 columns drifted (they carry up to 0% of the answers; limit 20%) in 600 rows: ")
    assert "id0 by 0.31 (Wasserstein, p 1e-08), carries nothing" in words
    both = weighed(found(column("id0", drifted=True), column("income", drifted=True, sure=True)), shares)
    assert [(each.name, each.carries) for each in columns(both)] == [("income", "0.41"), ("id0", "0")]
    assert "income by 0.31 (Wasserstein, p 1e-08), carries 41 %" in judge(both, Drift(), samples=600).message


def test_a_proof_of_a_column_that_carries_nothing_proves_nothing_of_others() -> None:
    """The columns that matter have to be sure by themselves."""
    shares = {"noise": 0.0, "income": 0.9}
    window = found(column("noise", drifted=True, sure=True), column("income", drifted=True))
    assert told(window, shares) == ("Between", "EvidenceTooWeak")


def test_a_column_that_left_the_measured_values_counts_at_least_like_any_other() -> None:
    """Unless it has never changed an answer."""
    shares = {"a": 0.001, "b": 0.0, "c": 0.6}
    away = [column(name, drifted=True, sure=True, strange=True) for name in ("a", "b")]
    assert told(found(away[0], column("b"), column("c")), shares) == ("Breach", "ShareAboveLimit")
    assert told(found(column("a"), away[1], column("c")), shares) == ("Clear", "MovedColumnsCarryLittle")
    words = judge(weighed(found(away[0], column("b"), column("c")), shares), Drift(), samples=600).message
    assert "carries under 1 % where it was, and moved away from there" in words


def test_a_window_whose_weightiest_column_cannot_be_compared_is_unknown() -> None:
    """Nine of ten columns are as they were, but they carry hardly anything."""
    shares = {"income": 0.8} | {f"c{k}": 0.02 for k in range(9)}
    rest = [column(f"c{k}") for k in range(9)]
    assert told(found(*rest, lacking=("income",)), shares) == ("Unknown", "NoValues")
    assert told(found(*rest, lacking=("other",)), shares) == ("Clear", "ShareBelowClear")


EARLIER = read(None)
ALIKE: dict[str, tuple[Drift, Carried, str]] = {
    "an older reference": (Drift(), EARLIER, "Columns count alike: the champion's reference was written before"),
    "a slow model": (Drift(), Carried(unknown="the model would take 900 s"), "alike: the model would take 900 s."),
    "turned off": (Drift(weigh="Never"), EARLIER, ""),
    "columns that a person chose": (Drift(columns=("a", "b", "c")), EVERY, ""),
}


@pytest.mark.parametrize("drift, carried, words", ALIKE.values(), ids=ALIKE.keys())
def test_where_it_is_not_known_columns_count_alike_and_the_message_says_why(
    drift: Drift, carried: Carried, words: str
) -> None:
    """As before, and nothing is said where a person decided so."""
    shares = {"a": 0.0, "b": 0.0, "c": 1.0} if carried.unknown is None else {}
    findings = weigh(found(column("a", drifted=True, sure=True), column("b"), column("c")), drift, carried, shares)
    said = judge(findings, drift, samples=600)
    assert (said.verdict, said.value) == (Verdict.BREACH, "0.3333")
    assert "1 of 3 columns drifted (33%; limit 20%)" in said.message
    assert words in said.message
    assert words or "alike" not in said.message
    assert columns(findings)[0].carries is None


def test_a_quiet_window_does_not_repeat_that_columns_count_alike() -> None:
    """It is news only where something moved."""
    findings = weigh(found(column("a"), column("b")), Drift(), EARLIER, {})
    assert "alike" not in judge(findings, Drift(), samples=600).message


def test_what_is_written_is_read_and_anything_else_is_not_known() -> None:
    """A file of another release, or of somebody else, costs no check."""
    known = Carried(inputs={"x": (0.5, None, 0.0)})
    text = {key.encode(): value.encode() for key, value in written(known).items()}
    assert read(text) == known
    hostile = ("{", '{"inputs": {"x": [NaN]}}', '{"inputs": {"x": [2]}}', "[]")
    told_of = {read({b"retune.carried": each.encode()}).unknown for each in hostile}
    assert told_of == {"what the champion's reference says of it cannot be read"}
    assert "the next version's will say" in (read({}).unknown or "")


AWAY: dict[str, tuple[pd.Series, bool]] = {
    "as it was": (pd.Series(np.linspace(-1, 1, 200)), False),
    "a little higher": (pd.Series(np.linspace(-1, 1, 200) + 0.3), False),
    "in other units": (pd.Series(np.linspace(-1, 1, 200) * 1000), True),
    "mostly at one end": (pd.Series(np.where(np.arange(200) % 3, 1.0, 0.0)), True),
}


@pytest.mark.parametrize("current, expected", AWAY.values(), ids=AWAY.keys())
def test_numbers_move_away_where_the_reference_has_hardly_any(current: pd.Series, *, expected: bool) -> None:
    """A quarter of the window where a twentieth of the reference was."""
    reference = pd.Series(np.linspace(-1, 1, 400))
    assert moved_away(Pair("x", Kind.NUMERIC, reference, current)) is expected


def test_categories_move_away_where_they_are_rare_or_new() -> None:
    """A rare color that becomes frequent, or one that nobody has seen."""
    reference = pd.Series(["red"] * 200 + ["blue"] * 190 + ["mauve"] * 10)
    windows = {
        "blue": (["blue"] * 100, False),
        "mauve": (["red"] * 60 + ["mauve"] * 40, True),
        "new": (["red"] * 60 + ["teal"] * 40, True),
    }
    for current, expected in windows.values():
        assert moved_away(Pair("color", Kind.CATEGORICAL, reference, pd.Series(current))) is expected
