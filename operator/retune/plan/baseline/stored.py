"""Whether the champion's bundle is still in the store, where no baseline makes it: missed, looked for, found or lost.

A Job that does not find a bundle is only a hint: the claim may be away for a while. The baseline confirms it: it has
just published version 1 to the same store, so the store is there, and the champion's bundle is not in it or not what
its digest says. The condition BundleAvailable holds how far this is, so that a restart goes on from there.
"""

from retune.api.status import ConditionStatus, ConditionType, Version
from retune.contract.requests import BundleRef
from retune.contract.results import BaselineResult, Reason
from retune.plan.baseline.attempts import measure_again
from retune.plan.belief import bundle_fault
from retune.plan.draft import Draft, bundle_of, condition_of
from retune.plan.jobs import JobFailure

MISSED, LOST, STORED = "BundleMissed", "BundleLost", "Stored"
_HINTS = frozenset({Reason.BUNDLE_NOT_FOUND, Reason.BUNDLE_CORRUPT})


def look_for_bundles(draft: Draft, failure: JobFailure) -> None:
    """Have the delivered model bundled anew and the champion's bundle looked for, where a Job has missed a bundle."""
    if failure.reason not in _HINTS or _is_looked_for(draft):
        return
    champion = _stored_apart(draft)
    if champion is not None and not is_lost(draft):
        message = f"a Job has missed a bundle; that of version {champion.version} is looked for: {failure.message}"
        draft.condition(ConditionType.BUNDLE_AVAILABLE, ConditionStatus.UNKNOWN, MISSED, message)
    measure_again(draft)


def _is_looked_for(draft: Draft) -> bool:
    """Whether an attempt that answers this is under way: another hint must not begin it anew."""
    original = draft.status.original
    remeasured = original is not None and original.spec_hash is None
    return remeasured and (_stored_apart(draft) is None or bundle_to_look_for(draft) is not None)


def bundle_to_look_for(draft: Draft) -> BundleRef | None:
    """Return the champion's bundle where it is not known to be in the store; else None."""
    champion, shown = _stored_apart(draft), condition_of(draft.status, ConditionType.BUNDLE_AVAILABLE)
    wanted = champion is not None and shown is not None and shown.reason in {MISSED, LOST}
    return bundle_of(champion) if champion is not None and wanted else None


def note_answer(draft: Draft, result: BaselineResult) -> None:
    """Note whether the baseline has found the champion's bundle; an answer about another one says nothing."""
    bundle, champion = bundle_to_look_for(draft), draft.status.champion
    if bundle is None or champion is None:
        return
    if result.lost == bundle:
        message = (
            f"the bundle of version {champion.version}, {bundle.uri}, is not in the store any more, or not what its "
            f"digest says: {_what_follows(champion)}"
        )
        draft.condition(ConditionType.BUNDLE_AVAILABLE, ConditionStatus.FALSE, LOST, message)
    elif result.serves is not None and result.serves.bundle == bundle:
        note_seen(draft)


def _what_follows(champion: Version) -> str:
    """Return what a lost bundle means, and what to do about it."""
    if champion.run_name is not None:
        cure = "Restore it from a copy, or let the delivered model take its place by spec.mode Automatic"
        return f"pods that start cannot load it. {cure}"
    cure = "Restore it from a copy, or let the newest delivered model count as what serves by deliveredModel MustWin"
    return f"the target serves that version in its own way, and nothing can be compared with it. {cure}"


def note_seen(draft: Draft) -> None:
    """Note that a Job has opened the champion's bundle, where it was missed before."""
    champion = draft.status.champion
    if champion is not None and bundle_to_look_for(draft) is not None:
        message = f"the bundle of version {champion.version} is in the store and is what its digest says"
        draft.condition(ConditionType.BUNDLE_AVAILABLE, ConditionStatus.TRUE, STORED, message)


def is_lost(draft: Draft) -> bool:
    """Whether it is confirmed that the store lacks the bundle of the champion."""
    shown = condition_of(draft.status, ConditionType.BUNDLE_AVAILABLE)
    return shown is not None and shown.reason == LOST and _stored_apart(draft) is not None


def _stored_apart(draft: Draft) -> Version | None:
    """Return the champion whose bundle no baseline makes anew and lies in the present store, if it is such a one."""
    champion, original = draft.status.champion, draft.status.original
    if champion is None or original is None:
        return None
    if champion.run_name is None and champion.digest == original.digest:
        return None
    return champion if bundle_fault(bundle_of(champion), store=draft.store) is None else None
