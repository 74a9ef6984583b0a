"""The example's check host is as closed as a Job, and what checks ask is what it answers on."""

from pathlib import Path
from typing import Any

import yaml

from optimizer_jobs.warm import messages
from retune.contract.paths import CHECK_HOST_PORT, CLAIM_ROOT
from retune.workloads.labels import labels
from retune.workloads.security import CONTAINER_SECURITY
from tests import samples
from tests.unit.operator.test_workloads import Settings, container, job, pod

Json = dict[str, Any]
MANIFEST = Path(__file__).parents[3] / "examples" / "check_host" / "check-host.yaml"
DEPLOYMENT, SERVICE, POLICY = yaml.safe_load_all(MANIFEST.read_text())
POD: Json = DEPLOYMENT["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


def test_the_host_is_as_closed_as_a_job() -> None:
    """It has no API token, the security contexts of a check's Job, and limits."""
    check = pod(job("check"))
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert POD["spec"]["securityContext"].items() >= check["securityContext"].items()
    assert CONTAINER["securityContext"] == CONTAINER_SECURITY
    assert {"cpu", "memory"} <= CONTAINER["resources"]["limits"].keys()
    assert CONTAINER["image"] == Settings().monitor_image.replace("dev", "0.1.0")


def test_a_check_reaches_it_and_nothing_else_does() -> None:
    """The Job asks the Service by its name and port; the policy lets in exactly what has a check's labels."""
    check = job("check", monitoring={"checkHost": SERVICE["metadata"]["name"]})
    assert f"{SERVICE['metadata']['name']}.{SERVICE['metadata']['namespace']}.svc" in container(check)["command"]
    assert SERVICE["spec"]["selector"].items() <= POD["metadata"]["labels"].items()
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == SERVICE["spec"]["ports"][0]["port"] == CHECK_HOST_PORT
    (ingress,) = POLICY["spec"]["ingress"]
    assert ingress["ports"] == [{"port": CHECK_HOST_PORT, "protocol": "TCP"}]
    (peer,) = ingress["from"]
    assert set(peer) == {"podSelector"}
    given = peer["podSelector"]["matchLabels"].items()
    assert given <= labels(samples.resource(), command="check").items()
    assert not given <= labels(samples.resource(), command="search").items()
    assert POLICY["spec"]["podSelector"]["matchLabels"].items() <= POD["metadata"]["labels"].items()
    assert set(POLICY["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_it_sees_claims_where_jobs_see_them_and_has_their_threads() -> None:
    """Each claim lies under its own name, and what a result may depend on is as in the Job."""
    claims = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in POD["spec"]["volumes"][1:]}
    mounts = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    assert claims
    assert all(mounts[name] == f"{CLAIM_ROOT}/{claim}" for name, claim in claims.items())
    ours = {each["name"]: each.get("value", "") for each in CONTAINER["env"]}
    theirs = {each["name"]: each.get("value", "") for each in container(job("check"))["env"]}
    assert {name: ours.get(name, "") for name in messages.ALWAYS_ALIKE} == {
        name: theirs.get(name, "") for name in messages.ALWAYS_ALIKE
    }
