"""The memory of the cluster: which of two versions counts, whom a change concerns, what a list repairs."""

from typing import Any

from retune.api.objects import OptimizationRunSpec
from retune.cluster.cache import Cache, names_of
from retune.cluster.kinds import DEPLOYMENTS, JOBS, MODEL_OPTIMIZATIONS, OPTIMIZATION_RUNS, PODS, ROLLOUTS
from tests import samples
from tests.unit.operator.test_parse import a_job, a_pod, deployment

Json = dict[str, Any]


def a_resource(
    version: int, *, name: str = "digits", uid: str = samples.RESOURCE_UID, stage: str | None = None
) -> Json:
    """A ModelOptimization as the API server returns it."""
    raw = samples.manifest()
    raw["metadata"] = {"name": name, "namespace": "ml", "uid": uid, "resourceVersion": str(version), "generation": 1}
    return raw | ({"status": {"stage": stage}} if stage else {})


def versioned(raw: Json, version: int) -> Json:
    """The same object at another version."""
    return raw | {"metadata": raw["metadata"] | {"resourceVersion": str(version)}}


def stage_of(cache: Cache) -> str | None:
    """What the memory thinks the stage is."""
    resource = cache.resource("ml/digits")
    return resource.status.stage if resource else None


def test_a_late_watch_does_not_take_back_what_we_wrote() -> None:
    """The newest version wins, whoever brings it, and an echo concerns nobody."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(9, stage="Gating"))
    assert cache.put(MODEL_OPTIMIZATIONS, a_resource(7, stage="Pending")) == set()
    assert cache.put(MODEL_OPTIMIZATIONS, a_resource(9, stage="Gating")) == set()
    assert stage_of(cache) == "Gating"


def test_versions_are_compared_as_numbers() -> None:
    """Version 10 is newer than version 9."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(9, stage="Pending"))
    assert cache.put(MODEL_OPTIMIZATIONS, a_resource(10, stage="Gating")) == {"ml/digits"}
    assert stage_of(cache) == "Gating"


def test_a_deleted_object_does_not_rise_again() -> None:
    """The late answer to a write does not bring back what is gone; a namesake of another UID is another object."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(5))
    assert cache.remove(MODEL_OPTIMIZATIONS, a_resource(6)) == {"ml/digits"}
    assert cache.put(MODEL_OPTIMIZATIONS, a_resource(6)) == set()
    assert cache.resource("ml/digits") is None
    assert cache.put(MODEL_OPTIMIZATIONS, a_resource(8, uid="other")) == {"ml/digits"}


def test_a_late_deletion_of_a_predecessor_leaves_the_namesake() -> None:
    """Deleted and created anew: the events may come in any order."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(5))
    cache.put(MODEL_OPTIMIZATIONS, a_resource(8, uid="other"))
    assert cache.remove(MODEL_OPTIMIZATIONS, a_resource(7)) == set()
    assert cache.resource("ml/digits") is not None


def test_changes_concern_those_they_belong_to() -> None:
    """Jobs and pods lead to their resource, a Deployment to all that name it, a deletion to its rivals."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(1))
    cache.put(MODEL_OPTIMIZATIONS, a_resource(2, name="rival", uid="rival"))
    assert cache.put(JOBS, a_job()) == {"ml/digits"}
    assert cache.put(PODS, a_pod()) == {"ml/digits"}
    assert cache.put(DEPLOYMENTS, deployment()) == {"ml/digits", "ml/rival"}
    assert cache.remove(MODEL_OPTIMIZATIONS, a_resource(3)) == {"ml/digits", "ml/rival"}


def seen_target(cache: Cache) -> Json:
    """What is known of the resource's target."""
    resource = cache.resource("ml/digits")
    assert resource is not None
    raw = cache.target(resource)
    assert raw is not None
    return raw


def test_who_makes_pods_of_a_deployment_concerns_its_resource() -> None:
    """A Rollout that names it, from the moment it does; one of another namespace never."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(1))
    cache.put(DEPLOYMENTS, deployment())
    assert "driver" not in seen_target(cache)
    rollout: Json = {
        "metadata": {"name": "shop", "namespace": "ml", "uid": "r", "resourceVersion": "7", "generation": 1},
        "spec": {"workloadRef": {"kind": "Deployment", "name": "digits-server"}},
    }
    elsewhere: Json = rollout | {"metadata": rollout["metadata"] | {"namespace": "other", "uid": "o"}}
    assert cache.put(ROLLOUTS, elsewhere) == set()
    assert cache.put(ROLLOUTS, rollout) == {"ml/digits"}
    assert seen_target(cache)["driver"] == "Rollout shop"
    assert cache.remove(ROLLOUTS, rollout) == {"ml/digits"}
    assert "driver" not in seen_target(cache)


def test_a_copy_of_a_deployment_concerns_its_resource() -> None:
    """Flagger's has a name of its own, and is found beside the target."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(1))
    cache.put(DEPLOYMENTS, deployment())
    copy = deployment()
    copy["metadata"] |= {"name": "digits-server-primary", "uid": "p", "resourceVersion": "9"}
    assert cache.put(DEPLOYMENTS, copy) == {"ml/digits"}
    assert list(seen_target(cache)["beside"]) == ["digits-server-primary"]


def test_an_event_that_changes_nothing_of_interest_concerns_nobody() -> None:
    """A foreign controller's heartbeat costs no pass."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(1))
    cache.put(DEPLOYMENTS, deployment())
    assert cache.put(DEPLOYMENTS, versioned(deployment(), 6)) == set()


def test_jobs_are_found_by_their_owners_uid() -> None:
    """A Job that only bears the right label or name is not ours."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(1))
    cache.put(JOBS, a_job())
    foreign = a_job()
    foreign["metadata"] |= {"name": "foreign", "uid": "job-2", "ownerReferences": []}
    cache.put(JOBS, foreign)
    cache.put(PODS, a_pod())
    resource = cache.resource("ml/digits")
    assert resource is not None
    assert list(cache.jobs_of(resource)) == ["digits-r1-verify1"]


def a_run(number: int, **changes: Any) -> Json:
    """An ended OptimizationRun of the resource that nobody owns; changes: its outcome, label, namespace or owner."""
    told = {"outcome": "NoGain", "resource": "digits", "namespace": "ml", "owner": None} | changes
    spec = samples.resource().spec
    owners = [{"uid": told["owner"], "controller": True}] if told["owner"] else []
    snapshot = {"model": spec.model, "data": spec.data, "objectives": spec.better}
    parts = {"number": number, "trigger": {"reason": "Initial", "message": ""}, "specGeneration": 1, "specHash": "x"}
    run = OptimizationRunSpec.model_validate(
        parts | {"championVersion": 1, "championDigest": samples.DIGEST, "snapshot": snapshot}
    )
    meta = {"name": f"{told['namespace']}-{number}", "namespace": told["namespace"], "uid": f"run-{number}"}
    meta |= {"resourceVersion": "5", "labels": {"retune.dev/resource": told["resource"]}, "ownerReferences": owners}
    status = {"outcome": told["outcome"]} if told["outcome"] else {}
    return {"metadata": meta, "spec": run.to_dict(), "status": status}


def test_runs_that_were_restored_are_counted_and_no_others() -> None:
    """Not one that has not ended, and none of another resource, namespace or owner."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(1))
    resource = cache.resource("ml/digits")
    assert resource is not None
    assert cache.ended_before(resource) == 0
    others: list[dict[str, Any]] = [{"outcome": None}, {"resource": "other"}, {"namespace": "elsewhere"}]
    others.append({"owner": samples.RESOURCE_UID})
    for number, changes in enumerate([{}, {}, *others], start=2):
        cache.put(OPTIMIZATION_RUNS, a_run(number, **changes))
    assert cache.ended_before(resource) == 3


def test_a_list_removes_what_it_should_have_held() -> None:
    """A missed deletion is repaired, but what was made after the list stays."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(5))
    cache.put(MODEL_OPTIMIZATIONS, a_resource(20, name="younger", uid="younger"))
    assert cache.prune(MODEL_OPTIMIZATIONS, names_of([]), namespace=None, version=10) == 1
    assert cache.resource_keys() == ["ml/younger"]


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    """With several watched namespaces each list judges its own."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(5))
    assert cache.prune(MODEL_OPTIMIZATIONS, set(), namespace="elsewhere", version=10) == 0
    assert cache.resource_keys() == ["ml/digits"]


def test_after_a_restored_backup_what_the_server_says_counts() -> None:
    """Versions that went backwards must not make the memory deaf."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_resource(900, stage="Gating"))
    cache.rewind(MODEL_OPTIMIZATIONS, namespace=None)
    assert cache.put(MODEL_OPTIMIZATIONS, a_resource(40, stage="Pending")) == {"ml/digits"}
    assert stage_of(cache) == "Pending"


def a_changed_resource(version: int, *, generation: int, nonce: str) -> Json:
    """A ModelOptimization whose spec has been edited."""
    raw = a_resource(version)
    raw["metadata"]["generation"] = generation
    raw["spec"]["manualNonce"] = nonce
    return raw


def nonce_of(cache: Cache) -> str | None:
    """What the memory thinks the spec says."""
    resource = cache.resource("ml/digits")
    return resource.spec.manual_nonce if resource else None


def test_an_edited_spec_is_read_and_an_unedited_one_is_kept() -> None:
    """A new generation brings a new spec; a write of the status brings none, so the object in memory stays."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_changed_resource(1, generation=1, nonce="one"))
    first = cache.resource("ml/digits")
    cache.put(MODEL_OPTIMIZATIONS, a_changed_resource(2, generation=1, nonce="one") | {"status": {"stage": "Gating"}})
    second = cache.resource("ml/digits")
    assert first is not None
    assert second is not None
    assert second.spec is first.spec
    assert stage_of(cache) == "Gating"
    cache.put(MODEL_OPTIMIZATIONS, a_changed_resource(3, generation=2, nonce="two"))
    assert nonce_of(cache) == "two"


def test_a_namesake_brings_its_own_spec() -> None:
    """Generations of two objects have nothing to do with each other."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_changed_resource(1, generation=1, nonce="one"))
    namesake = a_changed_resource(2, generation=1, nonce="two")
    namesake["metadata"]["uid"] = "other"
    cache.put(MODEL_OPTIMIZATIONS, namesake)
    assert nonce_of(cache) == "two"


def test_after_a_restored_backup_a_generation_may_stand_for_another_spec() -> None:
    """History that went back counts generations anew: the spec is read though its number is known."""
    cache = Cache()
    cache.put(MODEL_OPTIMIZATIONS, a_changed_resource(900, generation=3, nonce="lost"))
    cache.rewind(MODEL_OPTIMIZATIONS, namespace=None)
    cache.put(MODEL_OPTIMIZATIONS, a_changed_resource(40, generation=3, nonce="restored"))
    assert nonce_of(cache) == "restored"
