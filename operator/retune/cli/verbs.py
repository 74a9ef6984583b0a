"""The commands by which a person steers: each changes one field of the spec, so that Git and the operator see it.

None of them writes a status or touches a target. What Git declares is left to Git, in words. A version is named by its
number, or by its digest or the beginning of it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.spec import Mode
from retune.api.status import Rejected, Version
from retune.cli.access import Cluster, parsed
from retune.cli.declared import Declarer, declarer, manifest, paths_of
from retune.cli.follow import POLL_SECONDS, Exit
from retune.plan.kept import kept, own

_SEEN_SECONDS = 30.0
"""How long the operator has to see that a field was taken out."""
_LEAST_DIGITS = 6
"""Digits of a digest by which a version may be named."""


class NothingToDo(Exception):  # noqa: N818 - a state of the resource, not a fault
    """The resource is not where the command could do anything; the message says where it is."""


@dataclass(frozen=True)
class Change:
    """What a command does to the spec."""

    spec: Json
    """Nested values; None takes a field out."""
    message: str
    """What follows from it, as a sentence."""
    again: bool = False
    """Whether the operator has followed this very rollout.retry before, and has to see it go first."""


Verb = Callable[[ModelOptimization, argparse.Namespace], Change]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add them to the subparsers that argparse's `add_subparsers` returned."""
    sub = _add(commands, common, "approve", approve, "let the version that waits go live (rollout.approvedVersion)")
    sub.add_argument("version", nargs="?", metavar="VERSION", help="refuse if another version waits")
    sub = _add(commands, common, "rollback", rollback, "put an earlier version back and keep it (rollout.rollbackTo)")
    sub.add_argument("--to", metavar="VERSION", help="version to put back (default: the one that served before)")
    _add(commands, common, "unpin", unpin, "let versions go live again after a rollback (takes rollbackTo out)")
    _add(commands, common, "abort", abort, "end run and rollout; the champion serves and is kept, as by rollback")
    sub = _add(commands, common, "retry", retry, "let a rejected version be tried again (rollout.retry)")
    sub.add_argument("version", metavar="VERSION", help="a rejected version")
    _add(commands, common, "run", run, "start a run now (manualNonce)")
    _add(commands, common, "pause", pause, "freeze everything in place (suspend)")
    _add(commands, common, "resume", resume, "go on after a pause")


def _add(commands: Any, common: argparse.ArgumentParser, name: str, verb: Verb, words: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, parents=[common], help=words)
    sub.add_argument("name", metavar="NAME", help="a ModelOptimization")
    sub.add_argument("--dry-run", action="store_true", help="only show what would be changed, as for a manifest in Git")
    sub.set_defaults(command=steer, verb=verb)
    return sub


def steer(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """Change the spec as a command says, unless Git declares the field."""
    raw = cluster.resource(arguments.name)
    try:
        change = arguments.verb(parsed(raw), arguments)
    except NothingToDo as reason:
        sys.stderr.write(f"nothing was changed: {reason}\n")
        return Exit.BAD_OUTCOME
    lines = manifest({"spec": change.spec})
    if arguments.dry_run:
        console.print(lines, markup=False, soft_wrap=True)
        return Exit.DONE
    declaring = _declarer(raw, change)
    if declaring is not None and not declaring.is_person:
        sys.stderr.write(
            f"nothing was changed: {_fields(change)} is declared by {declaring.name}, which would take a change back. "
            f"Change it in Git:\n{lines}\n"
        )
        return Exit.DECLARED_ELSEWHERE
    if change.again and not _is_seen_to_go(cluster, arguments.name, change):
        sys.stderr.write(
            f"{_fields(change)} is taken out, and the operator has not seen that within {_SEEN_SECONDS:g} s: see "
            f"`retune explain {arguments.name}`, then give this command again\n"
        )
        return Exit.TIMEOUT
    cluster.change(arguments.name, {"spec": change.spec})
    console.print(f"{_fields(change)} is set. {change.message}", markup=False, soft_wrap=True)
    if declaring is not None:
        sys.stderr.write(f"change it in the manifest too, or `kubectl apply` brings the old value back:\n{lines}\n")
    return Exit.DONE


def _declarer(raw: Json, change: Change) -> Declarer | None:
    declarers = (declarer(raw, path) for path in paths_of({"spec": change.spec}))
    return next((who for who in declarers if who is not None), None)


def _fields(change: Change) -> str:
    return " and ".join(".".join(path) for path in paths_of({"spec": change.spec}))


def _is_seen_to_go(cluster: Cluster, name: str, change: Change) -> bool:
    """Take a field out and wait for the operator to see that: set again before, it would seem never to have gone."""
    cluster.change(name, {"spec": _taken_out(change.spec)})
    end = time.monotonic() + _SEEN_SECONDS
    while parsed(cluster.resource(name)).status.observed_retry is not None:
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _taken_out(spec: Json) -> Json:
    return {name: _taken_out(value) if isinstance(value, dict) else None for name, value in spec.items()}


def approve(resource: ModelOptimization, arguments: argparse.Namespace) -> Change:
    """Name the version that waits."""
    candidate, spec = resource.status.candidate, resource.spec
    if candidate is None:
        raise NothingToDo(f"no version of {resource.key} waits for approval ({_stage(resource)})")
    if arguments.version and not _is_called(candidate, arguments.version):
        raise NothingToDo(f"version {candidate.version} ({candidate.digest}) waits, and not {arguments.version}")
    if spec.rollout.approval == "Automatic":
        raise NothingToDo(_why_not_asked(resource, candidate))
    if spec.rollout.approved_version == candidate.digest:
        raise NothingToDo(f"version {candidate.version} is approved already ({_stage(resource)})")
    still = "" if spec.mode is Mode.AUTOMATIC else f" once spec.mode is Automatic (it is {spec.mode})"
    message = f"Version {candidate.version} ({candidate.digest}) may go live{still}.{_follow(resource)}"
    return Change({"rollout": {"approvedVersion": candidate.digest}}, message)


def _why_not_asked(resource: ModelOptimization, candidate: Version) -> str:
    if resource.spec.mode is Mode.AUTOMATIC:
        return f"version {candidate.version} needs no approval: spec.rollout.approval is Automatic"
    if resource.spec.mode is Mode.PROPOSE:
        return f"version {candidate.version} waits for Git, and for no approval: see `retune proposal`"
    return f"version {candidate.version} waits for spec.mode Automatic, and for no approval"


def rollback(resource: ModelOptimization, arguments: argparse.Namespace) -> Change:
    """Name the version that is to serve again."""
    version = _kept(resource, arguments.to) if arguments.to else _before(resource)
    return _pin(resource, version, f"Version {version.version} is put back and kept")


def _before(resource: ModelOptimization) -> Version:
    """Return the version that served before: the champion during a rollout, else the newest earlier one."""
    status = resource.status
    if status.champion is None:
        raise NothingToDo(f"{resource.key} has no version yet ({_stage(resource)})")
    if status.rollout is not None:
        return status.champion
    earlier = [version for version in status.versions if version.digest != status.champion.digest]
    if earlier:
        return earlier[-1]
    delivered = own(status)
    if delivered is None or delivered.digest == status.champion.digest:
        raise NothingToDo(f"no version of {resource.key} served before version {status.champion.version}")
    return delivered


def _kept(resource: ModelOptimization, name: str) -> Version:
    """Return the kept version of this name."""
    versions = kept(resource.status)
    version = next((known for known in versions if _is_called(known, name)), None)
    if version is not None:
        return version
    if any(_is_called(entry, name) for entry in resource.status.rejected):
        raise NothingToDo(f"version {name} was rejected before it was champion: `retune retry` lets it be tried again")
    known = ", ".join(str(version.version) for version in versions) or "none yet"
    raise NothingToDo(f"{resource.key} keeps no version {name} (kept: {known}): see `retune versions`")


def _pin(resource: ModelOptimization, version: Version, words: str) -> Change:
    meta, last = resource.metadata, resource.status.last_rollback
    named = resource.spec.rollout.rollback_to
    already = named in {str(version.version), version.digest}
    has_failed = last is not None and last.failed is not None and last.digest == version.digest
    if already and not has_failed:
        raise NothingToDo(f"spec.rollout.rollbackTo names version {version.version} already ({_stage(resource)})")
    paused = f" It is paused: `retune resume {meta.name} -n {meta.namespace}` lets it happen." * resource.spec.suspend
    unpin = f"Nothing else goes live and no run starts until `retune unpin {meta.name} -n {meta.namespace}`."
    # After a failure an edit of the spec is what asks anew, so that the version is then called by its other name.
    name = version.digest if named == str(version.version) else version.version
    return Change({"rollout": {"rollbackTo": name}}, f"{words}. {unpin}{paused}")


def unpin(resource: ModelOptimization, _: argparse.Namespace) -> Change:
    """Take rollbackTo out."""
    if resource.spec.rollout.rollback_to is None:
        raise NothingToDo("spec.rollout.rollbackTo is not set, so no version is kept by it")
    return Change({"rollout": {"rollbackTo": None}}, "Versions may go live again, and runs may start.")


def abort(resource: ModelOptimization, _: argparse.Namespace) -> Change:
    """Keep the champion, which ends whatever is under way."""
    status = resource.status
    if status.champion is None or (status.run is None and status.rollout is None):
        raise NothingToDo(f"nothing of {resource.key} is under way ({_stage(resource)})")
    ended = " and ".join([*(["run " + status.run.name] if status.run else []), *_on_trial(resource)])
    return _pin(resource, status.champion, f"{ended} ends; version {status.champion.version} is champion and is kept")


def _on_trial(resource: ModelOptimization) -> list[str]:
    rollout = resource.status.rollout
    return [f"the rollout of version {rollout.version}"] if rollout else []


def retry(resource: ModelOptimization, arguments: argparse.Namespace) -> Change:
    """Name a rejected version that may be rolled out again."""
    known = resource.status.rejected
    entry = next((entry for entry in known if _is_called(entry, arguments.version)), None)
    if entry is None:
        names = ", ".join(str(entry.version or entry.digest) for entry in known) or "none"
        raise NothingToDo(f"version {arguments.version} is not rejected (rejected: {names})")
    name = f"Version {entry.version}" if entry.version else entry.digest
    is_followed = resource.status.observed_retry == entry.digest
    if resource.spec.rollout.retry == entry.digest and not is_followed:
        text = f"{name} is to be tried again already, and no run has started for it yet ({_stage(resource)})"
        raise NothingToDo(f"{text}.{_what_hinders(resource)}")
    message = f"{name} may win again in the run that starts now.{_what_hinders(resource)}{_follow(resource)}"
    return Change({"rollout": {"retry": entry.digest}}, message, again=is_followed)


def run(resource: ModelOptimization, _: argparse.Namespace) -> Change:
    """Give manualNonce a value that it never had."""
    nonce = f"retune-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    under_way = resource.status.run
    ends = f" Run {under_way.name}, which is under way, ends." if under_way else ""
    message = f"A run starts now.{ends}{_what_hinders(resource)}{_follow(resource)}"
    return Change({"manualNonce": nonce}, message)


def _what_hinders(resource: ModelOptimization) -> str:
    """Return what in the spec keeps a run from starting, as a sentence."""
    spec = resource.spec
    if spec.suspend:
        return " It is paused: nothing starts before `retune resume`."
    if spec.mode is Mode.OBSERVE_ONLY:
        return " spec.mode is ObserveOnly: nothing starts in this mode."
    kept_version = spec.rollout.rollback_to
    return f" rollbackTo keeps version {kept_version}: nothing starts before `retune unpin`." if kept_version else ""


def pause(resource: ModelOptimization, _: argparse.Namespace) -> Change:
    """Suspend."""
    if resource.spec.suspend:
        raise NothingToDo(f"{resource.key} is paused already")
    return Change({"suspend": True}, "Everything stands still, and what serves goes on serving.")


def resume(resource: ModelOptimization, _: argparse.Namespace) -> Change:
    """Suspend no more."""
    if not resource.spec.suspend:
        raise NothingToDo(f"{resource.key} is not paused")
    return Change({"suspend": False}, f"It goes on where it stood.{_follow(resource)}")


def _is_called(version: Version | Rejected, name: str) -> bool:
    """Whether a name is the version's number, such as 3 or v3, or its digest or the beginning of it."""
    digits = name.removeprefix("sha256:")
    begins = len(digits) >= _LEAST_DIGITS and version.digest.removeprefix("sha256:").startswith(digits)
    return begins or name.removeprefix("v") == str(version.version)


def _stage(resource: ModelOptimization) -> str:
    return f"stage {resource.status.stage or 'Pending'}"


def _follow(resource: ModelOptimization) -> str:
    return f" Follow it with `retune watch {resource.metadata.name} -n {resource.metadata.namespace}`."
