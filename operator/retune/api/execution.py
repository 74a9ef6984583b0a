"""`spec.execution`, `spec.rollout` and `spec.history`: how Jobs run, how a winner goes live, what is kept."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import ATOMIC, ApiModel, Cpu, DnsLabel, Duration, Memory, ObjectName, Uri, if_duration, rules


class ResourceList(ApiModel):
    """Amounts of CPU and memory."""

    cpu: Cpu | None = None
    """CPU, such as "1" or "500m"."""
    memory: Memory | None = None
    """Memory, such as "2Gi"."""


def _within(amount: str) -> str:
    """CEL: the request does not exceed the limit; what is no quantity is left to the field's own rule."""
    request, limit = f"self.requests.{amount}", f"self.limits.{amount}"
    return (
        f"!has({request}) || !has({limit}) || !isQuantity({request}) || !isQuantity({limit})"
        f" || quantity({request}).compareTo(quantity({limit})) <= 0"
    )


def _positive(amount: str) -> str:
    limit = f"self.limits.{amount}"
    return f"!has({limit}) || !isQuantity({limit}) || quantity({limit}).isGreaterThan(quantity('0'))"


class Resources(ApiModel):
    """What a Job's pod asks for and is held to."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_within("cpu"), "requests.cpu must not exceed limits.cpu"),
            (_within("memory"), "requests.memory must not exceed limits.memory"),
            (_positive("cpu"), "limits.cpu must be above zero"),
            (_positive("memory"), "limits.memory must be above zero"),
        )
    )  # fmt: skip

    requests: ResourceList = ResourceList()
    """Amounts reserved."""
    limits: ResourceList = ResourceList()
    """Amounts allowed."""


class Toleration(ApiModel):
    """A taint that a Job's pod tolerates."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.operator != 'Exists' || !has(self.value) || self.value == ''",
             "a toleration with operator Exists has no value: remove value or take operator Equal"),
            ("self.operator == 'Exists' || (has(self.key) && self.key != '')",
             "a toleration without key needs operator Exists"),
        )
    )  # fmt: skip

    key: str | None = Field(default=None, max_length=317)
    """Taint key; empty matches all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: str | None = Field(default=None, max_length=63)
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect to tolerate; empty matches all."""


def _between(field: str, low: str, high: str) -> str:
    """CEL: a duration lies within these bounds."""
    value = f"duration(self.{field})"
    return if_duration(f"self.{field}", f"{value} >= duration('{low}') && {value} <= duration('{high}')")


class Credentials(ApiModel):
    """What Jobs show to servers that hold the model or the data."""

    secret_name: ObjectName
    """Secret in the same namespace whose keys become environment variables of the Jobs that read s3://, gs:// or
    https:// URIs: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; GOOGLE_CREDENTIALS (JSON key
    of a service account); HTTPS_TOKEN and HTTPS_HOST; CA_CERTIFICATES (PEM). The operator never reads it."""


class Execution(ApiModel):
    """How and where Jobs run. What is left out comes from the operator's settings or from the target."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_between("runTimeout", "1m", "168h"), "execution.runTimeout must lie between 1m and 168h"),
            (_between("ttlAfterFinished", "10m", "720h"),
             "execution.ttlAfterFinished must lie between 10m, so that results are read before they go, and 720h"),
        )
    )  # fmt: skip

    image: str | None = Field(default=None, min_length=1, max_length=512)
    """Image of the optimizer Jobs; defaults to the operator's setting."""
    artifact_store: Uri | None = None
    """Where bundles, studies and reports go; defaults to the operator's setting."""
    credentials: Credentials | None = None
    """Credentials for model and data that are not on a volume; without it, they must be public."""
    resources: Resources = Resources()
    """Resources of the Jobs. The judge always runs under the serving container's CPU limit."""
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(default={}, max_length=16)
    """Nodes for the Jobs; defaults to the target's own selector, so that measurements count."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """Taints the Jobs tolerate; defaults to the target's own."""
    queue_name: DnsLabel | None = None
    """Kueue queue; the Jobs carry its label and wait for admission."""
    run_timeout: Duration = "2h"
    """Longest time one Job of a run may run; time spent suspended does not count."""
    backoff_limit: int = Field(default=2, ge=0, le=10)
    """Pod failures that a Job retries; bad input is never retried."""
    ttl_after_finished: Duration = "24h"
    """How long finished Jobs are kept."""


class Rollout(ApiModel):
    """How a winner goes live."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_between("progressDeadline", "10s", "24h"), "rollout.progressDeadline must lie between 10s and 24h"),
            (_between("bakeTime", "0s", "24h"), "rollout.bakeTime must not exceed 24h"),
        )
    )  # fmt: skip

    strategy: Literal["RollingUpdate"] = "RollingUpdate"
    """RollingUpdate changes the owned field and lets the workload replace its pods."""
    progress_deadline: Duration = "10m"
    """When the new pods are not all ready by then, the previous version returns."""
    bake_time: Duration = "2m"
    """How long the new version is watched before it counts as champion."""


class History(ApiModel):
    """How many finished OptimizationRuns are kept."""

    successful_runs: int = Field(default=3, ge=1, le=50)
    """Runs kept that ended Promoted, Recommended or NoGain."""
    failed_runs: int = Field(default=3, ge=1, le=50)
    """Runs kept that ended GateFailed, RolledBack, Failed or Cancelled."""
