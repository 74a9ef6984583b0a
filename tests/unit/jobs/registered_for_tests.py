"""Small bundles in a store, and what a Job is asked that registers them."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, save_model

from optimizer_jobs.models.bundle import Lineage, make_bundle, publish
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import Golden, answered
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from retune.api.objects import Comparison
from retune.api.registry import Registry
from retune.api.status import Measurement
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef, RegisterRequest, RegistryEntry

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
STORE = "pvc://retune-artifacts/digits"
REPORT = f"{STORE}/runs/digits-r1/report.html"


def stored(folder: Path, *, weight: float, engine: EngineOptions | None = None) -> BundleRef:
    """Publish a bundle of a model that multiplies four numbers by a weight and adds them up in two ways."""
    folder.mkdir(parents=True)
    values = np.full((4, 2), weight, np.float32)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], values.tobytes(), raw=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n]) for name, n in (("x", 4), ("y", 2))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", ends[:1], ends[1:], [weights])
    model = folder / "delivered.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    options = engine or EngineOptions(spinning=False)
    bundle = make_bundle(
        folder / "bundle",
        model=model,
        engine=options,
        signature=check_onnx(model),
        techniques=("int8 weights",),
        lineage=Lineage(resource="ml/digits", parent="sha256:parent", original_model="sha256:original"),
        golden=Golden(requests=(answered(open_model(model, options), {"x": ROWS}),)),
    )
    return publish(bundle, uri=bundles(STORE))


def entry(bundle: BundleRef, number: int, **fields: Any) -> RegistryEntry:
    """Return a version with the numbers of its run."""
    own, before, change = (Measurement(name="accuracy", value=value) for value in ("0.97", "0.96", "0.01"))
    row = Comparison(name="accuracy", champion=before, candidate=own, change=change)
    said: dict[str, Any] = {"run": f"digits-r{number}", "verdict": "it is 4x smaller", "comparisons": (row,)}
    return RegistryEntry(bundle=bundle, version=number, metrics=(own,), **(said | fields))


def asked(
    champion: RegistryEntry | None = None, challenger: RegistryEntry | None = None, **fields: Any
) -> RegisterRequest:
    """Return the request of a Job."""
    named: dict[str, Any] = {"resource": "ml/digits", "registry": Registry(uri="mlflow://digits")}
    return RegisterRequest(state="state", store=STORE, champion=champion, challenger=challenger, **(named | fields))
