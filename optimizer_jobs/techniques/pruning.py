"""Technique Pruning: fewer trees, neurons, channels and attention heads, or zero weights; networks train on afterwards.

Structured pruning removes whole units, so that every engine becomes faster. Unstructured pruning leaves the graph as it
is: only a compressed file becomes smaller, and the summary says by how much. Rows of embedding tables that are hardly
ever looked up can share one row; nothing is trained for that.
"""

from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.compress import pruning, rows, trees
from optimizer_jobs.machinery.compress.layers import graph_of, tables
from optimizer_jobs.machinery.compress.pruning import GRADIENTS, ROWS, STRUCTURED, WEIGHTS
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


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why nothing of this model can be removed, or None."""
    if ROWS not in _settings(spec).granularity:
        return _whole(subject)
    if _granularities(spec, subject):
        return None
    return rows.unavailable(subject) or "the model has no embedding table whose rows could go"


def _whole(subject: Subject) -> str | None:
    """Return why no trees, units or weights of this model can be removed, or None."""
    return trees.unavailable(subject) if trees.present(subject.graph) else unchangeable(subject)


def _granularities(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return the granularities that the spec allows and the model and the data have something for."""
    allowed = _settings(spec).granularity
    if ROWS not in allowed:
        return allowed
    whole = _whole(subject) is None
    spare = bool(tables(subject.graph)) and rows.unavailable(subject) is None
    return tuple(name for name in allowed if (spare if name == ROWS else whole))


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose what is removed, how much of it, and what units are ranked by."""
    settings = _settings(spec)
    granularity = str(trial.suggest_categorical(f"{spec.name}.granularity", (OFF, *_granularities(spec, subject))))
    share = float(trial.suggest_categorical(f"{spec.name}.share", _SHARES))
    importance = str(trial.suggest_categorical(f"{spec.name}.importance", (WEIGHTS, GRADIENTS)))
    if granularity == OFF:
        return None
    params: Params = {"granularity": granularity, "ratio": round(share * float(settings.max_ratio), 4)}
    if granularity == ROWS:
        return params
    ranking: Params = {"importance": importance} if granularity == STRUCTURED else {}
    return params | ranking | {"iterations": settings.iterations}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return half of the largest ratio, and all of it, for each granularity."""
    usual = off(spec, subject)
    return tuple(
        usual | trial_params(spec.name, {"granularity": granularity, "share": share})
        for granularity in _granularities(spec, subject)
        for share in (0.5, 1.0)
    )


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return a model that keeps everything."""
    return trial_params(spec.name, {"granularity": OFF, "share": 0.5, "importance": WEIGHTS})


def describe(params: Params) -> str:
    """Return what is removed, such as `pruned by 50 %`."""
    if params["granularity"] == ROWS:
        return f"{100 * float(params['ratio']):.3g} % of table rows shared"
    action = "pruned by" if params["granularity"] == STRUCTURED else "weights zeroed by"
    return f"{action} {100 * float(params['ratio']):.3g} %"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Remove trees, units, weights or rows, and write what is left; a network trains on after each round."""
    if params["granularity"] == ROWS:
        return rows.prune(model, params, context, words=describe(params))
    if trees.present(graph_of(model)):
        return trees.prune(model, params, context)
    return pruning.prune(model, params, context, words=describe(params))


def _settings(spec: TechniqueSpec) -> Pruning:
    return spec.pruning or Pruning()
