"""Whether a newly delivered model may go live itself, and by whose word it does.

The policy is spec.rollout.deliveredModel. Whoever reads it asks here, so that it means the same everywhere.
"""

from retune.api.rollout import DeliveredModel
from retune.api.spec import Mode
from retune.api.status import Outcome
from retune.plan.draft import Draft
from retune.plan.hashing import snapshot_hash

_JUDGED = {Outcome.PROMOTED, Outcome.NO_GAIN, Outcome.GATE_FAILED}
"""How a run ends with which the delivered model has had its chance under this spec, and candidates are made from it."""


def may_go_live(draft: Draft) -> bool:
    """Whether the spec lets a delivered model go live itself."""
    return draft.spec.rollout.delivered_model is DeliveredModel.GOES_LIVE


def is_awaiting_verdict(draft: Draft) -> bool:
    """Whether the delivered model that serves goes on serving where another one is delivered, until that is judged.

    A target that loads the file of spec.model by itself serves the new one whatever is said here.
    """
    is_its_own = draft.spec.model.update_policy == "Follow"
    return may_go_live(draft) and not is_its_own and draft.spec.mode is not Mode.OBSERVE_ONLY


def is_due(draft: Draft) -> bool:
    """Whether the next run is to judge the delivered model itself: it is new, and this spec has no verdict on it."""
    status = draft.status
    champion, original, last = status.champion, status.original, status.last_delivery
    if not may_go_live(draft) or champion is None or original is None:
        return False
    origin = champion.model_digest or champion.made_from
    if origin is None or original.model_digest in {None, origin}:  # other data make another bundle of the same file
        return False
    if any(entry.digest == original.digest for entry in status.rejected):
        return False
    if last is None or (last.digest, last.spec_hash) != (original.digest, snapshot_hash(draft.spec)):
        return True
    if last.outcome is Outcome.RECOMMENDED:  # dropped without a word of a person, as another run has begun
        return status.candidate is None
    return last.outcome not in _JUDGED


def is_followed(draft: Draft) -> bool:
    """Whether the last run has judged the delivered model, so that candidates are to be made from it now."""
    last, run = draft.status.last_delivery, draft.status.last_run
    if last is None or run is None or run.name != last.run_name:
        return False
    return last.outcome in _JUDGED and last.spec_hash == snapshot_hash(draft.spec)
