"""The model server of others that runs beside a judge: where both see its models, and where it listens.

The judge writes models into a folder that both see, and tells the server over HTTP on the pod's own loopback what to
serve. Nobody outside the pod can reach it.
"""

from typing import Final

from retune.api.search import Serving
from retune.api.servers import ServerRuntime, written_for
from retune.contract.requests import JobRequest, JudgeRequest, Server

SERVER_CONTAINER: Final = "server"
"""Name of the container in the judge's pod that is the server."""
SERVER_DIR: Final = "/retune-server"
"""Path of the folder with its models, in both containers."""
SERVER_PORT: Final = 8480
"""Port of its HTTP, on the loopback address alone."""
SERVER_FOLDER_VARIABLE: Final = "RETUNE_SERVER_MODELS"
"""Environment variable of the judge that names that folder. Not set where no server runs beside it."""
SERVER_ADDRESS_VARIABLE: Final = "RETUNE_SERVER_ADDRESS"
"""Environment variable of the judge with the server's address, such as `http://127.0.0.1:8480`."""
OVMS_CONFIG: Final = "config.json"
"""File in that folder that OpenVINO Model Server reads, and needs to start with."""
NO_MODELS: Final = '{"model_config_list": []}'
"""Its content where no model is served yet."""

_TRITON = (
    "tritonserver",
    f"--model-repository={SERVER_DIR}",
    "--model-control-mode=explicit",
    "--http-address=127.0.0.1",
    f"--http-port={SERVER_PORT}",
    "--allow-grpc=false",
    "--allow-metrics=false",
)
_OVMS = (
    f"--config_path={SERVER_DIR}/{OVMS_CONFIG}",
    "--rest_bind_address=127.0.0.1",
    f"--rest_port={SERVER_PORT}",
    "--file_system_poll_wait_seconds=0",
)


def served_image(request: JobRequest) -> str | None:
    """Return the image of the server that runs beside the Job of a request; None where none does."""
    return request.serving.image if isinstance(request, JudgeRequest) else None


def server_of(serving: Serving) -> Server:
    """Return the server whose layout is written; for others than Triton, OVMS and KServe's there is none."""
    return Server.OVMS if written_for(serving.runtime, serving.engines) is ServerRuntime.OVMS else Server.TRITON


def server_arguments(server: Server) -> list[str]:
    """Return the arguments that the image's own entry point gets, as those of NVIDIA, Intel and KServe take them."""
    return [*(_OVMS if server is Server.OVMS else _TRITON)]
