"""Whether servers show the judged speed: `python -m tests.bench.servers` prints a table.

One bundle, whose model computes for tens of milliseconds, is asked in turns: in this process, as the judge asks it, and
by HTTP through each quickstart of examples/servers, one server after the other. Ratios come from calls of the same
rounds. What a server adds of its own (JSON, HTTP, its workers) is the difference that a second bundle shows, which
takes and gives as much and computes next to nothing. Without that part, the rest is the speed of the model there.
"""

import http.client
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.measure.latency import Effort, Timings, interleave_until, ratio
from optimizer_jobs.measure.mix import only
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.engine import Array, EngineOptions
from optimizer_jobs.models.golden import Golden, answered
from optimizer_jobs.models.runtime import open_model, open_session
from optimizer_jobs.signature import Signature
from tests.neighbours.servers.serving import Quickstart, running
from tests.neighbours.servers.test_quickstarts import QUICKSTARTS
from tests.unit.jobs.models_for_tests import IR_VERSION, OPSET

WIDTH = 1024
"""Features of a row."""
DEEP, SHALLOW = 150, 1
"""Products of a row with one matrix."""
HERE, THROUGH = "in this process", "through the server"
QUANTILES = (0.5, 0.95)
EFFORTS = {
    SHALLOW: Effort(half_width=0.02, max_seconds=15.0, block_ms=100.0),
    DEEP: Effort(half_width=0.02, max_seconds=60.0, block_ms=500.0),
}


@dataclass(frozen=True)
class Remote:
    """A model behind HTTP, asked over one connection that is kept."""

    signature: Signature
    path: str
    connection: http.client.HTTPConnection

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the answer to one request, as a client of the Open Inference Protocol gets it."""
        tensors = [
            {"name": name, "shape": list(values.shape), "datatype": "FP32", "data": values.ravel().tolist()}
            for name, values in inputs.items()
        ]
        self.connection.request(
            "POST", self.path, json.dumps({"inputs": tensors}), {"Content-Type": "application/json"}
        )
        answer = json.loads(self.connection.getresponse().read())
        return {each["name"]: np.asarray(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}


def main() -> None:
    """Measure and print the table."""
    own = "its own part, ms"
    table = Table("server", "quantile", f"{HERE}, ms", f"{THROUGH}, ms", "ratio", own, "ratio without it")
    with tempfile.TemporaryDirectory(prefix="served-") as name:
        folder = Path(name)
        bundles = {depth: _bundle(folder / f"made-{depth}", depth) for depth in EFFORTS}
        for quickstart in QUICKSTARTS:
            print(f"{quickstart.name}: about 90 s ...", file=sys.stderr)
            timed = {
                depth: _timed(bundle, quickstart, folder / f"{quickstart.name}-{depth}", EFFORTS[depth])
                for depth, bundle in bundles.items()
            }
            _add(table, quickstart.name, timed)
    Console(width=140).print(table)


def _bundle(folder: Path, depth: int) -> Bundle:
    """Make a bundle of a network whose small file computes as long as it is deep."""
    folder.mkdir()
    weights = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
    names = ["x", *(f"h{index}" for index in range(1, depth)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "deep", tensor[:1], tensor[1:], [numpy_helper.from_array(weights, "w")])
    opsets = [helper.make_opsetid("", OPSET)]
    model = folder / "deep.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), model)
    session = open_model(model, EngineOptions())
    golden = Golden(requests=(answered(session, {"x": np.eye(1, WIDTH, dtype=np.float32)}),))
    return make_bundle(
        folder / "bundle",
        model=model,
        engine=EngineOptions(threads=1),
        signature=session.signature,
        techniques=(),
        lineage=Lineage(resource="ml/deep", original_model=file_digest(model)),
        golden=golden,
    )


@contextmanager
def _remote(quickstart: Quickstart, bundle: Bundle, folder: Path) -> Iterator[Remote]:
    """Serve the bundle by a quickstart until the block ends."""
    with running(quickstart, folder, {"MODEL_URI": f"file://{bundle.folder}"}) as server:
        server.until(server.is_ready, what=f"{quickstart.name} that is ready")
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            yield Remote(bundle.manifest.signature, f"/v2/models/{quickstart.model}/infer", connection)


def _timed(bundle: Bundle, quickstart: Quickstart, folder: Path, effort: Effort) -> dict[str, Timings]:
    """Ask a bundle here and through a quickstart in turns."""
    inputs = {"x": np.random.default_rng(1).standard_normal((64, WIDTH), np.float32)}
    with _remote(quickstart, bundle, folder) as through:
        return interleave_until(
            {HERE: open_session(bundle), THROUGH: through},
            Rows(inputs=inputs, labels=None, digest=""),
            reference=HERE,
            quantiles=QUANTILES,
            confidence=0.95,
            seed=0,
            mix=only(1),
            effort=effort,
        )


def _add(table: Table, name: str, timed: Mapping[int, Mapping[str, Timings]]) -> None:
    """Add a row for each quantile; the server's own part is that of its median request."""
    own = _milliseconds(timed[SHALLOW][THROUGH], 0.5) - _milliseconds(timed[SHALLOW][HERE], 0.5)
    for quantile in QUANTILES:
        here, through = (_milliseconds(timed[DEEP][each], quantile) for each in (HERE, THROUGH))
        found = ratio(timed[DEEP][HERE], timed[DEEP][THROUGH], quantile)
        parts = [f"p{100 * quantile:g}", f"{here:.2f}", f"{through:.2f}", _share(found, 0.0), f"{own:.2f}"]
        table.add_row(name, *parts, _share(found, own / here))


def _milliseconds(timings: Timings, quantile: float) -> float:
    return timings.percentile(quantile).value


def _share(found: Interval, without: float) -> str:
    return f"{found.value - without:.3f} ({found.low - without:.3f}..{found.high - without:.3f})"


if __name__ == "__main__":
    main()
