"""`status.monitoring` and `status.triggers`: how the live model looks, and what decides whether a run may start."""

from enum import StrEnum

from pydantic import Field

from retune.api.base import ATOMIC, ApiModel, Time, map_list
from retune.api.bounds import Address, Hash, Number, Sentence, Word


class StoredData(ApiModel):
    """A data set in the store, fixed by its digest."""

    uri: Address
    """Where it lies."""
    digest: Hash
    """SHA-256 of the file."""
    rows: int = Field(ge=0)
    """Rows in it."""


class FreshData(ApiModel):
    """What a run learns from and is judged by, built from recent production rows."""

    training: StoredData
    """Rows to learn from."""
    validation: StoredData
    """Rows the search compares candidates on."""
    test: StoredData
    """The newest rows, which decide."""
    words: Sentence
    """What it was built from."""


class Verdict(StrEnum):
    """What one window says of one signal."""

    BREACH = "Breach"
    BETWEEN = "Between"
    """Neither bad nor clear: the signal keeps its state."""
    CLEAR = "Clear"
    UNKNOWN = "Unknown"
    """Too few or no data: it says nothing."""


class Signal(ApiModel):
    """One thing that is watched: drift, quality, or a live number."""

    name: Word
    """Drift, Quality, or the name of a live signal."""
    raised: bool = False
    """Whether enough windows in a row were bad, and none was clear since."""
    streak: int = Field(default=0, ge=0)
    """Bad windows in a row."""
    first_bad: int | None = Field(default=None, ge=0)
    """Number of the first of them, or, while it is raised, of those that raised it: the change began then."""
    verdict: Verdict = Verdict.UNKNOWN
    """Of the last window."""
    window: int | None = Field(default=None, ge=0)
    """Number of the last window that counted."""
    value: Number | None = None
    """What was seen last: a share of drifted columns, a quality, a number of the live model."""
    reference: Number | None = None
    """What it is compared with."""
    samples: int | None = Field(default=None, ge=0)
    """Rows, labels or requests behind it."""
    estimated: bool = False
    """Whether it is an estimate."""
    reason: Word = "NotSeenYet"
    """Why, as one word."""
    message: Sentence = ""
    """Why, as a sentence."""
    raised_at: Time | None = None
    """When it was raised."""
    learned: int = Field(default=0, ge=0)
    """Windows that a reference which is learned was learned from."""


class MonitoringStatus(ApiModel):
    """How the live model looks."""

    since: Time
    """Since when the champion is watched: no window that began before counts."""
    champion_digest: Hash
    """Digest of the bundle that is watched."""
    window_seconds: int = Field(ge=1)
    """Length of a window when the watch began; window k begins k times that after 1970."""
    window: int | None = Field(default=None, ge=0)
    """Number of the last window that was judged."""
    window_end: Time | None = None
    """When that window ended."""
    skipped_windows: int = Field(default=0, ge=0)
    """Windows passed over because newer ones were due."""
    samples: int | None = Field(default=None, ge=0)
    """Captured rows of that window."""
    drift_share: Number | None = None
    """Share of drifted columns in that window."""
    drifted_columns: tuple[Word, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """The most drifted columns of that window."""
    violations: tuple[Sentence, ...] = Field(default=(), max_length=8, json_schema_extra=ATOMIC)
    """What does not fit the schema in that window; it is not drift."""
    quality: Number | None = None
    """Quality as measured last with labels."""
    report_uri: Address | None = Field(default=None, alias="reportURI")
    """Where that window's report lies."""
    signals: tuple[Signal, ...] = Field(default=(), max_length=10, json_schema_extra=map_list("name"))
    """Everything that is watched."""


class Pending(ApiModel):
    """A reason to run that waits for its time."""

    reason: Word
    """Drift, QualityDegradation, PerformanceDegradation, Schedule or ArtifactChange."""
    since: Time
    """When it came up."""
    message: Sentence
    """Why, as a sentence."""


class TriggersStatus(ApiModel):
    """What decides whether a signal may start a run now."""

    pending: tuple[Pending, ...] = Field(default=(), max_length=5, json_schema_extra=map_list("reason"))
    """Reasons that wait."""
    held: Sentence | None = None
    """Why none of them starts a run yet."""
    cooldown_until: Time | None = None
    """Before this, no signal starts a run."""
    no_gain_streak: int = Field(default=0, ge=0)
    """Runs in a row that brought nothing."""
    rollback_streak: int = Field(default=0, ge=0)
    """Runs in a row that were rolled back."""
    starts: tuple[Time, ...] = Field(default=(), max_length=24, json_schema_extra=ATOMIC)
    """When signals started runs in the last 24 hours."""
    circuit: Word | None = None
    """Why no signal may start runs until a person or new data change something: Exhausted or RollbackLoop."""
    scheduled: Time | None = None
    """The last time of the schedule that was acted on."""
