"""What an honest Job would answer to a request, for tests that play the Jobs themselves."""

from retune.api.objects import Comparison
from retune.api.status import Measurement
from retune.contract.requests import (
    BaselineRequest,
    BundleRef,
    JobRequest,
    JudgeRequest,
    SearchRequest,
    VerifyRequest,
)
from retune.contract.results import (
    BaselineResult,
    CandidateSummary,
    JobResult,
    JudgeResult,
    SearchResult,
    Verdict,
    VerifyResult,
)

SMALLER = Measurement(name="size_bytes", value="250")


def answer(request: JobRequest, *, verdict: Verdict = Verdict.PROMOTE) -> JobResult:
    """Return a result that fits the request."""
    match request:
        case BaselineRequest():
            return _baseline(request)
        case JudgeRequest():
            return _judge(request, verdict)
        case SearchRequest():
            return SearchResult(spec_hash=request.spec_hash, run=request.run, trials=24, failed=0)
        case VerifyRequest():
            return VerifyResult(bundle_digest=request.bundle.digest, pods=len(request.endpoints), requests=8)


def _baseline(request: BaselineRequest) -> BaselineResult:
    return BaselineResult(
        spec_hash=request.spec_hash,
        bundle=BundleRef(uri=f"{request.store}/bundles/original", digest="sha256:original"),
        model_digest="sha256:m",
        size_bytes=1000,
        metrics=(Measurement(name="accuracy", value="0.98"),),
        fingerprint="amd64",
    )


def _short(request: SearchRequest) -> str:
    """Return the run's name without what tells resources of one name apart."""
    return request.run.rpartition("-")[0]


def bundle_of(request: SearchRequest) -> BundleRef:
    """Return the bundle that the judge of a run would publish."""
    return BundleRef(uri=f"{request.store}/bundles/{_short(request)}", digest=f"sha256:{_short(request)}")


def _judge(request: JudgeRequest, verdict: Verdict) -> JudgeResult:
    return JudgeResult(
        spec_hash=request.spec_hash,
        run=request.run,
        champion_digest=request.champion.digest,
        verdict=verdict,
        reason="SmallerAtEqualQuality" if verdict is Verdict.PROMOTE else "NoRelevantGain",
        message="4x smaller",
        report=f"{request.store}/runs/{_short(request)}/report.html",
        candidate=CandidateSummary(bundle=bundle_of(request), size_bytes=250, techniques=("int8",)),
        comparisons=(Comparison(name="size_bytes", champion=SMALLER, candidate=SMALLER),),
        fingerprint="amd64",
    )
