"""Specs that the API server accepts and nobody would write, all at once before one operator."""

import copy
import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.api_cases import ACCEPTED
from tests.cluster.harness import RESOURCES, Bench
from tests.cluster.running import idle, running, until
from tests.dice import thrown
from tests.samples import manifest
from tools.localcluster.api import ApiError

pytestmark = [pytest.mark.usefixtures("hung_up"), pytest.mark.timeout(300)]
Json = dict[str, Any]
HOSTILE = (
    "",
    " ",
    "-",
    "{{ .Values.x }}",
    "$(rm -rf /)",
    "../../etc/passwd",
    "a\nb: c",
    "\u202egnirts",
    "%s%n%d{0}{}",
    "💥" * 60,
    "x" * 250,
    "null",
    "1e999",
    "'; DROP TABLE runs; --",
)
SPECS = int(os.environ.get("RETUNE_TEST_SPECS", "50"))


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every string in a document."""
    if isinstance(node, str):
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in children:
        yield from leaves(inner, (*path, key))


def replaced(document: Json, path: tuple[Any, ...], value: str) -> Json:
    """Return a document with another string in one place."""
    changed = copy.deepcopy(document)
    node: Any = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def declare_hostile(bench: Bench, dice: random.Random) -> None:
    """Create so many resources that the server accepts, each with one hostile string and a target of its own."""
    made = 0
    while made < SPECS:
        spec = dice.choice(ACCEPTED).document()["spec"]
        path = dice.choice([path for path in leaves(spec) if path[0] != "target"])
        name = f"hostile-{made}"
        spec = replaced(spec, path, dice.choice(HOSTILE)) | {"suspend": False}
        spec["target"] = spec["target"] | {"ref": {"name": name}}
        document = manifest() | {"metadata": {"name": name, "namespace": bench.namespace}, "spec": spec}
        try:
            bench.api.request("POST", bench.path("modeloptimizations"), document)
        except ApiError as error:
            assert error.status in {400, 422}, error  # noqa: PT017 - what the server refuses is not the operator's matter
            continue
        bench.deploy(name)
        made += 1


def _resources(bench: Bench) -> list[Json]:
    return bench.items("modeloptimizations", api=RESOURCES)


async def test_no_spec_that_is_accepted_stops_the_operator(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 34: each hostile spec gets a status, no pass fails, and an honest resource beside them its Job."""
    declare_hostile(bench, thrown())
    with caplog.at_level(logging.WARNING, logger="retune"):
        async with running(bench) as operator:
            bench.deploy("honest")
            bench.declare("honest", target="honest", execution={})
            await until(lambda: any(job["metadata"]["name"].startswith("honest-") for job in bench.jobs))
            await until(lambda: all("stage" in item.get("status", {}) for item in _resources(bench)))
            await until(lambda: idle(operator))
            failed = operator.metrics.registry.get_sample_value("retune_reconcile_errors_total")
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
    assert failed == 0
