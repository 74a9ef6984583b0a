"""What a technique is: something that changes a model, for a stated reason or not at all.

Some techniques rewrite an ONNX file; others say how the model is trained anew, and all of those in one plan make one
training. A technique must change only what it says: inputs, outputs and their meaning stay. It must give the same
bytes for the same model, parameters, data and seed, because its result is reused under the hash of exactly these.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from optuna.trial import BaseTrial

from optimizer_jobs.data.datasets import Array, Rows
from optimizer_jobs.models.native import Native
from optimizer_jobs.signature import Signature
from retune.api.model import Factory, Task
from retune.api.techniques import Technique as TechniqueSpec
from retune.api.techniques import TechniqueType

ParamValue = str | int | float | bool
Params = dict[str, ParamValue]
"""Parameters of one step: plain JSON values, only those that matter for the result."""

TrainingPlan = Mapping[TechniqueType, Params]
"""Everything that the techniques of one plan say about training, by technique."""


Report = Callable[[int, float], bool | None]
"""Takes epoch and validation quality (higher is better); False when there is no time for another epoch, and what was
learned so far is to count. Raises StoppedEarlyError when it is not worth going on."""


class StoppedEarlyError(Exception):
    """The training fell behind and is given up; the trial ends, and nothing of it is reused."""


@dataclass(frozen=True)
class Applied:
    """The step changed the model."""

    model: Path
    """The new ONNX file."""
    summary: str
    """What was done, in a few words, such as `int8 static MinMax, 2 of 7 layers kept in float`."""
    native: Path | None = None
    """The same model in the format it was delivered in, where a step makes it."""
    factory: Factory | None = None
    """What builds the network whose weights `native` holds; its arguments may differ from those delivered."""


@dataclass(frozen=True)
class Skipped:
    """The step left the model as it was."""

    reason: str
    """Why, as a sentence without a full stop."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a technique looks at before it is used: the model as delivered, and what there is to work with."""

    graph: onnx.ModelProto
    """The ONNX graph, without external data."""
    signature: Signature
    task: Task
    native: Native | None = None
    """The model in the format it was delivered in, when that is not ONNX."""
    training: bool = False
    """Whether there are labelled rows to train on."""
    calibration: bool = False
    """Whether there are rows to observe value ranges on."""
    cpu_flags: frozenset[str] = frozenset()
    """Instruction set flags of this machine, as the kernel names them."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may use besides the model. `identity` names all of it for reuse of results."""

    workdir: Path
    """Scratch folder of this step alone; the new file goes here."""
    signature: Signature
    """Inputs and outputs that must be kept."""
    task: Task = Task.CLASSIFICATION
    classes: tuple[int | str, ...] = ()
    """Label of each score column; empty means that the column's number is the label."""
    native: Native | None = None
    """The model in the format it was delivered in, when that is not ONNX."""
    training: Rows | None = None
    """Rows to train on."""
    validation: Rows | None = None
    """Rows that say when training is to end; the search compares candidates on them. Never test."""
    calibration: Rows | None = None
    """Rows whose value ranges may be observed; never validation, never test."""
    training_plan: TrainingPlan = field(default_factory=dict)
    """How the model of this plan is trained, for steps that train on after they changed it."""
    threads: int = 1
    """Threads that training may use."""
    seed: int
    """Seed of everything random in the step."""
    cpu_flags: frozenset[str]
    """Instruction set flags of this machine, as the kernel names them."""
    shortfall: Callable[[Path], float] | None = None
    """How far a model file misses the quality limits on validation; 0 or less keeps them. None: no limit is set."""
    report: Report | None = None
    """Hears of every epoch of a training."""
    alive: Callable[[], None] | None = None
    """Raises StoppedEarlyError when no time is left; for steps that wait for others."""
    identity: str = ""
    """Digest of data, limits and machine that the result may depend on."""

    def examples(self, count: int) -> Mapping[str, Array]:
        """Return the first rows by input name, at most `count`, or as many as one call has, to run a network on.

        Raises:
            ValueError: The context has no rows.
        """
        rows = self.training or self.calibration or self.validation
        if rows is None:
            raise ValueError("there are no rows to run the network on")
        rows = rows.take(slice(0, self.signature.batch or count))
        return {tensor.name: np.ascontiguousarray(rows.inputs[tensor.name]) for tensor in self.signature.inputs}


class Technique(Protocol):
    """A module that implements one technique."""

    TYPE: TechniqueType
    CHEAP: bool
    """Whether it needs no data and little time, so that a search can see beforehand if it does anything at all."""
    TRAINS: bool
    """Whether its parameters say how the model is trained; else it is a `Rewriting`."""

    def unavailable(self, subject: Subject, spec: TechniqueSpec) -> str | None:
        """Return why nothing of the technique can be used on this model with this data, or None."""
        ...

    def suggest(self, trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
        """Ask the trial for every parameter, used or not; return those that matter, or None when switched off.

        A parameter is named `SPEC_NAME.PARAMETER`, and its choices depend on spec and subject only.
        """
        ...

    def defaults(self, spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
        """Return what the trial is told for each variant worth a try of its own, as the trial's parameters."""
        ...

    def off(self, spec: TechniqueSpec, subject: Subject) -> Params:
        """Return the trial's parameters that switch the technique off."""
        ...

    def describe(self, params: Params) -> str:
        """Return a few words for a set of parameters, such as `int8 static MinMax`."""
        ...


class Rewriting(Technique, Protocol):
    """A technique that rewrites an ONNX file, maybe training on afterwards."""

    def apply(self, model: Path, params: Params, context: Context) -> Applied | Skipped:
        """Write the changed model into the context's workdir. The same arguments give the same bytes."""
        ...


def json_or_text(value: str) -> Any:
    """Return what `value` says as JSON, or the text itself."""
    try:
        return json.loads(value, parse_constant=_refuse)
    except ValueError:
        return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
