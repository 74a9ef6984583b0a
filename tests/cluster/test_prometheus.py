"""Alerts, dashboard and live numbers against a real Prometheus, so that nothing is right by our own reading alone."""

import asyncio
import bisect
import itertools
import json
import re
import time
from functools import reduce
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
from tests.cluster.running import idle, running, until
from tests.unit.operator import test_signals_exposition as exposition
from tests.unit.operator.web import serving

Json = dict[str, Any]
EVERYTHING = ("metrics.prometheusRule.enabled=true", "metrics.dashboard.enabled=true")
MODEL = 'namespace="ml",name="digits"'


def condition(kind: str, status: str) -> str:
    """The series of a model of which a condition says this."""
    return f'retune_resource_condition{{{MODEL},type="{kind}",status="{status}",reason="R"}}'


def last_run(outcome: str) -> str:
    """The series of a model whose last run ended so."""
    return f'retune_resource_last_run_timestamp_seconds{{{MODEL},outcome="{outcome}"}}'


FIRING: dict[str, tuple[dict[str, str], str]] = {
    "RetuneDriftDetected": ({condition("DriftDetected", "True"): "1x90"}, "5m"),
    "RetuneQualityDegraded": ({condition("QualityDegraded", "True"): "1x90"}, "5m"),
    "RetunePerformanceDegraded": ({condition("PerformanceDegraded", "True"): "1x90"}, "5m"),
    "RetuneMonitoringUnreliable": ({condition("MonitoringReliable", "False"): "1x90"}, "20m"),
    "RetuneCheckLate": ({f"retune_resource_check_lateness_seconds{{{MODEL}}}": "0+60x90"}, "40m"),
    "RetuneCircuitOpen": ({condition("CircuitOpen", "True"): "1x90"}, "5m"),
    "RetuneStalled": ({condition("Stalled", "True"): "1x90"}, "65m"),
    "RetuneRunFailed": ({last_run("Failed"): "_x10 600x80"}, "15m"),
    "RetuneRolledBack": ({last_run("RolledBack"): "_x10 600x80"}, "15m"),
    "RetuneBundleLost": ({condition("BundleAvailable", "False"): "1x90"}, "1m"),
    "RetuneRollbackStuck": ({f'retune_resource_stage{{{MODEL},stage="RollingBack"}}': "1x90"}, "35m"),
    "RetuneApprovalWaits": ({f'retune_resource_stage{{{MODEL},stage="AwaitingApproval"}}': "1x90"}, "65m"),
    "RetuneReconcileErrors": ({"retune_reconcile_errors_total": "0+1x90"}, "40m"),
    "RetuneOperatorAbsent": ({}, "15m"),
}
"""Series that make each alert fire, a value a minute, and when it does."""
UNNAMED: dict[str, tuple[dict[str, str], str]] = {
    "RetuneDriftDetected": ({'retune_conditions{type="DriftDetected",status="True"}': "2x90"}, "5m"),
    "RetuneQualityDegraded": ({'retune_conditions{type="QualityDegraded",status="True"}': "1x90"}, "5m"),
    "RetunePerformanceDegraded": ({'retune_conditions{type="PerformanceDegraded",status="True"}': "1x90"}, "5m"),
    "RetuneMonitoringUnreliable": ({'retune_conditions{type="MonitoringReliable",status="False"}': "1x90"}, "20m"),
    "RetuneCheckLate": ({"retune_check_lateness_seconds": "0+60x90"}, "40m"),
    "RetuneCircuitOpen": ({'retune_conditions{type="CircuitOpen",status="True"}': "1x90"}, "5m"),
    "RetuneStalled": ({'retune_conditions{type="Stalled",status="True"}': "1x90"}, "65m"),
    "RetuneRunFailed": ({'retune_runs_total{trigger="Drift",outcome="Failed"}': "0x10 1x80"}, "15m"),
    "RetuneRolledBack": ({'retune_rollbacks_total{reason="GoldenMismatch"}': "0x10 1x80"}, "15m"),
    "RetuneBundleLost": ({'retune_conditions{type="BundleAvailable",status="False"}': "1x90"}, "1m"),
    "RetuneRollbackStuck": ({'retune_resources{stage="RollingBack"}': "1x90"}, "35m"),
    "RetuneApprovalWaits": ({'retune_resources{stage="AwaitingApproval"}': "1x90"}, "65m"),
}
"""The same in a cluster with more models than metrics name."""
QUIET = {
    condition("DriftDetected", "False"): "1x90",
    condition("QualityDegraded", "Unknown"): "1x90",
    condition("MonitoringReliable", "True"): "1x30 _x5 1x50",
    condition("MonitoringReliable", "False"): "_x31 1x5 _x50",  # a hiccup
    condition("Stalled", "True"): "1x40 _x50",  # somebody came
    condition("Stalled", "False"): "_x41 1x40",
    f"retune_resource_check_lateness_seconds{{{MODEL}}}": "0x20 900x70",
    last_run("Promoted"): "0x90",
    f'retune_resource_stage{{{MODEL},stage="RollingBack"}}': "_x20 1x20 _x50",  # a rollback that ends
    f'retune_resource_stage{{{MODEL},stage="AwaitingApproval"}}': "1x40 _x50",  # somebody came
    "retune_reconcile_errors_total": "0x20 3x70",
    'retune_conditions{type="DriftDetected",status="True"}': "0x90",
    'retune_conditions{type="DriftDetected",status="False"}': "3x90",
    'retune_conditions{type="QualityDegraded",status="Unknown"}': "3x90",
    'retune_conditions{type="BundleAvailable",status="True"}': "3x90",
    'retune_conditions{type="BundleAvailable",status="Unknown"}': "1x90",
    'retune_conditions{type="MonitoringReliable",status="True"}': "3x90",
    'retune_conditions{type="MonitoringReliable",status="False"}': "0x30 1x5 0x50",
    "retune_check_lateness_seconds": "0x20 900x70",
    'retune_runs_total{trigger="Drift",outcome="Promoted"}': "0+1x90",
    'retune_rollbacks_total{reason="GoldenMismatch"}': "0x90",
    'retune_resources{stage="RollingBack"}': "0x20 1x20 0x50",
}
UP = {"retune_max_workers": "16x90"}
ROOT = Path(__file__).parents[2]


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
    filled = {"$__rate_interval": "1m", "$namespace": ".*", "$model": ".*"}
    asked = [each["expr"] for panel in panels for each in panel["targets"]]
    return [reduce(lambda text, variable: text.replace(variable, filled[variable]), filled, text) for text in asked]


def _series(values: dict[str, str]) -> list[Json]:
    """Series as promtool takes them, each of one operator's pod; a model's namespace is honoured."""
    found = []
    for name, numbers in values.items():
        labels = 'pod="retune-1",instance="10.0.0.1:8080"' + ("" if "namespace=" in name else ',namespace="ops"')
        full = f"{name[:-1]},{labels}}}" if name.endswith("}") else f"{name}{{{labels}}}"
        found.append({"series": full, "values": numbers})
    return found


def _loud(alert: str, case: tuple[dict[str, str], str], *, unnamed: int) -> Json:
    """A test in which this alert fires, and fires only once: for the model where it has a name."""
    values, at = case
    up = {} if alert == "RetuneOperatorAbsent" else UP | {"retune_unnamed_resources": f"{unnamed}x90"}
    labels = f'alertname="{alert}",alertstate="firing"'
    named = f",{MODEL}" if any(MODEL in name for name in values) else ""
    return {
        "interval": "1m",
        "input_series": _series(values | up),
        "promql_expr_test": [
            {"expr": f"count(ALERTS{{{of}}})", "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]}
            for of in (labels, labels + named)
        ],
    }


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    """Expressions, durations and templates are Prometheus' own."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    assert f"{len(FIRING)} rules found" in prometheus.promtool("check", "rules", tmp_path / "rules.yaml")


def test_every_alert_fires_for_its_cause_and_for_nothing_else(tmp_path: Path) -> None:
    """Each with the series that mean it, by the model's name where that is told; a healthy operator raises none."""
    assert FIRING.keys() == alert_names()
    assert UNNAMED.keys() == {name for name in FIRING if any(MODEL in series for series in FIRING[name][0])}
    quiet = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
        for alert in sorted(FIRING)
        for minute in (10, 32, 39, 60, 90)
    ]
    loud = [
        *(_loud(alert, case, unnamed=0) for alert, case in FIRING.items()),
        *(_loud(alert, case, unnamed=3) for alert, case in UNNAMED.items()),
    ]
    calm = {"interval": "1m", "input_series": _series(QUIET | UP), "alert_rule_test": quiet}
    tests = [calm, *loud]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in prometheus.promtool("test", "rules", tmp_path / "tests.yaml")


def test_every_alert_leads_to_a_page_about_it() -> None:
    """The page is in docs/, has that heading, and is below whatever address the administrator gives."""
    for rule in (rule for group in rules()["groups"] for rule in group["rules"]):
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    base = "metrics.prometheusRule.runbookBase=https://wiki.example.org/retune/"
    (moved,) = of_kind(rendered(*EVERYTHING, base), "PrometheusRule")
    (first, *_) = moved["spec"]["groups"][0]["rules"]
    assert first["annotations"]["runbook_url"] == "https://wiki.example.org/retune/operations.md#health"


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
            named = await asyncio.to_thread(server.query, 'retune_resource_stage{name="digits"}')
        told |= set(re.findall(r"^# TYPE (\w+)", operator.metrics.expose().decode(), re.MULTILINE))
    missing = {name for text in asked for name in re.findall(r"\bretune_\w+", text)} - told
    assert not missing
    assert sum(bool(answer) for answer in answers) >= len(queries()) / 2
    assert [(each["metric"]["stage"], each["value"][1]) for each in stages] == [("Baselining", "1")]
    assert [(each["metric"]["namespace"], each["metric"]["stage"]) for each in named] == [
        (bench.namespace, "Baselining")
    ]


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
