"""Fault 32 on a real API server: another release was here, or will be, in the middle of everything.

The other release is played (`tests.cluster.releases`). The definitions are those of the newer one, as after a downgrade
of the operator alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.cluster.client import Request
from retune.contract.results import JobResult
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.cluster.releases import (
    FIELD,
    WORD,
    newer_result,
    newer_was_here,
    noted,
    objects,
    of_newer_release,
    older_result,
    older_was_here,
)
from tests.cluster.site import BATCH, Site, promoted
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane, control_plane
from tools.localcluster.shell import wait_for

Json = dict[str, Any]
_MOST_PASSES = 40


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with the definitions of the newer release."""
    with control_plane() as found:
        install(
            Api(found.kubeconfig), [of_newer_release(crd()) for crd in (modeloptimization_crd, optimizationrun_crd)]
        )
        yield found


async def taken_turns(site: Site, other: Callable[[Site], None]) -> None:
    """Play to the end, with a new operator for every pass and another release in between; no Job is made twice."""
    seen: dict[str, set[str]] = {}
    for _ in range(_MOST_PASSES):
        changed = await site.step(site.operator())
        for job in site.bench.jobs:
            seen.setdefault(job["metadata"]["name"], set()).add(job["metadata"]["uid"])
        if not changed:
            break
        other(site)
    else:
        raise AssertionError("the two releases do not come to rest")
    assert [len(uids) for uids in seen.values()] == [1] * len(seen)


@pytest.mark.parametrize(
    ("other", "written"), [(newer_was_here, newer_result), (older_was_here, older_result)], ids=["newer", "older"]
)
async def test_two_releases_that_take_turns_reach_the_same_end(
    bench: Bench, other: Callable[[Site], None], written: Callable[[JobResult], bytes]
) -> None:
    """Fault 32: whichever of them a pass belongs to, with results of the other one's images: two promotions."""
    site = Site(bench, written=written)
    site.deliver()
    await taken_turns(site, other)
    assert (site.champion[0], site.status["lastRun"]["outcome"]) == (2, "Promoted")
    site.edit(manualNonce="again")
    await taken_turns(site, other)
    assert (site.champion[0], site.status["lastRun"]["outcome"]) == (3, "Promoted")
    assert site.reason("Ready") == ("True", "ChampionServing")
    assert {run["status"]["outcome"] for run in site.backup("OptimizationRun")} == {"Promoted"}


async def test_what_a_newer_release_has_noted_stays_with_what_it_is_of(bench: Bench) -> None:
    """Fault 32: this release promotes two versions meanwhile; no note is lost with its version or goes to another."""
    site = await promoted(bench)
    site.write_status(noted(site.status))
    site.edit(manualNonce="again")
    await site.play()
    assert site.champion[0] == 3
    notes = {
        entry["digest"]: entry[FIELD]["of"] for entry in objects(site.status) if FIELD in entry and "digest" in entry
    }
    assert notes == {digest: digest for digest in notes}
    assert set(notes) == {site.status["original"]["digest"], site.status["versions"][0]["digest"]}
    assert site.status[FIELD] == {"of": "None"}


async def test_an_outcome_that_is_unknown_is_named_and_nothing_is_done_until_its_release_is_back(bench: Bench) -> None:
    """Fault 32: the condition names the field; the newer release finds everything as it was, and goes on."""
    site = await promoted(bench)
    before, jobs = site.status, site.jobs
    site.write_status(before | {"lastRun": before["lastRun"] | {"outcome": WORD}})
    site.edit(manualNonce="again")
    await site.play()
    assert site.reason("Ready") == ("False", "Unreadable")
    assert "status.lastRun.outcome" in bench.condition("Ready")["message"]
    assert (site.jobs, site.value) == (jobs, before["champion"]["injectedValue"])
    assert all(site.status[name] == before[name] for name in ("champion", "original", "nextRun"))
    site.write_status(site.status | {"lastRun": before["lastRun"]})
    await site.play()
    assert site.champion[0] == 3


async def test_a_stage_and_a_job_that_are_unknown_are_left_alone_until_their_release_is_back(bench: Bench) -> None:
    """Fault 32: the run waits, the condition says in which stage, and the newer release's own Job is not stopped."""
    site = Site(bench)
    site.deliver()
    await site.play_until("run")
    run = site.status["run"]
    job = _job_of_newer_release(site)
    site.write_status(site.status | {"run": run | {"stage": WORD}})
    await site.play()
    assert site.reason("Optimizing") == ("True", "StageUnknown")
    assert WORD in bench.condition("Optimizing")["message"]
    assert site.reason("Stalled") == ("True", "StageUnknown")
    assert job in site.jobs
    site.write_status(site.status | {"run": run})
    await site.play()
    assert (site.champion[0], site.status["lastRun"]["name"]) == (2, run["name"])
    assert job in site.jobs


def _job_of_newer_release(site: Site) -> str:
    """Make a Job of the resource that does what this release does not know; returns its name."""
    (known,) = site.bench.jobs[:1]
    meta = known["metadata"]
    labels = meta["labels"] | {"retune.dev/command": "explain"}
    head = {"name": "digits-r1-explain", "labels": labels, "ownerReferences": meta["ownerReferences"]}
    pod = {"restartPolicy": "Never", "containers": [{"name": "optimizer", "image": "optimizer:next"}]}
    spec = {"suspend": True, "template": {"spec": pod}}
    name: str = site.bench.create("jobs", {"metadata": head, "spec": spec}, api=BATCH)["metadata"]["name"]
    return name


async def test_a_step_that_is_unknown_is_taken_up_where_the_target_stands(bench: Bench) -> None:
    """Fault 32: a newer release has begun the rollout; what the target shows decides which step comes next."""
    site = Site(bench)
    site.deliver()
    await site.play_until("rollout")
    site.write_status(site.status | {"rollout": site.status["rollout"] | {"step": WORD}})
    await site.play()
    assert (site.champion[0], site.status["lastRun"]["outcome"]) == (2, "Promoted")


async def test_a_verdict_that_is_unknown_ends_the_run_in_words_and_changes_nothing(bench: Bench) -> None:
    """Fault 32: a newer image has judged; its word is no verdict, and the condition says which it is."""

    def written(result: JobResult) -> bytes:
        return newer_result(result).replace(b'"Promote"', f'"{WORD}"'.encode())

    site = Site(bench, written=written)
    site.deliver()
    await site.play()
    assert (site.champion[0], site.value) == (1, None)
    assert site.reason("Optimizing") == ("False", "ResultInvalid")
    assert "verdict" in bench.condition("Optimizing")["message"]
    assert "one release" in bench.condition("Optimizing")["message"]
    site.written = newer_result
    site.edit(manualNonce="again")
    await site.play()
    assert site.champion[0] == 2


async def test_a_record_of_a_run_that_cannot_be_read_is_named_and_made_anew_once_it_is_deleted(bench: Bench) -> None:
    """Fault 32: a newer release has other defaults, which the spec leaves out and its snapshot names."""
    site = Site(bench)
    site.deliver()
    await site.play_until("run")
    _rewrite_record(site)
    await site.play(site.operator())
    assert site.reason("Optimizing") == ("True", "Unreadable")
    assert "snapshot.search.sampler" in bench.condition("Optimizing")["message"]
    assert site.reason("Stalled") == ("True", "Unreadable")
    site.lose("OptimizationRun")
    await site.play()
    assert site.champion[0] == 2


def _rewrite_record(site: Site) -> None:
    """Have the record of the run be one that a newer release wrote; its spec cannot be changed, so it is made anew."""
    (run,) = site.backup("OptimizationRun")
    site.lose("OptimizationRun")
    head = {name: run["metadata"][name] for name in ("name", "labels", "ownerReferences")}
    snapshot = run["spec"]["snapshot"]
    spec = run["spec"] | {"snapshot": snapshot | {"search": snapshot["search"] | {"sampler": WORD}}}
    kinds = {"apiVersion": run["apiVersion"], "kind": run["kind"]}
    site.bench.api.request("POST", site.bench.path("optimizationruns"), kinds | {"metadata": head, "spec": spec})


async def test_a_spec_that_cannot_be_read_in_the_middle_of_a_pass_is_named(bench: Bench) -> None:
    """Fault 32: the word comes between reading and writing; the pass ends in a sentence and not in an error."""
    site = await promoted(bench)
    operator = site.operator()
    await operator.resync.once()
    site.edit(manualNonce="again")
    await operator.resync.once()

    def edit(_: int, request: Request) -> None:
        if request.method == "PATCH":
            site.edit(rollout={"strategy": WORD})

    bench.spy.before = edit
    await operator.reconciler.run(site.key)
    bench.spy.before = None
    await site.play(operator)
    assert site.reason("Ready") == ("False", "Unreadable")
    assert "spec.rollout.strategy" in bench.condition("Ready")["message"]


async def test_definitions_that_go_back_too_take_the_unknown_fields_and_nothing_else(bench: Bench) -> None:
    """Fault 32: the whole release is taken back in the middle of a search, and the run comes to its promotion."""
    site = Site(bench)
    site.deliver()
    await site.play_until("run")
    site.write_status(noted(site.status))
    with _older_definitions(site):
        await site.play()
    assert (site.champion[0], site.status["lastRun"]["outcome"]) == (2, "Promoted")


@contextmanager
def _older_definitions(site: Site) -> Iterator[None]:
    """Have the API server know this release's definitions alone for the duration of a block."""
    definitions = [modeloptimization_crd(), optimizationrun_crd()]
    install(site.bench.api, definitions)
    wait_for(lambda: FIELD not in site.status, seconds=30, what="serving the older definitions")
    yield
    install(site.bench.api, [of_newer_release(crd) for crd in definitions])
    wait_for(lambda: _keeps_fields(site), seconds=30, what="serving the newer definitions")


def _keeps_fields(site: Site) -> bool:
    site.write_status(noted(site.status))
    return FIELD in site.status
