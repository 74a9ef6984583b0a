"""The gate between a verdict and a rollout: a result counts only if it belongs to this very run.

The judge Job has done the statistics; here a late, foreign or forged result is refused, and so is a bundle that was
rolled back before. The answer always comes with a reason.
"""

from dataclasses import dataclass

from retune.api.status import Outcome, Rejected, Version
from retune.contract.results import CandidateSummary, JudgeResult, Verdict
from retune.plan.belief import bundle_fault

REJECTED_BEFORE = "RejectedBefore"
"""Reason of a verdict that what was found is known and did not hold up."""


@dataclass(frozen=True)
class Accepted:
    """The candidate may go live."""

    candidate: CandidateSummary
    reason: str
    message: str


@dataclass(frozen=True)
class Declined:
    """The champion stays."""

    outcome: Outcome
    reason: str
    message: str


def decide(
    result: JudgeResult,
    *,
    run: str,
    spec_hash: str,
    champion: Version,
    store: str | None,
    rejected: tuple[Rejected, ...],
    delivered: str | None = None,
) -> Accepted | Declined:
    """Return whether the judged candidate may go live.

    Args:
        result: The judge Job's verdict.
        run: Name of the run under way in the store.
        spec_hash: Hash of the spec that the run is for.
        champion: The version that serves.
        store: This resource's folder in the artifact store.
        rejected: Bundles that must not go live again.
        delivered: Digest of the delivered model's bundle where that alone was to be judged.
    """
    foreign = _foreign(result, run=run, spec_hash=spec_hash, champion=champion)
    if foreign:
        return Declined(Outcome.FAILED, "ResultForeign", foreign)
    if result.verdict is not Verdict.PROMOTE:
        outcome = Outcome.NO_GAIN if result.verdict is Verdict.NO_GAIN else Outcome.GATE_FAILED
        known = _told(rejected[-1]) if rejected and result.reason == REJECTED_BEFORE else ""
        return Declined(outcome, result.reason, f"{result.message} {known}".strip())
    candidate = result.candidate
    if candidate is None:
        return Declined(Outcome.FAILED, "ResultInvalid", "the judge promoted nothing that can be named")
    fault = bundle_fault(candidate.bundle, store=store) or _other(candidate, delivered)
    if fault:
        return Declined(Outcome.FAILED, "ResultForeign", fault)
    if candidate.bundle.digest == champion.digest:
        return Declined(Outcome.NO_GAIN, "ChampionAgain", "the best candidate is the champion itself")
    failed = next((entry for entry in rejected if entry.digest == candidate.bundle.digest), None)
    if failed is not None:
        return Declined(Outcome.GATE_FAILED, REJECTED_BEFORE, f"The best candidate does not go live. {_told(failed)}")
    return Accepted(candidate, result.reason, result.message)


def _other(candidate: CandidateSummary, delivered: str | None) -> str | None:
    """Return that a verdict is about another bundle than the delivered model's, which alone was to be judged."""
    if delivered is None or candidate.bundle.digest == delivered:
        return None
    return f"the result promotes {candidate.bundle.digest}, and the delivered model is {delivered}"


def _told(entry: Rejected) -> str:
    """Return why a bundle does not go live again, and how it may, as sentences."""
    name = f"Version {entry.version}" if entry.version else f"Bundle {entry.digest}"
    when = f" on {entry.time:%Y-%m-%d}" if entry.time else ""
    why = entry.message or entry.reason
    return f"{name} was taken back{when}, because {why[:400]}. To try it again, set rollout.retry to {entry.digest}."


def _foreign(result: JudgeResult, *, run: str, spec_hash: str, champion: Version) -> str | None:
    if result.run != run or result.spec_hash != spec_hash:
        return f"the result belongs to run {result.run} and another spec"
    if result.champion_digest != champion.digest:
        return "the result compares with a model that is not the champion any more"
    return None
