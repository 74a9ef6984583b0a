"""Whether there is a target, whether this resource is its one writer, and whether its field is as it was left.

The target belongs to its user: it is never created, never fought over, and never changed before its Lease is held.
"""

from retune.api import FIELD_MANAGER
from retune.api.shown import Shown
from retune.api.spec import Mode
from retune.api.status import ConditionStatus, ConditionType, Rejected, Stage, Version
from retune.api.target import Takeover, is_reserved
from retune.plan.actions import AcquireLease, InjectModel
from retune.plan.belief import bundle_in
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.kept import own
from retune.plan.observed import Container, Verb

_VALUE_LIMIT = 1024
"""Characters of the owned field's value that a status has room for."""

OUTAGE_EXPECTED = "OutageExpected"
"""Reason of a target that is there, and whose pods are replaced in a way that its users notice."""
_RETRY_SECONDS = 60.0
_REJECTED_LIMIT = 20
"""Rejected bundles that a status has room for."""
_VERSIONS_LIMIT = 8
"""Earlier champions that a status has room for."""


def resolve_target(draft: Draft) -> Hold | None:
    """Find the workload and the container that loads the model."""
    obstacle = _obstacle(draft)
    if obstacle is not None:
        reason, message = obstacle
        draft.condition(ConditionType.TARGET_RESOLVED, ConditionStatus.FALSE, reason, message)
        return Hold(Stage.BLOCKED, f"Target{reason}", message)
    _say_resolved(draft)
    return None


def _say_resolved(draft: Draft) -> None:
    """Say that the target is there, and warn of an outage that its users would see."""
    container, target = draft.container.name if draft.container else "", draft.observed.target
    message, outage = f"{draft.target_name}, container {container}", target.outage if target else None
    if outage:
        message = f"{message}. Its users will see an outage at each promotion: {outage}"
    reason = OUTAGE_EXPECTED if outage else "Resolved"
    draft.condition(ConditionType.TARGET_RESOLVED, ConditionStatus.TRUE, reason, message)


def _obstacle(draft: Draft) -> tuple[str, str] | None:
    """Return reason and sentence when there is no target whose field could be owned."""
    return _kind_obstacle(draft) or _target_obstacle(draft) or _field_obstacle(draft)


def _kind_obstacle(draft: Draft) -> tuple[str, str] | None:
    """Return why no target of this kind can be looked after."""
    kind = draft.spec.target.ref.kind
    if kind not in draft.observed.defaults.target_kinds:
        message = f"this operator has no rights for targets of kind {kind}: name it in targets.kinds of its chart"
        return "KindNotEnabled", message
    rollout = draft.spec.rollout
    if rollout.is_tried and kind != "Deployment":
        message = f"strategy {rollout.strategy} is for a Deployment, not for {draft.target_name}: take RollingUpdate"
        return "StrategyUnfit", message
    return None


def _target_obstacle(draft: Draft) -> tuple[str, str] | None:
    """Return why the workload is none that a version can be given to."""
    name, target = draft.target_name, draft.observed.target
    if target is None:
        return "NotFound", f"{name} does not exist: create it, or correct spec.target.ref.name"
    if target.unfit is not None and not _is_given(draft):
        return "NotFollowable", f"{name}: {target.unfit}"
    if target.obstacle is not None:
        return target.obstacle.word, f"{name}: {target.obstacle.message}"
    return ("ContainerNotFound", _container_sentence(draft, name)) if draft.container is None else None


def _field_obstacle(draft: Draft) -> tuple[str, str] | None:
    """Return why the field cannot be owned."""
    name, container, variable = draft.target_name, draft.container, draft.spec.target.injection.field
    if is_reserved(variable):
        return "VariableReserved", f"{variable} is read by more than the server: name another in a new resource"
    if container is None:
        return None
    field = f"{variable} of container {container.name}"
    if container.indirect:
        return "FieldNotLiteral", f"{name} sets {field} from another object: give it a plain value"
    if len(container.value or "") > _VALUE_LIMIT:
        return "FieldTooLong", f"{name} gives {field} more than {_VALUE_LIMIT} characters: shorten it"
    return None


def _is_given(draft: Draft) -> bool:
    """Whether the target has the version of a rollout, which has to be carried on or undone whatever others change."""
    rollout, candidate, container = draft.status.rollout, draft.status.candidate, draft.container
    if rollout is None or container is None:
        return False
    has_value = candidate is not None and container.value == candidate.injected_value
    return rollout.injected or rollout.rollback_reason is not None or has_value


def _container_sentence(draft: Draft, name: str) -> str:
    target = draft.observed.target
    containers, wanted = target.containers if target else (), draft.spec.target.container
    names = ", ".join(container.name for container in containers if wanted or not container.is_init)
    if wanted is None:
        return f"{name} has several containers ({names}): name the one that loads the model in spec.target.container"
    return f"{name} has no container {wanted} (it has {names}): correct spec.target.container"


def lease_to_acquire(draft: Draft) -> AcquireLease | None:
    """Return the Lease that everything else has to wait for, unless this pass holds it or was refused it."""
    target, meta = draft.observed.target, draft.resource.metadata
    if target is None or draft.container is None or meta.deletion_timestamp or draft.spec.suspend:
        return None
    answered = draft.observed.lease_held or draft.refusal(Verb.ACQUIRE_LEASE) is not None
    held = draft.status.target_uid == target.uid and draft.status.holder_uid == meta.uid
    return None if answered or held else AcquireLease(target.uid)


def hold_lease(draft: Draft) -> Hold | None:
    """Be the target's one writer; a resource that is not goes no further."""
    refusal, target = draft.refusal(Verb.ACQUIRE_LEASE), draft.observed.target
    if refusal:
        draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, refusal.reason, refusal.message)
        draft.wake(after=_RETRY_SECONDS)
        return Hold(Stage.BLOCKED, refusal.reason, refusal.message)
    if target and draft.status.target_uid != target.uid:
        if _lacks_champion(draft):
            return _give_champion(draft)
        _forget_what_another_showed(draft)
        draft.update(target_uid=target.uid)
        _lease_held(draft)
    if target:
        draft.update(holder_uid=draft.resource.metadata.uid)
    return None


def _forget_what_another_showed(draft: Draft) -> None:
    """Note that nobody has asked the pods of a new target, which may have another server than the one before it."""
    champion = draft.status.champion
    if draft.status.target_uid is not None and champion is not None and champion.run_name is not None:
        draft.update(champion=champion.model_copy(update={"shown_by": Shown.NOTHING.value}))


def _lacks_champion(draft: Draft) -> bool:
    """Whether the target is another one than the champion was given to, and runs what its manifest says.

    It was deleted and created again, as by a reinstallation or after a disaster: nobody wants the delivered model back.
    """
    status, container = draft.status, draft.container
    champion, original = status.champion, status.original
    is_touched = status.rollout is not None and (status.rollout.injected or status.rollout.weight_index is None)
    if status.target_uid is None or is_touched or container is None or champion is None or original is None:
        return False
    fresh = container.value != champion.injected_value and container.value in {None, original.injected_value}
    return fresh and champion.run_name is not None and draft.spec.mode is Mode.AUTOMATIC


def _give_champion(draft: Draft) -> Hold:
    """Give a new target what the one before it served. Its UID is noted once that is done."""
    champion, container, name = draft.status.champion, draft.container, draft.target_name
    conflict, refusal = field_conflict(draft), draft.refusal(Verb.INJECT_MODEL)
    if conflict or refusal or champion is None or container is None:
        reason = refusal.reason if refusal else "FieldConflict"
        message = conflict or (refusal.message if refusal else "")
        draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, reason, message)
        draft.wake(after=_RETRY_SECONDS)
        return Hold(Stage.BLOCKED, reason, message)
    variable = draft.spec.target.injection.field
    draft.do(InjectModel(container.name, variable, champion.injected_value, force=may_force(draft)))
    message = f"{name} is new: it is given version {champion.version}, which the one before it served"
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.UNKNOWN, "TargetRenewed", message)
    return Hold(Stage.ROLLING_OUT, "TargetRenewed", message)


def field_conflict(draft: Draft) -> str | None:
    """Return why the owned field may not be changed: another manager has set it and takeover is Refuse."""
    container = draft.container
    if container is None or container.value is None or container.manager in {None, FIELD_MANAGER} or may_force(draft):
        return None
    return (
        f"{draft.spec.target.injection.field} of {draft.target_name} is owned by "
        f"{container.manager}: remove it from that manifest, or set spec.target.injection.takeover to Force"
    )


def respect_field(draft: Draft) -> Hold | None:
    """Compare the owned field with the champion's value; a value that someone else put there stays and is reported."""
    status, container = draft.status, draft.container
    if status.champion is None or container is None or status.rollout is not None:
        return None
    if container.value == status.champion.injected_value:
        _owned(draft, container.manager)
        return None
    known = known_version(draft, container.value)
    if known is not None:
        _adopt(draft, known, container.manager or "someone")
        return None
    if status.champion.run_name is None:
        if container.value is not None or draft.spec.target.injection.config_map is None:
            _follow_manifest(draft, container.value)
        return None  # a server whose key is empty keeps what it serves, which is what was delivered
    return _changed_by_others(draft, container)


def _follow_manifest(draft: Draft, value: str | None) -> None:
    """Note the value that the manifest has now: no version of a run is live, so it names what was delivered."""
    champion, original = draft.status.champion, draft.status.original
    draft.update(
        champion=champion.model_copy(update={"injected_value": value}) if champion else None,
        original=original.model_copy(update={"injected_value": value}) if original else None,
    )


def _owned(draft: Draft, manager: str | None) -> None:
    """Say that the field is as it should be; a conflict over a candidate that still waits stays in the condition."""
    champion, variable = draft.status.champion, draft.spec.target.injection.field
    if champion and champion.run_name and manager in {None, FIELD_MANAGER}:
        message = f"{variable} names version {champion.version} and is owned by Retune"
        draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.TRUE, "FieldOwned", message)
    elif champion and champion.run_name and draft.status.candidate is None:
        later = "; a later version goes live with spec.target.injection.takeover: Force, or once they give it up"
        later = later if draft.spec.mode is not Mode.PROPOSE else ", as mode Propose leaves it to them"
        message = f"{manager} has set {variable} to version {champion.version}{later}"
        draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.TRUE, "FieldSetByOthers", message)
    elif draft.status.candidate is None:
        _lease_held(draft)


def _lease_held(draft: Draft) -> None:
    message = f"this resource alone writes {draft.target_name}"
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.TRUE, "LeaseHeld", message)


def known_version(draft: Draft, value: str | None) -> Version | None:
    """Return the version of this resource that a value of the field names: delivered, or champion before."""
    original, earlier = draft.status.original, draft.status.versions
    if original is not None and value == original.injected_value:
        return own(draft.status)
    served = next((version for version in earlier if version.injected_value == value), None)
    if served is None and original is not None and value == original.uri:
        return original.model_copy(update={"injected_value": value, "shown_by": Shown.NOTHING.value})
    return served


def _adopt(draft: Draft, version: Version, who: str) -> None:
    """Make a known version champion, as someone put it back; what it replaces is not proposed again."""
    champion, original = draft.status.champion, draft.status.original
    if champion is None or original is None:
        return
    name = "the delivered model" if version.digest == original.digest else f"version {version.version}"
    message = f"{name} was put back by hand ({who})"
    if champion.run_name is not None:
        message += f"; version {champion.version} is not proposed again"
        reject(draft, champion, "RevertedByOthers", message)
    remember(draft)
    rejected = tuple(entry for entry in draft.status.rejected if entry.digest != version.digest)
    draft.update(champion=version, candidate=None, rejected=rejected)
    tell_of_run(draft, champion, "RevertedByOthers", message)
    say_stored(draft, version)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, "RevertedByOthers", message)
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.TRUE, "LeaseHeld", message)


def tell_of_run(draft: Draft, replaced: Version, reason: str, message: str) -> None:
    """Have the last run say what has become of the version that it brought."""
    last = draft.status.last_run
    if last is None or last.name != replaced.run_name:
        return
    sentence = f"version {replaced.version} was promoted; later {message}"
    draft.update(last_run=last.model_copy(update={"reason": reason, "message": sentence[:1024]}))
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.FALSE, reason, f"run {last.name}: {sentence}")


def say_stored(draft: Draft, version: Version) -> None:
    """End what is said of the bundle of a champion that another version has replaced: it tells nothing of this one."""
    shown = condition_of(draft.status, ConditionType.BUNDLE_AVAILABLE)
    if shown is not None and shown.status is not ConditionStatus.TRUE:
        message = f"no Job has missed the bundle of version {version.version}"
        draft.condition(ConditionType.BUNDLE_AVAILABLE, ConditionStatus.TRUE, "Stored", message)


def _changed_by_others(draft: Draft, container: Container) -> Hold:
    variable, who = draft.spec.target.injection.field, container.manager or "someone else"
    champion = draft.status.champion
    message = (
        f"{variable} of {draft.target_name} was set to {container.value or 'nothing'} by {who}"
        f"{_taken_back(draft, container.value)}; Retune does not fight over it: restore "
        f"{champion.injected_value if champion else ''}, name another of the versions that are kept (status.versions), "
        "or delete this resource"
    )
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, "FieldChanged", message)
    return Hold(Stage.BLOCKED, "FieldChanged", message)


def _taken_back(draft: Draft, value: str | None) -> str:
    """Return which rejected version a value of the field names, if it does: such a one is not believed in."""
    bundle = bundle_in(value, store=draft.store)
    rejected = next((entry for entry in draft.status.rejected if bundle and entry.digest == bundle.digest), None)
    if rejected is None or rejected.version is None:
        return ""
    return f", which is version {rejected.version}, taken back before it was champion (rollout.retry tries it again)"


def may_force(draft: Draft) -> bool:
    """Whether a field that another manager owns may be taken over."""
    return draft.spec.target.injection.takeover is Takeover.FORCE


def reject(draft: Draft, version: Version, reason: str, message: str) -> None:
    """Remember a version that must not be rolled out again, and why; the oldest entries make room."""
    others = tuple(entry for entry in draft.status.rejected if entry.digest != version.digest)
    entry = Rejected(
        digest=version.digest, reason=reason, version=version.version, message=message[:1024], time=draft.now
    )
    draft.update(rejected=(*others, entry)[-_REJECTED_LIMIT:])


def remember(draft: Draft) -> None:
    """Keep the champion among the versions that a person may put back, as another one takes its place.

    What the target serves in its own way is kept as that, also where its bundle has served since.
    """
    champion, original, as_delivered = draft.status.champion, draft.status.original, own(draft.status)
    if champion is None or original is None or as_delivered is None:
        return
    if champion.run_name is None and champion.digest == original.digest:
        return
    if champion != as_delivered and champion.digest == as_delivered.digest != original.digest:
        return
    others = [version for version in draft.status.versions if version.digest != champion.digest]
    while len(others) >= _VERSIONS_LIMIT:
        others.remove(next(version for version in others if version != as_delivered))
    draft.update(versions=(*others, champion))


def keep_own(draft: Draft) -> None:
    """Keep what the target serves in its own way as the oldest version, before another model is the delivered one."""
    as_delivered, versions = own(draft.status), draft.status.versions
    if as_delivered is None or as_delivered == draft.status.champion or as_delivered in versions:
        return
    others = [version for version in versions if version.digest != as_delivered.digest]
    draft.update(versions=(as_delivered, *others[-_VERSIONS_LIMIT + 1 :]))
