"""KServe's inference logger for tests: its agent as a process before a model server of this machine."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.storage.servers import BUCKET, Store, listens
from tools.localcluster import binaries
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import load
from tools.localcluster.shell import wait_for

STORED = "logs/ml/digits/predictor/payload"
"""Where the agent puts its files: the URL's path, namespace, InferenceService, component, storage.path."""
ANNOTATION = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""The annotation in which KServe keeps a pod's storageUri."""
_PROBE = '{"tcpSocket":{"port":%d,"host":"127.0.0.1"},"successThreshold":1}'


@contextmanager
def before(component: int, folder: Path, *logger: str, environment: dict[str, str] | None = None) -> Iterator[int]:
    """Run the agent before a server at a port of this machine; yields the port that requests go to.

    Args:
        component: Port of the server.
        folder: Where the log goes.
        logger: Arguments of the logger.
        environment: Further variables.
    """
    program = binaries.ensure(load(), [binaries.KSERVE])["agent"]
    port, marshaller = free_ports(2)
    own = [f"--port={port}", f"--component-port={component}", "--inference-service=digits", "--namespace=ml"]
    own += ["--component=predictor", "--endpoint=default", f"--log-marshaller-port={marshaller}"]
    own += [f"--log-marshaller-url=http://127.0.0.1:{marshaller}/marshal"]
    variables = {"SERVING_READINESS_PROBE": _PROBE % component, "PATH": os.environ["PATH"], **(environment or {})}
    with (folder / "agent.log").open("wb") as sink:
        process = subprocess.Popen([program, *own, *logger], stdout=sink, stderr=sink, env=variables)
        try:
            wait_for(lambda: process.poll() is not None or listens(port), what="KServe's agent", seconds=30)
            assert process.poll() is None, (folder / "agent.log").read_text()
            yield port
        finally:
            process.kill()  # asked to end, it waits for 30 s
            process.wait()


def to_bucket(store: Store, folder: Path, file_format: str, batch: int) -> tuple[Sequence[str], dict[str, str]]:
    """Return arguments and variables with which the agent writes to a bucket.

    Args:
        store: The server of the bucket.
        folder: Where its authority's certificate goes.
        file_format: json or parquet.
        batch: Records of a file.
    """
    authority = folder / "ca.crt"
    authority.write_text(store.environment["CA_CERTIFICATES"])
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
    variables = {name: store.environment[name] for name in names}
    variables |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_CA_BUNDLE": str(authority), "S3_USER_VIRTUAL_BUCKET": "false"}
    batched = [f"--log-batch-size={batch}", "--log-batch-interval=1s"] if batch > 1 else []
    logger = [f"--log-url=s3://{BUCKET}/logs", "--log-store-path=payload", f"--log-store-format={file_format}"]
    return [*logger, *batched], variables
