"""Totals of a pod from what it exposes, how they grow, and the numbers that come of it."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from retune.api.monitoring import LiveKind, LiveSignal, PodMetrics
from retune.signals.bounded import UnreadableError
from retune.signals.exposition import MAX_BUCKETS, MAX_SAMPLES, Totals, added, increase, read
from retune.signals.live_numbers import Window, number, quantile

METRICS = PodMetrics()
INFER, PROBE = "/v2/models/{model_name}/infer", "/v2/models/{model_name}/ready"


class Server:
    """Counts requests with the client library, names and labels that MLServer does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "path", "status_code", "app_name")
        self.count = Counter(METRICS.requests, "Total HTTP requests", labels, registry=self.registry)
        self.time = Histogram(METRICS.latency, "HTTP request duration", labels, registry=self.registry)

    def answer(self, seconds: float, *, status: int = 200, path: str = INFER, times: int = 1) -> None:
        """Answer requests."""
        labels = ("POST", path, status, "mlserver")
        self.count.labels(*labels).inc(times)
        for _ in range(times):
            self.time.labels(*labels).observe(seconds)

    @property
    def text(self) -> str:
        """What it exposes."""
        return generate_latest(self.registry).decode()


def a_signal(kind: LiveKind, name: str = "s") -> LiveSignal:
    """A signal without a query."""
    return LiveSignal(name=name, kind=kind, limit="1")


def seen(totals: Totals, *, seconds: float = 10.0, allowed: float | None = None) -> Window:
    """A window in which that was counted."""
    return Window(totals, seconds, allowed)


def test_the_defaults_are_those_of_mlserver() -> None:
    """What MLServer 1.7.1 exposed after three good requests, one that failed in the model, and a readiness probe."""
    totals = read((Path(__file__).parent / "data" / "mlserver-1.7.1.txt").read_text(), METRICS)
    assert (totals.requests, totals.errors, totals.buckets[math.inf]) == (4, 1, 4)
    assert totals.cpu == pytest.approx(0.93)
    assert totals.started is not None


def test_what_is_asked_beside_inference_does_not_count() -> None:
    """Requests over all labels, errors and refusals by status, buckets added up; probes count for nothing."""
    server = Server()
    server.answer(0.02, times=87)
    server.answer(0.02, times=3, status=422)
    server.answer(0.2, times=10, status=500)
    server.answer(0.001, times=1000, path=PROBE)
    totals = read(server.text, METRICS)
    assert (totals.requests, totals.errors, totals.refused) == (100, 10, 3)
    assert (totals.buckets[0.01], totals.buckets[0.025], totals.buckets[math.inf]) == (0, 90, 100)
    assert read(server.text, PodMetrics(path_suffix="")).requests == 1100


def test_a_server_without_path_and_status_still_counts() -> None:
    """The histogram alone tells requests; errors are unknown, not zero."""
    registry = CollectorRegistry()
    Histogram("h", "x", registry=registry).observe(0.3)
    totals = read(generate_latest(registry).decode(), PodMetrics(latency="h", requests="none"))
    assert (totals.requests, totals.errors, totals.refused) == (1, None, None)
    assert number(a_signal(LiveKind.ERROR_RATE), seen(totals), METRICS).reason == "NoData"


def test_what_was_not_asked_for_is_not_even_parsed() -> None:
    """Garbage and other metrics beside the wanted ones do no harm."""
    server = Server()
    server.answer(0.02)
    noise = '}}} garbage {{{\nother{a="b"} NaN\n# TYPE other counter\n' * 50
    assert read(noise + server.text + noise, METRICS) == read(server.text, METRICS)


@pytest.mark.parametrize(
    "line, words",
    [
        (f'{METRICS.requests}{{status_code="200"}} NaN', "no total"),
        (f'{METRICS.requests}{{status_code="200"}} -1', "no total"),
        (f'{METRICS.requests}{{status_code="200"}} +Inf', "no total"),
        (f'{METRICS.requests}{{status_code="200"}} many', "malformed"),
        (f'{METRICS.requests}{{status_code="200', "malformed"),
        (f"{METRICS.requests}{{", "malformed"),
        (f"{METRICS.requests}", "malformed"),
        (f"{METRICS.latency}_bucket 3", "without a bound"),
        (f'{METRICS.latency}_bucket{{le="wide"}} 3', "without a bound"),
        (f'{METRICS.latency}_bucket{{le="NaN"}} 3', "bound NaN"),
        ("\n".join(f'{METRICS.latency}_bucket{{le="{n}"}} 3' for n in range(MAX_BUCKETS + 1)), "buckets"),
        ("\n".join(f'{METRICS.requests}{{a="{n}"}} 3' for n in range(MAX_SAMPLES + 1)), "samples"),
    ],
)
def test_a_wanted_line_that_is_no_total_makes_the_scrape_unusable(line: str, words: str) -> None:
    """Rather no number than one that a damaged exposition made up."""
    with pytest.raises(UnreadableError, match=words):
        read(line + "\n", METRICS)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is raised, even for the start of a wanted line."""
    for start in ("", METRICS.requests, METRICS.requests + "{", METRICS.latency + "_bucket{"):
        try:
            totals = read(start + text, METRICS)
        except UnreadableError:
            continue
        assert totals.requests is None or totals.requests >= 0


def test_a_growth_is_the_difference() -> None:
    """Of each total by itself; a series that is new counts from zero."""
    server = Server()
    server.answer(0.02, times=5)
    before = read(server.text, METRICS)
    server.answer(0.02, times=3)
    server.answer(2.0, status=503)
    grown = increase(before, read(server.text, METRICS))
    assert (grown.requests, grown.errors) == (4, 1)
    assert grown.buckets[math.inf] == 4
    assert grown.buckets[0.025] == 3


def test_a_restart_counts_from_zero() -> None:
    """Whether the process says when it started, or its counters have merely fallen, or have overtaken the old ones."""
    after = Totals(requests=3, cpu=0.5, buckets={math.inf: 3})
    assert increase(Totals(requests=100, cpu=9, buckets={math.inf: 100}), after).requests == 3
    old = Totals(requests=2, cpu=0.1, buckets={1.0: 2, math.inf: 2}, started=1000.0)
    grown = increase(old, Totals(requests=3, cpu=0.5, buckets={1.0: 3, math.inf: 3}, started=2000.0))
    assert (grown.requests, grown.cpu, grown.buckets[1.0]) == (3, 0.5, 3)


@given(st.lists(st.integers(min_value=0, max_value=50), min_size=2, max_size=20), st.data())
def test_growths_add_up_to_what_was_counted(steps: list[int], data: st.DataObject) -> None:
    """However often a server is scraped, and wherever it restarts, no growth is negative and none counts twice."""
    restarts = data.draw(st.sets(st.integers(min_value=1, max_value=len(steps) - 1)))
    scrapes, value = [], 0.0
    for index, step in enumerate(steps):
        value = step if index in restarts else value + step
        scrapes.append(Totals(requests=value, started=float(100 * len([r for r in restarts if r <= index]))))
    total = Totals()
    for before, after in pairwise(scrapes):
        total = added(total, increase(before, after))
    assert total.requests == sum(steps[1:])


@pytest.mark.parametrize("share, expected", [(0.45, 0.05), (0.5, 0.1 * 50 / 90), (0.9, 0.1), (0.95, 1.0), (0.99, 1.0)])
def test_quantiles_are_interpolated_as_prometheus_does(share: float, expected: float) -> None:
    """Within a bucket linearly; above the last finite bound that bound."""
    buckets = {0.1: 90.0, 1.0: 90.0, math.inf: 100.0}
    assert quantile(share, buckets) == pytest.approx(expected)


@pytest.mark.parametrize("buckets", [{}, {math.inf: 5.0}, {0.1: 5.0}, {0.1: 0.0, math.inf: 0.0}])
def test_no_quantile_without_requests_or_buckets(buckets: dict[float, float]) -> None:
    """Prometheus answers NaN here."""
    assert quantile(0.95, buckets) is None


@given(
    st.lists(st.floats(min_value=0, max_value=1e9), min_size=2, max_size=20),
    st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.99]),
)
def test_a_quantile_lies_within_the_bounds_whatever_is_counted(counts: list[float], share: float) -> None:
    """Buckets that fall, as after a torn read, never make a negative or infinite time."""
    bounds = [0.1 * (index + 1) for index in range(len(counts) - 1)] + [math.inf]
    value = quantile(share, dict(zip(bounds, counts, strict=True)))
    assert value is None or 0 <= value <= bounds[-2]


def test_a_latency_without_a_query_tells_its_quantile_by_name() -> None:
    """p95 where the name says nothing."""
    window = seen(Totals(requests=100, buckets={0.1: 60, 0.2: 97, 1.0: 100, math.inf: 100}))
    asked = {name: number(a_signal(LiveKind.LATENCY, name), window, METRICS).value for name in ("p50", "slow-p99", "x")}
    assert asked["p50"] == pytest.approx(0.1 * 50 / 60)
    assert asked["slow-p99"] == pytest.approx(0.2 + 0.8 * 2 / 3)
    assert asked["x"] == pytest.approx(0.1 + 0.1 * 35 / 37)


def test_rates_and_shares() -> None:
    """Errors by request, requests by second, CPU by what is allowed or throttled periods if those are more."""
    grown = Totals(requests=200, errors=10, cpu=6.0, periods=100, throttled=40)
    window = seen(grown, seconds=20, allowed=20.0)
    assert number(a_signal(LiveKind.ERROR_RATE), window, METRICS).value == 0.05
    assert number(a_signal(LiveKind.THROUGHPUT), window, METRICS).value == 10
    assert number(a_signal(LiveKind.SATURATION), window, METRICS).value == 0.4
    assert seen(Totals(cpu=18.0), allowed=20.0).saturation == 0.9
    assert seen(Totals(cpu=18.0)).saturation is None


@pytest.mark.parametrize("kind", list(LiveKind))
def test_nothing_counted_is_no_number(kind: LiveKind) -> None:
    """With a sentence for people, and never a zero."""
    nothing = number(a_signal(kind), seen(Totals()), METRICS)
    assert (nothing.value, nothing.reason) == (None, "NoData")
    assert nothing.message.endswith(".")


def test_a_window_without_requests_has_a_throughput_and_no_latency() -> None:
    """Zero requests are zero a second, but neither fast nor without errors."""
    window = seen(Totals(requests=0, errors=0, buckets={1.0: 0, math.inf: 0}))
    assert number(a_signal(LiveKind.THROUGHPUT), window, METRICS).value == 0
    assert number(a_signal(LiveKind.LATENCY), window, METRICS).reason == "NoData"
    assert number(a_signal(LiveKind.ERROR_RATE), window, METRICS).reason == "NoData"
