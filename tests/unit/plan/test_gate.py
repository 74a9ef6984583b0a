"""The operator's own look at a verdict: it counts only when it is about this run, this spec and this champion."""

import re
from typing import Any

import pytest

from retune.api.status import Outcome, Rejected, Version
from retune.contract.requests import BundleRef
from retune.contract.results import CandidateSummary, JudgeResult, Verdict
from retune.plan.run.gate import Accepted, Declined, decide

CHAMPION = Version(version=1, uri=f"pvc://store/bundles/{'a' * 64}", digest=f"sha256:{'a' * 64}")
BUNDLE = BundleRef(uri=f"pvc://store/bundles/{'b' * 64}", digest=f"sha256:{'b' * 64}")


def candidate(bundle: BundleRef = BUNDLE) -> CandidateSummary:
    """Return a candidate that is made of a bundle."""
    return CandidateSummary(bundle=bundle, size_bytes=250, techniques=("int8",))


def judged(**changes: Any) -> JudgeResult:
    """Return the verdict of a judge that promotes, with some fields changed."""
    fields: dict[str, Any] = {
        "spec_hash": "spec",
        "run": "ml.digits.digits-r1",
        "champion_digest": CHAMPION.digest,
        "verdict": Verdict.PROMOTE,
        "reason": "SmallerAtEqualQuality",
        "message": "4x smaller",
        "candidate": candidate(),
        "report": "pvc://store/runs/digits-r1/report.html",
        "fingerprint": "amd64",
    }
    return JudgeResult(**fields | changes)


def decided(result: JudgeResult, *, rejected: tuple[Rejected, ...] = ()) -> Accepted | Declined:
    """Return what the gate says of a verdict in the run that is under way."""
    return decide(
        result,
        run="ml.digits.digits-r1",
        spec_hash="spec",
        champion=CHAMPION,
        store="pvc://store",
        rejected=rejected,
    )


def test_a_proven_candidate_of_this_run_may_go_live() -> None:
    """The gate hands on the judge's own reason and sentence."""
    assert decided(judged()) == Accepted(candidate(), "SmallerAtEqualQuality", "4x smaller")


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"run": "ml.other.other-r1"}, Outcome.FAILED, "ResultForeign"),
        ({"spec_hash": "another"}, Outcome.FAILED, "ResultForeign"),
        ({"champion_digest": f"sha256:{'c' * 64}"}, Outcome.FAILED, "ResultForeign"),
        ({"candidate": None}, Outcome.FAILED, "ResultInvalid"),
        (
            {"candidate": candidate(BundleRef(uri=CHAMPION.uri, digest=CHAMPION.digest))},
            Outcome.NO_GAIN,
            "ChampionAgain",
        ),
        ({"verdict": Verdict.NO_GAIN, "reason": "NoRelevantGain"}, Outcome.NO_GAIN, "NoRelevantGain"),
        ({"verdict": Verdict.GATE_FAILED, "reason": "LatencyAboveLimit"}, Outcome.GATE_FAILED, "LatencyAboveLimit"),
    ],
)
def test_anything_else_leaves_the_champion(changes: dict[str, Any], outcome: Outcome, reason: str) -> None:
    """A verdict of another run, spec or champion, one without a candidate, and every verdict that does not promote."""
    refused = decided(judged(**changes))
    assert isinstance(refused, Declined)
    assert (refused.outcome, refused.reason) == (outcome, reason)
    assert refused.message


@pytest.mark.parametrize("verdict", [Verdict.NO_GAIN, Verdict.GATE_FAILED, Verdict.PROMOTE])
def test_a_foreign_verdict_is_foreign_whatever_it_says(verdict: Verdict) -> None:
    """Whether it belongs here is asked before what it says, so that a stray result never ends a run as judged."""
    refused = decided(judged(run="ml.other.other-r1", verdict=verdict))
    assert isinstance(refused, Declined)
    assert refused.reason == "ResultForeign"


@pytest.mark.parametrize(
    "bundle",
    [
        BundleRef(uri="/mnt/x/evil.so", digest=BUNDLE.digest),
        BundleRef(uri=BUNDLE.uri.replace("store", "other"), digest=BUNDLE.digest),
        BundleRef(uri=f"pvc://store/bundles/{'c' * 64}", digest=BUNDLE.digest),
        BundleRef(uri=f"{BUNDLE.uri}\n", digest=BUNDLE.digest),
        BundleRef(uri=f"pvc://store/bundles/../x/{'b' * 64}", digest=BUNDLE.digest),
        BundleRef(uri="pvc://store/bundles/latest", digest="latest"),
        BundleRef(uri=f"pvc://store/bundles/{'b' * 64}\n", digest=f"{BUNDLE.digest}\n"),
    ],
)
def test_only_a_bundle_of_this_store_under_its_own_digest_may_go_live(bundle: BundleRef) -> None:
    """The URI ends up in a variable of the target's pods: a Job never chooses what is written there."""
    refused = decided(judged(candidate=candidate(bundle)))
    assert isinstance(refused, Declined)
    assert (refused.outcome, refused.reason) == (Outcome.FAILED, "ResultForeign")
    assert re.fullmatch("the result names a bundle [a-z ']+", refused.message)


def test_a_bundle_that_was_rolled_back_does_not_come_again() -> None:
    """What failed once in front of users is not tried on them again."""
    refused = decided(judged(), rejected=(Rejected(digest=BUNDLE.digest, reason="PodsNotReady"),))
    assert isinstance(refused, Declined)
    assert (refused.outcome, refused.reason) == (Outcome.GATE_FAILED, "RejectedBefore")
