"""Manifests of what the operator creates: closed, restricted, and the same for the same action."""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.execution import Credentials
from retune.api.metrics import Metric
from retune.api.model import Dataset
from retune.api.monitoring import Quality
from retune.api.objects import OptimizationRunSpec
from retune.api.own_code import CustomMetric, MetricContainer
from retune.api.production import Labels, Production
from retune.api.quantities import cores, memory_bytes
from retune.api.resources import Resources
from retune.contract.credentials import CREDENTIAL_KEYS, REGISTRY_KEYS
from retune.contract.paths import REQUEST_FILE
from retune.contract.requests import (
    BaselineRequest,
    GatherRequest,
    JobRequest,
    JudgeRequest,
    SearchRequest,
    Shadow,
    parse_request,
)
from retune.job_profiles import Profile
from retune.job_template import PodTemplate, Storage, parse_template
from retune.plan.actions import AcquireLease, CreateJob, CreateRun
from retune.plan.observed import Target
from retune.workloads import job_manifest, lease_manifest, run_manifest, too_long
from retune.workloads.beside import beside
from retune.workloads.labels import label_value
from retune.workloads.resources import container_resources, node_storage
from retune.workloads.seals import seals
from retune.workloads.volumes import claims_of, remote_schemes
from tests import samples
from tests.jobs_given import EVERYTHING

Json = dict[str, Any]


NOTHING_MORE = PodTemplate()


@dataclass(frozen=True)
class Settings:
    """What Jobs need of the operator's settings."""

    optimizer_image: str = "retune/optimizer:dev"
    monitor_image: str = "retune/monitor:dev"
    image_pull_policy: str = "IfNotPresent"
    private_addresses: str = "Refuse"
    artifact_store: str = "pvc://artifacts"
    artifact_store_credentials: str = ""
    store_quota: str = ""
    records_key: str | None = None
    pod_template: PodTemplate = NOTHING_MORE
    profiles: Mapping[str, Profile] = field(default_factory=dict)


ROOT = Path(__file__).parents[3]
REQUESTS: dict[str, JobRequest] = {
    "baseline": samples.baseline_request(),
    "search": samples.search_request(),
    "judge": samples.judge_request(),
    "verify": samples.verify_request(),
    "gather": samples.gather_request(),
    "check": samples.check_request(),
    "register": samples.register_request(),
}
every_command = pytest.mark.parametrize("command", sorted(REQUESTS))


def job(
    command: str, *, cpu_limit: float | None = 2.0, workers: int = 1, target: Target | None = None, **spec: Any
) -> Json:
    """The Job of one command."""
    action = CreateJob(f"digits-{command}", REQUESTS[command], cpu_limit=cpu_limit, workers=workers)
    return job_manifest(action, resource=samples.resource(**spec), target=target, settings=Settings())


def pod(manifest: Json) -> Json:
    """The pod's spec."""
    spec: Json = manifest["spec"]["template"]["spec"]
    return spec


def container(manifest: Json) -> Json:
    """The one container."""
    container: Json
    (container,) = pod(manifest)["containers"]
    return container


def environment(manifest: Json) -> dict[str, str]:
    """The container's literal environment variables."""
    return {variable["name"]: variable["value"] for variable in container(manifest)["env"] if "value" in variable}


def serving(**fields: Any) -> Target:
    """A target with these fields."""
    common: Json = {
        "name": "t",
        "uid": "u",
        "containers": (),
        "settled": True,
        "available": 1,
        "wanted": 1,
        "progress": "",
    }
    return Target(**(common | fields))


@every_command
def test_the_request_travels_with_the_pod_and_reads_back_as_it_was(command: str) -> None:
    """The annotation holds exactly what the planner asked, and is projected to the file that the Job reads."""
    manifest = job(command)
    carried = manifest["spec"]["template"]["metadata"]["annotations"]["retune.dev/request"]
    assert parse_request(carried) == REQUESTS[command]
    source = next(volume for volume in pod(manifest)["volumes"] if volume["name"] == "request")
    assert source["downwardAPI"]["items"] == [
        {"path": "request.json", "fieldRef": {"fieldPath": "metadata.annotations['retune.dev/request']"}}
    ]
    mount = next(mount for mount in container(manifest)["volumeMounts"] if mount["name"] == "request")
    assert f"{mount['mountPath']}/request.json" == container(manifest)["command"][-1]


@every_command
def test_pods_are_restricted_and_carry_no_token(command: str) -> None:
    """Every rule of Pod Security `restricted` is met in the manifest itself, and nothing can call the API."""
    manifest = job(command)
    spec = pod(manifest)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(manifest)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert {next(key for key in volume if key != "name") for volume in spec["volumes"]} <= {
        "downwardAPI",
        "emptyDir",
        "persistentVolumeClaim",
    }


@every_command
def test_only_the_store_can_be_written(command: str) -> None:
    """Claims of models and data are read-only in mount and volume; a check removes captured requests that are too old.

    A verify Job and one that registers write nowhere.
    """
    manifest = job(command)
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]
        for volume in pod(manifest)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    writable = {
        claims[mount["name"]]["claimName"]
        for mount in container(manifest)["volumeMounts"]
        if mount["name"] in claims and not mount["readOnly"]
    }
    others = {"verify": set(), "register": set(), "check": {"artifacts", "production"}}
    assert writable == others.get(command, {"artifacts"})
    assert {claim["claimName"] for claim in claims.values() if not claim["readOnly"]} == writable


def test_a_training_container_sees_nothing_but_its_folder() -> None:
    """It stands beside the search as a sidecar that is as closed, without store, data, credentials or request."""
    container_spec = {
        "image": "registry.example/train:1",
        "command": ["train"],
        "resources": {"requests": {"cpu": "3"}},
    }
    technique = {"name": "mine", "type": "CustomTraining", "container": container_spec}
    fields = samples.search_request().to_dict() | {"techniques": [technique]}
    search = SearchRequest.model_validate(fields)
    judge = JudgeRequest.model_validate(fields | {"command": "judge", "trigger": "Manual"})
    resource = samples.resource(execution={"credentials": {"secretName": "s3"}})

    def pod_of(request: SearchRequest) -> Json:
        action = CreateJob("digits", request, cpu_limit=2.0)
        return pod(job_manifest(action, resource=resource, target=None, settings=Settings()))

    assert [before["name"] for before in pod_of(judge)["initContainers"]] == ["store"]
    (_, sidecar), (worker,) = pod_of(search)["initContainers"], pod_of(search)["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["securityContext"] == worker["securityContext"]
    assert {mount["mountPath"] for mount in sidecar["volumeMounts"]} == {"/retune", "/tmp"}
    assert not any("secretKeyRef" in variable.get("valueFrom", {}) for variable in sidecar["env"])
    assert "envFrom" not in sidecar
    assert sidecar["resources"] == {
        "requests": {"cpu": "3", "memory": "1Gi"},
        "limits": {"cpu": "3", "memory": "4Gi"},
    }
    assert {"name": "RETUNE_EXCHANGE", "value": "/retune"} in worker["env"]
    assert {"name": "exchange", "mountPath": "/retune"} in worker["volumeMounts"]
    assert {"scratch", "training-scratch"} <= {volume["name"] for volume in pod_of(search)["volumes"]}


METRIC = {"container": {"image": "registry.example/iou:1", "command": ["iou"]}}
BY_CODE = [{"metric": "custom", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.01"}}]


def measuring(command: str, **more: Any) -> Json:
    """The pod of a Job whose request names a container that measures."""
    request = getattr(samples, f"{command}_request")()
    fields = request.to_dict() | {"command": command, "customMetric": METRIC, "objectives": BY_CODE} | more
    if command == "baseline":
        fields = request.to_dict() | {"model": request.model.to_dict() | {"customMetric": METRIC}}
    return pod(made(type(request).model_validate(fields)))


@every_command
def test_only_checks_ask_a_check_host_and_are_the_same_jobs_otherwise(command: str) -> None:
    """Where the spec names a host, a check's container asks it; nothing else of any Job changes."""
    plain, hosted = job(command), job(command, monitoring={"checkHost": "checks"})
    asking = ["python", "-m", "optimizer_jobs.warm.ask", "--host", "checks.ml.svc", "--request", REQUEST_FILE]
    usual = ["python", "-m", "optimizer_jobs", "--request", REQUEST_FILE]
    assert container(plain)["command"] == usual
    assert container(hosted)["command"] == (asking if command == "check" else usual)
    container(hosted)["command"] = usual
    assert hosted == plain


def test_what_is_measured_beside_a_check_is_no_work_of_a_host() -> None:
    """A container of the owner's shares a folder with the Job, which no host sees."""
    metric = CustomMetric(container=MetricContainer(image="own/metric:1", command=("measure",)))
    request = samples.check_request().model_copy(update={"custom_metric": metric})
    action = CreateJob("digits-w1", request, cpu_limit=None)
    resource = samples.resource(monitoring={"checkHost": "checks"})
    manifest = job_manifest(action, resource=resource, target=None, settings=Settings())
    assert container(manifest)["command"][2] == ("optimizer_jobs" if beside(request) else "optimizer_jobs.warm.ask")
    quality = Quality(metric=Metric.CUSTOM)
    asked = request.model_copy(update={"quality": quality})
    assert beside(asked)
    action = CreateJob("digits-w1", asked, cpu_limit=None)
    manifest = job_manifest(action, resource=resource, target=None, settings=Settings())
    assert container(manifest)["command"][2] == "optimizer_jobs"


@pytest.mark.parametrize("command", ["baseline", "search", "judge", "check"])
def test_a_container_that_measures_stands_beside_every_job_that_asks_it(command: str) -> None:
    """It is as closed as the Job, sees its folder alone, and the Job is told where that is."""
    (*_, sidecar), (worker,) = measuring(command)["initContainers"], measuring(command)["containers"]
    assert (sidecar["name"], sidecar["image"], sidecar["restartPolicy"]) == (
        "metric",
        "registry.example/iou:1",
        "Always",
    )
    assert sidecar["securityContext"] == worker["securityContext"]
    assert {mount["mountPath"] for mount in sidecar["volumeMounts"]} == {"/retune-metric", "/tmp"}
    assert not any("secretKeyRef" in variable.get("valueFrom", {}) for variable in sidecar["env"])
    assert {"name": "RETUNE_METRIC_EXCHANGE", "value": "/retune-metric"} in worker["env"]
    assert {"name": "metric-exchange", "mountPath": "/retune-metric"} in worker["volumeMounts"]
    assert {"metric-exchange", "metric-scratch"} <= {volume["name"] for volume in measuring(command)["volumes"]}
    assert not measuring(command).get("automountServiceAccountToken")


def test_a_job_that_does_not_ask_a_metric_has_no_container_for_it() -> None:
    """Where no objective names it, or the window is judged by another one."""
    quality = {"quality": {"metric": "accuracy"}}
    for unasked in (
        measuring("search", objectives=[]),
        measuring("judge", objectives=[]),
        measuring("check", **quality),
    ):
        assert "metric" not in {container["name"] for container in unasked["initContainers"]}
    asked = measuring("check", objectives=[], quality={"metric": "custom_loss"})
    assert "metric" in {container["name"] for container in asked["initContainers"]}


def test_training_and_measuring_stand_side_by_side() -> None:
    """Each with a folder of its own: neither sees what the other gets."""
    technique = {"name": "mine", "type": "CustomTraining", "container": {"image": "train:1", "command": ["train"]}}
    both = measuring("search", techniques=[technique])["initContainers"][-2:]
    shared = [{mount["name"] for mount in container["volumeMounts"]} for container in both]
    assert [container["name"] for container in both] == ["training", "metric"]
    assert not shared[0] & shared[1]


def mounts(manifest: Json) -> dict[str, tuple[bool, str | None]]:
    """Whether each mount of a claim can be written to, and which folder of the claim it is, by its path."""
    return {
        mount["mountPath"]: (not mount["readOnly"], mount.get("subPath"))
        for mount in container(manifest)["volumeMounts"]
        if mount["name"].startswith("claim-")
    }


def made(request: JobRequest) -> Json:
    """The Job of a request."""
    action = CreateJob("digits-job", request, cpu_limit=2.0)
    return job_manifest(action, resource=samples.resource(), target=None, settings=Settings())


def test_a_claim_is_mounted_where_the_contract_says() -> None:
    """Several files of one claim share a mount at /mnt/pvc/CLAIM; of the store, there is only the resource's folder."""
    assert mounts(job("baseline")) == {
        "/mnt/pvc/artifacts/digits": (True, "digits"),
        "/mnt/pvc/data": (False, None),
        "/mnt/pvc/models": (False, None),
    }


def test_of_a_claim_with_store_and_data_only_the_own_folder_can_be_written() -> None:
    """The whole claim is read-only, and the folder lies over it, so that every URI leads where it led before."""
    request = samples.baseline_request().model_copy(update={"store": "pvc://data/team/digits"})
    paths = mounts(made(request))
    assert paths == {
        "/mnt/pvc/data": (False, None),
        "/mnt/pvc/data/team/digits": (True, "team/digits"),
        "/mnt/pvc/models": (False, None),
    }
    assert list(paths) == sorted(paths)  # a mount comes after the one that it lies over


def test_what_lies_in_the_own_folder_needs_no_more_of_the_claim() -> None:
    """A model and data kept beside the artifacts are read through the same mount."""
    fields = samples.baseline_request().to_dict()
    text = json.dumps(fields).replace("pvc://models/digits", samples.STORE).replace("pvc://data/digits", samples.STORE)
    assert mounts(made(BaselineRequest.model_validate_json(text))) == {"/mnt/pvc/artifacts/digits": (True, "digits")}


def test_of_captured_requests_a_check_can_remove_what_lies_in_their_folder() -> None:
    """Not what else lies on that claim; where they are kept for ever, it can remove nothing."""
    assert mounts(job("check"))["/mnt/pvc/production/digits"] == (True, "digits")
    assert "/mnt/pvc/production" not in mounts(job("check"))
    request = samples.check_request()
    production = request.production and request.production.model_copy(update={"retention": None})
    assert mounts(made(request.model_copy(update={"production": production})))["/mnt/pvc/production"] == (False, None)


@pytest.mark.parametrize("uri", ["pvc://artifacts/victim", "pvc://artifacts", "pvc://artifacts/digits-2/captured"])
def test_captured_requests_are_no_way_into_the_folder_of_another(uri: str) -> None:
    """Whatever a spec says of retention, of the store's claim a Job can write to its own folder only."""
    request = samples.check_request()
    production = request.production and request.production.model_copy(update={"uri": uri})
    writable = {
        path
        for path, (can_write, _) in mounts(made(request.model_copy(update={"production": production}))).items()
        if can_write
    }
    assert writable == {"/mnt/pvc/artifacts/digits"}


paths = st.lists(st.sampled_from(["digits", "digits-2", "a", "captured"]), min_size=1, max_size=3).map("/".join)
uris = st.builds(lambda claim, path: f"pvc://{claim}/{path}", st.sampled_from(["artifacts", "other"]), paths)


@given(model=uris, captured=uris, labels=uris, retention=st.sampled_from([None, "1h"]))
def test_no_uri_of_a_spec_opens_the_folder_of_another(
    model: str, captured: str, labels: str, retention: str | None
) -> None:
    """Of the store's claim nothing but the own folder is writable, and everything that is named can be read."""
    production = Production(uri=captured, labels=Labels(uri=labels), retention=retention)
    check = samples.check_request().model_copy(update={"production": production})
    baseline = samples.baseline_request()
    baseline = baseline.model_copy(update={"model": baseline.model.model_copy(update={"uri": model})})
    for request, named in ((check, (captured, labels)), (baseline, (model,))):
        seen = {claim.name: claim for claim in claims_of(request)}
        assert seen["artifacts"].folders == ("digits",)
        for uri in named:
            name, _, path = uri.removeprefix("pvc://").partition("/")
            inside = any(f"{path}/".startswith(f"{folder}/") for folder in seen[name].folders)
            assert seen[name].read or inside


@every_command
def test_folders_are_made_by_an_image_of_the_administrators(command: str) -> None:
    """What makes the folder sees the whole claim, so that it is never an image that a spec names."""
    manifest = job(command, execution={"image": "evil/x:1"})
    preparing = [before for before in pod(manifest).get("initContainers", []) if before["name"] == "store"]
    if command in {"verify", "register"}:
        assert preparing == []
        return
    (store,) = preparing
    assert store["image"] == ("retune/monitor:dev" if command == "check" else "retune/optimizer:dev")
    assert store["securityContext"] == container(manifest)["securityContext"]
    assert "/mnt/pvc/artifacts/digits" in store["command"]
    assert "env" not in store


@pytest.mark.parametrize("command", sorted(set(REQUESTS) - {"verify", "register"}))
def test_a_limit_range_that_lets_a_job_in_lets_its_preparation_in(command: str) -> None:
    """Smallest and largest amounts, and ratios, count for each container, also for what comes before the work."""
    resources = {"requests": {"cpu": "300m", "memory": "700Mi"}, "limits": {"cpu": "600m", "memory": "900Mi"}}
    manifest = job(command, execution={"resources": resources})
    (store,) = [before for before in pod(manifest)["initContainers"] if before["name"] == "store"]
    assert store["resources"] == container(manifest)["resources"]


@pytest.mark.parametrize("command", ["baseline", "judge"])
def test_what_measures_runs_under_the_serving_limit(command: str) -> None:
    """Whatever the spec says about Jobs, the judge's CPU limit is that of the serving container."""
    manifest = job(command, cpu_limit=0.5, execution={"resources": {"limits": {"cpu": "4"}, "requests": {"cpu": "3"}}})
    assert container(manifest)["resources"]["limits"]["cpu"] == "500m"
    assert container(manifest)["resources"]["requests"]["cpu"] == "500m"


def test_search_follows_the_serving_limit_unless_told_otherwise() -> None:
    """A search compares latencies too; only an explicit limit changes where it stands."""
    assert container(job("search", cpu_limit=2.0))["resources"]["limits"]["cpu"] == "2"
    limited = job("search", cpu_limit=2.0, execution={"resources": {"limits": {"cpu": "3"}}})
    assert container(limited)["resources"]["limits"]["cpu"] == "3"


def reading(uri: str, command: str = "baseline", **spec: Any) -> Json:
    """The Job of a command whose validation data lies at this URI."""
    request = REQUESTS[command]
    assert isinstance(request, BaselineRequest | SearchRequest)
    data = request.data.model_copy(update={"validation": Dataset(uri=uri)})
    action = CreateJob("digits-job", request.model_copy(update={"data": data}), cpu_limit=2.0)
    return job_manifest(action, resource=samples.resource(**spec), target=None, settings=Settings())


CREDENTIALS: Json = {"execution": {"credentials": {"secretName": "bucket"}}}


def secret_keys(manifest: Json) -> dict[str, Json]:
    """Keys of Secrets that reach the Job's container, by variable."""
    return {
        each["name"]: each["valueFrom"]["secretKeyRef"] for each in container(manifest)["env"] if "valueFrom" in each
    }


@pytest.mark.parametrize("command", ["baseline", "search", "judge"])
@pytest.mark.parametrize("uri", ["s3://data/v.npz", "gs://data/v.npz", "https://data.example.org/v.npz"])
def test_credentials_reach_the_jobs_that_read_from_servers(command: str, uri: str) -> None:
    """The documented keys of that kind of server, each by its name, and whatever else is in the Secret stays there."""
    manifest = reading(uri, command, **CREDENTIALS)
    keys = CREDENTIAL_KEYS[uri.partition("://")[0]]
    assert secret_keys(manifest) == {key: {"name": "bucket", "key": key, "optional": True} for key in keys}
    assert "envFrom" not in container(manifest)
    assert environment(manifest)["RETUNE_CREDENTIALS_SECRET"] == "bucket"
    assert {volume["name"] for volume in pod(manifest)["volumes"]} <= {
        volume["name"] for volume in pod(job(command))["volumes"]
    }


def test_a_job_that_reads_a_registry_gets_the_keys_of_its_buckets_too() -> None:
    """The server says where the files lie; a token for https:// hosts is none of its business."""
    request = REQUESTS["baseline"]
    assert isinstance(request, BaselineRequest)
    model = request.model.model_copy(update={"uri": "mlflow://digits@champion"})
    action = CreateJob("digits-job", request.model_copy(update={"model": model}), cpu_limit=2.0)
    found = job_manifest(action, resource=samples.resource(**CREDENTIALS), target=None, settings=Settings())
    others = {*CREDENTIAL_KEYS["s3"], *CREDENTIAL_KEYS["gs"]}
    assert secret_keys(found).keys() - others == {
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
    }
    assert others <= secret_keys(found).keys()


def test_a_registry_may_have_a_secret_of_its_own() -> None:
    """Its keys come from there, and those of other servers stay those of the resource."""
    request = samples.register_request()
    own = Credentials(secret_name="registry")
    asked = request.model_copy(update={"registry": request.registry.model_copy(update={"credentials": own})})
    for spec, others in (({}, set()), (CREDENTIALS, {*CREDENTIAL_KEYS["s3"], *CREDENTIAL_KEYS["gs"]})):
        action = CreateJob("digits-reg1", asked, cpu_limit=None)
        found = job_manifest(action, resource=samples.resource(**spec), target=None, settings=Settings())
        names = {variable: key["name"] for variable, key in secret_keys(found).items()}
        assert {variable for variable, name in names.items() if name == "registry"} == set(REGISTRY_KEYS["mlflow"])
        assert {variable for variable, name in names.items() if name == "bucket"} == others - set(
            REGISTRY_KEYS["mlflow"]
        )
        assert environment(found)["RETUNE_CREDENTIALS_SECRET"] == "registry"
        variables = [each["name"] for each in container(found)["env"]]
        assert len(variables) == len(set(variables))


def test_registering_writes_to_no_volume_and_asks_for_the_keys_of_the_registry() -> None:
    """It reads bundle and report of the store, on a claim that is mounted read-only."""
    found = job("register", **CREDENTIALS)
    assert {"MLFLOW_TRACKING_URI", "CA_CERTIFICATES"} <= secret_keys(found).keys()
    assert {mount["mountPath"]: mount.get("readOnly") for mount in container(found)["volumeMounts"]} == {
        "/etc/retune": True,
        "/tmp": None,
        "/mnt/pvc/artifacts": True,
    }
    assert "initContainers" not in pod(found)


@pytest.mark.parametrize("command", sorted(set(REQUESTS) - {"register"}))
def test_credentials_stay_away_from_jobs_that_need_none(command: str) -> None:
    """A Job that reads claims only has no use for a Secret, and one whose spec names none gets none."""
    assert secret_keys(job(command, **CREDENTIALS)) == {}
    assert secret_keys(reading("s3://data/v.npz")) == {}


def test_the_page_and_the_field_name_every_key() -> None:
    """What reaches a Job is what people are told, in the page on operation and in kubectl explain."""
    page = (ROOT / "docs" / "operations.md").read_text()
    field = Credentials.model_json_schema(by_alias=True)["properties"]["secretName"]["description"]
    for key in {key for keys in CREDENTIAL_KEYS.values() for key in keys}:
        assert f"`{key}`" in page
        assert re.search(rf"(?<!\w){re.escape(key)}\b", field)


def test_jobs_ask_for_no_key_that_never_reaches_them() -> None:
    """Every variable that the code which reads from servers looks up is a documented key, the operator's, or a cloud's.

    A cloud gives them to pods whose service account has a role there.
    """
    folders = [ROOT / "optimizer_jobs" / name for name in ("data", "registries")]
    code = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    asked = set(re.findall(r'"((?:AWS|GOOGLE|HTTPS|MLFLOW|REGISTRY)_[A-Z0-9_]+|CA_[A-Z_]+|\.docker[a-z]+)"', code))
    keys = {key for keys in CREDENTIAL_KEYS.values() for key in keys}
    of_identity = {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"}
    assert asked - environment(job("search")).keys() <= keys | of_identity
    assert {"AWS_REGION", "GOOGLE_CREDENTIALS", "MLFLOW_TRACKING_URI", "HTTPS_TOKEN", "CA_CERTIFICATES"} <= asked
    assert set(CREDENTIAL_KEYS["oci"]) <= asked


def test_no_key_wins_over_what_the_operator_sets() -> None:
    """The names of the two never meet, so a Secret changes nothing that the installation decides."""
    keys = {key for keys in CREDENTIAL_KEYS.values() for key in keys}
    assert keys.isdisjoint(environment(job("search")))


def test_a_secret_cannot_change_what_the_installation_decides() -> None:
    """The administrator's word on addresses, and that the machine's own credentials are never asked for."""
    env = environment(reading("https://a.example/v.npz", **CREDENTIALS))
    assert env["RETUNE_PRIVATE_ADDRESSES"] == "Refuse"
    assert env["AWS_EC2_METADATA_DISABLED"] == "true"


def test_a_shadow_sees_captured_requests_and_can_write_to_nothing() -> None:
    """The Job that asks golden requests reads its bundle; told to shadow, also the folder of captured requests."""
    shadow = Shadow(
        production=Production(uri="pvc://shop/captured"),
        since=0,
        until=3600,
        requests=100,
        champion_endpoints=("http://10.0.0.8:8080",),
        error_margin=0.01,
        slow_margin=0.1,
        confidence=0.99,
    )
    request = samples.verify_request().model_copy(update={"shadow": shadow})
    claims = claims_of(request)
    assert [claim.name for claim in claims] == ["artifacts", "shop"]
    assert all(claim.read and not claim.folders for claim in claims)
    remote = shadow.model_copy(update={"production": Production(uri="s3://shop/captured")})
    assert remote_schemes(request.model_copy(update={"shadow": remote})) == {"s3"}


def test_the_administrators_quota_of_the_store_reaches_every_job() -> None:
    """Jobs hold themselves to it; without one, none is named."""
    assert "RETUNE_STORE_QUOTA" not in environment(job("search"))
    assert environment(job_of("search", Settings(store_quota="20Gi")))["RETUNE_STORE_QUOTA"] == "20Gi"


amounts = st.one_of(
    st.none(), st.integers(1, 64_000).map(lambda milli: f"{milli}m"), st.sampled_from(["0.5", "1", "16"])
)
memories = st.one_of(st.none(), st.sampled_from(["64Mi", "1000M", "1Gi", "3Gi", "1Ti", "5000000"]))


@given(
    command=st.sampled_from(sorted(REQUESTS)),
    serving_limit=st.one_of(st.none(), st.floats(0.05, 32)),
    cpu=st.tuples(amounts, amounts),
    memory=st.tuples(memories, memories),
)
def test_a_request_never_exceeds_its_limit(
    command: str, serving_limit: float | None, cpu: tuple[str | None, str | None], memory: tuple[str | None, str | None]
) -> None:
    """Whatever is left out, the API server would accept what is filled in, and what the user wrote stands."""
    spec = Resources.model_validate(
        {"requests": {"cpu": cpu[0], "memory": memory[0]}, "limits": {"cpu": cpu[1], "memory": memory[1]}}
    )
    if memory[0] and memory[1] and memory_bytes(memory[0]) > memory_bytes(memory[1]):
        return  # the CRD refuses this
    action = CreateJob("j", REQUESTS[command], cpu_limit=serving_limit)
    resources = container_resources(action, spec, storage=node_storage(Storage(), scratch="4Gi"))
    requests, limits = resources["requests"], resources["limits"]
    assert cores(requests["cpu"]) <= cores(limits["cpu"])
    assert memory_bytes(requests["memory"]) <= memory_bytes(limits["memory"])
    assert memory[0] in {None, requests["memory"]}
    assert memory[1] in {None, limits["memory"]}


def test_an_eviction_is_looked_at_before_exit_codes() -> None:
    """An evicted container exits 137 too; it must be retried, not counted as out of memory."""
    first, *others = job("judge")["spec"]["podFailurePolicy"]["rules"]
    assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert {code for rule in others for code in rule["onExitCodes"]["values"]} == {64, 65, 137}
    assert {rule["action"] for rule in others} == {"FailJob"}
    assert job("judge")["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_search_workers_are_numbered_even_when_there_is_one() -> None:
    """A search is Indexed with one completion a worker; other Jobs are not."""
    spec = job("search", workers=3)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert job("search")["spec"]["completionMode"] == "Indexed"
    assert job("judge")["spec"]["completionMode"] == "NonIndexed"


def test_a_queued_job_is_born_suspended() -> None:
    """Kueue admits a Job only when it starts suspended and carries the queue's label."""
    manifest = job("search", execution={"queueName": "ml-batch"})
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "ml-batch"
    assert "suspend" not in job("search")["spec"]


def test_a_queue_may_admit_any_number_of_a_search_s_workers() -> None:
    """Kueue refuses these annotations where there is nothing to lower, so that one worker has none."""
    queue = {"queueName": "ml-batch"}
    manifest = job("search", workers=4, execution=queue)
    assert manifest["metadata"]["annotations"] == {
        "retune.dev/workers": "4",
        "kueue.x-k8s.io/job-min-parallelism": "1",
        "kueue.x-k8s.io/job-completions-equal-parallelism": "true",
    }
    assert (manifest["spec"]["completionMode"], manifest["spec"]["completions"]) == ("Indexed", 4)
    others = (job("search", workers=4), job("search", execution=queue), job("judge", execution=queue))
    assert all("annotations" not in other["metadata"] for other in others)


def test_jobs_run_where_the_target_runs_unless_told_otherwise() -> None:
    """Nodes come from the spec, else from the target."""
    toleration = {"key": "edge", "operator": "Exists"}
    target = serving(node_selector={"class": "edge"}, tolerations=(toleration,))
    assert pod(job("judge", target=target))["nodeSelector"] == {"class": "edge"}
    assert pod(job("judge", target=target))["tolerations"] == [toleration]
    chosen = job("judge", target=target, execution={"nodeSelector": {"class": "lab"}, "tolerations": [{"key": "lab"}]})
    assert pod(chosen)["nodeSelector"] == {"class": "lab"}
    assert pod(chosen)["tolerations"] == [{"key": "lab", "operator": "Equal"}]
    assert "nodeSelector" not in pod(job("judge"))


def test_numerical_libraries_get_the_serving_threads() -> None:
    """Threads follow the request, never the node's core count."""
    env = environment(job("judge"))
    assert {env[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"2"}
    assert env["DO_NOT_TRACK"] == "1"


def keys(command: str, *, uid: str = samples.RESOURCE_UID, run: str = "digits-r1", secret: str | None = None) -> Json:
    """The keys that the Job of a command gets, by variable."""
    request = REQUESTS[command]
    if isinstance(request, SearchRequest | GatherRequest):
        request = request.model_copy(update={"run": run})
    return seals(request, uid=uid, key=secret)


def test_a_key_is_that_of_one_resource_one_run_and_one_command() -> None:
    """Nothing but the judge of the same run shares the search's key, and the judge's own is known to no other Job."""
    every = itertools.product(("gather", "search", "judge"), "ab", "cd")
    asked = [keys(command, uid=uid, run=run) for command, uid, run in every]
    studies = [pair["RETUNE_STUDY_SEAL"] for pair in asked if "RETUNE_STUDY_SEAL" in pair]
    own = [pair["RETUNE_SEAL"] for pair in asked if "RETUNE_SEAL" in pair]
    assert sorted(studies) == sorted([*set(studies)] * 2)
    assert len(set(studies)) == 4
    assert len({*own, *studies}) == len(own) + 4
    assert keys("search").keys() == {"RETUNE_STUDY_SEAL"}


@every_command
def test_a_job_finds_its_keys_under_the_same_names_after_a_restart(command: str) -> None:
    """They follow from resource and run alone, are no part of the request, and Jobs without records get none."""
    manifest, again = job(command), job(command)
    given = {name: value for name, value in environment(manifest).items() if name.endswith("SEAL")}
    assert given == {name: value for name, value in environment(again).items() if name.endswith("SEAL")}
    assert bool(given) is (command in {"gather", "search", "judge"})
    carried = manifest["spec"]["template"]["metadata"]["annotations"]["retune.dev/request"]
    assert not any(value in carried for value in given.values())
    assert samples.RESOURCE_UID not in json.dumps(manifest["spec"])


def test_the_administrators_key_makes_other_keys() -> None:
    """Whoever knows a resource's UID, but not that key, knows none of its keys."""
    assert keys("judge", secret="s3cret") != keys("judge", secret="other") != keys("judge")
    assert keys("judge", secret="s3cret") == keys("judge", secret="s3cret")


def test_limits_of_time_come_from_the_spec_in_whole_seconds() -> None:
    """Durations are rounded up, so that a limit is never shorter than what was written; pods may wait for a day."""
    spec = job("judge", execution={"runTimeout": "1h30m", "ttlAfterFinished": "600s500ms"})["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (86400 + 5400, 601)


@pytest.mark.parametrize("deadline,seconds", [("10s", 300), ("20m", 1200)])
def test_golden_requests_are_asked_within_the_rollouts_own_time(deadline: str, seconds: int) -> None:
    """An unproven version never serves as long as a search may run, and a short deadline still lets a pod start."""
    spec = job("verify", execution={"runTimeout": "6h"}, rollout={"progressDeadline": deadline})["spec"]
    assert spec["activeDeadlineSeconds"] == seconds


@every_command
def test_pods_ask_meshes_for_no_proxy(command: str) -> None:
    """A proxy that runs on beside finished work keeps a Job from ever ending."""
    head = job(command)["spec"]["template"]["metadata"]
    assert head["labels"]["sidecar.istio.io/inject"] == head["annotations"]["sidecar.istio.io/inject"] == "false"
    assert head["annotations"]["linkerd.io/inject"] == "disabled"


@every_command
def test_everything_is_labelled_and_owned(command: str) -> None:
    """Job and pod can be found by label, and go when their ModelOptimization goes."""
    manifest = job(command)
    expected = {
        "app.kubernetes.io/managed-by": "retune",
        "retune.dev/resource": "digits",
        "retune.dev/command": command,
    }
    assert manifest["metadata"]["labels"] == expected
    assert expected.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()
    (owner,) = manifest["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("ModelOptimization", samples.RESOURCE_UID, True)


@every_command
def test_building_twice_gives_the_same_manifest(command: str) -> None:
    """Creating again after a crash must be a no-op, so nothing in a manifest may vary."""
    assert job(command, workers=2) == job(command, workers=2)


def test_a_lease_names_its_target_and_its_holder() -> None:
    """Two resources with one target compete for one name; the loser can say who won."""
    lease = lease_manifest(AcquireLease("target-uid"), resource=samples.resource())
    assert lease["metadata"]["name"] == "retune-target-uid"
    assert lease["metadata"]["namespace"] == "ml"
    assert lease["spec"]["holderIdentity"] == "digits"
    assert lease["metadata"]["ownerReferences"][0]["uid"] == samples.RESOURCE_UID


def test_a_run_records_its_snapshot() -> None:
    """An OptimizationRun's spec reads back as the planner wrote it."""
    source = samples.resource().spec
    spec = OptimizationRunSpec.model_validate(
        {
            "number": 1,
            "trigger": {"reason": "Initial", "message": "first run"},
            "specGeneration": 1,
            "specHash": "abc",
            "championVersion": 1,
            "championDigest": samples.DIGEST,
            "snapshot": {"model": source.model, "data": source.data, "objectives": source.better},
        }
    )
    run = run_manifest(CreateRun("digits-r1", spec), resource=samples.resource())
    assert OptimizationRunSpec.model_validate(run["spec"]) == spec
    assert (run["kind"], run["metadata"]["name"]) == ("OptimizationRun", "digits-r1")


@pytest.mark.parametrize(("hours", "kept"), [(1, 7200), (0.01, 600), (24, 86400)])
def test_checks_go_soon(hours: float, kept: int) -> None:
    """Every window has one: two windows are enough to read its result, and it is never less than ten minutes."""
    request = samples.check_request()
    window = request.window.model_copy(update={"end": request.window.start + int(3600 * hours)})
    action = CreateJob("digits-w1", request.model_copy(update={"window": window}), cpu_limit=None)
    check = job_manifest(action, resource=samples.resource(), target=None, settings=Settings())
    assert check["spec"]["ttlSecondsAfterFinished"] == kept
    assert job("gather")["spec"]["ttlSecondsAfterFinished"] == 86400


def templated(**template: Any) -> Settings:
    """Settings with a template for Jobs' pods."""
    return Settings(pod_template=parse_template(json.dumps(template)))


def job_of(command: str, settings: Settings, *, target: Target | None = None, **spec: Any) -> Json:
    """The Job of one command under these settings."""
    action = CreateJob(f"digits-{command}", REQUESTS[command], cpu_limit=2.0)
    return job_manifest(action, resource=samples.resource(**spec), target=target, settings=settings)


@every_command
def test_an_administrators_template_reaches_every_pod_and_takes_nothing_from_it(command: str) -> None:
    """All that was given is there, and all that the Job needs of its own is as it was."""
    manifest, plain = job_of(command, templated(**EVERYTHING)), job_of(command, Settings())
    head, spec = manifest["spec"]["template"]["metadata"], pod(manifest)
    assert EVERYTHING["labels"].items() <= head["labels"].items()
    assert EVERYTHING["annotations"].items() <= head["annotations"].items()
    for name in ("priorityClassName", "runtimeClassName", "serviceAccountName", "imagePullSecrets", "affinity"):
        assert spec[name] == EVERYTHING[name]
    assert spec["topologySpreadConstraints"] == EVERYTHING["topologySpreadConstraints"]
    assert [variable for variable in container(manifest)["env"] if variable in EVERYTHING["env"]] == EVERYTHING["env"]
    assert plain["spec"]["template"]["metadata"]["labels"].items() <= head["labels"].items()
    assert spec["automountServiceAccountToken"] is False
    assert container(manifest)["securityContext"] == container(plain)["securityContext"]
    assert container(manifest)["command"] == container(plain)["command"]


def test_a_companys_authorities_come_from_its_config_map() -> None:
    """The key must be there: without it the Job would fail at its first connection, for a reason nobody sees."""
    given_env = container(job_of("baseline", templated(caCertificates={"name": "ca"})))["env"]
    (variable,) = [entry for entry in given_env if entry["name"] == "RETUNE_CA_CERTIFICATES"]
    assert variable["valueFrom"] == {"configMapKeyRef": {"name": "ca", "key": "ca.crt"}}


@pytest.mark.parametrize(
    "user,ids",
    [(1234, {"runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 1234}), ("Assigned", {})],
)
def test_pods_run_as_the_user_that_the_platform_takes(user: Any, ids: Json) -> None:
    """OpenShift's restricted-v2 refuses a fixed user; without one, the pod is as restricted as before."""
    security = pod(job_of("judge", templated(runAsUser=user)))["securityContext"]
    assert {key: value for key, value in security.items() if key in {"runAsUser", "runAsGroup", "fsGroup"}} == ids
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(
    "execution,template,scratch,storage",
    [
        ({}, {}, "4Gi", {"requests": "1Gi"}),
        ({}, {"scratchSize": "512Mi"}, "512Mi", {"requests": "512Mi"}),
        ({"scratchSize": "32Gi"}, {"scratchSize": "8Gi"}, "32Gi", {"requests": "1Gi"}),
        ({}, {"ephemeralStorage": {"request": "5Gi", "limit": "9Gi"}}, "4Gi", {"requests": "5Gi", "limits": "9Gi"}),
    ],
)
def test_scratch_is_sized_by_the_spec_else_by_the_administrator(
    execution: Json, template: Json, scratch: str, storage: Json
) -> None:
    """The Job knows how much there is, and its node is asked for some of it."""
    manifest = job_of("search", templated(**template), execution=execution)
    (volume,) = [volume for volume in pod(manifest)["volumes"] if volume["name"] == "scratch"]
    assert volume["emptyDir"] == {"sizeLimit": scratch}
    assert environment(manifest)["RETUNE_SCRATCH_BYTES"] == str(int(memory_bytes(scratch)))
    resources = container(manifest)["resources"]
    amounts = {kind: resources[kind].get("ephemeral-storage") for kind in ("requests", "limits")}
    assert {kind: amount for kind, amount in amounts.items() if amount} == storage


def near(manifest: Json) -> list[Json]:
    """The labels of pods that the pod is preferably put beside."""
    affinity = pod(manifest).get("affinity", {}).get("podAffinity", {})
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])
    assert all(term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname" for term in terms)
    return [term["podAffinityTerm"]["labelSelector"]["matchLabels"] for term in terms]


@every_command
def test_pods_are_put_where_their_store_is_mounted(command: str) -> None:
    """One node at a time has a volume; every pod that mounts the claim carries the label that draws the others."""
    manifest = job(command)
    (labels,) = near(manifest)
    assert labels == {"retune.dev/store": "artifacts"}
    assert labels.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()
    assert not near(job_of(command, templated(storeAccess="ReadWriteMany")))


def test_pods_are_put_beside_a_server_that_has_mounted_the_store() -> None:
    """Else the volume would never come to them: what serves is not moved."""
    server = serving(claims=frozenset({"artifacts"}), labels={"app": "digits"})
    assert near(job("judge", target=server)) == [{"retune.dev/store": "artifacts"}, {"app": "digits"}]
    assert near(job("judge", target=serving(labels={"app": "digits"}))) == [{"retune.dev/store": "artifacts"}]


def test_the_administrators_own_neighbours_stay() -> None:
    """What is ours is added to what was given."""
    template = {"affinity": EVERYTHING["affinity"]}
    given_affinity, manifest = EVERYTHING["affinity"], job_of("judge", templated(**template))
    affinity = pod(manifest)["affinity"]
    assert affinity["nodeAffinity"] == given_affinity["nodeAffinity"]
    assert near_app(affinity) == ["cache", None]


def near_app(affinity: Json) -> list[str | None]:
    """The label `app` in each preferred term for pods."""
    terms = affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    return [term["podAffinityTerm"]["labelSelector"]["matchLabels"].get("app") for term in terms]


def test_a_claims_name_becomes_a_label_however_long_it_is() -> None:
    """Names have up to 253 characters, labels 63; two long names with one beginning stay apart."""
    one, other = (label_value(f"{'a.b-' * 20}{end}") for end in "xy")
    assert one != other
    assert max(len(one), len(other)) <= 63
    assert label_value("my.claim") == "my.claim"


def test_a_request_without_room_is_refused_with_what_to_shorten() -> None:
    """All annotations of a pod have 256 KiB together; the largest part is named."""
    request = REQUESTS["search"]
    assert isinstance(request, SearchRequest)
    techniques = [{"name": f"t{index}", "type": "CustomTraining", "container": COMMAND} for index in range(5)]
    long = SearchRequest.model_validate(request.model_dump() | {"techniques": techniques})
    assert too_long(request) is None
    assert "shorten spec.techniques" in (too_long(long) or "")


COMMAND = {"image": "x", "command": ["a" * 4096] * 16}
