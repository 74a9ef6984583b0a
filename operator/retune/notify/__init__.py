"""Transitions told to people and programs elsewhere, by webhook: what a Notice is, who gets it, in which form, and how.

What is told are the operator's own Events, after they were posted. A notice that could not be delivered changes
nothing in the cluster, and no tenant says where notices go: the addresses are the administrator's.
"""

from retune.notify.delivery import Notifier
from retune.notify.notice import Notice
from retune.notify.sinks import Sink, Sinks, SinksError, read_sinks

__all__ = ["Notice", "Notifier", "Sink", "Sinks", "SinksError", "read_sinks"]
