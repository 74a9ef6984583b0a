"""`spec.execution` and `spec.history`: how Jobs run, and what is kept."""

from typing import Annotated

from pydantic import Field

from retune.api.base import (
    ATOMIC,
    NOT_WRITTEN_OUT,
    ApiModel,
    DnsLabel,
    Duration,
    Memory,
    ObjectName,
    Rule,
    StoreUri,
    between,
    one_of,
)
from retune.api.nodes import Toleration
from retune.api.resources import Resources
from retune.api.status import Outcome

_NO_SMALL_SCRATCH = Rule(
    "!isQuantity(self) || (quantity(self).compareTo(quantity('64Mi')) >= 0"
    " && quantity(self).compareTo(quantity('1Ti')) <= 0)",
    "execution.scratchSize must lie between 64Mi and 1Ti",
)
_READ_IN_TIME = Rule(
    between("10m", "720h"),
    "execution.ttlAfterFinished must lie between 10m, so that results are read before they go, and 720h",
)


class Credentials(ApiModel):
    """Credentials that Jobs show to the servers that hold the model, the data or the store."""

    secret_name: ObjectName
    """Secret in the same namespace. These of its keys become environment variables of the Jobs that use such URIs, and
    no others: for s3:// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION (or AWS_DEFAULT_REGION)
    and AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3); for gs:// GOOGLE_CREDENTIALS (JSON key of a service account); for
    az:// AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, and AZURE_STORAGE_SERVICE_ENDPOINT; for
    https:// HTTPS_TOKEN and HTTPS_HOST; for mlflow:// MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and those of s3:// and gs://; for oci:// .dockerconfigjson, or
    REGISTRY_HOST with REGISTRY_USERNAME and REGISTRY_PASSWORD or REGISTRY_TOKEN, REGISTRY_PLAIN_HTTP and
    REGISTRY_SIGNING_KEY (PEM); for all of them CA_CERTIFICATES (PEM). The operator never reads it."""


class Execution(ApiModel):
    """How and where Jobs run. What is left out comes from the operator's settings or from the target."""

    image: str | None = Field(default=None, min_length=1, max_length=512)
    """Image of all Jobs but those that check windows; defaults to the operator's setting."""
    artifact_store: StoreUri | None = None
    """Where bundles, studies, gathered data and reports go: pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH or
    az://CONTAINER/PATH. Defaults to the operator's setting. On the claim or in the bucket of that setting, no other
    folder may be named."""
    credentials: Credentials | None = None
    """Credentials for model, data and store that are not on a volume. Left out: model and data must be public, and for
    a store of the operator's setting in a bucket the administrator may have named a Secret. A model in MLflow needs
    them for the server's address."""
    resources: Resources = Field(default=Resources(), json_schema_extra=NOT_WRITTEN_OUT)
    """Resources of the Jobs. Those that measure, baseline and judge, always run under the serving container's CPU
    limit; the others do where limits.cpu is left out."""
    scratch_size: Annotated[Memory, _NO_SMALL_SCRATCH] | None = None
    """Size of the scratch folder of the Jobs, such as "16Gi", in which files are copied, converted and trained; a model
    needs about three times its size. Defaults to the operator's setting."""
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default={}, max_length=16, json_schema_extra=NOT_WRITTEN_OUT
    )
    """Nodes for the Jobs; defaults to the target's own selector, so that they measure where the model serves."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC | NOT_WRITTEN_OUT)
    """Taints that the Jobs tolerate; defaults to the target's own tolerations."""
    profile: DnsLabel | None = None
    """Profile of nodes that the operator's administrator offers, such as one with a GPU: its labels and tolerations
    come to those here, and its devices go to the container that trains, else to the Job's own."""
    queue_name: DnsLabel | None = None
    """Kueue queue. The Jobs carry its label and wait for admission; a search begins with as many of its workers as are
    admitted."""
    run_timeout: Annotated[
        Duration, Rule(between("1m", "168h"), "execution.runTimeout must lie between 1m and 168h")
    ] = "2h"
    """Longest time that one Job may run, from the start of its first pod: waiting for a queue, a node or an image does
    not count, but ends after a day. A Job that asks golden requests may take rollout.progressDeadline instead, waiting
    included, and 5 minutes at least."""
    backoff_limit: int = Field(default=2, ge=0, le=10)
    """Failed pods that a Job replaces. Bad input and too little memory are never tried again."""
    ttl_after_finished: Annotated[Duration, _READ_IN_TIME] = "24h"
    """How long finished Jobs are kept. Those that check windows are kept for two windows, 10 minutes at least, where
    that is shorter."""


class History(ApiModel):
    """How much of the past is kept. What goes beyond it is removed from the store when the next run starts."""

    versions: int = Field(default=5, ge=1, le=8)
    """Earlier champions kept in status.versions, with their bundles, so that rollout.rollbackTo can name them. Besides
    them are kept the champion, a candidate, what was delivered, and the version that rollbackTo names."""

    successful_runs: int = Field(
        default=3,
        ge=1,
        le=50,
        description="OptimizationRuns kept, with their folders in the store, besides the last one and those of "
        f"champion and candidate, that ended {one_of(end for end in Outcome if end.successful)}.",
    )
    failed_runs: int = Field(
        default=3,
        ge=1,
        le=50,
        description=f"The same of those that ended {one_of(end for end in Outcome if not end.successful)}.",
    )
