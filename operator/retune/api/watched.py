"""`status.monitoring` and `status.triggers`: what watching the live model has shown, and whether a run may start."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from retune.api.base import ATOMIC, ApiModel, StatusPart, Time, map_list, one_of
from retune.api.bounds import Address, Hash, Number, Sentence, Word
from retune.api.monitoring import SIGNAL_REASONS


class StoredData(ApiModel):
    """A data set in the store, fixed by its digest."""

    uri: Address
    """Where the file lies."""
    digest: Hash
    """SHA-256 of the file."""
    rows: int = Field(ge=0)
    """Number of its rows."""


class FreshData(ApiModel):
    """The data that a run learns from and is judged by, built from recent production rows."""

    training: StoredData
    """Rows to learn from."""
    validation: StoredData
    """Rows that the search compares candidates on."""
    test: StoredData
    """The newest rows, which decide promotion."""
    words: Sentence
    """What the data was built from, as a sentence."""


class Verdict(StrEnum):
    """What one window says of one signal."""

    BREACH = "Breach"
    """The window is bad."""
    BETWEEN = "Between"
    """Neither bad nor clear: the signal keeps its state."""
    CLEAR = "Clear"
    """The window is good: the signal is not raised any more."""
    UNKNOWN = "Unknown"
    """Too few data, or none: the window says nothing."""


class Signal(StatusPart):
    """One thing that is watched: drift, quality, or a live number."""

    name: Word
    """Drift, Quality, EstimatedQuality, or the name of a live signal of the spec."""
    raised: bool = False
    """Whether enough windows in a row were bad and none was clear since."""
    streak: int = Field(default=0, ge=0)
    """Bad windows in a row."""
    first_bad: int | None = Field(default=None, ge=0)
    """Number of the first bad window in a row, kept while the signal is raised: the change began with that window."""
    verdict: Verdict = Verdict.UNKNOWN
    """What the last window says: Breach (it is bad), Clear, Between (neither: the signal keeps its state) or Unknown
    (too few data, or none)."""
    window: int | None = Field(default=None, ge=0)
    """Number of the last window that was judged."""
    value: Number | None = None
    """What that window showed: the share of drifted inputs, a quality, or the live number."""
    reference: Number | None = None
    """What the value is compared with: a limit, the quality on the reference, or the usual value."""
    samples: int | None = Field(default=None, ge=0)
    """Rows, labelled rows or requests that the value was computed from."""
    estimated: bool = False
    """Whether the value is an estimate, made without labels."""
    reason: Word = "NotSeenYet"
    """Why that is the verdict, as one word."""
    message: Sentence = ""
    """Why that is the verdict, as a sentence."""
    raised_at: Time | None = None
    """When it was raised; absent while it is not."""
    learned: int = Field(default=0, ge=0)
    """Windows that the usual value of a live signal with maxDegradation was learned from so far."""


class MonitoringStatus(StatusPart):
    """What watching the live model has shown."""

    since: Time
    """Since when the champion is watched. Windows that began before do not count."""
    champion_digest: Hash
    """Digest of the bundle that is watched."""
    window_seconds: int = Field(ge=1)
    """Length of a window in seconds; window k begins k times as many seconds after 1970-01-01 00:00 UTC."""
    window: int | None = Field(default=None, ge=0)
    """Number of the last window whose check has ended."""
    window_end: Time | None = None
    """When that window ended."""
    skipped_windows: int = Field(default=0, ge=0)
    """Windows that were not checked because newer ones were due."""
    samples: int | None = Field(default=None, ge=0)
    """Captured rows of that window."""
    drift_share: Number | None = None
    """Share of drifted inputs in that window."""
    drifted_columns: tuple[Word, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """The most drifted columns of that window."""
    violations: tuple[Sentence, ...] = Field(default=(), max_length=8, json_schema_extra=ATOMIC)
    """What does not fit the model's schema in that window; it does not count as drift."""
    quality: Number | None = None
    """Quality that was last measured with labels."""
    report_uri: Address | None = Field(default=None, alias="reportURI")
    """Where that window's report lies; absent where nothing was found."""
    signals: tuple[Signal, ...] = Field(default=(), max_length=10, json_schema_extra=map_list("name"))
    """State of everything that is watched."""


class Pending(StatusPart):
    """A reason to start a run that waits."""

    reason: Annotated[Word, Field(description=f"What could start a run: {one_of(SIGNAL_REASONS)}.")]
    since: Time
    """Since when it waits."""
    message: Sentence
    """What was seen, as a sentence."""


class TriggersStatus(StatusPart):
    """What decides whether a signal may start a run now."""

    pending: tuple[Pending, ...] = Field(
        default=(), max_length=len(SIGNAL_REASONS), json_schema_extra=map_list("reason")
    )
    """Reasons to start a run that wait."""
    held: Sentence | None = None
    """What keeps signals from starting a run now, as a sentence."""
    cooldown_until: Time | None = None
    """Signals start no run before this moment."""
    no_gain_streak: int = Field(default=0, ge=0)
    """Runs in a row that brought no gain: NoGain, GateFailed or Failed."""
    rollback_streak: int = Field(default=0, ge=0)
    """Rollbacks since the last promotion, or since a person last acted."""
    starts: tuple[Time, ...] = Field(default=(), max_length=24, json_schema_extra=ATOMIC)
    """When signals started runs in the last 24 hours."""
    circuit: Word | None = None
    """Why the circuit is open, so that signals start no runs: Exhausted (runs in a row without gain; closes once no
    reason is pending any more) or RollbackLoop. Any change of the spec, as of manualNonce, closes it."""
    circuit_generation: int | None = Field(default=None, ge=0)
    """Generation of the spec when the circuit opened: a later one is a person's word."""
    scheduled: Time | None = None
    """When a run last started because the schedule was due."""
