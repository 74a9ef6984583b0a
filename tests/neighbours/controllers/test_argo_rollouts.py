"""A Rollout as target under Argo's own controller: its owner's steps are waited for, and his word counts.

Argo Rollouts runs as a process beside a real API server. Played are only the kubelet's word that a pod is ready, the
ends of Jobs, and the commands of Argo's plugin for kubectl, which are writes of the status.
"""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.cluster.play import DELIVERED, FORCED, Play, played, pod_template, wrong
from tests.neighbours import argo_rollouts
from tools.localcluster.controlplane import ControlPlane, control_plane

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
ARGO, APPS = "/apis/argoproj.io/v1alpha1", "/apis/apps/v1"
ASKED = FORCED | {"inference": {"modelName": "digits"}}
HALF: list[Json] = [{"setWeight": 50}, {"pause": {}}]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with Argo's controller and its CRDs."""
    definitions = argo_rollouts.crds()
    with control_plane(controllers=("deployment-controller", "replicaset-controller")) as started:
        install(Bench(started).api, [modeloptimization_crd(), optimizationrun_crd(), *definitions])
        with argo_rollouts.controller(started.kubeconfig, tmp_path_factory.mktemp("argo") / "log"):
            yield started


@pytest.fixture
async def play(bench: Bench) -> AsyncIterator[Play]:
    """A namespace in which Jobs end and pods run."""
    async with played(bench, plural="rollouts", api=ARGO, kind="Rollout") as play:
        yield play


def canary(*steps: Json, **more: Any) -> Json:
    """A Rollout of two pods with these steps."""
    return {"replicas": 2, "strategy": {"canary": {"steps": list(steps)}}} | pod_template("digits") | more


async def paused(play: Play, *, spec: Json | None = None, target: Json = FORCED) -> None:
    """Have a new version stand at the owner's pause."""
    play.begin(spec or canary(*HALF), target=target)
    await play.passes_until(lambda: play.reason("RolledOut") == "HeldByTarget")


async def test_the_owner_s_steps_are_waited_for_however_long_they_take(play: Play) -> None:
    """Retune changes one field and promotes nothing; the deadline counts again once the owner has let it go on."""
    await paused(play)
    message = play.bench.condition("RolledOut")["message"]
    assert "paused by step 2 of 2 of its own: whoever owns it lets it go on with `kubectl argo rollouts" in message
    assert f"promote digits -n {play.bench.namespace}`" in message
    assert len(play.values()) == 2
    before = play.bench.resource()["metadata"]["resourceVersion"]
    play.clock.wait(24 * 3600)
    await play.passes(3)
    assert play.reason("RolledOut") == "HeldByTarget"
    assert play.bench.resource()["metadata"]["resourceVersion"] == before
    play.report(pauseConditions=None)
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    assert play.values() == [play.status["champion"]["uri"]]
    assert list(play.owned()) == ['k:{"name":"MODEL_URI"}']
    assert play.target["status"]["phase"] == "Healthy"


async def test_wrong_answers_of_the_first_pods_take_the_version_back_before_the_owner_has_promoted_it(
    play: Play,
) -> None:
    """They are asked while the Rollout is paused; the value of before makes it healthy at once."""
    play.reply = wrong
    play.begin(canary(*HALF), target=ASKED)
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert play.status["lastRun"]["reason"] == "GoldenMismatch"
    assert [entry["version"] for entry in play.status["rejected"]] == [2]
    assert play.values() == [DELIVERED]
    assert play.target["status"]["phase"] == "Healthy"


async def test_right_answers_of_the_first_pods_are_had_before_the_owner_promotes(play: Play) -> None:
    """The pause is where they are asked; after it every pod is asked."""
    await paused(play, target=ASKED)
    assert {job["metadata"]["name"] for job in play.bench.jobs} >= {"digits-r1-verify1"}
    play.report(pauseConditions=None)
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")


async def test_an_abort_by_the_owner_gives_the_value_of_before_back_and_rejects_nothing(play: Play) -> None:
    """The spec would else go on naming a version that no pod runs."""
    await paused(play)
    play.report(abort=True)
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert play.status["lastRun"]["reason"] == "RolloutAborted"
    assert "Rollout aborted update to revision 2" in play.status["lastRun"]["message"]
    assert not play.status.get("rejected")
    assert play.value == DELIVERED
    assert play.target["status"]["phase"] == "Healthy"


class _Bad(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer that all is bad."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"good": 0}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def metric() -> Iterator[str]:
    """Address of a metric that says that all is bad."""
    server = HTTPServer(("127.0.0.1", 0), _Bad)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_version_that_the_owner_s_analysis_fails_is_taken_back_and_rejected(play: Play, metric: str) -> None:
    """The sentence is Argo's own."""
    web = {"url": metric, "jsonPath": "{$.good}"}
    measured = {"name": "good", "successCondition": "result == 1", "provider": {"web": web}}
    template = {"metadata": {"name": "good"}, "spec": {"metrics": [measured]}}
    version = {"apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate"}
    play.bench.create("analysistemplates", version | template, api=ARGO)
    play.begin(canary({"setWeight": 50}, {"analysis": {"templates": [{"templateName": "good"}]}}))
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    last = play.status["lastRun"]
    assert last["reason"] == "RolloutAborted"
    assert 'Metric "good" assessed Failed' in last["message"]
    assert [entry["version"] for entry in play.status["rejected"]] == [2]
    assert play.value == DELIVERED


async def test_pods_that_never_get_ready_are_taken_back(play: Play) -> None:
    """The deadline runs while no step of the owner holds the Rollout."""
    play.begin(canary(), rollout={"progressDeadline": "60s"})
    await play.fail_to_get_ready()


async def test_a_blue_green_switch_that_the_owner_makes_is_waited_for(play: Play) -> None:
    """The new pods are asked before they get a request of anybody."""
    for name in ("active", "preview"):
        body = {"metadata": {"name": name}, "spec": {"selector": {"app": "digits"}, "ports": [{"port": 80}]}}
        play.bench.create("services", body, api="/api/v1")
    blue_green = {"activeService": "active", "previewService": "preview", "autoPromotionEnabled": False}
    await paused(play, spec=canary() | {"strategy": {"blueGreen": blue_green}}, target=ASKED)
    assert "before it switches to the new pods" in play.bench.condition("RolledOut")["message"]
    assert "digits-r1-verify1" in {job["metadata"]["name"] for job in play.bench.jobs}
    play.report(pauseConditions=None)
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")


def deployed(bench: Bench) -> Json:
    """The spec of a Rollout that takes its pods from a Deployment, which is made."""
    bench.deploy("web", value=DELIVERED)
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return {"replicas": 2, "workloadRef": ref, "strategy": {"canary": {"steps": HALF}}}


async def test_a_rollout_that_takes_its_pods_from_a_deployment_is_refused_in_words(play: Play) -> None:
    """The field is in another object, which the sentence names."""
    play.begin(deployed(play.bench))
    await play.passes_until(lambda: play.reason("TargetResolved") == "NotFollowable")
    message = play.bench.condition("TargetResolved")["message"]
    assert "it takes its pods from Deployment web (spec.workloadRef)" in message
    assert not play.bench.jobs


@pytest.mark.parametrize("kinds", [(), ("Rollout",)], ids=["not watched", "watched"])
async def test_a_deployment_that_drives_a_rollout_is_refused_in_words(play: Play, kinds: tuple[str, ...]) -> None:
    """It has no pods of its own, which does not mean that it is scaled to zero."""
    spec = deployed(play.bench)
    version = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "shop"}}
    play.bench.create("rollouts", version | {"spec": spec}, api=ARGO)
    play.key = play.bench.declare(target="web", execution={})
    play.operator = play.bench.operator(target_kinds=kinds)
    await play.passes_until(lambda: play.reason("TargetResolved") == "NotFollowable")
    assert "Rollout shop takes its pods from it" in play.bench.condition("TargetResolved")["message"]
    assert not play.bench.jobs
