"""Technique Pruning: fewer trees, neurons, channels and attention heads, or zero weights; what is left is fitted again.

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
    whole, of_trees = _whole(subject) is None, trees.present(subject.graph)
    spare = not of_trees and bool(tables(subject.graph)) and rows.unavailable(subject) is None
    return tuple(name for name in allowed if (spare if name == ROWS else whole))


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose what is removed, how much of it, and what units are ranked by or leaves of trees are fitted to."""
    settings = _settings(spec)
    granularity = str(trial.suggest_categorical(f"{spec.name}.granularity", (OFF, *_granularities(spec, subject))))
    share = float(trial.suggest_categorical(f"{spec.name}.share", _SHARES))
    if trees.present(subject.graph):
        chosen = _of_trees(trial, spec, subject, ratio=round(share * float(settings.max_ratio), 4))
        return None if granularity == OFF or chosen is None else chosen | {"granularity": granularity}
    importance = str(trial.suggest_categorical(f"{spec.name}.importance", (WEIGHTS, GRADIENTS)))
    if granularity == OFF:
        return None
    params: Params = {"granularity": granularity, "ratio": round(share * float(settings.max_ratio), 4)}
    if granularity == ROWS:
        return params
    ranking: Params = {"importance": importance} if granularity == STRUCTURED else {}
    return params | ranking | {"iterations": settings.iterations}


def _of_trees(trial: BaseTrial, spec: TechniqueSpec, subject: Subject, *, ratio: float) -> Params | None:
    """Choose what is cut of an ensemble and what its leaves are fitted to; None where that changes nothing."""
    cut = str(trial.suggest_categorical(f"{spec.name}.cut", (trees.TREES, trees.FIRST, trees.LEAVES, trees.KEEP)))
    hold = float(trial.suggest_categorical(f"{spec.name}.hold", trees.HOLDS))
    fitted = str(trial.suggest_categorical(f"{spec.name}.refit", (trees.ANSWERS, trees.NOTHING)))
    if cut != trees.KEEP:
        return {"ratio": ratio, "cut": cut, "refit": fitted}
    return {"ratio": 0.0, "cut": cut, "refit": trees.LABELS, "hold": hold} if trees.learns(subject) else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return half of the largest ratio, and all of it, for each granularity; of trees, also what is not cut."""
    usual = off(spec, subject)
    if trees.present(subject.graph):
        named = [trial_params(spec.name, {"granularity": granularity}) for granularity in _granularities(spec, subject)]
        variants = [trial_params(spec.name, variant) for variant in trees.variants(subject)]
        return tuple(usual | on | variant for on in named[:1] for variant in variants)
    return tuple(
        usual | trial_params(spec.name, {"granularity": granularity, "share": share})
        for granularity in _granularities(spec, subject)
        for share in (0.5, 1.0)
    )


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return a model that keeps everything."""
    how: Params = trees.variants(subject)[0] if trees.present(subject.graph) else {"share": 0.5, "importance": WEIGHTS}
    return trial_params(spec.name, how, {"granularity": OFF})


def describe(params: Params) -> str:
    """Return what is removed, such as `pruned by 50 %`."""
    if params["granularity"] == ROWS:
        return f"{100 * float(params['ratio']):.3g} % of table rows shared"
    if "cut" in params:
        return trees.describe(params)
    action = "pruned by" if params["granularity"] == STRUCTURED else "weights zeroed by"
    return f"{action} {100 * float(params['ratio']):.3g} %"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Remove trees, units, weights or rows, and write what is left; a network trains on after each round.

    Parameters of trees mean nothing to a network that learned the answers of these trees earlier in the plan.
    """
    if params["granularity"] == ROWS:
        return rows.prune(model, params, context, words=describe(params))
    if "cut" in params or trees.present(graph_of(model)):
        return trees.prune(model, params, context)
    return pruning.prune(model, params, context, words=describe(params))


def _settings(spec: TechniqueSpec) -> Pruning:
    return spec.pruning or Pruning()
