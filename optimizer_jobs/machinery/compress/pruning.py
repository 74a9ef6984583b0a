"""Remove units or zero weights of a network in rounds, train on after each round, and write the network.

Units are neurons, channels and attention heads; removing them changes shapes inside the network, never its inputs and
outputs. Trees are no networks: see `trees`.
"""

import gzip
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from optimizer_jobs.machinery.compress.layers import graph_of
from optimizer_jobs.technique import Applied, Context, Params, Skipped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from optimizer_jobs.nets.conversion.importer import GraphModule

STRUCTURED = "Structured"
"""Granularity: whole units are removed. Another one is Unstructured: single weights become zero."""
ROWS = "Rows"
"""Granularity: rows of embedding tables share one row; see `rows`."""
WEIGHTS, GRADIENTS = "Weights", "Gradients"
"""What units are ranked by: the size of their weights, or that times the gradients of the loss on training rows."""

_LEAST_UNITS = 4
"""Units of a group below which none is removed."""
_ROUND_EPOCHS, _LAST_EPOCHS = 8, 30
_EXAMPLES = 4


class _CutError(RuntimeError):
    """What is left of the network cannot run; the message says so."""


def prune(model: Path, params: Params, context: Context, *, words: str) -> Applied | Skipped:
    """Prune a network, with the unchanged model as a teacher beside the labels.

    Args:
        model: The ONNX file.
        params: `granularity`, `ratio` (share removed, 0 to 1), `iterations` (rounds), and `importance` of units.
        context: Where the new file goes, and the rows to train on.
        words: What the summary calls these parameters.
    """
    from optimizer_jobs.nets.conversion.exporter import ExportError
    from optimizer_jobs.nets.conversion.importer import not_importable

    reason = not_importable(graph_of(model))
    if reason is not None or context.training is None:
        return Skipped(reason=reason or "there are no rows to train on after something is removed")
    try:
        return _pruned(model, params, context, words)
    except (ExportError, _CutError) as error:
        return Skipped(reason=str(error).removesuffix("."))


def _pruned(model: Path, params: Params, context: Context, words: str) -> Applied | Skipped:
    from optimizer_jobs.nets.conversion.exporter import export
    from optimizer_jobs.nets.conversion.importer import import_module
    from optimizer_jobs.nets.learning.determinism import deterministic
    from optimizer_jobs.nets.learning.loop import train_on

    module, ratio, rounds = import_module(model), float(params["ratio"]), int(params["iterations"])
    cutter = _cutter(module, params, context)
    if cutter.words is None:
        return Skipped(reason="the network has no neurons, channels or heads that can go without changing its outputs")
    for number in range(1, rounds + 1):
        with deterministic(seed=context.seed + number, threads=context.threads):
            cutter.remove(ratio, done=(number - 1) / rounds, until=number / rounds)
        train_on(module, context, model=model, epochs=_LAST_EPOCHS if number == rounds else _ROUND_EPOCHS)
    cutter.finish()
    target = context.workdir / "model.onnx"
    export(module, signature=context.signature, examples=context.examples(_EXAMPLES), target=target)
    return Applied(model=target, summary=f"{words}, {cutter.words}, {cutter.gain(model, target)}")


class _Cutter(Protocol):
    """Takes something out of a network, in place, in several rounds."""

    words: str | None
    """Where it cuts, such as `neurons of 2 layers`; None when there is nothing to cut."""

    def remove(self, ratio: float, *, done: float, until: float) -> None:
        """Raise what is removed, as a share of `ratio`, from `done` to `until`, both from 0 to 1."""

    def finish(self) -> None:
        """Make the network ready to be written."""

    def gain(self, before: Path, after: Path) -> str:
        """Return in words how much smaller the file became."""


def _cutter(module: "GraphModule", params: Params, context: Context) -> _Cutter:
    if params["granularity"] == STRUCTURED:
        return _Units(module, context, by_gradients=params.get("importance", WEIGHTS) == GRADIENTS)
    return _Weights(module)


class _Units:
    """Removes the least important units of every group, the same share of each."""

    def __init__(self, module: "GraphModule", context: Context, *, by_gradients: bool) -> None:
        import torch

        from optimizer_jobs.nets.surgery.groups import groups, shapes_of

        self._module, self._context, self._by_gradients = module, context, by_gradients
        self._examples = tuple(torch.from_numpy(values) for values in context.examples(_EXAMPLES).values())
        self._shapes = shapes_of(module, self._examples)
        large = [group for group in groups(module, self._examples) if group.units >= _LEAST_UNITS]
        self._groups = [(group, group.units) for group in large]
        kinds = dict.fromkeys(group.kind for group in large)
        self.words = f"{' and '.join(kinds)} of {len(large)} layers" if large else None

    def remove(self, ratio: float, *, done: float, until: float) -> None:
        from optimizer_jobs.nets.surgery.gradients import with_gradients
        from optimizer_jobs.nets.surgery.groups import EndlessError, runs

        try:
            with with_gradients(self._module, self._context) if self._by_gradients else nullcontext():
                for group, units in self._groups:
                    keep = max(1, round(units * (1 - ratio * until)))
                    if group.units > keep:
                        group.shrink(keep)
        except EndlessError as error:
            raise _CutError(str(error)) from error
        if not runs(self._module, self._examples, self._shapes):
            raise _CutError(f"the network no longer fits together without {100 * ratio * until:.3g} % of its units")

    def finish(self) -> None:
        """Do nothing: the units are gone."""

    def gain(self, before: Path, after: Path) -> str:
        return f"{after.stat().st_size / before.stat().st_size:.2f} of the size"


class _Weights:
    """Sets the smallest weights of all layers to zero, and keeps them there in training."""

    def __init__(self, module: "GraphModule") -> None:
        self._module = module
        self.words: str | None = f"in {len(self._weights())} layers"

    def remove(self, ratio: float, *, done: float, until: float) -> None:
        from torch.nn.utils import prune as torch_prune

        amount = 1 - (1 - ratio * until) / (1 - ratio * done)
        torch_prune.global_unstructured(
            self._weights(),
            pruning_method=torch_prune.L1Unstructured,
            importance_scores=self._scores(),
            amount=amount,
        )

    def finish(self) -> None:
        """Store the zeros in the weights themselves."""
        from torch.nn.utils import prune as torch_prune

        for layer, name in self._weights():
            torch_prune.remove(layer, name)

    def gain(self, before: Path, after: Path) -> str:
        """Return how much smaller the compressed file is: only compression makes use of zeros."""
        compressed = {path: len(gzip.compress(path.read_bytes(), mtime=0)) for path in (before, after)}
        return f"the same size, {compressed[after] / compressed[before]:.2f} of it when compressed"

    def _weights(self) -> list[tuple["nn.Module", str]]:
        """Return the layers with the name of their weight, as torch's pruning takes them."""
        from torch import nn

        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        return [(layer, "weight") for layer in self._module.modules() if isinstance(layer, kinds)]

    def _scores(self) -> Mapping[tuple["nn.Module", str], "Tensor"]:
        return {(layer, name): _lamp(layer.weight) for layer, name in self._weights()}


def _lamp(weight: Any) -> Any:
    """Return the LAMP score of each weight of a layer (Lee et al., 2021), in the shape of the weight.

    It is the square of the weight as a share of the squares of all weights of the layer that are no smaller. Such
    scores compare over all layers, so no layer loses everything because its weights are small.
    """
    squares, order = weight.detach().flatten().square().sort(stable=True)
    rest = squares.flip(0).cumsum(0).flip(0).clamp_min(1e-30)
    shares = squares.new_empty(len(squares))
    shares[order] = squares / rest
    return shares.reshape(weight.shape)
