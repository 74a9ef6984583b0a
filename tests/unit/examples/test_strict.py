"""The namespace of the digits example is strict, and has room for what runs in it."""

from typing import Any

import pytest
import yaml

from examples.digits.kube import DIGITS, NAMESPACE
from retune.api.quantities import cores, memory_bytes
from retune.api.resources import Resources
from retune.contract.requests import JobRequest
from retune.job_template import Storage
from retune.plan.actions import CreateJob
from retune.workloads.labels import labels
from retune.workloads.resources import container_resources, node_storage
from tests import samples

Json = dict[str, Any]
REQUESTS: dict[str, JobRequest] = {
    request.command: request
    for request in (
        samples.baseline_request(),
        samples.gather_request(),
        samples.search_request(),
        samples.judge_request(),
        samples.verify_request(),
        samples.check_request(),
        samples.register_request(),
    )
}
SERVERS, OLD_AND_NEW = 2, 5
"""Pods of the server, and the most that there are while they are replaced: two old, one more, two that are ending."""


def documents(kind: str) -> list[Json]:
    """The example's objects of a kind."""
    files = sorted((DIGITS.folder / "manifests").glob("*.yaml"))
    every = [document for file in files for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    return [document for document in every if document["kind"] == kind]


def amounts_of(kind: str, name: str) -> Json:
    """Requests and limits of the one container of a workload of the example."""
    (workload,) = [each for each in documents(kind) if each["metadata"]["name"] == name]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    amounts: Json = container["resources"]
    return amounts


def amounts_of_job(command: str) -> Json:
    """Requests and limits of a Job beside the example's server."""
    limit = cores(amounts_of("Deployment", "digits")["limits"]["cpu"])
    action = CreateJob("j", REQUESTS[command], cpu_limit=limit)
    return container_resources(action, Resources(), storage=node_storage(Storage(), scratch="4Gi"))


OWN = [("Job", "digits-training"), ("Deployment", "digits"), ("Deployment", "digits-traffic")]
EVERY = [amounts_of(*which) for which in OWN] + [amounts_of_job(command) for command in sorted(REQUESTS)]


@pytest.mark.parametrize("amounts", EVERY, ids=[*(name for _, name in OWN), *sorted(REQUESTS)])
def test_the_largest_container_allowed_is_large_enough(amounts: Json) -> None:
    """Each container of the example, and each Job of Retune's."""
    (limits,) = documents("LimitRange")
    (most,) = [each["max"] for each in limits["spec"]["limits"] if each["type"] == "Container"]
    assert cores(amounts["limits"]["cpu"]) <= cores(most["cpu"])
    assert memory_bytes(amounts["limits"]["memory"]) <= memory_bytes(most["memory"])


@pytest.mark.parametrize("which", ["requests", "limits"])
def test_the_quota_has_room_for_the_demo_at_its_fullest_and_little_more(which: str) -> None:
    """While pods are replaced, and while a search runs, beside the traffic and the check of a window."""
    (quota,) = documents("ResourceQuota")
    traffic, check = amounts_of("Deployment", "digits-traffic"), amounts_of_job("check")
    for resource, number in (("cpu", cores), ("memory", memory_bytes)):
        server = number(amounts_of("Deployment", "digits")[which][resource])
        beside = number(traffic[which][resource]) + number(check[which][resource])
        replacing = OLD_AND_NEW * server + beside + number(amounts_of_job("verify")[which][resource])
        searching = SERVERS * server + beside + number(amounts_of_job("search")[which][resource])
        allowed = number(quota["spec"]["hard"][f"{which}.{resource}"])
        assert max(replacing, searching) < allowed < 1.5 * max(replacing, searching)


def test_everything_is_denied_but_what_a_policy_lets_through() -> None:
    """One policy selects every pod for both directions and allows nothing; the objects are the namespace's own."""
    every = documents("NetworkPolicy")
    assert {policy["metadata"]["namespace"] for policy in every} == {NAMESPACE}
    (deny,) = [policy for policy in every if policy["spec"]["podSelector"] == {}]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_server_lets_in_the_jobs_that_ask_golden_requests_and_no_others() -> None:
    """By labels that these Jobs really get, at the port that the ModelOptimization names."""
    (server,) = [policy for policy in documents("NetworkPolicy") if policy["metadata"]["name"] == "digits"]
    asked = server["spec"]["ingress"][0]
    (resource,) = documents("ModelOptimization")
    assert [port["port"] for port in asked["ports"]] == [resource["spec"]["target"]["inference"]["port"]]
    selectors = [peer["podSelector"]["matchLabels"] for peer in asked["from"]]
    for command in REQUESTS:
        given = labels(samples.resource(), command=command)
        assert any(selector.items() <= given.items() for selector in selectors) == (command == "verify")
