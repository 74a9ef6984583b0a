"""What the operator asks of a Job: one frozen document a command, which needs no other source.

A Job that does not know a field of its request refuses it, however deep the field lies: a wish that is passed over,
such as a column of weights, would make the verdict one about something else. So that images of neighbouring releases
understand each other, a request names only what differs from its default.
"""

import json
from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter

from retune.api.base import ApiModel, Text
from retune.api.bounds import LEFTOVERS_LIMIT, Address, Hash, Sentence, Word
from retune.api.model import Cost, Data, Dataset, Model, ModelFormat, Task
from retune.api.monitoring import Drift, Headroom, Quality, Segments
from retune.api.objectives import Objective, Selection
from retune.api.objects import Comparison
from retune.api.own_code import CustomMetric
from retune.api.production import Production
from retune.api.registry import Registry
from retune.api.search import Search, Serving
from retune.api.status import Measurement
from retune.api.techniques import Technique
from retune.api.triggers import Refresh


class Document(ApiModel):
    """A document of the contract between operator and Jobs."""


class BundleRef(Document):
    """A bundle in a store, fixed by its digest."""

    uri: Address
    digest: Hash


class InspectRequest(Document):
    """Look at a model and data files that nobody has described yet."""

    command: Literal["inspect"] = "inspect"
    resource: str
    model: Model
    """The model. Its task is only a default: the Job finds out what it is."""
    data: dict[str, Dataset] = Field(default_factory=dict)
    """Files with rows for it, by split: training, validation, test or calibration. Their label columns are only a
    default: the Job finds out which they are."""
    task: Task | None = None
    """What the model does; None: the Job finds out."""
    labels: tuple[str, ...] = ()
    """Columns with the labels, several of which are together the labels of a row; none: the Job finds out."""
    output: str | None = None
    """Output with the answer; None: the Job finds out."""
    divide: bool = False
    """Whether the only file is a dated table that is to become training, validation and test data in the order of time,
    written beside it."""
    batch: int = Field(default=1, ge=1)
    """Rows of a usual request, at which the model is tried."""


class SurveyRequest(Document):
    """Say what this Python environment and this machine can do."""

    command: Literal["survey"] = "survey"
    resource: str


class Server(StrEnum):
    """A model server of others that a bundle can be written for."""

    TRITON = "triton"
    OVMS = "ovms"
    """OpenVINO Model Server."""


class RenderRequest(Document):
    """Write a bundle in the layout of a model server of others."""

    command: Literal["render"] = "render"
    resource: str
    bundle: str
    """URI of the bundle's folder."""
    server: Server
    name: str
    """Name that clients ask the model by."""
    into: str
    """URI of the folder that is written, which must be empty or absent."""


class SuggestRequest(Document):
    """Say which captured rows are worth a label. Everything lies in folders of this machine."""

    command: Literal["suggest"] = "suggest"
    resource: str
    production: Production
    """What wrote the captured rows, and which columns of the labels' files are read. Where they lie is said below."""
    captured: str
    """URI of the folder with captured rows."""
    labels: str | None = None
    """URI of the folder with labels; None: none are known."""
    artifacts: str | None = None
    """URI of a folder with bundles and references, of which manifests and references are read; None: there is none, and
    what the captured files tell by themselves is all that is known of the model."""
    model: Model | None = None
    """What the spec says of the model; None: the Job guesses by what the model answers."""
    serves: tuple[str, ...] = ()
    """Digests by which captured rows name the version that serves, its bundle's first; none: that of the newest row."""
    rows: int = Field(ge=1, le=2000)
    """How many rows are wanted."""
    chance: float = Field(default=0.25, ge=0, le=1)
    """Share of them that is drawn by chance."""
    span: int = Field(ge=1)
    """Seconds before the newest row from which on rows are looked at."""
    into: str
    """URI of the Parquet file that is written."""


class BaselineRequest(Document):
    """Check model and data, make version 1's bundle, and measure it."""

    command: Literal["baseline"] = "baseline"
    resource: str
    """`namespace/name` of the ModelOptimization."""
    spec_hash: str
    model: Model
    data: Data
    serving: Serving = Serving()
    store: str
    threads: int = Field(ge=1)
    """Threads the serving container may use: its CPU limit, at least 1."""
    serves: BundleRef | None = None
    """Bundle of this store that the target names already: from an earlier resource of this name, or one that a Job has
    missed. It is verified and measured beside version 1."""
    seed: int = 0


class Measured(Document):
    """A request whose Job measures by what the owner says of quality."""

    costs: tuple[Cost, ...] = ()
    """What answers of a classifier cost, for metric expected_cost."""
    custom_metric: CustomMetric | None = None
    """Code of the owner's own, for metrics custom and custom_loss."""


_LEFTOVER = Text(
    pattern=r"bundles/[0-9a-f]{64}|runs/[a-z0-9]([-a-z0-9]{0,250}[a-z0-9])?",
    max_length=260,
    message="a leftover is bundles/DIGEST or runs/NAME, in the resource's folder",
)
Leftover = Annotated[str, _LEFTOVER]
"""What nobody needs any more, by its path in the resource's folder of the store."""


class SearchRequest(Measured):
    """Explore combinations; every worker of the Indexed Job gets the same request."""

    command: Literal["search"] = "search"
    resource: str
    run: str
    """Name of the run in the store. No other run ever gets it."""
    spec_hash: str
    data: Data
    objectives: tuple[Objective, ...]
    chosen_by_default: bool = False
    """Whether the spec names no objectives: the Job then fits the limits on quality to the model and its labels."""
    selection: Selection
    techniques: tuple[Technique, ...] | None = None
    """None: a recipe chosen from the model and the data."""
    search: Search
    serving: Serving = Serving()
    champion: BundleRef
    original: BundleRef
    """The bundle of the model as delivered, which candidates are made from."""
    rejected: tuple[str, ...] = ()
    """Digests that are not proposed again."""
    warm_start: tuple[str, ...] = ()
    """Earlier runs in the store, newest first, whose best combinations are tried first."""
    store: str
    leftovers: tuple[Leftover, ...] = Field(default=(), max_length=LEFTOVERS_LIMIT)
    """What is removed before anything is tried, the oldest first: bundles with their references, folders of runs."""
    threads: int = Field(ge=1)
    cpu_limit: float | None = Field(default=None, gt=0)
    """CPU that the serving container may use, in cores; None where that is not known."""


class JudgeRequest(SearchRequest):
    """Measure finalists and champion side by side and give the verdict."""

    command: Literal["judge"] = "judge"  # type: ignore[assignment]
    trigger: str
    """What started the run, for the report."""
    learned_from: Sentence | None = None
    """What the data of the run was built from and why, for the report; None where it is that of the spec, or where an
    image built it that does not say, which knows no such field either."""
    delivered: Literal[True] | None = None
    """Set where the model as delivered is the only finalist: it need not gain anything, and must not be worse. There is
    no study then."""


class Window(Document):
    """A span of time, half open, in whole seconds since 1970."""

    index: int = Field(ge=0)
    """Number of the window: how many windows of its length there were before it since 1970."""
    start: int = Field(ge=0)
    end: int = Field(ge=1)


class Followed(Document):
    """A delivered file or folder that is checked for a change."""

    uri: str
    digest: str
    """Digest of the file that was measured."""
    folder: Literal[True] | None = None
    """Set where it is a folder, whose digest covers every file that is read."""
    format: ModelFormat | None = None
    """Set where it lies in a registry, which has files of several formats under one name."""


class CheckRequest(Measured):
    """Judge one window of production data, once."""

    command: Literal["check"] = "check"
    resource: str
    spec_hash: str
    """Hash of the monitoring settings, the champion and the reference."""
    window: Window
    labelled: Window | None = None
    """The newest window whose labels are due; it may be an earlier one. None: quality is not judged."""
    champion: BundleRef
    production: Production | None = None
    reference: Dataset
    """spec.data.validation, for the names of columns. The window is compared with the rows that the champion was proven
    on; they lie in the store beside its bundle."""
    reference_digest: Hash | None = None
    """Digest of the file with those rows; None where it is not known: any is believed then."""
    drift: Drift | None = None
    quality: Quality | None = None
    headroom: Headroom | None = None
    learned: Window | None = None
    """The windows before `labelled` under the same champion, as one span: their labels teach the correction that shows
    headroom. None: there are none yet, or nobody asks."""
    segments: Segments = Segments()
    raised_segments: tuple[Word, ...] = Field(default=(), max_length=8)
    """Segments of which the result must say something, because what is known of them may end."""
    objectives: tuple[Objective, ...] = ()
    """The objectives that the spec names; the first quality among them is watched where `quality` names none."""
    min_samples: int = Field(ge=1)
    max_samples: int = Field(ge=1)
    followed: Followed | None = None
    """None: the delivered file is pinned."""
    store: str
    reports: int = Field(default=24, ge=1)
    """Window reports kept in the store; older ones are removed."""
    seed: int = 0


class GatherRequest(Document):
    """Build training, validation and test data from recent production rows and the original data."""

    command: Literal["gather"] = "gather"
    resource: str
    run: str
    """Name of the run in the store."""
    spec_hash: str
    data: Data
    """The original data."""
    production: Production
    refresh: Refresh
    until: int = Field(ge=1)
    """End of the span that rows are taken from, in seconds since 1970."""
    changed: int | None = Field(default=None, ge=0)
    """When the live data changed, in seconds since 1970: older rows say little of it now. None: it did not."""
    champion: BundleRef
    store: str
    seed: int = 0


class Shadow(Document):
    """Captured requests that are asked again, of a new version's pods and of the champion's in turns."""

    production: Production
    since: int
    """Start of the span that they are from, in seconds since 1970."""
    until: int
    requests: int = Field(ge=1)
    """Most of them: a random sample."""
    seed: int = 0
    champion_endpoints: tuple[str, ...] = Field(min_length=1)
    """Base URLs of the champion's pods."""
    error_margin: float = Field(ge=0, le=1)
    """Share of them that the new version may fail at, where the champion answers."""
    slow_margin: float = Field(ge=0, le=1)
    """By how much more than 5 % of its answers may take longer than 95 % of the champion's, as a share of all."""
    confidence: float = Field(gt=0, lt=1)
    """How sure the proofs of harm are, both together."""


class VerifyRequest(Document):
    """Ask live pods the bundle's golden requests, or what users have asked before."""

    command: Literal["verify"] = "verify"
    resource: str
    bundle: BundleRef
    champion: BundleRef | None = None
    """The bundle that served before: what it answers too does not show that `bundle` serves."""
    endpoints: tuple[str, ...]
    """Base URLs such as http://10.0.0.7:8080, one per pod."""
    model_name: str
    bundle_alone: bool = False
    """Ask nobody: only see that the bundle is in the store, and whole."""
    shadow: Shadow | None = None
    """What is asked in place of golden requests."""


class RegistryEntry(Document):
    """A version of the model that a registry is to have."""

    bundle: BundleRef
    version: int = Field(ge=1)
    """Number of the version in the resource's status."""
    run: str | None = None
    """The OptimizationRun that it comes from; None for a model as delivered."""
    verdict: str | None = None
    """What the judge said of it, as a sentence; None where that is not known any more."""
    metrics: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    """It and the champion of its run, metric by metric, as far as that is known."""
    report: str | None = None
    """URI of the run's report in the store; None where there is none."""


class RegisterRequest(Document):
    """Have a registry say which version serves and which is to serve next, and have it hold both."""

    command: Literal["register"] = "register"
    resource: str
    state: str
    """Hash of what the registry is to say."""
    store: str
    registry: Registry
    champion: RegistryEntry | None = None
    """The version that serves; None where nothing is to be said of it."""
    challenger: RegistryEntry | None = None
    """The version that the judge has accepted and that does not serve yet; None where there is none."""


JobRequest = (
    BaselineRequest | GatherRequest | SearchRequest | JudgeRequest | VerifyRequest | CheckRequest | RegisterRequest
)
"""What the operator asks of a Job in the cluster."""

COMMANDS = frozenset(request.model_fields["command"].default for request in get_args(JobRequest))
"""The commands of these Jobs. A Job with another one is asked by a newer release."""

AnyRequest = Annotated[
    InspectRequest | SurveyRequest | RenderRequest | SuggestRequest | JobRequest, Field(discriminator="command")
]

_ADAPTER: TypeAdapter[AnyRequest] = TypeAdapter(AnyRequest)


def parse_request(payload: str | bytes) -> AnyRequest:
    """Return the request in a JSON document.

    Raises:
        pydantic.ValidationError: It is no request, or asks for something that is not known here; the error names each
            bad field.
    """
    return _ADAPTER.validate_json(payload, extra="forbid")


REQUEST_LIMIT = 224 << 10
"""Bytes that a request may have: it is an annotation of a pod, and all annotations of one have 256 KiB together."""


def encode_request(request: AnyRequest) -> str:
    """Return the request as JSON, without what is at its default."""
    document = request.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return json.dumps({"command": request.command, **document}, separators=(",", ":"), ensure_ascii=False)
