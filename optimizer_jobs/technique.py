"""What a technique is: it changes a model, or says why it leaves the model as it is.

Some techniques rewrite an ONNX file. Others define how the model is trained again; all of these in one plan form one
training. A technique must keep the model's inputs and outputs and their meaning. It must give the same bytes for the
same model, parameters, data and seed, because its result is reused under their hash.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from optuna.trial import BaseTrial

from optimizer_jobs.data.datasets import Array, Rows
from optimizer_jobs.models.native import Native
from optimizer_jobs.serving.limits import Limits
from optimizer_jobs.signature import Signature
from retune.api.model import Task
from retune.api.own_code import Factory
from retune.api.techniques import Technique as TechniqueSpec
from retune.api.techniques import TechniqueType

ParamValue = str | int | float | bool
Params = dict[str, ParamValue]
"""Parameters of one step: plain JSON values, without those that do not affect the result."""

ONE_LINE = "one_line"
"""Parameter of a step that calls a usual tool as its documentation does: what a search must not end with less than."""

TrainingPlan = Mapping[TechniqueType, Params]
"""The parameters of all techniques in a plan that define its training, by technique."""


Report = Callable[[int, float], bool | None]
"""Takes an epoch and its validation quality (higher is better). Returns False when there is no time for another epoch;
the training then ends with what it has learned. Raises StoppedEarlyError when the training is given up."""

Alive = Callable[[], float | None]
"""Returns the seconds that the step may still take, or None where that is not known; what works for long asks it often,
and ends with what it has when nothing is left. Raises StoppedEarlyError when a budget is spent."""


class StoppedEarlyError(Exception):
    """The training fell behind or a budget is spent, so the trial is given up and nothing of it is reused."""


@dataclass(frozen=True)
class Applied:
    """The step changed the model."""

    model: Path
    """The new ONNX file."""
    summary: str
    """What was done, in a few words, such as `int8 static MinMax, 2 of 7 layers kept in float`."""
    native: Path | None = None
    """The changed model in the format it was delivered in, if the step produces it."""
    factory: Factory | None = None
    """What builds the network whose weights are in `native`; its arguments may differ from the delivered ones."""


@dataclass(frozen=True)
class Skipped:
    """The step left the model as it was."""

    reason: str
    """Why, as a sentence without a full stop."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What decides whether a technique can be used: the model as delivered, and the available data and machine."""

    graph: onnx.ModelProto
    """The ONNX graph, without external data."""
    signature: Signature
    task: Task
    native: Native | None = None
    """The model in the format it was delivered in, when that is not ONNX."""
    training: bool = False
    """Whether there are rows to train on."""
    calibration: bool = False
    """Whether there are rows to observe value ranges on."""
    cpu_flags: frozenset[str] = frozenset()
    """Instruction set flags of this machine, as the kernel names them."""
    limits: Limits = field(default_factory=Limits)
    """What the server can run."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything that a step may use besides the model."""

    workdir: Path
    """Scratch folder of this step alone, for the new file."""
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
    """Rows that decide when training ends; the search compares candidates on them. Never the test rows."""
    calibration: Rows | None = None
    """Rows whose value ranges may be observed. Never the validation or test rows."""
    training_plan: TrainingPlan = field(default_factory=dict)
    """How the model of this plan is trained, for steps that continue training after their change."""
    threads: int = 1
    """Threads that training may use."""
    seed: int
    """Seed of everything random in the step."""
    cpu_flags: frozenset[str]
    """Instruction set flags of this machine, as the kernel names them."""
    shortfall: Callable[[Path], float] | None = None
    """Returns how far a model file misses the quality limit on validation; 0 or less keeps it. None without a limit."""
    report: Report | None = None
    """Is called after every epoch of a training."""
    alive: Alive | None = None
    """Says how long the step may still take, and raises StoppedEarlyError when no time is left. Costs nothing to call
    often; see `check_time`."""
    seconds_left: Callable[[], float] | None = None
    """Returns the seconds until `alive` raises for lack of wall time; infinite where only CPU time is limited."""
    identity: str = ""
    """Digest of data, limits and machine, on which the result may depend; it names the result for reuse."""

    def check_time(self) -> None:
        """Raise StoppedEarlyError when no time is left; called between batches, layers and other pieces of long work.

        Work is also interrupted at the deadline itself, wherever it is in Python. A call into a library that takes
        long is not, so it is cut into pieces, or its time is predicted from a first piece and held against `time_left`.
        """
        if self.alive is not None:
            self.alive()

    def time_left(self) -> float:
        """Return the seconds of wall time that are left for everything; infinite without a limit."""
        return math.inf if self.seconds_left is None else self.seconds_left()

    def examples(self, count: int) -> Mapping[str, Array]:
        """Return example rows to run a network on.

        Args:
            count: Most rows that are returned; a model with a fixed batch gets as many as its batch.

        Returns:
            Values by input name, with shape (M, ...).

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
    """Whether it needs no data and little time, so that a search can find out beforehand whether it has any effect."""
    TRAINS: bool
    """Whether its parameters define how the model is trained; otherwise it is a `Rewriting`."""

    def unavailable(self, subject: Subject, spec: TechniqueSpec) -> str | None:
        """Return why the technique cannot be used for this model and data, in words, or None when it can."""
        ...

    def suggest(self, trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
        """Ask the trial for every parameter, and return those that affect the result, or None when it is switched off.

        All parameters are asked for in every trial. A parameter is named `SPEC_NAME.PARAMETER`, and its choices depend
        on spec and subject only.
        """
        ...

    def defaults(self, spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
        """Return the trial parameters of each variant that is worth a try of its own, the most important first.

        Steps with ONE_LINE come before all others.

        The last variant of a cheap technique is its most thorough one.
        """
        ...

    def off(self, spec: TechniqueSpec, subject: Subject) -> Params:
        """Return the trial parameters that switch the technique off."""
        ...

    def describe(self, params: Params) -> str:
        """Return a few words for a set of parameters, such as `int8 static MinMax`."""
        ...


class Rewriting(Technique, Protocol):
    """A technique that rewrites an ONNX file, and may continue training afterwards."""

    def apply(self, model: Path, params: Params, context: Context) -> Applied | Skipped:
        """Write the changed model into the context's workdir; the same arguments give the same bytes.

        Args:
            model: The ONNX file to change.
            params: Parameters from `suggest`.
            context: What the step may use.
        """
        ...
