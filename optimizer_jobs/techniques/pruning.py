"""Technique Pruning: fewer neurons, channels and attention heads, or zero weights, and training on afterwards.

Structured pruning takes units out of the graph, so that every engine is faster. Unstructured pruning leaves the graph
as it is: only a compressed file gains, and the summary says how much.
"""

import gzip
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer_jobs.machinery.compress import trees
from optimizer_jobs.machinery.compress.layers import graph_of
from optimizer_jobs.machinery.training.fit import unchangeable
from optimizer_jobs.machinery.training.parameters import told
from optimizer_jobs.technique import Applied, Context, Params, ParamValue, Skipped, Subject
from retune.api.techniques import Pruning, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    import onnx
    from optuna.trial import BaseTrial

TYPE = TechniqueType.PRUNING
CHEAP = False
TRAINS = False

OFF = "Off"
STRUCTURED, UNSTRUCTURED = "Structured", "Unstructured"
WEIGHTS, GRADIENTS = "Weights", "Gradients"
"""What units are ranked by: the size of their weights, or that times the gradients of the loss on training rows."""
_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the largest ratio that are tried."""
_LEAST_UNITS = 4
_ROUND_EPOCHS, _LAST_EPOCHS = 8, 30
_EXAMPLES = 4


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return why nothing of this model can be removed and trained on."""
    return trees.unavailable(subject) if trees.present(subject.graph) else unchangeable(subject)


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose what is removed and how much of it."""
    settings = _settings(spec)
    kind = str(trial.suggest_categorical(f"{spec.name}.granularity", (OFF, *settings.granularity)))
    share = float(trial.suggest_categorical(f"{spec.name}.share", _SHARES))
    importance = str(trial.suggest_categorical(f"{spec.name}.importance", (WEIGHTS, GRADIENTS)))
    if kind == OFF:
        return None
    params: Params = {"granularity": kind, "ratio": round(share * float(settings.max_ratio), 4)}
    further: Params = {"importance": importance} if kind == STRUCTURED else {}
    return params | further | {"iterations": settings.iterations}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return half of the largest ratio, and all of it, for each granularity."""
    usual = off(spec, subject)
    return tuple(
        usual | told(spec.name, {"granularity": kind, "share": share})
        for kind in _settings(spec).granularity
        for share in (0.5, 1.0)
    )


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return a model that keeps everything."""
    return told(spec.name, {"granularity": OFF, "share": 0.5, "importance": WEIGHTS})


def describe(params: Params) -> str:
    """Return what is removed, such as `pruned by 50 %`."""
    what = "pruned by" if params["granularity"] == STRUCTURED else "weights zeroed by"
    return f"{what} {100 * float(params['ratio']):.3g} %"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Remove trees, units or weights, and write what is left; a network trains on after each round."""
    graph = graph_of(model)
    return trees.prune(model, params, context) if trees.present(graph) else _prune(model, graph, params, context)


def _prune(model: Path, graph: "onnx.ModelProto", params: Params, context: Context) -> Applied | Skipped:
    """Prune a network; trees come without torch, so it is imported here and not before."""
    from optimizer_jobs.nets.conversion.exporter import ExportError
    from optimizer_jobs.nets.conversion.importer import not_importable

    reason = not_importable(graph)
    if reason is not None or context.training is None:
        return Skipped(reason=reason or "there are no rows to train on after something is removed")
    try:
        return _pruned(model, params, context)
    except (ExportError, _CutError) as error:
        return Skipped(reason=str(error).removesuffix("."))


class _CutError(RuntimeError):
    """What is left of the network is none; the message says so."""


def _pruned(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Prune a network, with the model before the change as a teacher beside the labels."""
    from optimizer_jobs.nets.conversion.exporter import export
    from optimizer_jobs.nets.conversion.importer import import_module
    from optimizer_jobs.nets.learning.determinism import deterministic
    from optimizer_jobs.nets.learning.loop import train_on

    module, ratio, rounds = import_module(model), float(params["ratio"]), int(params["iterations"])
    structured = params["granularity"] == STRUCTURED
    cut = (
        _Structured(module, context, ranked_by=params.get("importance", WEIGHTS))
        if structured
        else _Unstructured(module)
    )
    if cut.words is None:
        return Skipped(reason="the network has no neurons, channels or heads that can go without changing its outputs")
    for number in range(1, rounds + 1):
        with deterministic(seed=context.seed + number, threads=context.threads):
            cut.remove(ratio, done=(number - 1) / rounds, until=number / rounds)
        train_on(module, context, model=model, epochs=_LAST_EPOCHS if number == rounds else _ROUND_EPOCHS)
    cut.finish()
    target = context.workdir / "model.onnx"
    export(module, signature=context.signature, examples=context.examples(_EXAMPLES), target=target)
    return Applied(model=target, summary=f"{describe(params)}, {cut.words}, {cut.gained(model, target)}")


class _Structured:
    """Removes the least important units of every group, the same share of each."""

    def __init__(self, module: Any, context: Context, *, ranked_by: ParamValue) -> None:
        import torch

        from optimizer_jobs.nets.surgery.groups import groups, shapes_of

        self._module, self._context, self._by_gradients = module, context, ranked_by == GRADIENTS
        self._rows = tuple(torch.from_numpy(values) for values in context.examples(_EXAMPLES).values())
        self._shapes = shapes_of(module, self._rows)
        found = [group for group in groups(module, self._rows) if group.units >= _LEAST_UNITS]
        self._groups = [(group, group.units) for group in found]
        kinds = dict.fromkeys(group.kind for group in found)
        self.words = f"{' and '.join(kinds)} of {len(found)} layers" if found else None

    def remove(self, ratio: float, *, done: float, until: float) -> None:
        """Bring the share removed from `done` to `until` of the ratio."""
        from optimizer_jobs.nets.surgery.gradients import with_gradients
        from optimizer_jobs.nets.surgery.groups import runs

        with with_gradients(self._module, self._context) if self._by_gradients else nullcontext():
            for group, before in self._groups:
                keep = max(1, round(before * (1 - ratio * until)))
                if group.units > keep:
                    group.shrink(keep)
        if not runs(self._module, self._rows, self._shapes):
            raise _CutError(f"the network no longer fits together without {100 * ratio * until:.3g} % of its units")

    def finish(self) -> None:
        """Nothing is left to do: the units are gone."""

    def gained(self, model: Path, target: Path) -> str:
        """Return how much smaller the file is."""
        return f"{target.stat().st_size / model.stat().st_size:.2f} of the size"


class _Unstructured:
    """Sets the smallest weights of all layers to zero, and keeps them there while training."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.words = f"in {len(self._weights())} layers"

    def remove(self, ratio: float, *, done: float, until: float) -> None:
        """Zero more of the weights that are left, up to `until` of the ratio."""
        from torch.nn.utils import prune

        amount = 1 - (1 - ratio * until) / (1 - ratio * done)
        scores = {(layer, name): _share_of_larger(layer.weight) for layer, name in self._weights()}
        prune.global_unstructured(
            self._weights(), pruning_method=prune.L1Unstructured, importance_scores=scores, amount=amount
        )

    def finish(self) -> None:
        """Make the zeros part of the weights."""
        from torch.nn.utils import prune

        for layer, name in self._weights():
            prune.remove(layer, name)

    def gained(self, model: Path, target: Path) -> str:
        """Return how much smaller the file is once compressed, which is all that zeros buy."""
        before, after = (len(gzip.compress(path.read_bytes(), mtime=0)) for path in (model, target))
        return f"the same size, {after / before:.2f} of it when compressed"

    def _weights(self) -> list[tuple[Any, str]]:
        from torch import nn

        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        return [(layer, "weight") for layer in self._module.modules() if isinstance(layer, kinds)]


def _share_of_larger(weight: Any) -> Any:
    """Return the square of each weight as a share of the squares of its layer's weights that are no smaller.

    Compared over all layers, as LAMP does it (Lee et al., 2021), no layer loses everything because its scale is small.
    """
    squares, order = weight.detach().flatten().square().sort(stable=True)
    rest = squares.flip(0).cumsum(0).flip(0).clamp_min(1e-30)
    shares = squares.new_empty(len(squares))
    shares[order] = squares / rest
    return shares.reshape(weight.shape)


def _settings(spec: TechniqueSpec) -> Pruning:
    return spec.pruning or Pruning()
