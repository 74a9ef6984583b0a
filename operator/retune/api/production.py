"""`spec.monitoring.production`: where captured requests and their labels lie, and how long they are kept."""

from pydantic import Field

from retune.api.base import ApiModel, Duration, FileUri, seconds


class Labels(ApiModel):
    """Labels of captured rows, known later than the prediction."""

    uri: FileUri
    """Folder of Parquet files with the columns request_id, row (0 where left out) and the label."""
    column: str = Field(default="label", min_length=1, max_length=128)
    """Column with the true label or number."""
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


class Production(ApiModel):
    """Captured requests: what the live model was asked and what it answered."""

    uri: FileUri
    """Folder of captured requests: Parquet files below date=YYYY-MM-DD/hour=HH, as the documentation describes."""
    labels: Labels | None = None
    """Where labels are found. Left out: quality is only estimated, from the model's own confidence."""
    retention: Duration | None = None
    """How long captured files are kept: older ones on a volume are removed, but only such as Retune's own writer has
    marked. Left out, or zero: for ever."""

    @property
    def kept_seconds(self) -> float | None:
        """How many seconds captured files are kept; None: for ever."""
        return (seconds(self.retention) or None) if self.retention else None
