"""Where artifacts may lie: nobody's spec puts a folder around or into that of another resource."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.production import Production
from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.contract.paths import claim_of, is_below, place_of
from retune.plan.belief import bundle_in
from retune.plan.draft import condition_of
from retune.plan.store import retention_fault, store_fault, store_of
from tests.unit.plan.world import World, spec

NAMES = ("digits", "bundles", "runs", "a", "ml")
NAMESPACES = ("ml", "digits")
ROOTS = (
    "pvc://shared",
    "pvc://shared/",
    "pvc://shared/a",
    "pvc://shared/digits",
    "pvc://shared/digits/runs",
    "pvc://own",
    "s3://shared",
    "s3://shared/ml",
    "s3://shared/ml/digits/",
    "s3://own/ml",
    "gs://shared",
)
roots = st.none() | st.sampled_from(ROOTS)


@given(
    default=st.sampled_from(ROOTS),
    mine=st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(NAMES), roots),
    theirs=st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(NAMES), roots),
)
def test_no_two_resources_share_a_folder_of_the_administrators_store(
    default: str, mine: tuple[str, str, str | None], theirs: tuple[str, str, str | None]
) -> None:
    """Whatever two specs say, there each has the folder of its own name, side by side; a claim is of one namespace."""
    stores = {
        (namespace if claim_of(own or default) is None else "", name): store_of(
            name, namespace=namespace, own=own, default=default
        )
        for namespace, name, own in (mine, theirs)
    }
    shared = [store for store in stores.values() if store and place_of(store) == place_of(default)]
    assert all(is_below(store, default) for store in shared)
    assert len(shared) < 2 or not (is_below(shared[0], shared[1]) or is_below(shared[1], shared[0]))


def test_a_bucket_is_divided_by_namespace() -> None:
    """All namespaces see it: the same manifest in two of them has two folders, and each can have keys of its own."""
    found = [store_of("digits", namespace=name, own=None, default="s3://shared/retune/") for name in ("dev", "prod")]
    assert found == ["s3://shared/retune/dev/digits", "s3://shared/retune/prod/digits"]
    assert store_of("digits", namespace="dev", own="gs://mine", default="s3://shared") == "gs://mine/dev/digits"
    assert store_of("digits", namespace="dev", own=None, default="pvc://shared/x") == "pvc://shared/x/digits"


def test_a_bundle_in_a_bucket_counts_in_its_own_folder_alone() -> None:
    """By its whole URI, as on a claim: neither another namespace's, nor another bucket's of the same path."""
    store, name = "s3://shared/dev/digits", "5a" * 32
    own = bundle_in(f"{store}/bundles/{name}", store=store)
    assert own is not None
    assert own.digest == f"sha256:{name}"
    for other in ("s3://shared/prod/digits", "gs://shared/dev/digits", "s3://shared-2/dev/digits", f"{store}/x"):
        assert bundle_in(f"{other}/bundles/{name}", store=store) is None


@pytest.mark.parametrize("own", ["s3://shared", "s3://shared/retune/prod", "s3://shared/retune-2", "s3://shared/r"])
def test_no_other_folder_of_the_shared_bucket_may_be_named(own: str) -> None:
    """Around it, in it and beside it; another bucket of any server is fine, and so is its own name."""
    default = "s3://shared/retune"
    reason, message = store_fault(own=own, default=default) or ("", "")
    assert reason == "StoreNotAllowed"
    assert "lies in the bucket of the shared store s3://shared/retune" in message
    assert message.endswith("leave artifactStore out, or name another bucket")
    assert store_of("digits", namespace="ml", own=own, default=default) is None
    for free in ("s3://shared-2/retune", "gs://shared/retune", "pvc://shared/retune", f"{default}/"):
        assert store_fault(own=free, default=default) is None


def test_a_store_inside_the_shared_one_is_refused_in_words() -> None:
    """Nothing is started, and the sentence names both stores and what to do."""
    world = World(spec=spec(execution={"artifactStore": "pvc://retune-artifacts/victim"}))
    world.reconcile()
    assert world.jobs == {}
    ready = condition_of(world.resource.status, ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.FALSE, "StoreNotAllowed")
    assert "pvc://retune-artifacts/victim" in ready.message
    assert "leave artifactStore out" in ready.message


def test_a_store_that_is_not_allowed_any_more_stops_work_and_not_what_serves() -> None:
    """A champion goes on serving, no Job is started, and the work goes on once the store may be used."""
    world = World()
    world.run_to_promotion()
    served = world.value
    world.change(execution={"artifactStore": "pvc://retune-artifacts/other"}, manualNonce="again")
    world.reconcile()
    assert world.resource.status.stage is Stage.BLOCKED
    assert (world.value, world.active_jobs()) == (served, [])
    world.change(execution={})
    world.reconcile()
    assert world.active_jobs() == ["digits-r2-search"]


@pytest.mark.parametrize(
    "uri,allowed",
    [
        ("pvc://retune-artifacts/digits/captured", True),
        ("pvc://captured/digits", True),
        ("s3://captured/digits", True),
        ("pvc://retune-artifacts/victim/captured", False),
        ("pvc://retune-artifacts/digits-2", False),
        ("pvc://mine/captured", False),
    ],
)
def test_captured_requests_are_removed_only_where_nobody_else_keeps_artifacts(uri: str, *, allowed: bool) -> None:
    """Neither beside the own folder nor on the administrator's claim; the sentence names the folder to use."""
    own = "pvc://mine/digits" if "mine" in uri else "pvc://retune-artifacts/digits"
    fault = retention_fault(Production(uri=uri, retention="1h"), store=own, default="pvc://retune-artifacts")
    assert (fault is None) is allowed
    assert fault is None or f"Keep them below {own} or on another claim" in fault
    assert retention_fault(Production(uri=uri), store=own, default=None) is None


@pytest.mark.parametrize(
    "uri,allowed",
    [
        ("s3://shared/retune/ml/digits/captured", True),
        ("s3://shared/retune/ml/captured", True),
        ("s3://captured/digits", True),
        ("gs://shared/retune/ml/victim", True),  # another server
        ("pvc://shared/retune", True),
        ("s3://shared/retune/ml-2/captured", False),
        ("s3://shared/retune/prod/digits", False),
        ("s3://shared/captured", False),
    ],
)
def test_in_the_administrators_bucket_nothing_of_another_namespace_is_removed(uri: str, *, allowed: bool) -> None:
    """What is removed after its retention lies in the namespace's own folder, or where no shared store is."""
    own, default, production = "s3://shared/retune/ml/digits", "s3://shared/retune", Production(uri=uri, retention="1h")
    fault = retention_fault(production, store=own, default=default)
    assert (fault is None) is allowed
    assert fault is None or "in the bucket of a shared store, a Job may remove nothing of others'" in fault
    assert fault is None or "Keep them below s3://shared/retune/ml or in another bucket" in fault
    assert retention_fault(Production(uri=uri), store=own, default=default) is None


def test_in_a_bucket_of_ones_own_captured_requests_may_lie_anywhere() -> None:
    """Whose credentials they are decides there, not where the store is."""
    for default in (None, "s3://shared/retune"):
        production = Production(uri="s3://mine/captured", retention="1h")
        assert retention_fault(production, store="s3://mine/models/ml/digits", default=default) is None


@pytest.mark.parametrize("uri,other", [("pvc://shared/a", "on another claim"), ("gs://shared/a", "in another bucket")])
def test_nothing_is_removed_beside_the_administrators_store_by_whose_store_is_elsewhere(uri: str, other: str) -> None:
    """The sentence names no folder of another claim or bucket."""
    fault = retention_fault(
        Production(uri=uri, retention="1h"), store="s3://mine/ml/digits", default=uri.removesuffix("/a")
    )
    assert fault is not None
    assert f"Keep them {other}, or leave retention out" in fault


def test_a_retention_that_cannot_be_kept_is_told_and_no_check_is_started() -> None:
    """Captured requests that outlive their retention in silence would be worse than windows without a verdict."""
    production = {"uri": "pvc://retune-artifacts/captured", "retention": "24h"}
    world = World(spec=spec(monitoring={"production": production, "window": "1h", "drift": {}}))
    world.settle()
    world.wait(2 * 3600)
    world.reconcile()
    assert [name for name in world.jobs if "-w" in name] == []
    reliable = condition_of(world.resource.status, ConditionType.MONITORING_RELIABLE)
    assert reliable is not None
    assert reliable.reason == "RetentionNotAllowed"
    assert "pvc://retune-artifacts/captured" in reliable.message
