"""`python -m retune`: the operator's process."""

import asyncio
import logging
import os
import sys

from retune.cluster.errors import NoCluster
from retune.runtime import Operator
from retune.settings import Settings, SettingsError

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def main() -> int:
    """Run the operator until it is told to stop; returns the exit code."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"retune: {error}\n")
        return 2
    logging.basicConfig(level=settings.log_level, format=_FORMAT, stream=sys.stderr)
    for noisy in ("kopf", "aiohttp", "urllib3", "asyncio", "kubernetes"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    try:
        asyncio.run(_run(settings))
    except NoCluster as error:
        sys.stderr.write(f"retune: {error}\n")
        return 2
    return 0


async def _run(settings: Settings) -> None:
    await Operator(settings).run()


if __name__ == "__main__":
    sys.exit(main())
