"""A Rollout of Argo's on a real kubelet, under real requests: its owner's steps are kept, and no request is lost."""

from typing import Any

import pytest

from tests.e2e import kube
from tests.e2e.asked import answers, ask, service
from tests.e2e.scenario import NAMESPACE, resource, server

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("argo", "seeded")]
Json = dict[str, Any]
INFERENCE = {"port": 8080, "modelName": "model"}
REF = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"}
STEPS: list[Json] = [{"setWeight": 50}, {"pause": {}}]


def start(name: str, *, model: str = "good.onnx", **target: Any) -> None:
    """Apply a Rollout of two pods behind a Service, wait until it serves, and apply a resource that names it."""
    settings, deployment = server(name, model=model)
    spec = deployment["spec"] | {"replicas": 2, "strategy": {"canary": {"steps": STEPS, "maxUnavailable": 0}}}
    (container,) = spec["template"]["spec"]["containers"]
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}  # until every client has heard that the pod goes
    rollout = deployment | {"apiVersion": REF["apiVersion"], "kind": REF["kind"], "spec": spec}
    kube.apply(settings, rollout, service(name))
    wait_phase(name, "Healthy")
    wanted = {"ref": REF | {"name": name}, "inference": INFERENCE} | target
    kube.apply(resource(name, target=wanted, rollout={"progressDeadline": "3m", "bakeTime": "5s"}))


def wait_phase(name: str, phase: str) -> None:
    """Wait until Argo's controller says this of the Rollout."""
    until = (f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=4m")
    kube.kubectl("wait", f"rollout/{name}", "-n", NAMESPACE, *until, seconds=300)


def promote(name: str) -> None:
    """End the pause, as Argo's plugin for kubectl does."""
    words = ("patch", "rollout", name, "-n", NAMESPACE, "--subresource=status", "--type=merge")
    kube.kubectl(*words, "-p", '{"status": {"pauseConditions": null}}')


def environment(name: str) -> dict[str, str | None]:
    """The variables of the Rollout's only container."""
    template = kube.get("rollout", name, namespace=NAMESPACE)["spec"]["template"]
    return {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0].get("env", ())}


def test_a_version_goes_live_by_the_owner_s_own_steps_without_a_failed_request() -> None:
    """Its first pod is asked while the Rollout is paused; after the owner's word every pod has it."""
    name = "rolled"
    start(name)
    kube.wait_reason(name, "CandidateAccepted", "SmallerAtEqualQuality", namespace=NAMESPACE)
    job = ask(name)
    held = kube.wait_reason(name, "RolledOut", "HeldByTarget", namespace=NAMESPACE)
    assert "kubectl argo rollouts promote" in kube.condition(held, "RolledOut")["message"]
    assert any(item["metadata"]["name"].endswith("verify1") for item in kube.items("jobs", namespace=NAMESPACE))
    promote(name)
    promoted = kube.wait_reason(name, "RolledOut", "Promoted", namespace=NAMESPACE)
    champion = promoted["status"]["champion"]
    assert (champion["version"], champion["shownBy"]) == (2, "Digest")
    assert environment(name)["MODEL_URI"] == champion["uri"]
    wait_phase(name, "Healthy")
    assert answers(job).keys() == {"200"}


def test_a_version_that_the_owner_aborts_is_taken_back_without_a_failed_request() -> None:
    """The field would else name what no pod runs."""
    name = "aborted"
    start(name)
    kube.wait_reason(name, "CandidateAccepted", "SmallerAtEqualQuality", namespace=NAMESPACE)
    job = ask(name)
    kube.wait_reason(name, "RolledOut", "HeldByTarget", namespace=NAMESPACE)
    words = ("patch", "rollout", name, "-n", NAMESPACE, "--subresource=status", "--type=merge")
    kube.kubectl(*words, "-p", '{"status": {"abort": true}}')
    back = kube.wait_reason(name, "RolledOut", "RolledBack", namespace=NAMESPACE)
    assert back["status"]["lastRun"]["reason"] == "RolloutAborted"
    assert "MODEL_URI" not in environment(name)
    wait_phase(name, "Healthy")
    assert answers(job).keys() == {"200"}


def test_a_server_that_ignores_the_variable_is_found_out_before_the_owner_promotes() -> None:
    """It answers as the model that it was built with, whatever the field says."""
    name = "deaf-rollout"
    start(name, model="other.onnx", injection={"name": "UNREAD_URI"})
    back = kube.wait_reason(name, "RolledOut", "RolledBack", namespace=NAMESPACE)
    assert back["status"]["lastRun"]["reason"] in {"GoldenMismatch", "VariableIgnored"}
    assert back["status"]["champion"]["version"] == 1
    assert "UNREAD_URI" not in environment(name)
    wait_phase(name, "Healthy")
