"""The engine's part of the search space: which engine runs a model, and with which options.

What means nothing to the engine drawn is left at its default, so that it does not tell plans apart; what means nothing
to any engine of the run is not asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from optuna.trial import BaseTrial

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.engine import EngineOptions, Precision
from optimizer_jobs.models.runtime import EngineError, open_model, precisions, unavailable
from optimizer_jobs.signature import Signature
from optimizer_jobs.technique import Params
from retune.api.search import EngineName
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
    """The engines that can run a model here, and why others that the server has cannot."""

    names: tuple[str, ...]
    """As `EngineOptions` names them, in the order of the spec."""
    left_out: dict[str, str]
    """Name in the spec to the reason."""


def usable(allowed: Sequence[EngineName], model: Path) -> Engines:
    """Return which of the allowed engines are here and open `model`.

    Raises:
        JobError: EngineUnavailable when none does, with the reason of each.
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


def typical_request(rows: Rows, signature: Signature, *, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input of a request with `batch` such rows; empty where the file says it already."""
    if all(size > 0 for spec in signature.inputs for size in spec.shape):
        return {}
    return {name: (signature.batch or batch, *values.shape[1:]) for name, values in rows.inputs.items()}


def unplannable(model: Path, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return why OpenVINO cannot plan for calls of these shapes, as words without a full stop, or None when it can."""
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
    cpu_flags: frozenset[str] = frozenset()
    """Instruction set flags of this machine."""
    rows: int | None = None
    """Rows of a typical request, where the model's first axis can be fixed to them."""
    planned: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of every input of a typical request, by name, where OpenVINO can plan for it."""

    def draw(self, trial: BaseTrial) -> EngineOptions:
        """Ask the trial for every parameter and return the options that matter."""
        name: str = self._asked(trial, NAME, self.names)
        told: dict[str, Any] = {}
        threads = int(self._asked(trial, THREADS, self._thread_choices()))
        spinning, level = self._ort(trial)
        precision = self._asked(trial, PRECISION, self._all_precisions())
        streams = self._asked(trial, STREAMS, self._stream_choices())
        if precision in precisions(name, self.cpu_flags):
            told = {"precision": precision}
        if name == ORT:
            told |= {"spinning": spinning or threads == 1, "graph_level": level}
        if self._asked(trial, SHAPE, self._shape_choices()) == TYPICAL:
            told |= self._ahead(name)
        if name == OPENVINO and streams == AS_MANY_AS_FIT:
            told["streams"] = self.threads // threads
        return EngineOptions.model_validate({"engine": name, "threads": threads, **told})

    def defaults(self) -> tuple[Params, ...]:
        """Return trial parameters that run a model well, once for each engine; the first engine comes first."""
        return tuple(self._default(name) for name in self.names)

    def _default(self, name: str) -> Params:
        told: Params = {
            NAME: name,
            THREADS: self._thread_choices()[-1],
            SPINNING: True,
            GRAPH_LEVEL: GRAPH_LEVELS[0],
            PRECISION: PLAIN if name == ORT else precisions(name, self.cpu_flags)[0],
            STREAMS: ONE,
            SHAPE: TYPICAL if name == OPENVINO and self.planned else FREE,
        }
        return {parameter: value for parameter, value in told.items() if parameter in self._parameters()}

    def _parameters(self) -> set[str]:
        """Return what trials are asked: what any engine of this run heeds and has a choice in."""
        several = {
            NAME: self.names,
            PRECISION: self._all_precisions(),
            STREAMS: self._stream_choices(),
            SHAPE: self._shape_choices(),
        }
        asked = {parameter for parameter, choices in several.items() if len(choices) > 1}
        return asked | {THREADS} | ({SPINNING, GRAPH_LEVEL} if ORT in self.names else set())

    def _ort(self, trial: BaseTrial) -> tuple[bool, str]:
        if ORT not in self.names:
            return True, GRAPH_LEVELS[0]
        spinning = bool(trial.suggest_categorical(SPINNING, (True, False)))
        return spinning, str(trial.suggest_categorical(GRAPH_LEVEL, GRAPH_LEVELS))

    def _asked(self, trial: BaseTrial, parameter: str, choices: Sequence[Any]) -> Any:
        return trial.suggest_categorical(parameter, choices) if parameter in self._parameters() else choices[0]

    def _all_precisions(self) -> tuple[Precision, ...]:
        """Return every precision that any engine of the run may compute in."""
        return tuple(dict.fromkeys(one for name in self.names for one in precisions(name, self.cpu_flags)))

    def _stream_choices(self) -> tuple[str, ...]:
        return (ONE, AS_MANY_AS_FIT) if OPENVINO in self.names and self.threads > 1 else (ONE,)

    def _shape_choices(self) -> tuple[str, ...]:
        return (FREE, TYPICAL) if any(self._ahead(name) for name in self.names) else (FREE,)

    def _ahead(self, name: str) -> dict[str, Any]:
        """Return what an engine is told of a typical request's shape; empty where that is of no use to it."""
        if name == OPENVINO and self.planned:
            return {"planned": self.planned}
        return {"rows": self.rows} if name == ORT and self.rows else {}

    def _thread_choices(self) -> tuple[int, ...]:
        """Return the powers of two up to the limit, and the limit."""
        powers = [2**power for power in range(self.threads.bit_length()) if 2**power < self.threads]
        return (*powers, self.threads)
