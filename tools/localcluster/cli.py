"""The commands of `python -m tools.localcluster`. Results go to standard output, progress to standard error."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tools.localcluster import binaries, cluster, gateway, images, inside, kserve, object_store
from tools.localcluster.settings import Settings, load
from tools.localcluster.shell import ClusterError

Command = Callable[[Settings, argparse.Namespace], int | None]
"""Returns an exit code, or None for 0."""


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = argparse.ArgumentParser(prog="python -m tools.localcluster", description="A local Kubernetes without Docker.")
    commands = top.add_subparsers(dest="command", required=True)

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=command)
        return added

    add("up", up, "Start or repair the cluster and print the kubeconfig's path.")
    down_parser = add("down", down, "Stop the cluster and remove what it made outside its state folder.")
    down_parser.add_argument("--purge", action="store_true", help="delete the state folder too")
    status_parser = add("status", status, "Show components, node and versions; exit code 1 unless all is ready.")
    status_parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    add("kubeconfig", kubeconfig, "Print the kubeconfig's path.")
    add("env", env, "Print shell lines that set KUBECONFIG and PATH.")
    binaries_parser = add("binaries", build_binaries, "Build the binaries only and print their paths.")
    binaries_parser.add_argument(
        "names", nargs="*", metavar="MODULE", help=f"of {', '.join(binaries.ALL_NAMES)}; all but those on demand"
    )
    images_parser = add("images", build_images, "Build the project's images and load them into the cluster.")
    images_parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(images.NAMES)}; all")
    policies_parser = add(
        "policies", enforce_policies, "Start the cluster if need be, and have network policies count."
    )
    policies_parser.add_argument("--off", action="store_true", help="have them count no more")
    add("gateway", load_gateway, "Build Envoy Gateway and load its images into the cluster, for tests that need one.")
    add("kserve", install_kserve, "Build KServe's controller and install KServe in the cluster.")
    add("object-store", load_object_store, "Build an S3 server and load its image into the cluster.")
    inside_parser = add("inside", run_inside, "Run a command in the repository's root inside an image of the project.")
    inside_parser.add_argument("name", choices=images.NAMES)
    inside_parser.add_argument("words", nargs="+", metavar="WORD", help="the command, after --")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a known failure ends in a message and exit code 1."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(load(), arguments) or 0
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def up(settings: Settings, _: argparse.Namespace) -> None:
    """Start or repair."""
    cluster.up(settings)
    print(settings.kubeconfig)


def down(settings: Settings, arguments: argparse.Namespace) -> None:
    """Stop, and delete if asked."""
    cluster.down(settings, purge=arguments.purge)


def status(settings: Settings, arguments: argparse.Namespace) -> None:
    """Show how it is."""
    found = cluster.status(settings)
    print(json.dumps(found, indent=2) if arguments.output == "json" else table(found))
    if not (found["node"]["ready"] and all(row["ready"] for row in found["components"])):
        raise ClusterError("not everything is ready; `up` repairs it")


def table(found: dict[str, Any]) -> str:
    """The status for people."""
    lines = [f"{'COMPONENT':<26}{'PID':>8}  READY"]
    lines += [
        f"{row['name']:<26}{row['pid'] or '-':>8}  {'yes' if row['ready'] else 'no'}" for row in found["components"]
    ]
    node = found["node"]
    lines.append(f"\nnode {node['name']} ({node['address']}): {'ready' if node['ready'] else 'not ready'}")
    lines += [f"{name} {version}" for name, version in found["versions"].items()]
    lines.append(f"kubeconfig {found['kubeconfig']}")
    return "\n".join(lines)


def kubeconfig(settings: Settings, _: argparse.Namespace) -> None:
    """Where the kubeconfig is."""
    print(settings.kubeconfig)


def env(settings: Settings, _: argparse.Namespace) -> None:
    """Lines for `eval`."""
    print(f"export KUBECONFIG={shlex.quote(str(settings.kubeconfig))}")
    print(f'export PATH={shlex.quote(str(settings.bin))}:"$PATH"')


def build_binaries(settings: Settings, arguments: argparse.Namespace) -> None:
    """Build binaries and print where they are."""
    names = known(arguments.names, binaries.ALL_NAMES) if arguments.names else binaries.NAMES
    for path in binaries.ensure(settings, names).values():
        print(path)


def build_images(settings: Settings, arguments: argparse.Namespace) -> None:
    """Build and load images and print their names."""
    for tag in cluster.load_images(settings, known(arguments.names, images.NAMES)):
        print(tag)


def enforce_policies(settings: Settings, arguments: argparse.Namespace) -> None:
    """Start or stop the enforcer of network policies."""
    if arguments.off:
        cluster.stop_enforcing(settings)
    else:
        cluster.up(settings, enforce=True)


def load_gateway(settings: Settings, _: argparse.Namespace) -> None:
    """Build and load Envoy Gateway and its proxy, and print the names of the images."""
    for tag in gateway.ensure(settings):
        print(tag)


def install_kserve(settings: Settings, _: argparse.Namespace) -> None:
    """Install KServe, and print the name of its controller's image."""
    print(kserve.ensure(settings))


def load_object_store(settings: Settings, _: argparse.Namespace) -> None:
    """Build and load the S3 server, and print the name of its image."""
    print(object_store.ensure(settings))


def run_inside(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run a command in an image."""
    return inside.run(settings, arguments.name, arguments.words)


def known(names: Sequence[str], allowed: Sequence[str]) -> Sequence[str]:
    """The names asked for, or all; raises ClusterError for an unknown one."""
    strange = [name for name in names if name not in allowed]
    if strange:
        raise ClusterError(f"unknown name {', '.join(strange)}; known are {', '.join(allowed)}")
    return names or allowed
