"""Sizes of requests in the spec: one way to say them, and no stored object that changes its meaning."""

from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd
from retune.api.search import Serving
from retune.plan.hashing import snapshot_hash
from tests import samples


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batchSize": 8, "batches": [{"size": 1}]}, "give serving.batchSize or serving.batches, not both"),
        ({"batchSize": 1, "batches": [{"size": 1}]}, "give serving.batchSize or serving.batches, not both"),
        ({"batches": [{"size": 2}, {"size": 2, "weight": "3"}]}, "each size may be given once"),
        ({"batches": [{"size": 2, "weight": "0"}]}, "a weight must be above 0"),
        ({"batches": []}, "at least 1 item"),
        ({"batches": [{"size": size} for size in range(1, 10)]}, "at most 8 items"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], words: str) -> None:
    """A mix has one form, and every size in it some requests."""
    with pytest.raises(ValueError, match=words):
        Serving.model_validate(fields)


def test_the_api_server_refuses_both_forms_with_the_same_sentence() -> None:
    """The rule is on serving, and no default gives the short form to an object that has the long one."""
    schema = modeloptimization_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    serving = schema["properties"]["spec"]["properties"]["serving"]
    rules = {rule["message"]: rule["rule"] for rule in serving["x-kubernetes-validations"]}
    assert rules["give serving.batchSize or serving.batches, not both"] == "!has(self.batchSize) || !has(self.batches)"
    assert "default" not in serving["properties"]["batchSize"]
    assert "batchSize" not in serving["default"]
    assert serving["properties"]["batches"]["x-kubernetes-list-map-keys"] == ["size"]


def test_a_stored_batch_size_of_one_is_no_change() -> None:
    """Objects from when 1 was the default have it written down; they start no run by that."""
    resource = samples.resource()
    stored = resource.spec.model_copy(update={"serving": Serving(batch_size=1)})
    other = resource.spec.model_copy(update={"serving": Serving(batch_size=2)})
    assert snapshot_hash(stored) == snapshot_hash(resource.spec)
    assert snapshot_hash(other) != snapshot_hash(resource.spec)
