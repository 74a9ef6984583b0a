"""Interleaved timing: how the turns are taken, and what is concluded from the times. No test asserts a wall time."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure import latency as module
from optimizer_jobs.measure import stream
from optimizer_jobs.measure.latency import Effort, Timings, aa_check, interleave, interleave_until, ratio
from optimizer_jobs.measure.mix import only
from optimizer_jobs.models.engine import Array, EngineOptions
from optimizer_jobs.models.runtime import Session, open_model
from optimizer_jobs.signature import Signature

Splits = dict[str, Rows]
QUICK = Effort(half_width=0.0, min_rounds=4, max_rounds=6, max_seconds=60, calls_per_block=10)


class Watched:
    """A real session that notes its calls in a shared log and does its work `times` times over."""

    def __init__(self, session: Session, name: str, log: list[tuple[str, bytes]], *, times: int = 1) -> None:
        self._session, self._name, self._log, self._times = session, name, log, times

    @property
    def signature(self) -> Signature:
        """The session's own."""
        return self._session.signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Note the call, then answer."""
        self._log.append((self._name, inputs["x"].tobytes()))
        for _ in range(self._times - 1):
            self._session.run(inputs)
        return self._session.run(inputs)


@pytest.fixture
def session(delivered: Path) -> Session:
    """The delivered network, open."""
    return open_model(delivered / "mlp.onnx", EngineOptions())


def simulated(*, rounds: int, scale: float = 1.0, seed: int) -> Timings:
    """Return call times like those of a busy machine: skewed, alike within a block, with bursts."""
    generator = np.random.default_rng(seed)
    block = np.exp(generator.normal(0, 0.05, (rounds, 1)))
    calls = np.exp(generator.normal(0, 0.1, (rounds, 40)))
    bursts = np.where(generator.random((rounds, 1)) < 0.05, 3.0, 1.0)
    return Timings(blocks=scale * block * calls * bursts, first_call_ms=5.0)


def test_every_subject_gets_every_round(session: Session, splits: Splits) -> None:
    """The result has the same rounds and calls for all, and only positive times."""
    found = interleave({"a": session, "b": session}, splits["test"], blocks=5, calls_per_block=12, seed=1)

    assert {name: timings.blocks.shape for name, timings in found.items()} == {"a": (5, 12), "b": (5, 12)}
    assert all((timings.blocks > 0).all() and timings.first_call_ms > 0 for timings in found.values())


def test_turns_are_taken_in_an_order_that_changes_from_round_to_round(session: Session, splits: Splits) -> None:
    """Neither model is always first: position in a round must not favour one of them."""
    log: list[tuple[str, bytes]] = []
    subjects = {name: Watched(session, name, log) for name in ("a", "b")}
    interleave(subjects, splits["test"], blocks=24, calls_per_block=1, warmup=1, seed=3)
    turns = [name for index, (name, _) in enumerate(log) if index == 0 or log[index - 1][0] != name]

    longest = "".join(turns)
    assert "ab" in longest
    assert len(turns) < 2 * 24, "some round began with the model that ended the round before"


def test_all_subjects_see_the_same_inputs(session: Session, splits: Splits) -> None:
    """What one model is asked, the other is asked too."""
    log: list[tuple[str, bytes]] = []
    subjects = {name: Watched(session, name, log) for name in ("a", "b")}
    interleave(subjects, splits["test"], blocks=6, calls_per_block=20, warmup=1, seed=3)

    asked = {name: {row for who, row in log if who == name} for name in subjects}
    assert asked["a"] == asked["b"]
    assert len(asked["a"]) > 20


def test_batch_is_the_number_of_rows_a_call(session: Session, splits: Splits) -> None:
    """Batches of 5 digits have 5 x 64 pixels of 4 bytes."""
    log: list[tuple[str, bytes]] = []
    interleave({"a": Watched(session, "a", log)}, splits["test"], mix=only(5), blocks=1, calls_per_block=3, seed=0)

    assert {len(row) for _, row in log} == {5 * 64 * 4}


def test_large_inputs_are_kept_few(session: Session, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs cut beforehand stay within their memory; some variety is kept in any case."""
    monkeypatch.setattr(stream, "FEED_BYTES", 1)
    log: list[tuple[str, bytes]] = []
    interleave({"a": Watched(session, "a", log)}, splits["test"], blocks=2, calls_per_block=40, seed=0)

    assert len({row for _, row in log}) == stream.MIN_FEEDS


def test_model_that_does_its_work_many_times_is_measured_as_slower(
    session: Session, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 times the work gives a ratio whose whole interval is far above 1, by p50 and by p95.

    By the clock of this thread's own CPU time, which neighbours on a busy machine do not move.
    """
    monkeypatch.setattr(module, "perf_counter_ns", time.thread_time_ns)
    subjects = {"once": session, "often": Watched(session, "often", [], times=30)}
    found = interleave(subjects, splits["test"], blocks=12, calls_per_block=20, seed=5)

    assert ratio(found["once"], found["often"], 0.5).low > 5
    assert ratio(found["once"], found["often"], 0.95).low > 2


def test_measuring_goes_on_until_the_effort_is_spent(session: Session, splits: Splits) -> None:
    """A width that cannot be reached ends at the largest number of rounds; one that is easy ends earlier."""
    subjects = {"a": session, "b": session}
    spent = interleave_until(
        subjects, splits["test"], reference="a", quantiles=(0.5,), confidence=0.95, seed=0, effort=QUICK
    )
    easy = Effort(half_width=1e6, min_rounds=4, max_rounds=200)
    early = interleave_until(
        subjects, splits["test"], reference="a", quantiles=(0.5,), confidence=0.95, seed=0, effort=easy
    )

    assert len(spent["a"].blocks) == QUICK.max_rounds
    assert len(early["a"].blocks) < easy.max_rounds


def test_least_rounds_are_measured_even_without_any_time_left(session: Session, splits: Splits) -> None:
    """A slow model on a short limit still gets rounds enough to have an interval."""
    hurried = Effort(half_width=0.0, min_rounds=4, max_rounds=50, max_seconds=0.0)
    found = interleave_until(
        {"a": session, "b": session},
        splits["test"],
        reference="a",
        quantiles=(0.5,),
        confidence=0.95,
        seed=0,
        effort=hurried,
    )

    assert len(found["a"].blocks) == 4


@given(st.integers(0, 10_000), st.floats(0.05, 20), st.sampled_from([0.5, 0.95]))
def test_ratio_contains_its_estimate_and_mirrors_when_swapped(seed: int, scale: float, q: float) -> None:
    """The interval holds the estimate: low <= value <= high, and the ratio of b to a is one over that of a to b."""
    a, b = simulated(rounds=30, seed=seed), simulated(rounds=30, scale=scale, seed=seed + 1)
    there, back = ratio(a, b, q, draws=200), ratio(b, a, q, draws=200)

    assert there.low <= there.value <= there.high
    assert back.value == pytest.approx(1 / there.value)
    assert back.low == pytest.approx(1 / there.high, rel=1e-6)


def test_ratio_interval_covers_the_truth_as_often_as_promised() -> None:
    """Of 300 simulated intervals at 95 % for a model that takes 0.8 of the time, 90 % or more hold 0.8."""
    held = 0
    for seed in range(300):
        a, b = simulated(rounds=60, seed=2 * seed), simulated(rounds=60, scale=0.8, seed=2 * seed + 1)
        found = ratio(a, b, 0.5, draws=500)
        held += found.low <= 0.8 <= found.high

    assert held / 300 >= 0.90


def test_burst_of_a_neighbour_does_not_decide_a_ratio() -> None:
    """A tenfold slowdown of one model in every tenth round moves the ratio by less than 2 %."""
    a, b = simulated(rounds=200, seed=1), simulated(rounds=200, seed=2)
    hit = b.blocks.copy()
    hit[::10] *= 10

    before, after = ratio(a, b, 0.5), ratio(a, Timings(blocks=hit, first_call_ms=1.0), 0.5)
    assert after.value == pytest.approx(before.value, rel=0.02)


def test_percentile_is_that_of_all_calls_with_an_interval_around_it() -> None:
    """The estimate is the plain quantile; the interval is wider than calls alone would make it, as blocks differ."""
    timings = simulated(rounds=80, seed=4)
    found = timings.percentile(0.95)

    assert found.value == np.quantile(timings.blocks, 0.95)
    assert found.low < found.value < found.high
    assert found.samples == timings.blocks.size


def test_ratio_refuses_times_of_different_rounds() -> None:
    """What was not measured together is not compared."""
    with pytest.raises(ValueError, match="same rounds"):
        ratio(simulated(rounds=10, seed=0), simulated(rounds=11, seed=0), 0.5)


@pytest.mark.parametrize(("scale", "quiet"), [(1.0, True), (1.08, False), (0.92, False)])
def test_aa_check_tells_a_quiet_node_from_one_that_differs_from_itself(scale: float, *, quiet: bool) -> None:
    """Equal distributions pass a band of 5 %; a model that is 8 % off itself does not, and the reason has numbers."""
    unrest = aa_check(
        simulated(rounds=400, seed=8), simulated(rounds=400, scale=scale, seed=9), quantiles=(0.5, 0.95), band=0.05
    )

    assert (unrest is None) is quiet
    if unrest is not None:
        assert "outside 0.952..1.050" in unrest.words
        assert 1.08 < unrest.factor < 1.2


def test_aa_check_refuses_a_node_that_is_too_noisy_to_tell() -> None:
    """Few and wild rounds give an interval wider than the band, even around 1."""
    generator = np.random.default_rng(5)

    def wild() -> NDArray[np.float64]:
        return np.asarray(np.exp(generator.normal(0, 0.8, (10, 1))) * np.ones((10, 20)))

    assert aa_check(Timings(wild(), 1.0), Timings(wild(), 1.0), quantiles=(0.5,), band=0.05) is not None
