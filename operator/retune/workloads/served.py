"""The model server of others beside a judge: the image of the spec, as restricted as the judge, on loopback alone.

It is a sidecar, so that it is there before the judge starts and ends with it. It sees its models and a scratch volume,
but no store, credentials, token or request.
"""

from typing import Final

from retune.api.base import Json
from retune.contract.paths import SCRATCH_DIR
from retune.contract.requests import JobRequest, JudgeRequest, Server
from retune.contract.serving import (
    NO_MODELS,
    OVMS_CONFIG,
    SERVER_ADDRESS_VARIABLE,
    SERVER_CONTAINER,
    SERVER_DIR,
    SERVER_FOLDER_VARIABLE,
    SERVER_PORT,
    served_image,
    server_arguments,
    server_of,
)
from retune.workloads.security import CONTAINER_SECURITY

CONFIGURING: Final = "server-config"
"""Name of the init container that writes what OpenVINO Model Server needs to start with."""
_MODELS, _SCRATCH = "server-models", "server-scratch"
_LIMIT: Final = "8Gi"
"""Most that the models of champion and finalists may take, and most scratch."""
_WRITE = 'printf "%s\\n" "$1" > "$2"'


def containers(request: JobRequest, *, own_image: str, image_pull_policy: str, resources: Json) -> list[Json]:
    """Return the init containers of a judge's pod that are the server; none where the judge needs none.

    Args:
        request: What the Job is to do.
        own_image: An image of the operator's settings, which writes the first configuration.
        image_pull_policy: When the kubelet pulls an image.
        resources: Requests and limits of the judge's own container: the server gets as much, on top.
    """
    image = served_image(request)
    if image is None or not isinstance(request, JudgeRequest):
        return []
    server = server_of(request.serving)
    shared: Json = {"imagePullPolicy": image_pull_policy, "securityContext": CONTAINER_SECURITY, "resources": resources}
    configuring = {
        "name": CONFIGURING,
        "image": own_image,
        "command": ["/bin/sh", "-c", _WRITE, "sh", NO_MODELS, f"{SERVER_DIR}/{OVMS_CONFIG}"],
        "volumeMounts": [mount()],
    }
    serving = {
        "name": SERVER_CONTAINER,
        "image": image,
        "restartPolicy": "Always",
        "args": server_arguments(server),
        "env": [{"name": "HOME", "value": SCRATCH_DIR}, {"name": "TMPDIR", "value": SCRATCH_DIR}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount(), {"name": _SCRATCH, "mountPath": SCRATCH_DIR}],
    }
    return [shared | part for part in ([configuring] if server is Server.OVMS else []) + [serving]]


def mount() -> Json:
    """Return the mount of the models, the same in both containers."""
    return {"name": _MODELS, "mountPath": SERVER_DIR}


def environment(request: JobRequest) -> list[Json]:
    """Return the variables by which the judge finds the server; none where it has none."""
    if served_image(request) is None:
        return []
    values = {SERVER_ADDRESS_VARIABLE: f"http://127.0.0.1:{SERVER_PORT}", SERVER_FOLDER_VARIABLE: SERVER_DIR}
    return [{"name": name, "value": value} for name, value in values.items()]


def volumes(request: JobRequest) -> list[Json]:
    """Return the volumes that only a pod with the server has."""
    names = (_MODELS, _SCRATCH) if served_image(request) is not None else ()
    return [{"name": name, "emptyDir": {"sizeLimit": _LIMIT}} for name in names]
