"""The commands of `retune-runtime` for servers of others: `python -m retune_runtime render`, and `follow`."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from optimizer_jobs.agent.environment import BUNDLE_VARIABLE, leave_last_words, sentence_of, threads_of
from optimizer_jobs.agent.following import LOOK_SECONDS, Follower
from optimizer_jobs.agent.opening import as_uri
from optimizer_jobs.agent.pages import pages
from optimizer_jobs.agent.rendering import render_for
from optimizer_jobs.agent.scratch import private_folder
from optimizer_jobs.errors import JobError
from optimizer_jobs.progress import say
from optimizer_jobs.serving.running import RunningServer
from optimizer_jobs.serving.running.ovms import OvmsServer
from optimizer_jobs.serving.running.ray import DASHBOARD, RayServer
from optimizer_jobs.serving.running.triton import TritonServer
from retune.contract.requests import Server
from retune.contract.results import Reason

_FAILED = 1
_PORT = 8090
_RAY = "ray"
_ADDRESS = "http://127.0.0.1:8000"
"""Where Triton and Ray Serve answer unless told otherwise."""


def main(words: Sequence[str] | None = None) -> int:
    """Do what a command line asks, and return the exit status; the reason of a failure is told, and left to the pod.

    Args:
        words: The command line without the program; None takes that of this process.
    """
    arguments = _parser().parse_args(words)
    try:
        arguments.command(arguments)
    except JobError as error:
        leave_last_words(sentence_of(error))
        sys.stderr.write(f"{sentence_of(error)}\n")
        return _FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m retune_runtime", description="serve bundles in servers of others")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_render(commands.add_parser("render", help="write what a server reads, before it starts (an init container)"))
    _add_follow(commands.add_parser("follow", help="have a running server serve what a file names (a sidecar)"))
    return parser


def _add_render(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", choices=sorted(Server), required=True, help="the server that reads the folder")
    parser.add_argument("--name", required=True, help="name that clients ask the model by")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="folder that the server reads")
    parser.add_argument(
        "--variable", default=BUNDLE_VARIABLE, help=f"variable with the bundle's URI (default {BUNDLE_VARIABLE})"
    )
    parser.add_argument(
        "--delivered", metavar="URI", help="ONNX file that is served while the variable is not set: a URI or a path"
    )
    parser.set_defaults(command=_render)


def _render(arguments: argparse.Namespace) -> None:
    uri = os.environ.get(arguments.variable) or arguments.delivered
    if not uri:
        raise JobError(
            Reason.REQUEST_INVALID,
            arguments.variable,
            "it is not set, and --delivered names no file that is served meanwhile.",
            "Name the ONNX file that serves until Retune sets the variable.",
        )
    server, where = Server(arguments.server), as_uri(uri)
    made = render_for(where, server, name=arguments.name, into=arguments.into, threads=threads_of(os.environ))
    what = f"bundle {made.digest}" if made.digest else "the model as delivered"
    say(f"{where}: {server} will serve {what} as version {made.version} of {arguments.name!r}. {made.tried}")
    for sentence in made.lost:
        say(f"lost: {sentence}")


def _add_follow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", choices=[*sorted(Server), _RAY], required=True, help="the server beside this")
    parser.add_argument("--name", required=True, help="name that clients ask the model by")
    parser.add_argument("--wanted", type=Path, required=True, metavar="FILE", help="file with the bundle's URI")
    parser.add_argument("--address", default=_ADDRESS, metavar="URL", help=f"the server's HTTP (default {_ADDRESS})")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="folder that Triton or OVMS reads")
    parser.add_argument("--dashboard", default=DASHBOARD, metavar="URL", help=f"Ray's (default {DASHBOARD})")
    parser.add_argument("--application", default="default", help="Ray Serve's application (default default)")
    parser.add_argument("--port", type=int, default=_PORT, help=f"port of /ready and /version (default {_PORT})")
    parser.set_defaults(command=_follow)


def _follow(arguments: argparse.Namespace) -> None:
    """Look again and again, until the pod ends."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with private_folder() as scratch:
        uris = dict[str, str]()
        server = _server(arguments, uris)
        tries = arguments.server != _RAY
        follower = Follower(server, arguments.name, arguments.wanted, scratch, uris=uris, tries=tries)
        with pages(follower, port=arguments.port):
            while not ended.is_set():
                follower.look()
                ended.wait(LOOK_SECONDS)


def _server(arguments: argparse.Namespace, uris: Mapping[str, str]) -> RunningServer:
    if arguments.server == _RAY:
        return RayServer(arguments.address, arguments.dashboard, application=arguments.application, uris=uris)
    if arguments.models is None:
        raise JobError(
            Reason.REQUEST_INVALID, "--models", "it is missing.", "Name the folder that the server reads models from."
        )
    if arguments.server == Server.TRITON:
        return TritonServer(arguments.address, arguments.models)
    return OvmsServer(arguments.address, arguments.models)
