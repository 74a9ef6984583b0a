"""An InferenceService as target: what KServe's Deployment shows, and what KServe's own status must not decide."""

import copy
from typing import Any

import pytest

from retune.api import FIELD_MANAGER
from retune.plan.observed import Target
from retune.targets.inference_service import InferenceService
from tests.unit.operator.target_samples import BEFORE, SAMPLES, SOURCE, VALUE, VARIABLE

Json = dict[str, Any]
SAMPLE = SAMPLES["serving.kserve.io/v1beta1", "InferenceService"]
READY = {"type": "Ready", "status": "True"}
OWNED: Json = {"f:spec": {"f:predictor": {"f:model": {"f:storageUri": {}}}}}


def changed(*, model: Json | None = None, **parts: Any) -> Json:
    """The InferenceService with other parts of its model, predictor, spec, status or annotations."""
    raw = copy.deepcopy(SAMPLE.raw)
    raw["spec"]["predictor"]["model"] |= model or {}
    raw["spec"]["predictor"] |= parts.pop("predictor", {})
    raw["spec"] |= parts.pop("spec", {})
    raw["status"] |= parts.pop("status", {})
    raw["metadata"] |= parts
    return raw


def made(raw: Json) -> Json:
    """The Deployment that KServe has made of it."""
    deployment: Json = raw["beside"]["digits-predictor"]
    return deployment


def parsed(raw: Json) -> Target:
    """The InferenceService as the planner sees it."""
    return InferenceService().parse(raw, variable=VARIABLE)


def test_it_is_its_deployment_that_says_whether_a_version_has_arrived() -> None:
    """KServe's own Ready stays True through a rolling update, and its observedGeneration is one behind at rest."""
    raw = changed(model={"storageUri": "pvc://a/bundles/3"}, status={"conditions": [READY]})
    assert not parsed(raw).settled
    assert parsed(raw).progress == "KServe has not given it to Deployment digits-predictor yet"
    made(raw)["spec"]["template"]["metadata"]["annotations"][SOURCE] = "pvc://a/bundles/3"
    made(raw)["metadata"]["generation"] += 1
    assert not parsed(raw).settled
    assert "has not seen the change" in parsed(raw).progress
    made(raw)["status"] |= {"observedGeneration": 5, "replicas": 3, "updatedReplicas": 1}
    assert "1 of 2 pods replaced" in parsed(raw).progress
    made(raw)["status"] |= {"replicas": 2, "updatedReplicas": 2}
    assert parsed(raw).settled


def test_what_kserve_says_stands_in_the_way_is_told() -> None:
    """Such as a model format that no runtime has; before there is a Deployment too."""
    failure = {"modelStatus": {"lastFailureInfo": {"reason": "NoSupportingRuntime", "message": "No runtime found"}}}
    raw = changed(model={"storageUri": "pvc://a/bundles/3"}, status=failure)
    assert parsed(raw).progress.endswith("Deployment digits-predictor: No runtime found")
    del raw["beside"]
    assert parsed(raw).progress == "KServe has not made Deployment digits-predictor: No runtime found"
    assert (parsed(raw).settled, parsed(raw).wanted, parsed(raw).available) == (False, 2, 0)
    assert InferenceService().pod_selector(raw) == "serving.kserve.io/inferenceservice=digits"


def test_the_template_of_its_pods_does_not_change_with_the_version() -> None:
    """Else every version would look like a change that others made; a real one still does."""
    raw, other = changed(), changed(model={"storageUri": "pvc://a/bundles/3"})
    made(other)["spec"]["template"]["metadata"]["annotations"][SOURCE] = "pvc://a/bundles/3"
    assert parsed(raw).template == parsed(other).template
    made(other)["spec"]["template"]["metadata"]["annotations"]["note"] = "x"
    assert parsed(raw).template != parsed(other).template


def test_its_claim_is_the_one_that_kserve_mounts_into_the_pods() -> None:
    """The template has no volume: Jobs are put beside the pods all the same."""
    assert parsed(changed()).claims == {"a"}
    assert parsed(changed(model={"storageUri": "s3://bucket/model"})).claims == frozenset()


def test_the_field_has_one_owner() -> None:
    """Of several, the one that would conflict; other fields of the predictor are nobody's business."""
    entries = [
        {"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {"f:predictor": {"f:minReplicas": {}}}}},
        {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": OWNED},
    ]
    (container,) = parsed(changed(managedFields=entries)).containers
    assert (container.name, container.value, container.manager) == ("kserve-container", VALUE, FIELD_MANAGER)
    assert container.cpu_limit == 1.0
    theirs = [*entries, {"manager": "kustomize-controller", "operation": "Apply", "fieldsV1": OWNED}]
    (container,) = parsed(changed(managedFields=theirs)).containers
    assert container.manager == "kustomize-controller"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (changed(annotations={"serving.kserve.io/deploymentMode": "Knative"}), "deployment mode is Knative"),
        (changed(annotations={"serving.kserve.io/deploymentMode": "Serverless"}), "deployment mode is Serverless"),
        (changed(status={"deploymentMode": "ModelMesh"}), "deployment mode is ModelMesh"),
        (changed(annotations={"serving.kserve.io/deploymentMode": "RawDeployment"}), None),
        (changed(model={"storage": {"key": "k", "path": "p"}}), "spec.predictor.model.storage names the model"),
        (changed(predictor={"workerSpec": {}}), "its workerSpec makes other pods"),
        (changed(predictor={"canaryTrafficPercent": 10}), "its canaryTrafficPercent makes other pods"),
        (changed(spec={"canary": [{"trafficPercent": 10}]}), "its canary makes other pods"),
        (changed(), None),
    ],
)
def test_what_is_not_followed_is_refused_in_words(raw: Json, words: str | None) -> None:
    """Before anything is spent; the whole object and what memory keeps say the same."""
    kept = InferenceService().trimmed(raw) | {"beside": raw["beside"]}
    assert parsed(kept).unfit == parsed(raw).unfit
    assert (parsed(raw).unfit is None) == (words is None)
    assert words is None or words in str(parsed(raw).unfit)


def test_a_predictor_without_a_model_is_refused_in_words() -> None:
    """Containers of the owner's own, or a field for one framework, have no such URI."""
    raw = changed()
    raw["spec"]["predictor"] = {"containers": [{"name": "kserve-container", "image": "own"}]}
    target = parsed(InferenceService().trimmed(raw))
    assert target.containers == ()
    assert "no spec.predictor.model" in str(target.unfit)


def test_pods_of_the_version_before_are_no_endpoints() -> None:
    """KServe's annotation in the pod says which model it has been given."""
    pods = [SAMPLE.pod("a"), SAMPLE.pod("b", value=BEFORE)]
    seen = InferenceService().pods(SAMPLE.raw, pods, container="kserve-container", variable=VARIABLE, port=8080)
    assert len(seen.endpoints) == 1
