"""`retune savings`: what the same traffic needs now, over many resources, and the change that a person may apply.

It reads, and changes nothing: replicas belong to their owner. What was noted when a version became champion is compared
with what its target wants now, so that what is saved already is not offered again.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from rich.console import Console, Group, RenderableType
from rich.text import Text

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.quantities import finite, plain
from retune.api.worth import Worth
from retune.cli import figures
from retune.cli.access import AccessError, Cluster, Unreachable, parsed
from retune.cli.figures import NONE
from retune.cli.follow import Exit
from retune.cli.grids import blank
from retune.cli.output import dump, show
from retune.cli.worth import NO_LOAD_TEST, limit
from retune.cluster.errors import NotFound
from retune.targets.registry import kind_of

_HELP = "say what the same traffic needs with the versions that serve"
_PATCH_HELP = "with NAME: print the change of the target's replicas as a patch, for you to apply"
_COLUMNS = ("NAME", "VERSION", "SINCE", "REQUESTS/S", "REPLICAS", "NEEDED", "COST", "COST NEEDED", "SAVED")
_UNIT = "costs are of a month of 730 hours, in the unit of serving.pricePerCpuHour"
_NOT_APPLIED = "Retune changes no replicas: `retune savings NAME --patch` prints the change for you to apply."


@dataclass(frozen=True)
class Saving:
    """What one version of one resource needs, and what its target wants now."""

    resource: ModelOptimization
    worth: Worth | None
    """None where nothing is known of the champion's worth."""
    waits: bool = False
    """Whether the version waits, so that nothing can be saved with it yet."""
    now: int | None = None
    """Replicas that the target wants now; None where it cannot be read."""

    @property
    def replicas(self) -> int | None:
        """Replicas that there are, as far as is known."""
        return self.now if self.now is not None or self.worth is None else self.worth.replicas

    @property
    def needed(self) -> int | None:
        """Replicas that are needed; None where there are more than were known of: the traffic is another one."""
        if self.worth is None or (self.replicas or 0) > (self.worth.replicas or 0):
            return None
        return self.worth.replicas_needed

    @property
    def is_worth_a_change(self) -> bool:
        """Whether fewer replicas are needed than there are."""
        return self.needed is not None and self.needed < (self.replicas or 0)

    @property
    def cost_now(self) -> float | None:
        """Cost of a month of the replicas that there are."""
        return self._cost(self.replicas)

    @property
    def cost_needed(self) -> float | None:
        """Cost of a month of the replicas that are needed."""
        return self._cost(self.needed)

    @property
    def saved(self) -> float | None:
        """What a month would cost less."""
        now, needed = self.cost_now, self.cost_needed
        return None if now is None or needed is None else max(0.0, now - needed)

    def _cost(self, replicas: int | None) -> float | None:
        if self.worth is None or self.worth.replicas is None or replicas is None:
            return None
        cost = finite(self.worth.cost_before)
        return None if cost is None else cost / self.worth.replicas * replicas


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the subparsers that argparse's `add_subparsers` returned."""
    sub = commands.add_parser("savings", parents=[common], help=_HELP)
    sub.add_argument("name", nargs="?", metavar="NAME", help="a ModelOptimization (default: all of the namespace)")
    sub.add_argument("-A", "--all-namespaces", action="store_true", help="those of every namespace")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("-o", "--output", choices=("json", "yaml"), help="for programs")
    form.add_argument("--patch", action="store_true", help=_PATCH_HELP)
    sub.set_defaults(command=savings)


def savings(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """Show what could be saved, or the patch that would save it."""
    if arguments.patch:
        return _print_patch(cluster, arguments)
    name, everywhere = arguments.name, arguments.all_namespaces
    resources = [cluster.resource(name)] if name else cluster.resources(everywhere=everywhere)
    rows = [row for resource in resources for row in _rows(cluster, parsed(resource))]
    if arguments.output:
        dump(document(rows), arguments.output)
    elif rows:
        show(console, picture(rows, now=datetime.now(UTC), everywhere=everywhere))
    else:
        where = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        sys.stderr.write(f"no ModelOptimization in {where}\n")
    return Exit.DONE


def _rows(cluster: Cluster, resource: ModelOptimization) -> Iterator[Saving]:
    """Yield what is known of the champion, then of a version that waits."""
    champion, candidate = resource.status.champion, resource.status.candidate
    known = {worth.version: worth for worth in resource.status.worth}
    now = _wanted(cluster, resource) if known else None
    yield Saving(resource, known.get(champion.version) if champion else None, now=now)
    if candidate is not None and candidate.version in known:
        yield Saving(resource, known[candidate.version], waits=True, now=now)


def _wanted(cluster: Cluster, resource: ModelOptimization) -> int | None:
    """Return the replicas that the target wants now; None where the caller may not read it, or it is gone."""
    ref = resource.spec.target.ref
    path = kind_of(ref).path(namespace=resource.metadata.namespace, name=ref.name)
    try:
        return int(cluster.call("GET", path)["spec"].get("replicas", 1))
    except Unreachable:
        raise
    except (AccessError, NotFound):
        return None


def picture(rows: Sequence[Saving], *, now: datetime, everywhere: bool) -> RenderableType:
    """Return a line for each version, and their sum where there are several.

    Args:
        rows: What is known.
        now: The present time, for ages.
        everywhere: Whether the namespace is shown.
    """
    table = blank(*_COLUMNS, namespace=everywhere)
    for row in rows:
        meta = row.resource.metadata
        table.add_row(*([meta.namespace] if everywhere else []), meta.name, *_cells(row, now))
    if len(rows) > 1:
        sums = [_money(cost) for cost in _sums(rows)]
        table.add_row("TOTAL", *[""] * (len(table.columns) - 1 - len(sums)), *sums)
    notes = [f"{note[:1].upper()}{note[1:]}." for note in (NO_LOAD_TEST, _UNIT)]
    if any(row.is_worth_a_change for row in rows if not row.waits):
        notes.append(_NOT_APPLIED)
    return Group(table, Text(), *(Text(note, style="dim") for note in notes))


def _cells(row: Saving, now: datetime) -> tuple[str, ...]:
    status, worth = row.resource.status, row.worth
    version = status.candidate if row.waits else status.champion
    name = f"v{version.version}{' (waits)' if row.waits else ''}" if version else NONE
    since = figures.age(version.promoted_at or version.accepted_at, now) if version else NONE
    if worth is None:
        return (name, since, *[NONE] * (len(_COLUMNS) - 3))
    rates = f"{figures.decimal(worth.requests_before)} → {figures.decimal(worth.requests_after)}"
    was = "" if worth.replicas in {None, row.replicas} else f" (was {worth.replicas})"
    costs = map(_money, (row.cost_now, row.cost_needed, row.saved))
    return (name, since, rates, f"{_count(row.replicas)}{was}", _count(row.needed), *costs)


def _count(replicas: int | None) -> str:
    return NONE if replicas is None else str(replicas)


def _money(cost: float | None) -> str:
    if cost is None:
        return NONE
    return plain(cost) if 0 < cost < 1 else f"{cost:,.2f}"


def _sums(rows: Iterable[Saving]) -> tuple[float | None, float | None, float | None]:
    """Return cost, needed cost and saving of what serves, added up where all three are known; None where none is."""
    priced = [row for row in rows if not row.waits and row.saved is not None]
    if not priced:
        return None, None, None
    now, needed, saved = (
        sum(cost for row in priced if (cost := getattr(row, name)) is not None)
        for name in ("cost_now", "cost_needed", "saved")
    )
    return now, needed, saved


def document(rows: Sequence[Saving]) -> Json:
    """Return the same for programs; what is no count is a decimal string, as in the API."""
    return {"items": [_item(row) for row in rows], "total": _costs(*_sums(rows)), "unit": _UNIT}


def _item(row: Saving) -> Json:
    meta, noted = row.resource.metadata, row.worth.to_dict() if row.worth else {}
    measured = {name: value for name, value in noted.items() if not name.startswith("cost")}
    counts = {"replicasNow": row.replicas, "replicasNeeded": row.needed}
    item = {"namespace": meta.namespace, "name": meta.name, "waits": row.waits} | measured | counts
    costs = _costs(row.cost_now, row.cost_needed, row.saved)
    return {name: value for name, value in item.items() if value is not None} | costs


def _costs(now: float | None, needed: float | None, saved: float | None) -> Json:
    costs = {"costNow": now, "costNeeded": needed, "saved": saved}
    return {name: plain(cost, digits=6) for name, cost in costs.items() if cost is not None}


def _print_patch(cluster: Cluster, arguments: argparse.Namespace) -> int:
    if not arguments.name:
        raise AccessError("--patch changes one target: name its ModelOptimization, as in `retune savings NAME --patch`")
    row = next(_rows(cluster, parsed(cluster.resource(arguments.name))))
    if row.worth is None or not row.is_worth_a_change:
        sys.stderr.write(f"there is nothing to patch: {_why_nothing(row)}\n")
        return Exit.BAD_OUTCOME
    sys.stdout.write(patch(row, row.worth))
    return Exit.DONE


def _why_nothing(row: Saving) -> str:
    key, champion = row.resource.key, row.resource.status.champion
    if row.needed is not None:
        return f"the target of {key} wants {row.replicas} replicas, and {row.needed} are needed"
    version = f"version {champion.version}" if champion else "its model"
    return f"it is not known how many replicas {key} needs with {version} for the traffic of now"


def patch(row: Saving, worth: Worth) -> str:
    """Return a merge patch of the target as YAML, with a comment on where its number comes from."""
    meta, ref = row.resource.metadata, row.resource.spec.target.ref
    body = {
        "apiVersion": ref.api_version,
        "kind": ref.kind,
        "metadata": {"name": ref.name, "namespace": meta.namespace},
        "spec": {"replicas": row.needed},
    }
    comment = "".join(f"# {sentence}\n" for sentence in _reckoning(row, worth))
    return comment + yaml.safe_dump(body, sort_keys=False)


def _reckoning(row: Saving, worth: Worth) -> Iterator[str]:
    """Yield sentences on how a number of replicas was found, and what to do where it is not the owner's alone."""
    meta, ref = row.resource.metadata, row.resource.spec.target.ref
    replicas = f"{row.needed} in place of {row.replicas} replicas"
    yield f"{ref.kind} {ref.name}: {replicas}, proposed by ModelOptimization {meta.name}."
    before, after = figures.decimal(worth.requests_before), figures.decimal(worth.requests_after)
    rates = f"{before} with version {worth.compared_with}, {after} with version {worth.version}"
    yield f"Requests a second of one process, 95 % of them answered within {limit(worth)}: {rates}."
    division = f"{worth.replicas} replicas divided by {figures.decimal(worth.ratio_low)}"
    yield f"{division}, the lower end of the ratio, rounded up; two at least where there were two."
    if worth.live_requests is not None and worth.live_replicas is not None:
        live = f"{figures.decimal(worth.live_requests)} requests a second were answered in the last window"
        yield f"{live}, which need {worth.live_replicas} or more."
    yield f"This is {NO_LOAD_TEST}: look at latency after the change."
    autoscaler = f"A HorizontalPodAutoscaler of this {ref.kind} puts the number back"
    yield f"{autoscaler}: change its minReplicas and maxReplicas in place of this."
    to, how = f"{ref.kind.lower()} {ref.name} -n {meta.namespace}", "--type merge --patch-file FILE"
    yield f"Apply it with: kubectl patch {to} {how}"
