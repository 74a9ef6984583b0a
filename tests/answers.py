"""What an honest Job would answer to a request, for tests that play the Jobs themselves."""

import hashlib
from typing import Any

from retune.api.objects import Comparison
from retune.api.status import Measurement
from retune.api.watched import FreshData, StoredData
from retune.api.watched import Verdict as Verdicts
from retune.api.worth import LimitOf
from retune.contract.paths import bundle_uri
from retune.contract.requests import (
    BaselineRequest,
    BundleRef,
    CheckRequest,
    GatherRequest,
    JobRequest,
    JudgeRequest,
    RegisterRequest,
    SearchRequest,
    Shadow,
    VerifyRequest,
)
from retune.contract.results import (
    BaselineResult,
    CandidateSummary,
    CheckResult,
    GatherResult,
    JobResult,
    JudgeResult,
    RegisterResult,
    SearchResult,
    SegmentVerdict,
    ServedBundle,
    Shadowed,
    SignalVerdict,
    Verdict,
    VerifyResult,
)
from retune.contract.worth import JudgedWorth, Span

DIGEST = "sha256:" + "5a" * 32
SMALLER = Measurement(name="size_bytes", value="250")
WORTH = JudgedWorth(
    limit_ms=5.25,
    limit_of=LimitOf.CHAMPION,
    threads=1,
    before=Span(value=120.0, low=118.0, high=123.0),
    after=Span(value=480.0, low=460.0, high=500.0),
    ratio=Span(value=4.0, low=3.8, high=4.2),
)
"""What the judge of a promotion says: four times as many requests, 3.8 times at least."""
NOTED: dict[str, Any] = {
    "version": 2,
    "comparedWith": 1,
    "limitMs": "5.25",
    "limitOf": "Champion",
    "requestsBefore": "120",
    "requestsAfter": "480",
    "ratio": "4",
    "ratioLow": "3.8",
    "ratioHigh": "4.2",
    "replicas": 6,
    "replicasNeeded": 2,
    "cores": "1",
    "costBefore": "175.2",
    "costNeeded": "58.4",
}
"""The same in a status, of a target of six replicas with one core each."""


SHADOWED = Shadowed(requests=300, failed=0, wrong=0, slow=12, agreement="0.9933", champion_p95_ms="4.1", p95_ms="2.2")
"""A shadow that shows nothing against the version."""


def answer(request: JobRequest, *, verdict: Verdict = Verdict.PROMOTE) -> JobResult:
    """Return a result that fits the request."""
    match request:
        case BaselineRequest():
            return _baseline(request)
        case JudgeRequest():
            return _judge(request, verdict)
        case SearchRequest():
            return SearchResult(spec_hash=request.spec_hash, run=request.run, trials=24, failed=0)
        case GatherRequest():
            return _gather(request)
        case CheckRequest():
            return check(request)
        case RegisterRequest():
            return _register(request)
        case VerifyRequest(shadow=Shadow()):
            return VerifyResult(bundle_digest=request.bundle.digest, pods=1, requests=300, shadow=SHADOWED)
        case VerifyRequest():
            pods = len(request.endpoints)
            return VerifyResult(bundle_digest=request.bundle.digest, pods=pods, requests=8, shown_by="Digest")


def _register(request: RegisterRequest) -> RegisterResult:
    """Return the answer of a registry that calls every version by our own number."""
    champion, challenger = (str(entry.version) if entry else None for entry in (request.champion, request.challenger))
    return RegisterResult(state=request.state, champion=champion, challenger=challenger, message="it is registered")


def baseline_missing(request: BaselineRequest) -> BaselineResult:
    """Return what a baseline says that does not find the bundle that it was to verify."""
    return _baseline(request).model_copy(update={"serves": None, "lost": request.serves})


def _baseline(request: BaselineRequest) -> BaselineResult:
    return BaselineResult(
        spec_hash=request.spec_hash,
        bundle=delivered(request),
        model_digest=DIGEST if delivered(request).digest == digest_of("original") else digest_of(request.model.uri),
        size_bytes=1000,
        metrics=(Measurement(name="accuracy", value="0.98"),),
        reference=digest_of("rows of version 1"),
        serves=_served(request.serves) if request.serves else None,
        fingerprint="amd64",
    )


def delivered(request: BaselineRequest) -> BundleRef:
    """Return the bundle of a delivered model: another one for each file but the usual one."""
    uri = request.model.uri
    return stored(request.store, "original" if uri.endswith("/model.onnx") else uri)


def _served(bundle: BundleRef) -> ServedBundle:
    metrics = (Measurement(name="accuracy", value="0.97"),)
    return ServedBundle(bundle=bundle, run="digits-r7-mo1", size_bytes=250, techniques=("int8",), metrics=metrics)


def _gather(request: GatherRequest) -> GatherResult:
    folder = f"{request.store}/runs/{request.run}/data"
    sets = {
        name: StoredData(uri=f"{folder}/{name}.npz", digest=DIGEST, rows=1000)
        for name in ("training", "validation", "test")
    }
    words = "1000 labelled rows of the last 168 h"
    return GatherResult(
        spec_hash=request.spec_hash, run=request.run, fresh=FreshData(**sets, words=words), message=words
    )


def check(
    request: CheckRequest,
    *,
    drift: Verdicts = Verdicts.CLEAR,
    quality: Verdicts | None = None,
    headroom: Verdicts | None = None,
    estimated: bool = False,
    artifact: str | None = None,
    independent: int = 900,
    labelled: int | None = None,
    segments: dict[str, Verdicts] | None = None,
) -> CheckResult:
    """Return what a check says of a window of 900 rows: nothing drifted, unless told otherwise.

    `independent` rows decide of quality, and `labelled` ones have a label; None: the check does not say how many have.
    """

    def said(verdict: Verdicts, value: str) -> SignalVerdict:
        return SignalVerdict(
            verdict=verdict, reason=f"Said{verdict}", message=f"{value} was seen", value=value, samples=900
        )

    followed = request.followed.digest if request.followed else None
    return CheckResult(
        spec_hash=request.spec_hash,
        window=request.window.index,
        champion_digest=request.champion.digest,
        samples=900,
        drift=said(drift, "0.5" if drift is Verdicts.BREACH else "0"),
        quality=said(quality, "0.7").model_copy(update={"estimated": estimated, "samples": independent})
        if quality
        else None,
        headroom=said(headroom, "0.06") if headroom else None,
        segment=_segment(segments) if segments else None,
        segments=tuple(
            SegmentVerdict(name=name, verdict=verdict, value="0.7", reference="0.9", samples=60, rows=90)
            for name, verdict in (segments or {}).items()
        ),
        labelled_window=request.labelled.index if request.labelled else None,
        labelled_rows=labelled,
        artifact_digest=artifact or followed,
        report=f"{request.store}/monitoring/w{request.window.index}/report.html",
    )


def _segment(segments: dict[str, Verdicts]) -> SignalVerdict:
    """Return the verdict on all segments together: that on the first, which is the worst."""
    name, verdict = next(iter(segments.items()))
    words = f"{name}: accuracy 0.7, was 0.9 on the reference, 60 labelled rows; the whole shows no loss (0.9, was 0.9)."
    return SignalVerdict(verdict=verdict, reason=f"Said{verdict}", message=words, value="0.7", samples=60)


def _short(request: SearchRequest) -> str:
    """Return the run's name without what tells resources of one name apart."""
    return request.run.rpartition("-")[0]


def bundle_of(request: SearchRequest) -> BundleRef:
    """Return the bundle that the judge of a run would publish."""
    return stored(request.store, _short(request))


def digest_of(name: str) -> str:
    """Return the digest of the bundle that tests call by this name."""
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def stored(store: str, name: str) -> BundleRef:
    """Return a bundle in a store, as its digest alone names it."""
    digest = digest_of(name)
    return BundleRef(uri=bundle_uri(store, digest), digest=digest)


def _judge(request: JudgeRequest, verdict: Verdict) -> JudgeResult:
    return JudgeResult(
        spec_hash=request.spec_hash,
        run=request.run,
        champion_digest=request.champion.digest,
        verdict=verdict,
        reason="SmallerAtEqualQuality" if verdict is Verdict.PROMOTE else "NoRelevantGain",
        message="4x smaller",
        report=f"{request.store}/runs/{_short(request)}/report.html",
        candidate=CandidateSummary(
            bundle=request.original if request.delivered else bundle_of(request),
            size_bytes=250,
            techniques=("int8",),
            reference=digest_of(f"rows of {_short(request)}"),
        ),
        comparisons=(Comparison(name="size_bytes", champion=SMALLER, candidate=SMALLER),),
        worth=WORTH if verdict is Verdict.PROMOTE else None,
        fingerprint="amd64",
    )
