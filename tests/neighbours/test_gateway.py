"""Canary and BlueGreen by a real Envoy Gateway: who answers is counted, and the route is as it was in the end.

Another Job asks through the gateway all the while, over new connections: not one of its requests may fail.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import kube
from tests.e2e.asked import HERE, answers, service
from tests.e2e.scenario import DATA, NAMESPACE, resource, server
from tests.e2e.test_canary import INFERENCE
from tests.neighbours.envoy import Gateway

pytestmark = pytest.mark.timeout(1200)
Json = dict[str, Any]
COUNTING, CAPTURING = (Path(__file__).parent / script for script in ("counting.py", "capturing.py"))
REQUESTS, ASKED_SECONDS = 200, 330
LEEWAY = 0.06
"""How far a counted share may be from the weight: the proxy's threads take turns each on their own."""
STEPS = [
    {"weight": 0, "hold": "90s", "minRequests": 20},
    *({"weight": weight, "hold": "50s", "minRequests": 20} for weight in (10, 50)),
]
HEADER = ("x-tester", "yes")
TESTERS = {"header": dict(zip(("name", "value"), HEADER, strict=True))}


def start(name: str, gateway: Gateway, *, code: Path | None = None) -> None:
    """Apply a server of two pods, its Service, and its route, the only one; wait until the gateway has accepted it."""
    kube.kubectl("delete", "httproutes", "--all", "-n", NAMESPACE)  # an older one would have the same requests
    settings, deployment = server(name, model="good.onnx", code=code)
    deployment["spec"]["replicas"] = 2
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}  # until every proxy has heard that the pod goes
    kube.apply(settings, deployment, service(name), route(name, gateway))
    kube.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=4m")
    accepted = '--for=jsonpath={.status.parents[0].conditions[?(@.type=="Accepted")].status}=True'
    kube.kubectl("wait", f"httproute/{name}", "-n", NAMESPACE, accepted, "--timeout=1m")


def route(name: str, gateway: Gateway) -> Json:
    """Return a route with a filter and a second rule, which are to stay as they are."""
    header = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-by", "value": "gate"}]}}
    path = {"path": {"type": "PathPrefix", "value": "/v2"}}
    serving = {"matches": [path], "filters": [header], "backendRefs": [{"name": name, "port": 8080}]}
    moved = {
        "type": "RequestRedirect",
        "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/v2"}},
    }
    other = {"matches": [{"path": {"type": "Exact", "value": "/old"}}], "filters": [moved]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"name": gateway.name}], "rules": [serving, other]},
    }


def rules(name: str) -> str:
    """Return the rules of the route as they are stored."""
    return json.dumps(kube.get("httproute", name, namespace=NAMESPACE)["spec"]["rules"])


def share(name: str, url: str, asks: str, *header: str) -> float:
    """Ask through the gateway; returns the share of answers that came from a bundle, not from the delivered model.

    asks: who asks, by which its Job is named. header: name and value of a header of every request.
    """
    job, arguments = f"{name}-{asks}", (url, str(REQUESTS), *header)
    script, counting = kube.python_job(job, COUNTING, namespace=NAMESPACE, claims=(), arguments=arguments)
    kube.apply(script, counting)
    kube.kubectl("wait", f"job/{job}", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=2m")
    counts: dict[str, int] = json.loads(kube.kubectl("logs", f"job/{job}", "-n", NAMESPACE))
    print(f"answers through the gateway: {counts}")
    assert all(answer.startswith("200 ") for answer in counts)
    return sum(count for answer, count in counts.items() if answer != "200 delivered") / REQUESTS


def hold(name: str, weight: int) -> None:
    """Wait until the canary has a share by the route, as its status says."""
    path = f"--for=jsonpath={{.status.rollout.effectiveWeight}}={weight}"
    kube.kubectl("wait", f"modeloptimization/{name}", "-n", NAMESPACE, path, "--timeout=5m")
    kube.wait_reason(name, "RolledOut", "HoldingWeight", namespace=NAMESPACE)


def begin(name: str, url: str, rollout: Json, **spec: Any) -> None:
    """Have a version that is rolled out in this way, and somebody who asks all the while."""
    usual, target = {"progressDeadline": "3m", "bakeTime": "5s"}, {"ref": {"name": name}, "inference": INFERENCE}
    kube.apply(resource(name, target=target, rollout=usual | rollout, **spec))
    kube.wait_reason(name, "CandidateAccepted", "SmallerAtEqualQuality", namespace=NAMESPACE)
    script, asking = kube.python_job(
        f"{name}-asking", HERE / "asking.py", namespace=NAMESPACE, claims=(), arguments=(url, str(ASKED_SECONDS))
    )
    kube.apply(script, asking)


def capture(name: str) -> str:
    """Have the seeded test rows captured as users' requests; returns the URI of their folder."""
    job, root = f"{name}-captured", f"/mnt/pvc/{DATA}"
    arguments = (f"{root}/models/good.onnx", f"{root}/data/test.npz", f"{root}/captured/{name}")
    kube.apply(*kube.python_job(job, CAPTURING, namespace=NAMESPACE, claims=(DATA,), arguments=arguments))
    kube.kubectl("wait", f"job/{job}", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=2m")
    return f"pvc://{DATA}/captured/{name}"


def check_end(name: str, before: str) -> None:
    """Check that the version is promoted, nothing of its trial is left, and no request has failed."""
    found = kube.wait_reason(name, "RolledOut", "Promoted", namespace=NAMESPACE, seconds=500)
    assert found["status"]["champion"]["version"] == 2
    assert "canaryRoute" not in found["status"]
    assert rules(name) == before
    names = {
        item["metadata"]["name"]
        for kind in ("services", "deployments")
        for item in kube.items(kind, namespace=NAMESPACE)
    }
    assert f"{name}-canary" not in names
    counts = answers(f"{name}-asking")
    print(f"answers while a version was tried and promoted: {counts}")
    assert set(counts) == {"200"}


def test_a_version_gets_exactly_its_share_through_a_gateway_and_no_request_fails(gateway: Gateway) -> None:
    """Testers first, by a header; 10 and 50 %, then all of it. The operator is killed, and the rules are as before."""
    name, url = "weighed", f"http://{gateway.address}/v2/models/model/infer"
    start(name, gateway)
    before = rules(name)
    traffic = {"kind": "HTTPRoute", "route": {"name": name}, "testers": TESTERS}
    begin(name, url, {"strategy": "Canary", "canary": {"steps": STEPS, "traffic": traffic}})
    hold(name, 0)
    assert (share(name, url, "testers", *HEADER), share(name, url, "users")) == (1, 0)
    for percent in (10, 50):
        hold(name, percent)
        assert abs(share(name, url, f"at{percent}") - percent / 100) <= LEEWAY
    kube.kill_operator()
    check_end(name, before)


def test_a_version_gets_all_requests_at_once_and_no_request_fails(gateway: Gateway) -> None:
    """At full size, after its testers; the champion's pods stay until it has kept everybody."""
    name, url = "switched", f"http://{gateway.address}/v2/models/model/infer"
    start(name, gateway)
    before = rules(name)
    traffic = {"kind": "HTTPRoute", "route": {"name": name}, "testers": TESTERS}
    begin(name, url, {"strategy": "BlueGreen", "blueGreen": {"preview": "90s", "keepOld": "60s", "traffic": traffic}})
    hold(name, 0)
    assert kube.get("deployment", f"{name}-canary", namespace=NAMESPACE)["status"]["readyReplicas"] == 2
    assert (share(name, url, "testers", *HEADER), share(name, url, "users")) == (1, 0)
    hold(name, 100)
    assert share(name, url, "everybody") == 1
    assert kube.get("deployment", name, namespace=NAMESPACE)["status"]["readyReplicas"] == 2
    kube.kill_operator()
    check_end(name, before)


def test_a_version_that_fails_at_what_users_have_asked_is_caught_by_its_shadow(gateway: Gateway) -> None:
    """Half of what was captured ends in an error there: it is rejected, and no user's request was lost for it."""
    name, url = "shadowed", f"http://{gateway.address}/v2/models/model/infer"
    start(name, gateway, code=HERE / "failing_server.py")
    before, watched = rules(name), {"production": {"uri": capture(name)}}
    canary = {"shadow": {"requests": 100}, "traffic": {"kind": "HTTPRoute", "route": {"name": name}}}
    begin(name, url, {"strategy": "Canary", "canary": canary}, monitoring=watched)
    found = kube.wait_reason(name, "RolledOut", "RolledBack", namespace=NAMESPACE, seconds=400)
    last = found["status"]["lastRun"]
    print(f"what the shadow said: {last['message']}")
    assert (last["outcome"], last["reason"]) == ("RolledBack", "ShadowErrors")
    assert [entry["version"] for entry in found["status"]["rejected"]] == [2]
    assert rules(name) == before
    counts = answers(f"{name}-asking")
    print(f"answers while a bad version was shadowed: {counts}")
    assert set(counts) == {"200"}
