"""Passes of the operator on a real API server: how little they write, and what they make of each fault.

The numbers of the faults are in the fault table of the design.
"""

from datetime import datetime
from typing import Any

import pytest

from retune.api.objects import ModelOptimization
from retune.cluster import parse
from retune.cluster.client import Request
from retune.cluster.errors import Transient
from retune.cluster.kinds import DEPLOYMENTS
from retune.plan import Observed, Plan
from retune.reconcile import ROUNDS
from tests import samples
from tests.cluster.harness import Bench, Crash, Spy, env_of, settle, transport_of

Json = dict[str, Any]
APPS = "/apis/apps/v1"
BATCH = "/apis/batch/v1"
CORE = "/api/v1"
WHEN = "2026-11-25T12:00:00Z"
THREE_WRITES = ["POST leases", "PATCH modeloptimizations/status", "POST jobs"]


async def test_a_new_resource_costs_three_writes_and_no_read(bench: Bench) -> None:
    """Lease, status, Job; everything that is decided on comes from memory."""
    bench.deploy()
    key = bench.declare(execution={})
    operator = bench.operator()
    await operator.resync.once()
    listed = len(bench.spy.reads)
    changed, _ = await operator.reconciler.run(key)
    assert changed
    assert bench.spy.writes == THREE_WRITES
    assert len(bench.spy.reads) == listed
    (job,) = bench.jobs
    assert job["metadata"]["ownerReferences"][0]["uid"] == bench.resource()["metadata"]["uid"]
    assert bench.resource()["status"]["baseline"]["name"] == job["metadata"]["name"]


async def test_a_second_pass_writes_nothing(bench: Bench) -> None:
    """Fault 33: the same state gives the same plan, and that plan is empty."""
    bench.deploy()
    key = bench.declare(execution={})  # a queue would say after ten seconds why the Job waits
    operator = bench.operator()
    await settle(operator, key)
    before = bench.resource()["metadata"]["resourceVersion"]
    written = len(bench.spy.writes)
    for _ in range(3):
        changed, _ = await settle(operator, key)
        assert not changed
    assert len(bench.spy.writes) == written
    assert bench.resource()["metadata"]["resourceVersion"] == before


async def test_a_resource_that_cannot_be_read_says_so_and_nothing_else_is_done(bench: Bench) -> None:
    """Fault 32: this operator is older than the release that wrote a spec, which may have suspended everything."""
    bench.deploy()
    key = bench.declare()
    operator = bench.operator()
    await settle(operator, key)

    def of_the_release_before(raw: Json, known: ModelOptimization | None) -> ModelOptimization:
        newer = [{"name": "x", "type": "FromTheFuture"}] if raw["spec"].get("suspend") else None
        spec = raw["spec"] | ({"techniques": newer} if newer else {})
        return parse.resource(raw | {"spec": spec}, known)

    operator.cache.resources._parser = of_the_release_before
    written = len(bench.spy.writes)
    bench.patch(bench.path("modeloptimizations", "digits"), {"spec": {"suspend": True}})
    await settle(operator, key)
    assert bench.spy.writes[written:] == ["PATCH modeloptimizations/status"]
    ready = bench.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Unreadable")
    assert "techniques.0.type" in ready["message"]
    assert bench.condition("Stalled")["status"] == "True"
    assert bench.condition("Baselined")["reason"] != "Unreadable"
    await settle(operator, key)
    assert len(bench.spy.writes) == written + 1
    bench.patch(bench.path("modeloptimizations", "digits"), {"spec": {"suspend": False}})
    await settle(operator, key)
    assert bench.condition("Ready")["reason"] != "Unreadable"
    assert bench.condition("Stalled")["status"] == "False"


async def test_a_restart_writes_nothing(bench: Bench) -> None:
    """What one process has done, the next finds done."""
    bench.deploy()
    key = bench.declare()
    await settle(bench.operator(), key)
    changed, _ = await settle(bench.operator(), key)
    assert not changed
    assert bench.spy.writes == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 5))
async def test_killed_at_any_write_the_next_process_ends_in_the_same_state(bench: Bench, nth: int, moment: str) -> None:
    """Fault 1: killed before a write reached the server, or after it did and before anybody knew."""
    bench.deploy()
    key = bench.declare()

    def kill(_: int, request: Request) -> None:
        if request.method != "GET" and len(bench.spy.writes) == nth:
            raise Crash

    spy = Spy(bench.send)
    setattr(spy, moment, kill)
    with pytest.raises(Crash):
        await settle(bench.operator(spy), key)
    await settle(bench.operator(), key)
    (job,), (lease,) = bench.jobs, bench.leases
    uid = bench.resource()["metadata"]["uid"]
    assert job["metadata"]["ownerReferences"][0]["uid"] == uid
    assert lease["metadata"]["ownerReferences"][0]["uid"] == uid
    assert bench.resource()["status"]["stage"] == "Baselining"
    changed, _ = await settle(bench.operator(), key)
    assert not changed


async def test_a_write_whose_answer_was_lost_is_not_repeated(bench: Bench) -> None:
    """Fault 7: the server has done it; the operator finds that out instead of doing it twice or failing."""
    bench.deploy()
    key = bench.declare()

    def lose(_: int, request: Request) -> None:
        if request.method == "POST" and request.path.endswith("/jobs") and bench.spy.writes.count("POST jobs") == 1:
            raise TimeoutError("the read operation timed out")

    operator = bench.operator(Spy(bench.send, after=lose))
    with pytest.raises(Transient):
        await settle(operator, key)
    # The watch has not told of the Job either: memory is as old as it was.
    changed, _ = await operator.reconciler.run(key)
    assert changed
    assert len(bench.jobs) == 1
    assert bench.spy.writes.count("POST jobs") == 2
    assert bench.condition("Baselined")["reason"] == "Queued"


async def test_a_foreign_job_of_the_same_name_is_a_conflict_not_a_result(bench: Bench) -> None:
    """Fault 3: whose a Job is, is told by its owner; the condition names it and what to do."""
    bench.deploy()
    key = bench.declare()
    await settle(bench.operator(), key)
    (job,) = bench.jobs
    name = job["metadata"]["name"]
    bench.api.request("DELETE", bench.path("jobs", name, api=BATCH) + "?propagationPolicy=Background")
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:test"}]}
    foreign = {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}}
    bench.create("jobs", foreign, api=BATCH)
    await settle(bench.operator(), key)
    condition = bench.condition("Baselined")
    assert (condition["status"], condition["reason"]) == ("False", "NameConflict")
    assert name in condition["message"]
    assert bench.condition("Stalled")["status"] == "True"
    assert len(bench.jobs) == 1


async def test_what_a_deletion_with_cascade_orphan_leaves_is_adopted(bench: Bench) -> None:
    """The next resource of that name goes on with the Job that is there, and nobody has to delete it first."""
    bench.deploy()
    key = bench.declare(execution={})
    await settle(bench.operator(), key)
    (left,) = bench.jobs
    path = bench.path("jobs", left["metadata"]["name"], api=BATCH)
    bench.api.request("DELETE", bench.path("modeloptimizations", "digits"))
    bench.patch(path, {"metadata": {"ownerReferences": None}})  # as the garbage collector does, which does not run here
    bench.declare(execution={})
    await settle(bench.operator(), key)
    (adopted,) = bench.jobs
    assert adopted["metadata"]["uid"] == left["metadata"]["uid"]
    (owner,) = adopted["metadata"]["ownerReferences"]
    assert owner["uid"] == bench.resource()["metadata"]["uid"]
    assert bench.condition("Baselined")["reason"] == "Starting"


async def test_a_deleted_job_is_made_again(bench: Bench) -> None:
    """Faults 4 and 20: no watch told of the deletion; the next list finds it, says so in a metric, and repairs it."""
    bench.deploy()
    key = bench.declare()
    operator = bench.operator()
    await settle(operator, key)
    (job,) = bench.jobs
    bench.api.request(
        "DELETE", bench.path("jobs", job["metadata"]["name"], api=BATCH) + "?propagationPolicy=Background"
    )
    await settle(operator, key)
    (again,) = bench.jobs
    assert operator.metrics.registry.get_sample_value("retune_resync_repaired_total", {"resource": "jobs"}) == 1
    assert again["metadata"]["name"] == job["metadata"]["name"]
    assert again["metadata"]["uid"] != job["metadata"]["uid"]


async def test_an_edit_between_reading_and_writing_is_kept(bench: Bench) -> None:
    """Fault 8: the status is decided anew on the edited object, and the edit is not overwritten."""
    bench.deploy()
    key = bench.declare()

    def edit(_: int, request: Request) -> None:
        if request.method == "PATCH" and len(bench.spy.writes) == 2:
            bench.patch(bench.path("modeloptimizations", "digits"), {"spec": {"search": {"seed": 7}}})

    await settle(bench.operator(Spy(bench.send, before=edit)), key)
    resource = bench.resource()
    assert resource["spec"]["search"]["seed"] == 7
    assert resource["status"]["observedGeneration"] == resource["metadata"]["generation"] == 2
    (job,) = bench.jobs
    assert '"seed":7' in job["spec"]["template"]["metadata"]["annotations"]["retune.dev/request"]


async def test_a_second_resource_on_the_same_target_is_told_who_holds_it(bench: Bench) -> None:
    """Fault 30: one writer a target; the other one names it and starts nothing."""
    bench.deploy()
    first, second = bench.declare("first"), bench.declare("second")
    operator = bench.operator()
    await settle(operator, first)
    await settle(operator, second)
    condition = bench.condition("TargetOwned", "second")
    assert (condition["status"], condition["reason"]) == ("False", "HeldByAnother")
    assert "ModelOptimization first" in condition["message"]
    assert len(bench.jobs) == 1


async def test_when_the_holder_is_gone_the_other_takes_over(bench: Bench) -> None:
    """A Lease outlives its holder only until someone needs it."""
    bench.deploy()
    first, second = bench.declare("first"), bench.declare("second")
    operator = bench.operator()
    await settle(operator, first)
    await settle(operator, second)
    bench.api.request("DELETE", bench.path("modeloptimizations", "first"))
    await settle(operator, first)
    await settle(operator, second)
    (lease,) = bench.leases
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["metadata"]["ownerReferences"][0]["uid"] == bench.resource("second")["metadata"]["uid"]
    assert bench.resource("second")["status"]["stage"] == "Baselining"


async def test_the_lease_on_a_target_that_was_replaced_does_not_count_for_the_new_one(bench: Bench) -> None:
    """Fault 30: replaced while the Lease was asked for, the new target needs a Lease of its own before all else."""
    bench.deploy()
    key = bench.declare()
    operator = bench.operator()
    await operator.resync.once()

    def replace(_: int, request: Request) -> None:
        if request.method == "POST" and bench.spy.writes == ["POST leases"]:
            path = bench.path("deployments", "digits-server", api=APPS)
            bench.api.request("DELETE", path)
            operator.cache.put(DEPLOYMENTS, bench.deploy())

    bench.spy.after = replace
    await operator.reconciler.run(key)
    uid = bench.api.get(bench.path("deployments", "digits-server", api=APPS))["metadata"]["uid"]
    assert bench.resource()["status"]["targetUID"] == uid
    assert f"retune-{uid}" in {lease["metadata"]["name"] for lease in bench.leases}
    assert len(bench.jobs) == 1


async def test_a_quota_is_a_reason_to_wait(bench: Bench) -> None:
    """Fault 13: the condition says which quota, and the Job comes when there is room."""
    bench.deploy()
    key = bench.declare()
    hard = {"count/jobs.batch": "0"}
    bench.create("resourcequotas", {"metadata": {"name": "none"}, "spec": {"hard": hard}}, api=CORE)
    path = bench.path("resourcequotas", "none", api=CORE)
    bench.patch(f"{path}/status", {"status": {"hard": hard, "used": {"count/jobs.batch": "0"}}})
    operator = bench.operator()
    _, look_again = await settle(operator, key)
    condition = bench.condition("Baselined")
    assert condition["reason"] == "QuotaExceeded"
    assert "exceeded quota: none" in condition["message"]
    assert look_again is not None
    bench.api.request("DELETE", path)
    await settle(operator, key)
    assert len(bench.jobs) == 1


async def test_a_missing_right_is_named(bench: Bench) -> None:
    """Fault 12: verb and resource in the condition; the status itself can still be written."""
    bench.deploy()
    key = bench.declare()
    token = _a_weak_operator(bench, may_create_jobs=False)
    await settle(bench.operator(Spy(transport_of(bench.plane.kubeconfig, token=token))), key)
    condition = bench.condition("Baselined")
    assert condition["reason"] == "Forbidden"
    assert f"may not create jobs.batch in namespace {bench.namespace}" in condition["message"]
    assert bench.condition("Stalled")["status"] == "True"


async def test_a_policy_that_denies_the_job_is_quoted(bench: Bench) -> None:
    """Fault 14: the sentence of whoever wrote the policy reaches the condition."""
    bench.deploy()
    key = bench.declare()
    _deny_jobs(bench, "no Jobs on Wednesdays")
    try:
        await _until_denied(bench)
        await settle(bench.operator(), key)
        condition = bench.condition("Baselined")
        assert condition["reason"] == "AdmissionDenied"
        assert "no Jobs on Wednesdays" in condition["message"]
    finally:
        _allow_jobs(bench)


async def test_a_namespace_that_is_being_deleted_is_left_alone(bench: Bench) -> None:
    """Fault 31: nothing is created in it, nothing is logged as an error, and no pass fails."""
    bench.deploy()
    key = bench.declare()
    bench.patch(bench.path("modeloptimizations", "digits"), {"metadata": {"finalizers": ["example.com/keep"]}})
    bench.api.request("DELETE", f"/api/v1/namespaces/{bench.namespace}")
    try:
        _, look_again = await settle(bench.operator(), key)
        assert look_again is None
        assert bench.jobs == []
    finally:
        bench.patch(bench.path("modeloptimizations", "digits"), {"metadata": {"finalizers": None}})


async def test_a_resource_that_is_gone_ends_its_pass_quietly(bench: Bench) -> None:
    """Fault 31: deleted between the list and the write."""
    bench.deploy()
    key = bench.declare()
    operator = bench.operator()
    await operator.resync.once()
    bench.api.request("DELETE", bench.path("modeloptimizations", "digits"))
    _, look_again = await operator.reconciler.run(key)
    assert look_again is None
    assert operator.cache.resource(key) is None


@pytest.mark.parametrize(
    "rollout", [{}, {"rollout": {"version": 2, "startTime": WHEN, "rollbackReason": "GoldenMismatch"}}]
)
async def test_a_deletion_does_not_wait_for_a_field_that_others_have_taken(bench: Bench, rollout: Json) -> None:
    """Fault 26: what others have set cannot be put back to nothing; it is theirs, and the resource goes."""
    bench.deploy(value="file:///mine")
    key = bench.declare(deletionPolicy="RestoreOriginal")
    path = bench.path("modeloptimizations", "digits")
    original = {"version": 1, "uri": "pvc://store/a", "digest": samples.DIGEST}
    champion = original | {"version": 2, "runName": "digits-r1", "injectedValue": "pvc://store/b"}
    bench.patch(f"{path}/status", {"status": {"original": original, "champion": champion} | rollout})
    bench.patch(path, {"metadata": {"finalizers": ["retune.dev/undo"]}})
    bench.api.request("DELETE", path)
    await settle(bench.operator(), key)
    assert bench.items("modeloptimizations", api="/apis/retune.dev/v1alpha1") == []
    assert env_of(bench) == [{"name": "MODEL_URI", "value": "file:///mine"}]


async def test_a_server_in_trouble_leaves_the_status_alone(bench: Bench) -> None:
    """Faults 6 and 10: the pass fails as a whole and is to be repeated; nobody's condition flaps."""
    bench.deploy()
    key = bench.declare()
    operator = bench.operator()
    await settle(operator, key)
    before = bench.resource()["metadata"]["resourceVersion"]

    def away(_: int, __: Request) -> None:
        raise ConnectionRefusedError

    bench.spy.before = away
    with pytest.raises(Transient):
        await operator.resync.once()
    bench.spy.before = None
    assert bench.resource()["metadata"]["resourceVersion"] == before


async def test_suspending_holds_the_job_and_resuming_lets_it_go(bench: Bench) -> None:
    """The Job says that we suspended it, so that a queue's own suspension is never lifted."""
    bench.deploy()
    key = bench.declare(execution={})
    operator = bench.operator()
    await settle(operator, key)
    path = bench.path("modeloptimizations", "digits")
    bench.patch(path, {"spec": {"suspend": True}})
    await settle(operator, key)
    (job,) = bench.jobs
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["annotations"]["retune.dev/held"] == "true"
    bench.patch(path, {"spec": {"suspend": False}})
    await settle(operator, key)
    (job,) = bench.jobs
    assert job["spec"]["suspend"] is False
    assert "retune.dev/held" not in job["metadata"].get("annotations", {})


async def test_a_plan_that_never_settles_cannot_spin(bench: Bench) -> None:
    """Fault 33: a mistake in a decision costs a bounded number of writes, then waits."""
    bench.deploy()
    key = bench.declare()
    operator = bench.operator()
    calls = 0

    def restless(observed: Observed, _: datetime) -> Plan:
        nonlocal calls
        calls += 1
        return Plan(observed.resource.status.model_copy(update={"message": f"thought {calls}"}))

    operator.reconciler._decide = restless
    _, look_again = await settle(operator, key)
    assert len(bench.spy.writes) == calls == ROUNDS
    assert look_again is not None
    assert look_again > 1


def _a_weak_operator(bench: Bench, *, may_create_jobs: bool) -> str:
    """A service account with all rights of the operator but one; returns a token of it."""
    rules = [
        {"apiGroups": ["retune.dev"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["", "apps", "coordination.k8s.io"], "resources": ["*"], "verbs": ["*"]},
        {
            "apiGroups": ["batch"],
            "resources": ["jobs"],
            "verbs": ["get", "list", "watch"] + ["create"] * may_create_jobs,
        },
    ]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    bench.create("serviceaccounts", {"metadata": {"name": "weak"}}, api=CORE)
    bench.create("roles", {"metadata": {"name": "weak"}, "rules": rules}, api=rbac)
    subject = {"kind": "ServiceAccount", "name": "weak", "namespace": bench.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "weak"}
    bench.create("rolebindings", {"metadata": {"name": "weak"}, "subjects": [subject], "roleRef": role}, api=rbac)
    path = bench.path("serviceaccounts", "weak", api=CORE) + "/token"
    token = bench.api.request(
        "POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    )
    return str(token["status"]["token"])


_POLICIES = "/apis/admissionregistration.k8s.io/v1"


def _deny_jobs(bench: Bench, words: str) -> None:
    """Deny every new Job of ours in the namespace."""
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": words}],
    }
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": bench.namespace}}}
    binding = {"policyName": bench.namespace, "validationActions": ["Deny"], "matchResources": where}
    meta = {"metadata": {"name": bench.namespace}}
    bench.api.request("POST", f"{_POLICIES}/validatingadmissionpolicies", meta | {"spec": spec})
    bench.api.request("POST", f"{_POLICIES}/validatingadmissionpolicybindings", meta | {"spec": binding})


def _allow_jobs(bench: Bench) -> None:
    for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        bench.api.request("DELETE", f"{_POLICIES}/{kind}/{bench.namespace}")


async def _until_denied(bench: Bench) -> None:
    """Wait until the policy works: the server reads policies a moment after they are written."""
    import asyncio

    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:test"}]}
    body = {"metadata": {"name": "probe"}, "spec": {"suspend": True, "template": {"spec": pod}}}
    request = Request("POST", bench.path("jobs", api=BATCH), {"dryRun": "All"}, body)
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(bench.send, request)).status < 300:  # noqa: ASYNC110 - a server announces nothing
            await asyncio.sleep(0.1)
