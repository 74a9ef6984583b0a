"""A canary on a real kubelet, under real requests: users of a good version notice nothing, of a bad one little.

A Service shares requests between the target's pods and the canary's; a Job asks it all the time and counts the answers.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e import kube
from tests.e2e.asked import answers, ask, service
from tests.e2e.scenario import NAMESPACE, resource, server

pytestmark = pytest.mark.timeout(900)
Json = dict[str, Any]
INFERENCE = {"port": 8080, "modelName": "model"}
HERE = Path(__file__).parent


def start(name: str, *, code: Path | None = None, **canary: Any) -> None:
    """Apply a server of two pods behind a Service, wait until it serves, and apply a resource with a canary."""
    settings, deployment = server(name, model="good.onnx", code=code)
    spec = deployment["spec"]
    spec["replicas"] = 2
    for labels in (spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
        labels["track"] = "stable"
    (container,) = spec["template"]["spec"]["containers"]
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}  # until every client has heard that the pod goes
    kube.apply(settings, deployment, service(name))
    kube.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=4m")
    rollout = {"strategy": "Canary", "progressDeadline": "3m", "bakeTime": "5s", "canary": canary}
    kube.apply(resource(name, target={"ref": {"name": name}, "inference": INFERENCE}, rollout=rollout))


def deployments(name: str) -> set[str]:
    """Return which of a target and its canary are there."""
    names = {item["metadata"]["name"] for item in kube.items("deployments", namespace=NAMESPACE)}
    return names & {name, f"{name}-canary"}


@pytest.mark.usefixtures("seeded")
def test_a_good_version_goes_live_by_a_canary_without_a_failed_request() -> None:
    """It gets its share beside the champion, though the operator is killed meanwhile; then every pod, and all of it."""
    name = "tried"
    start(name, steps=[{"weight": 33, "hold": "20s", "minRequests": 30}])
    kube.wait_reason(name, "CandidateAccepted", "SmallerAtEqualQuality", namespace=NAMESPACE)
    job = ask(name)
    found = kube.wait_reason(name, "RolledOut", "HoldingWeight", namespace=NAMESPACE)
    rollout = found["status"]["rollout"]
    assert (rollout["weight"], rollout["effectiveWeight"]) == (33, 33)
    assert deployments(name) == {name, f"{name}-canary"}
    kube.kill_operator()
    found = kube.wait_reason(name, "RolledOut", "Promoted", namespace=NAMESPACE, seconds=400)
    assert (found["status"]["champion"]["version"], found["status"]["champion"]["shownBy"]) == (2, "Digest")
    assert deployments(name) == {name}
    counts = answers(job)
    print(f"answers while a canary was tried and promoted: {counts}")
    assert set(counts) == {"200"}


@pytest.mark.usefixtures("seeded")
def test_a_version_that_fails_half_of_its_requests_never_reaches_the_target() -> None:
    """Fault 25: it is ready and answers golden requests right; as a canary it is heard, removed and rejected."""
    name = "caught"
    start(name, code=HERE / "failing_server.py", steps=[{"weight": 33, "hold": "3m"}])
    before = kube.get("deployment", name, namespace=NAMESPACE)["metadata"]["generation"]
    kube.wait_reason(name, "CandidateAccepted", "SmallerAtEqualQuality", namespace=NAMESPACE)
    job = ask(name)
    found = kube.wait_reason(name, "RolledOut", "RolledBack", namespace=NAMESPACE, seconds=400)
    last = found["status"]["lastRun"]
    assert (last["outcome"], last["reason"]) == ("RolledBack", "LiveErrors")
    assert "as a canary" in last["message"]
    assert [entry["version"] for entry in found["status"]["rejected"]] == [2]
    assert deployments(name) == {name}
    assert kube.get("deployment", name, namespace=NAMESPACE)["metadata"]["generation"] == before
    counts = answers(job)
    print(f"answers while a bad canary was caught: {counts}")
    assert sum(counts.values()) - counts["200"] < 0.1 * sum(counts.values())
    assert kube.condition(found, "Ready")["status"] == "True"
