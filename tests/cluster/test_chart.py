"""The chart renders with the real Helm into what the real API server takes, and says no to what it does not know."""

import uuid
from typing import Any

import pytest
import yaml

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.contract.paths import METRICS_PORT
from retune.contract.requests import JobRequest
from retune.settings import Server, Settings
from retune.workloads.labels import labels
from tests import samples
from tests.cluster.chart import CHART, helm, of_kind, rendered
from tools.localcluster.api import Api

Json = dict[str, Any]
EVERYTHING = (
    "watchNamespaces={team-a,team-b}",
    "metrics.podMonitor.enabled=true",
    "networkPolicy.enabled=true",
    "networkPolicy.jobs.enabled=true",
    "imagePullSecrets[0].name=pull",
    "priorityClassName=system-cluster-critical",
    "podLabels.a=b",
    "podAnnotations.c=d",
    "nodeSelector.e=f",
    "tolerations[0].operator=Exists",
    "serviceAccount.annotations.g=h",
    "workers=3",
    "image.digest=sha256:" + "0" * 64,
    "logLevel=DEBUG",
    "artifactStore=",
    "metrics.prometheusRule.enabled=true",
    "metrics.dashboard.enabled=true",
    "prometheus.servers[0].name=main",
    "prometheus.servers[0].url=https://prometheus.monitoring/prom",
    "prometheus.servers[0].tokenSecret.name=prometheus",
    "prometheus.servers[0].tokenSecret.key=bearer",
    "prometheus.servers[1].name=edge",
    "prometheus.servers[0].namespaces={team-a,team-b}",
    "prometheus.servers[1].url=http://10.0.0.7:9090",
    "prometheus.servers[1].namespaceParameter=namespace",
)
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{ns}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{ns}/configmaps",
    "Service": "/api/v1/namespaces/{ns}/services",
    "Deployment": "/apis/apps/v1/namespaces/{ns}/deployments",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{ns}/networkpolicies",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
ELSEWHERE = {"PodMonitor", "PrometheusRule", "CustomResourceDefinition"}
"""Kinds that this API server does not have, or has from the tests already."""


def deployment(*settings: str) -> Json:
    """The operator's Deployment."""
    (only,) = of_kind(rendered(*settings), "Deployment")
    return only


def environment(*settings: str) -> dict[str, str]:
    """The operator's environment."""
    (container,) = deployment(*settings)["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


def test_lint_is_silent() -> None:
    """Helm itself finds nothing to say beyond the icon."""
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("settings", [(), EVERYTHING], ids=["defaults", "everything"])
def test_every_object_is_accepted(api: Api, settings: tuple[str, ...]) -> None:
    """No field is unknown to the API server, whatever is switched on."""
    for document in rendered(*settings, release="chart-test"):
        if document["kind"] in ELSEWHERE:
            continue
        if "namespace" in document["metadata"]:
            document["metadata"]["namespace"] = "default"
        path = PATHS[document["kind"]].format(ns="default")
        api.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", document)


def test_the_operator_is_restricted(api: Api) -> None:
    """A namespace that enforces Pod Security `restricted` takes the operator's pod."""
    namespace = f"chart-{uuid.uuid4().hex[:8]}"
    marks = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.apply(
        f"/api/v1/namespaces/{namespace}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": marks}},
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "retune"}}
    api.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts/retune", account)
    template = deployment()["spec"]["template"]
    pod = {"metadata": template["metadata"] | {"name": "operator"}, "spec": template["spec"]}
    try:
        api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict", pod)
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{namespace}")


def test_there_is_never_a_second_operator() -> None:
    """One replica, and Recreate: during an upgrade the old one is gone before the new one starts."""
    spec = deployment()["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_key_of_records_comes_from_a_secret_and_is_never_in_a_manifest() -> None:
    """Named, it is an environment variable of the operator; left out, there is none."""
    (container,) = deployment("recordsKey.secretName=retune-records")["spec"]["template"]["spec"]["containers"]
    (variable,) = [entry for entry in container["env"] if entry["name"] == "RETUNE_RECORDS_KEY"]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "retune-records", "key": "key"}}
    assert "RETUNE_RECORDS_KEY" not in environment()


def test_what_the_chart_sets_is_what_the_operator_reads() -> None:
    """Every variable is a setting of the operator, with a value that it takes."""
    known = {f"RETUNE_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert environment().keys() <= known
    settings = Settings.from_environment(environment())
    assert settings == Settings()
    changed = Settings.from_environment(environment(*EVERYTHING))
    assert (changed.namespaces, changed.workers, changed.log_level) == (("team-a", "team-b"), 3, "DEBUG")
    assert changed.defaults.artifact_store is None
    token = "/etc/retune/prometheus/main/token"
    assert changed.servers == {
        "main": Server("https://prometheus.monitoring/prom", token, namespaces=("team-a", "team-b")),
        "edge": Server("http://10.0.0.7:9090", parameter="namespace"),
    }


def test_a_servers_token_is_where_the_operator_looks_for_it() -> None:
    """The Secret's key becomes the one file of its folder, which nobody can write."""
    spec = deployment(*EVERYTHING)["spec"]["template"]["spec"]
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] != "tmp"]
    (volume,) = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/retune/prometheus/main", True)
    assert volume["secret"] == {"secretName": "prometheus", "items": [{"key": "bearer", "path": "token"}]}


def test_the_network_policy_lets_live_numbers_in() -> None:
    """Metrics of live models in the cluster, and the ports of the Prometheus servers, given or by scheme."""
    every = of_kind(rendered(*EVERYTHING), "NetworkPolicy")
    (policy,) = [each for each in every if each["metadata"]["namespace"] == "retune-system"]
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
    assert ports[-2:] == [[8082], [443, 9090]]
    (policy,) = of_kind(rendered("networkPolicy.enabled=true"), "NetworkPolicy")
    assert len(policy["spec"]["egress"]) == len(ports) - 1


def test_a_digest_wins_over_a_tag() -> None:
    """What is pinned stays pinned."""
    image = deployment(*EVERYTHING)["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "retune/operator@sha256:" + "0" * 64


def test_probes_ask_the_port_that_is_served() -> None:
    """Another metrics port moves port, probes and service together."""
    documents = rendered("metrics.port=9999")
    (container,) = of_kind(documents, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9999}]
    assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} == {"metrics"}
    assert of_kind(documents, "Service")[0]["spec"]["ports"][0]["port"] == 9999


def test_the_crds_are_the_generated_ones_and_stay() -> None:
    """The release upgrades the CRDs, and uninstalling it deletes nobody's ModelOptimizations."""
    found = of_kind(rendered(), "CustomResourceDefinition")
    assert [crd["spec"] for crd in found] == [modeloptimization_crd()["spec"], optimizationrun_crd()["spec"]]
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in found} == {"keep"}
    assert all(
        "annotations" not in crd["metadata"] for crd in of_kind(rendered("crds.keep=false"), "CustomResourceDefinition")
    )
    assert of_kind(rendered("crds.enabled=false"), "CustomResourceDefinition") == []


def test_watching_some_namespaces_needs_nothing_cluster_wide() -> None:
    """A Role in each namespace, and no ClusterRole when users' roles are left out."""
    documents = rendered("watchNamespaces={a,b}", "rbac.aggregateToUserRoles=false", "crds.enabled=false")
    assert [role["metadata"]["namespace"] for role in of_kind(documents, "Role")] == ["a", "b"]
    assert [role["metadata"]["namespace"] for role in of_kind(documents, "RoleBinding")] == ["a", "b"]
    assert all("namespace" in document["metadata"] for document in documents)


def test_jobs_are_closed_in_only_when_told_so() -> None:
    """The policy is off by default; switched on, it stands in every namespace named, else in those watched."""
    jobs = "networkPolicy.jobs.enabled=true"
    assert of_kind(rendered("networkPolicy.enabled=true", "watchNamespaces={a,b}"), "NetworkPolicy")[1:] == []
    for settings in ((jobs, "watchNamespaces={a,b}"), (jobs, "networkPolicy.jobs.namespaces={a,b}")):
        policies = of_kind(rendered(*settings), "NetworkPolicy")
        assert [policy["metadata"]["namespace"] for policy in policies] == ["a", "b"]
        assert {policy["metadata"]["name"] for policy in policies} == {"retune-jobs"}


@pytest.mark.parametrize(
    "request_, closed",
    [
        (samples.baseline_request(), True),
        (samples.search_request(), True),
        (samples.judge_request(), True),
        (samples.verify_request(), False),
    ],
    ids=["baseline", "search", "judge", "verify"],
)
def test_the_policy_is_about_jobs_that_open_models(request_: JobRequest, *, closed: bool) -> None:
    """It selects pods by the labels that Jobs really get; the one that asks the target's pods must reach them."""
    policy = of_kind(rendered("networkPolicy.jobs.enabled=true", "watchNamespaces={a}"), "NetworkPolicy")[0]["spec"]
    given = labels(samples.resource(), command=request_.command)
    wanted = policy["podSelector"]["matchLabels"]
    (present, absent) = policy["podSelector"]["matchExpressions"]
    assert (present["operator"], absent["operator"]) == ("Exists", "NotIn")
    selected = wanted.items() <= given.items() and present["key"] in given
    assert (selected and given[absent["key"]] not in absent["values"]) is closed


def test_closed_jobs_reach_dns_and_the_ports_given() -> None:
    """Nothing else is let out, and nothing but the operator is let in, at the port that workers serve progress on."""
    settings = ("networkPolicy.jobs.enabled=true", "watchNamespaces={a}")
    policy = of_kind(rendered(*settings), "NetworkPolicy")[0]["spec"]
    operator = deployment(*settings)["spec"]["template"]["metadata"]["labels"]
    (let_in,) = policy["ingress"]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53, 443]
    assert [port["port"] for port in let_in["ports"]] == [METRICS_PORT]
    assert let_in["from"][0]["podSelector"]["matchLabels"].items() <= operator.items()
    none = of_kind(rendered(*settings, "networkPolicy.jobs.ports=null"), "NetworkPolicy")[0]["spec"]
    assert [port["port"] for rule in none["egress"] for port in rule["ports"]] == [53, 53]


def test_no_role_has_a_wildcard() -> None:
    """Every group, resource and verb is written out."""
    documents = rendered() + rendered("watchNamespaces={a}")
    roles = of_kind(documents, "ClusterRole") + of_kind(documents, "Role")
    assert roles
    assert all("*" not in values for role in roles for rule in role["rules"] for values in rule.values())


@pytest.mark.parametrize(
    "setting, words",
    [
        ("replicas=2", "additional properties 'replicas' not allowed"),
        ("metrics.prot=1", "additional properties 'prot' not allowed"),
        ("workers=0", "minimum"),
        ("logLevel=loud", "must be one of"),
        ("artifactStore=s3://bucket", "does not match pattern"),
        ("image.digest=latest", "does not match pattern"),
        ("watchNamespaces={Team}", "does not match pattern"),
        ("prometheus.servers[0].name=main", "missing property 'url'"),
        ("prometheus.servers[0].name=a,prometheus.servers[0].url=ftp://h", "does not match pattern"),
        ("prometheus.servers[0].name=a,prometheus.servers[0].url=http://h", "missing property 'namespaces'"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
        ("networkPolicy.jobs.enabled=true", "needs networkPolicy.jobs.namespaces or watchNamespaces"),
        ("networkPolicy.jobs.ports={0}", "minimum"),
    ],
)
def test_a_wrong_value_is_refused(setting: str, words: str) -> None:
    """A misspelt or impossible value never gets as far as the cluster."""
    done = helm("template", "retune", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert words in done.stderr


def test_the_schema_knows_every_value() -> None:
    """What values.yaml documents is what the schema allows, no less and no more."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()


def test_the_notes_lead_on() -> None:
    """After an installation, people are told what to do next, in words that fit their settings."""
    done = helm(
        "install", "retune", str(CHART), "--dry-run=client", "--namespace", "ops", "--set", "artifactStore=pvc://team/x"
    )
    assert "kubectl --namespace ops rollout status deployment/retune" in done.stdout
    assert "get persistentvolumeclaim team\n" in done.stdout
    assert "metrics.podMonitor.enabled" in done.stdout
