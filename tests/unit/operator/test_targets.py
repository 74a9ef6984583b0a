"""A Deployment as target: its field, its rollout, its pods, and whose doing it is that they are not well."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.cluster.parse import trimmed_target
from retune.plan.observed import Pods, ServingPod, Target
from retune.targets.deployment import Deployment
from tests.unit.operator.target_samples import SAMPLES, VARIABLE

Json = dict[str, Any]
OWNED_VARIABLE: Json = {'k:{"name":"MODEL_URI"}': {".": {}, "f:name": {}, "f:value": {}}}
OWNED_CONTAINER: Json = {'k:{"name":"server"}': {".": {}, "f:env": OWNED_VARIABLE}}
OWNED: Json = {"f:spec": {"f:template": {"f:spec": {"f:containers": OWNED_CONTAINER}}}}
"""The owned field in the form of managedFields."""

DEPLOYMENT = SAMPLES["apps/v1", "Deployment"].raw


def deployment(*, env: list[Json] | None = None, managed: list[Json] | None = None, **status: Any) -> Json:
    """The Deployment with another environment, other managers, or another status."""
    raw = copy.deepcopy(DEPLOYMENT)
    raw["status"] |= status
    if env is not None:
        raw["spec"]["template"]["spec"]["containers"][0]["env"] = env
    if managed is not None:
        raw["metadata"]["managedFields"] = managed
    return raw


def parsed(raw: Json) -> Target:
    """The Deployment as the planner sees it."""
    return Deployment().parse(raw, variable=VARIABLE)


def pod(
    name: str = "digits-new-1",
    *,
    replica_set: str = "digits-new",
    value: str | None = "pvc://a/bundles/2",
    ready: bool = True,
    status: Json | None = None,
    **meta: Any,
) -> Json:
    """A pod of the Deployment."""
    env = [] if value is None else [{"name": VARIABLE, "value": value}]
    metadata = {
        "name": name,
        "uid": f"uid-of-{name}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": "digits", "pod-template-hash": replica_set.rsplit("-", 1)[-1]},
        "ownerReferences": [{"kind": "ReplicaSet", "name": replica_set}],
    }
    running = {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": str(ready)}]}
    return {
        "metadata": metadata | meta,
        "spec": {"containers": [{"name": "server", "env": env}, {"name": "sidecar"}]},
        "status": running | (status or {}),
    }


def pods_of(*pods: Json, raw: Json | None = None) -> Pods:
    """What the Deployment's pods amount to."""
    return Deployment().pods(raw or DEPLOYMENT, pods, container="server", variable=VARIABLE, port=8080)


# --- Deployment: the field -------------------------------------------------------------------------------------------


def test_a_deployment_gives_containers_nodes_and_limits() -> None:
    """Everything the planner decides on comes from the template."""
    target = parsed(DEPLOYMENT)
    server, sidecar = target.containers
    assert (server.name, server.value, server.indirect, server.cpu_limit) == ("server", "pvc://a/bundles/2", False, 1.5)
    assert (sidecar.value, sidecar.cpu_limit) == (None, None)
    assert dict(target.node_selector) == {"class": "edge"}
    assert target.tolerations == ({"key": "edge", "operator": "Exists"},)


def test_a_container_without_a_limit_may_use_a_core() -> None:
    """A small CPU request does not hold a container back, so it is no limit for the judge either."""
    raw = deployment()
    raw["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "50m"}}
    assert parsed(raw).containers[0].cpu_limit == 1.0


def test_a_value_from_elsewhere_is_not_a_literal() -> None:
    """A reference cannot be owned by its value."""
    raw = deployment(env=[{"name": VARIABLE, "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}])
    assert (parsed(raw).containers[0].value, parsed(raw).containers[0].indirect) == (None, True)


def test_a_variable_set_to_nothing_is_set() -> None:
    """The API server leaves an empty value out; that differs from a variable that does not exist."""
    assert parsed(deployment(env=[{"name": VARIABLE}])).containers[0].value == ""
    assert parsed(deployment(env=[])).containers[0].value is None


def entry(manager: str, fields: Json = OWNED, **more: Any) -> Json:
    """One entry of managedFields."""
    return {"manager": manager, "operation": "Apply", "fieldsV1": fields} | more


@pytest.mark.parametrize(
    ("managed", "owner"),
    [
        ([], None),
        ([entry("retune")], "retune"),
        ([entry("retune"), entry("argocd-controller")], "argocd-controller"),
        ([entry("kubectl", {"f:spec": {"f:replicas": {}}}), entry("retune")], "retune"),
        ([entry("kube-controller-manager", subresource="status")], None),
        ([entry("helm", json.loads(json.dumps(OWNED).replace("MODEL_URI", "OTHER")))], None),
    ],
)
def test_the_manager_is_who_would_conflict(managed: list[Json], owner: str | None) -> None:
    """Who owns exactly this value; where it is shared with us, the other one."""
    assert parsed(deployment(managed=managed)).containers[0].manager == owner


# --- Deployment: its rollout -----------------------------------------------------------------------------------------


TIMED_OUT = {"type": "Progressing", "status": "False", "message": "ReplicaSet has timed out progressing."}
NO_QUOTA = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}
ONE_OF_TWO = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}


@pytest.mark.parametrize(
    ("status", "settled", "words"),
    [
        ({}, True, "2 of 2 pods available"),
        ({"observedGeneration": 3}, False, "has not seen the change"),
        ({"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}, False, "1 of 2 pods replaced"),
        ({"replicas": 3, "availableReplicas": 2}, False, "1 of 2 new pods available"),
        ({"replicas": 3, "availableReplicas": 3}, False, "1 old pods still ending"),
        ({"availableReplicas": 0}, False, "0 of 2 new pods available"),
        ({"availableReplicas": 1, "conditions": [TIMED_OUT]}, False, "timed out progressing"),
        (ONE_OF_TWO | {"conditions": [NO_QUOTA]}, False, "exceeded quota: small"),
    ],
)
def test_progress_is_what_the_controller_says(status: Json, settled: bool, words: str) -> None:  # noqa: FBT001
    """Settled only when the newest template alone runs, wholly available; until then the words say what is missing."""
    target = parsed(deployment(**status))
    assert target.settled is settled
    assert words in target.progress


def test_a_paused_deployment_says_how_to_go_on() -> None:
    """Nothing moves while it is paused, and the words say what to do."""
    raw = deployment(updatedReplicas=0)
    raw["spec"]["paused"] = True
    assert "kubectl rollout resume" in parsed(raw).progress


def test_a_deployment_scaled_to_nothing_is_settled() -> None:
    """Zero pods wanted, zero there."""
    raw = deployment()
    raw["spec"]["replicas"] = 0
    raw["status"] = {"observedGeneration": 4}
    assert (parsed(raw).settled, parsed(raw).wanted) == (True, 0)


@given(
    counts=st.fixed_dictionaries(
        {name: st.integers(0, 5) for name in ("replicas", "updatedReplicas", "availableReplicas", "observedGeneration")}
    ),
    wanted=st.integers(0, 5),
)
def test_settled_means_every_count_agrees(counts: dict[str, int], wanted: int) -> None:
    """No combination of stale or partial counts passes as settled."""
    raw = deployment()
    raw["status"] = counts
    raw["spec"]["replicas"] = wanted
    pods = {counts["replicas"], counts["updatedReplicas"], counts["availableReplicas"]}
    assert parsed(raw).settled == (pods == {wanted} and counts["observedGeneration"] >= 4)


# --- Deployment: its pods --------------------------------------------------------------------------------------------


def test_the_selector_is_complete() -> None:
    """Labels and expressions both narrow the list."""
    assert Deployment().pod_selector(DEPLOYMENT) == "app=digits,tier"


def test_only_ready_pods_with_the_present_model_answer() -> None:
    """Pods of the old model, of other owners, ending or not ready are no endpoints."""
    others = [
        pod("old", replica_set="digits-old", value="pvc://a/bundles/1"),
        pod("unset", replica_set="digits-older", value=None),
        pod("stranger", replica_set="other-new"),
        pod("ending", deletionTimestamp="2026-01-01T00:00:00Z"),
        pod("starting", ready=False),
        pod("orphan", ownerReferences=[]),
    ]
    second = pod("digits-new-2", status={"podIP": "fd00::7"})
    assert pods_of(second, *others, pod()).endpoints == ("http://10.0.0.7:8080", "http://[fd00::7]:8080")


def test_after_giving_the_field_up_pods_without_it_answer() -> None:
    """Where the manifest leaves the variable out, the pods that do so too are the present ones."""
    raw = deployment(env=[])
    assert pods_of(pod(value=None), pod("old"), raw=raw).endpoints == ("http://10.0.0.7:8080",)


def waiting(reason: str, message: str = "", **more: Any) -> Json:
    """A container that waits."""
    return {"name": "server", "ready": False, "state": {"waiting": {"reason": reason, "message": message}}} | more


def ended(code: int, reason: str = "Error", message: str = "") -> Json:
    """How a container ended."""
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


DAMAGED = (
    f"pvc://retune-artifacts/fraud/bundles/{'a' * 64}: model.onnx has digest sha256:{'b' * 64} instead of "
    f"sha256:{'c' * 64}. Restore the bundle in the store, or delete its folder and run again."
)
RESTARTED: Json = {
    "name": "server",
    "ready": False,
    "restartCount": 2,
    "state": {"running": {}},
    "lastState": ended(139),
}
UNSCHEDULABLE: Json = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient cpu.",
}


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (
            {"containerStatuses": [waiting("ImagePullBackOff", 'Back-off pulling image "x:9"')]},
            'container server: ImagePullBackOff: Back-off pulling image "x:9"',
        ),
        (
            {"containerStatuses": [waiting("CrashLoopBackOff", lastState=ended(1, message="bundle\nmissing"))]},
            "container server: CrashLoopBackOff: ended with exit code 1: bundle missing",
        ),
        (
            {"containerStatuses": [waiting("CrashLoopBackOff", lastState=ended(137, "OOMKilled"))]},
            "container server: CrashLoopBackOff: ended with exit code 137 (OOMKilled)",
        ),
        ({"containerStatuses": [RESTARTED]}, "container server was restarted 2 times: ended with exit code 139"),
        (
            {"initContainerStatuses": [{"name": "fetch", "state": ended(3)}]},
            "container fetch: ended with exit code 3",
        ),
        (
            {"initContainerStatuses": [{"name": "model", "state": ended(1, message=DAMAGED)}]},
            f"container model: ended with exit code 1: {DAMAGED}",
        ),
        (
            {"phase": "Pending", "conditions": [UNSCHEDULABLE]},
            "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory"),
    ],
)
def test_trouble_names_pod_container_and_cause(status: Json, trouble: str) -> None:
    """What a person would read off `kubectl describe pod`, in one line."""
    assert pods_of(pod(ready=False, status=status)).trouble == f"pod digits-new-1: {trouble}"


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_pod_that_merely_starts_is_no_trouble(reason: str) -> None:
    """Waiting in good order is progress, not trouble."""
    assert pods_of(pod(ready=False, status={"containerStatuses": [waiting(reason)]})).trouble is None


def test_trouble_of_the_old_model_is_not_ours() -> None:
    """A crashing pod of the model that is being replaced says nothing about the new one."""
    status = {"containerStatuses": [waiting("CrashLoopBackOff", lastState=ended(1))]}
    assert pods_of(pod(ready=False, value="pvc://a/bundles/1", status=status), pod()).trouble is None


def test_pods_that_serve_are_the_targets_own_running_ones() -> None:
    """Of any template and ready or not, with their own CPU limit; another workload's pods are never asked."""
    limited = pod("digits-new-1", uid="a")
    limited["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "500m"}}
    others = (
        pod("digits-old-1", uid="b", replica_set="digits-old", value="pvc://a/bundles/1", ready=False),
        pod("stranger-1", uid="c", replica_set="stranger-new"),
        pod("digits-new-2", uid="d", deletionTimestamp="2026-11-25T00:00:00Z"),
        pod("digits-new-3", uid="e", status={"phase": "Pending", "podIP": ""}),
    )
    assert Deployment().serving(DEPLOYMENT, [limited, *others], container="server") == (
        ServingPod("a", "10.0.0.7", 0.5),
        ServingPod("b", "10.0.0.7", None),
    )


@pytest.mark.parametrize(
    "strategy,replicas,outage",
    [
        ({"type": "Recreate"}, 3, "Recreate"),
        ({"type": "RollingUpdate"}, 1, None),
        ({}, 1, None),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}, 1, None),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, 1, "its only pod"),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}, 1, "its only pod"),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, 2, None),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "100%"}}, 4, "all 4 pods"),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "100%"}}, 0, None),
    ],
)
def test_an_outage_at_each_promotion_is_foreseen(strategy: Json, replicas: int, outage: str | None) -> None:
    """It is the strategy that decides, as the Deployment's controller reads it, together with the replicas."""
    raw = deployment()
    raw["spec"] |= {"replicas": replicas, "strategy": strategy}
    raw["metadata"] |= {"resourceVersion": "1"}
    for seen in (raw, json.loads(trimmed_target(Deployment(), raw))):
        said = Deployment().parse(seen, variable=VARIABLE).outage
        assert (said is None) == (outage is None)
        assert outage is None or outage in (said or "")


def test_the_claims_and_labels_of_its_pods_are_known() -> None:
    """Jobs are put beside pods that have their store mounted; other volumes are of no interest, nor kept in memory."""
    raw = deployment()
    raw["spec"]["template"]["spec"]["volumes"] = [
        {"name": "store", "persistentVolumeClaim": {"claimName": "artifacts", "readOnly": True}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    raw["metadata"] |= {"resourceVersion": "1"}
    kept = trimmed_target(Deployment(), raw)
    assert b"emptyDir" not in kept
    for seen in (raw, json.loads(kept)):
        target = Deployment().parse(seen, variable=VARIABLE)
        assert target.claims == {"artifacts"}
        assert target.labels == {"app": "digits"}


# --- Deployment: whose doing it is -----------------------------------------------------------------------------------

ENDED: Json = {"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": "2026-01-02T00:00:00Z"}}
RUNNING: Json = {"running": {"startedAt": "2026-01-02T00:00:00Z"}}


def container_status(name: str = "server", *, ready: bool = False, **states: Json) -> Json:
    """A pod's status with one container's."""
    return {"containerStatuses": [{"name": name, "ready": ready, "restartCount": 1, **states}]}


@pytest.mark.parametrize("states", [{"state": ENDED}, {"state": RUNNING, "lastState": ENDED}])
def test_a_crash_of_the_model_is_known_by_its_time(states: Json) -> None:
    """Also of a container that runs again."""
    crash = pods_of(pod(status=container_status(ready=True, **states))).crash
    assert crash is not None
    assert crash.at == datetime(2026, 1, 2, tzinfo=UTC)
    assert "exit code 137" in crash.message


@pytest.mark.parametrize(
    "status",
    [
        container_status(state=ENDED) | {"phase": "Failed", "reason": "Evicted"},
        container_status(state=ENDED) | {"conditions": [{"type": "DisruptionTarget", "status": "True"}]},
        container_status(state={"terminated": ENDED["terminated"] | {"reason": "ContainerStatusUnknown"}}),
        container_status("sidecar", state=ENDED),
        container_status(state={"terminated": {"exitCode": 0, "finishedAt": "2026-01-02T00:00:00Z"}}),
        container_status(state={"waiting": {"reason": "ImagePullBackOff"}}),
        container_status(state={"waiting": {"reason": "ContainerCreating"}}),
    ],
)
def test_what_surroundings_do_to_a_pod_is_no_crash_of_the_model(status: Json) -> None:
    """Fault 18: evicted, drained, lost, a neighbour's crash, an image that cannot be pulled: no model can help it."""
    seen = pods_of(pod(ready=False, status=status))
    assert (seen.crash, seen.unready) == (None, None)


def test_a_container_that_runs_without_being_ready_is_known_since_when() -> None:
    """What was ready before counts from when it was no more; a pod that is unready for other reasons does not count."""
    since = {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-03T00:00:00Z"}]}
    waiting = pods_of(pod(status=container_status(state=RUNNING) | since)).unready
    assert waiting is not None
    assert waiting.at == datetime(2026, 1, 3, tzinfo=UTC)
    assert pods_of(pod(status=container_status(ready=True, state=RUNNING) | since)).unready is None


def test_the_template_is_told_apart_by_everything_but_the_variable() -> None:
    """Our own change is no change of others; another image, variable or annotation is."""
    before = parsed(DEPLOYMENT).template
    assert (
        parsed(deployment(env=[{"name": "OTHER", "value": "x"}, {"name": VARIABLE, "value": "new"}])).template == before
    )
    assert parsed(deployment(env=[{"name": "OTHER", "value": "x"}])).template == before
    changes: list[tuple[str, Any]] = [("image", "server:2"), ("env", [{"name": "OTHER", "value": "y"}])]
    for name, value in changes:
        raw = deployment()
        raw["spec"]["template"]["spec"]["containers"][0][name] = value
        assert parsed(raw).template != before
    restarted = deployment()
    restarted["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    assert parsed(restarted).template != before


def test_a_deployment_that_makes_no_pods_says_why() -> None:
    """Paused, or refused by a quota."""
    paused = deployment()
    paused["spec"]["paused"] = True
    refused = deployment(conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: few"}])
    assert parsed(DEPLOYMENT).hindrance is None
    assert "paused" in (parsed(paused).hindrance or "")
    assert parsed(refused).hindrance == "exceeded quota: few"


def test_only_pods_of_the_present_value_are_listened_to() -> None:
    """The old version's counts say nothing of the new one."""
    old = pod("digits-old-1", replica_set="digits-old", value="pvc://a/bundles/1")
    assert [serving.uid for serving in pods_of(pod(), old).serving] == ["uid-of-digits-new-1"]


# --- a container that runs before the others --------------------------------------------------------------------------


def prepared(*, value: str | None = "pvc://a/bundles/2", managed: list[Json] | None = None) -> Json:
    """The Deployment, whose init container reads the variable and writes what the server reads."""
    raw = deployment(env=[{"name": "OTHER", "value": "x"}], managed=managed)
    env = [{"name": "TOKEN", "value": "t"}, *([] if value is None else [{"name": VARIABLE, "value": value}])]
    raw["spec"]["template"]["spec"]["initContainers"] = [{"name": "model", "image": "retune:1", "env": env}]
    return raw


def prepared_pod(name: str = "digits-new-1", *, value: str = "pvc://a/bundles/2", status: Json | None = None) -> Json:
    """A pod of it, with a container that a mesh has put before the server."""
    made = pod(name, value=None, status=status)
    containers = [{"name": "mesh"}, {"name": "server", "resources": {"limits": {"cpu": "2"}}}]
    before = [{"name": "model", "env": [{"name": VARIABLE, "value": value}]}]
    made["spec"] = {"containers": containers, "initContainers": before}
    return made


def prepared_pods(*pods: Json) -> Pods:
    """What the pods amount to."""
    return Deployment().pods(prepared(), pods, container="model", variable=VARIABLE, port=8000)


def test_a_container_that_runs_before_the_others_may_have_the_variable() -> None:
    """It is found by its name alone, and what it prepares is for the cores of the server."""
    target = parsed(prepared())
    model = target.container("model")
    assert model is not None
    assert (model.value, model.is_init, model.cpu_limit) == ("pvc://a/bundles/2", True, 1.5)
    assert [container.is_init for container in target.containers] == [False, False, True]
    alone = prepared()
    alone["spec"]["template"]["spec"]["containers"].pop()
    server = parsed(alone).container(None)
    assert server is not None
    assert server.name == "server"


def test_the_field_of_an_init_container_is_owned_where_it_is() -> None:
    """In the list that it is in, and seen there, also by what memory keeps."""
    owned: Json = {"f:spec": {"f:template": {"f:spec": {"f:initContainers": {'k:{"name":"model"}': {}}}}}}
    fields = owned["f:spec"]["f:template"]["f:spec"]["f:initContainers"]
    fields['k:{"name":"model"}'] = {"f:env": OWNED_VARIABLE}
    raw = prepared(managed=[{"manager": "argocd", "operation": "Apply", "fieldsV1": owned}])
    kept = json.loads(trimmed_target(Deployment(), raw))
    for seen in (raw, kept):
        model = parsed(seen).container("model")
        assert model is not None
        assert (model.manager, model.value) == ("argocd", "pvc://a/bundles/2")
    assert parsed(kept) == parsed(raw)
    body = Deployment().apply_body(name="x", uid="u", container="model", variable=VARIABLE, value="v", is_init=True)
    assert body["spec"]["template"]["spec"] == {
        "initContainers": [{"name": "model", "env": [{"name": VARIABLE, "value": "v"}]}]
    }


def test_pods_are_told_by_what_their_init_container_has_read() -> None:
    """And their CPU is that of the server, wherever a mesh has put itself."""
    pods = [prepared_pod(), prepared_pod("digits-new-2", value="pvc://a/bundles/1")]
    seen = prepared_pods(*pods)
    assert [entry.uid for entry in seen.serving] == ["uid-of-digits-new-1"]
    assert seen.serving[0].cpu_limit == 2.0


@pytest.mark.parametrize("failing", [("initContainerStatuses", "model"), ("containerStatuses", "server")])
def test_a_version_that_cannot_be_prepared_or_read_is_to_blame(failing: tuple[str, str]) -> None:
    """A damaged bundle ends the one container, and a model that the server refuses the other; a mesh ends neither."""
    part, name = failing
    ended = {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:01:00Z", "message": "no bundle"}}
    crash = prepared_pods(prepared_pod(status={part: [{"name": name, "state": ended}]})).crash
    assert crash is not None
    assert crash.message == f"pod digits-new-1: container {name}: ended with exit code 1: no bundle"
    assert prepared_pods(prepared_pod(status={"containerStatuses": [{"name": "mesh", "state": ended}]})).crash is None


def test_an_init_container_that_has_done_its_work_is_well() -> None:
    """It has ended, and that is no crash and no wait."""
    done = {"name": "model", "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:01:00Z"}}}
    seen = prepared_pods(prepared_pod(status={"initContainerStatuses": [done]}))
    assert (seen.crash, seen.unready, seen.trouble) == (None, None, None)


def test_the_template_with_an_init_container_is_told_apart_by_everything_but_the_variable() -> None:
    """A new version is no edit; another variable, or another image, is."""
    same, other = prepared(value="pvc://a/bundles/3"), prepared()
    other["spec"]["template"]["spec"]["initContainers"][0]["env"][0]["value"] = "u"
    image = prepared()
    image["spec"]["template"]["spec"]["initContainers"][0]["image"] = "retune:2"
    templates = [parsed(raw).template for raw in (prepared(), same, other, image)]
    assert templates[0] == templates[1]
    assert len(set(templates)) == 3
