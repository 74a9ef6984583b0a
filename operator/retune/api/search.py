"""`spec.search` and `spec.serving`: how combinations are explored, and the conditions they are measured under."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from retune.api.base import SET, ApiModel, Decimal, Duration, Memory, if_decimal, if_duration, rules


class Search(ApiModel):
    """How combinations of techniques and engine options are explored."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.parallelism <= self.maxTrials", "search.parallelism must not exceed search.maxTrials"),
            ("!has(self.maxDuration) || " + if_duration("self.maxDuration", "duration(self.maxDuration) >= duration('30s')"),
             "search.maxDuration must be at least 30s"),
            ("!has(self.maxCpuHours) || " + if_decimal("self.maxCpuHours", "double(self.maxCpuHours) > 0.0"),
             "search.maxCpuHours must be above 0"),
            ("self.sampler != 'GP' || self.maxTrials <= 50",
             "search.sampler GP is too slow for more than 50 trials: lower search.maxTrials or use Auto"),
        )
    )  # fmt: skip

    sampler: Literal["Auto", "Grid", "Random", "TPE", "GP", "CMAES", "NSGAII", "NSGAIII"] = "Auto"
    """Sampler of the study. Auto takes TPE for small budgets and NSGA-II from 200 trials. Grid tries every combination,
    of numbers both ends and the middle, and ends when there are no more. GP is for at most 50 trials, CMAES for one
    objective with role Optimize."""
    early_stopping: Literal["Auto", "None", "Median", "SuccessiveHalving"] = "Auto"
    """When training that falls behind trainings of its kind ends early; one that keeps the quality limits goes on. Auto
    is Median, which compares with four trials at least; SuccessiveHalving lets the best third pass epochs 3, 9, 27."""
    max_trials: int = Field(default=24, ge=1, le=1000)
    """Trials a run may spend."""
    max_duration: Duration | None = None
    """Wall time after which no trial starts and a running one is given up; the best so far is judged. One training of
    a network takes at most a quarter of what is left of it."""
    max_cpu_hours: Decimal | None = None
    """CPU hours of all workers together after which no trial starts and running ones are given up; the best so far is
    judged."""
    parallelism: int = Field(default=1, ge=1, le=64)
    """Workers that share one study."""
    finalists: int = Field(default=3, ge=1, le=5)
    """Candidates that the judge compares with the champion. Several are bold and cautious ones: from likelier than not
    to be proven with the test rows there are, up to as good as sure."""
    warm_start: bool = True
    """Try the best combinations of the run before first."""
    seed: int = Field(default=0, ge=0, le=2147483647)
    """Seed of everything random in the run."""


class EngineName(StrEnum):
    """What runs a model file."""

    ONNX_RUNTIME = "ONNXRuntime"
    OPENVINO = "OpenVINO"
    TENSORRT = "TensorRT"


class Serving(ApiModel):
    """Where and how the model serves. Candidates are made for this and measured like this."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (if_decimal("self.wattsPerCpu", "double(self.wattsPerCpu) >= 0.0"), "serving.wattsPerCpu must not be negative"),
            (if_decimal("self.pricePerCpuHour", "double(self.pricePerCpuHour) >= 0.0"),
             "serving.pricePerCpuHour must not be negative"),
        )
    )  # fmt: skip

    profile: Literal["Auto", "EdgeCPU", "ServerCPU", "GPU"] = "Auto"
    """Kind of machine; it decides what is tried first. Auto: a GPU where there is one and TensorRT is allowed, an edge
    CPU up to two cores or with less than 1Gi of memory, else a server CPU."""
    engines: tuple[EngineName, ...] = Field(
        default=(EngineName.ONNX_RUNTIME,), min_length=1, max_length=3, json_schema_extra=SET
    )
    """Engines that the model server can run a bundle with."""
    cores: int | None = Field(default=None, ge=1, le=256)
    """Cores that measurements are confined to; defaults to the serving container's CPU limit."""
    memory: Memory | None = None
    """Memory that a process with the model must get along with; candidates that need more are refused."""
    batch_size: int = Field(default=1, ge=1, le=1024)
    """Rows of a typical request."""
    watts_per_cpu: Decimal = "10"
    """Power of one busy core, for the estimate energy_joules_per_1000."""
    price_per_cpu_hour: Decimal = "0.04"
    """Price of a CPU hour, in any currency, for cost_per_1000."""
