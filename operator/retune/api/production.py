"""`spec.monitoring.production`: where captured requests and their labels lie, and how long they are kept."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from retune.api.base import ATOMIC, ApiModel, Duration, FileUri, rules, seconds


class Labels(ApiModel):
    """Labels of captured rows, known later than the prediction."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.columns) || self.column == 'label'",
                "labels.column is one column with everything, labels.columns are several: give one of them",
            ),
        )
    )

    uri: FileUri
    """Folder of Parquet files with the columns request_id, row (0 where left out) and the label."""
    column: str = Field(default="label", min_length=1, max_length=128)
    """Column with the true label or number; for several labels or numbers a row, a list of them, for task MultiLabel a
    zero or one for each label in the model's order."""
    columns: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] | None = Field(
        default=None, min_length=2, max_length=1024, json_schema_extra=ATOMIC
    )
    """Several columns in place of that one, in the model's order: for task MultiLabel one with zeros and ones for each
    label, for Regression one for each number. A row without a value in each of them has no label."""
    group_column: str | None = Field(default=None, min_length=1, max_length=128)
    """Column of these files with what rows belong to, as data.*.groupColumn. Fresh data of a run has groups by it."""
    weight_column: str | None = Field(default=None, min_length=1, max_length=128)
    """Column of these files with how much a row counts, as data.*.weightColumn. Fresh data has weights by it."""
    max_delay: Duration = "24h"
    """How long after a prediction its label may come. A window's quality is judged when this time is over."""

    @property
    def beside(self) -> dict[str, str | None]:
        """The fields of a data set that name the columns of groups and weights."""
        return {"group_column": self.group_column, "weight_column": self.weight_column}


class CaptureFormat(StrEnum):
    """Who writes the captured requests."""

    RETUNE = "Retune"
    KSERVE = "KServe"
    TRITON = "Triton"


class Production(ApiModel):
    """Captured requests: what the live model was asked and what it answered."""

    uri: FileUri
    """Folder of captured requests: Parquet files below date=YYYY-MM-DD/hour=HH, as the documentation describes, or what
    `format` says."""
    format: CaptureFormat = CaptureFormat.RETUNE
    """Retune: files with the columns that the documentation has, which any server may write. KServe: JSON or Parquet
    files of KServe's inference logger. Triton: trace files of Triton Inference Server with levels TIMESTAMPS and
    TENSORS."""
    labels: Labels | None = None
    """Where labels are found. Left out: quality is only estimated, from the model's own confidence."""
    retention: Duration | None = None
    """How long captured files are kept: older ones are removed, but only such as Retune's own writer has marked. Left
    out, or zero: for ever."""

    @property
    def kept_seconds(self) -> float | None:
        """How many seconds captured files are kept; None: for ever."""
        return (seconds(self.retention) or None) if self.retention else None
