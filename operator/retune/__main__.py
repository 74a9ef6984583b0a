"""`python -m retune`: the operator's process."""

import asyncio
import gc
import logging
import os
import sys

from retune.cluster.errors import NoCluster
from retune.cluster.leadership import LostLeadership
from retune.notify import SinksError
from retune.runtime import Operator
from retune.settings import Settings, SettingsError

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_COLLECT_AFTER = 20_000
"""Objects made between two looks for unreachable cycles. Python's 700 are made by a handful of watch events."""


SWITCH_SECONDS = 0.0005
"""How soon a thread that reads what others wrote gives way to the event loop; Python's own value is 5 ms."""


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
    gc.freeze()  # what the imports have made stays, and is not looked through again and again
    gc.set_threshold(_COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        asyncio.run(_run(settings))
    except LostLeadership as error:
        sys.stderr.write(f"retune: {error}: another operator works from now on\n")
        return 1
    except SinksError as error:
        sys.stderr.write(f"retune: RETUNE_NOTIFICATIONS names {settings.notifications}: {error}\n")
        return 2
    except NoCluster as error:
        sys.stderr.write(f"retune: {error}\n")
        return 2
    return 0


async def _run(settings: Settings) -> None:
    await Operator(settings).run()


if __name__ == "__main__":
    sys.exit(main())
