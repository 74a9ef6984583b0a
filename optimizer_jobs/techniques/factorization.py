"""Technique Factorization: layers as products of two lighter ones, and training on.

A linear layer or convolution becomes two of a lower rank, with what is narrow between them; or a dense convolution
becomes a depthwise and a pointwise one. Both start as the closest product that the singular value decomposition knows.
Which form, which rank, and how many of the heaviest convolutions are worth it is searched. Without rows to train on,
what the split costs stays.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer_jobs.machinery.compress.layers import graph_of, has_dense
from optimizer_jobs.machinery.training.fit import unchangeable
from optimizer_jobs.machinery.training.parameters import told
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import Factorization, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.FACTORIZATION
CHEAP = False
TRAINS = False

OFF = "Off"
LOW_RANK, SEPARABLE = "LowRank", "Separable"
_EXAMPLES = 4
_EPOCHS = {"rank": 15, "separable": 30}


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no layer of this model can be split; without labels it is split and not trained on."""
    reason = unchangeable(dataclasses.replace(subject, training=subject.training or subject.calibration))
    if reason is None and not _forms(spec, subject):
        return "the network has no dense convolution of several channels to make separable"
    return reason


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the form, with the rank as a share of the full one or the share of convolutions that are replaced."""
    form, _, share = str(trial.suggest_categorical(f"{spec.name}.form", (OFF, *_forms(spec, subject)))).partition(" ")
    return None if form == OFF else {_PARAMETERS[form]: float(share)}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return the lightest of each form: the smallest rank, and all convolutions separable."""
    forms = _forms(spec, subject)
    ranks, shares = ([form for form in forms if form.startswith(kind)] for kind in (LOW_RANK, SEPARABLE))
    lightest = [*sorted(ranks, key=_share)[:1], *sorted(shares, key=_share)[-1:]]
    return tuple(told(spec.name, {"form": form}) for form in lightest)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return whole layers."""
    return told(spec.name, {"form": OFF})


def describe(params: Params) -> str:
    """Return form and share, such as `layers of rank 0.25`."""
    if "rank" in params:
        return f"layers of rank {params['rank']:g}"
    return f"{100 * float(params['separable']):.3g} % of convolutions separable"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Split every layer that gets smaller by it, train on where there are rows for it, and write the network."""
    from optimizer_jobs.nets.conversion.exporter import ExportError, export
    from optimizer_jobs.nets.conversion.importer import import_module, not_importable
    from optimizer_jobs.nets.learning.determinism import deterministic

    reason = not_importable(graph_of(model))
    if reason is not None:
        return Skipped(reason=reason)
    with deterministic(seed=context.seed, threads=context.threads):
        module = import_module(model)
        changed, whole = _split(module, params, context)
    if not changed:
        return Skipped(reason=_unchanged(whole, params))
    trained = _trained(module, model, context, epochs=_EPOCHS["rank" if "rank" in params else "separable"])
    target = context.workdir / "model.onnx"
    try:
        export(module, signature=context.signature, examples=context.examples(_EXAMPLES), target=target)
    except ExportError as error:
        return Skipped(reason=str(error).removesuffix("."))
    return Applied(model=target, summary=f"{describe(params)}: {changed} of {whole} layers split, {trained}")


def _split(module: Any, params: Params, context: Context) -> tuple[int, int]:
    """Split layers in place; return how many, and how many there are."""
    import torch

    from optimizer_jobs.nets.surgery.low_rank import split_layers
    from optimizer_jobs.nets.surgery.separable import separate_layers

    if "rank" in params:
        return split_layers(module, float(params["rank"]))
    rows = tuple(torch.from_numpy(values) for values in context.examples(_EXAMPLES).values())
    return separate_layers(module, float(params["separable"]), rows)


def _unchanged(whole: int, params: Params) -> str:
    if "rank" in params:
        return f"none of {whole} layers is smaller as a product of rank {params['rank']:g}"
    return "no dense convolution of several channels is left to make separable"


def _trained(module: Any, model: Path, context: Context, *, epochs: int) -> str:
    """Train on with the model before the change as a teacher beside the labels; return what was done."""
    from optimizer_jobs.nets.learning.loop import train_on

    if context.training is None:
        return "not trained on"
    return f"{train_on(module, context, model=model, epochs=epochs).epochs} epochs"


_PARAMETERS = {LOW_RANK: "rank", SEPARABLE: "separable"}


def _forms(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return `LowRank 0.25`, `Separable 1` and so on, of forms that the spec allows and the model has."""
    settings = _settings(spec)
    shares = {LOW_RANK: settings.ranks, SEPARABLE: settings.shares if has_dense(subject.graph) else ()}
    return tuple(f"{form} {share}" for form in settings.forms for share in shares[form])


def _share(form: str) -> float:
    return float(form.partition(" ")[2])


def _settings(spec: TechniqueSpec) -> Factorization:
    return spec.factorization or Factorization()
