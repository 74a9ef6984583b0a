"""Pods that run a version which is being undone and never get ready, where their controller waits until they do.

A StatefulSet's does: without this, a version that breaks its pods could not be taken back. No other pod is touched: not
one that is ready, nor one of the champion, nor one whose value no run of this resource has made.
"""

from retune.api.status import ConditionType
from retune.plan.actions import ReplacePod
from retune.plan.belief import bundle_in
from retune.plan.draft import Draft
from retune.plan.observed import LatePod, Verb


def replace(draft: Draft) -> tuple[str, str] | None:
    """Have such pods made anew; returns reason and sentence where that is refused."""
    late = [pod for pod in draft.observed.pods.behind if _is_undone(draft, pod)]
    draft.do(*(ReplacePod(pod.name, pod.uid) for pod in late))
    refusal = draft.refusal(Verb.REPLACE_POD)
    if not late or refusal is None:
        return draft.refused_before(ConditionType.ROLLED_OUT) if late else None
    names = ", ".join(pod.name for pod in late)
    return refusal.reason, f"{refusal.message}; {draft.target_name} waits for a broken pod: delete {names}"


def _is_undone(draft: Draft, pod: LatePod) -> bool:
    champion = draft.status.champion
    is_champion = champion is not None and pod.value == champion.injected_value
    return not is_champion and bundle_in(pod.value, store=draft.store) is not None
