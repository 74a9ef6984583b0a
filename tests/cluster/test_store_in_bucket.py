"""A whole pass with the store in a bucket, on a real API server: what the Jobs are, and what the target is given."""

from typing import Any

import pytest

from retune.contract.credentials import CREDENTIAL_KEYS
from tests.cluster.harness import Bench
from tests.cluster.site import Site, request_of

pytestmark = pytest.mark.slow
Json = dict[str, Any]
DEFAULT: Json = {"artifact_store": "s3://artifacts/retune", "artifact_store_credentials": "retune-store"}


async def played(bench: Bench, **spec: Any) -> Site:
    """A site that came to rest under an operator whose default store is in a bucket."""
    site = Site(bench)
    site.deliver(**spec)
    await site.play(site.clock.drive(bench.operator(**DEFAULT)))
    return site


def secrets_of(job: Json) -> set[tuple[str, str]]:
    """Names and keys of the Secrets that reach a Job."""
    sources = [each.get("valueFrom", {}) for each in job["spec"]["template"]["spec"]["containers"][0]["env"]]
    return {(each["secretKeyRef"]["name"], each["secretKeyRef"]["key"]) for each in sources if "secretKeyRef" in each}


async def test_a_version_is_made_and_served_from_a_bucket(bench: Bench) -> None:
    """Every Job works without the store's volume, by the administrator's Secret; the target names the bucket."""
    site = await played(bench)
    folder = f"s3://artifacts/retune/{bench.namespace}/digits"
    assert site.reason("RolledOut") == ("True", "Promoted")
    assert site.value == f"{folder}/bundles/{site.champion[1].removeprefix('sha256:')}"
    assert {job["metadata"]["labels"]["retune.dev/command"] for job in bench.jobs} >= {"baseline", "search", "judge"}
    for job in bench.jobs:
        template, request = job["spec"]["template"], request_of(job)
        claims = [volume for volume in template["spec"]["volumes"] if "persistentVolumeClaim" in volume]
        assert all(volume["persistentVolumeClaim"]["readOnly"] for volume in claims)
        assert "initContainers" not in template["spec"]
        assert template["metadata"]["labels"]["retune.dev/remote"] == "true"
        assert secrets_of(job) == {("retune-store", key) for key in CREDENTIAL_KEYS["s3"]}
        assert getattr(request, "store", folder) == folder
    assert site.status["lastRun"]["name"] == "digits-r1"


async def test_another_folder_of_the_shared_bucket_is_refused_before_any_job(bench: Bench) -> None:
    """The sentence is in the condition, and nothing is started."""
    site = await played(bench, execution={"artifactStore": "s3://artifacts/retune/another"})
    assert (site.reason("Ready"), site.jobs) == (("False", "StoreNotAllowed"), set())
    assert "name another bucket" in bench.condition("Ready")["message"]


async def test_a_resource_that_moves_reads_what_it_has_from_the_old_store(bench: Bench) -> None:
    """From a bucket to a claim: the next run compares with the champion where it lies, and writes to the new store."""
    site = await played(bench, execution={"artifactStore": "gs://mine", "credentials": {"secretName": "own"}})
    before = f"gs://mine/{bench.namespace}/digits/bundles/"
    assert site.value is not None
    assert site.value.startswith(before)
    assert {name for name, _ in set().union(*map(secrets_of, bench.jobs))} == {"own"}
    site.edit(execution={"artifactStore": "pvc://mine"}, manualNonce="again")
    await site.play(site.clock.drive(bench.operator(**DEFAULT)))
    search = site.job("-r2-search")
    assert request_of(search).champion.uri.startswith(before)
    assert secrets_of(search) == {("own", key) for key in CREDENTIAL_KEYS["gs"]}
    assert request_of(search).store == "pvc://mine/digits"
    assert "initContainers" in search["spec"]["template"]["spec"]
