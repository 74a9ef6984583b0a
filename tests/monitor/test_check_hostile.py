"""Windows as nobody wishes them, through the whole check: every signal is judged, or says in words why it is not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from optimizer_jobs.commands.check import command, drift, headroom, page, quality_verdict, segments
from optimizer_jobs.commands.check.command import run
from optimizer_jobs.errors import JobError
from retune.api.model import Task
from retune.api.monitoring import Headroom, Quality, Segments
from retune.api.watched import Verdict
from retune.contract.requests import CheckRequest, Window
from retune.contract.results import Reason, encode_result
from tests.monitor.shop import FIRST, HOUR, Array, Shop

LAST = FIRST + 1
FAILED = "ComparisonFailed"
NAMED = Segments(columns=("x[0]", "x[5]"))


def asked(shop: Shop, **changes: Any) -> CheckRequest:
    """Return the request for the second of two windows, which is asked everything."""
    earlier = Window(index=FIRST, start=FIRST * HOUR, end=LAST * HOUR)
    fields = {
        "headroom": Headroom(),
        "learned": earlier,
        "quality": Quality(min_labels=50),
        "segments": NAMED,
        "min_samples": 100,
    }
    return shop.request(LAST, **(fields | changes))


def serve(shop: Shop, change: Callable[[Array], Array] = np.asarray, labels: Any = np.asarray, rows: int = 300) -> None:
    """Capture a usual window and one that is changed; both have other rows."""
    half = len(shop.inputs) // 2
    shop.serve(FIRST, rows=300, among=np.arange(half), labels=labels)
    shop.serve(LAST, rows=rows, among=np.arange(half, 2 * half), change=change, labels=labels)


def each(value: float) -> Callable[[Array], Array]:
    """Return what sets a tenth of the values of a column, and all of another one."""

    def change(inputs: Array) -> Array:
        changed = inputs.copy()
        changed[::10, 1] = value
        changed[:, 2] = value
        return changed

    return change


@dataclass(frozen=True)
class Odd:
    """What a window holds."""

    task: Task = Task.REGRESSION
    change: Callable[[Array], Array] = np.asarray
    labels: Callable[[Array], Any] = np.asarray
    rows: int = 300


ODD: dict[str, Odd] = {
    "enormous numbers": Odd(change=each(1e35)),
    "the smallest numbers": Odd(change=each(1e-45)),
    "negative zeros": Odd(change=each(-0.0)),
    "no values": Odd(change=each(np.nan)),
    "infinities": Odd(change=each(np.inf)),
    "equal rows": Odd(change=lambda inputs: np.repeat(inputs[:1], len(inputs), axis=0)),
    "one row": Odd(rows=1),
    "infinite labels": Odd(labels=lambda truth: np.full(len(truth), np.inf)),
    "labels beyond measure": Odd(labels=lambda truth: np.where(truth > 140, 1.7e308, -1.7e308)),
    "labels of one value": Odd(labels=lambda truth: np.full(len(truth), 140.0)),
    "labels of one class": Odd(Task.CLASSIFICATION, labels=np.zeros_like),
    "labels of no class": Odd(Task.CLASSIFICATION, labels=lambda truth: truth + 7),
    "thousands of classes": Odd(Task.CLASSIFICATION, labels=lambda truth: np.arange(len(truth)) + 10_000),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # such as NumPy's of an overflow, which no Job stops at
@pytest.mark.parametrize("name", ODD)
def test_every_signal_is_judged_or_says_why_not(open_shop: Callable[[Task], Shop], name: str) -> None:
    """Nothing breaks: none of these is left to the guard."""
    odd = ODD[name]
    shop = open_shop(odd.task)
    serve(shop, odd.change, odd.labels, odd.rows)
    result = run(asked(shop))
    for verdict in (result.drift, result.quality, result.segment, result.headroom):
        assert verdict is not None
        assert verdict.message
        assert verdict.reason != FAILED, verdict.message
    assert all(FAILED not in words and "broke" not in words for words in result.violations)
    encode_result(result)


def test_requests_and_labels_that_come_twice_break_nothing(shop: Shop) -> None:
    """As where a server writes a request again, and somebody his labels."""
    serve(shop)
    path = next((shop.root / "captured").rglob("*.parquet"))
    parquet.write_table(parquet.read_table(path), path.with_name("again.parquet"))
    shop.label([f"{LAST}-0"] * 9, np.zeros(9, np.int64), "again")
    result = run(asked(shop))
    assert FAILED not in {one.reason for one in (result.drift, result.quality, result.segment, result.headroom) if one}


def test_labels_of_mixed_types_are_told(open_shop: Callable[[Task], Shop]) -> None:
    """One file has numbers and another one texts."""
    shop = open_shop(Task.REGRESSION)
    serve(shop)
    table = pa.table({"request_id": [f"{LAST}-{place}" for place in range(150)], "label": ["about 9"] * 150})
    parquet.write_table(table, shop.root / "labels" / "texts.parquet")
    result = run(asked(shop))
    for verdict in (result.drift, result.quality, result.segment, result.headroom):
        assert verdict is not None
        assert verdict.reason != FAILED, verdict.message


BROKEN: dict[str, tuple[Any, str, set[str]]] = {
    "columns": (command, "tables", {"drift"}),
    "one comparison after the other": (drift, "p_value", {"drift"}),
    "quality": (quality_verdict, "_measured", {"quality"}),
    "segments": (segments, "judge_segments", {"segment"}),
    "headroom": (headroom, "lesson_of", {"headroom"}),
    "schema": (command, "violations", set()),
    "names of changes": (drift, "looks_like", set()),
    "what columns carry": (command, "weigh", set()),
    "weights of labels": (quality_verdict, "selection_of", set()),
    "the page": (page, "_draw", set()),
}


def broken(*_: object, **__: object) -> None:
    """Break."""
    raise IndexError("odd rows")


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_costs_its_own_part_alone_and_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """All other signals are what they were; a segment that was raised before is not called clear."""
    serve(shop, change=lambda inputs: inputs + inputs.std(axis=0) * (np.arange(inputs.shape[1]) < 5))
    request = asked(shop, raised_segments=("x[0] missing", "region=EU"))
    sound = run(request)
    module, part, lost = BROKEN[name]
    monkeypatch.setattr(module, part, broken)
    result = run(request)
    assert "IndexError: odd rows" in capsys.readouterr().out
    for signal in ("drift", "quality", "headroom", "segment"):
        was, verdict = getattr(sound, signal), getattr(result, signal)
        if signal in lost:
            assert (verdict.verdict, verdict.reason) == (Verdict.UNKNOWN, FAILED)
            assert "IndexError: odd rows" in verdict.message
        else:
            assert (verdict.verdict, verdict.reason, verdict.value) == (was.verdict, was.reason, was.value)
    cleared = {one.name for one in result.segments if one.verdict is Verdict.CLEAR}
    assert ("region=EU" in cleared) is (name != "segments")


@pytest.mark.parametrize("error", [MemoryError(), JobError(Reason.SOURCE_UNREACHABLE, "pvc://a", "gone", "wait", 1)])
def test_what_another_try_may_mend_is_no_verdict(shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The Job fails, with more memory or later it is done."""

    def fail(*_: object, **__: object) -> None:
        raise error

    serve(shop)
    monkeypatch.setattr(headroom, "_judged", fail)
    with pytest.raises(type(error)):
        run(asked(shop))
