"""Technique Pruning: fewer trees, neurons, channels and attention heads, or zero weights; networks train on afterwards.

Structured pruning removes whole units, so that every engine becomes faster. Unstructured pruning leaves the graph as it
is: only a compressed file becomes smaller, and the summary says by how much.
"""

from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.compress import pruning, trees
from optimizer_jobs.machinery.compress.layers import graph_of
from optimizer_jobs.machinery.compress.pruning import GRADIENTS, STRUCTURED, WEIGHTS
from optimizer_jobs.machinery.training.fit import unchangeable
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import Pruning, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.PRUNING
CHEAP = False
TRAINS = False

OFF = "Off"
_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Ratios to try, as shares of the largest ratio that the spec allows."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return why nothing of this model can be removed, or None."""
    return trees.unavailable(subject) if trees.present(subject.graph) else unchangeable(subject)


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose what is removed, how much of it, and what units are ranked by."""
    settings = _settings(spec)
    granularity = str(trial.suggest_categorical(f"{spec.name}.granularity", (OFF, *settings.granularity)))
    share = float(trial.suggest_categorical(f"{spec.name}.share", _SHARES))
    importance = str(trial.suggest_categorical(f"{spec.name}.importance", (WEIGHTS, GRADIENTS)))
    if granularity == OFF:
        return None
    params: Params = {"granularity": granularity, "ratio": round(share * float(settings.max_ratio), 4)}
    ranking: Params = {"importance": importance} if granularity == STRUCTURED else {}
    return params | ranking | {"iterations": settings.iterations}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return half of the largest ratio, and all of it, for each granularity."""
    usual = off(spec, subject)
    return tuple(
        usual | trial_params(spec.name, {"granularity": granularity, "share": share})
        for granularity in _settings(spec).granularity
        for share in (0.5, 1.0)
    )


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return a model that keeps everything."""
    return trial_params(spec.name, {"granularity": OFF, "share": 0.5, "importance": WEIGHTS})


def describe(params: Params) -> str:
    """Return what is removed, such as `pruned by 50 %`."""
    action = "pruned by" if params["granularity"] == STRUCTURED else "weights zeroed by"
    return f"{action} {100 * float(params['ratio']):.3g} %"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Remove trees, units or weights, and write what is left; a network trains on after each round."""
    if trees.present(graph_of(model)):
        return trees.prune(model, params, context)
    return pruning.prune(model, params, context, words=describe(params))


def _settings(spec: TechniqueSpec) -> Pruning:
    return spec.pruning or Pruning()
