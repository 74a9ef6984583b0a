"""Technique Pruning: fewer neurons, channels and attention heads, or zero weights, and training on afterwards.

Structured pruning takes units out of the graph, so that every engine is faster. Unstructured pruning leaves the graph
as it is: only a compressed file gains, and the summary says how much.
"""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer_jobs.compress import trees
from optimizer_jobs.techniques.base import Applied, Context, Params, Skipped, Subject
from optimizer_jobs.tune.fit import unchangeable
from optimizer_jobs.tune.parameters import told
from retune.api.techniques import Pruning, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.PRUNING
CHEAP = False
TRAINS = False

OFF = "Off"
STRUCTURED, UNSTRUCTURED = "Structured", "Unstructured"
_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the largest ratio that are tried."""
_LEAST_UNITS = 4
_ROUND_EPOCHS, _LAST_EPOCHS = 4, 15
_EXAMPLES = 4


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return why nothing of this model can be removed and trained on."""
    return trees.unavailable(subject) if trees.present(subject.graph) else unchangeable(subject)


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose what is removed and how much of it."""
    settings = _settings(spec)
    kind = str(trial.suggest_categorical(f"{spec.name}.granularity", (OFF, *settings.granularity)))
    share = float(trial.suggest_categorical(f"{spec.name}.share", _SHARES))
    if kind == OFF:
        return None
    ratio = round(share * float(settings.max_ratio), 4)
    return {"granularity": kind, "ratio": ratio, "iterations": settings.iterations}


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
    return told(spec.name, {"granularity": OFF, "share": 0.5})


def describe(params: Params) -> str:
    """Return what is removed, such as `pruned by 50 %`."""
    what = "pruned by" if params["granularity"] == STRUCTURED else "weights zeroed by"
    return f"{what} {100 * float(params['ratio']):.3g} %"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Remove units or weights in rounds, training on after each, and write what is left."""
    from optimizer_jobs.techniques.files import graph_of

    graph = graph_of(model)
    if trees.present(graph):
        return trees.prune(model, params, context)
    from optimizer_jobs.nets.determinism import deterministic
    from optimizer_jobs.nets.importer import import_module, not_importable

    reason = not_importable(graph)
    if reason is not None or context.training is None:
        return Skipped(reason=reason or "there are no rows to train on after something is removed")
    with deterministic(seed=context.seed, threads=context.threads):
        module = import_module(model)
        cut = _Structured(module, context) if params["granularity"] == STRUCTURED else _Unstructured(module)
        words = cut.start()
        if words is None:
            return Skipped(
                reason="the network has no neurons, channels or heads that can go without changing its outputs"
            )
    _remove(cut, params, model, context)
    return _written(cut, model, context, words=[describe(params), words])


def _remove(cut: "_Structured | _Unstructured", params: Params, model: Path, context: Context) -> None:
    """Remove and train on in turns, with the model before the change as a teacher beside the labels."""
    from optimizer_jobs.nets.determinism import deterministic
    from optimizer_jobs.nets.loop import train_on

    rounds = int(params["iterations"])
    for number in range(1, rounds + 1):
        with deterministic(seed=context.seed + number, threads=context.threads):
            cut.remove(float(params["ratio"]), done=(number - 1) / rounds, until=number / rounds)
        train_on(cut.module, context, model=model, epochs=_LAST_EPOCHS if number == rounds else _ROUND_EPOCHS)


def _written(cut: "_Structured | _Unstructured", model: Path, context: Context, *, words: list[str]) -> Applied:
    from optimizer_jobs.nets.exporter import export

    target = context.workdir / "model.onnx"
    cut.finish()
    export(cut.module, signature=context.signature, examples=examples(context), target=target)
    return Applied(model=target, summary=", ".join([*words, *cut.gained(model, target)]))


def examples(context: Context) -> dict[str, Any]:
    """Return a few training rows by input name, as many as one call may have."""
    if context.training is None:
        raise ValueError("examples are training rows")
    rows = context.training.take(slice(0, context.signature.batch or _EXAMPLES))
    return {spec.name: rows.inputs[spec.name] for spec in context.signature.inputs}


class _Structured:
    """Removes the least important units of every group, the same share of each."""

    def __init__(self, module: Any, context: Context) -> None:
        self.module, self._context = module, context
        self._before: list[int] = []

    def start(self) -> str | None:
        """Return what there is to remove, in words; None when there is nothing."""
        found = [group for group in self._groups() if group.units >= _LEAST_UNITS]
        self._before = [group.units for group in found]
        kinds = dict.fromkeys(group.kind for group in found)
        return f"{' and '.join(kinds)} of {len(found)} layers" if found else None

    def remove(self, ratio: float, *, done: float, until: float) -> None:
        """Bring the share removed from `done` to `until` of the ratio."""
        from optimizer_jobs.nets.gradients import with_gradients

        with with_gradients(self.module, self._context):
            for place, before in enumerate(self._before):
                group = [group for group in self._groups() if group.units >= _LEAST_UNITS or group.units > 1][place]
                keep = max(1, round(before * (1 - ratio * until)))
                if group.units > keep:
                    order = group.importance().argsort(stable=True)
                    group.remove(order[: group.units - keep].tolist())

    def finish(self) -> None:
        """Nothing is left to do: the units are gone."""

    def gained(self, model: Path, target: Path) -> list[str]:
        """Return how much smaller the file is."""
        return [f"{target.stat().st_size / model.stat().st_size:.2f} of the size"]

    def _groups(self) -> list[Any]:
        import torch

        from optimizer_jobs.nets.surgery import groups

        inputs = tuple(torch.from_numpy(values) for values in examples(self._context).values())
        return groups(self.module, inputs)


class _Unstructured:
    """Sets the smallest weights of all layers to zero, and keeps them there while training."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def start(self) -> str | None:
        """Return what there is to zero, in words."""
        return f"in {len(self._weights())} layers"

    def remove(self, ratio: float, *, done: float, until: float) -> None:
        """Zero more of the weights that are left, up to `until` of the ratio."""
        from torch.nn.utils import prune

        left = 1 - ratio * done
        prune.global_unstructured(
            self._weights(), pruning_method=prune.L1Unstructured, amount=1 - (1 - ratio * until) / left
        )

    def finish(self) -> None:
        """Make the zeros part of the weights."""
        from torch.nn.utils import prune

        for layer, name in self._weights():
            prune.remove(layer, name)

    def gained(self, model: Path, target: Path) -> list[str]:
        """Return how much smaller the file is once compressed, which is all that zeros buy."""
        before, after = (len(gzip.compress(path.read_bytes(), mtime=0)) for path in (model, target))
        return [f"the same size, {after / before:.2f} of it compressed"]

    def _weights(self) -> list[tuple[Any, str]]:
        from torch import nn

        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        return [(layer, "weight") for layer in self.module.modules() if isinstance(layer, kinds)]


def _settings(spec: TechniqueSpec) -> Pruning:
    return spec.pruning or Pruning()
