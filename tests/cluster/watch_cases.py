"""What the API server must accept or refuse about monitoring, fresh data and triggers."""

from typing import Any

from tests import samples
from tests.cluster.api_cases import CODE, DECIMAL, DURATION, FILE_URI, Case, Json, constraint, refused

PRODUCTION = {"uri": "pvc://data/production", "labels": {"uri": "pvc://data/labels"}}


def watching(**more: Any) -> Json:
    """Settings of monitoring with captured requests."""
    return {"production": PRODUCTION, **more}


def live(**more: Any) -> Json:
    """Settings of monitoring with one live signal."""
    return {"performance": {"signals": [{"name": "p95", "kind": "Latency", "limit": "0.5", **more}]}}


_DEGREES = (
    ("drift", "share"),
    ("drift", "clearShare"),
    ("drift", "falseDiscoveryRate"),
    ("quality", "maxDegradation"),
    ("quality", "clearDegradation"),
    ("headroom", "minGain"),
    ("segments", "maxDegradation"),
)
ACCEPTED = (
    Case("captured requests and no more", {"spec.monitoring": watching()}),
    Case("checks spread over a whole window", {"spec.monitoring": watching(window="2h", spread="120m")}),
    Case("any quality", {"spec.monitoring": watching(quality={"metric": "average_precision"})}),
    Case(
        "several labels a row, one column each",
        {
            "spec.model.task": "MultiLabel",
            "spec.monitoring": watching(quality={"metric": "hamming_loss"})
            | {"production": PRODUCTION | {"labels": {"uri": "pvc://data/labels", "columns": ["sports", "politics"]}}},
        },
    ),
    Case(
        "boxes, by code of the owner's own",
        {
            "spec.model.task": "Generic",
            "spec.model.customMetric": CODE,
            "spec.objectives": constraint("0.01", metric="custom"),
            "spec.monitoring": watching(quality={}),
        },
    ),
    Case("speed alone", {"spec.monitoring": {"performance": {}}}),
    Case("a delivered file that is followed", {"spec.model.updatePolicy": "Follow", "spec.monitoring": {}}),
    Case(
        "queries of a Prometheus",
        {
            "spec.monitoring": {
                "performance": {
                    "prometheus": {"server": "main"},
                    "signals": [
                        {"name": "p95", "kind": "Latency", "query": "up", "maxDegradation": "0.2"},
                        {"name": "busy", "kind": "Saturation", "query": "up"},
                    ],
                }
            }
        },
    ),
    Case(
        "a schedule", {"spec.triggers": {"signals": ["Schedule"], "schedule": "0 3 * * *", "timeZone": "Europe/Berlin"}}
    ),
    Case("recent data only", {"spec.refresh": {"policy": "RecentOnly", "span": "72h", "minRows": 500}}),
)
REFUSED = (
    refused(
        "drift without captured requests",
        "spec.monitoring",
        {"drift": {}},
        "monitoring.drift, quality and segments need monitoring.production",
    ),
    refused(
        "headroom without labels",
        "spec.monitoring",
        {"production": {"uri": "pvc://data/production"}, "headroom": {}},
        "monitoring.headroom needs monitoring.production.labels",
    ),
    refused(
        "a check host by its address",
        "spec.monitoring",
        watching(checkHost="checks.ml.svc"),
        "the name of a Service has lower-case letters, digits and '-'",
        at="spec.monitoring.checkHost",
    ),
    refused(
        "windows of a second",
        "spec.monitoring",
        watching(window="1s"),
        "monitoring.window must lie between 30s and 168h",
        at="spec.monitoring.window",
    ),
    refused(
        "a delay of days",
        "spec.monitoring",
        watching(delay="48h"),
        "monitoring.delay must not exceed 24h",
        at="spec.monitoring.delay",
    ),
    refused(
        "checks spread over more than a window",
        "spec.monitoring",
        watching(window="1h", spread="61m"),
        "monitoring.spread must not exceed monitoring.window",
    ),
    refused(
        "checks spread over more than the usual window",
        "spec.monitoring",
        watching(spread="2h"),
        "monitoring.spread must not exceed monitoring.window",
    ),
    refused(
        "more samples than are looked at",
        "spec.monitoring",
        watching(minSamples=5000, maxSamples=1000),
        "monitoring.minSamples must not exceed monitoring.maxSamples",
    ),
    *(
        refused(
            f"{field} of {value}",
            "spec.monitoring",
            watching(**{part: {field: value}}),
            f"{field} lies above 0 and at most at 1",
            at=f"spec.monitoring.{part}.{field}",
        )
        for part, field in _DEGREES
        for value in ("0" if field.startswith("clear") else "1.5",)
    ),
    *(
        refused(
            f"{field} in percent",
            "spec.monitoring",
            watching(**{part: {field: "5 %"}}),
            DECIMAL,
            at=f"spec.monitoring.{part}.{field}",
        )
        for part, field in (*_DEGREES, ("drift", "minEffect"))
    ),
    refused(
        "clear above drifted",
        "spec.monitoring",
        watching(drift={"share": "0.1", "clearShare": "0.2"}),
        "clearShare must not exceed share",
        at="spec.monitoring.drift",
    ),
    refused(
        "clear above degraded",
        "spec.monitoring",
        watching(quality={"maxDegradation": "0.01", "clearDegradation": "0.02"}),
        "clearDegradation must not exceed maxDegradation",
        at="spec.monitoring.quality",
    ),
    refused(
        "latency as quality",
        "spec.monitoring",
        watching(quality={"metric": "latency_p95_ms"}),
        "quality.metric is a quality metric that live labels tell, such as accuracy, average_precision or rmse",
        at="spec.monitoring.quality.metric",
        also={"spec.model.task": "Regression"},
    ),
    refused(
        "code that is not there",
        "spec.monitoring",
        watching(quality={"metric": "custom"}),
        "monitoring.quality.metric custom and custom_loss need model.customMetric",
        at="spec",
    ),
    refused(
        "likeness to the model as delivered",
        "spec.monitoring",
        watching(quality={"metric": "fidelity"}),
        "quality.metric is a quality metric that live labels tell",
        at="spec.monitoring.quality.metric",
    ),
    refused(
        "an error of a classifier",
        "spec.monitoring",
        watching(quality={"metric": "rmse"}),
        "monitoring.quality.metric must fit model.task",
        at="spec",
    ),
    refused(
        "boxes, by nothing",
        "spec.monitoring",
        watching(quality={}),
        "labels tell the quality of tasks Embedding and Generic by model.customMetric only",
        at="spec",
        also={"spec.model.task": "Generic"},
    ),
    refused(
        "one column a label of a classifier",
        "spec.monitoring",
        {"production": PRODUCTION | {"labels": {"uri": "pvc://data/labels", "columns": ["sports", "politics"]}}},
        "monitoring.production.labels.columns belongs to model.task MultiLabel",
        at="spec",
    ),
    refused(
        "labels in one column and in several",
        "spec.monitoring",
        {
            "production": PRODUCTION
            | {"labels": {"uri": "pvc://data/labels", "column": "tags", "columns": ["sports", "politics"]}}
        },
        "labels.column is one column with everything, labels.columns are several",
        at="spec.monitoring.production.labels",
        also={"spec.model.task": "MultiLabel"},
    ),
    refused(
        "captured requests behind a colon",
        "spec.monitoring",
        {"production": {"uri": "file:///tmp/x"}},
        FILE_URI,
        at="spec.monitoring.production.uri",
    ),
    refused(
        "labels behind a colon",
        "spec.monitoring",
        {"production": PRODUCTION | {"labels": {"uri": "file:///tmp/x"}}},
        FILE_URI,
        at="spec.monitoring.production.labels.uri",
    ),
    *(
        refused(f"days in monitoring.{path}", "spec.monitoring", value, DURATION, at=f"spec.monitoring.{path}")
        for path, value in (
            ("window", watching(window="1d")),
            ("delay", watching(delay="1d")),
            ("spread", watching(spread="1d")),
            ("production.retention", {"production": PRODUCTION | {"retention": "30d"}}),
            (
                "production.labels.maxDelay",
                {"production": {"uri": "pvc://data/p", "labels": {"uri": "pvc://data/l", "maxDelay": "1d"}}},
            ),
        )
    ),
    *(
        refused(f"days in {path}", f"spec.{path}", "1d", DURATION)
        for path in ("refresh.span", "triggers.cooldown", "triggers.maxCooldown")
    ),
    refused(
        "a live signal without a limit",
        "spec.monitoring",
        {"performance": {"signals": [{"name": "p95", "kind": "Latency"}]}},
        "a live signal needs a limit, or maxDegradation",
        at="spec.monitoring.performance.signals[0]",
    ),
    refused(
        "a live signal that never changes",
        "spec.monitoring",
        live(maxDegradation="0"),
        "maxDegradation must be above 0",
        at="spec.monitoring.performance.signals[0].maxDegradation",
    ),
    refused(
        "a live signal in capitals",
        "spec.monitoring",
        live(name="P95"),
        "a signal's name has lower-case letters",
        at="spec.monitoring.performance.signals[0].name",
    ),
    *(
        refused(
            f"{field} of a live signal in words",
            "spec.monitoring",
            live(**{field: "fast"}),
            DECIMAL,
            at=f"spec.monitoring.performance.signals[0].{field}",
        )
        for field in ("limit", "maxDegradation", "clearDegradation")
    ),
    refused(
        "a query for nobody",
        "spec.monitoring",
        live(query="up"),
        "a signal with a query needs performance.prometheus",
        at="spec.monitoring.performance",
    ),
    refused(
        "a followed file that is pinned",
        "spec.model",
        {"uri": "pvc://models/m.onnx", "updatePolicy": "Follow", "digest": samples.DIGEST},
        "cannot be combined with model.updatePolicy: Follow",
        also={"spec.monitoring": {}},
    ),
    refused(
        "a followed file that nobody looks at",
        "spec.model.updatePolicy",
        "Follow",
        "model.updatePolicy Follow looks once a monitoring window",
        at="spec",
    ),
    refused(
        "all of a training set recent",
        "spec.refresh.recentShare",
        "1",
        "refresh.recentShare lies between 0 and 1",
    ),
    refused("a share in words", "spec.refresh.recentShare", "half", DECIMAL),
    refused(
        "more rows needed than taken",
        "spec.refresh",
        {"minRows": 5000, "maxRows": 1000},
        "refresh.minRows must not exceed refresh.maxRows",
    ),
    refused(
        "a schedule that nobody heeds",
        "spec.triggers.schedule",
        "0 3 * * *",
        "signal Schedule and triggers.schedule belong together",
        at="spec.triggers",
    ),
    refused(
        "a cooldown above the longest",
        "spec.triggers",
        {"cooldown": "10h", "maxCooldown": "1h"},
        "triggers.maxCooldown must be at least triggers.cooldown",
    ),
)
