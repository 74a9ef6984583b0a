"""The chart renders with the real Helm into what the real API server takes, and says no to what it does not know."""

import uuid
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml

from optimizer_jobs.data import addresses
from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.contract.paths import CHECK_HOST_PORT, METRICS_PORT
from retune.contract.requests import JobRequest
from retune.settings import Server, Settings
from retune.workloads.labels import labels
from tests import samples
from tests.cluster.chart import CHART, helm, of_kind, rendered
from tools.localcluster.api import Api

Json = dict[str, Any]
EVERYTHING = (
    "replicas=2",
    "watchNamespaces={team-a,team-b}",
    "metrics.podMonitor.enabled=true",
    "networkPolicy.enabled=true",
    "networkPolicy.jobs.enabled=true",
    "notifications.secretName=notifications",
    "imagePullSecrets[0].name=pull",
    "priorityClassName=system-cluster-critical",
    "podLabels.a=b",
    "podAnnotations.c=d",
    "nodeSelector.e=f",
    "tolerations[0].operator=Exists",
    "serviceAccount.annotations.g=h",
    "workers=3",
    "jobs.podTemplate.runAsUser=1000680000",
    "jobs.podTemplate.scratchSize=8Gi",
    r"jobs.profiles.gpu.devices.nvidia\.com/gpu=1",
    "jobs.profiles.gpu.nodeSelector.pool=gpu",
    "jobs.podTemplate.env[0].name=HTTPS_PROXY",
    "jobs.podTemplate.env[0].value=http://proxy.example:3128",
    "image.digest=sha256:" + "0" * 64,
    "logLevel=DEBUG",
    "artifactStore=s3://artifacts/retune",
    "artifactStoreCredentials=retune-store",
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
    "admissionPolicy.allowedImages={registry.example/ml/}",
    "admissionPolicy.allowedClaims={models,data}",
)
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{ns}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{ns}/configmaps",
    "Service": "/api/v1/namespaces/{ns}/services",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets",
    "Deployment": "/apis/apps/v1/namespaces/{ns}/deployments",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{ns}/networkpolicies",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}
ELSEWHERE = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "CustomResourceDefinition"}
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


def test_there_is_one_operator_unless_more_are_asked_for() -> None:
    """Fault 30: one replica, and Recreate: during an upgrade the old one is gone before the new one starts."""
    spec = deployment()["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert not of_kind(rendered(), "PodDisruptionBudget")


def test_several_operators_are_kept_apart_and_alive() -> None:
    """They share one Lease, stand on different nodes where they can, and a drained node takes one at a time."""
    spec = deployment("replicas=2")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (2, {"type": "RollingUpdate"})
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    (budget,) = of_kind(rendered("replicas=2"), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == {"matchLabels": spec["selector"]["matchLabels"]}
    assert Settings.from_environment(environment()).lease == ("retune-system", "retune")


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
    assert settings == Settings(leader_lease="retune-system/retune")
    changed = Settings.from_environment(environment(*EVERYTHING))
    assert (changed.namespaces, changed.workers, changed.log_level) == (("team-a", "team-b"), 3, "DEBUG")
    assert changed.defaults.artifact_store == "s3://artifacts/retune"
    assert changed.artifact_store_credentials == "retune-store"
    assert Settings.from_environment(environment("artifactStore=")).defaults.artifact_store is None
    assert (changed.pod_template.run_as_user, changed.pod_template.scratch_size) == (1000680000, "8Gi")
    assert changed.pod_template.names_proxies
    token = "/etc/retune/prometheus/main/token"
    assert changed.servers == {
        "main": Server("https://prometheus.monitoring/prom", token, namespaces=("team-a", "team-b")),
        "edge": Server("http://10.0.0.7:9090", parameter="namespace"),
    }


def test_a_servers_token_is_where_the_operator_looks_for_it() -> None:
    """The Secret's key becomes the one file of its folder, which nobody can write."""
    spec = deployment(*EVERYTHING)["spec"]["template"]["spec"]
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"].startswith("prometheus-")]
    (volume,) = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/retune/prometheus/main", True)
    assert volume["secret"] == {"secretName": "prometheus", "items": [{"key": "bearer", "path": "token"}]}


def test_the_network_policy_lets_live_numbers_in() -> None:
    """Metrics of live models, receivers of notices, and the ports of Prometheus servers, given or by scheme."""
    every = of_kind(rendered(*EVERYTHING), "NetworkPolicy")
    (policy,) = [each for each in every if each["metadata"]["name"] == "retune"]
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
    assert ports[-3:] == [[8082], [443], [443, 9090]]
    (policy,) = of_kind(rendered("networkPolicy.enabled=true"), "NetworkPolicy")
    assert len(policy["spec"]["egress"]) == len(ports) - 2


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
    """A Role in each namespace and one for the election; users' roles and the policy about authors are left out."""
    left_out = ("rbac.aggregateToUserRoles=false", "crds.enabled=false", "admissionPolicy.enabled=false")
    documents, places = rendered("watchNamespaces={a,b}", *left_out), ["a", "b", "retune-system"]
    assert [role["metadata"]["namespace"] for role in of_kind(documents, "Role")] == places
    assert [role["metadata"]["namespace"] for role in of_kind(documents, "RoleBinding")] == places
    assert all("namespace" in document["metadata"] for document in documents)


def policies(*settings: str) -> dict[tuple[str, str], Json]:
    """The specs of network policies for Jobs, by namespace and name."""
    every = of_kind(rendered(*settings), "NetworkPolicy")
    names = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in every]
    return {name: each["spec"] for name, each in zip(names, every, strict=True) if name[1] != "retune"}


@pytest.mark.parametrize("enabled", ["Auto", "true"])
@pytest.mark.parametrize("where", ["watchNamespaces", "networkPolicy.jobs.namespaces"])
def test_jobs_are_closed_in_where_their_namespaces_are_known(enabled: str, where: str) -> None:
    """By default and when told so, in every namespace named, else in those watched; false leaves them open."""
    known = f"{where}={{a,b}}"
    names = ("retune-jobs", "retune-verify", "retune-verify-remote", "retune-checks")
    both = {(namespace, name) for namespace in ("a", "b") for name in names}
    assert policies(f"networkPolicy.jobs.enabled={enabled}", known).keys() == both
    assert policies(known).keys() == both
    assert policies(known, "networkPolicy.jobs.enabled=false") == {}
    assert policies() == {}


def selects(policy: Json, given: dict[str, str]) -> bool:
    """Whether a network policy is about pods with these labels."""
    selector = policy["podSelector"]
    return selector["matchLabels"].items() <= given.items() and all(
        _is_met(expression, given) for expression in selector.get("matchExpressions", [])
    )


def _is_met(expression: Json, given: dict[str, str]) -> bool:
    if expression["operator"] == "Exists":
        return expression["key"] in given
    assert expression["operator"] == "NotIn"
    return given.get(expression["key"]) not in expression["values"]


@pytest.mark.parametrize(
    "request_, names",
    [
        (samples.baseline_request(), ["retune-jobs"]),
        (samples.gather_request(), ["retune-jobs"]),
        (samples.search_request(), ["retune-jobs"]),
        (samples.judge_request(), ["retune-jobs"]),
        (samples.check_request(), ["retune-checks", "retune-jobs"]),
        (samples.register_request(), ["retune-jobs"]),
        (samples.verify_request(), ["retune-verify"]),
    ],
    ids=["baseline", "gather", "search", "judge", "check", "register", "verify"],
)
def test_every_job_is_under_one_policy(request_: JobRequest, names: list[str]) -> None:
    """They select pods by the labels that Jobs really get. Two add up: a check may ask a check host besides."""
    given = labels(samples.resource(), command=request_.command)
    matching = [key[1] for key, policy in policies("watchNamespaces={a}").items() if selects(policy, given)]
    assert sorted(matching) == names
    assert not any(selects(policy, {"app": "x"}) for policy in policies("watchNamespaces={a}").values())


def test_a_check_reaches_the_check_hosts_of_its_namespace() -> None:
    """At the port that they answer on, and no other pod."""
    policy = policies("watchNamespaces={a}")["a", "retune-checks"]
    assert policy["policyTypes"] == ["Egress"]
    hosts = {"podSelector": {"matchLabels": {"retune.dev/check-host": "true"}}}
    assert policy["egress"] == [{"ports": [{"port": CHECK_HOST_PORT, "protocol": "TCP"}], "to": [hosts]}]


def test_a_job_that_asks_golden_requests_reaches_servers_only_where_it_uses_some() -> None:
    """With its bundle in a bucket it is let out as other Jobs are, besides to pods; on a claim it is not."""
    given = labels(samples.resource(), command="verify") | {"retune.dev/remote": "true"}
    every = policies("watchNamespaces={a}")
    assert {key[1] for key, policy in every.items() if selects(policy, given)} == {
        "retune-verify",
        "retune-verify-remote",
    }
    assert every["a", "retune-verify-remote"]["egress"] == every["a", "retune-jobs"]["egress"]
    assert [key[1] for key, policy in every.items() if selects(policy, given | {"retune.dev/command": "judge"})] == [
        "retune-jobs"
    ]


def test_closed_jobs_reach_dns_and_the_ports_given() -> None:
    """Nothing else is let out, and nothing but the operator is let in, at the port that workers serve progress on."""
    policy = policies("watchNamespaces={a}")["a", "retune-jobs"]
    operator = deployment("watchNamespaces={a}")["spec"]["template"]["metadata"]["labels"]
    (let_in,) = policy["ingress"]
    names = [53, 53, 5353, 5353]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [*names, 443]
    assert [port["port"] for port in let_in["ports"]] == [METRICS_PORT]
    assert let_in["from"][0]["podSelector"]["matchLabels"].items() <= operator.items()
    none = policies("watchNamespaces={a}", "networkPolicy.jobs.ports=null")["a", "retune-jobs"]
    assert [port["port"] for rule in none["egress"] for port in rule["ports"]] == names


def test_closed_jobs_never_reach_the_machines_own_addresses() -> None:
    """What the Job's own check of addresses refuses, its network refuses too, whoever names the address."""
    (rule,) = policies("watchNamespaces={a}")["a", "retune-jobs"]["egress"][1:]
    blocks = [each["ipBlock"] for each in rule["to"] if "ipBlock" in each]
    for address in ("169.254.1.1", "fe80::1", *addresses._METADATA):
        around = [block for block in blocks if ip_address(address) in ip_network(block["cidr"])]
        assert around
        assert all(any(ip_address(address) in ip_network(hole) for hole in block["except"]) for block in around)
    own = policies("watchNamespaces={a}", "networkPolicy.jobs.cidrs={10.1.0.0/16}")["a", "retune-jobs"]
    assert own["egress"][1]["to"] == [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.1.0.0/16"}}]


def test_the_job_that_asks_golden_requests_reaches_pods_of_its_namespace() -> None:
    """Any port, because the target decides that; nothing outside of the namespace, and nothing is let in."""
    policy = policies("watchNamespaces={a}")["a", "retune-verify"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [{"to": [{"podSelector": {}}]}])
    assert "ingress" not in policy


def test_no_role_has_a_wildcard() -> None:
    """Every group, resource and verb is written out."""
    documents = rendered() + rendered("watchNamespaces={a}")
    roles = of_kind(documents, "ClusterRole") + of_kind(documents, "Role")
    assert roles
    assert all("*" not in values for role in roles for rule in role["rules"] for values in rule.values())


@pytest.mark.parametrize(
    "setting, words",
    [
        ("replicas=many", "got string, want integer"),
        ("replicaCount=2", "additional properties 'replicaCount' not allowed"),
        ("metrics.prot=1", "additional properties 'prot' not allowed"),
        ("workers=0", "minimum"),
        ("logLevel=loud", "must be one of"),
        ("artifactStore=abfs://container/x", "does not match pattern"),
        ("artifactStore=s3://bucket:9000/x", "does not match pattern"),
        ("artifactStoreCredentials=My Secret", "does not match pattern"),
        ("image.digest=latest", "does not match pattern"),
        ("watchNamespaces={Team}", "does not match pattern"),
        ("prometheus.servers[0].name=main", "missing property 'url'"),
        ("prometheus.servers[0].name=a,prometheus.servers[0].url=ftp://h", "does not match pattern"),
        ("prometheus.servers[0].name=a,prometheus.servers[0].url=http://h", "missing property 'namespaces'"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
        ("networkPolicy.jobs.enabled=true", "needs networkPolicy.jobs.namespaces or watchNamespaces"),
        ("networkPolicy.jobs.enabled=Always", "must be one of"),
        ("networkPolicy.jobs.ports={0}", "minimum"),
        ("networkPolicy.jobs.cidrs={10.0.0.1}", "does not match pattern"),
        ("admissionPolicy.allowedClaims={Team}", "does not match pattern"),
        ("admissionPolicy.validationActions={Deny,Warn}", "'not'"),
    ],
)
def test_a_wrong_value_is_refused(setting: str, words: str) -> None:
    """A misspelt or impossible value never gets as far as the cluster."""
    done = helm("template", "retune", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert words in done.stderr


def test_the_schema_knows_every_value() -> None:
    """What values.yaml documents is what the schema allows, no less and no more but what a parent chart sets."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"enabled", "global"} == values.keys()


def test_the_notes_lead_on() -> None:
    """After an installation, people are told what to do next, in words that fit their settings."""
    done = helm(
        "install", "retune", str(CHART), "--dry-run=client", "--namespace", "ops", "--set", "artifactStore=pvc://team/x"
    )
    assert "kubectl --namespace ops rollout status deployment/retune" in done.stdout
    assert "get persistentvolumeclaim team\n" in done.stdout
    assert "metrics.podMonitor.enabled" in done.stdout
    assert "name the namespaces in networkPolicy.jobs.namespaces" in done.stdout
    assert "Careful" not in done.stdout


BUCKET = "artifactStore=s3://artifacts/retune/"


@pytest.mark.parametrize(
    "settings, words",
    [
        ((BUCKET, "artifactStoreCredentials=store"), "get secret store\n"),
        ((BUCKET, "artifactStoreCredentials=store"), "go to s3://artifacts/retune/NAMESPACE. The Secret"),
        ((BUCKET,), "the bucket knows Jobs by\n   spec.execution.credentials.\n"),
        ((BUCKET, "jobs.podTemplate.serviceAccountName=jobs"), "else by service account jobs of their namespace."),
        (("artifactStore=",), "No default store is set"),
        (("admissionPolicy.enabled=false",), "Careful: admissionPolicy.enabled is false"),
        (("watchNamespaces={a,b}",), "Jobs in a, b reach DNS and port 443 only."),
        (("watchNamespaces={a}", "networkPolicy.jobs.ports=null"), "Jobs in a reach DNS only."),
    ],
)
def test_the_notes_say_what_is_closed_and_what_is_open(settings: tuple[str, ...], words: str) -> None:
    """Whoever installs learns what holds now, not what could be set."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    assert words in helm("install", "retune", str(CHART), "--dry-run=client", *flags).stdout


def test_keys_of_config_maps_are_given_by_name() -> None:
    """By default none; with a star any, as a person has written it there."""

    def rules(*settings: str) -> list[Json]:
        (role,) = [each for each in of_kind(rendered(*settings), "ClusterRole") if each["metadata"]["name"] == "retune"]
        return [rule for rule in role["rules"] if rule["resources"] == ["configmaps"]]

    right = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}
    assert rules() == []
    assert rules("targets.configMaps={one,two.v1}") == [right | {"resourceNames": ["one", "two.v1"]}]
    assert rules("targets.configMaps={*}") == [right]
    assert "/targets/configMaps/0" in helm("template", str(CHART), "--set", "targets.configMaps={no/pe}").stderr
