"""A key of a ConfigMap as the field, on a real API server: pods run on, and their agents say what serves.

The controllers of Deployments are Kubernetes' own. Played are the kubelet's word that a pod is ready, what it gives of
the ConfigMap to a pod, the agents' answers by HTTP, and the ends of Jobs.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.api.objects import ModelOptimization
from retune.cluster import keys
from retune.cluster.client import Client
from retune.contract.results import Reason
from retune.plan.actions import InjectModel
from retune.plan.told import Obstacle
from retune.targets.config_map import with_key
from tests.cluster.accounts import operator_account
from tests.cluster.agents import Agents, agents
from tests.cluster.crds import install
from tests.cluster.harness import Bench, transport_of
from tests.cluster.play import CORE, Play, played, wrong
from tests.unit.operator.test_config_map import TARGET
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane, control_plane

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane whose Deployments get pods."""
    with control_plane(controllers=("deployment-controller", "replicaset-controller")) as started:
        install(Bench(started).api, [modeloptimization_crd(), optimizationrun_crd()])
        yield started


@pytest.fixture
def following(bench: Bench) -> Iterator[Agents]:
    """The agents of the namespace's pods."""

    def read() -> str:
        found = bench.items("configmaps", api=CORE)
        return next((str((each.get("data") or {}).get("uri", "")) for each in found if named(each) == "wanted"), "")

    with agents(read) as found:
        yield found


@pytest.fixture
async def play(bench: Bench, following: Agents) -> AsyncIterator[Play]:
    """A namespace in which Jobs end and pods run on."""
    apps = "/apis/apps/v1"
    places: Json = {"plural": "deployments", "api": apps, "kind": "Deployment", "deployments": False}
    async with played(bench, **places, kubelet=following.kubelet) as play:
        yield play


def named(document: Json) -> str:
    """The name of an object."""
    return str(document["metadata"]["name"])


def make(bench: Bench, data: Json | None = None, **more: Any) -> Json:
    """Create the ConfigMap, as a person does."""
    body = {"metadata": {"name": "wanted"}, "data": {"uri": "", "other": "theirs"} if data is None else data}
    return bench.create("configmaps", body | more, api=CORE)


def key_of(bench: Bench) -> Json:
    """The ConfigMap as it is."""
    return bench.api.get(bench.path("configmaps", "wanted", api=CORE))


def begin(play: Play, following: Agents, *, rollout: Json | None = None, **target: Any) -> None:
    """Have a Deployment of two pods with an agent each, and the resource that names it."""
    key = {"name": "wanted", "key": "uri", "agentPort": following.port}
    injection = {"type": "ConfigMap", "configMap": key, "takeover": "Force"}
    names = ("server", "agent")
    containers = [{"name": name, "image": f"{name}:test", "resources": {"limits": {"cpu": "2"}}} for name in names]
    template = {"metadata": {"labels": {"app": "digits"}}, "spec": {"containers": containers}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "digits"}}, "template": template}
    given = {"injection": injection, "container": "server", "inference": {"modelName": "digits"}} | target
    play.begin(spec, rollout=rollout, target=given)


def uids(play: Play) -> set[str]:
    """Which pods there are."""
    return {pod["metadata"]["uid"] for pod in play.pods().values()}


async def test_a_version_is_promoted_while_its_pods_run_on(play: Play, bench: Bench, following: Agents) -> None:
    """One key is owned; nothing of the Deployment is written, and nothing at all once it is done."""
    make(bench)
    begin(play, following)
    await play.passes_until(lambda: len(play.pods()) == 2)
    before, generation = uids(play), play.target["metadata"]["generation"]
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    found, champion = key_of(bench), play.status["champion"]
    assert found["data"] == {"uri": champion["uri"], "other": "theirs"}
    (owned,) = [entry for entry in found["metadata"]["managedFields"] if entry["manager"] == "retune"]
    assert (owned["operation"], owned["fieldsV1"]) == ("Apply", {"f:data": {"f:uri": {}}})
    assert (uids(play), play.target["metadata"]["generation"]) == (before, generation)
    assert "retune" not in {entry["manager"] for entry in play.target["metadata"]["managedFields"]}
    assert play.status["original"]["injectedValue"] == play.status["original"]["uri"]
    versions = found["metadata"]["resourceVersion"], bench.resource()["metadata"]["resourceVersion"]
    await play.passes(3)
    assert (key_of(bench)["metadata"]["resourceVersion"], bench.resource()["metadata"]["resourceVersion"]) == versions


@pytest.mark.parametrize(("reason", "rejected"), [(Reason.SERVER_REFUSED, True), (Reason.BUNDLE_NOT_FOUND, False)])
async def test_an_agents_fault_takes_the_version_back(
    play: Play, bench: Bench, following: Agents, reason: Reason, *, rejected: bool
) -> None:
    """In its words, and to the bundle of the delivered model: an emptied key would leave servers as they are."""
    make(bench)
    begin(play, following)
    await play.passes_until(lambda: play.status.get("stage") == "Optimizing")
    following.fault = (reason, "triton at x: it does not serve bundle y.")
    await play.passes_until(lambda: play.reason("RolledOut") == "AgentFault")
    assert "its agent says: triton at x: it does not serve bundle y" in bench.condition("RolledOut")["message"]
    following.fault = None
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert key_of(bench)["data"]["uri"] == play.status["original"]["uri"]
    assert (play.status["lastRun"]["reason"], play.status["champion"]["version"]) == ("AgentFault", 1)
    assert bool(play.status.get("rejected")) is rejected


async def test_agents_that_do_not_see_the_version_have_a_deadline(play: Play, bench: Bench, following: Agents) -> None:
    """Nothing shows then that it was the version's doing."""
    make(bench)
    begin(play, following, rollout={"progressDeadline": "60s"})
    await play.passes_until(lambda: play.status.get("stage") == "Optimizing")
    following.seen = ""
    await play.passes_until(lambda: play.reason("RolledOut") == "Progressing")
    assert "0 of 2 agents have proved it" in bench.condition("RolledOut")["message"]
    assert "its agent has not seen it yet" in bench.condition("RolledOut")["message"]
    play.clock.wait(61)
    await play.passes_until(lambda: play.reason("RolledOut") == "ProgressDeadlineExceeded")
    following.seen = None
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert not play.status.get("rejected")
    assert key_of(bench)["data"]["uri"] == play.status["original"]["uri"]


async def test_nothing_is_given_while_an_agent_is_silent(play: Play, bench: Bench, following: Agents) -> None:
    """Whether a version arrives could not be told then."""
    make(bench)
    key = {"name": "wanted", "key": "uri", "agentPort": 9}
    begin(play, following, injection={"type": "ConfigMap", "configMap": key, "takeover": "Force"})
    await play.passes_until(lambda: play.reason("RolledOut") == "TargetUnsettled")
    assert "its agent cannot be asked: http://127.7." in bench.condition("RolledOut")["message"]
    assert key_of(bench)["data"]["uri"] == ""


async def test_a_wrong_golden_answer_takes_the_version_back(play: Play, bench: Bench, following: Agents) -> None:
    """Agents ask inside of the pod; users come from outside, and so do these requests."""
    play.reply = wrong
    make(bench)
    begin(play, following)
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert play.status["lastRun"]["reason"] == "GoldenMismatch"
    assert key_of(bench)["data"]["uri"] == play.status["original"]["uri"]
    assert [entry["version"] for entry in play.status["rejected"]] == [2]


@pytest.mark.parametrize(
    ("present", "reason"),
    [
        (None, "ConfigMapNotFound"),
        ({"data": {"other": "theirs"}}, "ConfigMapKeyNotFound"),
        ({"immutable": True}, "ConfigMapImmutable"),
    ],
)
async def test_a_key_that_is_not_there_is_told_and_never_made(
    play: Play, bench: Bench, following: Agents, present: Json | None, reason: str
) -> None:
    """Before a Job runs; once it is there the loop goes on."""
    before = make(bench, **present)["metadata"]["resourceVersion"] if present is not None else None
    begin(play, following)
    await play.passes_until(lambda: play.reason("TargetResolved") == reason)
    await play.passes(2)
    assert not bench.jobs
    found = [each for each in bench.items("configmaps", api=CORE) if named(each) == "wanted"]
    assert [each["metadata"]["resourceVersion"] for each in found] == ([before] if before else [])
    if before:
        bench.api.request("DELETE", bench.path("configmaps", "wanted", api=CORE))
    make(bench)
    await play.passes_until(lambda: play.reason("TargetResolved") == "Resolved")


async def test_a_key_that_others_change_is_not_fought_over(play: Play, bench: Bench, following: Agents) -> None:
    """It is noticed at the next look, and the manager is named."""
    make(bench)
    begin(play, following)
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    bench.patch(f"{bench.path('configmaps', 'wanted', api=CORE)}?fieldManager=somebody", {"data": {"uri": "pvc://x/y"}})
    await play.passes_until(lambda: play.reason("TargetOwned") == "FieldChanged")
    assert "was set to pvc://x/y by somebody" in bench.condition("TargetOwned")["message"]
    await play.passes(2)
    assert key_of(bench)["data"]["uri"] == "pvc://x/y"


async def test_a_resource_that_is_deleted_leaves_the_champions_key(play: Play, bench: Bench, following: Agents) -> None:
    """And in a rollout it takes the version back first, by a write."""
    make(bench)
    begin(play, following)
    await play.passes_until(lambda: play.status.get("stage") == "Optimizing")
    following.seen = ""
    await play.passes_until(lambda: play.reason("RolledOut") == "Progressing")
    original = play.status["original"]["uri"]
    bench.api.request("DELETE", bench.path("modeloptimizations", "digits"))
    await play.passes_until(lambda: not bench.items("modeloptimizations", api="/apis/retune.dev/v1alpha1"))
    assert key_of(bench)["data"] == {"uri": original, "other": "theirs"}


async def test_a_config_map_that_is_gone_or_another_one_is_never_written(
    play: Play, bench: Bench, following: Agents
) -> None:
    """Between a decision and its write; server-side apply would create it."""
    uid = make(bench)["metadata"]["uid"]
    begin(play, following)
    resource = ModelOptimization.model_validate(bench.resource())
    client, path = Client(bench.send), bench.path("configmaps", "wanted", api=CORE)
    action, target = InjectModel("server", "", "pvc://a/b", force=True), TARGET.but(field_uid=uid)
    try:
        bench.api.request("DELETE", path)
        await keys.give(client, resource, action, target=target)
        assert "wanted" not in [named(each) for each in bench.items("configmaps", api=CORE)]
        make(bench)
        await keys.give(client, resource, action, target=target)
        assert key_of(bench)["data"]["uri"] == ""
        found = with_key(TARGET, key_of(bench), resource.spec.target.injection.config_map)  # type: ignore[arg-type]
        await keys.give(client, resource, action, target=found)
        assert key_of(bench)["data"]["uri"] == "pvc://a/b"
    finally:
        client.close()


async def test_the_chart_gives_the_right_by_name(
    play: Play, bench: Bench, following: Agents, plane: ControlPlane, tmp_path: Path
) -> None:
    """On the ConfigMaps that it names alone; without it, the condition says which value to set."""
    make(bench)
    begin(play, following)
    resource = ModelOptimization.model_validate(bench.resource())
    for names, may in (("", False), ("{other}", False), ("{other,wanted}", True)):
        values = (f"targets.configMaps={names}",) if names else ()
        places: Json = {"home": bench.namespace, "watched": bench.namespace, "values": values}
        with operator_account(bench.api, plane.kubeconfig, tmp_path, release=f"keys-{len(names)}", **places) as account:
            client = Client(transport_of(account))
            found = await keys.KeyReader(client).found(resource)
            client.close()
            assert isinstance(found, Obstacle) is not may
            assert may or (isinstance(found, Obstacle) and found.word == "ConfigMapForbidden")
            with pytest.raises(ApiError, match="forbidden"):
                Api(account).get(bench.path("configmaps", api=CORE))
