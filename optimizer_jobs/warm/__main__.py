"""`python -m optimizer_jobs.warm --namespace NAME`: the check host of a namespace."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from optimizer_jobs.warm.admission import Admission
from optimizer_jobs.warm.child import Limits
from optimizer_jobs.warm.hosting import Bounds, Host
from optimizer_jobs.warm.ready import get_ready
from retune.api.quantities import memory_bytes
from retune.contract.paths import CHECK_HOST_PORT

_BOUNDS, _LIMITS = Bounds(), Limits()


def main(arguments: Sequence[str] | None = None) -> int:
    """Import everything, and answer checks until SIGTERM."""
    options = _parser().parse_args(arguments)
    admission = Admission(options.namespace, tuple(options.place))
    limits = Limits(
        memory_bytes=int(memory_bytes(options.memory)),
        cpu_seconds=options.cpu_seconds,
        wall_seconds=options.wall_seconds,
    )
    bounds = Bounds(options.children, options.waiting, options.wait_seconds)
    get_ready()
    asyncio.run(_serve(admission, limits, bounds, options.port))
    return 0


async def _serve(admission: Admission, limits: Limits, bounds: Bounds, port: int) -> None:
    await Host(admission, limits, bounds).serve(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optimizer_jobs.warm", description=__doc__)
    add = parser.add_argument
    add("--namespace", required=True, help="the namespace whose checks it does")
    add(
        "--place",
        action="append",
        default=[],
        metavar="URI",
        help="folder on a server that it may use; may be repeated",
    )
    add("--port", type=int, default=CHECK_HOST_PORT, help="default: %(default)s")
    add("--children", type=int, default=_BOUNDS.children, help="checks at once (default: %(default)s)")
    add("--waiting", type=int, default=_BOUNDS.waiting, help="checks that may wait (default: %(default)s)")
    add("--wait-seconds", type=float, default=_BOUNDS.wait_seconds, help="how long each may (default: %(default)s)")
    add("--memory", default="1Gi", help="memory of one check beside the host's (default: %(default)s)")
    add("--cpu-seconds", type=int, default=_LIMITS.cpu_seconds, help="CPU time of one check (default: %(default)s)")
    add("--wall-seconds", type=float, default=_LIMITS.wall_seconds, help="time of one check (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
