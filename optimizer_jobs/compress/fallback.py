"""Return to float the layers that quantization hurts most, until the quality limits hold.

Layers are ranked by an error that is measured, layer by layer, between the quantized and the float model on real rows;
nothing is assumed from a layer's kind or place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from optimizer_jobs.compress.calibration import batches as batches_of
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.techniques.base import Context

if TYPE_CHECKING:
    from onnx import NodeProto

RANKING_ROWS = 64
"""Rows on which layers are compared."""
_NAMED = 3
"""Layers that a summary names."""


class Quantize(Protocol):
    """Writes the quantized model to `target` with the nodes in `kept` left in float."""

    def __call__(self, target: Path, kept: Sequence[str]) -> None:
        """Write the file."""


@dataclass(frozen=True)
class Outcome:
    """Which layers stayed in float, and whether that was enough."""

    kept: tuple[str, ...]
    missed: float
    """What is still missing to the limits; 0 or less keeps them."""

    def words(self, layers: int) -> str:
        """The outcome in a few words."""
        if not self.kept:
            return f"{layers} layers" if self.missed <= 0 else f"{layers} layers, quality limit missed"
        ending = "" if self.missed <= 0 else ", quality limit still missed"
        return f"{len(self.kept)} of {layers} layers reverted to float{ending}"


def revert_worst(
    quantized: Path,
    prepared: Path,
    *,
    layers: Sequence[str],
    quantize: Quantize,
    shortfall: Callable[[Path], float],
    batches: Sequence[Mapping[str, Any]],
) -> Outcome:
    """Rewrite `quantized` with ever more of the worst layers in float: 1, 2, 4 and so on, at most half of them.

    When not even that is enough, the file is left with all layers quantized: the search sees it miss the limit.
    """
    missed = shortfall(quantized)
    if missed <= 0:
        return Outcome(kept=(), missed=missed)
    worst = rank(quantized, prepared, layers=layers, batches=batches)
    for count in _counts(most=(len(layers) + 1) // 2):
        quantize(quantized, worst[:count])
        left = shortfall(quantized)
        if left <= 0:
            return Outcome(kept=tuple(worst[:count]), missed=left)
    quantize(quantized, ())
    return Outcome(kept=(), missed=missed)


def worst(
    quantized: Path, prepared: Path, *, layers: Sequence[str], count: int, rows: Rows, context: Context
) -> tuple[str, ...]:
    """Return the names of the layers that quantization hurts most on rows that may be observed."""
    few = batches_of(rows.take(slice(min(len(rows), RANKING_ROWS))), context)
    return rank(quantized, prepared, layers=layers, batches=few)[:count]


def named(layers: Sequence[str]) -> str:
    """Return the names of layers, the first few of many."""
    more = len(layers) - _NAMED
    return ", ".join(layers[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def rank(
    quantized: Path, prepared: Path, *, layers: Sequence[str], batches: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the layers by the noise each adds to what flows through it, worst first; ties keep the graph's order.

    A layer is followed by those that feed it: its input is in float only when they leave their output so.
    """
    import onnx

    noise = _noise(quantized, prepared, batches)
    nodes = onnx.load(prepared).graph.node
    by_name = {node.name: node for node in nodes}

    def added(name: str) -> float:
        incoming = max((noise.get(tensor, 0.0) for tensor in by_name[name].input), default=0.0)
        return noise.get(_first_kept(by_name[name].output[0], nodes, kept=noise), 0.0) - incoming

    order: dict[str, None] = {}
    for name in sorted(layers, key=added, reverse=True):
        order |= dict.fromkeys([name, *_feeding(by_name[name], nodes, layers=set(layers))])
    return tuple(order)


def _counts(*, most: int) -> list[int]:
    """Return 1, 2, 4 and so on below `most`, and `most`."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def _feeding(node: "NodeProto", nodes: "Sequence[NodeProto]", *, layers: set[str]) -> list[str]:
    """Return the nearest layers upstream, looking through everything that is not a layer."""
    producers = {tensor: producer for producer in nodes for tensor in producer.output}
    found, waiting, seen = [], list(node.input), set[str]()
    while waiting:
        tensor = waiting.pop()
        producer = producers.get(tensor)
        if producer is None or tensor in seen:
            continue
        seen.add(tensor)
        if producer.name in layers:
            found.append(producer.name)
        else:
            waiting.extend(producer.input)
    return found


def _first_kept(tensor: str, nodes: "Sequence[NodeProto]", *, kept: Mapping[str, float]) -> str:
    """Return the first tensor downstream that the quantized model still has: it folds activations into layers."""
    while tensor not in kept:
        follower = next((node for node in nodes if tensor in node.input), None)
        if follower is None:
            break
        tensor = follower.output[0]
    return tensor


def _noise(quantized: Path, prepared: Path, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return, for each tensor in both models, the noise power relative to the signal's, from 0 to 1.

    A tensor that is all noise cannot get worse, so what lies downstream of the culprit is not blamed. Where a tensor
    is quantized, the value that its readers get is compared: before that, a folded activation is still missing.
    """
    from onnxruntime.quantization.qdq_loss_debug import compute_signal_to_quantization_noice_ratio
    from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX

    first, second = _activations(prepared, batches), _activations(quantized, batches)
    read = {name: second.get(f"{name}{DEQUANT_OUTPUT_SUFFIX}", second.get(name)) for name in first}
    return {
        name: min(1.0, float(10 ** (-compute_signal_to_quantization_noice_ratio(first[name], values) / 10)))
        for name, values in read.items()
        if values is not None
    }


def _activations(model: Path, batches: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return every float tensor inside the model, a list with one array a batch."""
    from onnxruntime.quantization.qdq_loss_debug import collect_activations, modify_model_output_intermediate_tensors

    augmented = model.with_suffix(".augmented.onnx")
    modify_model_output_intermediate_tensors(str(model), str(augmented))
    try:
        return dict(collect_activations(str(augmented), iter(batches)))
    finally:
        augmented.unlink()
