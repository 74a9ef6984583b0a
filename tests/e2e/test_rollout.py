"""Whole journeys on a real kubelet: a better model goes live, and one that does not hold up is taken back.

The server is MLServer with the code that judged the bundle; data and model are real; nothing is played.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import kube
from tests.e2e.scenario import DATA, NAMESPACE, STORE, resource, server
from tools.kubectl import CommandError

pytestmark = pytest.mark.timeout(600)
Json = dict[str, Any]
INFERENCE = {"port": 8080, "modelName": "model"}


def environment(name: str) -> dict[str, str]:
    """Return the variables of a target's container."""
    containers = kube.get("deployment", name, namespace=NAMESPACE)["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "") for each in containers[0].get("env", ())}


def pods(name: str) -> list[Json]:
    """Return a target's pods."""
    return kube.items("pods", namespace=NAMESPACE, selector=f"app={name}")


def served_version(name: str) -> str:
    """Ask the one pod of a target which version of the model it serves: the start of a digest."""
    (pod,) = [each for each in pods(name) if "deletionTimestamp" not in each["metadata"]]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy/v2/models/model"
    versions: list[str] = json.loads(kube.kubectl("get", "--raw", path))["versions"]
    return versions[0]


def start(name: str, *, model: str = "good.onnx", claims: tuple[str, ...] = (DATA, STORE), **spec: Any) -> None:
    """Apply a server, wait until it serves, and apply the resource that optimizes it."""
    kube.apply(*server(name, model=model, claims=claims))
    kube.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=3m")
    target = {"ref": {"name": name}, "inference": INFERENCE} | spec.pop("target", {})
    kube.apply(resource(name, **{"target": target} | spec))


@pytest.mark.usefixtures("seeded")
def test_a_better_model_goes_live_though_the_operator_is_killed_on_the_way() -> None:
    """Two workers share the study; killed in search and rollout, the loop ends Promoted once; deletion restores."""
    name = "live"
    start(name, deletionPolicy="RestoreOriginal", search={"maxTrials": 6, "parallelism": 2})
    kube.wait_reason(name, "Optimizing", "Running", namespace=NAMESPACE)
    kube.kill_operator()
    kube.wait_reason(name, "CandidateAccepted", "SmallerAtEqualQuality", namespace=NAMESPACE)
    kube.kill_operator()
    found = kube.wait_reason(name, "RolledOut", "Promoted", namespace=NAMESPACE)
    champion = found["status"]["champion"]
    assert champion["version"] == 2
    assert environment(name)["MODEL_URI"] == champion["uri"]
    assert served_version(name) == champion["digest"].removeprefix("sha256:")[:12]
    assert champion["sizeBytes"] * 3 < found["status"]["original"]["sizeBytes"]
    (run,) = kube.ended_runs(name, namespace=NAMESPACE)
    assert run["status"]["outcome"] == "Promoted"
    assert run["status"]["comparisons"]
    assert run["status"]["trials"]["done"] == 6
    assert kube.get("job", f"{name}-r1-search", namespace=NAMESPACE)["status"]["succeeded"] == 2
    kube.kubectl("delete", "modeloptimization", name, "-n", NAMESPACE, "--timeout=2m")
    assert "MODEL_URI" not in environment(name)


@pytest.mark.usefixtures("seeded")
def test_a_server_that_answers_golden_requests_wrongly_is_rolled_back() -> None:
    """A server that ignores the variable and serves another model looks ready, and is found out by its answers."""
    name = "deaf"
    start(name, model="other.onnx", target={"injection": {"name": "UNREAD_URI"}})
    found = kube.wait_reason(name, "RolledOut", "RolledBack", namespace=NAMESPACE)
    assert found["status"]["lastRun"]["outcome"] == "RolledBack"
    assert found["status"]["lastRun"]["reason"] == "GoldenMismatch"
    assert found["status"]["champion"]["version"] == 1
    assert found["status"]["rejected"]
    assert "UNREAD_URI" not in environment(name)
    assert kube.condition(found, "Ready")["status"] == "True"


def infer(name: str) -> bool:
    """Ask the one pod of a target once; returns whether it answered."""
    pod = next(each for each in pods(name) if "deletionTimestamp" not in each["metadata"])["metadata"]["name"]
    tensor = {"name": "X", "shape": [1, 30], "datatype": "FP32", "data": [0.0] * 30}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/v2/models/model/infer"
    try:
        kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps({"inputs": [tensor]}))
    except CommandError:
        return False
    return True


@pytest.mark.usefixtures("seeded")
def test_a_version_that_fails_half_of_the_live_requests_in_its_bake_is_rolled_back() -> None:
    """Fault 25: it is ready and answers golden requests right; its own counters give it away, and it is rejected."""
    name = "failing"
    kube.apply(*server(name, model="good.onnx", code=Path(__file__).parent / "failing_server.py"))
    kube.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=3m")
    target = {"ref": {"name": name}, "inference": INFERENCE}
    kube.apply(resource(name, target=target, rollout={"progressDeadline": "90s", "bakeTime": "5m"}))
    kube.wait_reason(name, "RolledOut", "Baking", namespace=NAMESPACE)
    answered = [infer(name) for _ in range(60)]
    assert answered.count(False) >= 10, answered
    found = kube.wait_reason(name, "RolledOut", "RolledBack", namespace=NAMESPACE)
    last = found["status"]["lastRun"]
    assert (last["outcome"], last["reason"]) == ("RolledBack", "LiveErrors")
    assert "requests failed" in last["message"]
    assert [entry["version"] for entry in found["status"]["rejected"]] == [2]
    assert "MODEL_URI" not in environment(name)
    assert infer(name)
    assert kube.condition(found, "Ready")["status"] == "True"


@pytest.mark.usefixtures("seeded")
def test_pods_that_do_not_become_ready_are_rolled_back_and_the_old_ones_serve_on() -> None:
    """Fault 25: without the store's claim the new pods cannot load; the deadline passes; the old pod never stopped."""
    name = "blind"
    kube.apply(*server(name, model="good.onnx", claims=(DATA,)))
    kube.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=3m")
    (before,) = pods(name)
    target = {"ref": {"name": name}, "inference": INFERENCE}
    kube.apply(resource(name, target=target, rollout={"progressDeadline": "20s", "bakeTime": "5s"}))
    found = kube.wait_reason(name, "RolledOut", "RolledBack", namespace=NAMESPACE)
    assert found["status"]["lastRun"]["reason"] == "ProgressDeadlineExceeded"
    assert "MODEL_URI" not in environment(name)
    alive = {each["metadata"]["uid"] for each in pods(name)}
    assert before["metadata"]["uid"] in alive


@pytest.mark.usefixtures("seeded")
def test_suspend_holds_a_run_in_place_and_takeover_force_takes_the_field() -> None:
    """Suspended, the search's Job is held; resumed, it goes on; a field that a manifest set is taken when told so."""
    name = "held"
    source, target = server(name, model="good.onnx")
    target["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "MODEL_URI", "value": f"pvc://{DATA}/models/good.onnx"}
    ]
    kube.apply(source, target)
    kube.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=3m")
    kube.apply(resource(name, target={"ref": {"name": name}, "inference": INFERENCE}))
    kube.wait_reason(name, "Optimizing", "Running", namespace=NAMESPACE)
    patch("held", suspend=True)
    kube.wait_reason(name, "Suspended", "Suspended", namespace=NAMESPACE)
    kube.kubectl("wait", f"job/{name}-r1-search", "-n", NAMESPACE, "--for=condition=Suspended", "--timeout=1m")
    patch("held", suspend=False)
    found = kube.wait_reason(name, "TargetOwned", "FieldConflict", namespace=NAMESPACE)
    assert "kubectl" in kube.condition(found, "TargetOwned")["message"]
    assert kube.condition(found, "Stalled")["status"] == "True"
    patch("held", target={"injection": {"takeover": "Force"}})
    found = kube.wait_reason(name, "RolledOut", "Promoted", namespace=NAMESPACE)
    assert environment(name)["MODEL_URI"] == found["status"]["champion"]["uri"]


def patch(name: str, **spec: Any) -> None:
    """Change a resource's spec as `kubectl patch` does."""
    kube.kubectl("patch", "modeloptimization", name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": spec}))
