"""What a platform team expects of every chart: to be part of a bigger one, and to fit the rules of a cluster."""

import json
import shutil
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.chart import CHART, helm, of_kind, rendered
from tests.cluster.test_chart import ELSEWHERE, PATHS
from tools.localcluster.api import Api

Json = dict[str, Any]
POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
SELECTOR = {
    "app.kubernetes.io/name": "retune",
    "app.kubernetes.io/instance": "retune",
    "app.kubernetes.io/component": "operator",
}
AFFINITY: Json = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}
VOLUME = {"name": "ca", "configMap": {"name": "ca"}}
MOUNT = {"name": "ca", "mountPath": "/etc/ssl/certs", "readOnly": True}
PROXY = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
SECRET = {"name": "pull"}
RELABEL = {"targetLabel": "cluster", "replacement": "a"}

VALUES: list[tuple[Json, str, str, Any]] = [
    ({"deploymentAnnotations": {"a": "b"}}, "Deployment", "metadata.annotations", {"a": "b"}),
    ({"podAnnotations": {"a": "b"}}, "Deployment", "spec.template.metadata.annotations", {"a": "b"}),
    ({"podLabels": {"a": "b"}}, "Deployment", "spec.template.metadata.labels", SELECTOR | {"a": "b"}),
    ({"commonLabels": {"a": "b"}}, "Deployment", "spec.template.metadata.labels", SELECTOR | {"a": "b"}),
    ({"commonLabels": {"a": "b"}}, "Deployment", "spec.selector.matchLabels", SELECTOR),
    ({"revisionHistoryLimit": 0}, "Deployment", "spec.revisionHistoryLimit", 0),
    ({"terminationGracePeriodSeconds": 5}, "Deployment", f"{POD}.terminationGracePeriodSeconds", 5),
    ({"extraEnv": [PROXY]}, "Deployment", f"{CONTAINER}.env.-1", PROXY),
    ({"extraVolumes": [VOLUME]}, "Deployment", f"{POD}.volumes.-1", VOLUME),
    ({"extraVolumeMounts": [MOUNT]}, "Deployment", f"{CONTAINER}.volumeMounts.-1", MOUNT),
    ({"notifications": {"secretName": "sinks"}}, "Deployment", f"{POD}.volumes.-1.secret.secretName", "sinks"),
    ({"notifications": {"secretName": "sinks"}}, "Deployment", f"{CONTAINER}.volumeMounts.-1.name", "notifications"),
    ({"podSecurityContext": {"runAsUser": None}}, "Deployment", f"{POD}.securityContext.runAsUser", None),
    ({"podSecurityContext": {"fsGroup": 7}}, "Deployment", f"{POD}.securityContext.fsGroup", 7),
    (
        {"containerSecurityContext": {"privileged": False}},
        "Deployment",
        f"{CONTAINER}.securityContext.privileged",
        False,
    ),
    ({"livenessProbe": {"periodSeconds": 30}}, "Deployment", f"{CONTAINER}.livenessProbe.periodSeconds", 30),
    ({"livenessProbe": {"periodSeconds": 30}}, "Deployment", f"{CONTAINER}.livenessProbe.failureThreshold", 6),
    ({"livenessProbe": {"periodSeconds": 30}}, "Deployment", f"{CONTAINER}.livenessProbe.httpGet.path", "/healthz"),
    ({"readinessProbe": {"timeoutSeconds": 9}}, "Deployment", f"{CONTAINER}.readinessProbe.timeoutSeconds", 9),
    ({"nodeSelector": {"a": "b"}}, "Deployment", f"{POD}.nodeSelector", {"a": "b"}),
    ({"tolerations": [{"operator": "Exists"}]}, "Deployment", f"{POD}.tolerations", [{"operator": "Exists"}]),
    ({"affinity": AFFINITY}, "Deployment", f"{POD}.affinity", AFFINITY),
    ({"priorityClassName": "high"}, "Deployment", f"{POD}.priorityClassName", "high"),
    ({"dnsPolicy": "Default"}, "Deployment", f"{POD}.dnsPolicy", "Default"),
    ({"dnsConfig": {"searches": ["a"]}}, "Deployment", f"{POD}.dnsConfig", {"searches": ["a"]}),
    (
        {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]},
        "Deployment",
        f"{POD}.hostAliases.0.ip",
        "10.0.0.1",
    ),
    ({"global": {"imagePullSecrets": [SECRET]}}, "Deployment", f"{POD}.imagePullSecrets", [SECRET]),
    (
        {"global": {"imagePullSecrets": [SECRET]}, "imagePullSecrets": [{"name": "own"}]},
        "Deployment",
        f"{POD}.imagePullSecrets",
        [{"name": "own"}],
    ),
    (
        {"topologySpreadConstraints": [SPREAD]},
        "Deployment",
        f"{POD}.topologySpreadConstraints",
        [SPREAD | {"labelSelector": {"matchLabels": SELECTOR}}],
    ),
    (
        {"topologySpreadConstraints": [SPREAD | {"labelSelector": {"matchLabels": {"a": "b"}}}]},
        "Deployment",
        f"{POD}.topologySpreadConstraints.0.labelSelector.matchLabels.a",
        "b",
    ),
    ({"podDisruptionBudget": {"enabled": True}}, "PodDisruptionBudget", "spec.maxUnavailable", 1),
    (
        {"podDisruptionBudget": {"enabled": True, "minAvailable": 1}},
        "PodDisruptionBudget",
        "spec.minAvailable",
        1,
    ),
    (
        {"podDisruptionBudget": {"enabled": True, "minAvailable": 1}},
        "PodDisruptionBudget",
        "spec.maxUnavailable",
        None,
    ),
    ({"podDisruptionBudget": {"enabled": True}}, "PodDisruptionBudget", "spec.selector.matchLabels", SELECTOR),
    ({"serviceAccount": {"labels": {"a": "b"}}}, "ServiceAccount", "metadata.labels.a", "b"),
    ({"metrics": {"service": {"labels": {"a": "b"}}}}, "Service", "metadata.labels.a", "b"),
    (
        {"metrics": {"dashboard": {"enabled": True, "annotations": {"grafana_folder": "Models"}}}},
        "ConfigMap",
        "metadata.annotations",
        {"grafana_folder": "Models"},
    ),
    (
        {"metrics": {"prometheusRule": {"enabled": True, "annotations": {"a": "b"}}}},
        "PrometheusRule",
        "metadata.annotations",
        {"a": "b"},
    ),
    ({"namespaceOverride": "other"}, "Deployment", "metadata.namespace", "other"),
    (
        {"crds": {"annotations": {"a": "b"}}},
        "CustomResourceDefinition",
        "metadata.annotations",
        {"a": "b", "helm.sh/resource-policy": "keep"},
    ),
    (
        {"extraObjects": [{"kind": "Extra", "metadata": {"name": "{{ .Release.Name }}-x"}}]},
        "Extra",
        "metadata.name",
        "retune-x",
    ),
]


def with_values(values: Json, folder: Path) -> list[Json]:
    """Every object of a release with these values."""
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm(
        "template", "retune", str(CHART), "--namespace", "retune-system", "--values", str(folder / "values.yaml")
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def at(document: Any, path: str) -> Any:
    """What is at a dotted path; None where nothing is."""
    return reduce(_step, path.split("."), document)


def _step(node: Any, key: str) -> Any:
    if isinstance(node, list):
        return node[int(key)]
    return node.get(key) if node else None


@pytest.mark.parametrize(
    ("values", "kind", "path", "expected"),
    VALUES,
    ids=[f"{json.dumps(values)} {path}" for values, _, path, _ in VALUES],
)
def test_a_value_is_rendered(tmp_path: Path, values: Json, kind: str, path: str, expected: Any) -> None:
    """Each value changes the field that it is named after, and leaves the defaults beside it."""
    document = of_kind(with_values(values, tmp_path), kind)[0]
    assert at(document, path) == expected


def test_all_values_together_are_accepted(api: Api, tmp_path: Path) -> None:
    """The API server knows every field that they set."""
    together: Json = {}
    for values, kind, _, _ in VALUES:
        if kind not in ELSEWHERE | {"Extra"}:
            together |= {
                name: together.get(name, {}) | value if isinstance(value, dict) else value
                for name, value in values.items()
            }
    paths = PATHS | {"PodDisruptionBudget": "/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"}
    for document in with_values(together, tmp_path):
        if document["kind"] in ELSEWHERE:
            continue
        if "namespace" in document["metadata"]:
            document["metadata"]["namespace"] = "default"
        path = paths[document["kind"]].format(ns="default")
        document["metadata"]["name"] += "-platform"
        api.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", document)


def test_common_labels_are_on_everything_and_replace_nothing(tmp_path: Path) -> None:
    """Every object has them, and the chart's own labels stay what selectors rely on."""
    labels = {"cost-center": "7", "app.kubernetes.io/name": "mine"}
    monitors = {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}
    everything = {
        "commonLabels": labels,
        "watchNamespaces": ["a"],
        "metrics": monitors,
        "networkPolicy": {"enabled": True},
        "notifications": {"secretName": "sinks"},
        "podDisruptionBudget": {"enabled": True},
    }
    for document in with_values(everything, tmp_path):
        meta = document["metadata"]["labels"]
        assert (meta["cost-center"], meta["app.kubernetes.io/name"]) == ("7", "retune"), document["kind"]


@pytest.mark.parametrize(
    ("name", "kind", "endpoints"),
    [("podMonitor", "PodMonitor", "podMetricsEndpoints"), ("serviceMonitor", "ServiceMonitor", "endpoints")],
)
def test_a_monitor_scrapes_the_metrics_as_they_are(name: str, kind: str, endpoints: str, tmp_path: Path) -> None:
    """Either kind finds the operator by labels it has, and takes a model's own namespace for the model's."""
    settings = {"enabled": True, "scrapeTimeout": "9s", "relabelings": [RELABEL], "labels": {"release": "p"}}
    documents = with_values({"metrics": {name: settings}}, tmp_path)
    (monitor,), (deployment,), (service,) = (of_kind(documents, of) for of in (kind, "Deployment", "Service"))
    (endpoint,) = monitor["spec"][endpoints]
    pod = deployment["spec"]["template"]
    carrier, ports = (
        (pod, at(pod, "spec.containers.0.ports")) if name == "podMonitor" else (service, service["spec"]["ports"])
    )
    assert monitor["spec"]["selector"]["matchLabels"].items() <= carrier["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in ports}
    assert (endpoint["honorLabels"], endpoint["scrapeTimeout"], endpoint["relabelings"]) == (True, "9s", [RELABEL])
    assert monitor["metadata"]["labels"]["release"] == "p"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("metrics.podMonitor.enabled=true", "metrics.serviceMonitor.enabled=true"), "scraped twice: choose one"),
        (("metrics.serviceMonitor.enabled=true", "metrics.service.enabled=false"), "needs metrics.service.enabled"),
        (("extraEnv[0].name=RETUNE_WORKERS", "extraEnv[0].value=1"), "extraEnv"),
        (("podDisruptionBudget.maxUnavailable=some",), "does not match pattern"),
        (("livenessProbe.httpGet.path=/",), "additional properties 'httpGet' not allowed"),
        (("dnsPolicy=Own",), "must be one of"),
    ],
)
def test_what_cannot_be_is_refused(settings: tuple[str, ...], words: str) -> None:
    """Two values that contradict each other, or the operator, never get as far as the cluster."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    done = helm("template", "retune", str(CHART), *flags)
    assert done.returncode != 0
    assert words in done.stderr


def parent(folder: Path) -> Path:
    """A platform's own chart that has ours as a part, on a condition."""
    chart = folder / "platform"
    shutil.copytree(CHART, chart / "charts" / "retune")
    (chart / "templates").mkdir()
    dependency = {"name": "retune", "version": "*", "repository": "", "condition": "retune.enabled"}
    about = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    values = {"global": {"imagePullSecrets": [SECRET], "domain": "x"}, "retune": {"enabled": True, "workers": 2}}
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    return chart


def test_it_is_a_part_of_a_bigger_chart_on_a_condition(tmp_path: Path) -> None:
    """The condition switches all of it, values come from the parent, and what is global does not disturb."""
    chart = str(parent(tmp_path))
    done = helm("template", "platform", chart, "--namespace", "ops")
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    (operator,) = of_kind(documents, "Deployment")
    assert operator["metadata"]["name"] == "platform-retune"
    assert at(operator, f"{POD}.imagePullSecrets") == [SECRET]
    assert {"name": "RETUNE_WORKERS", "value": "2"} in at(operator, f"{CONTAINER}.env")
    assert len(of_kind(documents, "CustomResourceDefinition")) == 2
    off = helm("template", "platform", chart, "--set", "retune.enabled=false")
    assert (off.returncode, [each for each in yaml.safe_load_all(off.stdout) if each]) == (0, [])


def test_another_namespace_moves_all_of_it() -> None:
    """What is namespaced, and whom the bindings name, follow the override and not the release."""
    documents = rendered("namespaceOverride=other", "networkPolicy.enabled=true", "podDisruptionBudget.enabled=true")
    assert {each["metadata"].get("namespace", "other") for each in documents} == {"other"}
    (binding,) = of_kind(documents, "ClusterRoleBinding")
    assert binding["subjects"][0]["namespace"] == "other"
