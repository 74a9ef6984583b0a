"""`spec.rollout`: how a winner goes live, by which steps, and what is asked of it on the way."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import (
    ATOMIC,
    NOT_WRITTEN_OUT,
    ApiModel,
    Decimal,
    Digest,
    DnsLabel,
    Duration,
    ObjectName,
    Rule,
    VersionName,
    between,
    if_decimal,
    rules,
)
from retune.api.routed import HeaderMatch, RouteHeader


class CanaryStep(ApiModel):
    """One share of the requests, and what has to be seen of the new version before the next one."""

    weight: int = Field(ge=0, le=99)
    """Share of the requests, in percent. At 0 it has those of traffic.testers alone."""
    hold: Annotated[Duration, Rule(between("0s", "24h"), "a canary's hold must not exceed 24h")] = "5m"
    """How long the canary's pods are watched at this share, from when all of them are ready."""
    min_requests: int = Field(default=100, ge=0, le=1000000)
    """Requests that the canary's pods must have answered at this share. It is held for as long as they have not. Where
    pods count no requests that Retune knows of, `hold` alone decides."""


class Overlap(StrEnum):
    """Whether the target's selector may match the canary's pods too."""

    REFUSE = "Refuse"
    ALLOW = "Allow"


class CanaryRouteRef(ApiModel):
    """The HTTPRoute by which requests reach the target."""

    name: ObjectName
    """Name of an HTTPRoute (gateway.networking.k8s.io/v1) in the resource's own namespace."""
    service: DnsLabel | None = None
    """Service that stands for the target in its rules. Left out: the one Service that selects the target's pods and
    that a rule names."""


class Testers(ApiModel):
    """Who sees a new version before its users do."""

    header: HeaderMatch
    """A header of their requests, by its whole value. A rule of the route that asks for a header of this name itself
    cannot be tried so."""


class CanaryTraffic(ApiModel):
    """Who gives the canary its share of the requests."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.kind != 'HTTPRoute' || has(self.route)", "traffic of kind HTTPRoute needs route.name"),
            ("self.kind == 'HTTPRoute' || !has(self.route)", "only traffic of kind HTTPRoute has a route"),
            (
                "self.kind == 'HTTPRoute' || !has(self.testers)",
                "only traffic of kind HTTPRoute can tell testers by a header",
            ),
        )
    )

    kind: Literal["Replicas", "HTTPRoute"] = "Replicas"
    """Replicas: the Services of the target, whose requests go to each ready pod alike. The share is as fine as the
    number of pods allows, and status.rollout.effectiveWeight says what it is. HTTPRoute: weights in a route of the
    Gateway API. The share is exact, and the canary's pods are kept out of the target's Services."""
    route: CanaryRouteRef | None = None
    """The route whose rules give the target its requests, with kind HTTPRoute."""
    testers: Testers | None = None
    """Whose requests go to the canary from its golden answers on, whatever its share is, with kind HTTPRoute. They
    count as requests of the canary."""
    max_surge: int = Field(default=100, ge=1, le=100)
    """Most pods of the canary, as a percentage of those that the target wants, rounded down; one is always allowed."""
    overlap: Overlap = Overlap.REFUSE
    """Whether a canary may be made where the target's selector matches its pods too, because a Service selects by every
    label of that selector. Kubernetes tells whose pods are whose by their owner, but a HorizontalPodAutoscaler of the
    target counts by selector."""

    @property
    def header(self) -> RouteHeader | None:
        """What tells requests of testers from others; None where there are no testers."""
        asked = self.testers.header if self.testers else None
        return RouteHeader(name=asked.name, value=asked.value) if asked else None


class OnEvidenceTimeout(StrEnum):
    """What becomes of a version whose share has not shown in time what it has to."""

    RETURN = "Return"
    PROCEED = "Proceed"


class CanaryShadow(ApiModel):
    """What users have asked, asked again of a canary and of the champion beside it, before the canary gets a share."""

    requests: int = Field(default=300, ge=50, le=5000)
    """How many captured requests: a random sample of those in monitoring.production, one row each."""
    span: Annotated[Duration, Rule(between("1m", "720h"), "shadow.span must lie between 1m and 720h")] = "24h"
    """How far back they may lie."""


class Canary(ApiModel):
    """The way of a new version with strategy Canary, before the target is given it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.steps.all(step, step.weight > 0) || has(self.traffic.testers)",
                "a canary's step of weight 0 needs canary.traffic.testers: nobody else has requests for it",
            ),
            (
                "!has(self.shadow) || self.traffic.kind == 'HTTPRoute'",
                "canary.shadow keeps users away from the canary's pods, which only traffic of kind HTTPRoute can",
            ),
        )
    )

    steps: tuple[CanaryStep, ...] = Field(
        default=(CanaryStep(weight=10), CanaryStep(weight=50)),
        min_length=1,
        max_length=8,
        json_schema_extra=ATOMIC
        | rules(("self.map(step, step.weight).isSorted()", "the weights of canary.steps must not fall")),
    )
    """Shares of the requests, from the first to the last one before all."""
    evidence_timeout: (
        Annotated[Duration, Rule(between("0s", "168h"), "canary.evidenceTimeout must not exceed 168h")] | None
    ) = None
    """How long a share waits, once its hold is over, for its minRequests and for what analysis.require wants proved.
    Left out: without limit."""
    on_evidence_timeout: OnEvidenceTimeout = OnEvidenceTimeout.RETURN
    """What happens then. Return takes the version back without rejecting it; Proceed goes on to the next share."""
    shadow: CanaryShadow | None = None
    """Has the canary answer captured requests before it gets any of the users'. No user sees these answers. Where they
    prove errors or slowness beyond analysis, the version is rejected; where there are too few requests, the rollout
    waits, as evidenceTimeout allows. Needs monitoring.production, target.inference and
    traffic of kind HTTPRoute: a Service sends requests to every pod that is ready."""
    traffic: CanaryTraffic = CanaryTraffic()
    """Who gives the canary its share of the requests."""


class _Switch(CanaryStep):
    """All of the requests at once, which no step of a canary has."""

    weight: int = 100


class BlueGreen(ApiModel):
    """The way of a new version with strategy BlueGreen, before the target is given it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.traffic.maxSurge == 100",
                "strategy BlueGreen runs as many pods of a version as the target wants: leave "
                "blueGreen.traffic.maxSurge out",
            ),
        )
    )

    preview: Annotated[Duration, Rule(between("0s", "168h"), "blueGreen.preview must not exceed 168h")] = "10m"
    """How long testers alone see the version, in as many pods as the target wants, before it gets all requests. Where
    traffic.testers is left out there is no such time."""
    keep_old: Annotated[Duration, Rule(between("0s", "168h"), "blueGreen.keepOld must not exceed 168h")] = "10m"
    """How long the version has all requests and is watched, while the pods of the one before still run: going back is
    one write of the route. The target is given the version after that."""
    shadow: CanaryShadow | None = None
    """Has the version answer captured requests before it gets any of the users', as canary.shadow."""
    traffic: CanaryTraffic = CanaryTraffic()
    """The route that gives the version all requests at once. It must be of kind HTTPRoute: a Service cannot do that."""

    @property
    def trial(self) -> Canary:
        """The same as shares of a canary: none while testers see it, and then all."""
        preview = (CanaryStep(weight=0, hold=self.preview, min_requests=0),) if self.traffic.testers else ()
        switch = _Switch(hold=self.keep_old, min_requests=0)
        return Canary(steps=(*preview, switch), shadow=self.shadow, traffic=self.traffic)


def _bounded(field: str, low: float, high: float) -> Rule:
    """Return the rule on a decimal of Analysis that it lies within these bounds."""
    rule = if_decimal("self", f"double(self) >= {low:f} && double(self) <= {high:f}")
    return Rule(rule, f"analysis.{field} must lie between {low:g} and {high:g}")


class Requirement(StrEnum):
    """What a canary's answers have to show before its share grows."""

    NO_HARM_SHOWN = "NoHarmShown"
    PROVEN_NOT_WORSE = "ProvenNotWorse"


class Analysis(ApiModel):
    """How live answers are judged while a version goes live, by tests that hold however often one looks."""

    error_margin: Annotated[Decimal, _bounded("errorMargin", 0, 0.5)] = "0.01"
    """By how much more of its requests a canary may fail than the champion in the same time, as a share of all."""
    slow_margin: Annotated[Decimal, _bounded("slowMargin", 0, 0.5)] = "0.1"
    """By how much more of its requests may take longer than 95 % of the champion's do, as a share of all."""
    confidence: Annotated[Decimal, _bounded("confidence", 0.8, 0.9999)] = "0.99"
    """How sure the proofs of one rollout are, all together and however often one looks: a version that keeps limits and
    margins is rejected for its answers with a chance of at most the rest to 1, and one that exceeds a margin is called
    proved not worse with at most that chance. The proofs of a shadow come before, and are as sure on their own."""
    require: Requirement = Requirement.NO_HARM_SHOWN
    """What has to be shown before a canary's share grows. NoHarmShown: nothing, unless the answers prove harm.
    ProvenNotWorse: that it is not worse than the champion by more than the margins, in errors and in latency."""


class Strategy(StrEnum):
    """How a version takes the place of the one before it."""

    ROLLING_UPDATE = "RollingUpdate"
    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"


class DeliveredModel(StrEnum):
    """What becomes of a model that is delivered after the first one."""

    MUST_WIN = "MustWin"
    GOES_LIVE = "GoesLive"


class Rollout(ApiModel):
    """How a winner goes live."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.strategy != 'BlueGreen' || (has(self.blueGreen) && self.blueGreen.traffic.kind == 'HTTPRoute')",
                "strategy BlueGreen gives a version all requests at once, which a Service alone cannot: set "
                "blueGreen.traffic.kind to HTTPRoute and name the route in blueGreen.traffic.route, or take Canary",
            ),
            (
                "self.strategy != 'BlueGreen' || self.analysis.require != 'ProvenNotWorse'",
                "with strategy BlueGreen the champion answers nothing that a version could be compared with: "
                "analysis.require must be NoHarmShown",
            ),
        )
    )

    strategy: Strategy = Strategy.ROLLING_UPDATE
    """RollingUpdate changes the owned field and lets the workload replace its pods. Canary first gives a growing share
    of the requests to pods beside the target's, in a Deployment of Retune's own, and goes on as RollingUpdate does.
    BlueGreen gives such pods all requests at once, by a route, while the target's pods stay for the way back."""
    canary: Canary = Field(default=Canary(), json_schema_extra=NOT_WRITTEN_OUT)
    """Shares of the requests that strategy Canary tries a new version at. Left out: what its fields say by default."""
    blue_green: BlueGreen = Field(default=BlueGreen(), json_schema_extra=NOT_WRITTEN_OUT)
    """How strategy BlueGreen switches requests to a new version. Left out: what its fields say by default."""
    analysis: Analysis = Analysis()
    """How the answers of a canary, and of a version in its bake, are judged."""
    progress_deadline: Annotated[
        Duration, Rule(between("10s", "24h"), "rollout.progressDeadline must lie between 10s and 24h")
    ] = "10m"
    """Time in which all new pods must become ready; else the previous version returns."""
    bake_time: Annotated[Duration, Rule(between("0s", "24h"), "rollout.bakeTime must not exceed 24h")] = "2m"
    """How long the new version is watched before it counts as champion."""
    approval: Literal["Automatic", "Manual"] = "Automatic"
    """Manual holds every version that has passed the gate until approvedVersion names it. Nothing is given to the
    target before that."""
    approved_version: Digest | None = None
    """Digest of the version in status.candidate that may go live. It speaks of this one alone: a later one waits anew.
    Read where approval is Manual."""
    approval_timeout: Annotated[
        Duration, Rule(between("1m", "2160h"), "rollout.approvalTimeout must lie between 1m and 2160h")
    ] = "168h"
    """How long a run waits for approvedVersion. After that it ends as Recommended, so that signals may start runs
    again; its version is kept, and may be approved until another run begins."""
    rollback_to: Annotated[str, VersionName()] | None = None
    """Number or digest of a version that is to serve again: one of status.versions, or what was delivered. It is put
    back at once, in any mode, and stays while the field is there: nothing else goes live, and no run starts. The
    version that it replaces is rejected."""
    retry: Digest | None = None
    """Digest of a version in status.rejected that may be rolled out again. Any new value starts one run; a version that
    does not hold up again is rejected again."""
    delivered_model: DeliveredModel = DeliveredModel.MUST_WIN
    """What becomes of another model that is delivered later. MustWin: candidates are made from it, and one goes live
    where it beats the champion. GoesLive: it goes live itself, by the same steps as a candidate, where it keeps every
    limit of the objectives beside the champion; then candidates are made from it. Its quality must be told by labels
    or by a custom metric."""

    @property
    def is_tried(self) -> bool:
        """Whether a version is tried in pods beside the target's before the target is given it."""
        return self.strategy is not Strategy.ROLLING_UPDATE

    @property
    def trial(self) -> Canary:
        """The shares at which it is tried; without meaning where it is not."""
        return self.blue_green.trial if self.strategy is Strategy.BLUE_GREEN else self.canary

    @property
    def trial_field(self) -> str:
        """Where the spec says so, as a sentence names it."""
        return "spec.rollout.blueGreen" if self.strategy is Strategy.BLUE_GREEN else "spec.rollout.canary"

    @property
    def on_trial(self) -> str:
        """Where a version stands that has not been given to the target yet, as the begin of a sentence."""
        return "beside the champion" if self.strategy is Strategy.BLUE_GREEN else "as a canary"
