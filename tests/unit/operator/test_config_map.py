"""A key of a ConfigMap as field: what is read of it, what is applied, and what agents' words amount to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retune.api.target import ConfigMapKey
from retune.plan.observed import Container, Incident, Pods, Target
from retune.plan.told import Agent, Obstacle
from retune.targets import TARGETS
from retune.targets.config_map import apply_body, followed, forbidden, since, with_key
from tests.unit.operator.target_samples import SAMPLES

Json = dict[str, Any]
KEY = ConfigMapKey(name="wanted", key="uri")
DIGEST = 64 * "a"
VALUE = f"pvc://store/digits/bundles/{DIGEST}"
SERVER = Container(name="server", value=None, indirect=False, manager=None, cpu_limit=2.0)
TARGET = Target(
    name="digits",
    uid="t",
    containers=(SERVER, replace(SERVER, name="agent")),
    settled=True,
    available=2,
    wanted=2,
    progress="2 of 2 pods available",
    outage="a StatefulSet ends its only pod before the new one is made: raise replicas",
)
PODS = Pods(endpoints=("http://10.0.0.1:8080", "http://10.0.0.2:8080"))
SERVING = Agent("a", ready=True, wanted=VALUE, served=f"sha256:{DIGEST}")


def config_map(data: Json | None, **more: Any) -> Json:
    """The ConfigMap, whose fields a person and Retune have written."""
    managed = [
        {"manager": "kubectl-create", "operation": "Update", "fieldsV1": {"f:data": {".": {}, "f:other": {}}}},
        {"manager": "retune", "operation": "Apply", "fieldsV1": {"f:data": {"f:uri": {}}}},
    ]
    return {"metadata": {"name": "wanted", "uid": "c", "managedFields": managed}, "data": data} | more


def told(*agents: Agent, value: str | None = VALUE, target: Target = TARGET) -> tuple[Target, Pods]:
    """What the agents of the two pods amount to."""
    return followed(target, PODS, dict(zip(PODS.endpoints, agents, strict=False)), value=value)


@pytest.mark.parametrize(
    ("written", "value"), [(VALUE, VALUE), (f" {VALUE}/\n", VALUE), ("", None), ("\n", None), ("x", "x")]
)
def test_the_key_is_the_field_of_each_container(written: str, value: str | None) -> None:
    """As the agent reads the file: an empty one says that nothing is wanted. No pod is replaced for it."""
    target = with_key(TARGET, config_map({"uri": written}), KEY)
    assert [known.value for known in target.containers] == [value, value]
    assert {known.manager for known in target.containers} == {"retune"}
    assert (target.field_uid, target.obstacle, target.outage) == ("c", None, None)


def test_another_owner_of_the_key_is_named() -> None:
    """Of several, one that would conflict."""
    found = config_map({"uri": VALUE})
    found["metadata"]["managedFields"][0]["fieldsV1"]["f:data"]["f:uri"] = {}
    assert with_key(TARGET, found, KEY).containers[0].manager == "kubectl-create"


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        (None, "ConfigMapNotFound", "ConfigMap wanted, whose key its agents follow, does not exist: create it"),
        (config_map(None), "ConfigMapKeyNotFound", "has no key uri below data: add it, empty or with the URI"),
        (config_map({"other": VALUE}), "ConfigMapKeyNotFound", "ConfigMap wanted has no key uri"),
        (config_map({"uri": VALUE}, immutable=True), "ConfigMapImmutable", "ConfigMap wanted is immutable"),
        (forbidden(KEY), "ConfigMapForbidden", "name it in targets.configMaps of its chart"),
    ],
)
def test_a_key_that_cannot_be_owned_is_told(found: Json | Obstacle | None, reason: str, words: str) -> None:
    """With what to do; there is no container then, so that nothing is given and nothing is put back."""
    target = with_key(TARGET, found, KEY)
    assert target.obstacle is not None
    assert (target.obstacle.word, target.containers) == (reason, ())
    assert words in target.obstacle.message


@pytest.mark.parametrize(("value", "written"), [(VALUE, VALUE), (None, "")])
def test_what_is_applied_is_the_one_key(value: str | None, written: str) -> None:
    """With the UID, so that none is created; the key is never given up, which would remove it."""
    body = apply_body(KEY, uid="c", value=value)
    metadata = {"name": "wanted", "uid": "c"}
    assert body == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"uri": written}}


def test_a_version_has_arrived_when_every_agent_has_proved_it() -> None:
    """And every pod that is wanted is there."""
    target, pods = told(SERVING, SERVING)
    assert (target.settled, target.progress, target.aborted) == (True, TARGET.progress, None)
    assert pods.endpoints == PODS.endpoints


@pytest.mark.parametrize(
    ("late", "words"),
    [
        (Agent("b", silent="http://10.0.0.2:8090/version answers with 404"), "its agent cannot be asked: http://10"),
        (Agent("b", ready=True, wanted="pvc://store/old", served="sha256:0"), "its agent has not seen it yet"),
        (Agent("b", ready=True), "its agent has not seen it yet"),
        (Agent("b", wanted=VALUE), "its agent is giving it to the server"),
        (replace(SERVING, pod="b", ready=False), "its agent is giving it to the server"),
        (replace(SERVING, pod="b", served=f"sha256:{64 * 'b'}"), "its agent is giving it to the server"),
        (Agent("b", wanted=VALUE, fault="it starts", reason="ServerUnreachable"), "its agent says: it starts"),
    ],
)
def test_one_agent_that_has_not_is_waited_for_by_name(late: Agent, words: str) -> None:
    """Golden requests go to the others meanwhile, and nothing is given up."""
    target, pods = told(SERVING, late)
    assert target.settled is False
    assert target.progress.startswith(f"1 of 2 agents have proved it; pod b: {words}")
    assert pods.endpoints == PODS.endpoints[:1]
    assert target.aborted is None


def test_a_pod_that_nobody_has_asked_proves_nothing() -> None:
    """Nor do fewer pods than are wanted."""
    target, pods = told(SERVING)
    assert (target.settled, pods.endpoints) == (False, PODS.endpoints[:1])
    assert target.progress == "1 of 2 agents have proved it"


def test_while_the_workload_changes_its_own_words_count() -> None:
    """What its controller says is why the rollout waits."""
    target, _ = told(SERVING, Agent("b"), target=TARGET.but(settled=False, progress="1 of 2 pods replaced"))
    assert (target.settled, target.progress) == (False, "1 of 2 pods replaced")


def test_an_empty_key_has_arrived_where_agents_know_it() -> None:
    """Nothing is wanted, so nothing has to be proved."""
    idle = Agent("a", ready=True)
    assert told(idle, idle, value=None)[0].settled
    assert not told(idle, SERVING, value=None)[0].settled


@pytest.mark.parametrize(
    ("reason", "blamed"),
    [
        ("GoldenMismatch", True),
        ("ServerRefused", True),
        ("BundleCorrupt", True),
        ("BundleNotFound", False),
        (None, False),
    ],
)
def test_a_fault_gives_the_version_up_and_says_whose_it_is(reason: str | None, *, blamed: bool) -> None:
    """A missing bundle is one of the pod's mount; an older agent names no reason."""
    target, _ = told(SERVING, Agent("b", wanted=VALUE, fault="it is wrong", reason=reason))
    assert target.aborted is not None
    assert (target.aborted.reason, target.aborted.by_analysis) == ("AgentFault", blamed)
    assert target.aborted.message == "pod b: its agent says: it is wrong"


def test_the_versions_own_fault_is_told_first() -> None:
    """One pod without its mount does not excuse what another one has seen."""
    missing = Agent("a", wanted=VALUE, fault="not there", reason="BundleNotFound")
    target, _ = told(missing, Agent("b", wanted=VALUE, fault="answers otherwise", reason="GoldenMismatch"))
    assert target.aborted is not None
    assert target.aborted.by_analysis


def test_a_fault_with_another_value_is_of_no_account() -> None:
    """It is of the version before, or of what somebody else has written."""
    target, _ = told(SERVING, Agent("b", wanted="pvc://store/old", fault="gone", reason="BundleNotFound"))
    assert target.aborted is None


def test_what_happened_before_a_version_was_given_is_not_its_doing() -> None:
    """Pods run on, and may have crashed last week."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    before, after = start - timedelta(days=7), start + timedelta(seconds=5)
    old = Pods(crash=Incident("c", before), unready=Incident("u", before))
    assert since(old, start) == Pods(unready=Incident("u", start))
    new = Pods(crash=Incident("c", after), unready=Incident("u", after))
    assert since(new, start) == new
    assert since(Pods(), start) == Pods()


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_all_pods_of_a_workload_are_those_of_the_key(kind: str) -> None:
    """Whatever variable they have: none is waited for as one of another value, and the workload itself has no field."""
    target_kind, sample = TARGETS["apps/v1", kind], SAMPLES["apps/v1", kind]
    pods = [sample.pod("digits-0", value=VALUE, ready=True), sample.pod("digits-1", value="other", ready=False)]
    seen = target_kind.pods(sample.raw, pods, container=sample.container, variable="key uri of ConfigMap x", port=80)
    assert ({pod.uid for pod in seen.serving}, seen.behind) == ({"uid-of-digits-0", "uid-of-digits-1"}, ())
    target = target_kind.parse(sample.raw, variable="key uri of ConfigMap x")
    assert {known.value for known in target.containers} == {None}
