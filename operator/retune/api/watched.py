"""`status.monitoring` and `status.triggers`: what watching the live model has shown, and whether a run may start."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from retune.api.base import ATOMIC, ApiModel, StatusPart, Time, map_list, one_of
from retune.api.bounds import Address, Hash, Number, Sentence, Word
from retune.api.triggers import SIGNAL_REASONS


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
    policy: Word | None = None
    """How the training rows were put together, as a word of spec.refresh.policy; absent where an older image did it."""
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
    UNTRUSTED = "Untrusted"
    """There is data, and it is not of a kind to judge by: an estimate where the reference does not speak for the rows,
    or labels of rows unlike the others. The window changes nothing."""


class Signal(StatusPart):
    """One thing that is watched: drift, quality, or a live number."""

    name: Word
    """Drift, Quality, Segment, EstimatedQuality, Headroom, or the name of a live signal of the spec."""
    raised: bool = False
    """Whether enough windows in a row were bad and none was clear since."""
    streak: int = Field(default=0, ge=0)
    """Bad windows in a row."""
    first_bad: int | None = Field(default=None, ge=0)
    """Number of the first bad window in a row, kept while the signal is raised: the change began with that window."""
    verdict: Verdict = Verdict.UNKNOWN
    """What the last window says: Breach (it is bad), Clear, Between (neither: the signal keeps its state), Unknown
    (too few data, or none) or Untrusted (the rows, or those with labels, are not of a kind to judge by)."""
    window: int | None = Field(default=None, ge=0)
    """Number of the last window that was judged."""
    value: Number | None = None
    """What that window showed: the share that drifted inputs carry of the answers, or that they are of all inputs; a
    quality; or the live number."""
    reference: Number | None = None
    """What the value is compared with: a limit, the quality on the reference, or the usual value."""
    low: Number | None = None
    """Lower end of a quality's interval: 95 % of an estimate, 99.8 % of a measured one."""
    high: Number | None = None
    """Upper end of that interval."""
    outside: Number | None = None
    """Share (0..1) of the window's rows that lie where the reference has none; of an estimate alone."""
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


class MovedColumn(StatusPart):
    """A column whose values in the last window are not those of the reference."""

    name: Word
    """Name of the column."""
    size: Number
    """How far it moved, in the measure's unit."""
    measure: Word
    """Wasserstein (a share of the reference's standard deviation), JensenShannon or PSI."""
    carries: Number | None = None
    """Share (0..1) of the champion's answers that it carries at most; absent where that is not known."""
    looks_like: Sentence | None = None
    """What the change looks like, as a clause: a guess at a fault of the pipeline that has a name."""


class WatchedSegment(StatusPart):
    """A part of the live rows, and how its quality stands beside that of the same part of the reference."""

    name: Word
    """The column and its values, such as `region=EU` or `age>31 to 45`."""
    verdict: Verdict = Verdict.UNKNOWN
    """What the last labelled window says of it."""
    raised: bool = False
    """Whether enough windows in a row were bad and none was clear since."""
    streak: int = Field(default=0, ge=0)
    """Bad windows in a row."""
    first_bad: int | None = Field(default=None, ge=0)
    """Number of the first bad window in a row, kept while it is raised."""
    value: Number | None = None
    """Its quality in that window."""
    reference: Number | None = None
    """Its quality on the reference."""
    samples: int = Field(default=0, ge=0)
    """Labelled rows of it that count in that window."""
    rows: int = Field(default=0, ge=0)
    """Captured rows of it in the last window."""
    drift: Number | None = None
    """How far the champion's answers to it moved in the last window; absent where that is not proven."""


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
    labelled_rows: int | None = Field(default=None, ge=0)
    """Captured rows with a label of the last window whose labels were due; absent before there was one."""
    drift_share: Number | None = None
    """Share of the answers that drifted inputs of that window carry, or where that is not known, their share of the
    inputs."""
    drifted_columns: tuple[Word, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """The most drifted columns of that window."""
    moved: tuple[MovedColumn, ...] = Field(default=(), max_length=8, json_schema_extra=map_list("name"))
    """How far those moved, and what each carries; the ones that count most first."""
    violations: tuple[Sentence, ...] = Field(default=(), max_length=8, json_schema_extra=ATOMIC)
    """What does not fit the model's schema in that window; it does not count as drift."""
    quality: Number | None = None
    """Quality that was last measured with labels."""
    report_uri: Address | None = Field(default=None, alias="reportURI")
    """Where that window's report lies; absent where nothing was found."""
    segments: tuple[WatchedSegment, ...] = Field(default=(), max_length=8, json_schema_extra=map_list("name"))
    """The segments that are raised or were worst in the last labelled window."""
    signals: tuple[Signal, ...] = Field(default=(), max_length=13, json_schema_extra=map_list("name"))
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
