"""What many resources say alike is held once, and nothing that they say is changed by that."""

import gc
import json
from typing import Any

from retune.api.objects import ModelOptimization, OptimizationRun
from retune.cluster import parse, sharing
from tests import samples

Json = dict[str, Any]
PARTS = {"rollout": {"bakeTime": "7m"}, "execution": {"nodeSelector": {"disk": "fast"}}}


def raw(name: str, **spec: Any) -> Json:
    """A ModelOptimization as the API server returns it."""
    document = samples.manifest(**spec)
    meta = {"name": name, "namespace": "ml", "uid": name, "generation": 1, "resourceVersion": "1"}
    condition: Json = {"type": "Ready", "status": "False", "reason": "Measuring", "message": name}
    condition |= {"observedGeneration": 1, "lastTransitionTime": "2026-11-29T00:00:00Z"}
    return document | {"metadata": meta, "status": {"conditions": [condition]}}


def test_equal_parts_of_two_specs_are_one() -> None:
    """Also a part with a dictionary, which has no hash of its own."""
    one, other = parse.resource(raw("one", **PARTS)), parse.resource(raw("other", **PARTS))
    assert one.spec.rollout is other.spec.rollout
    assert one.spec.execution is other.spec.execution
    assert one.spec.execution.node_selector == {"disk": "fast"}


def test_parts_that_differ_stay_apart() -> None:
    """What one resource asks for is never what another gets."""
    one = parse.resource(raw("one", rollout={"bakeTime": "7m"}))
    other = parse.resource(raw("other", rollout={"bakeTime": "8m"}))
    assert one.spec.rollout.bake_time != other.spec.rollout.bake_time


def test_a_resource_says_and_equals_what_it_would_without_sharing() -> None:
    """Read by pydantic alone, and read after another that says almost the same."""
    document = raw("other", **PARTS)
    alone = ModelOptimization.model_validate(document)
    parse.resource(raw("one", **PARTS))
    shared = parse.resource(document)
    assert shared == alone
    assert shared.to_dict() == alone.to_dict()
    assert shared.model_fields_set == alone.model_fields_set


def test_the_names_of_given_fields_are_one_set_at_every_depth() -> None:
    """They take more memory than the fields, and are the same for every condition of every resource."""
    one, other = parse.resource(raw("one")), parse.resource(raw("other"))
    assert one.model_fields_set is other.model_fields_set
    assert one.metadata.model_fields_set is other.metadata.model_fields_set
    assert one.status.conditions[0].model_fields_set is other.status.conditions[0].model_fields_set


def test_a_copy_with_another_field_leaves_the_shared_names_as_they_are() -> None:
    """A model that is changed by copying has a set of its own."""
    one = parse.resource(raw("one"))
    before = set(one.status.model_fields_set)
    copy = one.status.model_copy(update={"message": "new"})
    assert "message" in copy.model_fields_set
    assert one.status.model_fields_set == before
    assert "message" not in before


def test_a_part_that_nobody_holds_any_more_is_let_go() -> None:
    """Sharing keeps nothing alive."""
    held = parse.resource(raw("one", rollout={"bakeTime": "1237s"}))
    assert any(part is held.spec.rollout for part in sharing._PARTS.values())
    del held
    gc.collect()
    texts = [part.model_dump_json() for part in sharing._PARTS.values()]
    assert not any("1237" in text for text in texts)


def test_the_sets_that_are_kept_are_bounded(monkeypatch: Any) -> None:
    """Nobody fills the memory by giving ever other fields; what is read beyond the bound is only not shared."""
    monkeypatch.setattr(sharing, "_GIVEN", {})
    monkeypatch.setattr(sharing, "_MOST_GIVEN", 2)
    read = parse.resource(raw("one"))
    assert len(sharing._GIVEN) == 2
    assert read == ModelOptimization.model_validate(raw("one"))


def test_a_run_shares_its_snapshot_with_other_runs_of_the_same_resource() -> None:
    """A history holds many snapshots of one spec."""
    spec = samples.MANIFEST["spec"]
    snapshot = {"model": spec["model"], "data": spec["data"], "objectives": [{"metric": "accuracy"}]}
    trigger = {"reason": "SpecChange", "message": "the spec has changed"}
    whole = {"number": 1, "trigger": trigger, "specGeneration": 1, "specHash": samples.DIGEST, "championVersion": 1}
    document = {"spec": whole | {"championDigest": samples.DIGEST, "snapshot": snapshot}}
    metas: list[Json] = [{"name": name, "namespace": "ml", "uid": name} for name in ("r1", "r2")]
    first, second = (parse.run(json.loads(json.dumps(document | {"metadata": meta}))).run for meta in metas)
    assert isinstance(first, OptimizationRun)
    assert first.spec.snapshot.data is second.spec.snapshot.data
    assert first.spec.snapshot.model is second.spec.snapshot.model
