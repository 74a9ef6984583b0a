"""Technique GraphOptimization: fold constants, drop what has no effect, fuse normalization, write trees shorter.

Only operators of the ONNX standard come out, so that one file serves every machine; the engine adds fusions for its
machine when it opens the file. Transformers may also get fused operators of ONNX Runtime, as a variant of its own that
does not always help: a small sentence encoder answered one short text in about a tenth less time, and batches of longer
texts no faster.
"""

from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.compress.layers import has_attention
from optimizer_jobs.machinery.compress.passes import FOLD, FUSE, SLIM, rewrite
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import GraphOptimization, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.GRAPH_OPTIMIZATION
CHEAP = True
TRAINS = False

OFF = "Off"


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return None: every graph can be tried; the step is skipped where nothing is to gain."""
    return None


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the passes over the graph."""
    fusions = (FUSE,) if _fusible(spec, subject) else ()
    passes = trial.suggest_categorical(f"{spec.name}.passes", (OFF, SLIM, FOLD, *fusions))
    return None if passes == OFF else {"passes": passes}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return slimming with folding, and fused operators where they are possible."""
    passes = (FOLD, FUSE) if _fusible(spec, subject) else (FOLD,)
    return tuple({f"{spec.name}.passes": name} for name in passes)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return no passes."""
    return {f"{spec.name}.passes": OFF}


def describe(params: Params) -> str:
    """Return the passes in words."""
    return {SLIM: "slim graph", FOLD: "slim and folded graph", FUSE: "fused graph"}[str(params["passes"])]


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Rewrite the graph; skipped when neither nodes nor bytes become fewer."""
    return rewrite(model, str(params["passes"]), context, words=describe(params))


def _fusible(spec: TechniqueSpec, subject: Subject) -> bool:
    """Return whether the graph has attention to fuse, and there are rows to verify the result on."""
    settings = spec.graph or GraphOptimization()
    return settings.transformer_fusions == "Auto" and subject.calibration and has_attention(subject.graph)
