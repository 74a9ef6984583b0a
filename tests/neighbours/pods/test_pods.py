"""Stock pods of Triton on a real kubelet: prepared by an init container, followed by an agent, and beside the judge.

The manifests are those of docs/running-servers.md, in a namespace that lets in nothing but restricted pods. The server
is the real Triton, with ONNX Runtime called from Python.
"""

import json
from typing import Any

import pytest

from retune.contract.serving import SERVER_CONTAINER
from tests.e2e import kube
from tests.e2e.scenario import NAMESPACE
from tests.neighbours.following import users
from tests.neighbours.pods import built
from tests.neighbours.pods.agent_pod import running, served
from tests.neighbours.pods.asked import asker, last_words, numbered, pods, state
from tests.neighbours.pods.conftest import HARMED, JUDGED_SECONDS, PREPARED, REFUSED, Promoted
from tests.neighbours.pods.stored import damaged, damaged_copy
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.timeout(1200)
Json = dict[str, Any]
SECONDS = 180.0
SHORTEST_MS = 0.2
"""No call over HTTP is as short; in an engine of the judge's own, this network's are."""


def test_a_bundle_reaches_the_pods_of_a_stock_triton_without_a_failed_request(promoted: Promoted) -> None:
    """Its number is in every answer afterwards, so that the condition says what has shown it."""
    number = numbered(promoted.champion["uri"])
    assert (promoted.champion["version"], promoted.champion["shownBy"]) == (2, "Digest")
    assert promoted.before == "1"
    assert promoted.users.failures == []
    assert set(promoted.users.answered) == {promoted.before, number}
    assert promoted.users.answered[-1] == number
    for pod in pods(f"app={PREPARED}"):
        assert state(pod, "model")["state"]["terminated"]["exitCode"] == 0
        assert state(pod, "server")["restartCount"] == 0


@pytest.mark.usefixtures("promoted")
def test_the_judge_s_pod_ran_the_server_as_a_sidecar_that_ended_with_it() -> None:
    """The numbers are the server's own, and the Job has not waited for a server that does not end."""
    (pod,) = pods(f"job-name={PREPARED}-r1-judge")
    end = state(pod, SERVER_CONTAINER)["state"]["terminated"]
    assert end["exitCode"] == 0, end
    assert pod["status"]["phase"] == "Succeeded"
    run = run_of(PREPARED)
    sentence = f"Latency was measured through the server itself: triton 2.51.0, image {built.SERVER}."
    assert sentence in run["message"]
    times = [entry for entry in run["comparisons"] if entry["name"].startswith("latency")]
    assert times
    assert all(float(entry[side]["value"]) > SHORTEST_MS for entry in times for side in ("champion", "candidate"))


def run_of(name: str) -> Json:
    """Return the status of a resource's only run."""
    (run,) = kube.ended_runs(name, namespace=NAMESPACE)
    status: Json = run["status"]
    return status


def test_a_server_that_refuses_the_finalists_leaves_the_champion(begun: str) -> None:
    """In the server's own words, by the verdict of a judge beside a real sidecar."""
    refused = ("CandidateAccepted", "ServerRefused")
    found = kube.wait_reason(REFUSED, *refused, namespace=begun, seconds=JUDGED_SECONDS)
    message = kube.condition(found, "CandidateAccepted")["message"]
    assert "Unsupported model IR version: 13, max supported IR version: 10" in message
    assert found["status"]["champion"]["version"] == 1


def test_a_damaged_bundle_leaves_the_old_pods_serving(begun: str) -> None:
    """It is damaged after the verdict: what the init container left last is in the condition, and nobody noticed."""
    waiting = ("RolledOut", "AwaitingApproval")
    found = kube.wait_reason(HARMED, *waiting, namespace=begun, seconds=JUDGED_SECONDS)
    candidate = found["status"]["candidate"]
    before = {pod["metadata"]["uid"] for pod in pods(f"app={HARMED}")}
    approval = {"spec": {"rollout": {"approvedVersion": candidate["digest"]}}}
    with damaged(candidate["uri"]), users(asker(HARMED), count=1) as asking:
        kube.kubectl("patch", "modeloptimization", HARMED, "-n", begun, "--type=merge", "-p", json.dumps(approval))
        found = kube.wait_reason(HARMED, "RolledOut", "RolledBack", namespace=begun)
    message = kube.condition(found, "RolledOut")["message"]
    assert "container model: " in message
    assert f"ended with exit code 1: {candidate['uri']}: model.onnx has digest sha256:" in message
    assert message.endswith("or delete its folder and run again. Version 1 serves again.")
    assert [entry["version"] for entry in found["status"]["rejected"]] == [2]
    assert asking.failures == []
    assert set(asking.answered) == {"1"}
    assert {pod["metadata"]["uid"] for pod in pods(f"app={HARMED}")} == before


def test_a_new_pod_waits_for_a_bundle_that_is_damaged_and_starts_once_it_is_restored(promoted: Promoted) -> None:
    """The kubelet runs the init container again and again; meanwhile the other pod serves alone."""
    gone, kept = pods(f"app={PREPARED}")
    with damaged(promoted.champion["uri"]), users(asker(PREPARED), count=1) as asking:
        kube.kubectl("delete", "pod", gone["metadata"]["name"], "-n", NAMESPACE, "--wait=false")
        wait_for(lambda: "model.onnx has digest" in newest_words(), what="end of the init container", seconds=SECONDS)
        assert pods(f"app={PREPARED}")[0]["metadata"]["uid"] == kept["metadata"]["uid"]
    kube.kubectl("rollout", "status", f"deployment/{PREPARED}", "-n", NAMESPACE, "--timeout=3m")
    assert asking.failures == []
    assert set(asking.answered) == {numbered(promoted.champion["uri"])}


def newest_words() -> str:
    """The last words of the init container of the newest pod."""
    return last_words(pods(f"app={PREPARED}")[-1], "model")


def test_a_running_server_gets_what_the_key_names_and_keeps_it_whatever_is_wrong(promoted: Promoted) -> None:
    """No pod is replaced, no container starts again, and no request fails."""
    first, second = promoted.status["original"]["uri"], promoted.champion["uri"]
    with running("followed", first) as server, damaged_copy(first) as spoiled:
        with users(server.ask, count=1) as asking:
            server.want(second)
            server.until_served(second)
            absent = f"{second[:-64]}{'0' * 64}"
            for uri, fault in ((spoiled, "model.onnx has digest"), (absent, "there is no bundle")):
                server.want(uri)
                assert server.until_fault(uri, fault)["served"] == served(second)
            server.want(first)
            server.until_served(first)
        assert asking.failures == []
        assert set(asking.answered) == {numbered(uri) for uri in (first, second)}
        (pod,) = pods("app=followed-running")
        assert pod["metadata"]["uid"] == server.uid
        assert [entry["restartCount"] for entry in pod["status"]["containerStatuses"]] == [0, 0]
