"""What the commands show: the list of resources, one resource in full, and champion against candidate.

Pure: the same object at the same moment looks the same. Never reads a cluster.
"""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from retune.api.metrics import Metric
from retune.api.objects import ModelOptimization, OptimizationRun
from retune.api.rolling import RolloutStep
from retune.api.rollout import Strategy
from retune.api.status import (
    ActiveRun,
    Condition,
    ConditionStatus,
    ConditionType,
    ModelOptimizationStatus,
    Outcome,
    Stage,
    Trials,
    Version,
)
from retune.api.target import Injection
from retune.cli import figures, watching, worth
from retune.cli.figures import NONE
from retune.cli.grids import blank, grid

_BAD_WHEN_TRUE = {ConditionType.STALLED}
_STYLES = {ConditionStatus.TRUE: "green", ConditionStatus.FALSE: "red", ConditionStatus.UNKNOWN: "yellow"}
_NORMALLY_FALSE = {
    ConditionType.RECONCILING,
    ConditionType.STALLED,
    ConditionType.OPTIMIZING,
    ConditionType.SUSPENDED,
}
"""Conditions that say nothing of interest while they are False."""


def listing(resources: Sequence[ModelOptimization], *, now: datetime, everywhere: bool) -> RenderableType:
    """Return the table of resources, a line for each.

    Args:
        resources: What is listed.
        now: The present time, for ages.
        everywhere: Whether the namespace is shown.
    """
    table = blank(
        "NAME", "STAGE", "READY", "CHAMPION", "RUN", "TRIALS", "LAST", "RAISED", "AGE", "MESSAGE", namespace=everywhere
    )
    for resource in resources:
        status, run = resource.status, resource.status.run
        cells = [
            resource.metadata.name,
            status.stage or Stage.PENDING,
            _ready(resource),
            _champion(status),
            run.name if run else NONE,
            f"{run.trials.done}/{run.trials.total}" if run else NONE,
            status.last_run.outcome if status.last_run else NONE,
            watching.raised(resource) or NONE,
            figures.age(resource.metadata.creation_timestamp, now),
            status.message or "waits for the operator's first look",
        ]
        table.add_row(*([resource.metadata.namespace] if everywhere else []), *cells)
    return table


def _champion(status: ModelOptimizationStatus) -> str:
    """Return the champion, and the candidate that waits beside it while no rollout is under way."""
    champion = f"v{status.champion.version}" if status.champion else NONE
    waits = status.candidate is not None and status.rollout is None
    return f"{champion} (v{status.candidate.version} waits)" if waits and status.candidate else champion


def picture(resource: ModelOptimization, *, now: datetime) -> RenderableType:
    """Return what a person asks first about one resource; `now` is the present time, for ages."""
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
        ("Target", f"{target.ref.kind} {target.ref.name}, {_field(target.injection)}"),
        ("Mode", "Suspended" if resource.spec.suspend else resource.spec.mode),
        ("Stage", f"{status.stage or Stage.PENDING}: {status.message or 'waits for the operator'}"),
    ]
    if status.run:
        rows += _run(status.run)
    if status.rollout:
        rows.append(("Rollout", _rollout(resource)))
    if status.last_run:
        rows.append(("Last run", f"{status.last_run.name} {status.last_run.outcome}: {status.last_run.message}"))
    rows += [("Worth", worth.line(entry)) for entry in status.worth]
    return grid(rows)


def _field(injection: Injection) -> str:
    return f"variable {injection.field}" if injection.is_variable else injection.field


def _run(run: ActiveRun) -> list[tuple[str, str]]:
    """Return which run is under way, why it was started, and which data it uses where that is not the spec's."""
    why = [("Why", run.why)] if run.why else []
    return [("Run", f"{run.name} ({run.trigger}), {run.stage}"), *why, *([("Data", run.data)] if run.data else [])]


_STEPS = {
    RolloutStep.LOOK.value: "its bundle is looked for in the store",
    RolloutStep.CANARY_GIVE.value: "a canary is made beside the target",
    RolloutStep.CANARY_READY.value: "the canary's pod is waited for",
    RolloutStep.CANARY_GOLDEN.value: "the canary is asked golden requests",
    RolloutStep.SHADOW.value: "the canary is asked what users have asked before",
    RolloutStep.CANARY_END.value: "the canary is removed",
    RolloutStep.FIRST_GOLDEN.value: "the first new pod is waited for and asked golden requests",
    RolloutStep.GOLDEN.value: "every pod is asked golden requests",
}


def _rollout(resource: ModelOptimization) -> str:
    rollout = resource.status.rollout
    if rollout is None:
        return NONE
    if rollout.rollback_number is not None and not rollout.rollback_reason:
        doing = _STEPS.get(rollout.step or "", "pods are being replaced")
        return f"v{rollout.version} is put back, as rollbackTo says: {doing}"
    if rollout.rollback_reason:
        return f"v{rollout.version} is undone: {rollout.rollback_message or rollout.rollback_reason}"
    if rollout.weight is not None:
        by = "its pods" if resource.status.canary_route is None else "the route"
        share = f"{rollout.weight} % of the requests ({rollout.effective_weight} % by {by})"
        beside = "beside the champion" if resource.spec.rollout.strategy is Strategy.BLUE_GREEN else "a canary"
        return f"v{rollout.version}: {beside} with {share}"
    if rollout.bake_start_time:
        return f"v{rollout.version}: bakes for {resource.spec.rollout.bake_time}"
    return f"v{rollout.version}: {_STEPS.get(rollout.step or '', 'pods are being replaced')}"


def trials_bar(trials: Trials) -> RenderableType:
    """Return the search's progress: a bar, counts, and the best so far."""
    failed = f", {trials.failed} failed" if trials.failed else ""
    counts = Table.grid(padding=(0, 2))
    counts.add_row(
        "Trials",
        ProgressBar(total=max(1, trials.total), completed=trials.done, width=30),
        f"{trials.done} of {trials.total}{failed}",
    )
    sentences = [("Best", trials.best), ("Ended", trials.ended)]
    return Group(counts, *(Text(f"{name:<8}{sentence}") for name, sentence in sentences if sentence))


def _versions(resource: ModelOptimization) -> Table:
    status = resource.status
    shown = [("ORIGINAL", status.original), ("CHAMPION", status.champion), ("CANDIDATE", status.candidate)]
    columns = {name: version for name, version in shown if version and not _is_repeated(name, status)}
    table = blank("VERSION", *columns)
    versions = list(columns.values())
    table.add_row("made by", *(figures.version(version) for version in versions))
    metrics = dict.fromkeys(measured.name for version in versions for measured in version.metrics)
    for metric in metrics:
        table.add_row(figures.metric_name(metric), *(_measured(version, metric) for version in versions))
    if Metric.SIZE_BYTES not in metrics:
        table.add_row(Metric.SIZE_BYTES, *(figures.size(version.size_bytes) for version in versions))
    table.add_row("bundle", *(figures.digest(version.digest) for version in versions))
    return table


def _is_repeated(column: str, status: ModelOptimizationStatus) -> bool:
    """Return whether a column would show the champion again: the original is champion until something better is."""
    return column == "ORIGINAL" and status.original == status.champion


def _measured(version: Version, metric: str) -> str:
    return next((figures.measurement(measured) for measured in version.metrics if measured.name == metric), NONE)


def _conditions(resource: ModelOptimization, now: datetime) -> RenderableType:
    """Return a line for each condition and below it the message, unless it was shown before."""
    table = blank("CONDITION", "STATUS", "SINCE", "REASON")
    last = resource.status.last_run
    shown = [resource.status.message or "", last.message if last else "", *watching.sentences(resource)]
    shown += [resource.status.run.why or ""] if resource.status.run else []
    for condition in resource.status.conditions:
        reason = Text(condition.reason)
        if not any(condition.message in before for before in shown):
            reason.append(f"\n{condition.message}", style="dim")
            shown.append(condition.message)
        status = Text(condition.status, style=_style(condition))
        table.add_row(condition.type, status, figures.age(condition.last_transition_time, now), reason)
    return table


def _style(condition: Condition) -> str:
    if condition.type in _BAD_WHEN_TRUE and condition.status is ConditionStatus.TRUE:
        return "red"
    if condition.type in _NORMALLY_FALSE and condition.status is ConditionStatus.FALSE:
        return ""
    return _STYLES[condition.status]


def comparison(run: OptimizationRun) -> RenderableType:
    """Return champion against candidate of a run, as the judge measured them side by side in one pod."""
    promoted = run.status.outcome is Outcome.PROMOTED
    after_name = "AFTER" if promoted else "BEST CANDIDATE"
    table = blank("METRIC", f"BEFORE (v{run.spec.champion_version})", after_name, "CHANGE")
    for row in run.status.comparisons:
        table.add_row(
            figures.metric_name(row.name),
            figures.measurement(row.champion),
            figures.measurement(row.candidate),
            figures.change(row),
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
    conditions = resource.status.conditions
    ready = (condition.status for condition in conditions if condition.type == ConditionType.READY)
    return next(ready, ConditionStatus.UNKNOWN)
