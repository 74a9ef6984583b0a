"""Alerts, dashboard and live numbers against a real Prometheus, so that nothing is right by our own reading alone."""

import asyncio
import bisect
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from prometheus_client import REGISTRY, generate_latest

from retune.plan.observed import Live, ServingPod
from retune.settings import Server
from retune.signals.live import LiveReader
from tests import samples
from tests.cluster import prometheus
from tests.cluster.chart import of_kind, rendered
from tests.cluster.harness import Bench
from tests.cluster.test_runtime_operator import idle, running, until
from tests.unit.operator import test_signals_exposition as exposition
from tests.unit.operator.web import serving

Json = dict[str, Any]
EVERYTHING = ("metrics.prometheusRule.enabled=true", "metrics.dashboard.enabled=true")
FIRING: dict[str, tuple[dict[str, str], str]] = {
    "RetuneDriftDetected": ({'retune_conditions{type="DriftDetected",status="True"}': "2x90"}, "5m"),
    "RetuneQualityDegraded": ({'retune_conditions{type="QualityDegraded",status="True"}': "1x90"}, "5m"),
    "RetunePerformanceDegraded": ({'retune_conditions{type="PerformanceDegraded",status="True"}': "1x90"}, "5m"),
    "RetuneMonitoringUnreliable": ({'retune_conditions{type="MonitoringReliable",status="False"}': "1x90"}, "20m"),
    "RetuneCheckLate": ({"retune_check_lateness_seconds": "0+60x90"}, "40m"),
    "RetuneCircuitOpen": ({'retune_conditions{type="CircuitOpen",status="True"}': "1x90"}, "5m"),
    "RetuneRunFailed": ({'retune_runs_total{trigger="Drift",outcome="Failed"}': "0x10 1x80"}, "15m"),
    "RetuneBundleLost": ({'retune_conditions{type="BundleAvailable",status="False"}': "1x90"}, "1m"),
    "RetuneRollbackStuck": ({'retune_resources{stage="RollingBack"}': "1x90"}, "35m"),
    "RetuneOperatorAbsent": ({}, "15m"),
}
"""Series that make each alert fire, a value a minute, and when it does."""
QUIET = {
    'retune_conditions{type="DriftDetected",status="True"}': "0x90",
    'retune_conditions{type="DriftDetected",status="False"}': "3x90",
    'retune_conditions{type="QualityDegraded",status="Unknown"}': "3x90",
    'retune_conditions{type="BundleAvailable",status="True"}': "3x90",
    'retune_conditions{type="BundleAvailable",status="Unknown"}': "1x90",
    'retune_conditions{type="MonitoringReliable",status="True"}': "3x90",
    'retune_conditions{type="MonitoringReliable",status="False"}': "0x30 1x5 0x50",  # a hiccup
    "retune_check_lateness_seconds": "0x20 900x70",
    'retune_runs_total{trigger="Drift",outcome="Promoted"}': "0+1x90",
    'retune_resources{stage="RollingBack"}': "0x20 1x20 0x50",  # a rollback that ends
}
UP = {"retune_max_workers": "16x90"}


def rules() -> Json:
    """The chart's alerts, as a rule file."""
    (rule,) = of_kind(rendered(*EVERYTHING), "PrometheusRule")
    found: Json = rule["spec"]
    return found


def alert_names() -> set[str]:
    """Every alert of the chart."""
    return {rule["alert"] for group in rules()["groups"] for rule in group["rules"]}


def queries() -> list[str]:
    """Every query of the dashboard, with the interval that Grafana would fill in."""
    (shown,) = of_kind(rendered(*EVERYTHING), "ConfigMap")
    panels = json.loads(shown["data"]["retune.json"])["panels"]
    return [each["expr"].replace("$__rate_interval", "1m") for panel in panels for each in panel["targets"]]


def _series(values: dict[str, str]) -> list[Json]:
    """Series as promtool takes them, each of one operator's pod."""
    found = []
    for name, numbers in values.items():
        labels = 'namespace="ops",pod="retune-1",instance="10.0.0.1:8080"'
        full = f"{name[:-1]},{labels}}}" if name.endswith("}") else f"{name}{{{labels}}}"
        found.append({"series": full, "values": numbers})
    return found


def _loud(alert: str) -> Json:
    """A test in which this alert fires, and fires only once."""
    values, at = FIRING[alert]
    up = {} if alert == "RetuneOperatorAbsent" else UP
    query = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    return {
        "interval": "1m",
        "input_series": _series(values | up),
        "promql_expr_test": [{"expr": query, "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]}],
    }


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    """Expressions, durations and templates are Prometheus' own."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    assert f"{len(FIRING)} rules found" in prometheus.promtool("check", "rules", tmp_path / "rules.yaml")


def test_every_alert_fires_for_its_cause_and_for_nothing_else(tmp_path: Path) -> None:
    """Each with the series that mean it; a healthy operator, hiccups included, raises none."""
    assert FIRING.keys() == alert_names()
    quiet = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
        for alert in sorted(FIRING)
        for minute in (10, 32, 39, 60, 90)
    ]
    tests = [{"interval": "1m", "input_series": _series(QUIET | UP), "alert_rule_test": quiet}, *map(_loud, FIRING)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in prometheus.promtool("test", "rules", tmp_path / "tests.yaml")


async def test_alerts_and_dashboard_ask_for_what_the_operator_tells(bench: Bench, tmp_path: Path) -> None:
    """A real Prometheus scrapes a real operator: every query is valid and every metric in it exists."""
    bench.deploy()
    async with running(bench) as operator:
        bench.declare(execution={})
        await until(lambda: bool(bench.jobs) and idle(operator))
        assert operator.port is not None
        with prometheus.running(tmp_path, {"retune": operator.port}) as server:
            await until(lambda: server.number("retune_max_workers") is not None)
            told = {each["metric"]["__name__"] for each in await asyncio.to_thread(server.query, '{job="retune"}')}
            asked = [*queries(), *(rule["expr"] for group in rules()["groups"] for rule in group["rules"])]
            answers = [await asyncio.to_thread(server.query, text) for text in asked]
            stages = await asyncio.to_thread(server.query, "retune_resources > 0")
    missing = {name for text in asked for name in re.findall(r"\bretune_\w+", text)} - told
    assert not missing
    assert sum(bool(answer) for answer in answers) >= len(queries()) / 2
    assert [(each["metric"]["stage"], each["value"][1]) for each in stages] == [("Baselining", "1")]


WINDOW = 6.0
TIMES = (0.012, 0.018, 0.021, 0.031, 0.042, 0.047, 0.06, 0.09, 0.13, 0.4)
"""Durations that come again and again: their p95 lies between 0.25 and 0.5 s."""
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0)
PODS = 'job="pods",path="/v2/models/{model_name}/infer"'


def watched(port: int) -> Any:
    """A resource that asks both: the pods themselves, and Prometheus for the same."""
    of = f"{{{PODS}}}[{{{{window}}}}]"
    slow = f"histogram_quantile(0.95, sum by (le) (rate(rest_server_request_duration_seconds_bucket{of})))"
    count = f"sum(rate(rest_server_requests_total{of}))"
    failed = count.replace('job="pods"', 'job="pods",status_code=~"5.."')
    signals = [
        {"name": "p95", "kind": "Latency", "limit": "1"},
        {"name": "p95-asked", "kind": "Latency", "limit": "1", "query": slow},
        {"name": "errors", "kind": "ErrorRate", "limit": "1"},
        {"name": "errors-asked", "kind": "ErrorRate", "limit": "1", "query": f"{failed} / {count}"},
        {"name": "rate", "kind": "Throughput"},
        {"name": "rate-asked", "kind": "Throughput", "query": count},
    ]
    performance = {"pods": {"port": port}, "prometheus": {"server": "main"}, "signals": signals}
    return samples.resource(monitoring={"window": f"{WINDOW:g}s", "performance": performance})


async def _traffic(server: exposition.Server) -> None:
    """Answer requests until cancelled: one in twenty fails, and probes come between."""
    for number in itertools.count():
        server.answer(TIMES[number % len(TIMES)], status=500 if number % 20 == 0 else 200)
        server.answer(0.0001, path=exposition.PROBE)
        await asyncio.sleep(0.01)


async def _watch(reader: LiveReader, resource: Any, pods: list[ServingPod]) -> Live:
    """Observe as the operator does until the first whole window has ended."""
    index = int(time.time() // WINDOW) + 1
    while True:
        await reader.observe(resource, pods)
        found = await reader.window(resource, pods, index=index, start=index * WINDOW, end=(index + 1) * WINDOW)
        if found is not None:
            return found
        await asyncio.sleep(min(0.5, max(0.05, reader.wait(resource) or 0.0)))


async def test_live_numbers_are_those_that_prometheus_finds(tmp_path: Path) -> None:
    """Scraped by us and by Prometheus, the same pod has the same p95 bucket, error rate and throughput."""
    pod = exposition.Server()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=pod.text + generate_latest(REGISTRY).decode())

    async with serving(answer) as port:
        with prometheus.running(tmp_path, {"pods": port}) as server:
            reader = LiveReader({"main": Server(server.url, namespaces=("*",))})
            traffic = asyncio.create_task(_traffic(pod))
            try:
                await until(lambda: server.number('up{job="pods"} == 1') is not None, traffic)
                live = await _watch(reader, watched(port), [ServingPod("a", "127.0.0.1", 1.0)])
            finally:
                traffic.cancel()
                await reader.close()
    assert {each.reason for each in live.numbers} == {"Measured"}, live.numbers
    found = {each.name: each.value or 0.0 for each in live.numbers}
    assert bisect.bisect_left(BOUNDS, found["p95"]) == bisect.bisect_left(BOUNDS, found["p95-asked"])
    assert found["p95"] == pytest.approx(found["p95-asked"], rel=0.1)
    assert found["errors"] == pytest.approx(found["errors-asked"], rel=0.2)
    assert found["rate"] == pytest.approx(found["rate-asked"], rel=0.2)
    assert live.saturation is not None
    assert live.saturation > 0
