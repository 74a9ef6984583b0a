"""What a Job answers: at most 4096 bytes of JSON in its termination message, besides files in the store.

Whatever ends up in a status has the bounds of the status here: what would not fit there is refused as a result. A Job's
image may be of a newer release: fields that only that one knows are passed over.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter
from pydantic_core import from_json

from retune.api.base import Text
from retune.api.bounds import Address, Hash, Name, Number, Registered, Sentence, Word
from retune.api.objects import Comparison
from retune.api.status import Measurement
from retune.api.watched import FreshData
from retune.api.watched import Verdict as WindowVerdict
from retune.contract.machines import InspectResult, RenderResult, SuggestResult, SurveyResult
from retune.contract.paths import RESULT_LIMIT
from retune.contract.requests import BundleRef, Document
from retune.contract.worth import JudgedWorth

Numbers = Annotated[tuple[Measurement, ...], Field(max_length=16)]


class Reason(StrEnum):
    """Why a Job could not do its work. Each becomes the reason of a condition."""

    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_FORBIDDEN = "ModelForbidden"
    MODEL_INVALID = "ModelInvalid"
    MODEL_TOO_LARGE = "ModelTooLarge"
    MODELS_DIFFER = "ModelsDiffer"
    DATA_NOT_FOUND = "DataNotFound"
    DATA_FORBIDDEN = "DataForbidden"
    DATA_INVALID = "DataInvalid"
    DATA_TOO_LARGE = "DataTooLarge"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    DIGEST_MISMATCH = "DigestMismatch"
    BUNDLE_NOT_FOUND = "BundleNotFound"
    BUNDLE_CORRUPT = "BundleCorrupt"
    BUNDLE_FORBIDDEN = "BundleForbidden"
    STORE_NOT_WRITABLE = "StoreNotWritable"
    STORE_FULL = "StoreFull"
    REQUEST_INVALID = "RequestInvalid"
    TECHNIQUE_UNAVAILABLE = "TechniqueUnavailable"
    ENGINE_UNAVAILABLE = "EngineUnavailable"
    BASELINE_NOT_BETTER_THAN_CHANCE = "BaselineNotBetterThanChance"
    NO_FEASIBLE_CANDIDATE = "NoFeasibleCandidate"
    GOLDEN_MISMATCH = "GoldenMismatch"
    VARIABLE_IGNORED = "VariableIgnored"
    PROTOCOL_MISMATCH = "ProtocolMismatch"
    SERVER_UNREACHABLE = "ServerUnreachable"
    REGISTRY_FORBIDDEN = "RegistryForbidden"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    REGISTRY_REFUSED = "RegistryRefused"
    REGISTRY_CONFLICT = "RegistryConflict"
    SHADOW_ERRORS = "ShadowErrors"
    SHADOW_SLOW = "ShadowSlow"
    SHADOW_LACKING = "ShadowLacking"
    SERVER_REFUSED = "ServerRefused"
    UNEXPECTED = "UnexpectedError"


ReasonWord = Annotated[str, Text(pattern=r"[A-Z][A-Za-z0-9]*", max_length=64, message="a reason is one CamelCase word")]


class Failure(Document):
    """The work was not done."""

    kind: Literal["Failure"] = "Failure"
    reason: Annotated[Reason | ReasonWord, Field(union_mode="left_to_right")]
    """A reason that only a newer release knows is told as it is."""
    object: str
    """What the fault is in: a URI, a column, a pod."""
    message: str
    """What is wrong with it, as a sentence."""
    next_step: str
    """What a person should do."""

    @property
    def sentence(self) -> str:
        """Object, fault and next step in one line."""
        return f"{self.object}: {self.message} {self.next_step}".strip()


class ServedBundle(Document):
    """A bundle that the target named before this resource knew of it."""

    bundle: BundleRef
    run: Name | None = None
    """The run that made it; None for a model as delivered."""
    size_bytes: int = Field(ge=0)
    techniques: tuple[Word, ...] = Field(max_length=16)
    metrics: Numbers
    reference: Hash | None = None
    """Digest of the file that windows are compared with while it serves."""


class BaselineResult(Document):
    """Version 1 is in the store and measured."""

    kind: Literal["Baseline"] = "Baseline"
    spec_hash: str
    bundle: BundleRef
    model_digest: str
    """Digest of the delivered file."""
    size_bytes: int = Field(ge=0)
    metrics: Numbers
    reference: Hash | None = None
    """Digest of the file that windows are compared with while version 1 serves."""
    serves: ServedBundle | None = None
    """The bundle that the request says the target names, verified and measured."""
    lost: BundleRef | None = None
    """That bundle, where the store is there and has no such bundle, or one that is not what its digest says."""
    fingerprint: str
    """Hardware and runtime the numbers belong to."""


class SearchResult(Document):
    """This worker has no more trials to do."""

    kind: Literal["Search"] = "Search"
    spec_hash: str
    run: str
    trials: int = Field(ge=0)
    """Trials finished in the whole study."""
    failed: int = Field(ge=0)
    best: Sentence | None = None
    """The best candidate so far, in words."""
    ended: Sentence | None = None
    """Which budget ended the search before all trials were done; None when none did."""
    removed: Address | None = None
    """The last leftover of the request, once all of them are gone or were found to hold what others wrote."""


class Verdict(StrEnum):
    """What the judge says of the best candidate."""

    PROMOTE = "Promote"
    NO_GAIN = "NoGain"
    GATE_FAILED = "GateFailed"


class CandidateSummary(Document):
    """The candidate that the verdict is about."""

    bundle: BundleRef
    size_bytes: int = Field(ge=0)
    techniques: tuple[Word, ...] = Field(max_length=16)
    reference: Hash | None = None
    """Digest of the file that windows are compared with once it serves; None unless it is promoted."""


class JudgeResult(Document):
    """The verdict with its numbers. `spec_hash`, `run` and `champion_digest` prove which run it belongs to."""

    kind: Literal["Judge"] = "Judge"
    spec_hash: str
    run: str
    champion_digest: str
    verdict: Verdict
    reason: Word
    """CamelCase word, such as SmallerAtEqualQuality, AccuracyBelowMargin, NoRelevantGain, MeasurementUnreliable."""
    message: str
    """One sentence with the numbers."""
    candidate: CandidateSummary | None = None
    comparisons: tuple[Comparison, ...] = Field(default=(), max_length=16)
    worth: JudgedWorth | None = None
    """What the winner is worth; None where nothing is promoted or nothing can be said."""
    worth_unknown: Sentence | None = None
    """Why nothing can be said of what a winner is worth, as words without a full stop."""
    report: Address
    """URI of report.html."""
    fingerprint: str


def _known(word: Any) -> Any:
    """Return a verdict; one that only a newer release knows says nothing here."""
    return WindowVerdict.UNKNOWN if isinstance(word, str) and word not in set(WindowVerdict) else word


class SignalVerdict(Document):
    """What one window says of one signal."""

    verdict: Annotated[WindowVerdict, BeforeValidator(_known)]
    """A word that only a newer release knows is read as Unknown, and its reason says why."""
    reason: Word
    """CamelCase word, such as ShareAboveLimit, TooFewSamples, NoProductionData, SchemaMismatch, ReferenceMissing."""
    message: Sentence
    """Why, with the numbers."""
    value: Number | None = None
    reference: Number | None = None
    low: Number | None = None
    """Lower end of the value's confidence interval."""
    high: Number | None = None
    samples: int = Field(default=0, ge=0)
    estimated: bool = False
    outside: Number | None = None
    """Share (0..1) of the window's rows that lie where the reference has none; of an estimate alone."""


class ColumnDrift(Document):
    """How far one column has moved."""

    name: Word
    method: Word
    score: Number
    """Size of the change, in the method's unit."""
    drifted: bool
    carries: Number | None = None
    """Share (0..1) of the champion's answers that it carries at most; None where that is not known."""
    looks_like: Sentence | None = None
    """What its change looks like, as a clause, such as `as if multiplied by 1000, like seconds to milliseconds`."""


class SegmentVerdict(Document):
    """What one window says of one segment."""

    name: Word
    verdict: WindowVerdict
    value: Number | None = None
    """Its quality in the labelled window."""
    reference: Number | None = None
    """Its quality on the reference."""
    samples: int = Field(default=0, ge=0)
    """Labelled rows of it that count."""
    rows: int = Field(default=0, ge=0)
    """Captured rows of it in the window that is checked."""
    drift: Number | None = None
    """How far the champion's answers to it moved; None where that is not proven."""


class CheckResult(Document):
    """What one window of production data says. A window with too little or broken data is a result, not a failure."""

    kind: Literal["Check"] = "Check"
    spec_hash: str
    window: int = Field(ge=0)
    champion_digest: str
    samples: int = Field(default=0, ge=0)
    """Captured rows of the window that could be read."""
    set_aside: int = Field(default=0, ge=0)
    """Rows and files that could not be read or do not count: broken, doubled, of the future, of another model."""
    drift: SignalVerdict | None = None
    columns: tuple[ColumnDrift, ...] = Field(default=(), max_length=16)
    """The most drifted first, the prediction among them as `prediction`."""
    violations: tuple[Sentence, ...] = Field(default=(), max_length=8)
    quality: SignalVerdict | None = None
    headroom: SignalVerdict | None = None
    """What a correction takes off the champion's error on the labelled window; None where nothing was to be judged."""
    segment: SignalVerdict | None = None
    """What the labelled window says of its segments together: of the worst one, where one is bad."""
    segments: tuple[SegmentVerdict, ...] = Field(default=(), max_length=8)
    """Those that the request names, and then the worst first."""
    labelled_window: int | None = Field(default=None, ge=0)
    labelled_rows: int | None = Field(default=None, ge=0)
    """Rows of that window that have a label, those that depend on each other too; None where no window's were due."""
    artifact_digest: str | None = None
    """Digest of the delivered file as it is now; None where it is not followed or could not be read."""
    report: Address | None = None
    """URI of the window's report."""


class GatherResult(Document):
    """The run's data is in the store, or the original data is used."""

    kind: Literal["Gather"] = "Gather"
    spec_hash: str
    run: str
    fresh: FreshData | None = None
    message: Sentence
    """What the data was built from, or why the original data is used."""


class Shadowed(Document):
    """What came of asking captured requests again: nothing that speaks against the new version."""

    requests: int
    """Requests that the champion's pods have answered."""
    failed: int
    """Those of them that the new version's pods have not."""
    wrong: int
    """Those that they have answered otherwise than the bundle does."""
    slow: int
    """Answers that took longer than 95 % of the champion's."""
    agreement: Number | None = None
    """Share of the answers in which both agree, as the task says; None where their outputs cannot be compared."""
    champion_p95_ms: Number
    p95_ms: Number


class VerifyResult(Document):
    """Every pod answered every golden request as recorded, or nothing speaks against a version that was shadowed."""

    kind: Literal["Verify"] = "Verify"
    bundle_digest: str
    pods: int
    requests: int
    shown_by: Literal["Digest", "Answers"] | None = None
    """What shows that every pod serves the bundle: they name it, or no other bundle that could serve answers so."""
    shadow: Shadowed | None = None
    """What came of captured requests, where these were asked."""


class RegisterResult(Document):
    """The registry says what it was to say."""

    kind: Literal["Register"] = "Register"
    state: str
    """What it was to say, as the request names it."""
    champion: Registered | None = None
    """What the registry calls the version that serves; None where it was not to say it."""
    challenger: Registered | None = None
    """What the registry calls the version that is accepted and does not serve yet; None where there is none."""
    message: Sentence
    """What is registered, as words without a full stop."""


OfClusters = BaselineResult | GatherResult | SearchResult | JudgeResult | VerifyResult | CheckResult | RegisterResult
"""What a Job in the cluster answers when it has done its work."""
OfMachines = InspectResult | SurveyResult | RenderResult | SuggestResult
"""What a Job answers to the command line, on a person's own machine: through a file, which may be longer."""

JobResult = Annotated[Failure | OfMachines | OfClusters, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[JobResult] = TypeAdapter(JobResult)


def parse_result(payload: str | bytes) -> JobResult:
    """Return the result in a termination message, with every text on one line and without control codes.

    Raises:
        pydantic.ValidationError: It holds no result.
    """
    try:
        document = from_json(payload)
    except ValueError:
        return _ADAPTER.validate_json(payload)  # it says what is wrong
    return _ADAPTER.validate_python(_printable(document))


def _printable(value: Any) -> Any:
    """Return a JSON value with a space for every character that a terminal, a log or a page may act on."""
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else " " for letter in value)
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return {_printable(name): _printable(entry) for name, entry in value.items()} if isinstance(value, dict) else value


def encode_result(result: JobResult) -> bytes:
    """Return the result as JSON of at most RESULT_LIMIT bytes, with a shorter message where it would not fit.

    A result for the command line is no termination message and may be longer.

    Raises:
        ValueError: It does not fit even with an empty message.
    """
    payload = _dump(result)
    if len(payload) <= RESULT_LIMIT or isinstance(result, OfMachines):
        return payload
    message = getattr(result, "message", "")
    room = max(0, len(message.encode()) - (len(payload) - RESULT_LIMIT) - 8)
    shorter = message.encode()[:room].decode(errors="ignore") + "…"
    payload = _dump(result.model_copy(update={"message": shorter}))
    if len(payload) > RESULT_LIMIT:
        raise ValueError(f"a result of {len(payload)} bytes does not fit the {RESULT_LIMIT} of a termination message")
    return payload


def _dump(result: JobResult) -> bytes:
    return result.model_dump_json(by_alias=True, exclude_none=True).encode()
