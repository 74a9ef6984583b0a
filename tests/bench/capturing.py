"""What it costs a model server to capture its requests: `python -m tests.bench.capturing` prints a table.

The example's server twice, each a process of its own in its image: one captures, one does not. One client asks both the
same digits in turns, in short blocks in random order, as fast as they answer. Ratios come from blocks of the same
round; what was written and what was dropped is what the capturing server counts.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.latency import Effort, Timings, interleave_until, ratio
from optimizer_jobs.measure.mix import only
from optimizer_jobs.models.engine import Array
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.signature import Signature
from tests.bench.measured import fetch, until
from tests.unit.jobs import models_for_tests as models
from tools.localcluster.controlplane import free_ports
from tools.localcluster.inside import SHARED
from tools.localcluster.settings import REPOSITORY, load

PLAIN, CAPTURING = "no capture", "capture"
QUANTILES = (0.5, 0.95, 0.99)
ROWS = 8
"""Rows a request."""
EFFORT = Effort(half_width=0.01, max_seconds=120.0, block_ms=400.0)
START_SECONDS = 180.0
"""The image is built first where it is not there yet."""
_LAST_WORDS = 2000


@dataclass(frozen=True)
class Server:
    """A running server, asked over one connection that is kept."""

    signature: Signature
    metrics_port: int
    connection: http.client.HTTPConnection

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the scores of one batch, as a client of the Open Inference Protocol gets them."""
        tensors = [
            {"name": name, "shape": list(values.shape), "datatype": "FP32", "data": values.ravel().tolist()}
            for name, values in inputs.items()
        ]
        body = json.dumps({"id": str(uuid.uuid4()), "inputs": tensors})
        self.connection.request("POST", "/v2/models/digits/infer", body, {"Content-Type": "application/json"})
        answer = json.loads(self.connection.getresponse().read())
        return {each["name"]: np.asarray(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}

    def counted(self, name: str) -> float:
        """Return the sum of a counter over its labels."""
        text = fetch(self.metrics_port, "/metrics") or ""
        return sum(map(float, re.findall(rf"^{name}_total(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def main() -> None:
    """Measure and print the table."""
    digits, _ = models.digits("test")
    rows = Rows(inputs={"x": digits}, labels=None, digest="")
    shared = load().cache / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="capturing-", dir=shared) as folder, ExitStack() as stack:
        model = models.save_mlp(Path(folder) / "model.onnx", models.fit_mlp())
        servers = {name: stack.enter_context(_serving(name, model)) for name in (PLAIN, CAPTURING)}
        print(f"asking both servers for {EFFORT.max_seconds:g} s at most ...", file=sys.stderr)
        began = time.monotonic()
        timings = interleave_until(
            servers, rows, reference=PLAIN, quantiles=QUANTILES, confidence=0.95, seed=0, mix=only(ROWS), effort=EFFORT
        )
        Console(width=100).print(_table(timings, servers[CAPTURING], seconds=time.monotonic() - began))


@contextmanager
def _serving(name: str, model: Path) -> Iterator[Server]:
    """Run a server in its image until the block ends."""
    folder = model.parent / name.replace(" ", "-")
    folder.mkdir()
    http_port, grpc_port, metrics_port = free_ports(3)
    ports = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    _write(folder / "settings.json", {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", **ports})
    _write(
        folder / "model-settings.json",
        {
            "name": "digits",
            "implementation": "retune_model.BundleModel",
            "parameters": {"uri": f"pvc://{model.parent.name}/{model.name}"},
        },
    )
    captured = [f"CAPTURE_URI=pvc://{model.parent.name}/captured"] if name == CAPTURING else []
    path = ":".join(str(REPOSITORY / part) for part in ("operator", "", "tools/runtime", "examples/servers/mlserver"))
    settings = [f"PYTHONPATH={path}", f"RETUNE_CLAIM_ROOT={model.parent.parent}", *captured]
    words = ["env", *settings, "mlserver", "start", str(folder)]
    inside = [sys.executable, "-m", "tools.localcluster", "inside", "digits-server", "--", *words]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(inside, stdout=log, stderr=log, start_new_session=True)
    try:
        _until_ready(process, http_port, log=folder / "log")
        with closing(http.client.HTTPConnection("127.0.0.1", http_port, timeout=30)) as connection:
            yield Server(check_onnx(model), metrics_port, connection)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGINT)
        process.wait()


def _until_ready(process: subprocess.Popen[bytes], port: int, *, log: Path) -> None:
    """Wait for a server; ends the program with the server's last words when it ends or takes too long."""
    try:
        until(
            lambda: process.poll() is not None or fetch(port, "/v2/models/digits/ready") is not None,
            what="ready server",
            seconds=START_SECONDS,
        )
    except SystemExit as late:
        raise SystemExit(f"{late}: {log.read_text()[-_LAST_WORDS:]}") from None
    if process.poll() is not None:
        raise SystemExit(f"the server ended: {log.read_text()[-_LAST_WORDS:]}")


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(settings))


def _table(timings: Mapping[str, Timings], capturing: Server, *, seconds: float) -> Table:
    title = f"Requests of {ROWS} digits over HTTP, one client, {timings[PLAIN].calls} requests to each server"
    table = Table("", PLAIN, CAPTURING, "ratio", title=title)
    for quantile in QUANTILES:
        plain, own = (timings[name].percentile(quantile) for name in (PLAIN, CAPTURING))
        found = ratio(timings[PLAIN], timings[CAPTURING], quantile)
        table.add_row(
            f"p{100 * quantile:g}, ms",
            f"{plain.value:.3f}",
            f"{own.value:.3f}",
            f"{found.value:.3f} ({found.low:.3f}..{found.high:.3f})",
        )
    written, dropped = capturing.counted("retune_capture_rows"), capturing.counted("retune_capture_dropped_rows")
    table.add_row("rows captured", "", f"{written:.0f}", f"{written / seconds:.0f} a second of the whole bench")
    table.add_row("rows dropped", "", f"{dropped:.0f}", "")
    return table


if __name__ == "__main__":
    main()
