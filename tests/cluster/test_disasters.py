"""Disasters on a real API server: what is lost, what comes back, and that the champion goes on serving meanwhile.

Every pass also holds the status against the target (`Site.assert_truthful`): it never names a version that does not
serve. The page docs/disasters.md says no more than these tests show.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.contract.requests import BaselineRequest, JobRequest
from retune.contract.results import Failure, JobResult, Reason
from tests.answers import answer, baseline_missing
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.cluster.site import Site, promoted, request_of, seals_of
from tools.localcluster.api import ApiError
from tools.localcluster.controlplane import ControlPlane, control_plane, spawn
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.slow

Json = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OWN = ("ModelOptimization", "OptimizationRun")
DEPENDENTS = ("OptimizationRun", "Job", "Pod", "Lease")
HOUR = 3600.0
WATCHED = 30.0
"""Seconds at the end of a span that an operator watches itself, when it was away."""


# --- 1. backup and restore --------------------------------------------------------------------------------------------


async def test_a_resource_restored_with_its_status_goes_on_and_measures_nothing(bench: Bench) -> None:
    """Under a new UID: same champion, no Job, the target is not written; the Lease on it is taken over at once."""
    site = await promoted(bench)
    saved, champion, target = site.backup(*OWN), site.champion, site.backup("Deployment")
    site.lose("ModelOptimization", "OptimizationRun", "Job", "Pod")
    site.restore(saved, status=True)
    await site.play()
    assert (site.champion, site.jobs) == (champion, set())
    assert site.reason("Ready") == ("True", "ChampionServing")
    assert [each["spec"] for each in site.backup("Deployment")] == [each["spec"] for each in target]
    (lease,) = bench.leases
    assert lease["metadata"]["ownerReferences"][0]["uid"] == bench.resource()["metadata"]["uid"]
    site.edit(manualNonce="again")
    await site.play()
    assert site.champion[0] == 3


async def test_the_run_after_a_restore_has_the_next_number_and_no_earlier_run_to_start_from(bench: Bench) -> None:
    """Restored runs are a record to read: what the store holds of them is sealed for a UID that is gone."""
    site = await promoted(bench)
    saved, before = site.backup(*OWN), request_of(site.job("-r1-search"))
    site.lose("ModelOptimization", *DEPENDENTS)
    site.restore(saved, status=True)
    site.edit(manualNonce="again")
    await site.play()
    request = request_of(site.job("-r2-search"))
    assert request.warm_start == ()
    assert request.run.rpartition("-")[2] != before.run.rpartition("-")[2]
    assert {each["metadata"]["name"] for each in site.backup("OptimizationRun")} == {"digits-r1", "digits-r2"}


async def test_a_resource_restored_without_its_status_finds_what_serves_and_measures_it(bench: Bench) -> None:
    """Version 1 is measured anew, the bundle that serves is verified, and the target keeps it throughout."""
    site = await promoted(bench)
    saved, served, digest = site.backup("ModelOptimization"), site.value, site.champion[1]
    site.lose("ModelOptimization", *DEPENDENTS)
    site.restore(saved, status=False)
    operator = site.operator()
    await site.play(operator)
    asked = request_of(site.job("-b1-")).serves
    assert asked is not None
    assert (asked.digest, site.champion, site.value) == (digest, (2, digest), served)
    assert site.reason("Ready") == ("True", "ChampionServing")
    assert site.status["original"]["injectedValue"] == site.status["original"]["uri"], "what was there before is lost"
    assert site.status["lastRun"]["name"] == "digits-r1", "runs are counted from the beginning"


async def test_runs_restored_without_the_status_are_records_and_the_next_run_has_the_number_after_them(
    bench: Bench,
) -> None:
    """Nobody has to delete them; they stay as they were, and belong to nobody."""
    site = await promoted(bench)
    saved = site.backup(*OWN)
    site.lose("ModelOptimization", *DEPENDENTS)
    site.restore([each for each in saved if each["kind"] == "OptimizationRun"], status=True)
    site.restore([each for each in saved if each["kind"] == "ModelOptimization"], status=False)
    await site.play()
    assert (site.status["lastRun"]["name"], site.champion[0]) == ("digits-r2", 3)
    first, second = sorted(site.backup("OptimizationRun"), key=lambda each: each["spec"]["number"])
    assert (first["status"], first["metadata"].get("ownerReferences")) == (saved_run(saved)["status"], None)
    assert second["metadata"]["ownerReferences"][0]["uid"] == bench.resource()["metadata"]["uid"]


def saved_run(saved: list[Json]) -> Json:
    """The only OptimizationRun of a backup."""
    (run,) = (each for each in saved if each["kind"] == "OptimizationRun")
    return run


async def test_a_target_that_comes_back_as_its_manifest_is_given_the_champion(bench: Bench) -> None:
    """The resource was not lost: nobody has to set the variable, and the version is not rejected."""
    site = await promoted(bench)
    served, champion = site.value, site.champion
    site.lose("Deployment")
    await site.play()
    assert site.reason("TargetResolved") == ("False", "NotFound")
    bench.deploy(replicas=1)
    await site.play()
    assert (site.value, site.champion, site.status.get("rejected", [])) == (served, champion, [])
    assert site.reason("Ready") == ("True", "ChampionServing")


# --- 2. the store -----------------------------------------------------------------------------------------------------


def missing(*, lost: bool) -> Callable[[JobRequest], JobResult]:
    """Jobs over a store that lacks a bundle: all but the baseline miss it. lost: whether it is the champion's."""

    def reply(request: JobRequest) -> JobResult:
        if isinstance(request, BaselineRequest):
            return baseline_missing(request) if lost and request.serves else answer(request)
        words = {"object": "bundle", "message": "It is not in the store.", "next_step": "Restore it."}
        return Failure(reason=Reason.BUNDLE_NOT_FOUND, **words)

    return reply


async def test_an_empty_store_takes_the_target_back_to_the_delivered_model(bench: Bench) -> None:
    """In mode Automatic, once a run has missed the bundle; nothing is rejected, and a run may search again."""
    site = await promoted(bench)
    site.reply = missing(lost=True)
    site.edit(manualNonce="after the loss")
    await site.play()
    assert (site.value, site.champion[0]) == (None, 1)
    assert site.reason("BundleAvailable") == ("False", "FellBack")
    assert site.reason("Ready") == ("True", "ChampionServing")
    assert site.status.get("rejected", []) == []
    site.reply = answer
    site.edit(manualNonce="search again")
    await site.play()
    assert site.champion[0] == 3
    assert site.reason("BundleAvailable") == ("True", "Stored")


async def test_outside_mode_automatic_a_lost_bundle_is_told_and_nothing_is_changed(bench: Bench) -> None:
    """Ready is False until a person acts: here by setting the mode."""
    site = await promoted(bench)
    served = site.value
    site.reply = missing(lost=True)
    site.edit(mode="RecommendOnly", manualNonce="after the loss")
    await site.play()
    assert site.value == served
    assert site.reason("BundleAvailable") == ("False", "BundleLost")
    assert site.reason("Ready") == ("False", "BundleLost")
    site.edit(mode="Automatic")
    await site.play()
    assert (site.value, site.champion[0]) == (None, 1)


async def test_a_lost_bundle_of_version_1_is_made_anew_and_the_champion_stays(bench: Bench) -> None:
    """The baseline answers that the champion's own bundle is there."""
    site = await promoted(bench)
    served, champion = site.value, site.champion
    site.reply = missing(lost=False)
    site.edit(manualNonce="after the loss")
    await site.play()
    assert (site.value, site.champion) == (served, champion)
    assert site.reason("BundleAvailable") == ("True", "Stored")
    assert site.status["lastRun"]["reason"] == "BundleNotFound"


# --- 3. another cluster -----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(plane: ControlPlane) -> Iterator[Site]:
    """An empty namespace, in which nothing of the first site is known and no UID of it exists."""
    found = Bench(plane)
    yield Site(found)
    found.close()


async def test_moved_with_its_status_the_champion_is_given_to_the_new_target(bench: Bench, elsewhere: Site) -> None:
    """Without a Job. The Lease is named after the new target, and the next run's records have seals of their own."""
    site = await promoted(bench)
    elsewhere.bench.deploy(replicas=1)
    elsewhere.restore(site.backup(*OWN), status=True)
    await elsewhere.play()
    assert (elsewhere.value, elsewhere.champion, elsewhere.jobs) == (site.value, site.champion, set())
    (target,) = elsewhere.backup("Deployment")
    assert [each["metadata"]["name"] for each in elsewhere.bench.leases] == [f"retune-{target['metadata']['uid']}"]
    site.edit(manualNonce="again")
    elsewhere.edit(manualNonce="again")
    await site.play()
    await elsewhere.play()
    seals = seals_of(site.job("-r2-judge")), seals_of(elsewhere.job("-r2-judge"))
    assert len(seals[0]) == len(seals[1]) == 2
    assert not set(seals[0].values()) & set(seals[1].values())


async def test_a_status_that_comes_after_the_operator_has_begun_anew_is_followed(bench: Bench, elsewhere: Site) -> None:
    """The operator need not be stopped: the Job that it has started is given up, and the champion goes on."""
    site = await promoted(bench)
    elsewhere.bench.deploy(replicas=1)
    (saved,) = site.backup("ModelOptimization")
    elsewhere.restore([saved], status=False)
    operator = elsewhere.operator()
    await elsewhere.step(operator)
    assert elsewhere.status["stage"] == "Baselining"
    path = elsewhere.bench.path("modeloptimizations", "digits")
    elsewhere.bench.patch(f"{path}/status", {"status": saved["status"]})
    await elsewhere.play(operator)
    assert (elsewhere.value, elsewhere.champion) == (site.value, site.champion)
    assert elsewhere.reason("Ready") == ("True", "ChampionServing")


async def test_moved_as_manifests_alone_everything_begins_anew(bench: Bench, elsewhere: Site) -> None:
    """The copied store has the old bundles, and none is taken up: version 1 is measured, and a run searches."""
    site = await promoted(bench)
    elsewhere.deliver(mode="RecommendOnly")
    await elsewhere.play()
    assert (elsewhere.value, elsewhere.champion[0]) == (None, 1)
    assert request_of(elsewhere.job("-b1-")).serves is None
    runs = request_of(site.job("-r1-search")).run, request_of(elsewhere.job("-r1-search")).run
    assert runs[0] != runs[1]


async def test_moved_with_the_targets_value_the_bundle_that_it_names_is_champion(bench: Bench, elsewhere: Site) -> None:
    """As exported from the old cluster; the variable then belongs to whoever applied it, and the condition says so."""
    site = await promoted(bench)
    elsewhere.restore(site.backup("Deployment", "ModelOptimization"), status=False)
    elsewhere.edit(mode="ObserveOnly")
    await elsewhere.play()
    assert (elsewhere.value, elsewhere.champion[1]) == (site.value, site.champion[1])
    assert elsewhere.reason("RolledOut") == ("True", "Readopted")
    assert elsewhere.reason("TargetOwned") == ("True", "FieldSetByOthers")


# --- 4. the operator away ---------------------------------------------------------------------------------------------


async def test_an_operator_that_is_installed_again_goes_on_from_the_status_and_writes_nothing(bench: Bench) -> None:
    """The definitions were kept, and with them the resources: nobody has looked after them for an hour."""
    site = await promoted(bench)
    site.clock.wait(HOUR)
    await site.play()
    assert bench.spy.writes == []


async def test_an_operator_away_in_the_middle_of_a_bake_watches_its_end_when_it_is_back(bench: Bench) -> None:
    """Its time is long over, but nobody has looked: the version is watched for 30 s before it becomes champion."""
    site = Site(bench)
    site.deliver(rollout={"bakeTime": "10m"})
    await site.play()
    site.clock.wait(HOUR)
    operator = site.operator()
    await site.play(operator)
    assert (site.status["stage"], site.champion[0]) == ("Baking", 1)
    site.clock.wait(WATCHED)
    await site.play(operator)
    assert site.champion[0] == 2
    assert site.reason("RolledOut") == ("True", "Promoted")


async def test_an_operator_away_while_new_pods_do_not_start_looks_for_30_seconds_and_takes_them_back(
    bench: Bench,
) -> None:
    """Their deadline is long over, but nobody has looked; until then the value stays as it is."""
    site = Site(bench)
    site.deliver()
    await site.play_until("rollout")
    site.pods_settle = False
    site.clock.wait(HOUR)
    operator = site.operator()
    await site.play(operator)
    assert site.reason("RolledOut") == ("Unknown", "Progressing")
    site.clock.wait(WATCHED)
    await site.play(operator)
    assert (site.value, site.status["stage"]) == (None, "RollingBack")
    site.pods_settle = True
    await site.play(operator)
    assert (site.champion[0], site.reason("RolledOut")) == (1, ("False", "RolledBack"))


@pytest.fixture(scope="module")
def doomed() -> Iterator[ControlPlane]:
    """A control plane of this module's own, whose definitions and database the tests may take away."""
    with control_plane() as found:
        yield found


@pytest.fixture
def frail(doomed: ControlPlane) -> Iterator[Bench]:
    """A bench on it, with the definitions installed."""
    found = Bench(doomed)
    install(found.api, [modeloptimization_crd(), optimizationrun_crd()])
    yield found
    found.close()


async def test_removed_definitions_take_every_resource_along_and_leave_what_serves(frail: Bench) -> None:
    """Installed again, the manifest finds the bundle that serves; history and rejected versions are lost."""
    site = await promoted(frail)
    served, digest = site.value, site.champion[1]
    for kind in ("modeloptimizations", "optimizationruns"):
        frail.api.request("DELETE", f"{CRDS}/{kind}.retune.dev")
    wait_for(lambda: is_absent(frail, "modeloptimizations"), what="the end of the definitions", seconds=30)
    assert site.value == served
    site.lose("Job", "Pod", "Lease")
    install(frail.api, [modeloptimization_crd(), optimizationrun_crd()])
    assert site.backup("ModelOptimization") == []
    site.declare(mode="ObserveOnly")
    await site.play()
    assert (site.value, site.champion[1]) == (served, digest)
    assert site.reason("RolledOut") == ("True", "Readopted")


def is_absent(bench: Bench, plural: str) -> bool:
    """Whether a definition is gone for good."""
    try:
        bench.api.get(f"{CRDS}/{plural}.retune.dev")
    except ApiError as error:
        return error.status == 404
    return False


# --- 5. an older state ------------------------------------------------------------------------------------------------


async def test_a_database_from_before_the_promotion_repeats_it(frail: Bench) -> None:
    """All objects jump back together, with their UIDs: Jobs have the same names, requests and seals again."""
    site = Site(frail)
    site.deliver()
    operator = site.operator()
    while not any("-search" in name for name in site.jobs):
        await site.step(operator)
    request, seals = request_of(site.job("-search")), seals_of(site.job("-search"))
    await _at_rest(frail.plane, lambda folder: shutil.copytree(folder / "etcd", folder / "snapshot"))
    await site.play()
    champion, served, judged = site.champion, site.value, request_of(site.job("-judge"))
    await _at_rest(frail.plane, _bring_snapshot_back)
    assert (site.value, site.champion[0], site.status["stage"]) == (None, 1, "Optimizing")
    await site.play()
    assert (site.champion, site.value) == (champion, served)
    assert (request_of(site.job("-search")), seals_of(site.job("-search"))) == (request, seals)
    assert request_of(site.job("-judge")) == judged, "the same question, which the store has answered already"


def _bring_snapshot_back(folder: Any) -> None:
    shutil.rmtree(folder / "etcd")
    (folder / "snapshot").rename(folder / "etcd")


async def _at_rest(plane: ControlPlane, change: Callable[[Any], object]) -> None:
    """Change the files of a control plane that is stopped, and start it again."""
    plane.stop("kube-apiserver", kill=True)
    plane.stop("etcd")
    change(plane.folder)
    plane.processes["etcd"] = spawn(plane.folder, "etcd", plane.commands["etcd"])
    plane.start("kube-apiserver")


async def test_a_status_from_before_the_promotion_learns_what_serves(bench: Bench) -> None:
    """It says version 1, and the target names a bundle: that is measured, and never told as the delivered model."""
    site = await promoted(bench)
    digest, served = site.champion[1], site.value
    first = site.status
    site.write_status(first | {"champion": first["original"], "nextVersion": 2})
    await site.play()
    assert (site.value, site.champion) == (served, (2, digest))


async def test_a_status_from_before_a_later_promotion_waits_for_a_person(bench: Bench) -> None:
    """It names version 2 and the target version 3: Ready is False until that is the target's value again."""
    site = await promoted(bench)
    old, second = site.status, site.value
    site.edit(manualNonce="again")
    await site.play()
    third = site.value
    assert site.champion[0] == 3
    assert third != second
    site.write_status(old)
    await site.play()
    assert site.value == third
    assert site.reason("Ready") == ("False", "FieldChanged")
    assert second is not None
    assert second in bench.condition("TargetOwned")["message"]
    words = ("set", "env", "deployment/digits-server", f"MODEL_URI={second}", "--namespace", bench.namespace)
    bench.plane.kubectl(*words)
    await site.play()
    assert (site.reason("Ready"), site.champion[0]) == (("True", "ChampionServing"), 2)


async def test_jobs_that_a_restored_status_does_not_know_yet_are_found_and_not_made_twice(bench: Bench) -> None:
    """A status of when the search began: search and judge have ended, and their results count."""
    site = Site(bench)
    site.deliver(mode="RecommendOnly")
    operator = site.operator()
    while not any("-search" in name for name in site.jobs):
        await site.step(operator)
    old = site.status
    await site.play()
    assert site.status["lastRun"]["outcome"] == "Recommended"
    made = {job["metadata"]["uid"] for job in bench.jobs}
    site.write_status(old)
    await site.play()
    assert site.status["lastRun"]["outcome"] == "Recommended"
    assert {job["metadata"]["uid"] for job in bench.jobs} == made
