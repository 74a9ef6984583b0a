"""The commands that look back: which versions there are, what has happened, and why something did or did not."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from retune.api.base import Json
from retune.api.objects import ModelOptimization, OptimizationRun
from retune.api.rolling import LastRollback
from retune.api.status import ModelOptimizationStatus, Rejected, Version
from retune.cli import explaining, figures, watching
from retune.cli.access import Cluster, parsed
from retune.cli.figures import NONE
from retune.cli.follow import Exit
from retune.cli.grids import blank, grid
from retune.cli.output import dump, show
from retune.plan.kept import kept


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add them to the subparsers that argparse's `add_subparsers` returned."""
    _add(commands, common, "versions", versions, "list the versions that are kept, wait or were rejected")
    _add(commands, common, "history", history, "list the runs and rollbacks that are remembered, the newest last")
    _add(commands, common, "explain", explain, "say why something did or did not happen, and what to do")


def _add(commands: Any, common: argparse.ArgumentParser, name: str, command: Any, words: str) -> None:
    sub = commands.add_parser(name, parents=[common], help=words)
    sub.add_argument("name", metavar="NAME", help="a ModelOptimization")
    sub.add_argument("-o", "--output", choices=("json", "yaml"), help="for programs")
    sub.set_defaults(command=command)


def versions(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """List versions."""
    status = parsed(cluster.resource(arguments.name)).status
    if arguments.output:
        dump([_document(version, state) for version, state in known(status)], arguments.output)
    else:
        show(console, version_table(status, now=datetime.now(UTC)))
    return Exit.DONE


def known(status: ModelOptimizationStatus) -> list[tuple[Version | Rejected, str]]:
    """Return every version that the status tells of, with its states, by number."""
    rows: list[tuple[Version | Rejected, str]] = [(version, _state(version, status)) for version in kept(status)]
    if status.candidate is not None:
        rows.append((status.candidate, "candidate"))
    listed = {version.digest for version, _ in rows}
    rows += [(entry, "rejected") for entry in status.rejected if entry.digest not in listed]
    return sorted(rows, key=lambda row: row[0].version or 0)


def _state(version: Version, status: ModelOptimizationStatus) -> str:
    """Return what a kept version is now, such as `earlier, rejected`."""
    states = [
        ("delivered", status.original is not None and version.digest == status.original.digest),
        ("champion", status.champion is not None and version.digest == status.champion.digest),
        ("rejected", version.digest in {entry.digest for entry in status.rejected}),
    ]
    words = [word for word, holds in states if holds]
    return ", ".join(words if words[:1] in (["delivered"], ["champion"]) else ["earlier", *words])


def _document(version: Version | Rejected, state: str) -> Json:
    return {"state": state.split(", ")} | version.to_dict()


def version_table(status: ModelOptimizationStatus, *, now: datetime) -> Table:
    """Return the versions, a line for each; `now` is the present time, for ages."""
    table = blank("VERSION", "STATE", "DIGEST", "RUN", "SIZE", "SINCE", "MADE BY", "WHAT")
    reasons = {entry.digest: entry.message or entry.reason for entry in status.rejected}
    for version, state in known(status):
        what = reasons.get(version.digest, "")
        if isinstance(version, Rejected):
            since = figures.age(version.time, now)
            cells = (NONE, NONE, since, NONE, what)
        else:
            made = figures.version(version).partition(" ")[2].strip("()")
            since = figures.age(version.promoted_at or version.accepted_at, now)
            cells = (version.run_name or NONE, figures.size(version.size_bytes), since, made, what)
        table.add_row(str(version.version or NONE), state, figures.digest(version.digest), *cells)
    return table


def history(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """List what has happened."""
    resource = parsed(cluster.resource(arguments.name))
    runs = cluster.runs(arguments.name)
    if arguments.output:
        last = resource.status.last_rollback
        documents = [run.status.to_dict() | {"name": run.metadata.name, "spec": run.spec.to_dict()} for run in runs]
        dump({"runs": documents, "lastRollback": last.to_dict() if last else None}, arguments.output)
    else:
        show(console, history_table(runs, resource.status.last_rollback, now=datetime.now(UTC)))
    return Exit.DONE


def history_table(runs: Sequence[OptimizationRun], rollback: LastRollback | None, *, now: datetime) -> Table:
    """Return runs and the last rollback by a person in the order of time, a line for each."""
    table = blank("WHAT", "TRIGGER", "OUTCOME", "CANDIDATE", "AGE", "MESSAGE")
    rows = [(_ended(run, now), _run_cells(run, now)) for run in runs]
    if rollback is not None:
        rows.append((rollback.completion_time, _rollback_cells(rollback, now)))
    for _, cells in sorted(rows, key=lambda row: row[0]):
        table.add_row(*cells)
    return table


def _ended(run: OptimizationRun, now: datetime) -> datetime:
    return run.status.completion_time or now


def _run_cells(run: OptimizationRun, now: datetime) -> tuple[str, ...]:
    status, spec = run.status, run.spec
    message = status.message or f"under way: {spec.trigger.message}"
    age = figures.age(status.completion_time or status.start_time, now)
    outcome, digest = status.outcome or NONE, figures.digest(status.candidate_digest)
    return run.metadata.name, spec.trigger.reason, outcome, digest, age, message


def _rollback_cells(rollback: LastRollback, now: datetime) -> tuple[str, ...]:
    outcome = rollback.failed or "Done"
    age = figures.age(rollback.completion_time, now)
    return (
        f"rollback to v{rollback.version}",
        "a person",
        outcome,
        figures.digest(rollback.digest),
        age,
        rollback.message,
    )


def explain(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """Say why things are as they are."""
    resource = parsed(cluster.resource(arguments.name))
    answers = explaining.answers(resource, now=datetime.now(UTC))
    if arguments.output:
        dump([{"question": question, "answer": answer} for question, answer in answers], arguments.output)
    else:
        show(console, _picture(resource, answers))
    return Exit.DONE


def _picture(resource: ModelOptimization, answers: Sequence[tuple[str, str]]) -> RenderableType:
    shown, segments = grid([("Name", resource.key), *answers]), watching.segments(resource)
    return shown if segments is None else Group(shown, "", segments)
