"""Technique Factorization: linear layers and convolutions as products of two thinner ones, and training on.

The best product of a rank is that of the singular value decomposition. A layer is split only where the two parts are
smaller than the one; which rank is worth it is searched. Without rows to train on, what the split costs stays.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer_jobs.compress.pruning import examples
from optimizer_jobs.techniques.base import Applied, Context, Params, Skipped, Subject
from optimizer_jobs.tune.fit import unchangeable
from optimizer_jobs.tune.parameters import told
from retune.api.techniques import Factorization, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.FACTORIZATION
CHEAP = False
TRAINS = False

OFF = "Off"
_EPOCHS = 15


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return why no layer of this model can be split; without labels it is split and not trained on."""
    return unchangeable(dataclasses.replace(subject, training=subject.training or subject.calibration))


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose the rank, as a share of the full one."""
    rank = str(trial.suggest_categorical(f"{spec.name}.rank", (OFF, *_settings(spec).ranks)))
    return None if rank == OFF else {"rank": float(rank)}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:  # noqa: ARG001
    """Return the smallest rank."""
    return (told(spec.name, {"rank": min(_settings(spec).ranks, key=float)}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return whole layers."""
    return told(spec.name, {"rank": OFF})


def describe(params: Params) -> str:
    """Return the rank, such as `layers of rank 0.25`."""
    return f"layers of rank {params['rank']:g}"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Split every layer that gets smaller by it, train on where there are rows for it, and write the network."""
    from optimizer_jobs.nets.determinism import deterministic
    from optimizer_jobs.nets.exporter import ExportError, export
    from optimizer_jobs.nets.importer import import_module, not_importable
    from optimizer_jobs.nets.low_rank import split_layers
    from optimizer_jobs.techniques.files import graph_of

    reason = not_importable(graph_of(model))
    if reason is not None:
        return Skipped(reason=reason)
    with deterministic(seed=context.seed, threads=context.threads):
        module = import_module(model)
        changed, whole = split_layers(module, float(params["rank"]))
    if not changed:
        return Skipped(reason=f"none of {whole} layers is smaller as a product of rank {params['rank']:g}")
    trained = _trained(module, model, context)
    target = context.workdir / "model.onnx"
    try:
        export(module, signature=context.signature, examples=examples(context), target=target)
    except ExportError as error:
        return Skipped(reason=str(error).removesuffix("."))
    return Applied(model=target, summary=f"{describe(params)}: {changed} of {whole} layers split, {trained}")


def _trained(module: Any, model: Path, context: Context) -> str:
    """Train on with the model before the change as a teacher beside the labels; return what was done."""
    from optimizer_jobs.nets.loop import train_on

    if context.training is None:
        return "not trained on"
    return f"{train_on(module, context, model=model, epochs=_EPOCHS).epochs} epochs"


def _settings(spec: TechniqueSpec) -> Factorization:
    return spec.factorization or Factorization()
