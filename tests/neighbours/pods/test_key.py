"""Retune itself writes the key that the agents of stock pods follow, and a real kubelet brings it to them.

Manifests and specs are those of docs/running-servers.md: the key begins empty, and a person has it name version 1.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import kube
from tests.e2e.scenario import resource
from tests.neighbours.following import users
from tests.neighbours.pods import manifests
from tests.neighbours.pods.asked import asker, numbered, pods
from tests.neighbours.pods.conftest import GIVEN, JUDGED_SECONDS, SEARCH, SPOILED
from tests.neighbours.pods.stored import damaged

pytestmark = pytest.mark.timeout(1200)
Json = dict[str, Any]
KUBELET = {"progressDeadline": "4m"}
"""What the page advises, because of the kubelet."""


@pytest.fixture(scope="module")
def keyed(server: str, seeded: str) -> Iterator[str]:
    """What optimizes two Deployments whose agents follow a key; one waits for approval. Returns the namespace."""
    assert server
    for name, rollout in ((GIVEN, KUBELET), (SPOILED, KUBELET | {"approval": "Manual"})):
        place, spec = deployment(name), manifests.target(name, section=manifests.FOLLOWED)
        kube.apply(*manifests.running(name, ""), manifests.service(place))
        kube.apply(resource(name, search=SEARCH, rollout=rollout, **spec))
    for name in (GIVEN, SPOILED):
        begin(name, namespace=seeded)
    for name in (GIVEN, SPOILED):
        kube.kubectl("rollout", "status", f"deployment/{deployment(name)}", "-n", seeded, "--timeout=4m")
    yield seeded
    for name in (GIVEN, SPOILED):
        kube.kubectl("delete", f"deployment/{deployment(name)}", f"modeloptimization/{name}", "-n", seeded)


def deployment(name: str) -> str:
    """Name of the Deployment, and of its pods' label."""
    return f"{name}-running"


def begin(name: str, *, namespace: str) -> None:
    """Have the key name the bundle of version 1 once there is one, as the page says; the kubelet hears at once."""
    found = kube.wait_reason(name, "Baselined", "Measured", namespace=namespace)
    patch = json.dumps({"data": {"uri": found["status"]["original"]["uri"]}})
    kube.kubectl("patch", "configmap", f"{name}-wanted", "-n", namespace, "--type=merge", "-p", patch)
    mark = ("--selector", f"app={deployment(name)}", "--overwrite", "wanted=1")
    kube.kubectl("annotate", "pod", "-n", namespace, *mark)


def lives(name: str) -> dict[str, list[int]]:
    """How often each container of each pod was started again, by the pod's UID."""
    found = pods(f"app={deployment(name)}")
    return {
        pod["metadata"]["uid"]: [entry["restartCount"] for entry in pod["status"]["containerStatuses"]] for pod in found
    }


def key_of(name: str, *, namespace: str) -> Json:
    """What the ConfigMap says, and which of it Retune owns."""
    found = kube.kubectl.within(namespace)("get", "configmap", f"{name}-wanted", "-o", "json", "--show-managed-fields")
    document: Json = json.loads(found)
    owned = [entry["fieldsV1"] for entry in document["metadata"]["managedFields"] if entry["manager"] == "retune"]
    return {"data": document["data"], "owned": owned}


def test_a_version_reaches_running_servers_by_the_key(keyed: str) -> None:
    """No pod is made anew, no container starts again, no request fails, and the answers show the bundle."""
    before = lives(GIVEN)
    with users(asker(deployment(GIVEN), GIVEN), count=1) as asking:
        found = kube.wait_reason(GIVEN, "RolledOut", "Promoted", namespace=keyed, seconds=JUDGED_SECONDS)
    original, champion = found["status"]["original"], found["status"]["champion"]
    assert (champion["version"], champion["shownBy"]) == (2, "Digest")
    assert asking.failures == []
    assert set(asking.answered) == {numbered(original["uri"]), numbered(champion["uri"])}
    assert asking.answered[-1] == numbered(champion["uri"])
    assert lives(GIVEN) == before
    assert sorted(before.values()) == [[0, 0], [0, 0]]
    owned: list[Json] = [{"f:data": {"f:uri": {}}}]
    assert key_of(GIVEN, namespace=keyed) == {"data": {"uri": champion["uri"]}, "owned": owned}


def test_a_bundle_damaged_after_its_verdict_is_turned_back_in_the_agent_s_words(keyed: str) -> None:
    """The old version serves on: nobody noticed, and the key names it again."""
    waiting = ("RolledOut", "AwaitingApproval")
    found = kube.wait_reason(SPOILED, *waiting, namespace=keyed, seconds=JUDGED_SECONDS)
    original, candidate = found["status"]["original"], found["status"]["candidate"]
    before = lives(SPOILED)
    approval = {"spec": {"rollout": {"approvedVersion": candidate["digest"]}}}
    with damaged(candidate["uri"]), users(asker(deployment(SPOILED), SPOILED), count=1) as asking:
        kube.kubectl("patch", "modeloptimization", SPOILED, "-n", keyed, "--type=merge", "-p", json.dumps(approval))
        found = kube.wait_reason(SPOILED, "RolledOut", "RolledBack", namespace=keyed, seconds=JUDGED_SECONDS)
    message, status = kube.condition(found, "RolledOut")["message"], found["status"]
    assert f"its agent says: {candidate['uri']}: model.onnx has digest sha256:" in message
    assert message.endswith("Version 1 serves again.")
    assert (status["lastRun"]["reason"], status["champion"]["version"]) == ("AgentFault", 1)
    assert [entry["version"] for entry in status["rejected"]] == [2]
    assert key_of(SPOILED, namespace=keyed)["data"] == {"uri": original["uri"]}
    assert asking.failures == []
    assert set(asking.answered) == {numbered(original["uri"])}
    assert lives(SPOILED) == before
