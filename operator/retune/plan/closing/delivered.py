"""What has become of the newest delivered model: it serves, waits for its verdict, or stays off, and why.

It is read off the status in every pass, from the first champion on, so that one can wait for it after every delivery.
"""

from retune.api.status import ConditionStatus, ConditionType, Outcome, Version
from retune.plan.draft import Draft
from retune.plan.guards.delivery import may_go_live
from retune.plan.hashing import baseline_hash

MUST_WIN, WAITS, BEFORE = "MustWin", "NotJudged", "ServedBefore"
Said = tuple[ConditionStatus, str, str]


def say_what_became(draft: Draft) -> None:
    """Set the condition DeliveredLive."""
    original, champion = draft.status.original, draft.status.champion
    if original is None or champion is None or original.spec_hash != baseline_hash(draft.spec):
        return
    if original.model_digest is None and champion.digest != original.digest:
        return  # of a release that did not note what a champion was made from
    said = _live(original, champion) or _on_its_way(draft, original, champion) or _off(draft, original, champion)
    draft.condition(ConditionType.DELIVERED_LIVE, *said)


def _live(original: Version, champion: Version) -> Said | None:
    name = f"version {original.version}, the newest delivered model"
    if champion.digest == original.digest:
        return ConditionStatus.TRUE, "Serves", f"{name}, is champion"
    if champion.model_digest == original.model_digest:
        return ConditionStatus.TRUE, "Serves", f"version {champion.version} is champion, of the same file as {name}"
    if champion.made_from == original.model_digest:
        return ConditionStatus.TRUE, "OptimizedServes", f"version {champion.version} is champion, made from {name}"
    return None


def _on_its_way(draft: Draft, original: Version, champion: Version) -> Said | None:
    candidate, run = draft.status.candidate, draft.status.run
    stays = f"version {champion.version} is champion meanwhile"
    if candidate is not None and candidate.digest == original.digest:
        message = f"version {original.version}, as delivered, has passed the gate; {stays}"
        return ConditionStatus.UNKNOWN, "Accepted", message
    if run is not None and run.delivered:
        message = f"version {original.version}, as delivered, is judged beside the champion; {stays}"
        return ConditionStatus.UNKNOWN, "Judging", message
    return None


def _off(draft: Draft, original: Version, champion: Version) -> Said:
    """Return why the delivered model does not serve."""
    last, stays = draft.status.last_delivery, f"version {champion.version} stays champion"
    rejected = next((entry for entry in draft.status.rejected if entry.digest == original.digest), None)
    name = f"version {original.version}, as delivered"
    if rejected is not None:
        return ConditionStatus.FALSE, rejected.reason, f"{name}, stays off, {stays}: {rejected.message or ''}"
    if not may_go_live(draft):
        message = f"{name}, goes live only by a candidate made from it that wins (rollout.deliveredModel); {stays}"
        return ConditionStatus.FALSE, MUST_WIN, message
    if last is None or last.digest != original.digest or last.outcome is Outcome.RECOMMENDED:
        return ConditionStatus.FALSE, WAITS, f"{name}, is judged beside the champion by the next run; {stays}"
    if last.outcome is Outcome.PROMOTED:
        return ConditionStatus.FALSE, BEFORE, f"{name}, has served, and another version took its place since; {stays}"
    return ConditionStatus.FALSE, last.reason, f"{name}, stays off, {stays}: {last.message}"
