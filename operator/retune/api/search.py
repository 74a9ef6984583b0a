"""`spec.search` and `spec.serving`: how combinations are explored, and the conditions they are measured under."""

from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from retune.api.base import SET, ApiModel, Decimal, Duration, Memory, Rule, if_decimal, if_duration, map_list, rules
from retune.api.servers import RULES, EngineName, EngineVersion, ServerRuntime, misfit

_LONG_ENOUGH = Rule(if_duration("self", "duration(self) >= duration('30s')"), "search.maxDuration must be at least 30s")
_SOME_HOURS = Rule(if_decimal("self", "double(self) > 0.0"), "search.maxCpuHours must be above 0")


class Search(ApiModel):
    """How combinations of techniques and engine options are explored."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.parallelism <= self.maxTrials", "search.parallelism must not exceed search.maxTrials"),
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
    max_duration: Annotated[Duration, _LONG_ENOUGH] | None = None
    """Wall time of the search; time without a worker does not count, as while a queue has taken them back. When it is
    over, running trials are given up and the best so far is judged. One training takes at most a quarter of what is
    left of it. Without it and maxCpuHours, the limit is estimated from the model: two minutes for a small one, more
    where the first trial shows that the machine is busy or that fewer workers run than asked for."""
    max_cpu_hours: Annotated[Decimal, _SOME_HOURS] | None = None
    """CPU hours of all workers together. When they are spent, running trials are given up and the best so far is
    judged."""
    parallelism: int = Field(default=1, ge=1, le=64)
    """Workers that share one study. A queue may admit fewer."""
    finalists: int = Field(default=3, ge=1, le=5)
    """Candidates that the judge compares with the champion: from the boldest that the test rows are likely to prove to
    one that is as good as sure to be proven. The best that a user would get in one line is compared besides."""
    warm_start: bool = True
    """Whether the best combinations of earlier runs are tried first."""
    seed: int = Field(default=0, ge=0, le=2147483647)
    """Seed of everything random in the run."""


def _not_negative(field: str) -> Rule:
    """Return the rule on a decimal of Serving that it is not negative."""
    return Rule(if_decimal("self", "double(self) >= 0.0"), f"serving.{field} must not be negative")


_WEIGHS = "serving.batches: a weight must be above 0"
_BATCHES_ONLY = "give serving.batchSize or serving.batches, not both"
_ONCE = "serving.batches: each size may be given once"


class Batch(ApiModel):
    """Requests of one size."""

    size: int = Field(ge=1, le=1024)
    """Rows of a request."""
    weight: Annotated[Decimal, Rule(if_decimal("self", "double(self) > 0.0"), _WEIGHS)] = "1"
    """How many requests have this size, relative to the weights of the other sizes."""

    @model_validator(mode="after")
    def _weighs(self) -> Self:
        if Fraction(self.weight) <= 0:
            raise ValueError(_WEIGHS)
        return self


def at_size(metric: str, size: int) -> str:
    """Return the name of a latency metric in requests of `size` rows, such as `latency_p95_ms@32`."""
    return f"{metric}@{size}"


class Serving(ApiModel):
    """Where and how the model serves. Candidates are made for this and measured like this."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *RULES,
            ("!has(self.batchSize) || !has(self.batches)", _BATCHES_ONLY),
        )
    )

    profile: Literal["Auto", "EdgeCPU", "ServerCPU", "GPU"] = "Auto"
    """Kind of machine; it decides what is tried first. Auto means GPU where there is one and engines has TensorRT,
    EdgeCPU up to two cores or below 1Gi of memory, else ServerCPU."""
    engines: tuple[EngineName, ...] = Field(
        default=(EngineName.ONNX_RUNTIME,), min_length=1, max_length=3, json_schema_extra=SET
    )
    """Engines that the model server can run a bundle with."""
    runtime: ServerRuntime = ServerRuntime.RETUNE
    """What runs the bundle where the model serves. Candidates ask nothing that it cannot express, and are measured as
    it runs them. Retune is the runtime that reads bundles; Triton and OVMS (OpenVINO Model Server) are what retune
    render writes; KServe is its stock server of the engine, kserve-tritonserver or kserve-openvino; Custom is a server
    of your own that sets the engine's options."""
    engine_version: EngineVersion | None = None
    """Version of the engine that the server has, such as "1.20" of ONNX Runtime or "2025.4" of OpenVINO, in quotes. A
    model of a newer operator set or file format, or with operators that this version lacks, is no candidate, and is
    refused where it is delivered. Left out: nothing is known of the server's version."""
    image: str | None = Field(default=None, min_length=1, max_length=512)
    """Image of the server, with runtime Triton, OVMS or KServe. The judge then runs it beside itself, has it serve
    champion and candidates, and measures latency through it. A candidate that it refuses or answers otherwise loses. It
    runs as another user than root, on a read-only root file system with /tmp to write to, with as much CPU and memory
    as the judge, and without credentials. Left out: the judge measures in the engine of its own image."""
    cores: int | None = Field(default=None, ge=1, le=256)
    """Cores that measurements may use; defaults to the serving container's CPU limit."""
    memory: Memory | None = None
    """Memory of a serving process; candidates that need more are refused."""
    batch_size: int | None = Field(default=None, ge=1, le=1024)
    """Rows of every request, where all have the same size; 1 if batches is not given either."""
    batches: tuple[Batch, ...] | None = Field(
        default=None, min_length=1, max_length=8, json_schema_extra=map_list("size")
    )
    """Sizes of requests with their weights, where requests differ in size. Latency, throughput, CPU time, energy and
    cost are measured on a stream of requests in these shares, memory with the largest, quality with each: the worst
    counts."""
    watts_per_cpu: Annotated[Decimal, _not_negative("wattsPerCpu")] = "10"
    """Power of one busy core in watts, for the metric energy_joules_per_1000, which is an estimate."""
    price_per_cpu_hour: Annotated[Decimal, _not_negative("pricePerCpuHour")] = "0.04"
    """Price of a CPU hour, in any currency, for the metric cost_per_1000."""

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, fields: Any) -> Any:
        """Refuse both forms. One row is the same as nothing: stored objects have it from when it was the default."""
        if not isinstance(fields, dict):
            return fields
        size = fields.get("batchSize", fields.get("batch_size"))
        if size is not None and fields.get("batches") is not None:
            raise ValueError(_BATCHES_ONLY)
        usual = {"batchSize", "batch_size"} if size == 1 else set()
        return {name: value for name, value in fields.items() if name not in usual}

    @model_validator(mode="after")
    def _fits_the_server(self) -> Self:
        if fault := misfit(self.runtime, self.engines, self.engine_version, self.image):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len({batch.size for batch in self.batches or ()}) < len(self.batches or ()):
            raise ValueError(_ONCE)
        return self

    @property
    def only_size(self) -> int | None:
        """The rows of every request; None where requests differ in size."""
        sizes = [size for size, _ in self.mix]
        return sizes[0] if len(sizes) == 1 else None

    @property
    def mix(self) -> tuple[tuple[int, Fraction], ...]:
        """The rows of a request and the share of the requests that have as many, smallest first; shares add up to 1."""
        if self.batches is None:
            return ((self.batch_size or 1, Fraction(1)),)
        weights = {batch.size: Fraction(batch.weight) for batch in self.batches}
        total = sum(weights.values())
        return tuple((size, weights[size] / total) for size in sorted(weights))
