"""A model server of others that is running: given a bundle, it serves it without new pods, and says which one it has.

Whoever talks to a server does so through this Protocol: the judge, which measures through the server's own image, and
the agent beside a server, which gives it the version that its pod is to serve.
"""

from typing import Protocol

from optimizer_jobs.models.bundle import Bundle


class RunningServer(Protocol):
    """One process of a server, on this machine; other servers are other modules."""

    def load(self, bundle: Bundle, *, name: str) -> None:
        """Write a bundle where the server reads it and have it served under `name`; return when it is ready.

        What was served under that name answers until then, and still does where this raises.

        Raises:
            JobError: The server does not answer, or cannot serve the bundle; the message has the server's own words.
        """

    def unload(self, *, name: str) -> None:
        """Have the server serve nothing under `name`, and remove what was written for it.

        Raises:
            JobError: The server does not answer.
        """

    def serves(self, bundle: Bundle, *, name: str) -> bool:
        """Return whether `name` is ready, and is this very bundle by its digest; False where nothing is said of it."""

    def endpoint(self, *, name: str) -> str:
        """Return the URL that requests of the Open Inference Protocol v2 to `name` are sent to, without `/infer`."""
