"""A target that Git declares, under Flux's own controller: who writes the field, and proposals that Git merges.

Flux's kustomize-controller and the controllers of Kubernetes run as processes beside a real API server. Played are the
kubelet's word that a pod is ready, the ends of Jobs, and what fetches commits.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import yaml

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.api.objects import ModelOptimization
from retune.api.target import ConfigMapKey
from retune.cluster import keys
from retune.cluster.client import Client
from retune.plan.actions import InjectModel
from retune.targets.config_map import with_key
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.cluster.play import DELIVERED, FORCED, Play, played, pod_template, wrong
from tests.cluster.proposals import proposal
from tests.neighbours import flux
from tests.neighbours.flux import Repository
from tests.unit.operator.test_config_map import TARGET
from tools.localcluster.controlplane import ControlPlane, control_plane

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
APPS = "/apis/apps/v1"
FORCE = {"takeover": "Force"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with Flux's controller and its CRDs."""
    definitions = flux.crds()
    with control_plane(controllers=("deployment-controller", "replicaset-controller")) as started:
        install(Bench(started).api, [modeloptimization_crd(), optimizationrun_crd(), *definitions])
        with flux.controller(started.kubeconfig, tmp_path_factory.mktemp("flux") / "log"):
            yield started


@pytest.fixture
async def play(bench: Bench) -> AsyncIterator[Play]:
    """A namespace in which Jobs end and pods run."""
    async with played(bench, plural="deployments", api=APPS, kind="Deployment", deployments=False) as play:
        yield play


@pytest.fixture
def git(bench: Bench) -> Iterator[Repository]:
    """What that namespace has in Git."""
    with flux.repository(bench) as repository:
        yield repository


def declared(*, variable: bool, patches: str = "{}", **more: Any) -> Json:
    """The files of a repository: a Deployment of two pods, which names the variable or not, and patches of it."""
    spec: Json = {"replicas": 2} | pod_template("digits") | more
    if not variable:
        del spec["template"]["spec"]["containers"][0]["env"]
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "digits"}, "spec": spec}
    kustomization = {"resources": ["deployment.yaml"]} | yaml.safe_load(patches)
    return {"deployment.yaml": deployment, "kustomization.yaml": kustomization}


async def test_a_variable_that_git_does_not_name_is_left_to_retune(play: Play, git: Repository) -> None:
    """Flux goes on applying its own fields, old commits and new ones, and no pod starts anew for it."""
    git.commit(declared(variable=False))
    play.follow(target={})
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    champion, generation = play.status["champion"]["injectedValue"], play.target["metadata"]["generation"]
    git.reconcile()
    assert (play.value, play.target["metadata"]["generation"]) == (champion, generation)
    git.commit(declared(variable=False, replicas=3))
    await play.passes_until(lambda: len(play.pods()) == 3)
    assert (play.values(), list(play.owned())) == ([champion], ['k:{"name":"MODEL_URI"}'])
    assert play.reason("RolledOut") == "Promoted"


async def test_a_variable_that_git_names_is_not_fought_over(play: Play, git: Repository) -> None:
    """Without takeover Force the version waits, and the sentence says who owns the field."""
    git.commit(declared(variable=True))
    generation = play.target["metadata"]["generation"]
    play.follow(target={})
    await play.passes_until(lambda: play.reason("TargetOwned") == "FieldConflict")
    assert flux.MANAGER in play.bench.condition("TargetOwned")["message"]
    await play.passes(3)
    assert (play.values(), play.target["metadata"]["generation"]) == ([DELIVERED], generation)


async def test_a_takeover_that_git_undoes_is_not_repeated(play: Play, git: Repository) -> None:
    """Flux puts its value back at the next interval: that is a decision, and the version is not given again."""
    git.commit(declared(variable=True))
    play.follow(target=FORCED)
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    git.reconcile()
    await play.passes_until(lambda: play.status["lastRun"]["reason"] == "RevertedByOthers")
    generation = play.target["metadata"]["generation"]
    for _ in range(2):
        git.reconcile()
        await play.passes(3)
    assert (play.value, play.target["metadata"]["generation"]) == (DELIVERED, generation)
    assert play.status["champion"]["version"] == 1


async def test_a_takeover_that_git_undoes_before_its_proof_ends_the_run(play: Play, git: Repository) -> None:
    """Nothing is held against the version, and nothing is given again."""
    git.commit(declared(variable=True))
    play.broken = True
    play.follow(target=FORCED)
    await play.passes_until(lambda: play.reason("RolledOut") == "Progressing")
    git.reconcile()
    await play.passes_until(lambda: (play.status.get("lastRun") or {}).get("outcome") == "Cancelled")
    generation = play.target["metadata"]["generation"]
    await play.passes(3)
    assert (play.value, play.target["metadata"]["generation"]) == (DELIVERED, generation)
    assert not play.status.get("rejected")


async def test_what_git_merges_is_proved_and_becomes_champion(play: Play, git: Repository, plane: ControlPlane) -> None:
    """In mode Propose, the printed patch builds in Flux as it is, and Retune owns nothing."""
    git.commit(declared(variable=False))
    play.follow(target={}, mode="Propose")
    await play.passes_until(lambda: play.reason("RolledOut") == "Proposed")
    git.commit(declared(variable=False, patches=proposal(play.bench.namespace, plane.kubeconfig)))
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    assert play.values() == [play.status["champion"]["injectedValue"]]
    assert "retune" not in {entry["manager"] for entry in play.target["metadata"]["managedFields"]}


async def test_a_merged_version_that_fails_goes_back_by_a_merge(
    play: Play, git: Repository, plane: ControlPlane
) -> None:
    """Retune says so and waits, for as long as Git names the version."""
    play.reply = wrong
    git.commit(declared(variable=False))
    play.follow(target={"inference": {"modelName": "digits"}}, mode="Propose")
    await play.passes_until(lambda: play.reason("RolledOut") == "Proposed")
    git.commit(declared(variable=False, patches=proposal(play.bench.namespace, plane.kubeconfig)))
    await play.passes_until(lambda: play.reason("RolledOut") == "RevertProposed")
    git.reconcile()
    await play.passes(3)
    assert play.reason("RolledOut") == "RevertProposed"
    git.commit(declared(variable=False, patches=proposal(play.bench.namespace, plane.kubeconfig)))
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert (play.values(), play.status["lastRun"]["reason"]) == ([None], "GoldenMismatch")
    assert [entry["version"] for entry in play.status["rejected"]] == [2]


def declared_key(*, uri: str, once: bool) -> Json:
    """A ConfigMap with a key, and whether Flux is told to make it once and leave it alone then."""
    annotations = {"annotations": {"kustomize.toolkit.fluxcd.io/ssa": "IfNotPresent"}} if once else {}
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "wanted"} | annotations,
        "data": {"uri": uri},
    }
    return {"wanted.yaml": document, "kustomization.yaml": {"resources": ["wanted.yaml"]}}


@pytest.mark.parametrize("once", [True, False])
async def test_a_key_that_git_has_made_once_is_left_to_retune(bench: Bench, git: Repository, *, once: bool) -> None:
    """With the annotation that the docs name; without it, Flux puts its value back, which others would be told."""
    git.commit(declared_key(uri="", once=once))
    path, given = bench.path("configmaps", "wanted", api="/api/v1"), "pvc://store/bundles/a"
    wanted = ConfigMapKey(name="wanted", key="uri")
    target = with_key(TARGET, bench.api.get(path), wanted)
    bench.declare(given={"injection": {"type": "ConfigMap", "configMap": {"name": "wanted", "key": "uri"}} | FORCE})
    client = Client(bench.send)
    try:
        resource = ModelOptimization.model_validate(bench.resource())
        await keys.give(client, resource, InjectModel("server", "", given, force=True), target=target)
    finally:
        client.close()
    git.reconcile()
    git.commit(declared_key(uri="", once=once))
    assert bench.api.get(path)["data"]["uri"] == (given if once else "")
