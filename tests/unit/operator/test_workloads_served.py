"""The model server beside a judge: what it is told, what it sees and gets, and that nothing else has one."""

from typing import Any

import pytest

from retune.api.search import Serving
from retune.contract.requests import JobRequest, JudgeRequest
from retune.contract.serving import NO_MODELS
from retune.plan.actions import CreateJob
from retune.workloads import job_manifest
from tests import samples
from tests.unit.operator.test_workloads import REQUESTS, Settings

Json = dict[str, Any]
IMAGE = "registry.example/triton:26.08"
TRITON: Json = {"runtime": "Triton", "image": IMAGE}
OVMS: Json = {"runtime": "OVMS", "engines": ["OpenVINO"], "image": "registry.example/ovms:2026.2"}
KSERVE: Json = {"runtime": "KServe", "engines": ["OpenVINO"], "image": "registry.example/ovms:2026.2"}


def pod_of(request: JobRequest, **execution: Any) -> Json:
    """The pod of a Job."""
    resource = samples.resource(execution=execution)
    action = CreateJob("digits-judge", request, cpu_limit=1.5)
    manifest = job_manifest(action, resource=resource, target=None, settings=Settings())
    assert manifest == job_manifest(action, resource=resource, target=None, settings=Settings())
    spec: Json = manifest["spec"]["template"]["spec"]
    return spec


def judge(serving: Json) -> JudgeRequest:
    """A judge's request for this server."""
    return samples.judge_request().model_copy(update={"serving": Serving.model_validate(serving)})


def named(pod: Json) -> dict[str, Json]:
    """The init containers of a pod by name."""
    return {container["name"]: container for container in pod.get("initContainers", ())}


@pytest.mark.parametrize("serving", [TRITON, OVMS, KSERVE])
def test_the_server_is_a_sidecar_that_listens_on_loopback_and_sees_its_models_alone(serving: Json) -> None:
    """No store, no request, no credentials; the folder of its models is the judge's too, and both have a limit."""
    pod = pod_of(judge(serving), credentials={"secretName": "bucket"})
    server, (own,) = named(pod)["server"], pod["containers"]
    assert list(named(pod))[-1] == "server"
    assert (server["image"], server["restartPolicy"]) == (serving["image"], "Always")
    assert pod["automountServiceAccountToken"] is False
    assert server["securityContext"] == own["securityContext"]
    assert server["securityContext"]["readOnlyRootFilesystem"] is True
    assert server["resources"] == own["resources"]
    mounts = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    assert mounts == {"server-models": "/retune-server", "server-scratch": "/tmp"}
    assert {"name": "server-models", "mountPath": "/retune-server"} in own["volumeMounts"]
    assert [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] in mounts] == [{"sizeLimit": "8Gi"}] * 2
    assert {variable["name"] for variable in server["env"]} == {"HOME", "TMPDIR"}
    assert any("address=127.0.0.1" in argument for argument in server["args"])
    assert not any("0.0.0.0" in argument for argument in server["args"])  # noqa: S104 - that it is not
    assert "command" not in server
    assert "ports" not in server


def test_triton_is_told_to_load_what_it_is_asked_to() -> None:
    """Its image's own entry point runs the arguments."""
    assert named(pod_of(judge(TRITON)))["server"]["args"] == [
        "tritonserver",
        "--model-repository=/retune-server",
        "--model-control-mode=explicit",
        "--http-address=127.0.0.1",
        "--http-port=8480",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]


@pytest.mark.parametrize("serving", [OVMS, KSERVE])
def test_openvino_model_server_finds_a_configuration_when_it_starts(serving: Json) -> None:
    """An image of the administrator's writes it, before the server is there; then it is read when it is asked to."""
    pod = pod_of(judge(serving), image="registry.example/own:1")
    before = named(pod)["server-config"]
    assert before["image"] == Settings().optimizer_image
    assert before["command"][-2:] == [NO_MODELS, "/retune-server/config.json"]
    assert "restartPolicy" not in before
    assert list(named(pod)).index("server-config") < list(named(pod)).index("server")
    assert named(pod)["server"]["args"] == [
        "--config_path=/retune-server/config.json",
        "--rest_bind_address=127.0.0.1",
        "--rest_port=8480",
        "--file_system_poll_wait_seconds=0",
    ]


def test_the_judge_learns_where_it_is() -> None:
    """Without an image it learns of none."""
    for serving, address in ((TRITON, "http://127.0.0.1:8480"), ({"runtime": "Triton"}, None)):
        variables = {entry["name"]: entry.get("value") for entry in pod_of(judge(serving))["containers"][0]["env"]}
        assert variables.get("RETUNE_SERVER_ADDRESS") == address
        assert variables.get("RETUNE_SERVER_MODELS") == ("/retune-server" if address else None)


@pytest.mark.parametrize("command", sorted(set(REQUESTS) - {"judge"}))
def test_no_other_job_has_a_server(command: str) -> None:
    """They measure in the engine of their own image."""
    request = REQUESTS[command]
    if "serving" in type(request).model_fields:
        request = request.model_copy(update={"serving": Serving.model_validate(TRITON)})
    pod = pod_of(request)
    assert "server" not in named(pod)
    assert "server-models" not in {volume["name"] for volume in pod["volumes"]}


def test_how_the_server_ended_is_kept_in_the_pod() -> None:
    """Its last lines are its words where it cannot start."""
    assert named(pod_of(judge(TRITON)))["server"]["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_codes_of_the_server_fail_no_job() -> None:
    """Only the judge's own exit codes count: a server that is told to end, ends as it likes."""
    action = CreateJob("digits-judge", judge(TRITON), cpu_limit=1.5)
    manifest = job_manifest(action, resource=samples.resource(), target=None, settings=Settings())
    codes = [rule["onExitCodes"] for rule in manifest["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert {code["containerName"] for code in codes} == {"optimizer"}
