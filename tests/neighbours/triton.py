"""Triton Inference Server for tests: the real server of a wheel, with ONNX Runtime as it is called from Python.

The wheel has no backend `onnxruntime`; one written in Python takes its place under its name, which Triton allows. So a
test sees what the server itself makes of a configuration, of its warm-up and of requests. What the missing backend
makes of its parameters is not seen: the one in its place reads none of them.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tools.localcluster import packages
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import load
from tools.localcluster.shell import wait_for

VARIABLE = "RETUNE_TRITON"
"""Environment variable with the environment that the wheel is installed in."""
HEAD = "Inference-Header-Content-Length"
"""Header with the length of the JSON before the tensors of a request or answer."""
_SECONDS = 60.0
_DTYPES = {"BOOL": "?", "UINT8": "<u1", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
"""NumPy's words for the protocol's element types that the tests have."""
_MODEL = """
import json
import os
import sys

sys.path.insert(0, SITE_PACKAGES)
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        self.quirk = json.loads(os.environ["QUIRKS"]).get(args["model_name"])
        if self.quirk == "too old":
            raise triton.TritonModelException("Unsupported model IR version: 13, max supported IR version: 10")
        path = f"{args['model_repository']}/{args['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(path)
        self.numbers = {node.name for node in self.session.get_inputs() if not node.shape}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feed = {tensor.name(): self.given(tensor) for tensor in request.inputs()}
        names = [node.name for node in self.session.get_outputs()]
        answers = [(name, self.bent(values)) for name, values in zip(names, self.session.run(names, feed))]
        return triton.InferenceResponse([triton.Tensor(name, sent(values)) for name, values in answers])

    def bent(self, values):
        return values + 1 if self.quirk == "wrong" and values.dtype.kind == "f" else values

    def given(self, tensor):
        values = tensor.as_numpy()
        if values.dtype == object:
            values = np.array([text.decode() for text in values.reshape(-1)], dtype=object).reshape(values.shape)
        return values.reshape(()) if tensor.name() in self.numbers else values


def sent(values):
    values = np.atleast_1d(values)
    if values.dtype != object:
        return values
    return np.array([text.encode() for text in values.reshape(-1)], dtype=object).reshape(values.shape)
"""
"""The backend in the place of the missing one; SITE_PACKAGES is where its libraries are."""


@dataclass(frozen=True)
class Triton:
    """A server that is to serve one repository."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def is_ready(self) -> bool:
        """Return whether every model of the repository is ready."""
        try:
            with urlopen(f"{self.address}/v2/health/ready", timeout=5):  # noqa: S310 - a server of our own
                return True
        except (URLError, TimeoutError, ConnectionError):
            return False

    def has_ended(self) -> bool:
        """Return whether the process has given up."""
        return self.process.poll() is not None

    def get(self, path: str) -> Any:
        """Return the JSON document at a path."""
        with urlopen(f"{self.address}{path}", timeout=30) as answer:  # noqa: S310 - a server of our own
            return json.load(answer)

    def infer(self, model: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """Ask a model and return its answer; raises HTTPError where the server refuses."""
        request = Request(f"{self.address}/v2/models/{model}/infer", body, dict(headers))  # noqa: S310 - our own
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - a server of our own
            return _answer(answer.read(), int(answer.headers.get(HEAD, 0)))


def _answer(content: bytes, head: int) -> Any:
    """Return an answer as if it were JSON throughout; where `head` is not 0, tensors follow after so many bytes."""
    answer = json.loads(content[:head] if head else content)
    binary = content[head:]
    for output in answer["outputs"] if head else ():
        size = output["parameters"]["binary_data_size"]
        output["data"], binary = _elements(binary[:size], output["datatype"]), binary[size:]
    return answer


def _elements(content: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return [value.item() for value in np.frombuffer(content, _DTYPES[datatype])]
    texts = []
    while content:
        end = 4 + int.from_bytes(content[:4], "little")
        texts.append(content[4:end].decode())
        content = content[end:]
    return texts


def backend(site_packages: str) -> str:
    """Return the backend in the place of the missing one, whose libraries are in this folder.

    Environment variable QUIRKS is a JSON object: by a model's name, what `started` calls its quirk.
    """
    return _MODEL.replace("SITE_PACKAGES", repr(site_packages))


@contextmanager
def started(
    repository: Path,
    folder: Path,
    *more: str,
    port: int | None = None,
    quirks: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Triton]:
    """Start the server on a model repository, without waiting for it.

    Args:
        repository: The model repository.
        folder: Where backends and the log go.
        more: Further arguments of the server.
        port: Where it answers; a free port by default.
        quirks: By a model's name, that the backend answers it "wrong", or is "too old" to open it.
    """
    site = _site_packages()
    wheel, backends = site / "pytriton" / "tritonserver", folder / "backends"
    _make_backends(wheel, backends, site)
    free, metrics = free_ports(2)
    web = port or free
    ports = (f"--http-port={web}", "--http-address=127.0.0.1", "--allow-grpc=false", f"--metrics-port={metrics}")
    flags = (f"--model-repository={repository}", f"--backend-directory={backends}", *ports, *more)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"), "ORT_DISABLE_TELEMETRY": "1"}
    environment["QUIRKS"] = json.dumps(dict(quirks))
    log = folder / "log"
    with log.open("wb") as sink:
        words = [str(wheel / "bin" / "tritonserver"), *flags]
        process = subprocess.Popen(words, stdout=sink, stderr=sink, env=environment, start_new_session=True)
        try:
            yield Triton(process, f"http://127.0.0.1:{web}", log)
        finally:
            _stop(process)


@contextmanager
def serving(
    repository: Path,
    folder: Path,
    *more: str,
    port: int | None = None,
    quirks: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Triton]:
    """Serve a model repository; fails with the log where a model does not become ready."""
    with started(repository, folder, *more, port=port, quirks=quirks) as server:
        wait_for(
            lambda: server.is_ready() or server.has_ended(), what="Triton", seconds=_SECONDS, hint=server.log.read_text
        )
        assert not server.has_ended(), server.log.read_text()
        yield server


def _site_packages() -> Path:
    """Return where the wheel lies; skips where nobody has installed it."""
    if VARIABLE not in os.environ:
        pytest.skip("`make test-neighbours-triton` installs the server and runs this")
    (folder,) = Path(os.environ[VARIABLE]).glob("lib/python3.*/site-packages")
    return folder


def _make_backends(wheel: Path, backends: Path, site: Path) -> None:
    """Put the backend for Python together, for the Python that is here, and the one in the place of the missing one."""
    minor = site.parent.name.removeprefix("python")
    packages.ensure(load(), {f"libpython{minor}": f"/usr/lib/x86_64-linux-gnu/libpython{minor}.so.1.0"})
    shutil.copytree(wheel / "backends" / "python", backends / "python")
    stub = shutil.copy(wheel / "python_backend_stubs" / minor / "triton_python_backend_stub", backends / "python")
    Path(stub).chmod(0o755)
    (backends / "onnxruntime").mkdir()
    (backends / "onnxruntime" / "model.py").write_text(backend(str(site)))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the processes of its backend, which outlive one that was killed
