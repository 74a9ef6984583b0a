"""All techniques by type, in the order in which a plan applies them, and the recipe for a user who names none.

A new technique is a module and a line here. The order matters: quantization works on a graph that is cleaned already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from optimizer_jobs.compress import graph_optimization, quantization
from optimizer_jobs.compress.base import Technique
from optimizer_jobs.errors import JobError
from retune.api.spec import Technique as TechniqueSpec
from retune.api.spec import TechniqueType
from retune.contract.results import Reason

TECHNIQUES: Mapping[TechniqueType, Technique] = {
    TechniqueType.GRAPH_OPTIMIZATION: graph_optimization,
    TechniqueType.QUANTIZATION: quantization,
}

_NAMES = {TechniqueType.GRAPH_OPTIMIZATION: "graph", TechniqueType.QUANTIZATION: "quantize"}


@dataclass(frozen=True)
class Recipe:
    """The techniques of a run, and why others are not among them."""

    techniques: tuple[TechniqueSpec, ...]
    left_out: dict[str, str]
    """Name of a technique to the reason it is not used."""


def recipe(model: onnx.ModelProto, *, calibration: bool) -> Recipe:
    """Choose every technique that this model and this data allow."""
    specs = [TechniqueSpec(name=_NAMES[kind], type=kind) for kind in TECHNIQUES]
    reasons = {spec.name: _unavailable(model, spec, calibration=calibration) for spec in specs}
    return Recipe(
        techniques=tuple(spec for spec in specs if reasons[spec.name] is None),
        left_out={name: reason for name, reason in reasons.items() if reason is not None},
    )


def asked_for(model: onnx.ModelProto, specs: Sequence[TechniqueSpec], *, calibration: bool) -> Recipe:
    """Return what the user listed, in the order of application; raises JobError when one of them cannot be used."""
    for spec in specs:
        reason = _unavailable(model, spec, calibration=calibration)
        if reason is not None:
            raise JobError(
                reason=Reason.TECHNIQUE_UNAVAILABLE, object=f"technique {spec.name}", message=f"{reason}.",
                next_step="Remove it from spec.techniques, or leave spec.techniques out to have them chosen.",
            )  # fmt: skip
    order = list(TECHNIQUES)
    return Recipe(techniques=tuple(sorted(specs, key=lambda spec: order.index(spec.type))), left_out={})


def _unavailable(model: onnx.ModelProto, spec: TechniqueSpec, *, calibration: bool) -> str | None:
    return TECHNIQUES[spec.type].unavailable(model, spec, calibration=calibration)
