"""An InferenceService as target under KServe's own controller: what it makes of the field, and what it says meanwhile.

KServe runs as a process beside a real API server, with its webhooks. Played are the kubelet's word that a pod is ready,
and the ends of Jobs.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from retune.targets.pod_template import SOURCE
from tests.cluster.harness import Bench
from tests.cluster.play import DELIVERED, Play, played
from tests.neighbours import kserve
from tools.localcluster.controlplane import ControlPlane

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
KSERVE, APPS = "/apis/serving.kserve.io/v1beta1", "/apis/apps/v1"
GIVEN = {"injection": {"type": "StorageUri", "takeover": "Force"}}
ASKED = GIVEN | {"inference": {"modelName": "digits"}}
RUNTIME: Json = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "retune"},
    "spec": {
        "supportedModelFormats": [{"name": "retune", "version": "1", "autoSelect": True}],
        "containers": [{"name": "kserve-container", "image": "server:test", "resources": {"limits": {"cpu": "1"}}}],
    },
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with KServe."""
    with kserve.beside_an_api_server(tmp_path_factory.mktemp("kserve")) as started:
        yield started


def given_by_kserve(pod: Json) -> str | None:
    """Where KServe has the pod's model from."""
    source: str | None = (pod["metadata"].get("annotations") or {}).get(SOURCE)
    return source


@pytest.fixture
async def play(bench: Bench) -> AsyncIterator[Play]:
    """A namespace with a runtime, in which Jobs end and pods run."""
    bench.create("servingruntimes", RUNTIME, api="/apis/serving.kserve.io/v1alpha1")
    names: Json = {"plural": "inferenceservices", "api": KSERVE, "kind": "InferenceService"}
    async with played(bench, **names, served=given_by_kserve, deployments=False) as play:
        yield play


def service(**more: Any) -> Json:
    """An InferenceService of two pods that is given the delivered model."""
    model = {"modelFormat": {"name": "retune"}, "storageUri": DELIVERED}
    return {"predictor": {"minReplicas": 2, "model": model} | more}


async def test_a_version_is_promoted_once_kserve_s_deployment_has_brought_it_to_every_pod(play: Play) -> None:
    """One field is owned, whatever KServe's webhooks do to the object on the way."""
    play.begin(service(), target=ASKED)
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    champion = play.status["champion"]
    assert play.values() == [champion["uri"]]
    assert play.target["spec"]["predictor"]["model"]["storageUri"] == champion["uri"]
    (owned,) = [entry for entry in play.target["metadata"]["managedFields"] if entry["manager"] == "retune"]
    assert owned["fieldsV1"] == {"f:spec": {"f:predictor": {"f:model": {"f:storageUri": {}}}}}
    assert "digits-r1-verify1" in {job["metadata"]["name"] for job in play.bench.jobs}
    assert not play.status.get("rejected")


async def test_a_version_whose_pods_never_get_ready_is_taken_back(play: Play) -> None:
    """KServe goes on saying Ready; its Deployment does not."""
    play.begin(service(), rollout={"progressDeadline": "60s"}, target=GIVEN)
    await play.fail_to_get_ready()
    assert play.target["spec"]["predictor"]["model"]["storageUri"] == DELIVERED


async def test_a_field_that_a_manifest_owns_is_not_fought_over(play: Play) -> None:
    """Without takeover Force the version waits, and the sentence says whose the field is."""
    play.begin(service(), target={"injection": {"type": "StorageUri"}})
    await play.passes_until(lambda: play.reason("TargetOwned") == "FieldConflict")
    message = play.bench.condition("TargetOwned")["message"]
    assert message.startswith("spec.predictor.model.storageUri of InferenceService digits is owned by")
    assert play.values() == [DELIVERED]


async def test_another_deployment_mode_is_refused_in_words(play: Play) -> None:
    """Its pods are those of revisions, which nobody follows here."""
    play.begin(service(), target=GIVEN)
    annotation = {"metadata": {"annotations": {"serving.kserve.io/deploymentMode": "Knative"}}}
    play.bench.patch(play.bench.path("inferenceservices", "digits", api=KSERVE), annotation)
    await play.passes_until(lambda: play.reason("TargetResolved") == "NotFollowable")
    assert "its deployment mode is Knative" in play.bench.condition("TargetResolved")["message"]


async def test_a_model_that_no_runtime_serves_is_told_in_kserve_s_words(play: Play) -> None:
    """There is no Deployment then, and nothing is given to it."""
    spec = service()
    spec["predictor"]["model"]["modelFormat"] = {"name": "unknown"}
    play.begin(spec, target=GIVEN)
    await play.passes_until(lambda: play.reason("RolledOut") == "TargetUnsettled")
    assert "KServe has not made Deployment digits-predictor" in play.bench.condition("RolledOut")["message"]
    assert play.target["spec"]["predictor"]["model"]["storageUri"] == DELIVERED
