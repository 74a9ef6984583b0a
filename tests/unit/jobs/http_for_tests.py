"""Servers of the tests' own, in a thread of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

_POLL_SECONDS = 0.01
"""How soon a server notices that it is to end; half a second by default, which every test would wait for."""


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve until left; connections that are open then are let go."""
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
