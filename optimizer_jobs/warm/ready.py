"""What a check host imports before it takes a request, so that no child has to: all that a check may need."""

import gc
import sys
import warnings
from importlib import import_module
from pathlib import Path

from optimizer_jobs.commands.check.column_statistics import load, register
from optimizer_jobs.progress import say

_USED = (
    "optimizer_jobs.commands.check.command",
    "optimizer_jobs.commands.check.watched_quality",
    "evidently",
    "evidently.presets",
    "plotly.graph_objs",
    "plotly.subplots",
    "sklearn.decomposition",
    "scipy.spatial.distance",
)
TASKS = Path("/proc/self/task")
"""Folder with an entry for each thread of this process."""


def get_ready() -> None:
    """Import everything and keep it out of the garbage collector's way; children share what is never written to.

    Raises:
        RuntimeError: A library has started a thread: a forked child would have its locks without it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries use old names of each other's
        for name in _USED:
            import_module(name)
        load()
        register()
    if (threads := len(list(TASKS.iterdir()))) != 1:
        raise RuntimeError(f"a check host has one thread, and this process has {threads}")
    gc.collect()
    gc.freeze()
    say(f"{len(sys.modules)} modules are imported")
