"""What an earlier resource left behind is told from everything else that has its name."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from retune.cluster.heritage import answers_the_same
from retune.plan.actions import CreateJob
from retune.settings import Settings
from retune.workloads import job_manifest
from tests import samples

Json = dict[str, Any]


def wanted() -> Json:
    """Return the Job that is to be created."""
    action = CreateJob("digits-b1-0123", samples.baseline_request(), cpu_limit=2.0)
    return job_manifest(action, resource=samples.resource(), target=None, settings=Settings())


def left(**metadata: Any) -> Json:
    """Return the same as the API server gives it after its owner went, with other metadata."""
    raw = copy.deepcopy(wanted())
    del raw["metadata"]["ownerReferences"]
    raw["metadata"] |= {"uid": "u-1", "resourceVersion": "7"} | metadata
    raw["spec"] |= {"suspend": False, "selector": {"matchLabels": {"controller-uid": "u-1"}}}
    raw["spec"]["template"]["metadata"]["labels"]["job-name"] = "digits-b1-0123"
    for mount in raw["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]:
        if mount.get("readOnly") is False:
            del mount["readOnly"]
    return raw


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every plain value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from places(part, (*path, name))
    if not isinstance(value, dict | list):
        yield path


def test_what_the_server_has_added_to_does_not_matter() -> None:
    """Defaults, labels of the Job controller, and whether a queue lets it run."""
    assert answers_the_same(left(), wanted())


@pytest.mark.parametrize("metadata", [{"labels": {}}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}])
def test_without_our_labels_or_while_it_ends_it_is_not_taken(metadata: Json) -> None:
    """The name proves nothing."""
    assert not answers_the_same(left(**metadata), wanted())


def test_what_has_a_controller_is_somebodys() -> None:
    """An owner that only wants it gone with itself is none."""
    owner = {"kind": "CronJob", "name": "x", "uid": "u-2"}
    assert not answers_the_same(left(ownerReferences=[owner | {"controller": True}]), wanted())
    assert answers_the_same(left(ownerReferences=[owner]), wanted())


def test_whatever_else_it_does_it_is_not_taken() -> None:
    """Another image, request, claim or limit: its result would not be the answer to our question."""
    spec = left()["spec"]
    differing = [path for path in places(wanted()["spec"]) if path != ("suspend",)]
    assert len(differing) > 50
    for path in differing:
        raw = left()
        part = raw["spec"]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = "another"
        assert raw["spec"] != spec
        assert not answers_the_same(raw, wanted()), path


def test_a_search_of_which_a_queue_has_admitted_fewer_workers_answers_the_same() -> None:
    """How many work on it decides how soon it ends, and no number of it. Without a queue nobody has lowered that."""
    action = CreateJob("digits-r1-search", samples.search_request(), cpu_limit=2.0, workers=4)
    for execution, taken in (({"queueName": "team"}, True), ({}, False)):
        resource = samples.resource(execution=execution)
        asked = job_manifest(action, resource=resource, target=None, settings=Settings())
        raw = copy.deepcopy(asked)
        del raw["metadata"]["ownerReferences"]
        raw["spec"] |= {"suspend": False, "parallelism": 1, "completions": 1}
        assert answers_the_same(raw, asked) is taken


def test_a_container_beside_ours_is_not_taken() -> None:
    """It would see the store and could write the result."""
    raw = left()
    containers = raw["spec"]["template"]["spec"]["containers"]
    containers.append(containers[0] | {"name": "beside"})
    assert not answers_the_same(raw, wanted())
