"""The part of the search space that is about engines: which engine runs a model, and with which options.

An option that the chosen engine ignores keeps its default, so that two plans do not differ only in it. An option that
no engine of the run uses is not part of the space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from optuna.trial import BaseTrial

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.engine import EngineOptions, Precision
from optimizer_jobs.models.runtime import EngineError, open_model, precisions, unavailable
from optimizer_jobs.serving.limits import Limits
from optimizer_jobs.technique import Params
from retune.api.servers import EngineName
from retune.contract.results import Reason

ORT: Final = "onnxruntime"
OPENVINO: Final = "openvino"
GRAPH_LEVELS = ("all", "extended", "basic")
NAME, THREADS, STREAMS = "engine.name", "engine.threads", "engine.streams"
SPINNING, GRAPH_LEVEL, PRECISION = "engine.spinning", "engine.graph_level", "engine.precision"
SHAPE = "engine.shape"
FREE, TYPICAL = "Free", "Typical"
PLAIN: Precision = "float32"
ONE, AS_MANY_AS_FIT = "One", "AsManyAsFit"


@dataclass(frozen=True)
class Engines:
    """The engines that can run a model on this machine, and why others of the spec cannot."""

    names: tuple[str, ...]
    """Names as in `EngineOptions`, in the order of the spec."""
    left_out: dict[str, str]
    """Reason by the engine's name in the spec."""


def usable(allowed: Sequence[EngineName], model: Path) -> Engines:
    """Return which of the allowed engines can open the ONNX file at `model` on this machine.

    Raises:
        JobError: EngineUnavailable when none can; the message has the reason of each.
    """
    reasons = {name: _unusable(name.lower(), model) for name in allowed}
    left_out = {str(name): reason for name, reason in reasons.items() if reason is not None}
    if len(left_out) == len(reasons):
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise JobError(
            Reason.ENGINE_UNAVAILABLE,
            "serving.engines",
            f"no engine can run the model here ({why}).",
            "Name another engine in spec.serving.engines, or use an image and a node that have it.",
        )
    return Engines(tuple(name.lower() for name, reason in reasons.items() if reason is None), left_out)


def _unusable(engine: str, model: Path) -> str | None:
    reason = unavailable(engine)
    if reason is not None:
        return reason
    try:
        open_model(model, EngineOptions.model_validate({"engine": engine}))
    except EngineError as error:
        return f"it cannot open the model ({printable(str(error), limit=200)})"
    return None


def unplannable(model: Path, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return why OpenVINO cannot plan for calls of these shapes, in words without a full stop, or None when it can."""
    try:
        open_model(model, EngineOptions(engine=OPENVINO, planned=shapes))
    except EngineError as error:
        return printable(str(error), limit=200)
    return None


@dataclass(frozen=True, kw_only=True)
class EngineSpace:
    """All ways to run a model file."""

    threads: int
    """Most threads that the server may use."""
    names: tuple[str, ...] = (ORT,)
    """Engines, the usual one first."""
    cpu_flags: frozenset[str] = frozenset()
    """Instruction set flags of this machine."""
    rows: int | None = None
    """Rows of a typical request, if the model's first axis can be fixed to them."""
    planned: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of every input of a typical request, by name, if OpenVINO can plan for it."""
    limits: Limits = field(default_factory=Limits)
    """What the server can be told."""

    def draw(self, trial: BaseTrial) -> EngineOptions:
        """Ask the trial for every parameter, and return the options without those that the engine ignores."""
        name: str = self._asked(trial, NAME, self.names)
        options: dict[str, Any] = {}
        threads = int(self._asked(trial, THREADS, self._thread_choices()))
        spinning, level = self._ort(trial)
        precision = self._asked(trial, PRECISION, self._all_precisions())
        streams = self._asked(trial, STREAMS, self._stream_choices())
        if precision in self._precisions(name):
            options = {"precision": precision}
        if name == ORT:
            options |= {"spinning": spinning or threads == 1, "graph_level": level}
        if self._asked(trial, SHAPE, self._shape_choices()) == TYPICAL:
            options |= self._fixed_shape(name)
        if name == OPENVINO and streams == AS_MANY_AS_FIT:
            options["streams"] = self.threads // threads
        return EngineOptions.model_validate({"engine": name, "threads": threads, **options})

    def defaults(self) -> tuple[Params, ...]:
        """Return, for each engine, the trial parameters that usually run a model well; the usual engine comes first."""
        return tuple(self._default(name) for name in self.names)

    def _default(self, name: str) -> Params:
        params: Params = {
            NAME: name,
            THREADS: self._thread_choices()[-1],
            SPINNING: True,
            GRAPH_LEVEL: GRAPH_LEVELS[0],
            PRECISION: PLAIN if name == ORT else self._precisions(name)[0],
            STREAMS: ONE,
            SHAPE: TYPICAL if name == OPENVINO and self.planned else FREE,
        }
        return {parameter: value for parameter, value in params.items() if parameter in self._parameters()}

    def _parameters(self) -> set[str]:
        """Return the parameters that trials are asked for: those that an engine of this run uses and can choose."""
        choices_of = {
            NAME: self.names,
            PRECISION: self._all_precisions(),
            STREAMS: self._stream_choices(),
            SHAPE: self._shape_choices(),
        }
        open_choices = {parameter for parameter, choices in choices_of.items() if len(choices) > 1}
        of_ort = {GRAPH_LEVEL, *({SPINNING} if self.limits.quiet else ())}
        return open_choices | {THREADS} | (of_ort if ORT in self.names else set())

    def _ort(self, trial: BaseTrial) -> tuple[bool, str]:
        spinning, level = self._asked(trial, SPINNING, (True, False)), self._asked(trial, GRAPH_LEVEL, GRAPH_LEVELS)
        return bool(spinning), str(level)

    def _asked(self, trial: BaseTrial, parameter: str, choices: Sequence[Any]) -> Any:
        return trial.suggest_categorical(parameter, choices) if parameter in self._parameters() else choices[0]

    def _all_precisions(self) -> tuple[Precision, ...]:
        """Return every precision that any engine of the run may compute in."""
        return tuple(dict.fromkeys(precision for name in self.names for precision in self._precisions(name)))

    def _precisions(self, name: str) -> tuple[Precision, ...]:
        """Return the precisions of an engine that this machine has and the server can be told, the fastest first."""
        return self.limits.precisions(name, precisions(name, self.cpu_flags))

    def _stream_choices(self) -> tuple[str, ...]:
        return (ONE, AS_MANY_AS_FIT) if OPENVINO in self.names and self.threads > 1 else (ONE,)

    def _shape_choices(self) -> tuple[str, ...]:
        return (FREE, TYPICAL) if any(self._fixed_shape(name) for name in self.names) else (FREE,)

    def _fixed_shape(self, name: str) -> dict[str, Any]:
        """Return the options that fix the shape of a typical request; empty when the engine cannot use them."""
        if name == OPENVINO and self.planned:
            return {"planned": self.planned}
        return {"rows": self.rows} if name == ORT and self.rows else {}

    def _thread_choices(self) -> tuple[int, ...]:
        """Return the powers of two below the limit, and the limit."""
        powers = [2**power for power in range(self.threads.bit_length()) if 2**power < self.threads]
        return (*powers, self.threads)
