"""The command line: one parser, a function for each command, and errors as a sentence on standard error."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from retune.api.base import Json
from retune.api.objects import OptimizationRun
from retune.api.status import LastRun
from retune.cli import completion, labels, proposals, reports, savings, tables, verbs, views
from retune.cli.access import AccessError, Cluster, parsed
from retune.cli.follow import Exit, Until, follow
from retune.cli.local import commands as local_commands
from retune.cli.output import dump, show, terminal
from retune.cli.words import Parser, duration, shared

_EPILOG = """exit codes:
  0  done, whatever `doctor` finds missing; `watch` and `optimize`: the run ended well (Promoted, Recommended or
     NoGain)
  1  `watch`: the run ended otherwise, or was not promoted with --until Promoted; `optimize`: no candidate was
     shown to keep every limit (GateFailed); verbs such as `approve` and `rollback`: there is nothing to do it to;
     `savings --patch`: there is nothing to save; `labels suggest`: there is no row to ask about
  2  wrong usage, a Job that could not do its work, or a cluster that could not be read
  3  `watch`: --timeout is over
  4  `watch`: the resource is suspended or waits for a person
  5  verbs such as `approve` and `rollback`: Git declares the field, so it must be changed there
"""

_RECORD_SECONDS, _LOOK_SECONDS = 10.0, 0.2
"""How long the record of a run that has ended is waited for, and how often it is looked at."""

Command = Callable[[Cluster, argparse.Namespace, Console], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Words of the command line; those of the process where they are left out.
    """
    arguments = parser().parse_args(argv)
    console = terminal()
    try:
        if local := getattr(arguments, "local", None):
            return int(local(arguments, console))
        cluster = Cluster.connect(context=arguments.context, namespace=arguments.namespace)
        command: Command = arguments.command
        return command(cluster, arguments, console)
    except AccessError as error:
        sys.stderr.write(f"error: {error}\n")
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return Exit.DONE


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    common = shared(first=False)
    top = Parser(
        prog="retune",
        parents=[shared(first=True)],
        description="See and steer what Retune does with your models, and do the same without a cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_status(commands, common)
    _add_watch(commands, common)
    _add_compare(commands, common)
    _add_report(commands, common)
    views.add(commands, common)
    labels.add(commands, common)
    proposals.add(commands, common)
    savings.add(commands, common)
    verbs.add(commands, common)
    completion.add(commands, top)
    local_commands.add(commands)
    return top


def _add_status(commands: Any, common: argparse.ArgumentParser) -> None:
    sub = commands.add_parser("status", parents=[common], help="list resources, or show one in full")
    sub.add_argument("name", nargs="?", metavar="NAME", help="a ModelOptimization")
    sub.add_argument("-A", "--all-namespaces", action="store_true", help="list every namespace")
    sub.add_argument("-w", "--watch", action="store_true", help="with NAME: go on until its run has ended")
    forms = "the objects themselves, for programs; name: without NAME, only their names"
    sub.add_argument("-o", "--output", choices=("json", "yaml", "name"), help=forms)
    sub.set_defaults(command=status, until=Until.FINISHED.value, timeout=None)


def _add_watch(commands: Any, common: argparse.ArgumentParser) -> None:
    sub = commands.add_parser("watch", parents=[common], help="follow one resource until its run has ended")
    sub.add_argument("name", metavar="NAME", help="a ModelOptimization")
    sub.add_argument(
        "--until", choices=[end.value for end in Until], default=Until.FINISHED.value, help="what counts as success"
    )
    sub.add_argument("--timeout", type=duration, help="give up after this time, such as 90s or 1h30m")
    sub.set_defaults(command=watch)


def _add_compare(commands: Any, common: argparse.ArgumentParser) -> None:
    sub = commands.add_parser(
        "compare", parents=[common], help="champion against candidate, as the judge measured them"
    )
    sub.add_argument("name", metavar="NAME", help="a ModelOptimization")
    sub.add_argument("--run", help="a run of it (default: the newest with a verdict)")
    sub.add_argument("-o", "--output", choices=("json", "yaml"), help="for programs")
    sub.set_defaults(command=compare)


def _add_report(commands: Any, common: argparse.ArgumentParser) -> None:
    sub = commands.add_parser(
        "report", parents=[common], help="say where a run's or a window's report lies, or save it"
    )
    sub.add_argument("name", metavar="NAME", help="a ModelOptimization")
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--run", help="a run of it (default: the newest with a report)")
    which.add_argument("--window", action="store_true", help="the last window of production data that was judged")
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="fetch report.html: from a bucket with your own credentials for it, from a claim by a short-lived pod",
    )
    how.add_argument(
        "--link", action="store_true", help="print a link to a report in a bucket that a browser opens for an hour"
    )
    sub.add_argument("--image", help="image of that pod, with Python in it (default: that of the resource's Jobs)")
    sub.set_defaults(command=report)


def status(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """List resources, or show one."""
    if arguments.name and arguments.watch:
        return watch(cluster, arguments, console)
    now = datetime.now(UTC)
    if arguments.name:
        return _show_one(cluster.resource(arguments.name), arguments, console, now)
    return _show_all(cluster, arguments, console, now)


def _show_one(resource: Json, arguments: argparse.Namespace, console: Console, now: datetime) -> int:
    if arguments.output == "name":
        sys.stdout.write(f"{resource['metadata']['name']}\n")
    elif arguments.output:
        dump(resource, arguments.output)
    else:
        show(console, tables.picture(parsed(resource), now=now))
    return Exit.DONE


def _show_all(cluster: Cluster, arguments: argparse.Namespace, console: Console, now: datetime) -> int:
    resources = cluster.resources(everywhere=arguments.all_namespaces)
    if arguments.output == "name":
        names = (resource["metadata"] for resource in resources)
        lines = (f"{meta['namespace']}/{meta['name']}" if arguments.all_namespaces else meta["name"] for meta in names)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    elif arguments.output:
        dump({"apiVersion": "v1", "kind": "List", "items": resources}, arguments.output)
    elif resources:
        show(console, tables.listing(list(map(parsed, resources)), now=now, everywhere=arguments.all_namespaces))
    else:
        where = "any namespace" if arguments.all_namespaces else f"namespace {cluster.namespace}"
        sys.stderr.write(f"no ModelOptimization in {where}\n")
    return Exit.DONE


def watch(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """Follow one resource; the exit code tells how it ended."""
    ended = follow(
        lambda: parsed(cluster.resource(arguments.name)),
        until=Until(arguments.until),
        timeout=arguments.timeout,
        console=console,
    )
    console.print(ended.message, soft_wrap=True, markup=False)
    return ended.code


def _runs(cluster: Cluster, name: str, run: str | None) -> list[OptimizationRun]:
    return [recorded for recorded in cluster.runs(name) if run in {None, recorded.metadata.name}]


def _is_being_recorded(runs: Sequence[OptimizationRun], last: LastRun | None) -> bool:
    """Whether one of these runs has ended by the word of its resource, and not yet by its own."""
    return last is not None and any(
        recorded.metadata.name == last.name and recorded.status.completion_time is None for recorded in runs
    )


def compare(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """Show champion against candidate of one run."""
    run = judged(cluster, arguments.name, run=arguments.run)
    if arguments.output:
        dump(
            run.status.to_dict() | {"run": run.metadata.name, "championDigest": run.spec.champion_digest},
            arguments.output,
        )
    else:
        show(console, tables.comparison(run))
    return Exit.DONE


def judged(cluster: Cluster, name: str, *, run: str | None) -> OptimizationRun:
    """Return the named run, or the newest one in which champion and candidate were measured side by side.

    Args:
        cluster: Where to look.
        name: Name of the ModelOptimization.
        run: Name of a run of it; None for the newest.

    The record of a run is written just after the resource says that the run has ended, and is waited for.

    Raises:
        AccessError: There is no such run, or it has no numbers yet.
    """
    deadline = time.monotonic() + _RECORD_SECONDS
    last = parsed(cluster.resource(name)).status.last_run  # says so when there is no such resource
    candidates = _runs(cluster, name, run)
    while _is_being_recorded(candidates, last) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        candidates = _runs(cluster, name, run)
    newest = next((recorded for recorded in reversed(candidates) if recorded.status.comparisons), None)
    if newest is None:
        raise AccessError(f"{run or name} has no verdict with numbers yet: see `retune status {name}`")
    return newest


def report(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> int:
    """Say where a report lies, and fetch it if a file is named."""
    resource = parsed(cluster.resource(arguments.name))
    if arguments.window:
        located, which = reports.locate_window(resource), "--window"
    else:
        located = reports.locate(resource, cluster.runs(arguments.name), run=arguments.run)
        which = f"--run {located.owner.metadata.name}"
    if arguments.link:
        sys.stdout.write(f"{reports.link(located)}\n")
        return Exit.DONE
    if arguments.save is None:
        command = f"retune report {arguments.name} -n {cluster.namespace} {which}"
        return _show_where(located, command, console)
    content = reports.fetch(cluster, located, image=arguments.image)
    arguments.save.parent.mkdir(parents=True, exist_ok=True)
    arguments.save.write_bytes(content)
    console.print(f"report of {located.of}: {arguments.save}, {len(content)} bytes")
    return Exit.DONE


def _show_where(located: reports.Report, command: str, console: Console) -> int:
    """Say where a report lies, and the commands that bring it."""
    console.print(f"{located.of}: {located.uri}", soft_wrap=True)
    console.print(f"save it with: {command} --save report.html", soft_wrap=True)
    if located.claim is None:
        console.print(f"or open it by a link: {command} --link", soft_wrap=True)
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
