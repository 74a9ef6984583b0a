"""What a technique is: a step that turns one ONNX file into another, for a stated reason or not at all.

A technique must change only what it says: inputs, outputs and their meaning stay. It must give the same bytes for the
same model, parameters, data and seed, because its result is reused under the hash of exactly these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx
from optuna.trial import BaseTrial

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.signature import Signature
from retune.api.spec import Technique as TechniqueSpec
from retune.api.spec import TechniqueType

ParamValue = str | int | float | bool
Params = dict[str, ParamValue]
"""Parameters of one step: plain JSON values, only those that matter for the result."""


@dataclass(frozen=True)
class Applied:
    """The step changed the model."""

    model: Path
    """The new file."""
    summary: str
    """What was done, in a few words, such as `int8 static MinMax, 2 of 7 layers kept in float`."""


@dataclass(frozen=True)
class Skipped:
    """The step left the model as it was."""

    reason: str
    """Why, as a sentence without a full stop."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may use besides the model. `identity` names all of it for reuse of results."""

    workdir: Path
    """Scratch folder of this step alone; the new file goes here."""
    signature: Signature
    """Inputs and outputs that must be kept."""
    calibration: Rows | None
    """Rows whose value ranges may be observed; never validation, never test."""
    seed: int
    """Seed of everything random in the step."""
    cpu_flags: frozenset[str]
    """Instruction set flags of this machine, as the kernel names them."""
    shortfall: Callable[[Path], float] | None = None
    """How far a model file misses the quality limits on validation; 0 or less keeps them. None: no limit is set."""
    identity: str = ""
    """Digest of data, limits and machine that the result may depend on."""


class Technique(Protocol):
    """A module that implements one technique."""

    TYPE: TechniqueType
    CHEAP: bool
    """Whether it needs no data and little time, so that a search can see beforehand if it does anything at all."""

    def unavailable(self, model: onnx.ModelProto, spec: TechniqueSpec, *, calibration: bool) -> str | None:
        """Return why nothing of the technique can be used on this model with this data, or None."""
        ...

    def suggest(self, trial: BaseTrial, spec: TechniqueSpec, *, calibration: bool) -> Params | None:
        """Ask the trial for every parameter, used or not; return those that matter, or None when switched off."""
        ...

    def defaults(self, spec: TechniqueSpec, *, calibration: bool) -> tuple[Params, ...]:
        """Return what the trial is told for each variant worth a try of its own, as the trial's parameters."""
        ...

    def off(self, spec: TechniqueSpec) -> Params:
        """Return the trial's parameters that switch the technique off."""
        ...

    def describe(self, params: Params) -> str:
        """Return a few words for a set of parameters, such as `int8 static MinMax`."""
        ...

    def apply(self, model: Path, params: Params, context: Context) -> Applied | Skipped:
        """Write the changed model into the context's workdir. The same arguments give the same bytes."""
        ...
