"""Technique Factorization: layers become products of two lighter ones, and the network trains on; tables do likewise.

A linear layer or convolution becomes two layers of a lower rank with few channels between them, or a dense convolution
becomes a depthwise and a pointwise one. An embedding table becomes a narrower table and a matrix, without training. All
of these start as the best approximation that a singular value decomposition gives. Or each row of a table becomes the
sum of two that it shares with others by its number. The form, the rank or share of rows, and the share of the heaviest
convolutions to replace are searched.
"""

import dataclasses
from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.compress.factorization import RANK, SEPARABLE, TABLES, factorize
from optimizer_jobs.machinery.compress.hashing import HASHED, fold, foldable
from optimizer_jobs.machinery.compress.layers import has_dense, tables
from optimizer_jobs.machinery.training.fit import unchangeable
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import Factorization, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.FACTORIZATION
CHEAP = False
TRAINS = False

OFF = "Off"
_PARAMETERS = {"LowRank": RANK, "Separable": SEPARABLE, "Tables": TABLES, "Hashed": HASHED}
"""The parameter of each form that the API has."""
_OF_TABLES = ("Tables", "Hashed")
"""Forms for which the rest of the graph need not be known."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no layer of this model can be split, or None. Without labels, it is split and not trained on."""
    forms = _forms(spec, subject)
    if any(form.startswith(_OF_TABLES) for form in forms):
        return None
    if set((spec.factorization or Factorization()).forms) <= set(_OF_TABLES):
        return "the model has no embedding table to split or to fold"
    reason = _unknown(subject)
    if reason is None and not forms:
        return "the network has no dense convolution of several channels to make separable"
    return reason


def _unknown(subject: Subject) -> str | None:
    """Return why layers cannot be taken apart, or None. Embedding tables are split without knowing the rest."""
    return unchangeable(dataclasses.replace(subject, training=subject.training or subject.calibration))


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the form, with the rank as a share of the full one or the share of convolutions that are replaced."""
    form, _, share = str(trial.suggest_categorical(f"{spec.name}.form", (OFF, *_forms(spec, subject)))).partition(" ")
    return None if form == OFF else {_PARAMETERS[form]: float(share)}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return the lightest variant of each form: the smallest rank, the fewest rows, and all convolutions separable."""
    forms = _forms(spec, subject)
    by_kind = {kind: sorted((form for form in forms if form.startswith(kind)), key=_share) for kind in _PARAMETERS}
    lightest = [of_kind[-1] if kind == "Separable" else of_kind[0] for kind, of_kind in by_kind.items() if of_kind]
    return tuple(trial_params(spec.name, {"form": form}) for form in lightest)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return whole layers."""
    return trial_params(spec.name, {"form": OFF})


def describe(params: Params) -> str:
    """Return form and share, such as `layers of rank 0.25`."""
    if TABLES in params:
        return f"tables of rank {params[TABLES]:g}"
    if HASHED in params:
        return f"tables hashed to {100 * float(params[HASHED]):.3g} % of their rows"
    if RANK in params:
        return f"layers of rank {params[RANK]:g}"
    return f"{100 * float(params[SEPARABLE]):.3g} % of convolutions separable"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Split every layer that gets smaller by it, train on where there are rows for it, and write the network."""
    if HASHED in params:
        return fold(model, params, context, words=describe(params))
    return factorize(model, params, context, words=describe(params))


def _forms(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return forms with their shares, such as `LowRank 0.25`, that the spec allows and the model has layers for."""
    settings = spec.factorization or Factorization()
    spare = "Tables" in settings.forms and bool(tables(subject.graph))
    hashable = "Hashed" in settings.forms and bool(foldable(subject.graph))
    known = not (spare or hashable) or _unknown(subject) is None
    shares = {
        "LowRank": settings.ranks if known else (),
        "Separable": settings.shares if known and has_dense(subject.graph) else (),
        "Tables": settings.ranks if spare else (),
        "Hashed": settings.ranks if hashable else (),
    }
    return tuple(f"{form} {share}" for form in settings.forms for share in shares[form])


def _share(form: str) -> float:
    return float(form.partition(" ")[2])
