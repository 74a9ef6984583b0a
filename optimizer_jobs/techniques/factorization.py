"""Technique Factorization: layers become products of two lighter ones, and the network trains on.

A linear layer or convolution becomes two layers of a lower rank with few channels between them, or a dense convolution
becomes a depthwise and a pointwise one. Both start as the best approximation that a singular value decomposition gives.
The form, the rank, and the share of the heaviest convolutions to replace are searched.
"""

import dataclasses
from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.compress.factorization import RANK, SEPARABLE, factorize
from optimizer_jobs.machinery.compress.layers import has_dense
from optimizer_jobs.machinery.training.fit import unchangeable
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import Factorization, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.FACTORIZATION
CHEAP = False
TRAINS = False

OFF = "Off"
_PARAMETERS = {"LowRank": RANK, "Separable": SEPARABLE}
"""The parameter of each form that the API has."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no layer of this model can be split, or None. Without labels, it is split and not trained on."""
    reason = unchangeable(dataclasses.replace(subject, training=subject.training or subject.calibration))
    if reason is None and not _forms(spec, subject):
        return "the network has no dense convolution of several channels to make separable"
    return reason


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the form, with the rank as a share of the full one or the share of convolutions that are replaced."""
    form, _, share = str(trial.suggest_categorical(f"{spec.name}.form", (OFF, *_forms(spec, subject)))).partition(" ")
    return None if form == OFF else {_PARAMETERS[form]: float(share)}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return the lightest variant of each form: the smallest rank, and all convolutions separable."""
    forms = _forms(spec, subject)
    ranks, shares = ([form for form in forms if form.startswith(kind)] for kind in _PARAMETERS)
    lightest = [*sorted(ranks, key=_share)[:1], *sorted(shares, key=_share)[-1:]]
    return tuple(trial_params(spec.name, {"form": form}) for form in lightest)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return whole layers."""
    return trial_params(spec.name, {"form": OFF})


def describe(params: Params) -> str:
    """Return form and share, such as `layers of rank 0.25`."""
    if RANK in params:
        return f"layers of rank {params[RANK]:g}"
    return f"{100 * float(params[SEPARABLE]):.3g} % of convolutions separable"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Split every layer that gets smaller by it, train on where there are rows for it, and write the network."""
    return factorize(model, params, context, words=describe(params))


def _forms(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return forms with their shares, such as `LowRank 0.25`, that the spec allows and the model has layers for."""
    settings = spec.factorization or Factorization()
    shares = {"LowRank": settings.ranks, "Separable": settings.shares if has_dense(subject.graph) else ()}
    return tuple(f"{form} {share}" for form in settings.forms for share in shares[form])


def _share(form: str) -> float:
    return float(form.partition(" ")[2])
