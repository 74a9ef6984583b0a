"""`spec.search` and `spec.serving`: how combinations are explored, and the conditions they are measured under."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from retune.api.base import SET, ApiModel, Decimal, Duration, Memory, if_decimal, if_duration, rules

_LONG_ENOUGH = if_duration("self.maxDuration", "duration(self.maxDuration) >= duration('30s')")
_SOME_HOURS = if_decimal("self.maxCpuHours", "double(self.maxCpuHours) > 0.0")


class Search(ApiModel):
    """How combinations of techniques and engine options are explored."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.parallelism <= self.maxTrials", "search.parallelism must not exceed search.maxTrials"),
            (f"!has(self.maxDuration) || {_LONG_ENOUGH}", "search.maxDuration must be at least 30s"),
            (f"!has(self.maxCpuHours) || {_SOME_HOURS}", "search.maxCpuHours must be above 0"),
            (
                "self.sampler != 'GP' || self.maxTrials <= 50",
                "search.sampler GP is too slow for more than 50 trials: lower search.maxTrials or use Auto",
            ),
        )
    )

    sampler: Literal["Auto", "Grid", "Random", "TPE", "GP", "CMAES", "NSGAII", "NSGAIII"] = "Auto"
    """Sampler of the study. Auto takes TPE below 200 trials and NSGAII from there on. Grid tries every combination, of
    numbers both ends and the middle, and ends when there are no more. GP is for at most 50 trials, CMAES for exactly
    one objective with role Optimize; a run on fresh data, which optimizes quality besides, takes TPE instead."""
    early_stopping: Literal["Auto", "None", "Median", "SuccessiveHalving"] = "Auto"
    """When a training that falls behind trainings of its kind ends early; one that keeps the quality limits goes on.
    Median, which Auto means, ends those below the median of four trials or more. SuccessiveHalving lets only the best
    third go on after epochs 3, 9, 27 and so on."""
    max_trials: int = Field(default=24, ge=1, le=1000)
    """Most trials of a run."""
    max_duration: Duration | None = None
    """Wall time of the search. When it is over, running trials are given up and the best so far is judged. One training
    takes at most a quarter of what is left of it. Without it and maxCpuHours, the limit is estimated from the model:
    two minutes for a small one."""
    max_cpu_hours: Decimal | None = None
    """CPU hours of all workers together. When they are spent, running trials are given up and the best so far is
    judged."""
    parallelism: int = Field(default=1, ge=1, le=64)
    """Workers that share one study."""
    finalists: int = Field(default=3, ge=1, le=5)
    """Candidates that the judge compares with the champion: from the boldest that the test rows are likely to prove to
    one that is as good as sure to be proven. The best that a user would get in one line is compared besides."""
    warm_start: bool = True
    """Whether the best combinations of earlier runs are tried first."""
    seed: int = Field(default=0, ge=0, le=2147483647)
    """Seed of everything random in the run."""


class EngineName(StrEnum):
    """What runs a model file."""

    ONNX_RUNTIME = "ONNXRuntime"
    OPENVINO = "OpenVINO"
    TENSORRT = "TensorRT"


def _not_negative(field: str) -> tuple[str, str]:
    """Return the rule, with its sentence, that a decimal field of Serving is not negative."""
    return if_decimal(f"self.{field}", f"double(self.{field}) >= 0.0"), f"serving.{field} must not be negative"


class Serving(ApiModel):
    """Where and how the model serves. Candidates are made for this and measured like this."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _not_negative("wattsPerCpu"),
            _not_negative("pricePerCpuHour"),
        )
    )

    profile: Literal["Auto", "EdgeCPU", "ServerCPU", "GPU"] = "Auto"
    """Kind of machine; it decides what is tried first. Auto means GPU where there is one and engines has TensorRT,
    EdgeCPU up to two cores or below 1Gi of memory, else ServerCPU."""
    engines: tuple[EngineName, ...] = Field(
        default=(EngineName.ONNX_RUNTIME,), min_length=1, max_length=3, json_schema_extra=SET
    )
    """Engines that the model server can run a bundle with."""
    cores: int | None = Field(default=None, ge=1, le=256)
    """Cores that measurements may use; defaults to the serving container's CPU limit."""
    memory: Memory | None = None
    """Memory of a serving process; candidates that need more are refused."""
    batch_size: int = Field(default=1, ge=1, le=1024)
    """Rows of a typical request."""
    watts_per_cpu: Decimal = "10"
    """Power of one busy core in watts, for the metric energy_joules_per_1000, which is an estimate."""
    price_per_cpu_hour: Decimal = "0.04"
    """Price of a CPU hour, in any currency, for the metric cost_per_1000."""
