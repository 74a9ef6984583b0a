"""OpenVINO Model Server, played from its documentation of 2026: no package has the server itself.

It reads a real `config.json`, opens the real models in it, and answers the requests of its REST API that we make. Which
versions it starts, keeps and retires follows its own order: new ones first, and nothing is retired where one fails.
"""

import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from optimizer_jobs.models.engine import Array, EngineError, EngineOptions, Session
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.serving.running.session import HEAD
from optimizer_jobs.serving.tensors import as_bytes, from_bytes

_FAILED = "Reloading config file failed. Check server logs for more info."


@dataclass
class Version:
    """A version that the server has tried to serve."""

    state: str
    fault: str = ""
    session: Session | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What the status API says of it."""
        code = "OK" if self.state != "LOADING" else "UNKNOWN"
        return {"state": self.state, "status": {"error_code": code, "error_message": self.fault or "OK"}}


@dataclass
class Models:
    """What the server serves."""

    config: Path
    models: dict[str, dict[str, Version]] = field(default_factory=dict)
    spoiled: frozenset[str] = frozenset()
    """Names of models whose answers are wrong."""
    spoils: str | None = None
    """Number of a version whose answers are wrong under every name but that of a trial."""
    refuses: str | None = None
    """Number of a version that cannot be loaded."""
    asked: int = 0
    """Requests for inference so far."""
    dies_after: int | None = None
    """The number of requests after which it answers none."""

    def reload(self) -> tuple[int, Any]:
        """Read the configuration and do what it says."""
        listed = [item["config"] for item in json.loads(self.config.read_text())["model_config_list"]]
        for name in self.models.keys() - {entry["name"] for entry in listed}:
            self._retire(name, keeping="")
        good = sum(self._start(entry) for entry in listed) == len(listed)
        return (201, self.statuses()) if good else (500, {"error": _FAILED})

    def statuses(self) -> dict[str, Any]:
        """What the server says of all models."""
        return {name: self.status(name) for name in self.models}

    def status(self, name: str) -> dict[str, Any]:
        """What the server says of the versions of a model."""
        told = [{"version": number, **version.told} for number, version in self.models[name].items()]
        return {"model_version_status": told}

    def available(self, name: str) -> Version | None:
        """The version that answers: the highest that is available."""
        ready = {int(number): version for number, version in self.models.get(name, {}).items() if version.session}
        return ready[max(ready)] if ready else None

    def _start(self, entry: dict[str, Any]) -> bool:
        base = self.config.parent / entry["base_path"]
        number = max((path.name for path in base.iterdir()), key=int)
        versions = self.models.setdefault(entry["name"], {})
        if number not in versions or versions[number].state == "END":
            refused = Version("LOADING", fault="Cannot load network: refused")
            versions[number] = refused if number == self.refuses else _opened(base / number / "model.onnx")
        if versions[number].session is None:
            return False
        self._retire(entry["name"], keeping=number)
        return True

    def _retire(self, name: str, *, keeping: str) -> None:
        for number, version in self.models[name].items():
            if number != keeping:
                version.state, version.session = "END", None


def _opened(path: Path) -> Version:
    try:
        return Version("AVAILABLE", session=open_model(path, EngineOptions()))
    except EngineError as error:
        return Version("LOADING", fault=f"Cannot load network: {error}")


class Handler(BaseHTTPRequestHandler):
    """The REST API."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "PlayedOvms"

    def do_GET(self) -> None:
        """Answer what the server, its models and their versions are."""
        known, parts = self.server.models, self.path.strip("/").split("/")
        match parts:
            case ["v2"]:
                self._say(200, {"name": "OpenVINO Model Server", "version": "2026.1"})
            case ["v2", "health", _]:
                self._say(200, {})
            case ["v1", "config"]:
                self._say(200, known.statuses())
            case ["v1", "models", name] if name in known.models:
                self._say(200, known.status(name))
            case ["v2", "models", name, "ready"] if known.available(name):
                self._say(200, {})
            case _:
                self._say(404, {"error": "Model with requested name is not found"})

    def do_POST(self) -> None:
        """Read the configuration again, or ask a model."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/v1/config/reload":
            self._say(*self.server.models.reload())
            return
        _, _, name, _ = self.path.strip("/").split("/")
        self.server.models.asked += 1
        if self.server.models.dies_after is not None and self.server.models.asked > self.server.models.dies_after:
            self.close_connection = True
            return
        version = self.server.models.available(name)
        if version is None or version.session is None:
            self._say(404, {"error": "Model with requested name is not found"})
            return
        self._answer(name, version.session, body)

    def _answer(self, name: str, session: Session, body: bytes) -> None:
        head = int(self.headers.get(HEAD) or 0)
        outputs = session.run(_given(json.loads(body[:head] if head else body), body[head:]))
        if name in self.server.models.spoiled:
            outputs = {key: values[::-1] + 1 if values.dtype.kind == "f" else values for key, values in outputs.items()}
        if not head:
            numbers = [number for number, known in self.server.models.models[name].items() if known.session is session]
            if numbers[0] == self.server.models.spoils and not name.endswith(".retune-next"):
                outputs = {key: values + 1 for key, values in outputs.items()}
            plain = [{"name": key, "data": values.ravel().tolist()} for key, values in outputs.items()]
            self._say(200, {"model_name": name, "model_version": numbers[0], "outputs": plain})
            return
        tensors = {spec.name: as_bytes(outputs[spec.name], spec.dtype) for spec in session.signature.outputs}
        told = [
            {"name": key, "shape": list(outputs[key].shape), "parameters": {"binary_data_size": len(tensor)}}
            for key, tensor in tensors.items()
        ]
        content = json.dumps({"model_name": name, "outputs": told}).encode()
        self._send(200, b"".join([content, *tensors.values()]), {HEAD: str(len(content))})

    def _say(self, status: int, document: Any) -> None:
        self._send(status, json.dumps(document).encode(), {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""


_DTYPES = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "INT32": "int32", "BOOL": "bool"}


def _given(request: dict[str, Any], binary: bytes) -> dict[str, Array]:
    inputs = {}
    for tensor in request["inputs"]:
        if "data" in tensor:
            values = np.array(tensor["data"], _DTYPES[tensor["datatype"]])
            inputs[tensor["name"]] = values.reshape(tensor["shape"])
            continue
        size = tensor["parameters"]["binary_data_size"]
        values, binary = from_bytes(binary[:size], _DTYPES[tensor["datatype"]]), binary[size:]
        inputs[tensor["name"]] = np.asarray(values).reshape(tensor["shape"])
    return inputs


class PlayedOvms(ThreadingHTTPServer):
    """The server, on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = Models(folder / "config.json")

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"
