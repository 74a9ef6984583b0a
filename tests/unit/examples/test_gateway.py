"""The example of a canary by a route: its objects belong together, and its ModelOptimization is one."""

from typing import Any

import yaml

from retune.api.objects import ModelOptimization
from retune.traffic import Pair
from retune.workloads.rules import backends
from tests.unit.docs.manual import ROOT

Json = dict[str, Any]


def documents() -> dict[str, Json]:
    """Return the example's objects by their kind."""
    text = (ROOT / "examples" / "gateway" / "modeloptimization.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_the_route_that_the_spec_names_can_be_shared() -> None:
    """It is there, and a rule of it gives the target's Service requests."""
    objects = documents()
    resource = ModelOptimization.model_validate(
        objects["ModelOptimization"] | {"metadata": {"name": "digits", "namespace": "ml"}}
    )
    route, service = objects["HTTPRoute"], objects["Service"]["metadata"]["name"]
    ref = resource.spec.rollout.canary.traffic.route
    assert ref is not None
    assert ref.name == route["metadata"]["name"]
    rules = [backends(rule, namespace="ml") for rule in route["spec"]["rules"]]
    assert Pair(service, f"{service}-canary").obstacle(rules) is None
