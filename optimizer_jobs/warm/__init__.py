"""Checks without the start of Python and Evidently: a host that has imported everything forks a child for each check.

The Job of a check stays what it is. Its container asks the host for the result, and does the check itself where the
host cannot or will not. A host can delay a verdict, and never costs one. What is hostile, a request or a file, harms
only the check that it belongs to. `ask` is what runs in the Job, `hosting` is the host, and `messages` is what both
say to each other.
"""

import os

# Arrow's allocator would start a thread, which a forked child would be without.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
