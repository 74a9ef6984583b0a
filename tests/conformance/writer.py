"""What carrying an action out does, whoever carries it out: one suite for the real Writer and for the planner's world.

`tests/cluster/test_writer.py` runs it on `retune.cluster.writes.Writer` and a real API server, and
`tests/unit/plan/test_world.py` on the world in which the planner is tested, so that what the planner proves there holds
on a cluster. A case must not ask which of the two it runs on. Where they differ, the API server is right.
"""

from typing import get_args

import pytest

from retune.api.objects import OptimizationRunStatus
from retune.api.status import ModelOptimizationStatus, Outcome
from retune.plan.actions import (
    AcquireLease,
    Action,
    CreateCanary,
    CreateCanaryService,
    CreateJob,
    CreateRun,
    EmitEvent,
    InjectModel,
    RecordRun,
    ReplacePod,
    ScaleCanary,
    SetFinalizer,
    ShareRoute,
)
from retune.plan.guards.deletion import FINALIZER
from retune.plan.observed import JobPhase
from tests.conformance.scene import (
    BUNDLE,
    BY_ROUTE,
    CANARY,
    CHANGING,
    CLOSE_ROUTE,
    CONFLICT,
    CREATE_CANARY,
    CREATE_JOB,
    CREATE_OTHER_RUN,
    CREATE_RUN,
    CREATE_SERVICE,
    CREATING,
    DELIVERED,
    DONE,
    EMIT,
    FORCE,
    GIVE_UP,
    HOLD_JOB,
    INJECT,
    JOB,
    JOBS,
    KEEP,
    LEASES,
    NAMESPACE_GONE,
    NOT_FOUND,
    ON_CANARY,
    OPEN_ROUTE,
    OTHERWISE,
    RECORD_RUN,
    RELEASE_JOB,
    REMOVE_CANARY,
    REMOVE_ROUTED,
    REMOVE_SERVICE,
    RESOURCE,
    RESTORE_ROUTE,
    ROUTE,
    RUN,
    SCALE_CANARY,
    SERVICE,
    SHARE_ROUTE,
    TARGET,
    TARGET_UID,
    VERBS,
    WHOLE,
    Scene,
    Verb,
    as_seen,
    every,
    field,
    prepared,
    the_job,
)


class WriterConformance:
    """The cases. A subclass brings the fixture `scene`: resource and target are there, the field is not set."""

    def test_every_action_has_a_case(self) -> None:
        """A new verb of the planner is not forgotten here."""
        assert {type(verb.action) for verb in VERBS} | {EmitEvent} == set(get_args(Action))

    @every(VERBS)
    async def test_what_is_done_twice_is_done_once(self, scene: Scene, verb: Verb) -> None:
        """The first time changes the object, the second time nothing; memory knows at once what was done."""
        await prepared(scene, *verb.before)
        before = scene.version(verb.plural)
        assert await scene.carry_out(verb.action) == DONE
        after = scene.version(verb.plural)
        assert after != before
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(verb.plural) == after
        assert await scene.remember() == await scene.look()

    @every(VERBS)
    async def test_another_process_finds_it_done(self, scene: Scene, verb: Verb) -> None:
        """Killed after the write, its answer lost: the next process repeats it without harm."""
        await prepared(scene, *verb.before, verb.action)
        after = scene.version(verb.plural)
        await scene.restart()
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(verb.plural) == after

    @pytest.mark.parametrize("heard", [True, False])
    @every(VERBS)
    async def test_a_target_that_is_gone_is_not_made_again(self, scene: Scene, verb: Verb, *, heard: bool) -> None:
        """No verb needs it, and none refuses: the next decision sees that there is none."""
        await prepared(scene, *verb.before)
        scene.delete(TARGET)
        if heard:
            await scene.look()
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(TARGET) is None
        if verb.plural == TARGET:
            assert (await scene.remember()).target is None

    @every(VERBS)
    async def test_a_resource_that_is_gone_is_not_written(self, scene: Scene, verb: Verb) -> None:
        """What writes the resource or its target ends the pass; the rest goes with the garbage collector."""
        await prepared(scene, *verb.before)
        if verb.plural == RESOURCE and verb.before:
            await prepared(scene, SetFinalizer(present=False))
            verb = Verb(SetFinalizer(present=True), RESOURCE)
        scene.delete(RESOURCE)
        serves = isinstance(verb.action, CreateCanary | ScaleCanary | CreateCanaryService | ShareRoute | ReplacePod)
        serves |= verb.action == REMOVE_ROUTED
        assert await scene.carry_out(verb.action) == (
            NOT_FOUND if serves or verb.plural in {RESOURCE, TARGET} else DONE
        )
        assert scene.version(RESOURCE) is None

    @every(VERBS)
    async def test_nothing_is_made_in_a_namespace_that_ends(self, scene: Scene, verb: Verb) -> None:
        """Creating ends the pass; what is there may still be changed."""
        await prepared(scene, *verb.before)
        scene.end_namespace()
        creates = isinstance(verb.action, AcquireLease | CreateJob | CreateRun | CreateCanary | CreateCanaryService)
        assert await scene.carry_out(verb.action) == (NAMESPACE_GONE if creates else DONE)
        if creates:
            assert scene.version(verb.plural) is None

    # --- whose an object is ------------------------------------------------------------------------------------------

    @every(CREATING)
    async def test_a_name_that_others_have_taken_is_refused(self, scene: Scene, verb: Verb) -> None:
        """Fault 3: whose an object is, is told by its owner and never by its name."""
        scene.take_name(verb.plural)
        theirs = scene.version(verb.plural)
        assert await scene.carry_out(verb.action) == "NameConflict"
        await scene.look()
        assert await scene.carry_out(verb.action) == "NameConflict"
        assert scene.version(verb.plural) == theirs

    @every(CREATING)
    async def test_what_an_earlier_resource_left_behind_is_adopted(self, scene: Scene, verb: Verb) -> None:
        """It has no owner and is what would have been created: nobody has to delete it by hand."""
        await prepared(scene, verb.action)
        scene.leave_behind(verb.plural)
        seen = await scene.look()
        assert (JOB in seen.jobs, RUN in seen.runs) == (False, False)
        left = scene.version(verb.plural)
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(verb.plural) not in {None, left}
        remembered = await scene.remember()
        assert (JOB in remembered.jobs, RUN in remembered.runs) == (verb.plural == JOBS, verb.plural != JOBS)
        assert remembered == await scene.look()
        adopted = scene.version(verb.plural)
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(verb.plural) == adopted

    @every(OTHERWISE)
    async def test_what_was_left_behind_and_asks_for_something_else_is_refused(self, scene: Scene, verb: Verb) -> None:
        """Its result would answer another question."""
        await prepared(scene, *verb.before)
        scene.leave_behind(verb.plural)
        await scene.look()
        left = scene.version(verb.plural)
        assert await scene.carry_out(verb.action) == "NameConflict"
        assert scene.version(verb.plural) == left

    @pytest.mark.parametrize("heard", [True, False])
    @every(CHANGING)
    async def test_an_object_of_others_is_left_alone(self, scene: Scene, verb: Verb, *, heard: bool) -> None:
        """What took the place of ours is not held, recorded or deleted; what was to be done counts as done."""
        await prepared(scene, *verb.before)
        scene.take_name(verb.plural)
        theirs = scene.version(verb.plural)
        if heard:
            await scene.look()
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(verb.plural) == theirs
        remembered = await scene.remember()
        assert (JOB in remembered.jobs, RUN in remembered.runs) == (False, False)

    @pytest.mark.parametrize("heard", [True, False])
    @every(CHANGING)
    async def test_an_object_that_is_gone_needs_nothing(self, scene: Scene, verb: Verb, *, heard: bool) -> None:
        """Fault 20: it is not made again by the way, and counts as done."""
        await prepared(scene, *verb.before)
        scene.delete(verb.plural)
        if heard:
            await scene.look()
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(verb.plural) is None
        assert await scene.remember() == await scene.look()

    @every(CREATING)
    async def test_what_was_deleted_is_made_anew(self, scene: Scene, verb: Verb) -> None:
        """Fault 20: it has the same name, and is another object."""
        await prepared(scene, verb.action)
        before = scene.version(verb.plural)
        scene.delete(verb.plural)
        await scene.look()
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(verb.plural) not in {None, before}

    # --- the Lease ---------------------------------------------------------------------------------------------------

    async def test_a_lease_of_another_resource_is_refused(self, scene: Scene) -> None:
        """Fault 30: one writer a target, and the Lease stays with it."""
        scene.hold_lease_for_another()
        theirs = scene.version(LEASES)
        assert await scene.carry_out(AcquireLease(TARGET_UID)) == "HeldByAnother"
        assert scene.version(LEASES) == theirs

    async def test_the_lease_of_a_resource_that_is_gone_is_taken_over(self, scene: Scene) -> None:
        """A Lease outlives its holder only until someone needs it."""
        scene.hold_lease_for_another()
        scene.remove_other_resource()
        theirs = scene.version(LEASES)
        assert await scene.carry_out(AcquireLease(TARGET_UID)) == DONE
        assert scene.version(LEASES) not in {None, theirs}

    async def test_each_target_has_a_lease_of_its_own(self, scene: Scene) -> None:
        """Whoever holds one target holds no other."""
        scene.hold_lease_for_another()
        assert await scene.carry_out(AcquireLease("target-2")) == DONE

    # --- Jobs and runs -----------------------------------------------------------------------------------------------

    async def test_a_new_job_waits_for_its_pod(self, scene: Scene) -> None:
        """It is neither held nor queued, and has no result."""
        await prepared(scene, CREATE_JOB)
        job = await the_job(scene)
        assert (job.phase, job.held, job.result) == (JobPhase.WAITING, False, None)

    async def test_a_new_job_of_a_queue_waits_for_its_admission(self, scene: Scene) -> None:
        """The queue has suspended it, not we."""
        scene.edit(execution={"queueName": "team"})
        await scene.look()
        await prepared(scene, CREATE_JOB)
        job = await the_job(scene)
        assert (job.phase, job.held) == (JobPhase.SUSPENDED, False)

    async def test_a_held_job_is_suspended_until_it_is_let_go(self, scene: Scene) -> None:
        """The Job itself says that we suspended it; let go, it waits for a pod again."""
        await prepared(scene, CREATE_JOB, HOLD_JOB)
        job = await the_job(scene)
        assert (job.phase, job.held) == (JobPhase.SUSPENDED, True)
        await prepared(scene, RELEASE_JOB)
        job = await the_job(scene)
        assert (job.phase, job.held) == (JobPhase.WAITING, False)

    async def test_a_job_that_has_ended_stays_so_when_it_is_held(self, scene: Scene) -> None:
        """It ended while the decision to hold it was made."""
        await prepared(scene, CREATE_JOB)
        scene.finish_job()
        assert await scene.carry_out(HOLD_JOB) == DONE
        job = await the_job(scene)
        assert (job.phase, job.held) == (JobPhase.SUCCEEDED, True)

    async def test_a_quota_is_a_refusal_and_no_job(self, scene: Scene) -> None:
        """Fault 13: the reason names it."""
        scene.forbid_jobs_by_quota()
        assert await scene.carry_out(CREATE_JOB) == "QuotaExceeded"
        assert scene.version(JOBS) is None

    async def test_a_run_keeps_what_it_was_started_with(self, scene: Scene) -> None:
        """Created again with another spec, it is still the first."""
        await prepared(scene, CREATE_RUN)
        assert await scene.carry_out(CREATE_OTHER_RUN) == DONE
        assert (await scene.look()).runs[RUN].spec == CREATE_RUN.spec

    async def test_a_run_tells_what_was_recorded_last(self, scene: Scene) -> None:
        """A field that is not told any more is gone."""
        await prepared(scene, CREATE_RUN, RECORD_RUN)
        again = OptimizationRunStatus(outcome=Outcome.FAILED)
        await prepared(scene, RecordRun(RUN, again))
        assert (await scene.look()).runs[RUN].status == again

    # --- the owned field ---------------------------------------------------------------------------------------------

    async def test_the_field_is_owned_and_given_up_again(self, scene: Scene) -> None:
        """Owned, it has our value under our name; given up, nothing of it is left."""
        await prepared(scene, INJECT)
        assert await field(scene) == (BUNDLE, "retune")
        await prepared(scene, GIVE_UP)
        assert await field(scene) == (None, None)

    async def test_a_changed_field_leaves_the_target_unsettled(self, scene: Scene) -> None:
        """Its pods have yet to be replaced."""
        target = (await prepared(scene, INJECT)).target
        assert target is not None
        assert not target.settled

    async def test_a_field_of_others_is_refused(self, scene: Scene) -> None:
        """Fault 26: nothing is taken over unless that was asked for."""
        scene.set_field(DELIVERED)
        await scene.look()
        assert await scene.carry_out(INJECT) == "FieldConflict"
        assert (await field(scene))[0] == DELIVERED

    async def test_a_field_of_others_is_taken_over_when_told_so(self, scene: Scene) -> None:
        """Takeover Force."""
        scene.set_field(DELIVERED)
        await prepared(scene, FORCE)
        assert await field(scene) == (BUNDLE, "retune")

    async def test_the_value_that_others_have_set_is_no_conflict(self, scene: Scene) -> None:
        """The field is shared, and what it says is what was wanted."""
        scene.set_field(BUNDLE)
        await prepared(scene, INJECT)
        value, manager = await field(scene)
        assert value == BUNDLE
        assert manager != "retune"

    @pytest.mark.parametrize("value", [DELIVERED, BUNDLE])
    async def test_a_field_that_others_have_set_cannot_be_given_up(self, scene: Scene, value: str) -> None:
        """It stays as they have set it, and the refusal says so: waiting for it to be empty would never end."""
        await prepared(scene, INJECT)
        scene.set_field(value)
        await scene.look()
        assert await scene.carry_out(GIVE_UP) == "FieldConflict"
        assert (await field(scene))[0] == value

    async def test_a_container_that_is_not_there_is_refused(self, scene: Scene) -> None:
        """A Deployment never gets a container from us."""
        stray = InjectModel("sidecar", "MODEL_URI", BUNDLE)
        assert await scene.carry_out(stray) == "Invalid"
        assert await field(scene) == (None, None)

    async def test_a_target_is_not_changed_by_what_was_decided_on_an_old_status(self, scene: Scene) -> None:
        """Faults 8 and 30: an edit or another operator came first, and what serves is decided anew."""
        await scene.look()
        before = scene.version(TARGET)
        scene.edit(suspend=True)
        assert await scene.carry_out(INJECT) == CONFLICT
        assert scene.version(TARGET) == before

    async def test_a_target_that_was_replaced_is_not_changed(self, scene: Scene) -> None:
        """Fault 26: the decision was about another object of that name; the next one sees the new object."""
        await scene.look()
        scene.replace_target()
        assert await scene.carry_out(INJECT) == DONE
        assert await field(scene) == (None, None)

    # --- the canary --------------------------------------------------------------------------------------------------

    async def test_a_canary_is_seen_as_it_was_made(self, scene: Scene) -> None:
        """It serves what it was given, and is made of the target's template."""
        observed = await prepared(scene, CREATE_CANARY)
        canary, target = observed.traffic.canary, observed.target
        assert canary is not None
        assert target is not None
        assert (canary.serves("server"), canary.made_of, canary.owned) == (BUNDLE, target.template, True)
        assert (canary.workload.wanted, target.containers[0].value) == (1, None)
        assert not canary.leaving

    async def test_a_canary_is_scaled(self, scene: Scene) -> None:
        """Its pods are as many as were asked for."""
        canary = (await prepared(scene, CREATE_CANARY, SCALE_CANARY)).traffic.canary
        assert canary is not None
        assert canary.workload.wanted == 3

    async def test_a_canary_is_gone_once_it_is_removed(self, scene: Scene) -> None:
        """And another one can be made."""
        await prepared(scene, CREATE_CANARY)
        before = scene.version(CANARY)
        assert (await prepared(scene, REMOVE_CANARY)).traffic.canary is None
        await prepared(scene, CREATE_CANARY)
        assert scene.version(CANARY) not in {None, before}

    async def test_the_name_of_a_canary_that_others_have_taken_is_refused(self, scene: Scene) -> None:
        """Fault 3: whose a Deployment is, is told by its owner, and theirs is no canary."""
        scene.take_name(CANARY)
        theirs = scene.version(CANARY)
        assert await scene.carry_out(CREATE_CANARY) == "NameConflict"
        assert (await scene.look()).traffic.canary is None
        assert await scene.carry_out(CREATE_CANARY) == "NameConflict"
        assert scene.version(CANARY) == theirs

    @pytest.mark.parametrize("heard", [True, False])
    @every(ON_CANARY[1:])
    async def test_a_deployment_that_took_the_canary_s_place_is_left_alone(
        self, scene: Scene, verb: Verb, *, heard: bool
    ) -> None:
        """What was to be done with ours counts as done."""
        await prepared(scene, *verb.before)
        scene.take_name(CANARY)
        theirs = scene.version(CANARY)
        if heard:
            await scene.look()
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(CANARY) == theirs
        assert (await scene.look()).traffic.canary is None

    @pytest.mark.parametrize("heard", [True, False])
    @every(ON_CANARY[1:])
    async def test_a_canary_that_is_gone_needs_nothing(self, scene: Scene, verb: Verb, *, heard: bool) -> None:
        """It is not made again by the way."""
        await prepared(scene, *verb.before)
        scene.delete(CANARY)
        if heard:
            await scene.look()
        assert await scene.carry_out(verb.action) == DONE
        assert scene.version(CANARY) is None
        assert await scene.remember() == await scene.look()

    async def test_a_canary_that_was_left_behind_is_seen_as_that_and_can_be_removed(self, scene: Scene) -> None:
        """It has no owner, and our labels."""
        await prepared(scene, CREATE_CANARY)
        scene.leave_behind(CANARY)
        canary = (await scene.look()).traffic.canary
        assert canary is not None
        assert not canary.owned
        assert (await prepared(scene, REMOVE_CANARY)).traffic.canary is None

    async def test_no_canary_is_made_of_a_template_that_has_changed(self, scene: Scene) -> None:
        """The next decision sees the new one."""
        before = (await scene.look()).target
        scene.edit_template()
        assert await scene.carry_out(CREATE_CANARY) == DONE
        assert scene.version(CANARY) is None
        after = (await scene.look()).target
        assert before is not None
        assert after is not None
        assert after.template != before.template
        await prepared(scene, CREATE_CANARY)
        assert scene.version(CANARY) is not None

    @every(ON_CANARY[:2])
    async def test_a_canary_is_not_given_more_by_what_was_decided_on_an_old_status(
        self, scene: Scene, verb: Verb
    ) -> None:
        """Faults 8 and 30: an edit came first, and who gets what is decided anew."""
        await prepared(scene, *verb.before)
        before = scene.version(CANARY)
        scene.edit(suspend=True)
        assert await scene.carry_out(verb.action) == CONFLICT
        assert scene.version(CANARY) == before

    # --- a route of others -------------------------------------------------------------------------------------------

    async def test_a_share_is_seen_as_it_was_given_and_the_rule_as_it_was_put_back(self, scene: Scene) -> None:
        """The canary is a backend beside the others, and not any more after that."""
        shared = (await prepared(scene, BY_ROUTE, CREATE_SERVICE, SHARE_ROUTE)).traffic
        assert shared.service is not None
        assert shared.route is not None
        assert [backend.weight for backend in shared.route.rules[0]] == [9, 10, 1]
        restored = (await prepared(scene, RESTORE_ROUTE, REMOVE_SERVICE)).traffic
        assert restored.route is not None
        assert (restored.route.rules, restored.service) == ((WHOLE,), None)

    async def test_a_rule_for_testers_is_seen_as_such_and_goes_whole(self, scene: Scene) -> None:
        """It is a copy for the canary alone, after the rules of others, which stay."""
        opened = (await prepared(scene, BY_ROUTE, CREATE_SERVICE, OPEN_ROUTE)).traffic.route
        assert opened is not None
        assert (opened.rules[0], opened.testers) == (WHOLE, (1,))
        assert [backend.weight for backend in opened.rules[1]] == [1]
        closed = (await prepared(scene, CLOSE_ROUTE)).traffic.route
        assert closed is not None
        assert (closed.rules, closed.testers) == ((WHOLE,), ())

    @every(tuple(verb for verb in VERBS if verb.plural == ROUTE))
    async def test_a_route_that_has_changed_since_is_not_written(self, scene: Scene, verb: Verb) -> None:
        """Fault 8: others were faster, and what they wrote is looked at first."""
        decided = as_seen(verb.action, await prepared(scene, *verb.before))
        scene.edit_route()
        edited = scene.version(ROUTE)
        assert await scene.carry_out(decided) == DONE
        assert scene.version(ROUTE) == edited

    @every(tuple(verb for verb in VERBS if verb.plural == ROUTE))
    async def test_a_route_that_is_gone_needs_nothing(self, scene: Scene, verb: Verb) -> None:
        """It is not made again by the way, and is said to be gone."""
        decided = as_seen(verb.action, await prepared(scene, *verb.before))
        scene.delete(ROUTE)
        assert await scene.carry_out(decided) == DONE
        assert scene.version(ROUTE) is None
        route = (await scene.look()).traffic.route
        assert route is not None
        assert (route.gone, route.obstacle is None) == (True, False)

    async def test_a_service_of_others_with_the_name_of_ours_is_refused_and_stays(self, scene: Scene) -> None:
        """Fault 3: whose it is, is told by its owner."""
        await prepared(scene, BY_ROUTE)
        scene.take_name(SERVICE)
        theirs = scene.version(SERVICE)
        assert await scene.carry_out(CREATE_SERVICE) == "NameConflict"
        assert (await scene.look()).traffic.service is None
        assert await scene.carry_out(REMOVE_SERVICE) == DONE
        assert scene.version(SERVICE) == theirs

    @every((Verb(CREATE_SERVICE, SERVICE), Verb(SHARE_ROUTE, ROUTE), Verb(REMOVE_ROUTED, CANARY, (CREATE_CANARY,))))
    async def test_nothing_of_a_route_is_decided_on_an_old_status(self, scene: Scene, verb: Verb) -> None:
        """Faults 8 and 30: an edit came first, and who gets what is decided anew."""
        await prepared(scene, BY_ROUTE, *verb.before)
        before = scene.version(verb.plural)
        scene.edit(suspend=True)
        assert await scene.carry_out(verb.action) == CONFLICT
        assert scene.version(verb.plural) == before

    # --- finalizer, status, events -----------------------------------------------------------------------------------

    async def test_our_finalizer_comes_and_goes_beside_those_of_others(self, scene: Scene) -> None:
        """Theirs stay."""
        scene.add_finalizer(KEEP)
        await scene.look()
        await prepared(scene, SetFinalizer(present=True))
        assert set(scene.finalizers()) == {KEEP, FINALIZER}
        await prepared(scene, SetFinalizer(present=False))
        assert scene.finalizers() == (KEEP,)

    async def test_finalizers_are_not_written_over_an_edit(self, scene: Scene) -> None:
        """Fault 8: a list that others write too is never replaced on an old reading."""
        await scene.look()
        scene.add_finalizer(KEEP)
        assert await scene.carry_out(SetFinalizer(present=True)) == CONFLICT
        assert scene.finalizers() == (KEEP,)

    async def test_a_resource_that_is_being_deleted_goes_with_its_last_finalizer(self, scene: Scene) -> None:
        """Not before, and not while others have one."""
        scene.add_finalizer(KEEP)
        await scene.look()
        await prepared(scene, SetFinalizer(present=True))
        scene.delete(RESOURCE)
        await scene.look()
        await prepared(scene, SetFinalizer(present=False))
        assert scene.finalizers() == (KEEP,)
        assert (await scene.look()).resource.metadata.deletion_timestamp

    async def test_a_resource_that_is_being_deleted_gets_no_finalizer(self, scene: Scene) -> None:
        """It is too late."""
        scene.add_finalizer(KEEP)
        scene.delete(RESOURCE)
        await scene.look()
        assert await scene.carry_out(SetFinalizer(present=True)) == "Invalid"
        assert scene.finalizers() == (KEEP,)

    async def test_our_finalizer_is_the_last_that_a_deletion_waits_for(self, scene: Scene) -> None:
        """With it, the resource is gone."""
        await prepared(scene, SetFinalizer(present=True))
        scene.delete(RESOURCE)
        await scene.look()
        assert await scene.carry_out(SetFinalizer(present=False)) == DONE
        assert scene.version(RESOURCE) is None

    async def test_a_resource_that_nobody_has_looked_at_says_so(self, scene: Scene) -> None:
        """The API server fills in a generation that no spec has."""
        assert (await scene.look()).resource.status == ModelOptimizationStatus(observed_generation=-1)

    async def test_a_status_is_written_once(self, scene: Scene) -> None:
        """The same status again changes nothing, and spec and generation are as they were."""
        before = (await scene.look()).resource
        status = before.status.model_copy(update={"message": "the champion serves", "next_run": 3})
        assert await scene.write_status(status) == DONE
        after = scene.version(RESOURCE)
        assert await scene.write_status(status) == DONE
        assert scene.version(RESOURCE) == after
        found = (await scene.look()).resource
        assert (found.status, found.spec) == (status, before.spec)
        assert found.metadata.generation == before.metadata.generation

    async def test_a_status_is_not_written_for_a_resource_that_has_moved_on(self, scene: Scene) -> None:
        """Fault 8: it was decided on what is not there any more."""
        status = (await scene.look()).resource.status.model_copy(update={"message": "old"})
        scene.edit(search={"maxTrials": 3})
        assert await scene.write_status(status) == CONFLICT
        found = (await scene.look()).resource
        assert (found.status.message, found.spec.search.max_trials) == (None, 3)

    async def test_the_status_of_a_resource_that_is_gone_is_not_written(self, scene: Scene) -> None:
        """Fault 31: the pass ends."""
        status = (await scene.look()).resource.status.model_copy(update={"message": "late"})
        scene.delete(RESOURCE)
        assert await scene.write_status(status) == NOT_FOUND

    async def test_an_event_is_told_each_time(self, scene: Scene) -> None:
        """With its kind, reason and message."""
        await prepared(scene, EMIT, EmitEvent("RolledBack", "version 2 was rolled back", warning=True))
        told = [("Normal", EMIT.reason, EMIT.message), ("Warning", "RolledBack", "version 2 was rolled back")]
        assert sorted(scene.events()) == told
        await prepared(scene, EMIT)
        assert len(scene.events()) == 3

    async def test_a_long_event_is_cut(self, scene: Scene) -> None:
        """The API server would take none of it."""
        await prepared(scene, EmitEvent("Promoted", "x" * 2000))
        ((_, _, message),) = scene.events()
        assert message == "x" * 1024

    async def test_an_event_that_cannot_be_told_stops_nothing(self, scene: Scene) -> None:
        """In a namespace that ends, nobody hears it."""
        scene.end_namespace()
        assert await scene.carry_out(EMIT) == DONE
        assert scene.events() == []
