"""Pictures for terminals: the list of resources, one resource in full, and champion against candidate.

Pure: the same object at the same moment gives the same picture. Never reads a cluster.
"""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from retune.api.objects import ModelOptimization, OptimizationRun
from retune.api.status import ActiveRun, Condition, ConditionStatus, ConditionType, Outcome, Stage, Trials, Version
from retune.cli import figures, watching
from retune.cli.figures import NONE
from retune.cli.grids import blank, grid

_BAD_WHEN_TRUE = {ConditionType.STALLED}
_STYLES = {ConditionStatus.TRUE: "green", ConditionStatus.FALSE: "red", ConditionStatus.UNKNOWN: "yellow"}
_QUIET_WHEN_FALSE = {
    ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.OPTIMIZING, ConditionType.SUSPENDED,
}  # fmt: skip


def listing(resources: Sequence[ModelOptimization], *, now: datetime, everywhere: bool) -> RenderableType:
    """Return the table of resources, one a line."""
    table = blank(
        "NAME", "STAGE", "READY", "CHAMPION", "RUN", "TRIALS", "LAST", "RAISED", "AGE", "MESSAGE", namespace=everywhere
    )
    for resource in resources:
        status, run = resource.status, resource.status.run
        cells = [
            resource.metadata.name,
            status.stage or "Pending",
            _ready(resource),
            f"v{status.champion.version}" if status.champion else NONE,
            run.name if run else NONE,
            f"{run.trials.done}/{run.trials.total}" if run else NONE,
            status.last_run.outcome if status.last_run else NONE,
            watching.raised(resource) or NONE,
            figures.age(resource.metadata.creation_timestamp, now),
            status.message or "waits for the operator's first look",
        ]
        table.add_row(*([resource.metadata.namespace] if everywhere else []), *cells)
    return table


def picture(resource: ModelOptimization, *, now: datetime) -> RenderableType:
    """Return everything about one resource that a person asks first."""
    parts: list[RenderableType] = [_head(resource)]
    if resource.status.run and resource.status.stage is Stage.OPTIMIZING:
        parts += [Text(), trials_bar(resource.status.run.trials)]
    if resource.status.champion:
        parts += [Text(), _versions(resource)]
    for part in watching.pictures(resource, now=now):
        parts += [Text(), part]
    if resource.status.conditions:
        parts += [Text(), _conditions(resource, now)]
    return Group(*parts)


def _head(resource: ModelOptimization) -> Table:
    status, target = resource.status, resource.spec.target
    rows = [
        ("Name", f"{resource.metadata.namespace}/{resource.metadata.name}"),
        ("Model", resource.spec.model.uri),
        ("Target", f"Deployment {target.ref.name}, variable {target.injection.name}"),
        ("Mode", "Suspended" if resource.spec.suspend else resource.spec.mode),
        ("Stage", f"{status.stage or 'Pending'}: {status.message or 'waits for the operator'}"),
    ]
    if status.run:
        rows += _run(status.run)
    if status.rollout:
        rows.append(("Rollout", _rollout(resource)))
    if status.last_run:
        rows.append(("Last run", f"{status.last_run.name} {status.last_run.outcome}: {status.last_run.message}"))
    return grid(rows)


def _run(run: ActiveRun) -> list[tuple[str, str]]:
    """Return which run is under way, what started it, and the data where that is not the spec's."""
    why = [("Why", run.why)] if run.why else []
    return [("Run", f"{run.name} ({run.trigger}), {run.stage}"), *why, *([("Data", run.data)] if run.data else [])]


def _rollout(resource: ModelOptimization) -> str:
    rollout = resource.status.rollout
    if rollout is None:
        return NONE
    if rollout.rollback_reason:
        return f"v{rollout.version} is undone: {rollout.rollback_message or rollout.rollback_reason}"
    baking = f"bakes for {resource.spec.rollout.bake_time}" if rollout.bake_start_time else "pods are being replaced"
    return f"v{rollout.version}: {baking}"


def trials_bar(trials: Trials) -> RenderableType:
    """Return the search's progress: a bar, counts, and the best so far."""
    failed = f", {trials.failed} failed" if trials.failed else ""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "Trials",
        ProgressBar(total=max(1, trials.total), completed=trials.done, width=30),
        f"{trials.done} of {trials.total}{failed}",
    )
    more = [("Best", trials.best), ("Ended", trials.ended)]
    return Group(grid, *(Text(f"{name:<8}{words}") for name, words in more if words))


def _versions(resource: ModelOptimization) -> Table:
    status = resource.status
    shown = [("ORIGINAL", status.original), ("CHAMPION", status.champion), ("CANDIDATE", status.candidate)]
    columns = [(name, found) for name, found in shown if found and (name != "ORIGINAL" or found != status.champion)]
    table = blank("VERSION", *(name for name, _ in columns))
    versions = [found for _, found in columns]
    table.add_row("made by", *(figures.version(found) for found in versions))
    for metric in dict.fromkeys(measured.name for found in versions for measured in found.metrics):
        table.add_row(metric, *(_measured(found, metric) for found in versions))
    if "size_bytes" not in {measured.name for found in versions for measured in found.metrics}:
        table.add_row("size_bytes", *(figures.size(found.size_bytes) for found in versions))
    table.add_row("bundle", *(figures.digest(found.digest) for found in versions))
    return table


def _measured(version: Version, metric: str) -> str:
    return next((figures.measurement(found) for found in version.metrics if found.name == metric), NONE)


def _conditions(resource: ModelOptimization, now: datetime) -> RenderableType:
    """Return one line a condition and below it the message, unless it was shown before."""
    table = blank("CONDITION", "STATUS", "SINCE", "REASON")
    last = resource.status.last_run
    told = [resource.status.message or "", last.message if last else "", *watching.told(resource)]
    told += [resource.status.run.why or ""] if resource.status.run else []
    for found in resource.status.conditions:
        words = Text(found.reason)
        if not any(found.message in before for before in told):
            words.append(f"\n{found.message}", style="dim")
            told.append(found.message)
        status = Text(found.status, style=_style(found))
        table.add_row(found.type, status, figures.age(found.last_transition_time, now), words)
    return table


def _style(condition: Condition) -> str:
    if condition.type in _BAD_WHEN_TRUE and condition.status is ConditionStatus.TRUE:
        return "red"
    if condition.type in _QUIET_WHEN_FALSE and condition.status is ConditionStatus.FALSE:
        return ""
    return _STYLES[condition.status]


def comparison(run: OptimizationRun) -> RenderableType:
    """Return champion against candidate as the judge measured them side by side in one pod."""
    promoted = run.status.outcome is Outcome.PROMOTED
    after_name = "AFTER" if promoted else "BEST CANDIDATE"
    table = blank("METRIC", f"BEFORE (v{run.spec.champion_version})", after_name, "CHANGE")
    for row in run.status.comparisons:
        table.add_row(
            row.name, figures.measurement(row.champion), figures.measurement(row.candidate), figures.change(row)
        )
    before, after = run.spec.champion_digest, run.status.candidate_digest
    table.add_row("bundle", figures.digest(before), figures.digest(after), "")
    outcome = run.status.outcome
    title = Text(f"{run.metadata.name}: {outcome or 'under way'}", style=_outcome_style(outcome))
    notes = [f"why: {run.spec.trigger.message}", *([f"data: {run.status.data}"] if run.status.data else [])]
    return Group(title, Text(run.status.message or ""), *(Text(note, style="dim") for note in notes), Text(), table)


def _outcome_style(outcome: Outcome | None) -> str:
    if outcome is None:
        return "yellow"
    return "bold green" if outcome.successful else "bold red"


def _ready(resource: ModelOptimization) -> str:
    found = (each.status.value for each in resource.status.conditions if each.type == ConditionType.READY)
    return next(found, ConditionStatus.UNKNOWN.value)
