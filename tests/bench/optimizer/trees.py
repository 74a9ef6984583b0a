"""Which numbers ONNX Runtime compares in trees, and what smaller ones gain: `python -m tests.bench.optimizer.trees`.

The first table says which operators and types of input open at all. The second one has the boosted trees of the bench
in each form that opens, in bytes and in time of a request. What thresholds of fewer bits can gain is the distance
between float32 and the whole numbers of an input that was binned beforehand. The result is in docs/techniques.md.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from optimizer_jobs.machinery.trees import nodes
from optimizer_jobs.machinery.trees.ensemble import Ensemble
from optimizer_jobs.measure.fingerprint import fingerprint

Array = NDArray[Any]

TYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8")
VERSIONS = {nodes.NEWER: 5, nodes.REGRESSOR: 3, nodes.CLASSIFIER: 3}
"""Operators with the version of the domain in which they are written."""
_ROWS, _ROUNDS = (1, 1000), 40
_ASKED = 500
"""Rows that a round asks, or a single request of more."""
_FEATURES = "features"


def missing(opens: Callable[[ModelProto], object] | None = None) -> str | None:
    """Return why trees cannot be measured here, in words, or None: Retune writes them in version 5 of the domain.

    Args:
        opens: Opens a model or raises; by default ONNX Runtime.
    """
    import onnxruntime

    try:
        (opens or _session)(_stump(nodes.NEWER, "float32"))
    except Exception as error:  # noqa: BLE001 - whatever the engine raises is the reason
        reason = " ".join(str(error).split())[:200]
        return (
            f"ONNX Runtime {onnxruntime.__version__} does not run operator TreeEnsemble of ai.onnx.ml 5, in which "
            f"Retune writes trees ({reason}): install the version that pyproject.toml names"
        )
    return None


def opening(opens: Callable[[ModelProto], object] | None = None) -> dict[str, dict[str, bool]]:
    """Return by operator and type of input whether ONNX Runtime opens a tree."""
    return {kind: {dtype: _opened(kind, dtype, opens or _session) for dtype in TYPES} for kind in VERSIONS}


def _opened(kind: str, dtype: str, opens: Callable[[ModelProto], object]) -> bool:
    try:
        opens(_stump(kind, dtype))
    except Exception:  # noqa: BLE001 - the engine raises one of several errors
        return False
    return True


def _session(model: ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _stump(kind: str, dtype: str) -> ModelProto:
    """Return a tree of one comparison; its numbers have the type of its input, as far as the operator lets them."""
    number = np.dtype(dtype) if kind == nodes.NEWER else np.dtype(np.float32)
    tree = Ensemble(
        roots=np.array([0]),
        mode=np.array(["BRANCH_LEQ", "LEAF", "LEAF"]),
        feature=np.zeros(3, dtype=np.int64),
        threshold=np.array([1, 0, 0]).astype(number),
        yes=np.array([1, 0, 0]),
        no=np.array([2, 0, 0]),
        missing_yes=np.zeros(3, dtype=bool),
        values=np.array([[0.0], [1.0], [2.0]]),
        used=np.array([[False], [True], [True]]),
        base=np.zeros(1),
    )
    return graph_of(tree, kind, dtype, features=1)


def graph_of(ensemble: Ensemble, kind: str, dtype: str, *, features: int) -> ModelProto:
    """Return a model of one node that adds the trees up."""
    width = len(ensemble.base)
    outputs = ["label", "sums"] if kind == nodes.CLASSIFIER else ["sums"]
    labels = {"classlabels_int64s": list(range(max(width, 2)))} if kind == nodes.CLASSIFIER else {"n_targets": width}
    node = helper.make_node(kind, [_FEATURES], outputs, domain=nodes.DOMAIN, **labels)
    if kind == nodes.NEWER:
        node.attribute.append(helper.make_attribute("post_transform", 0))
    nodes.write(ensemble, node)
    kinds = {"label": onnx.TensorProto.INT64, "sums": onnx.TensorProto.FLOAT}
    if kind == nodes.NEWER:
        kinds["sums"] = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info(_FEATURES, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [None, features])],
        [helper.make_tensor_value_info(name, kinds[name], None) for name in outputs],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(nodes.DOMAIN, VERSIONS[kind])]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


@dataclass(frozen=True)
class _Form:
    """The same trees in one form, with the rows that it takes."""

    model: ModelProto
    rows: Array


def binned(ensemble: Ensemble, X: Array) -> tuple[Ensemble, Array, list[Array]]:
    """Return trees that compare numbers of bins, rows (N, F) as such numbers, and the limits of each column.

    The bin of a number is how many of the column's thresholds are below it, so every comparison comes out as before.

    Raises:
        ValueError: The trees compare otherwise than with "at most".
    """
    inner = ~ensemble.is_leaf
    if set(ensemble.mode[inner].tolist()) != {"BRANCH_LEQ"}:
        raise ValueError("only trees that compare with BRANCH_LEQ are binned")
    limits = [np.unique(ensemble.threshold[inner & (ensemble.feature == column)]) for column in range(X.shape[1])]
    threshold = ensemble.threshold.copy()
    for column, values in enumerate(limits):
        own = inner & (ensemble.feature == column)
        threshold[own] = np.searchsorted(values, ensemble.threshold[own])
    bins = np.stack([np.searchsorted(values, X[:, column]) for column, values in enumerate(limits)], axis=1)
    return replace(ensemble, threshold=threshold), bins, limits


def with_binning(trees: ModelProto, limits: Sequence[Array]) -> ModelProto:
    """Return trees of bins that find the bins of an input of float32 themselves, by comparing with all limits."""
    most = max(1, *(len(values) for values in limits))
    table = np.full((1, len(limits), most), np.inf, dtype=np.float32)
    for column, values in enumerate(limits):
        table[0, column, : len(values)] = values
    model = ModelProto()
    model.CopyFrom(trees)
    graph, axis = model.graph, numpy_helper.from_array(np.array([2], dtype=np.int64), "axis")
    graph.initializer.extend([numpy_helper.from_array(table, "limits"), axis])
    graph.node[0].input[0] = "bins"
    graph.input[0].name = "x"
    kind = graph.input[0].type.tensor_type.elem_type
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    made = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["columns"]),
        helper.make_node("Greater", ["columns", "limits"], ["above"]),
        helper.make_node("Cast", ["above"], ["ones"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "axis"], ["places"], keepdims=0),
        helper.make_node("Cast", ["places"], ["bins"], to=kind),
    ]
    trees_node = graph.node[0]
    del graph.node[:]
    graph.node.extend([*made, trees_node])
    return model


def forms(model: ModelProto, X: Array) -> dict[str, _Form]:
    """Return the trees of a file in each form that ONNX Runtime opens, by its name."""
    (node,) = nodes.ensembles(model)
    trees = nodes.read(node)
    trees = replace(trees, threshold=trees.threshold.astype(np.float32))
    of_bins, bins, limits = binned(trees, X)
    wide = replace(trees, threshold=trees.threshold.astype(np.float64))
    made = {
        "version 3, float32": _Form(graph_of(trees, nodes.REGRESSOR, "float32", features=X.shape[1]), X),
        "version 5, float32": _Form(graph_of(trees, nodes.NEWER, "float32", features=X.shape[1]), X),
        "version 5, float64": _Form(graph_of(wide, nodes.NEWER, "float64", features=X.shape[1]), X.astype(np.float64)),
        "version 5, bins as float32": _Form(
            graph_of(of_bins, nodes.NEWER, "float32", features=X.shape[1]), bins.astype(np.float32)
        ),
        "version 3 of a classifier, bins as int32": _Form(
            graph_of(of_bins, nodes.CLASSIFIER, "int32", features=X.shape[1]), bins.astype(np.int32)
        ),
    }
    binning = with_binning(made["version 5, bins as float32"].model, limits)
    return made | {"version 5, bins found in the graph": _Form(binning, X)}


def timed(made: Mapping[str, _Form]) -> dict[str, dict[int, float]]:
    """Return the time of a request in seconds by form and rows: of the fastest round, all measured in turns.

    Every call of a round asks other rows, because a processor learns the way of a row that it has just seen.
    """
    sessions = {name: _session(form.model) for name, form in made.items()}
    fastest = {name: dict.fromkeys(_ROWS, math.inf) for name in made}
    for _ in range(_ROUNDS):
        for rows in _ROWS:
            for name, form in made.items():
                session = sessions[name]
                asked = [{session.get_inputs()[0].name: part} for part in _requests(form.rows, rows)]
                began = time.perf_counter()
                for inputs in asked:
                    session.run(None, inputs)
                fastest[name][rows] = min(fastest[name][rows], (time.perf_counter() - began) / len(asked))
    return fastest


def _requests(rows: Array, size: int) -> list[Array]:
    """Return the requests of a round, each of `size` rows."""
    count = max(1, _ASKED // size)
    return list(np.resize(rows, (count, size, rows.shape[1])))


def main() -> None:
    """Print both tables."""
    import onnxruntime

    from tests.bench.optimizer.subjects import SUBJECTS

    console = Console(width=150)
    console.print(f"{fingerprint().short}, ONNX Runtime {onnxruntime.__version__}, one thread")
    if (words := missing()) is not None:
        raise SystemExit(words)
    opened = Table("operator", *TYPES, title="types of input that open", title_justify="left", box=None)
    for kind, by_type in opening().items():
        opened.add_row(f"{kind} of version {VERSIONS[kind]}", *("yes" if yes else "-" for yes in by_type.values()))
    console.print(opened)
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as folder:
        next(subject for subject in SUBJECTS if subject.name == "boosted-trees").make(Path(folder))
        X = np.load(Path(folder) / "test.npz")["x"]
        made = forms(onnx.load(Path(folder) / "model.onnx"), X)
    times = timed(made)
    measured = Table("form", "bytes", *(f"{rows} rows, us" for rows in _ROWS), title="600 trees", box=None)
    for name, form in made.items():
        spent = [f"{1e6 * times[name][rows]:.4g}" for rows in _ROWS]
        measured.add_row(name, str(form.model.ByteSize()), *spent)
    console.print(measured)


if __name__ == "__main__":
    main()
