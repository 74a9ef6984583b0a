"""Technique Recalibration: correct a classifier's probabilities in its file, without training.

The cheapest cure where the shares of classes have moved, or where probabilities are too sure. It is fitted on the
validation rows, which the judge never uses, and made only where rows that are left out gain by it.
"""

from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.recalibration import recalibrate
from optimizer_jobs.machinery.recalibration.corrections import Method
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import Recalibration, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.RECALIBRATION
CHEAP = False
TRAINS = False

OFF = "Off"
_OF_TWO: frozenset[str] = frozenset({Method.ISOTONIC})
"""Methods for two classes only."""
_WORDS = {
    Method.BOTH: "temperature and shares of classes corrected",
    Method.TEMPERATURE: "temperature corrected",
    Method.PRIOR_SHIFT: "shares of classes corrected",
    Method.ISOTONIC: "probabilities corrected by isotonic regression",
}


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why the probabilities of this model cannot be corrected, or None. Whether rows suffice, a trial says."""
    reason = recalibrate.unavailable(subject)
    if reason is None and not _methods(spec, subject):
        return "Isotonic is for two classes, and the model has more"
    return reason


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the method."""
    method = str(trial.suggest_categorical(f"{spec.name}.method", (OFF, *_methods(spec, subject))))
    return None if method == OFF else {"method": method}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return each method; first what corrects most with fewest numbers."""
    return tuple(trial_params(spec.name, {"method": method}) for method in _methods(spec, subject))


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return probabilities as they are."""
    return trial_params(spec.name, {"method": OFF})


def describe(params: Params) -> str:
    """Return the method in words, such as `temperature corrected`."""
    return _WORDS[Method(str(params["method"]))]


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Write the file with corrected probabilities; skipped where rows are too few, or those left out do not gain."""
    return recalibrate.recalibrate(model, Method(str(params["method"])), context)


def _methods(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return the methods that the spec allows and the number of classes, in the API's order."""
    allowed = (spec.recalibration or Recalibration()).methods
    two = recalibrate.has_two_classes(subject.signature)
    return tuple(method for method in Recalibration().methods if method in allowed and (two or method not in _OF_TWO))
