"""The pure parts of the bench on dated streams: how ways to retrain are scored, and the other ways themselves."""

import itertools
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from pyarrow import parquet

from optimizer_jobs.signature import Reading, Scale, Signature, TensorSpec
from tests.bench.streams import policies
from tests.bench.streams.live import Live
from tests.bench.streams.models import Fitted, fit
from tests.bench.streams.picture import Line, drawn
from tests.bench.streams.scores import (
    Floats,
    Played,
    Promotion,
    auc,
    best_switches,
    by_month,
    least_lost,
    log_loss,
    share_of_gain,
)
from tests.bench.streams.sources import Stream

DAY = np.timedelta64(86400, "s")
BEGINS = np.datetime64("2020-03-01", "s")


def shifting(*, rows_a_day: int = 40, turns: str = "2020-05-01") -> Stream:
    """Return half a year whose label follows one column, and from a day on its opposite."""
    days = np.arange(np.datetime64("2020-01-01", "s"), np.datetime64("2020-07-01", "s"), DAY)
    times = np.repeat(days, rows_a_day)
    generator = np.random.default_rng(0)
    values = generator.normal(size=(len(times), 2)).astype(np.float32)
    sign = np.where(times < np.datetime64(turns, "s"), 1, -1)
    labels = (sign * values[:, 0] + 0.5 * generator.normal(size=len(times)) > 0).astype(np.int64)
    return Stream("shifting", pd.DataFrame(values, columns=["a", "b"]), labels, times, BEGINS, "168h")


@pytest.fixture(scope="module", name="stream")
def _stream() -> Stream:
    return shifting()


@pytest.fixture(scope="module", name="delivered")
def _delivered(stream: Stream) -> Fitted:
    return fit(stream, np.arange(np.searchsorted(stream.times, stream.begins)))


def total(table: Floats, switches: tuple[int, ...]) -> float:
    """Return the loss of a plan."""
    serving, lost = 0, 0.0
    for month in range(len(table)):
        serving = month if month in switches else serving
        lost += table[serving, month]
    return lost


@pytest.mark.parametrize("seed", range(20))
def test_hindsight_finds_what_trying_all_plans_finds(seed: int) -> None:
    """No plan of all 32 loses less, and none as good has fewer replacements."""
    table = np.random.default_rng(seed).integers(0, 6, size=(6, 6)).astype(np.float64)
    found = tuple(best_switches(table))
    plans = [plan for size in range(6) for plan in itertools.combinations(range(1, 6), size)]
    best = min(plans, key=lambda plan: (total(table, plan), len(plan)))
    assert (total(table, found), len(found)) == (total(table, best), len(best))
    for most in range(6):
        assert least_lost(table, most) == min(total(table, plan) for plan in plans if len(plan) <= most)


def test_a_run_that_promotes_nothing_or_harm_is_a_false_alarm() -> None:
    """Three runs: one promoted nothing, one harmed, one helped. A month that the stream does not have says nothing."""
    steps = [Promotion(BEGINS, 0.5, 0.6), Promotion(BEGINS, 0.5, 0.4)]
    played = Played("x", np.zeros(1), runs=[BEGINS] * 3, promotions=steps)
    assert (played.harmful, played.false_alarms) == (1, 2)
    assert not Promotion(BEGINS, float("nan"), float("nan")).harmful


def test_a_share_of_the_gain_is_of_what_hindsight_gained() -> None:
    """Worse than frozen is below zero; where hindsight gains nothing there is no share."""
    assert share_of_gain(0.6, 0.55, 0.5) == pytest.approx(0.5)
    assert share_of_gain(0.6, 0.65, 0.5) == pytest.approx(-0.5)
    assert np.isnan(share_of_gain(0.6, 0.6, 0.6))


def test_numbers_are_those_of_scikit_learn() -> None:
    """Log-loss and AUC, in all and by month."""
    generator = np.random.default_rng(1)
    labels, answers = generator.integers(0, 2, 300), generator.random(300)
    times = np.datetime64("2020-01-01", "s") + np.arange(300) * DAY / 5
    assert log_loss(answers, labels) == pytest.approx(sklearn.metrics.log_loss(labels, answers))
    assert auc(answers, labels) == pytest.approx(sklearn.metrics.roc_auc_score(labels, answers))
    months = [np.datetime64(f"2020-0{month}-01", "s") for month in (1, 2, 3)]
    january = times < months[1]
    first, second = by_month(answers, labels, times, months)
    assert first[0] == pytest.approx(sklearn.metrics.log_loss(labels[january], answers[january]))
    assert second[1] == pytest.approx(sklearn.metrics.roc_auc_score(labels[~january], answers[~january]))
    assert np.isnan(auc(answers[:1], labels[:1]))


def test_a_stream_knows_its_rows_and_months(stream: Stream) -> None:
    """Spans are half open; months are those of live rows, and the one after them."""
    day = stream.between(BEGINS, BEGINS + DAY)
    assert (len(day), stream.times[day[0]], stream.times[day[-1]]) == (40, BEGINS, BEGINS)
    assert [str(month)[:7] for month in stream.months()] == ["2020-03", "2020-04", "2020-05", "2020-06", "2020-07"]
    assert len(stream.until(BEGINS + DAY)) == day[-1] + 1
    assert stream.window_days == 7


def test_ways_to_retrain_differ_as_they_should(stream: Stream, delivered: Fitted) -> None:
    """After the turn the frozen model is wrong, each month repairs it a month late, and hindsight wastes no run."""
    frozen = policies.frozen(stream, delivered)
    models = policies.Monthly.of(stream, delivered)
    monthly, hindsight, table = policies.every_month(models), policies.hindsight(models), models.losses
    live = slice(int(np.searchsorted(stream.times, BEGINS)), None)
    lost = [log_loss(each.answers[live], stream.labels[live]) for each in (frozen, monthly, hindsight)]
    assert lost[0] > lost[1] >= lost[2]
    assert [str(run)[:7] for run in monthly.runs] == ["2020-04", "2020-05", "2020-06"]
    assert len(monthly.promotions) == 3
    assert hindsight.harmful == 0
    assert str(hindsight.runs[-1])[:7] == "2020-06"
    before = live.start
    assert np.isnan(monthly.answers[:before]).all()
    assert total(table, tuple(best_switches(table))) == pytest.approx(lost[2] * len(stream.labels[live]))


def test_evidently_retrains_for_moved_columns_and_nothing_else(
    stream: Stream, delivered: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From April on every column is called drifted: one run a window; before, none."""

    def share(_stream: Stream, _reference: np.ndarray, window: np.ndarray) -> float:
        return float(_stream.times[window[0]] >= np.datetime64("2020-04-01"))

    monkeypatch.setattr(policies, "_share", share)
    played = policies.evidently(stream, delivered)
    assert str(played.runs[0])[:10] == "2020-04-12"
    assert set(np.diff(np.asarray(played.runs))) == {7 * DAY}


def test_the_picture_marks_what_harmed() -> None:
    """A dot for a promotion, a cross for one that harmed, and names that need escaping."""
    line = Line(np.asarray([0.0, -0.1, 0.3]), promoted=(1, 2), harmful=(1,))
    text = drawn({"<Retune>": line}, title="flights & more", months=[(0.0, "2013-03")])
    picture = ET.fromstring(text)  # noqa: S314 - our own text
    tag = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{tag}circle")) == 1
    assert len([path for path in picture.findall(f"{tag}path") if path.find(f"{tag}title") is not None]) == 1
    assert "<Retune>" in [each.text for each in picture.findall(f"{tag}text")]


class Half:
    """A server that finds everything as likely as not."""

    digest = "sha256:" + "ab" * 32
    signature = Signature(
        inputs=tuple(TensorSpec(name=name, dtype="float32", shape=(-1, 1)) for name in ("a", "b")),
        outputs=(TensorSpec(name="probabilities", dtype="float32", shape=(-1, 2)),),
        reading=Reading(scores="probabilities", scale=Scale.PROBABILITIES),
    )

    def answer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return one half twice for every row."""
        return {"probabilities": np.full((len(inputs["a"]), 2), 0.5, dtype=np.float32)}


def test_what_is_served_is_captured_at_once_and_labelled_later(stream: Stream, tmp_path: Path) -> None:
    """After two days both are captured, the first is labelled, and the labels are as old as what they tell."""
    live = Live(stream, tmp_path)
    live.serve_until(BEGINS + DAY, Half())  # type: ignore[arg-type] # answers as a bundle does
    live.serve_until(BEGINS + 2 * DAY, Half())  # type: ignore[arg-type]
    rows = stream.between(BEGINS, BEGINS + 2 * DAY)
    captured = pd.concat(parquet.read_table(path).to_pandas() for path in (tmp_path / "captured").rglob("*.parquet"))
    assert sorted(captured["request_id"]) == sorted(f"r{row}" for row in rows)
    labels = {path: parquet.read_table(path).to_pandas() for path in (tmp_path / "labels").glob("*.parquet")}
    told = pd.concat(labels.values()).set_index("request_id")["label"]
    assert dict(told) == {f"r{row}": stream.labels[row] for row in rows}
    assert {path.stat().st_mtime for path in labels} == {float((BEGINS + day * DAY).astype(int)) for day in (1, 2)}
    assert np.isfinite(live.answers[rows]).all()
    assert np.isnan(np.delete(live.answers, rows)).all()


def test_a_shorter_stream_keeps_its_beginning(stream: Stream) -> None:
    """What is cut off is its end alone."""
    cut = stream.until(np.datetime64("2020-04-01"))
    assert cut == replace(stream, rows=cut.rows, labels=cut.labels, times=cut.times)
    assert cut.times[-1] == np.datetime64("2020-03-31", "s")
